//! Partitions that are encrypted with a key of this boot (`encrypt = "boot-key"`): made, mounted and filled at each boot.
//!
//! Their content is of no use after a power cut or a restart, so nothing of it is kept, and no order of steps has to survive a power cut.
//! What was written to the partition before, encrypted with a key that is gone, is discarded.

use super::{
    device::{BlockDevice, FileDevice},
    geometry::Range,
    image_modules,
    machine::{self, Target},
    mapper::Mapping,
    options,
    phase::Context,
    prepare, signature, trim,
};
use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::{ContentOf, DiskPlan, FileSystem, MountedPartition, Partition, label_of};

/// Modules of dm-crypt and of AES in XTS mode: the fast one of the machine's processor, by the kernel's own alias, and the general ones.
const MODULES: &[&str] = &["dm_crypt", "crypto-xts(aes)", "xts", "ecb"];

/// Makes the file system of a partition, which is `range` of the disk and has `content`, over a device with a new random key, and mounts it.
pub fn make(
    plan: &DiskPlan,
    (disk, number): (&str, u32),
    range: Range,
    partition: &Partition,
    content: &ContentOf,
    context: &mut Context<'_>,
) -> Res<MountedPartition> {
    let partition = Partition {
        fs: content.fs.unwrap_or(partition.fs),
        ..partition.clone()
    };
    let name = &partition.name;
    let failed = |failure: Failure| Failure::new(format!("{name} was not encrypted, and is not used: {failure}"));
    let node = machine::partition_node(disk, number, Some(range)).map_err(failed)?;
    if let Some(trimmed) = trim::trim(disk, &node) {
        (context.on_line)(&trimmed.describe(name));
    }
    FileDevice::open(&node, true)
        .and_then(|mut device| {
            let whole = Range {
                start: 0,
                len: device.size(),
            };
            prepare::wipe_partition(&mut device, whole)
        })
        .doing(|| format!("wiping {}", node.display()))
        .map_err(failed)?;
    let lacking = image_modules::load(context.image, MODULES);
    let mapping = Mapping::with_new_key(name, &node, range.len / 512).map_err(|failure| {
        failed(match lacking.is_empty() {
            true => failure,
            false => Failure::new(format!("{failure}; {lacking}")),
        })
    })?;
    match fill(plan, &mapping, &partition, context) {
        Ok(mounted) => {
            let mount = mounted.mount.as_deref().unwrap_or(name);
            (context.on_line)(&format!("{mount}: encrypted with a key of this boot"));
            Ok(mounted)
        }
        Err(failure) => {
            mapping.remove();
            Err(failed(failure))
        }
    }
}

/// Makes, fills and mounts the file system on the encrypted device.
fn fill(plan: &DiskPlan, mapping: &Mapping, partition: &Partition, context: &mut Context<'_>) -> Res<MountedPartition> {
    let node = &mapping.node;
    let label = label_of(&plan.contents, partition);
    machine::make_file_system(context.image, partition.fs, &label, node)?;
    let (found, size) = FileDevice::open(node, false)
        .and_then(|mut device| Ok((signature::superblock(&mut device, 0)?, device.size())))
        .doing(|| format!("reading {}", node.display()))?;
    let found = found.filter(|found| found.fs == partition.fs);
    let found = found.ok_or_else(|| Failure::new(format!("{} has no {}", node.display(), partition.fs.as_str())))?;
    if partition.fs == FileSystem::Swap {
        crate::sys::swap_on(node, options::swap_flags(&partition.options))
            .doing(|| format!("swapping on {}", node.display()))?;
    } else if partition.mount.is_some() {
        let target = Target {
            image: context.image,
            list: context.list,
            layout: &plan.layout,
            mounts: context.mounts,
        };
        if let Some(line) = target.seed(node, partition)? {
            (context.on_line)(&line);
        }
        machine::mount_partition(node, partition, context.mounts, false)?;
    }
    Ok(MountedPartition {
        name: partition.name.clone(),
        device: node.display().to_string(),
        fs: partition.fs,
        uuid: found.uuid,
        mount: partition.mount.clone(),
        options: not_at_boot(&partition.options),
        size,
        encrypted: true,
    })
}

/// The options for fstab (pure): the agent has mounted it, and no program of the node waits for a device that udev may not announce.
fn not_at_boot(options: &str) -> String {
    match options {
        "" => "noauto".to_owned(),
        options => format!("{options},noauto"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_does_not_wait_for_a_device_that_the_agent_made() {
        assert_eq!(not_at_boot(""), "noauto");
        assert_eq!(not_at_boot("noatime,nosuid"), "noatime,nosuid,noauto");
    }
}
