//! Chooses the node's disk (pure, apart from reading sysfs).
//!
//! Kernel names change from boot to boot, so they decide only where nothing better is known:
//!
//! 1. A disk with a rackstrap marker is the node's disk. Among several, the disk with the marker of the last boot is: the other ones
//!    were prepared for other nodes.
//! 2. If several disks match, or a marked disk is not the last boot's, or the last boot had a marked disk and none is there, then
//!    nothing is chosen and nothing is written. An administrator decides.
//! 3. Without any marker: the disk that the profile names. With `auto`, the first fixed disk: NVMe before SATA, SAS and virtio,
//!    these before eMMC and SD cards (slow, and worn out by /tmp and swap), and USB last (it may be unplugged).
//!
//! The disk of the last boot is known by the number of its marker or by its serial number. So a disk that an administrator wiped
//! on purpose is still the node's disk, whatever marker another disk carries.

use super::inspect::Finding;
use rackstrap_wire::{DiskPlan, DiskProblem, SeenDisk};
use std::{fs, path::Path};

/// A block device, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Kernel name, `nvme0n1`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Removable medium (CD drives, many USB sticks).
    pub removable: bool,
    /// Whether the device is write-protected.
    pub read_only: bool,
    /// Whether it is one path of a multipath NVMe device.
    pub hidden: bool,
    /// Connected by USB.
    pub usb: bool,
    /// World-wide name or serial number; empty if the device has none.
    pub serial: String,
}

/// A disk and what it holds.
#[derive(Clone, Debug)]
pub struct InspectedDisk {
    /// The disk.
    pub disk: Candidate,
    /// The content of the disk, or why it cannot be read.
    pub finding: Result<Finding, String>,
    /// Number of its marker, 8 hex digits; empty without a marker.
    pub marker: String,
}

/// Why no disk was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoChoice {
    /// The kind of problem.
    pub problem: DiskProblem,
    /// The disks and their problems, for people.
    pub text: String,
    /// Whether a disk that appears later may solve it.
    pub may_pass: bool,
}

/// Devices that consist of other devices or of memory, or that are never a node's disk.
const VIRTUAL: &[&str] = &[
    "loop", "ram", "zram", "sr", "fd", "nbd", "dm-", "md", "mtdblock", "drbd", "rbd", "bcache",
];

/// Files in sysfs that identify a device: NVMe and SCSI have a world-wide name, virtio a serial number, eMMC and SD a card
/// identification. The serial number of an NVMe controller comes last, because its namespaces share it.
const SERIALS: &[&str] = &["wwid", "device/wwid", "serial", "device/cid", "device/serial"];

/// Reads `/sys/block`.
pub fn candidates(sys_block: &Path) -> Vec<Candidate> {
    let names = fs::read_dir(sys_block).into_iter().flatten().flatten();
    names
        .filter_map(|e| e.file_name().into_string().ok())
        .map(|name| {
            let dir = sys_block.join(&name);
            let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
            let read = |file: &str| text(file).trim().parse::<u64>().unwrap_or(0);
            let serials = SERIALS.iter().map(|file| plain(&text(file)));
            Candidate {
                // sysfs counts in units of 512 bytes, whatever the disk's own blocks are.
                size: read("size").saturating_mul(512),
                removable: read("removable") != 0,
                read_only: read("ro") != 0,
                hidden: read("hidden") != 0,
                usb: fs::read_link(&dir).is_ok_and(|path| path.to_string_lossy().contains("/usb")),
                serial: serials.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
                name,
            }
        })
        .collect()
}

/// Cuts a text to 128 characters with single blanks.
fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let text = words.join(" ");
    text.chars()
        .filter(|c| *c == ' ' || c.is_ascii_graphic())
        .take(128)
        .collect()
}

/// True for devices that can be a node's disk.
pub fn is_fixed(disk: &Candidate) -> bool {
    is_drive(disk) && !disk.removable && !disk.read_only
}

/// True for drives from which firmware can boot: those of [`is_fixed`], and removable and write-protected ones.
pub fn is_drive(disk: &Candidate) -> bool {
    let name = &disk.name;
    let is_virtual = VIRTUAL.iter().any(|v| name.starts_with(v));
    let is_boot_area = name.starts_with("mmcblk") && (name.contains("boot") || name.ends_with("rpmb"));
    disk.size > 0 && !disk.hidden && !is_virtual && !is_boot_area
}

/// The disks that a plan for `wanted` (`auto` or a kernel name) may use, the preferred one first.
pub fn of_interest(mut all: Vec<Candidate>, wanted: &str) -> Vec<Candidate> {
    all.retain(|disk| is_fixed(disk) || disk.name == wanted);
    // sdb comes before sdaa: the kernel counts with letters.
    all.sort_by_cached_key(|disk| {
        let name = disk.name.clone();
        (name != wanted, rank(disk), kind(&name).to_owned(), name.len(), name)
    });
    all
}

fn rank(disk: &Candidate) -> u8 {
    match disk.name.as_str() {
        _ if disk.usb => 3,
        name if name.starts_with("mmcblk") => 2,
        name if name.starts_with("nvme") => 0,
        _ => 1,
    }
}

/// Finds the node's disk in `looked`, which is in the order of [`of_interest`]. Returns its index, or none without any disk.
pub fn choose(looked: &[InspectedDisk], plan: &DiskPlan) -> Result<Option<usize>, NoChoice> {
    let refuse = |problem, text, may_pass| {
        Err(NoChoice {
            problem,
            text,
            may_pass,
        })
    };
    let marked: Vec<usize> = (0..looked.len())
        .filter(|i| looked[*i].finding.as_ref().is_ok_and(Finding::is_ours))
        .collect();
    let seen = plan.seen.as_ref();
    let last_boots: Vec<usize> = marked
        .iter()
        .copied()
        .filter(|i| seen.is_some_and(|seen| is_last_boot(&looked[*i], seen) == Some(true)))
        .collect();
    // The disk was wiped on purpose, or overwritten. It is still the node's disk, and the rule for its content applies. A disk that was
    // prepared for another node does not replace it.
    let is_last_boots =
        |disk: &InspectedDisk| seen.is_some_and(|seen| !seen.serial.is_empty() && disk.disk.serial == seen.serial);
    if last_boots.is_empty()
        && let Some(index) = looked.iter().position(is_last_boots)
    {
        return Ok(Some(index));
    }
    match if last_boots.is_empty() { &marked } else { &last_boots }.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| one_disk(&looked[*first], &looked[*other])) => {
            let disk = &looked[*first];
            let known = seen.and_then(|seen| is_last_boot(disk, seen));
            if let (Some(seen), Some(false)) = (seen, known) {
                let text = format!("{} is missing; {} carries another marker", shown(seen), named(disk));
                return refuse(DiskProblem::OtherMarker, text, true);
            }
            let wanted = &plan.device;
            if wanted != "auto" && *wanted != disk.disk.name && known != Some(true) {
                let text = format!("{wanted} is the profile's disk, but {} carries the marker", named(disk));
                return refuse(DiskProblem::OtherName, text, true);
            }
            Ok(Some(*first))
        }
        [_, ..] => {
            let names: Vec<String> = marked.iter().map(|i| named(&looked[*i])).collect();
            let text = format!("several disks carry a rackstrap marker: {}", names.join(", "));
            refuse(DiskProblem::SeveralMarkers, text, false)
        }
        [] => {
            if let Some(seen) = seen {
                return refuse(DiskProblem::Missing, format!("{} is missing", shown(seen)), true);
            }
            let wanted = |disk: &InspectedDisk| plan.device == "auto" || disk.disk.name == plan.device;
            Ok(looked.iter().position(wanted))
        }
    }
}

/// True if no disk that appears later can change the choice: this disk matches all that is known of the last boot's disk.
pub fn is_certain(disk: &InspectedDisk, plan: &DiskPlan) -> bool {
    let Some(seen) = &plan.seen else { return false };
    // A disk that was wiped on purpose has lost its marker.
    let unlike = |here: &str, there: &str| !here.is_empty() && !there.is_empty() && here != there;
    let differs = unlike(&disk.marker, &seen.marker) || unlike(&disk.disk.serial, &seen.serial);
    !differs && is_last_boot(disk, seen) == Some(true)
}

/// Whether a marked disk is the last boot's. None if nothing is known that identifies the last boot's disk.
fn is_last_boot(disk: &InspectedDisk, seen: &SeenDisk) -> Option<bool> {
    let same = |a: &str, b: &str| (!a.is_empty() && !b.is_empty()).then(|| a == b);
    let (marker, serial) = (same(&disk.marker, &seen.marker), same(&disk.disk.serial, &seen.serial));
    // Either is enough: a copy on a new disk has the marker, and an older agent gives the same disk a new marker.
    marker.max(serial)
}

/// True for one disk that is reached over two paths, such as a SAS disk with two ports. A copy has another serial number.
fn one_disk(a: &InspectedDisk, b: &InspectedDisk) -> bool {
    !a.disk.serial.is_empty() && a.disk.serial == b.disk.serial && a.marker == b.marker
}

/// `the disk of the last boot (nvme0n1, S1234)`.
fn shown(seen: &SeenDisk) -> String {
    let comma = if seen.serial.is_empty() { "" } else { ", " };
    format!("the disk of the last boot ({}{comma}{})", seen.device, seen.serial)
}

/// `nvme0n1 (scratch v1)`.
pub fn named(looked: &InspectedDisk) -> String {
    format!("{} ({})", looked.disk.name, what(looked))
}

/// A short description of what a disk holds.
pub fn what(looked: &InspectedDisk) -> String {
    match &looked.finding {
        Ok(finding) => finding.describe(),
        Err(why) => why.clone(),
    }
}

/// `sd` of `sdaa`, `nvme` of `nvme0n1`.
fn kind(name: &str) -> &str {
    let letters = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    match name.get(..2) {
        Some(two @ ("sd" | "vd" | "hd")) => two,
        _ => &name[..letters],
    }
}

/// The name of partition `number`: `vda2`, but `nvme0n1p2`.
pub fn partition_name(disk: &str, number: u32) -> String {
    let p = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{p}{number}")
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
