//! The health page of NVMe: log page 02h, "SMART / Health Information" (NVM Express Base Specification 2.0c, 5.16.1.3) (pure).

use rackstrap_wire::{DiskFault, FaultKind};

/// Bytes of the page.
pub const PAGE: usize = 512;

/// The facts of the page that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthPage {
    /// Critical Warning: one bit for each.
    warnings: u8,
    /// Degrees Celsius; none if the disk reports none.
    pub celsius: Option<i16>,
    /// Available Spare, and its threshold, in percent.
    spare: (u8, u8),
    /// Percentage Used: of the rated life; 255 is that and more.
    pub used_percent: u8,
    /// Power On Hours.
    pub hours: u64,
    /// Media and Data Integrity Errors.
    pub media_errors: u64,
}

impl HealthPage {
    /// Reads the page; none if it is not one: a disk without the page may answer with zeroes.
    pub fn parse(page: &[u8]) -> Option<HealthPage> {
        if page.len() < PAGE || page[..PAGE].iter().all(|byte| *byte == 0) {
            return None;
        }
        // Counters have 128 bits. What does not fit 64 is not a count that a disk can reach.
        let counter = |at: usize| {
            let low = u64::from_le_bytes(page.get(at..at + 8)?.try_into().ok()?);
            let high = page.get(at + 8..at + 16)?;
            Some(if high.iter().any(|byte| *byte != 0) {
                u64::MAX
            } else {
                low
            })
        };
        let kelvin = u16::from_le_bytes([page[1], page[2]]);
        Some(HealthPage {
            warnings: page[0],
            celsius: (kelvin > 0).then(|| i16::try_from(i32::from(kelvin) - 273).unwrap_or(i16::MAX)),
            spare: (page[3], page[4]),
            used_percent: page[5],
            hours: counter(128)?,
            media_errors: counter(160)?,
        })
    }

    /// What the page says is wrong.
    pub fn faults(&self) -> Vec<DiskFault> {
        let (spare, least) = self.spare;
        let warns = |bit: u8| self.warnings & (1 << bit) != 0;
        let failing = [
            (
                warns(0) || (least > 0 && least <= 100 && spare < least),
                format!("its spare blocks are used up: {spare}% are left, and {least}% are the least"),
            ),
            (
                warns(2),
                "its reliability is degraded by errors of the medium".to_owned(),
            ),
            (warns(4), "its protection against power loss failed".to_owned()),
        ];
        let fault = |kind, detail: String| DiskFault { kind, detail };
        let mut all = Vec::new();
        if let Some((_, detail)) = failing.into_iter().find(|(is, _)| *is) {
            all.push(fault(FaultKind::Failing, detail));
        }
        if warns(3) {
            all.push(fault(FaultKind::ReadOnly, "it went into read-only mode".to_owned()));
        }
        if self.used_percent >= 100 {
            all.push(fault(
                FaultKind::Worn,
                "100% of its rated life or more is used".to_owned(),
            ));
        }
        if warns(1) {
            all.push(fault(FaultKind::Hot, "its temperature is beyond its limit".to_owned()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The page of a healthy drive, byte for byte as `nvme get-log /dev/nvme0 -i 2 -l 512 -b` prints it, without its zeroes.
    fn healthy() -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[..6].copy_from_slice(&[0, 0x35, 0x01, 100, 10, 3]);
        page[128..130].copy_from_slice(&4711_u16.to_le_bytes());
        page
    }

    fn kinds(page: &[u8]) -> Vec<FaultKind> {
        let faults = HealthPage::parse(page).unwrap().faults();
        faults.iter().map(|fault| fault.kind).collect()
    }

    #[test]
    fn each_fault_of_the_page_is_named() {
        let page = HealthPage::parse(&healthy()).unwrap();
        assert_eq!((page.celsius, page.used_percent, page.hours), (Some(36), 3, 4711));
        assert_eq!(kinds(&healthy()), []);
        for (at, value, kind) in [
            (0, 0x01, FaultKind::Failing),
            (0, 0x02, FaultKind::Hot),
            (0, 0x04, FaultKind::Failing),
            (0, 0x08, FaultKind::ReadOnly),
            (0, 0x10, FaultKind::Failing),
            (3, 9, FaultKind::Failing),
            (5, 100, FaultKind::Worn),
            (5, 255, FaultKind::Worn),
        ] {
            let mut page = healthy();
            page[at] = value;
            assert_eq!(kinds(&page), [kind], "byte {at} is {value}");
        }
        let mut page = healthy();
        page[0] = 0xff;
        use FaultKind::{Failing, Hot, ReadOnly};
        assert_eq!(kinds(&page), [Failing, ReadOnly, Hot], "one of each kind");
        // A threshold that is no percentage says nothing.
        page[..5].copy_from_slice(&[0, 0x35, 0x01, 90, 255]);
        assert_eq!(kinds(&page), []);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        assert_eq!(HealthPage::parse(&[0; PAGE]), None);
        assert_eq!(HealthPage::parse(&healthy()[..PAGE - 1]), None);
        assert_eq!(HealthPage::parse(&[]), None);
    }

    proptest! {
        #[test]
        fn any_page_is_read_with_at_most_one_fault_of_each_kind(page in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(read) = HealthPage::parse(&page) {
                let mut kinds: Vec<FaultKind> = read.faults().iter().map(|fault| fault.kind).collect();
                let count = kinds.len();
                kinds.sort();
                kinds.dedup();
                prop_assert_eq!(kinds.len(), count);
            }
        }
    }
}
