//! The health of a node's disks as it was reported last, and since when each fault is there (pure).

use rackstrap_base::clock::Timestamp;
use rackstrap_wire::{DiskHealth, FaultKind, bounded_health};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The health of one disk, as its node reported it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHealth {
    /// The report.
    #[serde(flatten)]
    pub health: DiskHealth,
    /// When each fault of the report was reported first, by its kind; empty for a healthy disk.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<FaultKind, Timestamp>,
}

impl KnownHealth {
    /// Whether it is the same disk: by its serial number, or by its name if it has none.
    fn is(&self, other: &DiskHealth) -> bool {
        match self.health.serial.is_empty() && other.serial.is_empty() {
            true => self.health.device == other.device,
            false => self.health.serial == other.serial,
        }
    }
}

/// What is known after `report`. A fault that was known before keeps its time, whatever name the disk has now; one that is not reported any more
/// is gone.
pub fn follow(before: &[KnownHealth], report: Vec<DiskHealth>, now: Timestamp) -> Vec<KnownHealth> {
    let known = |health: DiskHealth| {
        let same = before.iter().find(|known| known.is(&health));
        let since = |kind: FaultKind| same.and_then(|known| known.since.get(&kind).copied()).unwrap_or(now);
        KnownHealth {
            since: health
                .faults
                .iter()
                .map(|fault| (fault.kind, since(fault.kind)))
                .collect(),
            health,
        }
    };
    bounded_health(report).into_iter().map(known).collect()
}

/// Whether the change from `before` is worth a write: temperatures and hours change all the time, and are written with what is.
pub fn is_news(before: &[KnownHealth], after: &[KnownHealth]) -> bool {
    let facts = |known: &KnownHealth| {
        let DiskHealth {
            device,
            serial,
            faults,
            used_percent,
            media_errors,
            ..
        } = &known.health;
        (
            device.clone(),
            serial.clone(),
            faults.clone(),
            *used_percent,
            *media_errors,
        )
    };
    before.iter().map(facts).ne(after.iter().map(facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::DiskFault;

    fn disk(device: &str, serial: &str, kinds: &[FaultKind]) -> DiskHealth {
        DiskHealth {
            device: device.to_owned(),
            serial: serial.to_owned(),
            faults: kinds
                .iter()
                .map(|kind| DiskFault {
                    kind: *kind,
                    detail: String::new(),
                })
                .collect(),
            ..DiskHealth::default()
        }
    }

    #[test]
    fn a_fault_keeps_its_time_while_it_is_reported_and_the_disk_its_faults() {
        use FaultKind::{Failing, Hot, Worn};
        let first = follow(
            &[],
            vec![disk("sda", "A", &[Failing]), disk("sdb", "B", &[])],
            Timestamp(1),
        );
        assert!(is_news(&[], &first));
        // The disks change places.
        let second = follow(
            &first,
            vec![disk("sdb", "A", &[Failing, Hot]), disk("sda", "B", &[Worn])],
            Timestamp(2),
        );
        assert_eq!(second[0].since, [(Failing, Timestamp(1)), (Hot, Timestamp(2))].into());
        assert_eq!(second[1].since, [(Worn, Timestamp(2))].into());
        let third = follow(&second, vec![disk("sdb", "A", &[])], Timestamp(3));
        assert!(third[0].since.is_empty() && third.len() == 1);
        let again = follow(&third, vec![disk("sdb", "A", &[Failing])], Timestamp(4));
        assert_eq!(again[0].since, [(Failing, Timestamp(4))].into());
        // Disks without numbers are known by their names.
        let one = follow(&[], vec![disk("vda", "", &[Failing])], Timestamp(1));
        let two = follow(
            &one,
            vec![disk("vda", "", &[Failing]), disk("vdb", "", &[Failing])],
            Timestamp(2),
        );
        assert_eq!(
            (two[0].since[&Failing], two[1].since[&Failing]),
            (Timestamp(1), Timestamp(2))
        );
    }

    #[test]
    fn a_temperature_alone_is_no_news() {
        let known = follow(&[], vec![disk("sda", "A", &[])], Timestamp(1));
        let warmer = DiskHealth {
            celsius: Some(50),
            hours: Some(7),
            ..disk("sda", "A", &[])
        };
        assert!(!is_news(&known, &follow(&known, vec![warmer], Timestamp(2))));
        assert!(is_news(&known, &[]));
    }

    #[test]
    fn a_row_keeps_its_fields() {
        let row = serde_json::json!({
            "device": "sda", "serial": "A", "faults": [{"kind": "failing", "detail": "d"}], "celsius": 40, "since": {"failing": 5},
        });
        let read: KnownHealth = serde_json::from_value(row.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), row);
    }
}
