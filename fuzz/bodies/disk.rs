//! A disk that anybody may have written, as the agent looks at it: marker, GPT, MBR, signatures.
//!
//! The input is flags (1: blocks of 4096 bytes; 2: right the checksums of GPT headers), the size in pieces of 64 KiB, and
//! then pieces: a place (one byte of [`PLACES`], or any offset), a length, and the bytes.

use rackstrap_agent::{BlockDevice, Finding, inspect, was_wiped};
use std::io;

/// Where formats have their signatures, from either end (negative).
const PLACES: [i64; 16] = [
    0,
    368,
    446,
    494,
    512,
    1024,
    1080,
    4096,
    8192,
    32_769,
    65_536,
    65_600,
    1 << 20,
    -512,
    -4096,
    -16_896,
];

struct Disk {
    bytes: Vec<u8>,
    sector: u32,
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn sector(&self) -> u32 {
        self.sector
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        // Nothing that the disk says may lead behind its end.
        let end = offset.checked_add(buf.len() as u64).expect("an offset that exists");
        assert!(end <= self.size(), "{offset} + {} of {}", buf.len(), self.size());
        buf.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("looking writes");
    }

    fn flush(&mut self) -> io::Result<()> {
        panic!("looking flushes");
    }
}

/// One run; true if there is something on the disk that was recognised.
pub fn run(input: &[u8]) -> bool {
    let [flags, size, pieces @ ..] = input else {
        return false;
    };
    let mut disk = Disk {
        // 0 to 4 MiB: on the small ones the two ends overlap.
        bytes: vec![0; (usize::from(*size) % 65) << 16],
        sector: if flags & 1 == 0 { 512 } else { 4096 },
    };
    let mut rest = pieces;
    while let [place, a, b, len, tail @ ..] = rest {
        let len = usize::from(*len).min(tail.len());
        let wide = u16::from_be_bytes([*a, *b]);
        let offset = match PLACES.get(usize::from(*place)) {
            Some(base) if *base < 0 => disk.bytes.len() as i64 + base + i64::from(wide),
            Some(base) => base + i64::from(wide),
            None => i64::from(wide) * 64,
        };
        let from = usize::try_from(offset).unwrap_or(0).min(disk.bytes.len());
        let to = (from + len).min(disk.bytes.len());
        disk.bytes[from..to].copy_from_slice(&tail[..to - from]);
        rest = &tail[len..];
    }
    if flags & 2 != 0 {
        let sector = disk.sector as usize;
        right_checksums(&mut disk.bytes, sector);
        let last = disk.bytes.len().saturating_sub(sector);
        right_checksums(&mut disk.bytes, last);
    }
    let zero = disk.bytes.iter().all(|byte| *byte == 0);
    let finding = inspect(&mut disk).expect("no read fails");
    match &finding {
        Finding::Blank => {}
        Finding::Ours { record, .. } | Finding::Unclear { record, .. } => {
            if let Some(record) = record {
                assert!(!record.name.is_empty() && record.name.len() <= 16);
            }
        }
        Finding::Leftover(what) | Finding::Foreign(what) => assert!(!what.is_empty() && what.len() < 1000, "{what}"),
    }
    assert!(!zero || finding == Finding::Blank, "an empty disk holds {finding:?}");
    // Data within the first or last MiB is never overlooked, unless it is what wipefs leaves of a known format.
    let window = disk.bytes.len().min(1 << 20);
    let ends = [&disk.bytes[..window], &disk.bytes[disk.bytes.len() - window..]];
    if finding == Finding::Blank && ends.iter().any(|end| end.iter().any(|byte| *byte != 0)) {
        assert!(was_wiped(&mut disk).expect("no read fails"));
    }
    finding != Finding::Blank
}

/// The CRCs of a GPT header at `at` and of its entries (UEFI 2.10, table 5.5), as no fuzzer finds them.
fn right_checksums(disk: &mut [u8], at: usize) {
    let Some(header) = disk.get(at..at + 92).filter(|header| header.starts_with(b"EFI PART")) else {
        return;
    };
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as usize;
    let (length, count, each) = (u32_at(12).clamp(92, 512), u32_at(80), u32_at(84));
    let lba = u64::from_le_bytes(header[72..80].try_into().unwrap());
    let sector = at.clamp(512, 4096);
    let entries = usize::try_from(lba).ok().and_then(|lba| lba.checked_mul(sector));
    let range = entries.and_then(|from| Some(from..from.checked_add(count.checked_mul(each)?)?));
    if let Some(sum) = range.and_then(|range| disk.get(range)).map(crc32fast::hash) {
        disk[at + 88..at + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let Some(header) = disk.get_mut(at..at + length) else {
        return;
    };
    header[16..20].fill(0);
    let sum = crc32fast::hash(header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
}
