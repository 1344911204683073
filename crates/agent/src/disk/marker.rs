//! The marker: the record on a disk of the layout that it was prepared for (pure bytes).
//!
//! # Position
//!
//! **Sector 0**, on MBR and GPT alike, always written as one logical block, which a power cut leaves either old or new:
//!
//! | bytes | content |
//! |---|---|
//! | 0..368 | boot code (see `bootcode`) |
//! | 368..432 | the *record*, below |
//! | 440..444 | disk signature, random |
//! | 446..494 | partition entries 1 to 3: the partitions (MBR), or the protective 0xEE entry (GPT) |
//! | 494..510 | the *entry*, below, in place of the fourth partition |
//! | 510..512 | 55 AA |
//!
//! **Entry** (16 bytes; the idea is diskmark's): not valid as a partition, yet Linux accepts it, because Linux ignores an entry
//! without sectors if its boot flag is 0x00 (a boot flag of 0x4D, tried first, made Linux refuse the whole table):
//!
//! | bytes | field of a partition | content |
//! |---|---|---|
//! | 0 | boot flag | 0 |
//! | 1..4 | first CHS | `RKS` |
//! | 4 | type | 0 |
//! | 5 | last CHS | format, 1 |
//! | 6 | last CHS | state: `P` in progress, `F` final |
//! | 7 | last CHS | exclusive or of all other bytes of the entry |
//! | 8..12 | start LBA | CRC-32 of record and partition entries 1 to 3, little endian |
//! | 12..16 | sectors | 0 |
//!
//! **Record** (64 bytes):
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | `RKSTRAP1` |
//! | 8..24 | layout name, padded with zeroes |
//! | 24..28 | layout version, little endian |
//! | 28..44 | the layout's digest |
//! | 44 | table: 1 GPT, 2 MBR |
//! | 45 | state: `P` or `F` |
//! | 46..60 | zero |
//! | 60..64 | CRC-32 of bytes 0..60, little endian |
//!
//! **On GPT** UEFI requires entries 2 to 4 of the protective MBR to be zero, and a partitioning tool may clear them. Lookup the
//! authority is the first partition: 1 MiB of type [`PARTITION_TYPE`], named `rackstrap NAME vN` for people, with the record in
//! its first 64 bytes.
//!
//! # Precedence
//!
//! An in-progress entry in sector 0 comes first: everything else on the disk is old or half written. Preparation writes it first
//! and changes it last, so one write of one sector commits a preparation.
//!
//! So if sector 0 is final and the table or the record cannot be read, the cause is not a power cut but another tool, or a
//! controller that shows another block size. Such a disk is prepared again only by an order.

use rackstrap_wire::PartitionTable;

/// Bytes of the record.
pub const RECORD_LEN: usize = 64;
/// Offset of the record in sector 0: after the boot code.
pub const RECORD_AT: usize = 368;
/// Offset of the partition entries in sector 0.
const TABLE_AT: usize = 446;
/// Offset of the marker entry in sector 0.
const ENTRY_AT: usize = TABLE_AT + 48;
/// GPT type of the marker partition, ours alone.
pub const PARTITION_TYPE: &str = "7261636B-7374-4261-9070-6D61726B6572";
/// Start and length of the marker partition of a GPT, in bytes.
pub const PARTITION_AT: u64 = 1 << 20;

const RECORD_MAGIC: &[u8; 8] = b"RKSTRAP1";
const ENTRY_MAGIC: &[u8; 3] = b"RKS";
const FORMAT: u8 = 1;

const _: () = assert!(super::bootcode::USED <= RECORD_AT && RECORD_AT + RECORD_LEN <= super::bootcode::LENGTH);

/// The layout that a disk was prepared for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Layout name, 1 to 16 characters of `[a-z0-9-]`.
    pub name: String,
    /// Layout version.
    pub version: u32,
    /// Digest of the layout's canonical form.
    pub digest: [u8; 16],
    /// Kind of table.
    pub table: PartitionTable,
}

/// How far preparation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerState {
    /// It started.
    InProgress,
    /// It is complete.
    Final,
}

/// The marker in sector 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sector0 {
    /// The sector is not a marker.
    NotOurs,
    /// A marker. It has no record if that of an in-progress sector is damaged.
    Ours(Option<Record>, MarkerState),
    /// A final entry whose checksum does not match the record or the partition entries.
    Changed,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

impl MarkerState {
    fn byte(self) -> u8 {
        match self {
            MarkerState::InProgress => b'P',
            MarkerState::Final => b'F',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'P' => Some(MarkerState::InProgress),
            b'F' => Some(MarkerState::Final),
            _ => None,
        }
    }
}

/// True for names that fit a record.
pub fn valid_name(name: &str) -> bool {
    (1..=16).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The record's bytes. The name must be [`valid_name`]; bytes after the 16th are cut.
pub fn encode_record(record: &Record, state: MarkerState) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    bytes[..8].copy_from_slice(RECORD_MAGIC);
    for (to, from) in bytes[8..24].iter_mut().zip(record.name.bytes()) {
        *to = from;
    }
    bytes[24..28].copy_from_slice(&record.version.to_le_bytes());
    bytes[28..44].copy_from_slice(&record.digest);
    bytes[44] = match record.table {
        PartitionTable::Gpt => 1,
        PartitionTable::Mbr => 2,
    };
    bytes[45] = state.byte();
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a record; none if any byte differs from what [`encode_record`] writes.
pub fn decode_record(bytes: &[u8]) -> Option<(Record, MarkerState)> {
    let bytes: &[u8; RECORD_LEN] = bytes.get(..RECORD_LEN)?.try_into().ok()?;
    let state = MarkerState::from_byte(bytes[45])?;
    let name_len = bytes[8..24].iter().position(|b| *b == 0).unwrap_or(16);
    let record = Record {
        name: std::str::from_utf8(&bytes[8..8 + name_len]).ok()?.to_owned(),
        version: u32::from_le_bytes(bytes[24..28].try_into().ok()?),
        digest: bytes[28..44].try_into().ok()?,
        table: match bytes[44] {
            1 => PartitionTable::Gpt,
            2 => PartitionTable::Mbr,
            _ => return None,
        },
    };
    (valid_name(&record.name) && encode_record(&record, state) == *bytes).then_some((record, state))
}

fn encode_entry(crc: u32, state: MarkerState) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[1..4].copy_from_slice(ENTRY_MAGIC);
    entry[5] = FORMAT;
    entry[6] = state.byte();
    entry[8..12].copy_from_slice(&crc.to_le_bytes());
    entry[7] = entry.iter().fold(0, |x, b| x ^ b);
    entry
}

fn decode_entry(entry: &[u8]) -> Option<(u32, MarkerState)> {
    let state = MarkerState::from_byte(*entry.get(6)?)?;
    let crc = u32::from_le_bytes(entry.get(8..12)?.try_into().ok()?);
    (encode_entry(crc, state) == entry).then_some((crc, state))
}

/// Sector 0 with boot code, record, the given first three partition entries, and the marker entry.
pub fn encode_sector0(
    record: &Record,
    state: MarkerState,
    entries: &[[u8; 16]; 3],
    disk_signature: [u8; 4],
) -> [u8; 512] {
    let mut sector = [0; 512];
    // This is for blocks of 512 bytes; `table::write_sector0` handles other sizes.
    let code = super::bootcode::code(record.table, 512);
    sector[..code.len()].copy_from_slice(&code);
    sector[RECORD_AT..RECORD_AT + RECORD_LEN].copy_from_slice(&encode_record(record, state));
    sector[440..444].copy_from_slice(&disk_signature);
    sector[TABLE_AT..ENTRY_AT].copy_from_slice(entries.as_flattened());
    let crc = sector_crc(&sector);
    sector[ENTRY_AT..ENTRY_AT + 16].copy_from_slice(&encode_entry(crc, state));
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Reads the marker in sector 0.
pub fn decode_sector0(sector: &[u8]) -> Sector0 {
    let Some(sector) = sector.get(..512).filter(|s| s[510..] == [0x55, 0xaa]) else {
        return Sector0::NotOurs;
    };
    let Some((crc, state)) = decode_entry(&sector[ENTRY_AT..ENTRY_AT + 16]) else {
        return Sector0::NotOurs;
    };
    let record = decode_record(&sector[RECORD_AT..RECORD_AT + RECORD_LEN])
        .filter(|(_, s)| *s == state && sector_crc(sector) == crc)
        .map(|(record, _)| record);
    match (record, state) {
        (None, MarkerState::Final) => Sector0::Changed,
        (record, state) => Sector0::Ours(record, state),
    }
}

fn sector_crc(sector: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&sector[RECORD_AT..RECORD_AT + RECORD_LEN]);
    crc.update(&sector[TABLE_AT..ENTRY_AT]);
    crc.finalize()
}

/// The first three partition entries of sector 0.
pub fn entries_of(sector: &[u8; 512]) -> [[u8; 16]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| sector[TABLE_AT + 16 * i + j]))
}

/// The disk signature of sector 0.
pub fn disk_signature_of(sector: &[u8; 512]) -> [u8; 4] {
    std::array::from_fn(|i| sector[440 + i])
}

/// Name of the marker partition of a GPT, for people.
pub fn partition_name(record: &Record) -> String {
    format!("rackstrap {record}").chars().take(36).collect()
}

#[cfg(test)]
#[path = "marker_tests.rs"]
mod tests;
