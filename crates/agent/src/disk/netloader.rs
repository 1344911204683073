//! The network loader on a disk, for a BIOS: iPXE, which asks the network until it gets an answer.
//!
//! The server makes the loader (head with second stage, iPXE, script) and names it in the plan by size and CRC-32. The disk's copy
//! begins with the same two numbers. If the numbers are equal and the copy has this CRC-32, nothing is written. Otherwise the
//! agent fetches the loader and writes it 64 KiB after the start of the gap before the first partition (MBR) or of the marker
//! partition (GPT). Layout, digest and partitions do not change, so disks that were prepared earlier get the loader too, and
//! lose nothing.
//!
//! Power cuts: the first block, which marks the loader as present, is zeroed first and written last, with a flush between. The
//! boot sector treats a disk without that block as one without a loader, and the next boot of the node writes it again. The
//! loader's second stage also checks the CRC-32, so a copy that was damaged in another way is never started.

use super::{
    device::{BlockDevice, write_zeroes},
    geometry::ALIGN,
    marker::{self, MarkerState, Sector0},
    table,
};
use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::{DiskLoader, PartitionTable};

/// Bytes that the boot sector reads; they identify the loader.
pub const HEAD: usize = 4096;
/// Bytes between the start of the gap or marker partition and the loader.
const OFFSET: u64 = 64 << 10;
/// Most bytes of a loader: it ends before the first partition.
const MOST: u64 = ALIGN - OFFSET;

/// Start of the loader, in bytes.
pub fn start(table: PartitionTable) -> u64 {
    OFFSET
        + match table {
            PartitionTable::Gpt => marker::PARTITION_AT,
            PartitionTable::Mbr => 0,
        }
}

/// Writes the loader `wanted` and the boot code that starts it to a prepared disk. Returns true if something was written.
pub fn install(device: &mut dyn BlockDevice, wanted: DiskLoader, fetch: &mut dyn FnMut() -> Res<Vec<u8>>) -> Res<bool> {
    let mut sector0 = [0; 512];
    device.read_at(0, &mut sector0).doing(|| "reading sector 0".into())?;
    let Sector0::Ours(Some(record), MarkerState::Final) = marker::decode_sector0(&sector0) else {
        return Err(Failure::new("sector 0 was changed since rackstrap wrote it"));
    };
    if !fits(wanted) {
        return Err(Failure::new(format!(
            "the network loader on the server has {} bytes; the disk has room for {MOST}, in steps of {HEAD}",
            wanted.size
        )));
    }
    let at = start(record.table);
    let mut found = vec![0; wanted.size as usize];
    device
        .read_at(at, &mut found)
        .doing(|| "reading the network loader".into())?;
    let loader_is_wanted = is(&found, wanted);
    if !loader_is_wanted {
        let bytes = fetch()?;
        if !is(&bytes, wanted) {
            return Err(Failure::new(
                "the network loader from the server is damaged; nothing was written",
            ));
        }
        write(device, at, &bytes).doing(|| "writing the network loader".into())?;
    }
    let code_is_ours = super::bootcode::code(record.table, device.sector());
    let code_is_wanted = sector0.starts_with(&code_is_ours);
    if !code_is_wanted {
        let (entries, signature) = (marker::entries_of(&sector0), marker::disk_signature_of(&sector0));
        table::write_sector0(device, &record, MarkerState::Final, &entries, signature)
            .and_then(|()| device.flush())
            .doing(|| "writing the boot sector".into())?;
    }
    Ok(!loader_is_wanted || !code_is_wanted)
}

fn fits(wanted: DiskLoader) -> bool {
    let size = u64::from(wanted.size);
    (HEAD as u64 + 1..=MOST).contains(&size) && size.is_multiple_of(HEAD as u64)
}

/// Whether `bytes` are the whole loader `wanted`, which fits.
fn is(bytes: &[u8], wanted: DiskLoader) -> bool {
    let head = bytes.len() == wanted.size as usize
        && bytes.starts_with(b"RKSB")
        && bytes[16..20] == wanted.size.to_le_bytes()
        && bytes[20..24] == wanted.crc.to_le_bytes();
    head && {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..20]);
        crc.update(&[0; 4]);
        crc.update(&bytes[24..]);
        crc.finalize() == wanted.crc
    }
}

fn write(device: &mut dyn BlockDevice, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    let (head, rest) = bytes.split_at(HEAD);
    write_zeroes(device, at, HEAD as u64)?;
    device.flush()?;
    device.write_at(at + HEAD as u64, rest)?;
    // The head may be eight blocks: its first block, which marks the loader as present, comes last.
    let first = (device.sector() as usize).min(HEAD);
    device.write_at(at + first as u64, &head[first..])?;
    device.flush()?;
    device.write_at(at, &head[..first])?;
    device.flush()
}

#[cfg(test)]
#[path = "netloader_tests.rs"]
mod tests;
