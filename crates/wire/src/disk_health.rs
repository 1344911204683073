//! The health of a node's disks, as its agent reads it from the disks and from the kernel.

use crate::text::{cut, one_line};
use serde::{Deserialize, Serialize};

/// Most disks in one report.
pub const MOST_HEALTH: usize = 64;
/// Most faults of one disk in a report: one of each kind.
const MOST_FAULTS: usize = 8;
/// Bytes of a text that are kept.
const TEXT: usize = 128;

/// The health of one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskHealth {
    /// Kernel name, `nvme0n1`.
    pub device: String,
    /// Its serial number or world-wide name, at most 128 bytes; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// What is wrong with it; empty for a healthy disk, and for one that reports nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<DiskFault>,
    /// Its temperature in degrees Celsius; none if it reports none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<i16>,
    /// How much of its rated life is used, in percent: more than 100 is possible. None if it reports none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_percent: Option<u8>,
    /// Hours for which it was switched on; none if it reports none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<u64>,
    /// Errors of its medium since it was made; none if it reports none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_errors: Option<u64>,
}

/// One fault of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFault {
    /// The kind.
    pub kind: FaultKind,
    /// What the disk or the kernel reports, for people, at most 128 bytes.
    pub detail: String,
}

/// The kinds of faults of disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The disk itself expects to fail.
    Failing,
    /// Reads or writes failed.
    IoErrors,
    /// The disk accepts no writes.
    ReadOnly,
    /// Its rated life is used up.
    Worn,
    /// It is hotter than it may be.
    Hot,
    /// A kind of a newer agent.
    #[serde(other)]
    Unknown,
}

impl FaultKind {
    /// The kind in words, after the name of the disk: `is failing`.
    pub fn describe(self) -> &'static str {
        match self {
            FaultKind::Failing => "is failing",
            FaultKind::IoErrors => "has I/O errors",
            FaultKind::ReadOnly => "is read-only",
            FaultKind::Worn => "is worn out",
            FaultKind::Hot => "is too hot",
            FaultKind::Unknown => "has a fault",
        }
    }
}

impl DiskHealth {
    /// The faults as text: `nvme0n1 is failing (its spare blocks are used up)`; empty for a healthy disk.
    pub fn describe(&self) -> String {
        let faults = self.faults.iter().map(|fault| match fault.detail.as_str() {
            "" => format!("{} {}", self.device, fault.kind.describe()),
            detail => format!("{} {} ({detail})", self.device, fault.kind.describe()),
        });
        faults.collect::<Vec<_>>().join("; ")
    }
}

/// A report with limits on its length, and with printable texts.
pub fn bounded(mut disks: Vec<DiskHealth>) -> Vec<DiskHealth> {
    disks.truncate(MOST_HEALTH);
    for disk in &mut disks {
        disk.device = one_line(&disk.device, 32);
        disk.serial = one_line(&disk.serial, TEXT);
        disk.faults.truncate(MOST_FAULTS);
        for fault in &mut disk.faults {
            fault.detail = one_line(cut(&fault.detail, TEXT), TEXT);
        }
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_short_and_printable_and_a_kind_of_a_newer_agent_is_read() {
        let fault = DiskFault {
            kind: FaultKind::Failing,
            detail: format!("\u{1b}[2J\n{}", "x".repeat(9000)),
        };
        let disk = DiskHealth {
            device: "sda\n".to_owned(),
            faults: vec![fault; 100],
            ..DiskHealth::default()
        };
        let report = bounded(vec![disk; 1000]);
        assert_eq!((report.len(), report[0].faults.len()), (MOST_HEALTH, MOST_FAULTS));
        let text = report[0].describe();
        assert!(text.len() < 2000 && !text.contains(char::is_control), "{text}");
        let newer = r#"{"device":"sda","faults":[{"kind":"slow","detail":"9 ms"}],"colour":"red"}"#;
        let read: DiskHealth = serde_json::from_str(newer).unwrap();
        assert_eq!(read.describe(), "sda has a fault (9 ms)");
        assert_eq!(DiskHealth::default().describe(), "");
    }
}
