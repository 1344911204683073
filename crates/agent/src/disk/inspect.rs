//! Finds out who wrote a disk. It only reads.

use super::{
    device::BlockDevice,
    gptread::{self, Entry, Gpt},
    marker::{self, MarkerState, Record, Sector0},
    signature::{Ends, is_unclear},
    wiped,
};
use rackstrap_wire::{DiskPlan, PartitionTable, Wipe};
use std::io;

/// The content of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Both ends are zero, or wipefs(8) has removed the signature.
    Blank,
    /// rackstrap prepared it, or started to.
    Ours {
        /// The layout that it was prepared for; none if that is no longer readable.
        record: Option<Record>,
        /// How far the preparation came.
        state: MarkerState,
    },
    /// rackstrap prepared it completely, and later its table or its marker was lost. The contents of its partitions may be intact.
    Unclear {
        /// The layout that it was prepared for; none if that is no longer readable.
        record: Option<Record>,
        /// The lost part, for people: `its partition table is lost or unreadable`.
        lost: &'static str,
    },
    /// What an earlier installation left: a format that the agent recognises, or a table whose partitions all hold such formats. Described
    /// for people: `ext2/3/4`, `GPT with 3 partitions (xfs, swap)`.
    Leftover(String),
    /// Any other content: data of no known format, contradictory data, and formats that several machines use at the same time.
    Foreign(String),
}

/// The agent's action for a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Use it as it is, because the markers are equal. The text names a difference that does not matter for this boot.
    Keep(Option<String>),
    /// Prepare it. The text describes the former content.
    Prepare(String),
    /// Do not touch it. The text says why.
    Leave(String),
}

/// Reads a disk and finds out what it holds.
pub fn inspect(device: &mut dyn BlockDevice) -> io::Result<Finding> {
    let size = device.size();
    let ends = Ends::read(device, 0, size)?;
    let sector0 = ends.sector0().map_or(Sector0::NotOurs, |s| marker::decode_sector0(s));
    if let Sector0::Ours(record, MarkerState::InProgress) = sector0 {
        return Ok(Finding::Ours {
            record,
            state: MarkerState::InProgress,
        });
    }
    let formats = ends.formats();
    let gpt = gptread::read(device)?;
    let ours = |record, state| Ok(Finding::Ours { record, state });
    let marked = match &gpt {
        Gpt::Valid(entries) => marker_partition(device, entries)?,
        _ => None,
    };
    // Our own preparation leaves none of these in the first MiB, so another program has written here since.
    let over = ends.head_only().formats();
    if !over.is_empty() && (marked.is_some() || sector0 != Sector0::NotOurs) {
        let what = over.join(", ");
        return Ok(Finding::Foreign(format!("{what} written over a rackstrap disk")));
    }
    match (marked, sector0, &gpt) {
        (Some(Some(record)), _, _) => return ours(Some(record), MarkerState::Final),
        // Preparation writes the record in the partition before sector 0 becomes final, so no power cut leads here: another program
        // has overwritten the record. The record in sector 0 has checksums of its own.
        (Some(None), Sector0::Ours(Some(record), MarkerState::Final), _) if record.table == PartitionTable::Gpt => {
            return ours(Some(record), MarkerState::Final);
        }
        (Some(None), _, _) => {
            return Ok(Finding::Unclear {
                record: None,
                lost: "its marker is lost or unreadable",
            });
        }
        (None, Sector0::Ours(record, _), gpt) => {
            let table = record.as_ref().map(|r| r.table);
            match (table, gpt) {
                (Some(PartitionTable::Mbr), Gpt::None) => return ours(record, MarkerState::Final),
                // Both copies are gone and no other table replaced them, or the disk shows another block size than behind the controller
                // with which it was prepared. In both cases the partitions may be intact.
                (Some(PartitionTable::Gpt), Gpt::None | Gpt::Damaged) => {
                    return Ok(Finding::Unclear {
                        record,
                        lost: "its partition table is lost or unreadable",
                    });
                }
                _ => {
                    return Ok(Finding::Foreign(format!(
                        "{} over a rackstrap marker",
                        gpt_text(device, gpt)?
                    )));
                }
            }
        }
        (None, Sector0::Changed, Gpt::None) => {
            return Ok(Finding::Foreign(
                "rackstrap partition table changed by another program".into(),
            ));
        }
        _ => {}
    }
    if !matches!(gpt, Gpt::None) {
        return table_finding(device, &gpt);
    }
    if !formats.is_empty() {
        return Ok(found(formats.join(", "), !is_unclear(&formats)));
    }
    if let Some(sector) = ends.sector0().filter(|s| s[510..] == [0x55, 0xaa]) {
        let (text, is_known) = mbr_text(device, sector)?;
        return Ok(found(text, is_known));
    }
    if !ends.all_zero() && !wiped::is_wiped(device, &ends)? {
        return Ok(Finding::Foreign("unknown data".into()));
    }
    Ok(Finding::Blank)
}

/// The finding for foreign data. `is_known` is whether all of it has a known format that only one machine uses.
fn found(what: String, is_known: bool) -> Finding {
    match is_known {
        true => Finding::Leftover(what),
        false => Finding::Foreign(what),
    }
}

fn table_finding(device: &mut dyn BlockDevice, gpt: &Gpt) -> io::Result<Finding> {
    let Gpt::Valid(entries) = gpt else {
        return Ok(Finding::Foreign(gpt_text(device, gpt)?));
    };
    let (text, is_known) = entries_text(device, entries)?;
    Ok(found(text, is_known))
}

impl Finding {
    /// A short description for people: `blank`, `scratch v1`, `xfs`.
    pub fn describe(&self) -> String {
        match self {
            Finding::Blank => "blank".to_owned(),
            Finding::Ours { record, state } => {
                let half = if *state == MarkerState::Final {
                    ""
                } else {
                    "half-prepared "
                };
                match record {
                    Some(record) => format!("{half}{record}"),
                    None => format!("{half}rackstrap disk"),
                }
            }
            Finding::Unclear { record, lost } => match record {
                Some(record) => format!("{record}, {lost}"),
                None => format!("rackstrap disk, {lost}"),
            },
            Finding::Leftover(what) | Finding::Foreign(what) => what.clone(),
        }
    }

    /// True if the disk carries our marker, or parts of it.
    pub fn is_ours(&self) -> bool {
        matches!(self, Finding::Ours { .. } | Finding::Unclear { .. })
    }

    /// The layout that it was prepared for, if known.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Finding::Ours { record, .. } | Finding::Unclear { record, .. } => record.as_ref(),
            Finding::Blank | Finding::Leftover(_) | Finding::Foreign(_) => None,
        }
    }
}

/// The random number of a disk that carries our marker, as 8 hex digits; empty if a tool has cleared it.
pub fn marker_id(device: &mut dyn BlockDevice) -> io::Result<String> {
    let mut sector = [0; 512];
    if device.size() < 512 {
        return Ok(String::new());
    }
    device.read_at(0, &mut sector)?;
    let id = u32::from_be_bytes(marker::disk_signature_of(&sector));
    Ok(match id {
        0 => String::new(),
        id => format!("{id:08x}"),
    })
}

/// The record in the partition of our own type. `Some(None)` if the partition exists without a final record that is readable.
fn marker_partition(device: &mut dyn BlockDevice, entries: &[Entry]) -> io::Result<Option<Option<Record>>> {
    let Some(entry) = entries.iter().find(|e| e.kind == marker::PARTITION_TYPE) else {
        return Ok(None);
    };
    let mut bytes = [0; marker::RECORD_LEN];
    if entry.len < bytes.len() as u64 {
        return Ok(Some(None));
    }
    device.read_at(entry.start, &mut bytes)?;
    let found = marker::decode_record(&bytes);
    Ok(Some(
        found
            .filter(|(_, state)| *state == MarkerState::Final)
            .map(|(record, _)| record),
    ))
}

fn gpt_text(device: &mut dyn BlockDevice, gpt: &Gpt) -> io::Result<String> {
    match gpt {
        Gpt::None => Ok("MBR".into()),
        Gpt::Damaged => Ok("damaged GPT".into()),
        Gpt::Valid(entries) => Ok(entries_text(device, entries)?.0),
    }
}

/// Types of partitions that hold code or nothing, in no format: BIOS boot (GRUB), Microsoft reserved, PReP boot.
const FORMATLESS: &[&str] = &[
    "21686148-6449-6E6F-744E-656564454649",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B",
];

fn entries_text(device: &mut dyn BlockDevice, entries: &[Entry]) -> io::Result<(String, bool)> {
    let ranges = entries.iter().map(|e| {
        let has_format = !FORMATLESS.iter().any(|kind| kind.eq_ignore_ascii_case(&e.kind));
        (e.start, e.len, has_format)
    });
    table_text(device, "GPT", ranges.collect())
}

fn mbr_text(device: &mut dyn BlockDevice, sector: &[u8; 512]) -> io::Result<(String, bool)> {
    let block = u64::from(device.sector());
    let size = device.size();
    let ranges = sector[446..510].chunks_exact(16).filter(|e| e[4] != 0).map(|e| {
        let u32_at = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|i| e[at + i])));
        let start = (u32_at(8) * block).min(size);
        (start, (u32_at(12) * block).min(size - start), true)
    });
    table_text(device, "MBR", ranges.collect())
}

/// Describes a table by the start, the length, and whether it should hold a format, of each partition. Returns also whether each of them has a
/// known format that only one machine uses, or is blank.
fn table_text(device: &mut dyn BlockDevice, kind: &str, ranges: Vec<(u64, u64, bool)>) -> io::Result<(String, bool)> {
    /// A few partitions are enough for people, and a table of a thousand must not cost minutes.
    const LOOKED_AT: usize = 16;
    let mut inside: Vec<&str> = Vec::new();
    let mut is_known = ranges.len() <= LOOKED_AT;
    for (start, len, has_format) in ranges.iter().take(LOOKED_AT).filter(|(_, len, _)| *len >= 4096) {
        let ends = Ends::read(device, *start, *len)?;
        let formats = ends.formats();
        is_known &= !is_unclear(&formats) && (!formats.is_empty() || !has_format || ends.all_zero());
        inside.extend(formats);
    }
    let mut unique: Vec<&str> = Vec::new();
    for name in inside {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    let count = match ranges.len() {
        0 => "no partitions".to_owned(),
        1 => "1 partition".to_owned(),
        n => format!("{n} partitions"),
    };
    let inside = if unique.is_empty() {
        String::new()
    } else {
        format!(" ({})", unique.join(", "))
    };
    Ok((format!("{kind} with {count}{inside}"), is_known))
}

/// Decides what to do with a disk (pure). `digest` is the plan's digest as bytes.
///
/// A disk that carries the plan's marker loses its data only by an order: the server has announced that the data is kept.
pub fn decide(finding: &Finding, plan: &DiskPlan, digest: [u8; 16]) -> Action {
    let layout = &plan.layout;
    match finding {
        Finding::Blank => Action::Prepare("blank".into()),
        Finding::Ours {
            record: Some(r),
            state: MarkerState::Final,
        } => {
            if plan.again || r.name != layout.name || r.version != layout.version {
                return Action::Prepare(r.to_string());
            }
            Action::Keep((r.digest != digest).then(|| format!("layout {r} was changed without raising its version")))
        }
        Finding::Ours { record, .. } => Action::Prepare(match record {
            Some(r) => format!("half-prepared {r}"),
            None => "half-prepared".into(),
        }),
        Finding::Unclear { record, lost } => {
            let other = |r: &Record| r.name != layout.name || r.version != layout.version;
            match plan.again || record.as_ref().is_some_and(other) {
                true => Action::Prepare(finding.describe()),
                false => Action::Leave(format!("was prepared by rackstrap, but {lost}; left untouched")),
            }
        }
        Finding::Leftover(what) if plan.wipe_known => Action::Prepare(format!("foreign ({what})")),
        Finding::Leftover(what) | Finding::Foreign(what) if plan.wipe == Wipe::Always => {
            Action::Prepare(format!("foreign ({what})"))
        }
        Finding::Leftover(what) | Finding::Foreign(what) => {
            Action::Leave(format!("holds foreign data ({what}); left untouched"))
        }
    }
}
