//! Prepares a disk in an order that survives power cuts.
//!
//! 1. `in-progress`: sector 0 is marked, in one write. From here until the last step the disk is ours and half prepared.
//!    Then the old table and all old signatures at both ends of the disk are wiped.
//! 2. `table`: the new table; then the kernel reads it.
//! 3. `mkfs-NAME` for each partition: its blocks are discarded, old signatures inside it are wiped, then its file system is made. Raw ones are not changed.
//! 4. `seed`: the image's files at the mount points are copied to the new file systems.
//! 5. `final`: the marker partition's record (GPT), then sector 0, in one write.
//!
//! Each step is on stable storage before the next one begins.

use super::{
    device::{BlockDevice, write_zeroes},
    geometry::{ALIGN, Geometry, Range},
    marker::{self, MarkerState, Record},
    table::{self, NewUuid},
};
use crate::fail::{Doing, Res};
use rackstrap_wire::{FileSystem, Layout, Partition, PartitionTable};

/// Bytes zeroed at the start of the marker partition, to cover the superblock with the highest offset in a partition
/// (btrfs at 64 KiB).
const MARKER_WIPE: u64 = 128 << 10;

/// The operations of the machine that preparation needs: kernel and the image's mkfs in the agent, a simulation in tests.
pub trait Machine {
    /// Makes the kernel see the new partitions, and waits for them.
    fn reread(&mut self, device: &mut dyn BlockDevice, geometry: &Geometry) -> Res<()>;
    /// Discards the old content of partition `index` if the disk supports it. Nothing depends on it.
    fn trim(&mut self, _index: usize, _partition: &Partition) {}
    /// Makes partition `index`'s file system.
    fn make_fs(&mut self, device: &mut dyn BlockDevice, index: usize, partition: &Partition, range: Range) -> Res<()>;
    /// Fills the new file systems from the image, and syncs them.
    fn seed(&mut self, device: &mut dyn BlockDevice) -> Res<()>;
    /// A step is complete and on stable storage. May never return (`rackstrap.hold`).
    fn step(&mut self, name: &str);
}

/// Prepares `device`. The caller has decided that it may be overwritten, and that `geometry` fits.
pub fn prepare(
    device: &mut dyn BlockDevice,
    layout: &Layout,
    geometry: &Geometry,
    record: &Record,
    new_uuid: NewUuid<'_>,
    machine: &mut dyn Machine,
) -> Res<()> {
    let io = |what: &'static str| move || what.to_owned();
    let number = table::disk_number(device, new_uuid).doing(io("reading sector 0"))?;
    table::write_sector0(device, record, MarkerState::InProgress, &[[0; 16]; 3], number)
        .and_then(|()| device.flush())
        .doing(io("writing the in-progress marker"))?;
    wipe_ends(device).doing(io("wiping the old table"))?;
    if layout.table == PartitionTable::Gpt {
        // The record fills one block. The rest of an earlier file system must not be found in the partition.
        write_zeroes(device, marker::PARTITION_AT, MARKER_WIPE).doing(io("wiping the marker partition"))?;
    }
    machine.step("in-progress");

    table::write_table(device, layout, geometry, record, new_uuid)?;
    device.flush().doing(io("writing the table"))?;
    machine.reread(device, geometry)?;
    machine.step("table");

    for (index, (partition, range)) in layout.partitions.iter().zip(&geometry.partitions).enumerate() {
        if partition.fs != FileSystem::Raw {
            make_partition(device, machine, index, partition, *range)?;
        }
    }

    machine.seed(device)?;
    machine.step("seed");

    if layout.table == PartitionTable::Gpt {
        table::write_partition_record(device, record, MarkerState::Final)
            .and_then(|()| device.flush())
            .doing(io("writing the marker partition"))?;
    }
    table::write_state(device, record, MarkerState::Final)
        .and_then(|()| device.flush())
        .doing(io("writing the final marker"))?;
    machine.step("final");
    Ok(())
}

/// Discards and wipes partition `index`, and makes its file system. It is on the disk before the step is reported.
pub(super) fn make_partition(
    device: &mut dyn BlockDevice,
    machine: &mut dyn Machine,
    index: usize,
    partition: &Partition,
    range: Range,
) -> Res<()> {
    let name = &partition.name;
    machine.trim(index, partition);
    wipe_partition(device, range).doing(|| format!("wiping partition {name}"))?;
    machine.make_fs(device, index, partition, range)?;
    device.flush().doing(|| format!("flushing partition {name}"))?;
    machine.step(&format!("mkfs-{name}"));
    Ok(())
}

/// Zeroes the first MiB except sector 0, and the last MiB.
fn wipe_ends(device: &mut dyn BlockDevice) -> std::io::Result<()> {
    let (size, sector) = (device.size(), u64::from(device.sector()));
    write_zeroes(device, sector, ALIGN.min(size) - sector)?;
    let tail = size.saturating_sub(ALIGN).max(ALIGN);
    write_zeroes(device, tail, size.saturating_sub(tail))?;
    device.flush()
}

/// Zeroes the first and the last MiB of a partition, and drops them from the disk's page cache.
pub(super) fn wipe_partition(device: &mut dyn BlockDevice, range: Range) -> std::io::Result<()> {
    let len = range.len.min(ALIGN);
    write_zeroes(device, range.start, len)?;
    write_zeroes(device, range.end() - len, len)?;
    device.flush()?;
    device.forget()
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
