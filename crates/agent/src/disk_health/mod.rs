//! Watches the health of the node's disks while it runs: what the disks say of themselves, and errors that the kernel reports.
//!
//! The pages are read by ioctl. The image's smartctl was weighed: it knows the attributes of hundreds of vendors, but an image need not have it,
//! its output is for one disk and a start of a program each time, and the four facts that matter here are standardised: the NVMe health page, and
//! for ATA the disk's own verdict, its thresholds, and the sectors that it cannot read.
//!
//! A failing disk may hang in the kernel, so a thread reads, and heartbeats take what it found last.

mod ata;
mod kernel;
mod nvme;
mod read;
mod sys;

use rackstrap_wire::{DiskFault, DiskHealth, FaultKind};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

/// Readers of the pages and lines, for fuzzers.
pub use {ata::Smart, kernel::device_with_error, nvme::HealthPage};

/// Time between two reads of the disks' pages. Reading them takes milliseconds, and some disks spin up for it.
const PAGES: Duration = Duration::from_secs(600);
/// Time between two reads of the kernel's messages.
const MESSAGES: Duration = Duration::from_secs(5);

/// What a thread found last; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<Vec<DiskHealth>>>);

impl Watched {
    /// Watches all disks in a thread, which writes to `changed` when the faults change.
    pub fn start(changed: Sender<()>) -> Watched {
        let watched = Watched::default();
        let found = watched.clone();
        // Without a thread nothing is found. The node runs all the same.
        let _ = std::thread::Builder::new().spawn(move || found.watch(&changed));
        watched
    }

    /// The health of the disks as found last; empty before that, and without disks.
    pub fn now(&self) -> Vec<DiskHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn watch(&self, changed: &Sender<()>) {
        let mut kernel = kernel::Messages::open();
        let mut pages: Vec<DiskHealth> = Vec::new();
        let mut due = Instant::now();
        loop {
            if Instant::now() >= due {
                pages = read::disks();
                due = Instant::now() + PAGES;
            }
            kernel.read();
            let now = with_errors(&pages, kernel.errors());
            let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let news = faults(&found) != faults(&now);
            *found = now;
            drop(found);
            if news && changed.send(()).is_err() {
                return;
            }
            std::thread::sleep(MESSAGES);
        }
    }
}

/// The faults of all disks as text, and an empty text for healthy disks. It leaves out numbers that change all the time.
pub fn faults(disks: &[DiskHealth]) -> String {
    let all: Vec<String> = disks
        .iter()
        .map(DiskHealth::describe)
        .filter(|text| !text.is_empty())
        .collect();
    all.join("; ")
}

/// Adds the disks about which the kernel reported errors (pure).
fn with_errors(pages: &[DiskHealth], errors: &BTreeMap<String, u64>) -> Vec<DiskHealth> {
    let mut disks = pages.to_vec();
    for (device, count) in errors.iter().filter(|(_, count)| **count > 0) {
        // A message names a partition where the request was for one.
        let of = |disk: &DiskHealth| disk.device == *device || is_partition(device, &disk.device);
        let Some(disk) = disks.iter_mut().find(|disk| of(disk)) else {
            continue;
        };
        let known = disk.faults.iter().any(|fault| fault.kind == FaultKind::IoErrors);
        if *count > 0 && !known {
            disk.faults.push(DiskFault {
                kind: FaultKind::IoErrors,
                detail: "the kernel reports failed requests; dmesg shows them".to_owned(),
            });
        }
    }
    disks
}

/// Whether `name` is a partition of `disk`: `sda1`, `nvme0n1p2` (pure).
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(rest) = name.strip_prefix(disk).filter(|_| !disk.is_empty()) else {
        return false;
    };
    let digits = match disk.ends_with(|c: char| c.is_ascii_digit()) {
        true => rest.strip_prefix('p').unwrap_or_default(),
        false => rest,
    };
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_are_those_of_the_disk_of_a_partition() {
        let disk = |device: &str| DiskHealth {
            device: device.to_owned(),
            ..DiskHealth::default()
        };
        let pages = [disk("sda"), disk("nvme0n1"), disk("nvme0n12")];
        let errors = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), 3)).collect();
        let text = |names: &[&str]| faults(&with_errors(&pages, &errors(names)));
        let said = "has I/O errors (the kernel reports failed requests; dmesg shows them)";
        assert_eq!(text(&["sda3", "sda"]), format!("sda {said}"));
        assert_eq!(text(&["nvme0n1p2"]), format!("nvme0n1 {said}"));
        assert_eq!(text(&["nvme0n12"]), format!("nvme0n12 {said}"));
        assert_eq!(text(&["sdb", "loop0", "sdax", ""]), "");
    }
}
