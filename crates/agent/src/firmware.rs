//! The boot order of UEFI firmware, the entry by which the machine started, and the rounds in which the disk asked the network in vain before a reset.
//!
//! All are variables of the firmware, which Linux shows as files of efivarfs: four bytes of attributes, then the value. A value of the
//! firmware is written only if the profile asks for it (`firmware = "network-first"`) and it differs.

use crate::{
    disk::foreign_esp,
    fail::{Doing, Failure, Res},
    timeline::Timeline,
};
use rackstrap_wire::{MOST_BOOT_ENTRIES, StartedBy, Uefi, text::one_line};
use rustix::{
    fs::{IFlags, ioctl_getflags, ioctl_setflags},
    mount::MountFlags,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

/// The directory exists on a kernel that was started by UEFI.
const EFI: &str = "/sys/firmware/efi";
const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// The vendor GUID of the specification's own variables (UEFI 2.10, 3.3).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The vendor GUID of the variables of `bootscripts/efi/again.c`.
const OURS: &str = "7261636b-7374-4261-9070-726f756e6473";
/// How often the disk's program asked in vain before its resets, and the name that programs of earlier releases on disks give it.
const TOTAL: &str = "RackstrapTotal";
const ROUNDS: &str = "RackstrapRounds";
/// Kept without power, for the firmware and for systems (8.2.1).
const STORED: [u8; 4] = [7, 0, 0, 0];
/// Longest variable that is read. A boot entry has a path and a name.
const LONGEST: u64 = 64 << 10;

/// Reads what the firmware says, and puts the network first in its boot order if `network_first`. None on a BIOS.
pub fn look(timeline: &mut Timeline, network_first: bool) -> Option<Uefi> {
    if !Path::new(EFI).exists() {
        return None;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match rustix::mount::mount("efivarfs", VARIABLES, "efivarfs", flags, Some(c"")) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => {}
        Err(error) => {
            timeline.step(&format!(
                "the boot order of the firmware cannot be read: mounting efivarfs: {error}"
            ));
            return None;
        }
    }
    let variables = Variables(PathBuf::from(VARIABLES));
    let mut uefi = variables.describe();
    if uefi.rounds > 0 {
        timeline.step(&format!(
            "the disk asked the network {} times in vain before its last reset",
            uefi.rounds
        ));
    }
    if network_first && is_behind(&uefi) {
        match variables.put_network_first() {
            Ok(()) => {
                let before = uefi.before_network.join(", ");
                timeline.step(&format!(
                    "the firmware's boot order has the network first now, and no longer {before}"
                ));
                uefi = Uefi {
                    rounds: uefi.rounds,
                    ..variables.describe()
                };
            }
            Err(failure) => timeline.step(&format!("the boot order of the firmware was not changed: {failure}")),
        }
    }
    uefi.foreign_esps = foreign_esp::of_all_disks();
    if let Some(entry) = uefi.started_by.as_ref().filter(|entry| !entry.network) {
        timeline.step(&format!(
            "the machine was started by its boot entry {}, which is not of a network card",
            entry.name
        ));
    }
    Some(uefi)
}

/// Removes the counters of the disk's program, once the server has them.
pub fn forget_rounds() {
    let variables = Variables(PathBuf::from(VARIABLES));
    for name in [ROUNDS, TOTAL] {
        let _ = variables.remove(name, OURS);
    }
}

/// Whether the firmware tries something before the network, or never tries the network (pure).
fn is_behind(uefi: &Uefi) -> bool {
    !uefi.network || !uefi.before_network.is_empty()
}

/// The directory of efivarfs.
struct Variables(PathBuf);

impl Variables {
    fn path(&self, name: &str, vendor: &str) -> PathBuf {
        self.0.join(format!("{name}-{vendor}"))
    }

    /// The value of a variable; none if it is missing or unreadable.
    fn read(&self, name: &str, vendor: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(name, vendor)).ok()?;
        file.take(LONGEST).read_to_end(&mut bytes).ok()?;
        (bytes.len() > 4).then(|| bytes.split_off(4))
    }

    /// Boot entries by number, in the firmware's order. Those that cannot be read are left out.
    fn entries(&self) -> Vec<(u16, Entry)> {
        let order = self.read("BootOrder", GLOBAL).unwrap_or_default();
        let numbers = order.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
        let entry = |number: u16| Some((number, Entry::parse(&self.read(&format!("Boot{number:04X}"), GLOBAL)?)?));
        numbers.filter_map(entry).collect()
    }

    /// The entry by which the firmware started the machine (3.3, `BootCurrent`). It need not be in the order: people can choose it once.
    fn started_by(&self) -> Option<StartedBy> {
        let number = u16::from_le_bytes(self.read("BootCurrent", GLOBAL)?.try_into().ok()?);
        let entry = Entry::parse(&self.read(&format!("Boot{number:04X}"), GLOBAL)?)?;
        Some(StartedBy {
            name: entry.name,
            network: entry.network,
        })
    }

    fn describe(&self) -> Uefi {
        let entries = self.entries();
        let booting = || entries.iter().map(|(_, entry)| entry).filter(|entry| entry.boots);
        let before = booting().take_while(|entry| !entry.network);
        let number = |name| {
            let value = self.read(name, OURS)?;
            Some(u32::from_le_bytes(value.try_into().ok()?))
        };
        let network = booting().any(|entry| entry.network);
        Uefi {
            secure_boot: self.read("SecureBoot", GLOBAL).is_some_and(|value| value == [1]),
            network,
            before_network: before
                .map(|entry| entry.name.clone())
                .take(if network { MOST_BOOT_ENTRIES } else { 0 })
                .collect(),
            rounds: number(ROUNDS).or_else(|| number(TOTAL)).unwrap_or(0),
            started_by: self.started_by(),
            foreign_esps: Vec::new(),
        }
    }

    /// Moves all entries that boot from the network to the start of the order, and keeps the order otherwise.
    fn put_network_first(&self) -> Res<()> {
        let order = self.read("BootOrder", GLOBAL).unwrap_or_default();
        let network: Vec<u16> = (self.entries().into_iter())
            .filter(|(_, entry)| entry.boots && entry.network)
            .map(|(number, _)| number)
            .collect();
        if network.is_empty() {
            return Err(Failure::new(
                "it has no entry for a network card; switch on network boot in the firmware's setup",
            ));
        }
        let new = reordered(&order, &network);
        let path = self.path("BootOrder", GLOBAL);
        let doing = || format!("writing {}", path.display());
        make_mutable(&path).doing(doing)?;
        // efivarfs takes a variable in one write.
        let mut file = OpenOptions::new().write(true).open(&path).doing(doing)?;
        file.write_all(&[&STORED[..], &new].concat()).doing(doing)?;
        // Some firmware confirms a change that it does not make.
        match self.read("BootOrder", GLOBAL) == Some(new) {
            true => Ok(()),
            false => Err(Failure::new("the firmware took the new order and kept the old one")),
        }
    }

    fn remove(&self, name: &str, vendor: &str) -> std::io::Result<()> {
        let path = self.path(name, vendor);
        match make_mutable(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| fs::remove_file(path)),
        }
    }
}

/// efivarfs protects variables that it does not know from `rm -r`, by the attribute of chattr(1).
fn make_mutable(path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    match ioctl_getflags(&file) {
        Ok(flags) if flags.contains(IFlags::IMMUTABLE) => Ok(ioctl_setflags(&file, flags - IFlags::IMMUTABLE)?),
        _ => Ok(()),
    }
}

/// The order with `first` at its start.
fn reordered(order: &[u8], first: &[u16]) -> Vec<u8> {
    let old = order.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let rest = old.filter(|number| !first.contains(number));
    first.iter().copied().chain(rest).flat_map(u16::to_le_bytes).collect()
}

/// A boot entry (UEFI 2.10, 3.1.3).
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// The firmware boots it by itself: it is active, not hidden, and no application such as the setup.
    boots: bool,
    /// Its path has a network card (10.3.4.11).
    network: bool,
    name: String,
}

impl Entry {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let attributes = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let paths = usize::from(u16_at(4)?);
        let units = bytes[6..].chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
        let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        let begin = 6 + 2 * (name.len() + 1);
        let path = bytes.get(begin..)?;
        // LOAD_OPTION_ACTIVE, LOAD_OPTION_HIDDEN, LOAD_OPTION_CATEGORY.
        let boots = attributes & 1 != 0 && attributes & 8 == 0 && attributes & 0x1f00 == 0;
        Some(Entry {
            boots,
            network: has_card(&path[..paths.min(path.len())]),
            name: one_line(&String::from_utf16_lossy(&name), 60),
        })
    }
}

/// Whether a device path has a node with a MAC address.
fn has_card(mut path: &[u8]) -> bool {
    while let [kind, sub, low, high, ..] = *path {
        let length = usize::from(u16::from_le_bytes([low, high]));
        if (kind, sub) == (3, 11) {
            return true;
        }
        match path.get(length..) {
            Some(rest) if length >= 4 => path = rest,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot entry with that name and these nodes of its path.
    fn entry(attributes: u32, name: &str, nodes: &[(u8, u8, usize)]) -> Vec<u8> {
        let mut path = Vec::new();
        for (kind, sub, data) in nodes {
            path.extend([*kind, *sub, (*data + 4) as u8, 0]);
            path.extend(vec![0xaa; *data]);
        }
        let name = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
        let mut bytes = attributes.to_le_bytes().to_vec();
        bytes.extend((path.len() as u16).to_le_bytes());
        bytes.extend(name);
        bytes.extend(path);
        bytes
    }

    const CARD: &[(u8, u8, usize)] = &[(2, 1, 8), (1, 1, 2), (3, 11, 33), (3, 12, 23), (0x7f, 0xff, 0)];
    const DISK: &[(u8, u8, usize)] = &[(4, 1, 38), (4, 4, 20), (0x7f, 0xff, 0)];

    fn machine(order: &[u16], entries: &[(u16, Vec<u8>)]) -> (tempfile::TempDir, Variables) {
        machine_with(TOTAL, order, entries)
    }

    /// A machine whose disk asked five times in vain, by the variable of that name.
    fn machine_with(rounds: &str, order: &[u16], entries: &[(u16, Vec<u8>)]) -> (tempfile::TempDir, Variables) {
        let dir = tempfile::tempdir().unwrap();
        let variables = Variables(dir.path().to_owned());
        let put = |name: &str, vendor: &str, value: &[u8]| {
            fs::write(variables.path(name, vendor), [&STORED[..], value].concat()).unwrap();
        };
        let order: Vec<u8> = order.iter().flat_map(|n| n.to_le_bytes()).collect();
        put("BootOrder", GLOBAL, &order);
        for (number, bytes) in entries {
            put(&format!("Boot{number:04X}"), GLOBAL, bytes);
        }
        put(rounds, OURS, &5u32.to_le_bytes());
        (dir, variables)
    }

    fn usual() -> Vec<(u16, Vec<u8>)> {
        vec![
            // OVMF's setup is the first in its order.
            (0, entry(0x109, "UiApp", DISK)),
            (1, entry(1, "debian", DISK)),
            (2, entry(0, "off", DISK)),
            (0x1a, entry(1, "UEFI PXEv4 (MAC:525400000101)", CARD)),
            (4, entry(1, "UEFI HTTPv4", CARD)),
        ]
    }

    #[test]
    fn entries_before_the_network_are_named() {
        let (_dir, variables) = machine(&[0, 2, 1, 0x1a, 4], &usual());
        let uefi = variables.describe();
        assert_eq!(
            (uefi.before_network, uefi.network, uefi.rounds),
            (vec!["debian".to_owned()], true, 5)
        );
        let (_dir, variables) = machine(&[0, 2, 0x1a, 4, 1], &usual());
        let uefi = variables.describe();
        assert!(uefi.before_network.is_empty() && !is_behind(&uefi));
        // Without an entry for the network there is nothing to be before, and the firmware never tries the network.
        let (_dir, variables) = machine(&[0, 1], &usual());
        let uefi = variables.describe();
        assert!(is_behind(&uefi));
        assert_eq!((uefi.before_network, uefi.network), (Vec::new(), false));
    }

    #[test]
    fn the_network_is_put_first_and_the_order_is_kept_otherwise() {
        let (_dir, variables) = machine(&[0, 2, 1, 0x1a, 9, 4], &usual());
        variables.put_network_first().unwrap();
        let order = [0x1a, 4, 0, 2, 1, 9u16].map(u16::to_le_bytes);
        assert_eq!(variables.read("BootOrder", GLOBAL).unwrap(), order.as_flattened());
        assert!(variables.describe().before_network.is_empty());
        let (_dir, variables) = machine(&[0, 1], &usual());
        let refused = variables.put_network_first().unwrap_err().to_string();
        assert!(refused.contains("no entry for a network card"), "{refused}");
    }

    #[test]
    fn the_entry_by_which_the_machine_started_is_named() {
        let (dir, variables) = machine(&[1, 0x1a], &usual());
        assert_eq!(variables.describe().started_by, None, "firmware that does not say");
        let set = |value: &[u8]| {
            let path = dir.path().join(format!("BootCurrent-{GLOBAL}"));
            fs::write(path, [&[6, 0, 0, 0], value].concat()).unwrap();
            variables.describe().started_by.map(|entry| (entry.name, entry.network))
        };
        assert_eq!(set(&[1, 0]), Some(("debian".to_owned(), false)));
        assert_eq!(
            set(&[0x1a, 0]),
            Some(("UEFI PXEv4 (MAC:525400000101)".to_owned(), true))
        );
        // One that a person chose once, and that is not in the order.
        assert_eq!(set(&[4, 0]), Some(("UEFI HTTPv4".to_owned(), true)));
        for odd in [&[9, 9][..], &[1], &[1, 0, 0], &[]] {
            assert_eq!(set(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn counters_are_forgotten() {
        for name in [TOTAL, ROUNDS] {
            let (_dir, variables) = machine_with(name, &[], &[]);
            assert_eq!(variables.describe().rounds, 5, "{name}");
            for name in [ROUNDS, TOTAL] {
                variables.remove(name, OURS).unwrap();
            }
            assert_eq!(variables.describe().rounds, 0, "{name}");
        }
    }

    #[test]
    fn the_disks_program_counts_under_the_same_name() {
        let program = include_str!("../../../bootscripts/efi/again.c");
        for call in ["get", "set"] {
            let begin = format!("s->runtime->{call}(u\"{TOTAL}\", &ours,");
            assert!(program.contains(&begin), "{begin}");
        }
        // The GUID's first three fields are numbers, the rest bytes (UEFI 2.10, appendix A).
        let digits = OURS.replace('-', "").to_uppercase();
        let bytes: Vec<String> = (16..32)
            .step_by(2)
            .map(|at| format!("0x{}", &digits[at..at + 2]))
            .collect();
        let ours = format!(
            "ours = {{0x{}, 0x{}, 0x{}, {{{}}}}}",
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            bytes.join(", ")
        );
        assert!(program.contains(&ours), "{ours}");
    }

    #[test]
    fn variables_of_odd_firmware_are_read_without_panic() {
        let whole = entry(1, "UEFI PXEv4", CARD);
        for end in 0..whole.len() {
            let _ = Entry::parse(&whole[..end]);
        }
        let mut endless = entry(1, "x", DISK);
        let at = endless.len() - 40;
        endless[at..].fill(0);
        assert!(!Entry::parse(&endless).unwrap().network);
        let mut long = whole.clone();
        long[4..6].fill(0xff);
        assert!(Entry::parse(&long).unwrap().network);
        assert_eq!(Entry::parse(&[1, 0, 0, 0, 4, 0]), None);
        let (dir, variables) = machine(&[1], &[(1, entry(1, "\u{1b}[2J", DISK))]);
        assert!(variables.entries()[0].1.name.chars().all(|c| !c.is_control()));
        fs::write(dir.path().join(format!("BootOrder-{GLOBAL}")), [7, 0, 0, 0, 1]).unwrap();
        assert!(variables.entries().is_empty());
    }
}
