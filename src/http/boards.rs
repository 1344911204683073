//! What U-Boot and Raspberry Pi load beside a script: device trees, and the firmware's own files.

use super::{
    answer::Problem,
    ask::ScriptAsk,
    counters::Reason,
    service::{Peer, Service},
    trees,
};
use axum::body::Bytes;
use rackstrap_base::{
    bootname::{BootFile, ScriptLanguage},
    firmware::{RASPBERRY_PI, is_raspberry_pi_card},
    holding::Holding,
    text::quoted,
};
use rackstrap_catalog::ImageVersion;
use rackstrap_model::decide::{Decision, Requester, World, decide};
use rackstrap_registries::{boots::Boot, discovery::LoaderReport};
use rackstrap_wire::HwAddr;
use std::{fs::File, io, sync::Arc, time::Duration};

/// A boot that began within this time is the one that a Raspberry Pi's requests belong to, in milliseconds: it loads its files
/// in seconds, and after a reset its script is a new boot. The boot ROM waits for each file for at most half a minute (TFTP_FILE_TIMEOUT).
const ONE_ATTEMPT_MS: u64 = 60_000;

/// Whether the image has device trees.
pub fn has_device_trees(version: &ImageVersion) -> bool {
    trees::has_device_trees(&version.dir.join("root"), &version.manifest.kernel_release)
}

/// The file of a boot by the name that `config.txt` gives to it.
fn file_of_boot(file: &str) -> Option<BootFile> {
    match file {
        "kernel8.img" => Some(BootFile::Kernel),
        "initramfs" => Some(BootFile::Initramfs),
        _ => None,
    }
}

impl Service {
    /// A device tree of the image of a boot. Reads it from the disk.
    ///
    /// # Errors
    /// The boot does not exist, is another node's, or its image has no such file.
    pub fn device_tree(&self, peer: Peer, id: &str, path: &str) -> Result<Bytes, Problem> {
        let boot = self.boot_to_load(peer, id)?;
        let world = self.snapshot();
        let version = world.images.of_plan(&boot.plan).ok_or_else(|| no_file(path))?;
        let open = trees::device_tree(&version.dir.join("root"), &version.manifest.kernel_release, path);
        self.of_tree(version, "device-trees", path, open)
    }

    /// A file for the Raspberry Pi at the sender's address: `cmdline.txt` is its boot script, `kernel8.img` and `initramfs` are those of
    /// its pinned boot, `config.txt` is rendered, and all others are the image's.
    ///
    /// # Errors
    /// The machine is unknown, has to wait, or its image has no such file.
    pub async fn raspberry_pi(&self, peer: Peer, serial: &str, file: &str) -> Result<Bytes, Problem> {
        let world = self.snapshot();
        let Some(node) = self.node_at(&world, peer) else {
            return Err(self.waiting_board(peer, serial, file));
        };
        let hwaddr = card_of(&node.hwaddrs, |card| self.firmware.of(card)).ok_or_else(|| no_file(file))?;
        if file == "config.txt" {
            let serial_console = decided(&world, hwaddr).is_some_and(|(console, _)| !console.is_empty());
            let text = self.scripts.load().config(&node.name, serial_console);
            return text.map(Bytes::from).map_err(Problem::unavailable);
        }
        let of_boot = file_of_boot(file);
        if file == "cmdline.txt" || (of_boot.is_some() && self.begun(&node.name).is_none()) {
            let asks = ScriptAsk {
                arch: Some(RASPBERRY_PI),
                ..ScriptAsk::new(ScriptLanguage::RaspberryPi, hwaddr, peer)
            };
            let text = self.script(asks).await?;
            if of_boot.is_none() {
                return Ok(text.into());
            }
        }
        let boot = self.begun(&node.name);
        if let Some(of_boot) = of_boot {
            let boot = boot.ok_or_else(|| no_file(file))?;
            return self.boot_bytes(peer, &boot.plan.id, of_boot);
        }
        let version = match &boot {
            Some(boot) => world.images.of_plan(&boot.plan).cloned(),
            None => decided(&world, hwaddr).and_then(|(_, version)| version),
        };
        let version = version.ok_or_else(|| no_file(file))?;
        let open = trees::of_raspberry_pi(&version.dir.join("root"), &version.manifest.kernel_release, file);
        match open {
            // The administrator may have it in place of the image.
            Ok(None) => self.loaders.load().get(file).map_err(|_| no_file(file)),
            open => self.of_tree(&version, "raspberry-pi", file, open),
        }
    }

    /// Records how a transfer of a Raspberry Pi's kernel or initramfs ended, of which `left` bytes were not sent; false for other files.
    pub fn board_transferred(&self, peer: Peer, file: &str, left: u64, took: Duration) -> bool {
        let node = self.node_at(&self.snapshot(), peer);
        let boot = node.and_then(|node| self.begun(&node.name));
        match (file_of_boot(file), boot) {
            (Some(file), Some(boot)) => {
                self.record_transfer(&boot, file, left, took);
                true
            }
            _ => false,
        }
    }

    /// The boot that the Raspberry Pi `node` has begun, if it began just now.
    pub(super) fn begun(&self, node: &str) -> Option<Arc<Boot>> {
        self.pinning.begun(node, ONE_ATTEMPT_MS)
    }

    /// A machine that is not a node: it gets nothing, and its serial number is kept for people.
    fn waiting_board(&self, peer: Peer, serial: &str, file: &str) -> Problem {
        let Some(hwaddr) = (self.holder)(peer.ipv4()) else {
            return no_file(file);
        };
        if self.holding(hwaddr, peer) == Holding::Own && !serial.is_empty() {
            let told = LoaderReport {
                serial: serial.to_owned(),
                vendor: "Raspberry Pi".to_owned(),
                ..LoaderReport::default()
            };
            self.pinning.discovery.report(hwaddr, told);
        }
        let text = format!("unknown machine {hwaddr} - waiting to be racked: rackstrap discover list");
        Problem::not_found(Reason::UnknownPath, text)
    }

    /// The content of a file of the tree. `kind` and `name` identify it among those that are being sent.
    fn of_tree(
        &self,
        version: &ImageVersion,
        kind: &str,
        name: &str,
        open: io::Result<Option<File>>,
    ) -> Result<Bytes, Problem> {
        let failed =
            |error| Problem::unavailable(format!("{name} of {} cannot be read: {error}", version.dir.display()));
        let file = open.map_err(failed)?.ok_or_else(|| no_file(name))?;
        let key = version.dir.join(kind).join(name);
        self.files.read_opened(&key, || Ok(file)).map_err(failed)
    }
}

/// The card of a node by which it boots as a Raspberry Pi, by what its firmware `said` by DHCP; none if the node is another machine.
fn card_of(cards: &[HwAddr], said: impl Fn(HwAddr) -> Option<u16>) -> Option<HwAddr> {
    let pi = cards.iter().find(|card| said(**card) == Some(RASPBERRY_PI));
    // After a restart of the daemon nothing is known of a machine that is in the middle of its boot. Users of other machines get nothing.
    let unknown = || (cards.iter()).find(|card| said(**card).is_none() && is_raspberry_pi_card(**card));
    pi.or_else(unknown).copied()
}

/// The console and the image of a node's next boot.
fn decided(world: &World, hwaddr: HwAddr) -> Option<(String, Option<Arc<ImageVersion>>)> {
    let requester = Requester {
        hwaddr: Some(hwaddr),
        arch: Some(RASPBERRY_PI),
        ..Requester::default()
    };
    match decide(world, &requester) {
        Decision::Node(node) => Some((node.console.clone(), node.image.ok())),
        Decision::Unknown { .. } => None,
    }
}

fn no_file(name: &str) -> Problem {
    let text = format!("the node's image has no {}", quoted(name, 60));
    Problem::not_found(Reason::UnknownPath, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_of_which_nothing_was_heard_is_a_raspberry_pi_only_by_its_vendor() {
        let [pc, pi]: [HwAddr; 2] = ["52:54:00:01:01:01", "dc:a6:32:01:36:c2"].map(|card| card.parse().unwrap());
        let nothing = |_| None;
        assert_eq!(card_of(&[pc], nothing), None);
        assert_eq!(card_of(&[pc, pi], nothing), Some(pi));
        // What firmware said comes first: another vendor's card in a Raspberry Pi, and UEFI on one.
        assert_eq!(
            card_of(&[pi, pc], |card| (card == pc).then_some(RASPBERRY_PI)),
            Some(pc)
        );
        assert_eq!(card_of(&[pi], |_| Some(11)), None);
    }
}
