//! Errors of disks in the kernel's messages: every driver's failed requests end there, also those of disks without a health page.

use crate::kernel_log::KernelLog;
use std::collections::BTreeMap;

/// Most devices that are remembered.
const MOST_DEVICES: usize = 256;
/// Longest name of a device (DISK_NAME_LEN of linux/blkdev.h).
const LONGEST: usize = 32;

/// Counts the errors of each device since the kernel started, as far as its messages reach back.
#[derive(Debug)]
pub struct Messages {
    log: KernelLog,
    errors: BTreeMap<String, u64>,
}

impl Messages {
    /// Reads from the first message that the kernel still has.
    pub fn open() -> Messages {
        Messages {
            log: KernelLog::open(),
            errors: BTreeMap::new(),
        }
    }

    /// Reads the new messages.
    pub fn read(&mut self) {
        let errors = &mut self.errors;
        self.log.each_new(|text| {
            let Some(device) = device_with_error(text) else { return };
            if errors.len() < MOST_DEVICES || errors.contains_key(device) {
                let count = errors.entry(device.to_owned()).or_default();
                *count = count.saturating_add(1);
            }
        });
    }

    /// Errors by device.
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }
}

/// The device whose request failed, by a message of the kernel; none for another message (pure). `blk_print_req_error` in block/blk-mq.c prints
/// `I/O error, dev sda, sector 2048 op 0x0:(READ) ...`, before Linux 5.15 with `blk_update_request: ` in front. Errors of the medium are
/// `critical medium error`. Errors of a path, of a full thin device and of unsupported requests
/// say nothing of the disk's health.
pub fn device_with_error(text: &str) -> Option<&str> {
    let text = text.strip_prefix("blk_update_request: ").unwrap_or(text);
    let rest = [
        "I/O error, dev ",
        "critical medium error, dev ",
        "critical target error, dev ",
    ]
    .iter()
    .find_map(|begin| text.strip_prefix(begin))?;
    let (device, after) = rest.split_once(',')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_!".contains(&b);
    let is_name = !device.is_empty() && device.len() <= LONGEST && device.bytes().all(plain);
    // A disk without the command for discarding or zeroing says so once; that is no fault.
    let harmless = ["(DISCARD)", "(WRITE_ZEROES)", "(SECURE_ERASE)"]
        .iter()
        .any(|op| after.contains(op));
    (is_name && after.starts_with(" sector ") && !harmless).then_some(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn failed_requests_are_found_in_the_messages_of_all_kernels() {
        for (text, device) in [
            (
                "I/O error, dev vda, sector 2048 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
                Some("vda"),
            ),
            (
                "blk_update_request: I/O error, dev sdb, sector 0 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0",
                Some("sdb"),
            ),
            (
                "critical medium error, dev nvme0n1, sector 7814036 op 0x0:(READ) flags 0x0",
                Some("nvme0n1"),
            ),
            ("I/O error, dev sda, sector 2048 op 0x3:(DISCARD) flags 0x800", None),
            ("Buffer I/O error on dev sda1, logical block 0, async page read", None),
            ("I/O error, dev sda", None),
            ("I/O error, dev , sector 5", None),
            ("I/O error, dev s;da, sector 5", None),
            ("critical space allocation error, dev dm-3, sector 5", None),
            ("", None),
        ] {
            assert_eq!(device_with_error(text), device, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_device_is_a_short_name(text in "(I/O error, dev )?[ -~]{0,80}") {
            if let Some(device) = device_with_error(&text) {
                prop_assert!(!device.is_empty() && device.len() <= LONGEST);
            }
        }
    }
}
