//! What disks say of their health: the page of NVMe, the tables of ATA, and the kernel's messages about failed requests. True if one of
//! them was understood.

use rackstrap_agent::{HealthPage, Smart, device_with_error};

/// Bytes of a page and of a table.
const PAGE: usize = 512;

pub fn run(input: &[u8]) -> bool {
    let page = HealthPage::parse(input);
    if let Some(page) = &page {
        let faults = page.faults();
        assert!(faults.len() <= 4 && faults.iter().all(|fault| fault.detail.len() < 200));
    }
    let (data, thresholds) = input.split_at(input.len().min(PAGE));
    let smart = Smart::parse(data, thresholds);
    if let Some(smart) = &smart {
        assert!(smart.faults(Some(false), true).len() <= 4);
    }
    let text = String::from_utf8_lossy(input);
    let device = device_with_error(&text);
    assert!(device.is_none_or(|device| !device.is_empty() && device.len() <= 32));
    smart.is_some() || device.is_some() || (page.is_some() && input.len() == PAGE)
}
