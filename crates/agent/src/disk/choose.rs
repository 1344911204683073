//! Which disk is the node's (pure, apart from reading sysfs).
//!
//! Kernel names change places from boot to boot, so they decide only where nothing better is known:
//!
//! 1. A disk with a rackstrap marker is the disk. Of several, the one with the last boot's marker is, as the others were prepared for
//!    other nodes.
//! 2. Several that fit, or a marked one that is not the last boot's, or none where the last boot had one: nothing is chosen,
//!    and nothing is written. An administrator says which one it is.
//! 3. Without any marker: the disk that the profile names, or with `auto` the first fixed one, NVMe before SATA, SAS and
//!    virtio, these before eMMC and SD cards (slow, and worn out by /tmp and swap), USB last (it comes and goes).
//!
//! The last boot's disk is known by its marker's number or by its serial number: one that an administrator wiped on
//! purpose is still the disk, whatever marker another disk carries.

use super::inspect::Finding;
use rackstrap_wire::{DiskPlan, DiskProblem, SeenDisk};
use std::{fs, path::Path};

/// What the kernel says about a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Kernel name, `nvme0n1`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Removable medium (CD drives, many USB sticks).
    pub removable: bool,
    /// Write-protected.
    pub read_only: bool,
    /// One path of a multipath NVMe device.
    pub hidden: bool,
    /// Connected by USB.
    pub usb: bool,
    /// World-wide name or serial number; empty if the device has none.
    pub serial: String,
}

/// A disk that was looked at.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The disk.
    pub disk: Candidate,
    /// What it holds, or why it cannot be read.
    pub finding: Result<Finding, String>,
    /// Number of its marker, 8 hex digits; empty without one.
    pub marker: String,
}

/// Why no disk was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoChoice {
    /// The kind.
    pub problem: DiskProblem,
    /// The disks and what is wrong with them, for people.
    pub text: String,
    /// A disk that is still to appear may change it.
    pub may_pass: bool,
}

/// Devices that are made of other devices or of memory, or never are a node's disk.
const VIRTUAL: &[&str] = &[
    "loop", "ram", "zram", "sr", "fd", "nbd", "dm-", "md", "mtdblock", "drbd", "rbd", "bcache",
];

/// Where a device says what it is: NVMe and SCSI have a world-wide name, virtio a serial number, eMMC and SD a card
/// identification. The serial number of an NVMe controller comes last, as its namespaces share it.
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
                // In units of 512 bytes, whatever the disk's own blocks are.
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

/// At most 128 letters and single blanks.
fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let text = words.join(" ");
    text.chars()
        .filter(|c| *c == ' ' || c.is_ascii_graphic())
        .take(128)
        .collect()
}

/// True for disks that may be a node's.
pub fn is_fixed(disk: &Candidate) -> bool {
    let name = &disk.name;
    let is_virtual = VIRTUAL.iter().any(|v| name.starts_with(v));
    let is_boot_area = name.starts_with("mmcblk") && (name.contains("boot") || name.ends_with("rpmb"));
    disk.size > 0 && !disk.removable && !disk.hidden && !disk.read_only && !is_virtual && !is_boot_area
}

/// Those that count for a plan that wants `wanted` (`auto` or a kernel name), the one that is preferred first.
pub fn of_interest(mut all: Vec<Candidate>, wanted: &str) -> Vec<Candidate> {
    all.retain(|disk| is_fixed(disk) || disk.name == wanted);
    // sdb before sdaa: the kernel counts with letters.
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

/// Finds the node's disk. `looked` is in the order of [`of_interest`]. Returns its index, or none if there is no disk.
pub fn choose(looked: &[Looked], plan: &DiskPlan) -> Result<Option<usize>, NoChoice> {
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
        .filter(|i| seen.is_some_and(|seen| is_seen(&looked[*i], seen) == Some(true)))
        .collect();
    // Wiped on purpose, or overwritten: it is still this one, and the rule for its content applies. A disk that was prepared for
    // another node does not take its place.
    let is_seens = |disk: &Looked| seen.is_some_and(|seen| !seen.serial.is_empty() && disk.disk.serial == seen.serial);
    if last_boots.is_empty()
        && let Some(index) = looked.iter().position(is_seens)
    {
        return Ok(Some(index));
    }
    match if last_boots.is_empty() { &marked } else { &last_boots }.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| one_disk(&looked[*first], &looked[*other])) => {
            let disk = &looked[*first];
            let known = seen.and_then(|seen| is_seen(disk, seen));
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
            let wanted = |disk: &Looked| plan.device == "auto" || disk.disk.name == plan.device;
            Ok(looked.iter().position(wanted))
        }
    }
}

/// Whether nothing that appears later can change that this disk is the node's: all that is known of the last boot's disk fits it.
pub fn is_certain(disk: &Looked, plan: &DiskPlan) -> bool {
    let Some(seen) = &plan.seen else { return false };
    // A disk that was wiped on purpose has no marker any more.
    let unlike = |here: &str, there: &str| !here.is_empty() && !there.is_empty() && here != there;
    let differs = unlike(&disk.marker, &seen.marker) || unlike(&disk.disk.serial, &seen.serial);
    !differs && is_seen(disk, seen) == Some(true)
}

/// Whether a marked disk is the last boot's; none if nothing that identifies it is known.
fn is_seen(disk: &Looked, seen: &SeenDisk) -> Option<bool> {
    let same = |a: &str, b: &str| (!a.is_empty() && !b.is_empty()).then(|| a == b);
    let (marker, serial) = (same(&disk.marker, &seen.marker), same(&disk.disk.serial, &seen.serial));
    // Either will do: a copy on a new disk has the marker, and an older agent gives the same disk a new one.
    marker.max(serial)
}

/// One disk that is reached over two paths, as a SAS disk with two ports is. A copy has another serial number.
fn one_disk(a: &Looked, b: &Looked) -> bool {
    !a.disk.serial.is_empty() && a.disk.serial == b.disk.serial && a.marker == b.marker
}

/// `the disk of the last boot (nvme0n1, S1234)`.
fn shown(seen: &SeenDisk) -> String {
    let comma = if seen.serial.is_empty() { "" } else { ", " };
    format!("the disk of the last boot ({}{comma}{})", seen.device, seen.serial)
}

/// `nvme0n1 (scratch v1)`.
pub fn named(looked: &Looked) -> String {
    format!("{} ({})", looked.disk.name, what(looked))
}

/// What a disk holds, in a few words.
pub fn what(looked: &Looked) -> String {
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
