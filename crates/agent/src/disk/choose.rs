//! Chooses the node's disk (pure).
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
//! on purpose is still the node's disk, whatever marker another disk carries. A serial number that several disks have identifies none.
//!
//! With a [`DiskRule`] only disks that fit it are chosen. Markers of other disks do not count, unless it is the disk of the last
//! boot that does not fit: then nothing is chosen, and an administrator decides.

use super::{candidate::Candidate, inspect::Finding};
use rackstrap_wire::{DiskPlan, DiskProblem, DiskRule, Pick, SeenDisk};

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

/// The rule of a plan; none if its disk is `auto` or a kernel name.
fn rule_of(plan: &DiskPlan) -> Result<Option<DiskRule>, NoChoice> {
    if !DiskRule::is_rule(&plan.device) {
        return Ok(None);
    }
    plan.device.parse().map(Some).map_err(|error| NoChoice {
        problem: DiskProblem::NoFit,
        text: format!(
            "the image's agent cannot read the rule '{}' ({error}); clone and seal the image again for a newer agent",
            plan.device
        ),
        may_pass: false,
    })
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
    let rule = rule_of(plan)?;
    let fits = |index: &usize| rule.as_ref().is_none_or(|rule| looked[*index].disk.fits(rule));
    let is_marked = |i: &usize| looked[*i].finding.as_ref().is_ok_and(Finding::is_ours);
    let seen = plan.seen.as_ref();
    let last_boots = seen.map_or_else(Vec::new, |seen| last_boots(looked, seen));
    let marked: Vec<usize> = (0..looked.len()).filter(is_marked).filter(fits).collect();
    let misfit = |index: usize| {
        let text = format!(
            "{} is the disk of the last boot, and does not fit the rule {}",
            named(&looked[index]),
            plan.device
        );
        refuse(DiskProblem::OtherRule, text, false)
    };
    // The disk was wiped on purpose, or overwritten. It is still the node's disk, and the rule for its content applies. A disk that was
    // prepared for another node does not replace it.
    if let (true, Some(seen)) = (last_boots.is_empty(), seen) {
        let has_serial = |index: &usize| !seen.serial.is_empty() && looked[*index].disk.serial == seen.serial;
        let same: Vec<usize> = (0..looked.len()).filter(has_serial).collect();
        match same.as_slice() {
            [] => {}
            [first, rest @ ..]
                if rest
                    .iter()
                    .all(|other| looked[*first].disk.is_same_device(&looked[*other].disk)) =>
            {
                return if fits(first) { Ok(Some(*first)) } else { misfit(*first) };
            }
            several => {
                let names: Vec<String> = several.iter().map(|index| named(&looked[*index])).collect();
                let text = format!(
                    "{} have the serial number {} of the disk of the last boot, and none of them has its marker",
                    names.join(", "),
                    seen.serial
                );
                return refuse(DiskProblem::OneSerial, text, true);
            }
        }
    }
    if let Some(index) = last_boots.iter().find(|index| !fits(index)) {
        return misfit(*index);
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
            if rule.is_none() && wanted != "auto" && *wanted != disk.disk.name && known != Some(true) {
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
            match &rule {
                Some(rule) => pick(looked, rule).map(Some),
                None => {
                    let wanted = |disk: &InspectedDisk| plan.device == "auto" || disk.disk.name == plan.device;
                    Ok(looked.iter().position(wanted))
                }
            }
        }
    }
}

/// The marked disks that are the last boot's. If one has both its marker and its serial number, then another marker on a disk with the
/// same serial number shows that this number is not unique.
fn last_boots(looked: &[InspectedDisk], seen: &SeenDisk) -> Vec<usize> {
    let is_ours = |disk: &InspectedDisk| disk.finding.as_ref().is_ok_and(Finding::is_ours);
    let mut all: Vec<usize> = (0..looked.len())
        .filter(|i| is_ours(&looked[*i]) && is_last_boot(&looked[*i], seen) == Some(true))
        .collect();
    let has_marker = |index: &usize| !seen.marker.is_empty() && looked[*index].marker == seen.marker;
    let has_both = |index: &usize| has_marker(index) && looked[*index].disk.serial == seen.serial;
    if all.iter().any(has_both) {
        all.retain(|index| has_marker(index) || looked[*index].marker.is_empty());
    }
    all
}

/// The one disk without a marker that the rule chooses.
fn pick(looked: &[InspectedDisk], rule: &DiskRule) -> Result<usize, NoChoice> {
    let refuse = |problem, text| {
        Err(NoChoice {
            problem,
            text,
            may_pass: true,
        })
    };
    let mut fitting: Vec<usize> = (0..looked.len())
        .filter(|index| looked[*index].disk.fits(rule))
        .collect();
    let sizes = || fitting.iter().map(|index| looked[*index].disk.size);
    let size = match rule.pick {
        Some(Pick::Smallest) => sizes().min(),
        Some(Pick::Largest) => sizes().max(),
        Some(Pick::First) | None => None,
    };
    fitting.retain(|index| size.is_none_or(|size| looked[*index].disk.size == size));
    if rule.pick == Some(Pick::First) {
        fitting.truncate(1);
    }
    match fitting.as_slice() {
        [] => {
            let here = match looked.is_empty() {
                true => "the node has no disk".to_owned(),
                false => format!("the node has {}", listed(looked.iter())),
            };
            refuse(DiskProblem::NoFit, format!("no disk fits the rule {rule}; {here}"))
        }
        [first, rest @ ..]
            if rest
                .iter()
                .all(|other| looked[*first].disk.is_same_device(&looked[*other].disk)) =>
        {
            Ok(*first)
        }
        several => {
            let text = format!(
                "{} disks fit the rule {rule}: {}",
                several.len(),
                listed(several.iter().map(|index| &looked[*index]))
            );
            refuse(DiskProblem::SeveralFit, text)
        }
    }
}

/// `nvme0n1 (500 GB, nvme, S4EMNX0R), sda (1 TB, sata, Z1W0)`: as many as a message has room for.
fn listed<'a>(disks: impl Iterator<Item = &'a InspectedDisk>) -> String {
    const MOST: usize = 6;
    let one = |disk: &InspectedDisk| {
        let properties = &disk.disk.properties;
        let mut parts = vec![decimal(disk.disk.size)];
        parts.extend(properties.transport.map(|transport| transport.as_str().to_owned()));
        parts.extend(
            Some(rackstrap_wire::text::cut(&properties.serial, 32).to_owned()).filter(|serial| !serial.is_empty()),
        );
        format!("{} ({})", disk.disk.name, parts.join(", "))
    };
    let all: Vec<String> = disks.map(one).collect();
    match all.len().checked_sub(MOST) {
        None | Some(0) => all.join(", "),
        Some(more) => format!("{} and {more} more", all[..MOST].join(", ")),
    }
}

/// `500 GB`, in powers of ten, as disks are sold.
fn decimal(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB")];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| bytes >= *unit)
        .unwrap_or((1, "bytes"));
    format!("{} {name}", bytes / unit)
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
