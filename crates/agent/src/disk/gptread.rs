//! Reads a GPT from any source: the work is bounded, and nothing counts without its checksum.
//!
//! (The `gpt` crate writes tables. Reading is here, because a damaged or hostile table must be recognised as such.)

use super::device::BlockDevice;
use std::io;

/// Entries read at most. UEFI requires 128 at least, and Linux numbers 256 per disk.
const MOST_ENTRIES: u32 = 1024;

/// One used entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number, from 1.
    pub number: u32,
    /// Type GUID, upper case text.
    pub kind: String,
    /// First byte on the disk.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
    /// Name of the partition; may be empty.
    pub name: String,
}

/// The state of a disk's GPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpt {
    /// No header at all.
    None,
    /// At least one header exists, but none is valid.
    Damaged,
    /// The used entries of the primary table, or else of the backup table.
    Valid(Vec<Entry>),
}

/// Reads the primary and the backup table.
pub fn read(device: &mut dyn BlockDevice) -> io::Result<Gpt> {
    let sector = u64::from(device.sector());
    let size = device.size();
    if sector < 512 || size < 4 * sector {
        return Ok(Gpt::None);
    }
    let mut seen = false;
    for at in [1, size / sector - 1] {
        match table(device, at, sector, size, false)? {
            Gpt::None => {}
            Gpt::Damaged => seen = true,
            valid => return Ok(valid),
        }
    }
    // A table for the other block size (the disk was behind another controller) is not usable, but it exists.
    let places = [Some(512), Some(4096), size.checked_sub(512), size.checked_sub(4096)];
    for at in places.into_iter().flatten().filter(|at| at + 8 <= size) {
        let mut magic = [0; 8];
        device.read_at(at, &mut magic)?;
        seen |= magic == *b"EFI PART";
    }
    Ok(if seen { Gpt::Damaged } else { Gpt::None })
}

/// True if the disk has a table, primary or backup, in which only the eight bytes of the signature are zero.
pub fn is_wiped(device: &mut dyn BlockDevice) -> io::Result<bool> {
    let sector = u64::from(device.sector());
    let size = device.size();
    if sector < 512 || size < 4 * sector {
        return Ok(false);
    }
    for at in [1, size / sector - 1] {
        if matches!(table(device, at, sector, size, true)?, Gpt::Valid(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A table with its bytes.
pub enum Raw {
    /// There is no header.
    None,
    /// The header or the entries do not fit, or their checksums are wrong.
    Damaged,
    /// A valid table.
    Valid(RawTable),
}

/// The bytes of a valid table.
#[derive(Clone)]
pub struct RawTable {
    /// The block with the header.
    pub header: Vec<u8>,
    /// Bytes of the header that its checksum covers.
    pub header_len: usize,
    /// The entries.
    pub entries: Vec<u8>,
    /// Bytes of an entry.
    pub entry_len: usize,
}

/// Reads the table whose header is at `lba`. If `wiped`, its signature is zeroes.
fn table(device: &mut dyn BlockDevice, lba: u64, sector: u64, size: u64, wiped: bool) -> io::Result<Gpt> {
    let raw = match raw(device, lba, sector, size, wiped)? {
        Raw::None => return Ok(Gpt::None),
        Raw::Damaged => return Ok(Gpt::Damaged),
        Raw::Valid(raw) => raw,
    };
    Ok(Gpt::Valid(used(&raw, sector, size)))
}

/// The used entries of a table, by number.
pub fn used(table: &RawTable, sector: u64, size: u64) -> Vec<Entry> {
    let all = (1..).zip(table.entries.chunks_exact(table.entry_len));
    all.filter_map(|(number, e)| entry(number, e, sector, size)).collect()
}

/// Reads the bytes of the table whose header is at `lba`, on a disk of `size` bytes with blocks of `sector` bytes.
pub fn raw(device: &mut dyn BlockDevice, lba: u64, sector: u64, size: u64, wiped: bool) -> io::Result<Raw> {
    let mut header = vec![0; sector as usize];
    device.read_at(lba * sector, &mut header)?;
    if wiped && header.starts_with(&[0; 8]) {
        header[..8].copy_from_slice(b"EFI PART");
    }
    if !header.starts_with(b"EFI PART") {
        return Ok(Raw::None);
    }
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let header_len = u32_at(12) as usize;
    let (entries, entry_len) = (u32_at(80), u32_at(84));
    let shape_fits = (92..=512).contains(&header_len)
        && (1..=MOST_ENTRIES).contains(&entries)
        && (128..=4096).contains(&entry_len)
        && entry_len.is_power_of_two()
        && u64_at(24) == lba;
    if !shape_fits {
        return Ok(Raw::Damaged);
    }
    let mut plain = header[..header_len].to_vec();
    plain[16..20].fill(0);
    let from = u64_at(72).checked_mul(sector);
    let len = u64::from(entries) * u64::from(entry_len);
    let Some(from) = from.filter(|f| f.checked_add(len).is_some_and(|end| end <= size)) else {
        return Ok(Raw::Damaged);
    };
    if crc32fast::hash(&plain) != u32_at(16) {
        return Ok(Raw::Damaged);
    }
    // The length is at most 4 MiB, and inside the disk.
    let mut bytes = vec![0; len as usize];
    device.read_at(from, &mut bytes)?;
    if crc32fast::hash(&bytes) != u32_at(88) {
        return Ok(Raw::Damaged);
    }
    Ok(Raw::Valid(RawTable {
        header,
        header_len,
        entries: bytes,
        entry_len: entry_len as usize,
    }))
}

fn entry(number: u32, bytes: &[u8], sector: u64, size: u64) -> Option<Entry> {
    let kind = uuid::Uuid::from_bytes_le(bytes[..16].try_into().ok()?);
    if kind.is_nil() {
        return None;
    }
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let start = u64_at(32).saturating_mul(sector).min(size);
    let end = u64_at(40).saturating_add(1).saturating_mul(sector).min(size);
    let name = bytes[56..128].chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let name: Vec<u16> = name.take_while(|c| *c != 0).collect();
    Some(Entry {
        number,
        kind: kind.to_string().to_uppercase(),
        start,
        len: end.saturating_sub(start),
        name: String::from_utf16_lossy(&name),
    })
}
