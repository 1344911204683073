//! What an ATA disk says of itself: its verdict (SMART RETURN STATUS), and the tables of attributes and thresholds (SMART READ DATA, SMART READ
//! THRESHOLDS) (pure).
//!
//! The commands and the verdict are standardised (ATA8-ACS, 7.52). The tables are not; this is the form of SFF-8035i 2.0, which all disks use:
//! 30 entries of 12 bytes from byte 2 on, and a sum of all bytes that is 0.

use rackstrap_wire::{DiskFault, FaultKind};

/// Bytes of a table.
pub const TABLE: usize = 512;
const ENTRIES: usize = 30;
const ENTRY: usize = 12;

/// Attributes whose raw values count sectors that cannot be read: "Current Pending Sector Count", "Offline Uncorrectable".
const UNREADABLE: [u8; 2] = [197, 198];
/// "Power-On Hours".
const HOURS: u8 = 9;
/// "Temperature", and "Airflow Temperature" of disks that have only that. The lowest byte is in degrees Celsius.
const TEMPERATURES: [u8; 2] = [194, 190];
/// Manufacturers of disks with platters and without allow at most this temperature, in degrees Celsius; for SSDs it is 70.
const HOTTEST: [i16; 2] = [60, 70];

/// The facts of both tables that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Smart {
    /// Degrees Celsius; none if the disk reports none.
    pub celsius: Option<i16>,
    /// Hours for which the disk was switched on; none if it reports none.
    pub hours: Option<u64>,
    /// Sectors that cannot be read; none if the disk does not count them.
    pub unreadable: Option<u64>,
    /// Attributes at their thresholds that predict a failure, and those that say that the rated life is used up.
    failing: Vec<u8>,
    worn: Vec<u8>,
}

/// One attribute.
struct Attribute {
    id: u8,
    /// Bit 0: below its threshold the disk is about to fail. Otherwise its rated life is used up.
    predicts_failure: bool,
    /// Normalized: 1 to 253, the lower the worse.
    value: u8,
    raw: u64,
}

impl Smart {
    /// Reads both tables; none if the first one is damaged. Without a sound second table no attribute is at its threshold.
    pub fn parse(data: &[u8], thresholds: &[u8]) -> Option<Smart> {
        let data = sound(data)?;
        let thresholds = sound(thresholds);
        let threshold = |id: u8| {
            let found = entries(thresholds?).find(|entry| entry[0] == id);
            found.map(|entry| entry[1])
        };
        let mut smart = Smart::default();
        for attribute in entries(data).filter_map(attribute) {
            let Attribute { id, value, raw, .. } = attribute;
            // 0, 254 and 255 are neither thresholds nor values of attributes: 254 and 255 are for tests.
            let low = threshold(id).is_some_and(|threshold| (1..=253).contains(&threshold) && value <= threshold);
            if low && (1..=253).contains(&value) {
                match attribute.predicts_failure {
                    true => smart.failing.push(id),
                    false => smart.worn.push(id),
                }
            }
            if UNREADABLE.contains(&id) {
                // Disks that do not count put other numbers there: a count of 32 bits is not all ones.
                let count = raw & 0xffff_ffff;
                let before = smart.unreadable.unwrap_or(0);
                smart.unreadable = Some(before.max(if count == 0xffff_ffff { 0 } else { count }));
            } else if id == HOURS {
                smart.hours = Some(raw & 0xffff_ffff);
            } else if TEMPERATURES.contains(&id) && (id == TEMPERATURES[0] || smart.celsius.is_none()) {
                smart.celsius = i16::try_from(raw & 0xff)
                    .ok()
                    .filter(|celsius| (1..=120).contains(celsius));
            }
        }
        Some(smart)
    }

    /// What is wrong. `verdict` is what SMART RETURN STATUS says ([`verdict`]); `rotates` is whether the disk has platters.
    pub fn faults(&self, verdict: Option<bool>, rotates: bool) -> Vec<DiskFault> {
        let names = |ids: &[u8]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let fault = |kind, detail: String| DiskFault { kind, detail };
        let mut all = Vec::new();
        if verdict == Some(false) || !self.failing.is_empty() {
            let detail = match self.failing.as_slice() {
                [] => "SMART predicts a failure".to_owned(),
                ids => format!(
                    "SMART predicts a failure: attributes {} are at their thresholds",
                    names(ids)
                ),
            };
            all.push(fault(FaultKind::Failing, detail));
        }
        if self.unreadable.is_some_and(|count| count > 0) {
            all.push(fault(
                FaultKind::IoErrors,
                "it has sectors that cannot be read".to_owned(),
            ));
        }
        if !self.worn.is_empty() {
            let detail = format!("SMART attributes {} are at their thresholds", names(&self.worn));
            all.push(fault(FaultKind::Worn, detail));
        }
        let hottest = HOTTEST[usize::from(!rotates)];
        if self.celsius.is_some_and(|celsius| celsius > hottest) {
            all.push(fault(
                FaultKind::Hot,
                format!("it is hotter than {hottest} degrees Celsius"),
            ));
        }
        all
    }
}

/// The disk's verdict in the sense data of SMART RETURN STATUS: true if it is sound, false if it is about to fail; none if the data say
/// neither. LBA mid and high stay C24Fh for a sound disk, and become 2CF4h (ATA8-ACS, 7.52.8). SAT-2, 12.2.5 has the descriptor.
pub fn verdict(sense: &[u8]) -> Option<bool> {
    let (mid, high) = match sense.first()? & 0x7f {
        // Descriptors: ATA Status Return has code 09h, and is the only one.
        0x72 | 0x73 if sense.get(8..10)? == [0x09, 0x0c] => (*sense.get(17)?, *sense.get(19)?),
        // Fixed format.
        0x70 => (*sense.get(10)?, *sense.get(11)?),
        _ => return None,
    };
    match (mid, high) {
        (0x4f, 0xc2) => Some(true),
        (0xf4, 0x2c) => Some(false),
        _ => None,
    }
}

/// The table, if its length and sum are right, and it is not empty.
fn sound(table: &[u8]) -> Option<&[u8]> {
    let table = table.get(..TABLE)?;
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    (sum == 0 && table.iter().any(|byte| *byte != 0)).then_some(table)
}

fn entries(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = table.get(2..2 + ENTRIES * ENTRY).unwrap_or_default();
    all.chunks_exact(ENTRY).filter(|entry| entry[0] != 0)
}

fn attribute(entry: &[u8]) -> Option<Attribute> {
    let mut raw = [0; 8];
    raw[..6].copy_from_slice(entry.get(5..11)?);
    Some(Attribute {
        id: entry[0],
        predicts_failure: entry[1] & 1 != 0,
        value: entry[3],
        raw: u64::from_le_bytes(raw),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table with these entries of id, flags, value and raw value, and with the right sum.
    fn data(entries: &[(u8, u8, u8, u64)]) -> Vec<u8> {
        let mut table = vec![0; TABLE];
        table[0] = 16;
        for (place, (id, flags, value, raw)) in table[2..].chunks_exact_mut(ENTRY).zip(entries) {
            (place[0], place[1], place[3], place[4]) = (*id, *flags, *value, *value);
            place[5..11].copy_from_slice(&raw.to_le_bytes()[..6]);
        }
        summed(table)
    }

    fn thresholds(entries: &[(u8, u8)]) -> Vec<u8> {
        let mut table = vec![0; TABLE];
        table[0] = 16;
        for (place, (id, threshold)) in table[2..].chunks_exact_mut(ENTRY).zip(entries) {
            (place[0], place[1]) = (*id, *threshold);
        }
        summed(table)
    }

    fn summed(mut table: Vec<u8>) -> Vec<u8> {
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        table[TABLE - 1] = sum.wrapping_neg();
        table
    }

    #[test]
    fn a_healthy_disk_has_no_faults() {
        let data = data(&[
            (5, 0x33, 100, 0),
            (9, 0x32, 74, 0x0000_0012_0000_59d8),
            (194, 0x22, 117, 0x0028_0014_0000_0021),
            (197, 0x22, 200, 0),
            (198, 0x20, 200, 0xffff_ffff),
        ]);
        let limits = thresholds(&[(5, 10), (9, 0), (194, 0), (197, 0)]);
        let smart = Smart::parse(&data, &limits).unwrap();
        assert_eq!(
            (smart.celsius, smart.hours, smart.unreadable),
            (Some(33), Some(23_000), Some(0))
        );
        assert_eq!(smart.faults(Some(true), true), []);
        assert_eq!(smart.faults(None, true), []);
        let verdict = smart.faults(Some(false), true);
        assert_eq!(verdict[0].detail, "SMART predicts a failure");
    }

    #[test]
    fn thresholds_unreadable_sectors_and_heat_are_faults() {
        let data = data(&[
            (5, 0x33, 9, 4000),
            (177, 0x12, 1, 3000),
            (190, 0x22, 30, 75),
            (197, 0x22, 100, 8),
        ]);
        let limits = thresholds(&[(5, 10), (177, 1), (197, 0)]);
        let smart = Smart::parse(&data, &limits).unwrap();
        let faults = |rotates| -> Vec<(FaultKind, String)> {
            let all = smart.faults(Some(true), rotates).into_iter();
            all.map(|fault| (fault.kind, fault.detail)).collect()
        };
        let kinds: Vec<FaultKind> = faults(false).iter().map(|fault| fault.0).collect();
        assert_eq!(
            kinds,
            [FaultKind::Failing, FaultKind::IoErrors, FaultKind::Worn, FaultKind::Hot]
        );
        assert_eq!(
            faults(true)[0].1,
            "SMART predicts a failure: attributes 5 are at their thresholds"
        );
        assert_eq!(faults(true)[3].1, "it is hotter than 60 degrees Celsius");
        // Without thresholds, only what the disk counts is a fault.
        let smart = Smart::parse(&data, &[]).unwrap();
        assert_eq!(smart.faults(None, true).len(), 2);
    }

    #[test]
    fn damaged_tables_are_refused() {
        let good = data(&[(5, 0x33, 100, 0)]);
        assert!(Smart::parse(&good, &[]).is_some());
        let mut bad = good.clone();
        bad[40] ^= 1;
        assert_eq!(Smart::parse(&bad, &[]), None);
        assert_eq!(Smart::parse(&good[..TABLE - 1], &[]), None);
        assert_eq!(Smart::parse(&[0; TABLE], &[]), None);
    }

    #[test]
    fn the_verdict_is_read_from_both_forms_of_sense_data() {
        let mut descriptor = [0; 22];
        descriptor[0] = 0x72;
        descriptor[7] = 14;
        descriptor[8..10].copy_from_slice(&[0x09, 0x0c]);
        for (mid, high, expected) in [(0x4f, 0xc2, Some(true)), (0xf4, 0x2c, Some(false)), (0, 0, None)] {
            (descriptor[17], descriptor[19]) = (mid, high);
            assert_eq!(verdict(&descriptor), expected);
            let mut fixed = [0; 18];
            (fixed[0], fixed[10], fixed[11]) = (0x70, mid, high);
            assert_eq!(verdict(&fixed), expected);
        }
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&[0x72, 0, 0]), None);
        assert_eq!(verdict(&[0x70; 5]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(data in proptest::collection::vec(any::<u8>(), TABLE), limits in proptest::collection::vec(any::<u8>(), 0..TABLE + 1)) {
            let limits = if limits.len() == TABLE { summed(limits) } else { limits };
            if let Some(smart) = Smart::parse(&summed(data), &limits) {
                prop_assert!(smart.faults(verdict(&limits), true).len() <= 4);
            }
        }
    }
}
