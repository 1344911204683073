//! What the phase puts on partitions: file systems, nothing, or plain text. On loop devices, as its other tests.

use super::*;

#[test]
fn a_btrfs_partition_is_made_filled_and_kept() {
    let disk = Loop::new(400 * MIB);
    let mut plan = plan(PartitionTable::Gpt, 1);
    // As a server sends it: raw for agents that do not know btrfs.
    plan.layout.partitions[1].fs = FileSystem::Raw;
    plan.layout.partitions[1].mount = Some("/etc/alternatives".into());
    plan.contents = vec![rackstrap_wire::ContentOf {
        fs: Some(FileSystem::Btrfs),
        label: Some("SCRATCH".into()),
        ..rackstrap_wire::ContentOf::new("data")
    }];
    let (state, steps) = disk.boot(&plan);
    assert_eq!(
        steps,
        ["in-progress", "table", "mkfs-etc", "mkfs-data", "seed", "final"],
        "{state:?}"
    );
    let data = state.mounts.iter().find(|mount| mount.name == "data").unwrap();
    assert_eq!((data.fs, data.uuid.len()), (FileSystem::Btrfs, 36));
    let mounted = disk.dir.path().join("mounts/data");
    assert!(fs::read_dir(&mounted).unwrap().count() > 1, "the image's directory");
    fs::write(mounted.join("mine"), "kept").unwrap();
    disk.release();
    let label = Command::new("blkid")
        .args(["-p", "-o", "value", "-s", "LABEL"])
        .arg(&data.device)
        .output();
    assert_eq!(String::from_utf8_lossy(&label.unwrap().stdout).trim(), "SCRATCH");
    let (second, steps) = disk.boot(&plan);
    assert_eq!(
        (second.status, steps.len()),
        (
            DiskStatus::Kept {
                layout: "scratch v1".into()
            },
            0
        )
    );
    assert_eq!(fs::read(mounted.join("mine")).unwrap(), b"kept");
}

#[test]
fn a_program_that_the_image_lacks_is_named_before_anything_is_written() {
    let disk = Loop::new(400 * MIB);
    let image = tempfile::tempdir().unwrap();
    let mut plan = plan(PartitionTable::Gpt, 1);
    plan.layout.partitions.remove(0);
    plan.layout.partitions[0].fs = FileSystem::Raw;
    plan.contents = vec![rackstrap_wire::ContentOf {
        fs: Some(FileSystem::Vfat),
        ..rackstrap_wire::ContentOf::new("data")
    }];
    let (state, steps) = disk.boot_image(&plan, image.path(), &ImageList::default());
    let DiskStatus::Degraded { reason } = state.status else {
        panic!("{state:?}")
    };
    assert!(
        reason.contains("was not prepared: the image has no mkfs.vfat; install dosfstools in it"),
        "{reason}"
    );
    assert!(steps.is_empty() && disk.bytes(0, 4 * MIB as usize).iter().all(|byte| *byte == 0));
}

#[test]
fn old_content_is_discarded_inside_the_partitions_and_nowhere_else() {
    let disk = Loop::new(400 * MIB);
    let mut plan = plan(PartitionTable::Gpt, 1);
    plan.wipe = Wipe::Always;
    // A raw partition between two others is not changed at all.
    plan.layout.partitions.insert(
        1,
        Partition {
            name: "raw".into(),
            size: Size::Bytes(16 * MIB),
            fs: FileSystem::Raw,
            mount: None,
            options: String::new(),
        },
    );
    disk.write(&vec![0x5a; 400 * MIB as usize], 0);
    let (state, _) = disk.boot(&plan);
    assert!(matches!(state.status, DiskStatus::Prepared { .. }), "{state:?}");
    disk.release();
    let geometry = geometry::place(&plan.layout, 400 * MIB, 512).unwrap();
    let [_, raw, data] = geometry.partitions[..] else {
        panic!("{geometry:?}")
    };
    assert!(disk.bytes(raw.start, raw.len as usize).iter().all(|byte| *byte == 0x5a));
    // The middle of the large one, which neither mkfs nor the wiping writes.
    let middle = disk.bytes(data.start + data.len / 2 + 3 * MIB, MIB as usize);
    assert!(middle.iter().all(|byte| *byte == 0), "{:x?}", &middle[..16]);
}

#[test]
fn a_partition_that_cannot_be_encrypted_is_not_used_in_plain_text() {
    let disk = Loop::new(400 * MIB);
    // There is no program that loads dm-crypt, and none that makes the file system.
    let mut plan = plan(PartitionTable::Gpt, 1);
    plan.layout.partitions[1].fs = FileSystem::Raw;
    plan.contents = vec![rackstrap_wire::ContentOf {
        fs: Some(FileSystem::Swap),
        encrypt: Some(rackstrap_wire::Encryption::BootKey),
        ..rackstrap_wire::ContentOf::new("data")
    }];
    let mut other = plan.clone();
    other.digest = "f".repeat(32);
    if Path::new("/sys/class/misc/device-mapper").exists() {
        println!("not tried: this kernel may encrypt it");
        return;
    }
    let (state, _) = disk.boot(&plan);
    let DiskStatus::Degraded { reason } = &state.status else {
        panic!("{state:?}")
    };
    assert!(reason.contains("data was not encrypted, and is not used: "), "{reason}");
    assert_eq!(state.mounts.len(), 1, "{state:?}");
    disk.release();
    // Under another digest the partition may be another one, so that nothing is written to it.
    let before = disk.bytes(0, 400 * MIB as usize);
    let (state, _) = disk.boot(&other);
    let DiskStatus::Degraded { reason } = &state.status else {
        panic!("{state:?}")
    };
    assert!(reason.contains("the disk does not have the plan's layout"), "{reason}");
    disk.release();
    let geometry = geometry::place(&plan.layout, 400 * MIB, 512).unwrap();
    let data = geometry.partitions[1];
    let range = data.start as usize..data.end() as usize;
    assert!(disk.bytes(0, 400 * MIB as usize)[range.clone()] == before[range]);
}
