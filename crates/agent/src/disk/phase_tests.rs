//! The whole phase on loop devices, with this machine's own root as the image. Needs root; partitions come from
//! the kernel, file systems from the real mkfs programs.

use super::*;
use crate::sys;
use rackstrap_wire::{Layout, Partition, PartitionTable, Size, Wipe};
use std::{fs, os::unix::fs::FileExt, process::Command};

#[path = "phase_contents_tests.rs"]
mod contents;

const MIB: u64 = 1 << 20;

/// A loop device with partition scanning; detached and unmounted at the end.
struct Loop {
    name: String,
    dir: tempfile::TempDir,
}

impl Loop {
    fn new(size: u64) -> Self {
        // Each `ip netns exec` of a test beside this one copies all mounts, and its copy keeps a file system in use that is not
        // mounted here any more. It cannot copy what is mounted in a namespace of this test.
        sys::unshare_mounts();
        // mkfs does not see a directory below /tmp, because it has its own /tmp.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        fs::File::create(dir.path().join("disk"))
            .unwrap()
            .set_len(size)
            .unwrap();
        fs::create_dir(dir.path().join("mounts")).unwrap();
        let output = Command::new("losetup")
            .args(["-fP", "--show"])
            .arg(dir.path().join("disk"))
            .output()
            .unwrap();
        assert!(output.status.success(), "losetup needs root: {output:?}");
        let name = String::from_utf8(output.stdout).unwrap();
        Loop {
            name: name.trim().trim_start_matches("/dev/").to_owned(),
            dir,
        }
    }

    /// The path of the device. Tests change the disk through it and not through the file behind it: the kernel
    /// caches the device's blocks while any program (udev, a lazy unmount) has it open, and would show the old ones.
    fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    fn write(&self, bytes: &[u8], at: u64) {
        let device = fs::OpenOptions::new().write(true).open(self.path()).unwrap();
        device.write_all_at(bytes, at).unwrap();
        device.sync_all().unwrap();
    }

    /// Reads from the file behind the device.
    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        fs::File::open(self.path()).unwrap().sync_all().unwrap();
        let mut bytes = vec![0; len];
        let file = fs::File::open(self.dir.path().join("disk")).unwrap();
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn make_ext4(&self) {
        let status = Command::new("mkfs.ext4").args(["-F", "-q"]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }

    fn release(&self) {
        for entry in fs::read_dir(self.dir.path().join("mounts")).unwrap().flatten() {
            let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }

    /// The disk phase as the agent runs it.
    fn boot(&self, plan: &DiskPlan) -> (DiskState, Vec<String>) {
        self.boot_image(plan, Path::new("/"), &ImageList::default())
    }

    fn boot_image(&self, plan: &DiskPlan, image: &Path, list: &ImageList<'_>) -> (DiskState, Vec<String>) {
        let mut plan = plan.clone();
        plan.device = self.name.clone();
        self.boot_plan(&plan, image, list)
    }

    /// The same with the devices that the plan has.
    fn boot_plan(&self, plan: &DiskPlan, image: &Path, list: &ImageList<'_>) -> (DiskState, Vec<String>) {
        let mut steps = Vec::new();
        let mut notes = Vec::new();
        let context = Context {
            node: "r01n01",
            image,
            list,
            mounts: &self.dir.path().join("mounts"),
            on_step: &mut |s| steps.push(s.to_owned()),
            on_line: &mut |s| notes.push(s.to_owned()),
        };
        let (state, text) = run(Some(plan), context);
        println!("{text} {notes:?}");
        (state, steps)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.release();
        let _ = Command::new("losetup").arg("-d").arg(self.path()).status();
    }
}

fn plan(table: PartitionTable, version: u32) -> DiskPlan {
    let partition = |name: &str, size, fs, mount: Option<&str>| Partition {
        name: name.into(),
        size,
        fs,
        mount: mount.map(str::to_owned),
        options: "noatime".into(),
    };
    DiskPlan {
        layout: Layout {
            name: "scratch".into(),
            version,
            table,
            partitions: vec![
                // A small directory that every Debian has.
                partition("etc", Size::Bytes(32 * MIB), FileSystem::Ext4, Some("/etc/default")),
                partition("data", Size::Rest, FileSystem::Xfs, Some("/nowhere/at/all")),
            ],
        },
        digest: format!("{version:032x}"),
        device: String::new(),
        wipe: Wipe::Ours,
        wipe_known: false,
        roots: Vec::new(),
        seen: None,
        again: false,
        remake: Vec::new(),
        more: Vec::new(),
        loader: None,
        esp: Vec::new(),
        layout_esp: None,
        contents: Vec::new(),
    }
}

fn whole_life(table: PartitionTable) {
    let disk = Loop::new(400 * MIB);
    let v1 = plan(table, 1);
    let (state, steps) = disk.boot(&v1);
    assert_eq!(
        state.status,
        DiskStatus::Prepared {
            from: "blank".into(),
            to: "scratch v1".into()
        }
    );
    assert_eq!(
        steps,
        ["in-progress", "table", "mkfs-etc", "mkfs-data", "seed", "final"]
    );
    assert_eq!(state.mounts.len(), 2);
    assert!(
        state
            .mounts
            .iter()
            .all(|m| m.uuid.len() == 36 && m.device.starts_with("/dev/loop")),
        "{state:?}"
    );
    // The seed is the image's directory; a file that the node writes stays.
    let seeded = disk.dir.path().join("mounts/etc");
    let mut names: Vec<_> = fs::read_dir(&seeded)
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    names.retain(|n| n != "lost+found");
    names.sort();
    let mut want: Vec<_> = fs::read_dir("/etc/default")
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    want.sort();
    assert_eq!(names, want);
    fs::write(disk.dir.path().join("mounts/data/mine"), "kept").unwrap();
    disk.release();

    // The second boot changes nothing outside of the file systems, and makes no new ones.
    let ends = |d: &Loop| {
        (
            d.bytes(
                0,
                2 * MIB as usize - if table == PartitionTable::Mbr { MIB as usize } else { 0 },
            ),
            d.bytes(400 * MIB - 40_960, 40_960),
        )
    };
    let before = ends(&disk);
    let (second, steps) = disk.boot(&v1);
    assert_eq!(
        second.status,
        DiskStatus::Kept {
            layout: "scratch v1".into()
        }
    );
    assert_eq!((steps.len(), &second.mounts), (0, &state.mounts));
    assert_eq!(fs::read(disk.dir.path().join("mounts/data/mine")).unwrap(), b"kept");
    disk.release();
    assert!(ends(&disk) == before);

    // Another digest with the same version: the disk is kept, and the difference is reported.
    let mut changed = v1.clone();
    changed.digest = "f".repeat(32);
    let (state, steps) = disk.boot(&changed);
    assert_eq!(
        state.status,
        DiskStatus::Degraded {
            reason: "layout scratch v1 was changed without raising its version".into()
        }
    );
    assert_eq!((steps.len(), state.mounts.len()), (0, 2));
    disk.release();

    // A higher version is prepared again.
    let (state, _) = disk.boot(&plan(table, 2));
    assert_eq!(
        state.status,
        DiskStatus::Prepared {
            from: "scratch v1".into(),
            to: "scratch v2".into()
        }
    );
    assert!(!disk.dir.path().join("mounts/data/mine").exists());
}

#[test]
fn a_gpt_disk_is_prepared_kept_and_prepared_again_for_a_new_version() {
    whole_life(PartitionTable::Gpt);
}

#[test]
fn an_mbr_disk_is_prepared_kept_and_prepared_again_for_a_new_version() {
    whole_life(PartitionTable::Mbr);
}

#[test]
fn a_layout_that_changed_without_a_new_version_changes_no_file() {
    use rackstrap_wire::image_list::{self, Entry};
    let disk = Loop::new(400 * MIB);
    let mut before = plan(PartitionTable::Gpt, 1);
    before.layout.partitions[1].mount = Some("/etc/alternatives".into());
    before.layout.partitions[1].fs = FileSystem::Ext4;
    // Each list has a file as both directories have it, so that both lists are about the same paths.
    let mut text = Vec::new();
    image_list::begin(&mut text);
    for dir in ["alternatives", "default"] {
        let path = format!("etc/{dir}/of-{dir}");
        let entry = Entry {
            path: path.as_bytes(),
            kind: b'f',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            crc: 0,
            sum: 0,
            target: b"",
        };
        image_list::add_entry(&mut text, &entry);
    }
    let list = ImageList::parse(&text).unwrap();
    disk.boot_image(&before, Path::new("/"), &list);
    let mounts = disk.dir.path().join("mounts");
    for (name, dir) in [("etc", "default"), ("data", "alternatives")] {
        fs::write(mounts.join(name).join(format!("of-{dir}")), "").unwrap();
    }
    disk.release();
    // Two mount points were swapped, and the version was not raised.
    let mut after = before.clone();
    after.digest = "f".repeat(32);
    after.layout.partitions[0].mount = before.layout.partitions[1].mount.clone();
    after.layout.partitions[1].mount = before.layout.partitions[0].mount.clone();
    let (state, _) = disk.boot_image(&after, Path::new("/"), &list);
    assert_eq!(
        state.status,
        DiskStatus::Degraded {
            reason: "layout scratch v1 was changed without raising its version".into()
        }
    );
    assert!(mounts.join("etc/of-default").exists() && mounts.join("data/of-alternatives").exists());
    disk.release();
}

#[test]
fn a_foreign_disk_is_not_touched() {
    let disk = Loop::new(64 * MIB);
    disk.make_ext4();
    let before = disk.bytes(0, 64 * MIB as usize);
    let (state, steps) = disk.boot(&plan(PartitionTable::Gpt, 1));
    let reason = format!(
        "{} holds foreign data (ext2/3/4); left untouched; /etc/default and /nowhere/at/all are in RAM",
        disk.name
    );
    assert_eq!(
        (state.status, steps.len(), state.mounts.len()),
        (DiskStatus::Degraded { reason }, 0, 0)
    );
    assert!(disk.bytes(0, 64 * MIB as usize) == before);
}

#[test]
fn a_disk_that_lost_its_table_is_kept_until_an_order_to_prepare_it() {
    let disk = Loop::new(400 * MIB);
    let mut plan = plan(PartitionTable::Gpt, 1);
    // `wipe` is about foreign data, and this data is ours.
    plan.wipe = Wipe::Always;
    let id = disk.boot(&plan).0.facts.marker.unwrap().id;
    disk.release();
    // udev may have the disk open too; the kernel then keeps the blocks that it has read.
    let _held = fs::File::open(disk.path()).unwrap();
    for at in [512, 400 * MIB - 512] {
        disk.write(&[0; 512], at);
    }
    let before = disk.bytes(0, 64 * MIB as usize);
    let (state, steps) = disk.boot(&plan);
    let reason = format!(
        "{} was prepared by rackstrap, but its partition table is lost or unreadable; left untouched; to delete its contents and \
         prepare it again: `rackstrap node reprep r01n01`, then restart the node; /etc/default and /nowhere/at/all are in RAM",
        disk.name
    );
    assert_eq!((state.status, steps.len()), (DiskStatus::Degraded { reason }, 0));
    // The server still gets the marker, and so knows whose disk it is.
    assert_eq!(state.facts.marker.unwrap().id, id);
    assert_eq!(state.facts.problem, None);
    assert!(disk.bytes(0, 64 * MIB as usize) == before);
    plan.again = true;
    let (state, _) = disk.boot(&plan);
    assert_eq!(
        state.status,
        DiskStatus::Prepared {
            from: "scratch v1, its partition table is lost or unreadable".into(),
            to: "scratch v1".into()
        }
    );
}

/// Runs the phase among several loop devices, in the order of `disks`.
fn boot_among(disks: &[&Loop], plan: &DiskPlan) -> DiskState {
    let present = || {
        let all = candidate::candidates(Path::new("/sys/block"));
        let named = |disk: &&Loop| {
            let found = all.iter().find(|candidate| candidate.name == disk.name);
            found.cloned().unwrap()
        };
        // The disks are not called `loop`, so that `auto` takes them, but have the kernel's names so that they can be opened.
        disks.iter().map(named).collect::<Vec<_>>()
    };
    let context = Context {
        node: "r01n01",
        image: Path::new("/"),
        list: &ImageList::default(),
        mounts: &disks[0].dir.path().join("mounts"),
        on_step: &mut |_| (),
        on_line: &mut |_| (),
    };
    let (state, text) = run_among(plan, &present, &|_| false, context);
    println!("{text}");
    state
}

#[test]
fn no_disk_replaces_the_one_with_the_marker() {
    let (first, second) = (Loop::new(400 * MIB), Loop::new(400 * MIB));
    let mut wanted = plan(PartitionTable::Gpt, 1);
    wanted.wipe = Wipe::Always;
    // Each disk was the node's at some time.
    let made = first.boot(&wanted);
    let number = made.0.facts.marker.clone().unwrap().id;
    assert_eq!(number.len(), 8, "{made:?}");
    first.release();
    // The kernel's names are swapped, and the other disk holds a foreign file system.
    second.make_ext4();
    let before = second.bytes(0, 400 * MIB as usize);
    wanted.seen = Some(rackstrap_wire::SeenDisk {
        device: second.name.clone(),
        serial: String::new(),
        marker: number.clone(),
    });
    wanted.device.clone_from(&second.name);
    let both = [&first, &second];
    // `of_interest` skips loop devices unless they are named, so this reads both disks itself.
    let looked: Vec<InspectedDisk> = both
        .iter()
        .map(|disk| {
            let all = candidate::candidates(Path::new("/sys/block"));
            inspect_disk(all.into_iter().find(|candidate| candidate.name == disk.name).unwrap())
        })
        .collect();
    assert_eq!(choose::choose(&looked, &wanted), Ok(Some(0)));
    // The marked disk is missing: the foreign one is not touched, whatever the plan allows to overwrite.
    let state = boot_among(&[&second], &wanted);
    assert_eq!(state.facts.problem, Some(DiskProblem::Missing), "{state:?}");
    assert!(second.bytes(0, 400 * MIB as usize) == before);
    // The marker's number is the same after a new version of the layout.
    let mut next = plan(PartitionTable::Gpt, 2);
    next.seen.clone_from(&wanted.seen);
    let again = first.boot(&next);
    assert!(matches!(again.0.status, DiskStatus::Prepared { .. }), "{again:?}");
    assert_eq!(again.0.facts.marker.unwrap().id, number);
}

#[test]
fn each_layout_has_its_disk_and_keeps_it_whatever_the_order() {
    let (first, second) = (Loop::new(400 * MIB), Loop::new(400 * MIB));
    let mut scratch = plan(PartitionTable::Gpt, 1);
    scratch.layout.partitions.truncate(1);
    scratch.device.clone_from(&first.name);
    let mut data = scratch.clone();
    data.layout.name = "data".into();
    data.layout.partitions[0].name = "data".into();
    data.layout.partitions[0].mount = Some("/nowhere/at/all".into());
    data.device.clone_from(&second.name);
    let boot = |scratch: &DiskPlan, data: &DiskPlan| {
        let mut both = scratch.clone();
        both.more = vec![data.clone()];
        let (state, _) = first.boot_plan(&both, Path::new("/"), &ImageList::default());
        first.release();
        state
    };
    let state = boot(&scratch, &data);
    let prepared = |from: &str, to: &str| DiskStatus::Prepared {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    assert_eq!(state.status, prepared("blank", "scratch v1"), "{state:?}");
    assert_eq!(state.layouts[1].status, prepared("blank", "data v1"));
    let devices: Vec<&str> = state.layouts.iter().map(|one| one.device.as_str()).collect();
    assert_eq!(devices, [&first.name, &second.name]);
    assert_eq!(state.mounts.len(), 2, "both are in the node's fstab");
    // Only the layout that has the order is prepared again.
    data.again = true;
    let state = boot(&scratch, &data);
    assert_eq!(
        state.layouts[0].status,
        DiskStatus::Kept {
            layout: "scratch v1".into()
        }
    );
    assert_eq!(state.layouts[1].status, prepared("data v1", "data v1"));
    // Both layouts are for one disk: the second one gets none, and the message names both.
    data.again = false;
    data.device.clone_from(&first.name);
    let before = second.bytes(0, 400 * MIB as usize);
    let state = boot(&scratch, &data);
    assert_eq!(
        state.first_status(),
        &DiskStatus::Kept {
            layout: "scratch v1".into()
        }
    );
    let DiskStatus::Degraded { reason } = &state.status else {
        panic!("{state:?}")
    };
    let both = format!("{} fits, and is the disk of the layout scratch", first.name);
    assert!(
        reason.starts_with("layout data: no disk ") && reason.contains(&both),
        "{reason}"
    );
    assert!(second.bytes(0, 400 * MIB as usize) == before);
}

#[test]
fn a_small_disk_is_not_touched_and_both_sizes_are_named() {
    let disk = Loop::new(16 * MIB);
    let (state, _) = disk.boot(&plan(PartitionTable::Gpt, 1));
    let DiskStatus::Degraded { reason } = state.status else {
        panic!("{state:?}")
    };
    assert!(
        reason.contains("too small: the layout needs 36 MiB, the disk has 16 MiB; left untouched"),
        "{reason}"
    );
    assert!(disk.bytes(0, 16 * MIB as usize).iter().all(|b| *b == 0));
}

#[test]
fn a_missing_disk_and_a_missing_layout_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = |plan: Option<&DiskPlan>| {
        let context = Context {
            node: "r01n01",
            image: Path::new("/"),
            list: &ImageList::default(),
            mounts: dir.path(),
            on_step: &mut |_| (),
            on_line: &mut |_| (),
        };
        run(plan, context).0
    };
    assert_eq!(nothing(None).status, DiskStatus::NotWanted);
    let mut plan = plan(PartitionTable::Gpt, 1);
    plan.device = "nosuchdisk".into();
    let DiskStatus::Degraded { reason } = nothing(Some(&plan)).status else {
        panic!()
    };
    assert_eq!(
        reason,
        "no disk nosuchdisk found; /etc/default and /nowhere/at/all are in RAM"
    );
}

#[test]
fn digests_are_read_strictly() {
    assert_eq!(digest(&"0f".repeat(16)).unwrap(), [15; 16]);
    for text in ["", "0f", &"0g".repeat(16), &"é".repeat(16), &"0".repeat(33)] {
        assert!(digest(text).is_err(), "{text}");
    }
}
