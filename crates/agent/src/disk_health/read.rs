//! Reads the health of all disks of this machine: sysfs names them, and each is asked in the language of its kind.

use super::{
    ata::{self, Smart},
    nvme::HealthPage,
    sys,
};
use rackstrap_wire::{DiskFault, DiskHealth, FaultKind, MOST_HEALTH};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// How the names of disks begin. Other block devices consist of these, or of memory.
const DISKS: [&str; 5] = ["nvme", "sd", "vd", "mmcblk", "xvd"];

/// The health of all fixed disks, by name. A disk that says nothing is listed without facts.
pub fn disks() -> Vec<DiskHealth> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| DISKS.iter().any(|begin| name.starts_with(begin)))
        .collect();
    names.sort();
    names.truncate(MOST_HEALTH);
    names.iter().filter_map(|name| disk(name)).collect()
}

fn disk(name: &str) -> Option<DiskHealth> {
    let dir = Path::new("/sys/block").join(name);
    let attribute = |path: &str| {
        let text = fs::read_to_string(dir.join(path)).unwrap_or_default();
        text.trim().to_owned()
    };
    // A medium that can be taken out, and the paths of a multipath disk, are no disks of the node.
    if attribute("removable") == "1" || attribute("hidden") == "1" || attribute("size") == "0" {
        return None;
    }
    let serial = ["device/serial", "serial", "wwid", "device/wwid"].map(attribute);
    let mut health = DiskHealth {
        device: name.to_owned(),
        serial: serial.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
        ..DiskHealth::default()
    };
    // O_NONBLOCK: a drive without a medium does not wait for one.
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        options.open(Path::new("/dev").join(name)).ok()
    };
    if name.starts_with("nvme") {
        if let Some(file) = open() {
            ask_nvme(&file, &mut health);
        }
    } else if attribute("device/vendor") == "ATA"
        && let Some(file) = open()
    {
        ask_ata(&file, attribute("queue/rotational") == "1", &mut health);
    }
    let known = health.faults.iter().any(|fault| fault.kind == FaultKind::ReadOnly);
    if attribute("ro") == "1" && !known {
        health.faults.push(DiskFault {
            kind: FaultKind::ReadOnly,
            detail: "the kernel writes nothing to it".to_owned(),
        });
    }
    Some(health)
}

fn ask_nvme(file: &File, health: &mut DiskHealth) {
    let page = sys::nvme_health(file).ok();
    let Some(page) = page.and_then(|page| HealthPage::parse(&page)) else {
        return;
    };
    health.celsius = page.celsius;
    health.used_percent = Some(page.used_percent);
    health.hours = Some(page.hours);
    health.media_errors = Some(page.media_errors);
    health.faults = page.faults();
}

fn ask_ata(file: &File, rotates: bool, health: &mut DiskHealth) {
    let data = sys::smart_table(file, sys::SmartTable::Data).unwrap_or_default();
    let thresholds = sys::smart_table(file, sys::SmartTable::Thresholds).unwrap_or_default();
    let verdict = sys::smart_status(file).ok().and_then(|sense| ata::verdict(&sense));
    let smart = Smart::parse(&data, &thresholds).unwrap_or_default();
    health.celsius = smart.celsius;
    health.hours = smart.hours;
    health.media_errors = smart.unreadable;
    health.faults = smart.faults(verdict, rotates);
}
