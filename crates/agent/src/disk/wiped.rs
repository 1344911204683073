//! Recognises a disk after `wipefs -a`. It only reads.
//!
//! wipefs(8) zeroes only the signature of each format that it finds, so the disk is not zero afterwards. It still counts as blank,
//! because an administrator ran wipefs. A disk counts as wiped only if the rest of a known format surrounds the zeroes. The test
//! uses the fields that the format's own readers check. Raw data in an unknown format (plain dm-crypt, a database on a raw disk)
//! has none of these fields and stays `unknown data`.

use super::{
    device::BlockDevice,
    gptread,
    marker::{self, RECORD_AT, RECORD_LEN},
    signature::Ends,
};
use std::io;

/// True if a disk without a recognised format holds one whose signature was removed.
pub fn is_wiped(device: &mut dyn BlockDevice, ends: &Ends) -> io::Result<bool> {
    let blocks = ends.len() / u64::from(device.sector().max(512));
    let here = mbr(ends, blocks) || ext(ends) || xfs(ends) || btrfs(ends) || swap(ends) || luks(ends);
    Ok(here || lvm(ends) || mdraid(ends) || boot_sector(ends) || gptread::is_wiped(device)?)
}

/// The same for a disk whose ends were not read yet.
pub fn was_wiped(device: &mut dyn BlockDevice) -> io::Result<bool> {
    let size = device.size();
    let ends = Ends::read(device, 0, size)?;
    is_wiped(device, &ends)
}

/// A little-endian number of up to 8 bytes; none outside the ends.
fn le(ends: &Ends, at: u64, bytes: usize) -> Option<u64> {
    let bytes = ends.at(at, bytes)?;
    Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// A big-endian number of up to 8 bytes; none outside the ends.
fn be(ends: &Ends, at: u64, bytes: usize) -> Option<u64> {
    let bytes = ends.at(at, bytes)?;
    Some(bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
}

fn power(n: Option<u64>, range: std::ops::RangeInclusive<u64>) -> bool {
    n.is_some_and(|n| n.is_power_of_two() && range.contains(&n))
}

fn within(n: Option<u64>, range: std::ops::RangeInclusive<u64>) -> bool {
    n.is_some_and(|n| range.contains(&n))
}

/// A table without its 55 AA, in which every entry is empty or a range of this disk. Our marker may be the fourth entry.
fn mbr(ends: &Ends, blocks: u64) -> bool {
    let Some(sector) = ends.sector0().filter(|s| s[510..] == [0, 0]) else {
        return false;
    };
    if marker::decode_record(&sector[RECORD_AT..RECORD_AT + RECORD_LEN]).is_some() {
        return true;
    }
    let mut used = 0;
    for entry in sector[446..510].chunks_exact(16) {
        let number = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|i| entry[at + i])));
        let (start, count) = (number(8), number(12));
        let empty = entry.iter().all(|b| *b == 0);
        // A protective entry may count more blocks than there are (UEFI 2.10, table 5.4).
        let fits = start > 0 && count > 0 && (entry[4] == 0xee || start + count <= blocks);
        match entry[0] & 0x7f == 0 && entry[4] != 0 && fits {
            true => used += 1,
            false if empty => {}
            false => return false,
        }
    }
    used > 0
}

/// struct ext4_super_block.
fn ext(ends: &Ends) -> bool {
    let field = |at: u64, bytes| le(ends, 1024 + at, bytes);
    let size = field(0x18, 4).unwrap_or(9);
    ends.is(0x438, &[0; 2])
        && size <= 6
        && field(0x14, 4) == Some(u64::from(size == 0))
        && within(field(0, 4), 1..=u64::from(u32::MAX))
        && within(field(4, 4), 1..=(ends.len() >> (10 + size)))
        && within(field(0x20, 4), 1..=(8 << (10 + size)))
        && within(field(0x28, 4), 1..=(8 << (10 + size)))
        && within(field(0x4c, 4), 0..=1)
}

/// struct xfs_dsb.
fn xfs(ends: &Ends) -> bool {
    let block = be(ends, 4, 4);
    let most = ends.len() / block.unwrap_or(1).max(1);
    ends.is(0, &[0; 4])
        && power(block, 512..=65536)
        && within(be(ends, 8, 8), 1..=most)
        && within(be(ends, 84, 4), 1..=most)
        && within(be(ends, 100, 2).map(|version| version & 15), 1..=5)
        && power(be(ends, 102, 2), 512..=32768)
        && power(be(ends, 104, 2), 256..=2048)
}

/// struct btrfs_super_block, which contains its own offset.
fn btrfs(ends: &Ends) -> bool {
    ends.is(0x10040, &[0; 8])
        && le(ends, 0x10030, 8) == Some(0x10000)
        && power(le(ends, 0x10090, 4), 512..=65536)
        && power(le(ends, 0x10094, 4), 512..=65536)
}

/// union swap_header.
fn swap(ends: &Ends) -> bool {
    [4096u64, 8192, 16384, 65536].into_iter().any(|page| {
        ends.is(page - 10, &[0; 10])
            && le(ends, 1024, 4) == Some(1)
            && within(le(ends, 1028, 4), 1..=ends.len() / page)
            && within(le(ends, 1032, 4), 0..=637)
    })
}

/// LUKS1 names its cipher, LUKS2 its checksum.
fn luks(ends: &Ends) -> bool {
    let name = |at| ends.at(at, 1).is_some_and(|b| b[0].is_ascii_lowercase());
    let rest = match be(ends, 6, 2) {
        Some(1) => name(8) && name(40) && name(72),
        Some(2) => power(be(ends, 8, 8), 1 << 14..=1 << 22) && ends.is(72, b"sha"),
        _ => false,
    };
    rest && ends.is(0, &[0; 6])
}

/// wipefs leaves `LABELONE` and clears the type after it.
fn lvm(ends: &Ends) -> bool {
    (0..4).any(|sector| ends.is(sector * 512, b"LABELONE") && ends.is(sector * 512 + 24, &[0; 8]))
}

/// struct mdp_superblock_1, at the start, at 4 KiB, or 8 to 12 KiB before the end.
fn mdraid(ends: &Ends) -> bool {
    let last = (ends.len() / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
    [Some(0), Some(4096), last].into_iter().flatten().any(|at| {
        ends.is(at, &[0; 4])
            && le(ends, at + 4, 4) == Some(1)
            && !ends.is(at + 16, &[0; 16])
            && within(le(ends, at + 80, 8), 1..=u64::MAX)
            && within(le(ends, at + 92, 4), 1..=4096)
    })
}

/// The boot sectors of FAT, exFAT and NTFS begin with a short jump; wipefs takes the name or 55 AA.
fn boot_sector(ends: &Ends) -> bool {
    let jump = ends.is(0, b"\xeb") && ends.is(2, b"\x90");
    let parameters = power(le(ends, 11, 2), 512..=4096) && power(le(ends, 13, 1), 1..=128);
    let exfat = ends.is(3, &[0; 61]) && power(le(ends, 108, 1).map(|shift| 1 << shift.min(63)), 512..=4096);
    jump && (exfat || parameters && within(le(ends, 21, 1), 0xf0..=0xff))
}
