//! The boot of a node whose image is FreeBSD, until its kernel runs.
//!
//! Firmware fetches the loader from the node's image. That request pins the boot, as the request for a script does for Linux: it is on
//! disk before the first byte of the loader is sent. The loader then asks DHCP for its root path ([`FreeBsd::root_of`]) and mounts it.

use crate::pinning::Pinning;
use rackstrap_base::{clock::Timestamp, firmware::Firmwares, sync::lock};
use rackstrap_catalog::ImageVersion;
use rackstrap_model::decide::{Decision, NodeDecision, Requester, SharedWorld, World, decide, freebsd_file};
use rackstrap_registries::{
    boots::Boot,
    timeline::{Event, EventKind, Level, Subject},
};
use rackstrap_wire::{FIRST_USER_PORT, HwAddr};
use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// A request for the loader within this many milliseconds of the last one belongs to the same boot: UEFI asks for the size of a file first,
/// and all firmware repeats requests.
const SAME_BOOT_MS: u64 = 30_000;
/// `nolockd` (nfs_parse_options in sys/nfs/nfs_diskless.c of FreeBSD): locks of files stay on the node, because this server has no lock
/// manager. `boot.nfsroot.options` in the image's `/boot/loader.conf` replaces it.
const NFS_OPTIONS: &str = "boot.nfsroot.options=nolockd";

/// The last boot of each node whose loader has mounted its root; clones share it.
#[derive(Clone, Default)]
pub struct Mounted(Arc<Mutex<HashMap<String, String>>>);

/// Pins boots of FreeBSD; clones share them.
#[derive(Clone)]
pub struct FreeBsd {
    pub world: SharedWorld,
    /// Pins the boots.
    pub pinning: Pinning,
    /// What firmware said of itself, from which the variant of the image follows.
    pub firmware: Arc<Firmwares>,
    /// See [`Mounted`].
    pub mounted: Mounted,
}

impl FreeBsd {
    /// The file of the loader that is served as `name`, for the node at `address`; none if `name` is not one of FreeBSD's. Pins the
    /// node's boot if its firmware asks.
    ///
    /// # Errors
    /// Why there is none for that address.
    pub async fn file(&self, address: Ipv4Addr, name: &str) -> Option<Result<PathBuf, String>> {
        let file = freebsd_file(name)?;
        Some(self.file_of(address, file).await)
    }

    async fn file_of(&self, address: Ipv4Addr, file: &'static str) -> Result<PathBuf, String> {
        let node = self.world.load().inventory.by_ipaddr(address).cloned();
        let node =
            node.ok_or_else(|| format!("{address} is not a node; only nodes get the loader of a FreeBSD image"))?;
        let now = Timestamp::now();
        if let Some(boot) = self.pinning.begun(&node.name, SAME_BOOT_MS)
            && self.is_freebsd(&boot)
        {
            return path_of(&self.world.load(), &boot, file);
        }
        if !self.pinning.windows.is_open(&node.name, now) {
            return Err(format!("{} has to ask DHCP before it boots", node.name));
        }
        self.pinning.wait_for_last_boot(&node.name).await;
        let world = self.world.load_full();
        let card = self.firmware.booted(&node.hwaddrs, address);
        let requester = Requester {
            hwaddr: card,
            ipaddr: Some(address),
            arch: card.and_then(|card| self.firmware.of(card)),
            ..Requester::default()
        };
        match decide(&world, &requester) {
            Decision::Node(decision) => {
                let boot = self.pin(&world, &decision, card, file).await?;
                path_of(&world, &boot, file)
            }
            Decision::Unknown { .. } => Err(format!("{address} is not a node in a subnet of the site file")),
        }
    }

    fn is_freebsd(&self, boot: &Boot) -> bool {
        let world = self.world.load();
        (world.images.of_plan(&boot.plan)).is_some_and(|version| version.is_freebsd())
    }

    async fn pin(
        &self,
        world: &World,
        decision: &NodeDecision,
        card: Option<HwAddr>,
        file: &str,
    ) -> Result<Arc<Boot>, String> {
        let node = &decision.node;
        let pinning = &self.pinning;
        let doubted = self.pinning.windows.is_doubted(&node.name);
        let refuse = |problem: String| {
            pinning.refuse(&node.name, &problem);
            problem
        };
        let hwaddr = card.ok_or_else(|| refuse(format!("{} has no card", node.name)))?;
        let plan = decision.plan(&world.site, hwaddr, "").map_err(refuse)?;
        let version = world.images.of_plan(&plan);
        if !version.is_some_and(|version| version.is_freebsd()) {
            return Err(refuse(format!("image {} is not FreeBSD", plan.image)));
        }
        // Its reporter asks from a port that only root can use. Its loader gets few of the settings, and no kernel arguments.
        let boot = pinning.open(plan, true, doubted, None, None).await?;
        pinning.announce(&boot, format!("boots {} by its {file}", boot.export_name()));
        Ok(boot)
    }

    /// The export whose root the loader of that node mounts: that of its pinned boot, or else of `decided`. None if it is not FreeBSD.
    pub fn root_of(&self, node: &str, decided: Option<&ImageVersion>, is_loader: bool) -> Option<String> {
        let pinned = is_loader.then(|| self.pinning.boots.current(node)).flatten();
        let pinned = pinned.filter(|boot| boot.ready.is_none() && self.is_freebsd(boot));
        let decided = || Some(decided.filter(|version| version.is_freebsd())?.export_name());
        pinned.map(|boot| boot.export_name()).or_else(decided)
    }

    /// The loader's and the kernel's variables. `url` is the beginning of all URLs of this server.
    pub fn settings(url: &str) -> Vec<String> {
        vec![NFS_OPTIONS.to_owned(), format!("rackstrap.url={url}")]
    }

    /// The loader mounts the root again for each file that it opens. True if this mount by the node is one of those. The first mount of a
    /// boot is recorded as the beginning of the transfer of the kernel. A mount closes the node's boot window.
    pub fn mounts(&self, node: &str, peer: SocketAddr, export: &str) -> bool {
        let Some(boot) = self.pinning.boots.current(node) else {
            return false;
        };
        let is_own = peer.port() < FIRST_USER_PORT && boot.export_name() == export;
        if !is_own || boot.redeemed || !self.is_freebsd(&boot) {
            return false;
        }
        // The kernel runs next, and then users are on the node. Firmware opens the window again by DHCP.
        self.pinning.windows.close(node);
        let before = lock(&self.mounted.0).insert(node.to_owned(), boot.plan.id.clone());
        if before.as_ref() == Some(&boot.plan.id) {
            return true;
        }
        if !boot.doubted {
            self.pinning.rollouts.took(&boot, Timestamp::now());
        }
        let kind = EventKind::kernel(boot.doubted);
        let detail = format!("FreeBSD's loader reads the kernel of {export} by NFS");
        let event = Event::new(Timestamp::now(), kind, Level::Ok, detail).of_boot(&boot.plan.id);
        self.pinning.recorder.record(Subject::Node(node.to_owned()), event);
        false
    }

    /// The boot of FreeBSD that the system of `node` is in: the newest one whose root was mounted or that was claimed. A later request for
    /// a script does not change it. If no mount is known, because the daemon was restarted since, it is the newest boot that is not in doubt.
    pub fn running(&self, node: &str) -> Option<Arc<Boot>> {
        let mounted = lock(&self.mounted.0).get(node).cloned();
        let boots = &self.pinning.boots;
        let boot = match mounted {
            Some(id) => (boots.of_node(node).into_iter()).find(|boot| boot.redeemed || boot.plan.id == id),
            None => boots.current(node),
        };
        boot.filter(|boot| self.is_freebsd(boot))
    }

    /// True if a node boots or runs FreeBSD, or would boot it next: then the loader's NFS by UDP is needed.
    pub fn is_wanted(&self) -> bool {
        let world = self.world.load();
        let is_freebsd = |version: &&Arc<ImageVersion>| version.variants().any(ImageVersion::is_freebsd);
        let mut versions = world.images.iter().filter(is_freebsd).peekable();
        if versions.peek().is_none() {
            return false;
        }
        let in_use = self.pinning.boots.images_in_use();
        let profiles = world.site.profiles.values();
        // Each version is compared with all names.
        let named: HashSet<&str> = profiles.filter_map(|profile| profile.image.as_deref()).collect();
        versions.any(|version| {
            let image = &version.manifest.image;
            in_use.contains(image) || named.contains(image.name.as_str()) || named.contains(image.to_string().as_str())
        })
    }
}

fn path_of(world: &World, boot: &Boot, file: &str) -> Result<PathBuf, String> {
    let version = world.images.of_plan(&boot.plan);
    let version = version.filter(|version| version.manifest.loaders.contains_key(file));
    let version = version.ok_or_else(|| format!("image {} has no {file}", boot.export_name()))?;
    Ok(version.dir.join(file))
}

#[cfg(test)]
mod tests;
