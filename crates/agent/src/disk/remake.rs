//! Makes the file systems of single partitions again on a disk that is kept otherwise, by an order for one boot.
//!
//! The table and the marker stay. After a power cut the partition has no file system, and the order is still in force, because the server ends
//! it only with the report of this boot: the next boot makes the file system.

use super::{
    device::BlockDevice,
    geometry::Geometry,
    prepare::{Machine, make_partition},
};
use crate::fail::Res;
use rackstrap_wire::{FileSystem, Layout};

/// Makes the file systems of the partitions in `names` again, and fills them from the image. Returns the names of those that were made:
/// names that the layout does not have, and partitions without a file system, are left out.
pub fn remake(
    device: &mut dyn BlockDevice,
    layout: &Layout,
    names: &[String],
    geometry: &Geometry,
    machine: &mut dyn Machine,
) -> Res<Vec<String>> {
    let mut made = Vec::new();
    for (index, (partition, range)) in layout.partitions.iter().zip(&geometry.partitions).enumerate() {
        if partition.fs == FileSystem::Raw || !names.contains(&partition.name) {
            continue;
        }
        make_partition(device, machine, index, partition, *range)?;
        made.push(partition.name.clone());
    }
    if !made.is_empty() {
        machine.seed(device)?;
        machine.step("seed");
    }
    Ok(made)
}

#[cfg(test)]
#[path = "remake_tests.rs"]
mod tests;
