//! The cost of working copies, and the ways to make them.

use super::*;
use crate::{
    ImportRequest, Progress, Quiet, SealRequest, collect_leftovers, delete_versions, import,
    import::tests::{Bench, assert_clean},
    load_catalog, seal,
    tree::{disk::Disk, nasty},
    verify,
};
use std::process::Command;

const BIG: u64 = 100 << 20;

/// A bench whose tree has a file of which only few copies fit onto the disk.
fn with_a_big_file() -> (Bench, ImportRequest) {
    let bench = Bench::new();
    let noise: Vec<u8> = (0..BIG / 4)
        .flat_map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    std::fs::write(bench.path("tree/usr/big"), noise).unwrap();
    let request = bench.request();
    (bench, request)
}

fn clone(request: &ImportRequest, parent: &str, name: &str) -> Cloned {
    let request = CloneRequest {
        images_dir: request.images_dir.clone(),
        parent: parent.parse().unwrap(),
        architecture: None,
        name: name.into(),
        by: String::new(),
        now: Timestamp(1),
    };
    clone_version(&request, &mut Quiet).unwrap()
}

fn seal_as(request: &ImportRequest, work: &str) -> ImageRef {
    let request = SealRequest {
        images_dir: request.images_dir.clone(),
        work: work.into(),
        name: None,
        agents: request.agents.clone(),
        message: String::new(),
        by: String::new(),
        kernel: None,
        modules: vec![],
        now: Timestamp(2),
    };
    seal(&request, &mut Quiet).unwrap()
}

/// Copies that are made in this way need no space until they are changed, and a change in one does not affect the others.
fn copies_cost_next_to_nothing(disk: &Disk, request: &ImportRequest, way: Way) {
    let before = disk.used();
    // Full copies would not fit.
    let copies = ["a", "b", "c", "d"].map(|name| clone(request, "test@1", name));
    for cloned in &copies {
        assert_eq!(cloned.way, way);
    }
    let grown = disk.used().saturating_sub(before);
    assert!(grown < BIG / 10, "{grown}");
    let [a, b, c, d] = copies.map(|cloned| cloned.copy);
    nasty::assert_same(&request.images_dir.join("test/1/root"), &c.root());
    std::fs::write(a.root().join("usr/big"), "changed").unwrap();
    assert_eq!(std::fs::metadata(b.root().join("usr/big")).unwrap().len(), BIG);
    let (catalog, _) = load_catalog(&request.images_dir);
    let version = catalog.newest("test").unwrap();
    assert_eq!(verify(version, &mut Quiet).unwrap(), Vec::<String>::new());
    assert_eq!(
        (d.info.files, d.info.bytes),
        (version.manifest.files, version.manifest.bytes)
    );
    let sealed = seal_as(request, "a");
    assert_eq!(sealed.to_string(), "test@2");
    let again = clone(request, "test@2", "e");
    assert_eq!(again.way, way);
    assert_eq!(std::fs::read(again.copy.root().join("usr/big")).unwrap(), b"changed");
    for name in ["b", "c", "d", "e"] {
        delete_working_copy(&request.images_dir, name, &mut Quiet).unwrap();
    }
    delete_versions(
        &request.images_dir,
        &["test@1".parse().unwrap(), sealed],
        &mut || Ok(()),
        &mut Quiet,
    )
    .unwrap();
    assert_clean(&request.images_dir);
    let left = disk.used();
    assert!(left < before - BIG * 9 / 10, "{left} of {before}");
}

#[test]
fn on_xfs_files_share_their_blocks() {
    let (bench, request) = with_a_big_file();
    let disk = Disk::xfs(bench.path("state"), bench.path("disk"));
    import(&request, &mut Quiet).unwrap();
    copies_cost_next_to_nothing(&disk, &request, Way::Reflinks);
}

#[test]
fn on_btrfs_a_copy_is_a_snapshot() {
    let (bench, request) = with_a_big_file();
    std::fs::create_dir(bench.path("tree/nasty")).unwrap();
    nasty::make(&bench.path("tree/nasty"), true);
    let disk = Disk::btrfs(bench.path("state"), bench.path("disk"));
    import(&request, &mut Quiet).unwrap();
    let root = rfs::stat(request.images_dir.join("test/1/root")).unwrap();
    let version = rfs::stat(request.images_dir.join("test/1")).unwrap();
    assert_eq!((root.st_ino, root.st_mode & 0o7777), (256, 0o755));
    assert_ne!(root.st_dev, version.st_dev);
    copies_cost_next_to_nothing(&disk, &request, Way::Snapshot);
}

#[test]
fn a_full_copy_is_reported_as_such() {
    let bench = Bench::new();
    let request = bench.request();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let request = ImportRequest {
        images_dir: memory.path().join("images"),
        ..request
    };
    import(&request, &mut Quiet).unwrap();
    let Cloned { copy, way } = clone(&request, "test@1", "a");
    assert_eq!(
        way,
        Way::Copy {
            written: copy.info.bytes
        }
    );
}

#[test]
fn the_first_copy_of_a_plain_version_is_a_subvolume() {
    let bench = Bench::new();
    let request = bench.request();
    import(&request, &mut Quiet).unwrap();
    let _disk = Disk::btrfs(bench.path("moved"), bench.path("disk"));
    let copy = Command::new("cp")
        .arg("-a")
        .arg(&request.images_dir)
        .arg(bench.path("moved"))
        .status();
    assert!(copy.unwrap().success());
    let request = ImportRequest {
        images_dir: bench.path("moved/images"),
        ..request
    };
    assert_eq!(clone(&request, "test@1", "a").way, Way::Reflinks);
    let sealed = seal_as(&request, "a");
    assert_eq!(clone(&request, &sealed.to_string(), "b").way, Way::Snapshot);
}

/// `btrfs subvolume create`
fn subvolume(at: &Path) {
    let made = Command::new("btrfs")
        .args(["-q", "subvolume", "create"])
        .arg(at)
        .status();
    assert!(made.unwrap().success());
}

#[test]
fn a_seal_converts_nested_subvolumes_to_directories_without_loss() {
    let bench = Bench::new();
    let request = bench.request();
    let _disk = Disk::btrfs(bench.path("state"), bench.path("disk"));
    import(&request, &mut Quiet).unwrap();
    let copy = clone(&request, "test@1", "a").copy;
    let machines = copy.root().join("etc/machines");
    subvolume(&machines);
    subvolume(&machines.join("inner"));
    subvolume(&copy.root().join("etc/empty"));
    std::fs::write(machines.join("file"), "content").unwrap();
    std::fs::write(machines.join("inner/file"), "more").unwrap();
    std::os::unix::fs::chown(&machines, Some(3), Some(4)).unwrap();
    // An interrupted seal leaves this directory.
    std::fs::create_dir_all(copy.root().join("etc/machines.rackstrap-plain/half")).unwrap();
    let before = nasty::look(&copy.root());
    let sealed = seal_as(&request, "a");
    let root = request.images_dir.join("test/2/root");
    let mut after = nasty::look(&root);
    assert_eq!(after.len() + 2, before.len());
    after.retain(|path, _| !before.contains_key(path));
    assert!(after.is_empty(), "{:?}", after.keys());
    for path in ["etc/machines", "etc/machines/inner", "etc/empty"] {
        let stat = rfs::stat(root.join(path)).unwrap();
        assert!(
            stat.st_ino != 256 && stat.st_dev == rfs::stat(&root).unwrap().st_dev,
            "{path}"
        );
    }
    assert_eq!(std::fs::read(root.join("etc/machines/inner/file")).unwrap(), b"more");
    assert_eq!(rfs::stat(root.join("etc/machines")).unwrap().st_uid, 3);
    // This version contains a subvolume, which would be empty in a snapshot.
    subvolume(&root.join("etc/late"));
    std::fs::write(root.join("etc/late/file"), "late").unwrap();
    let late = clone(&request, &sealed.to_string(), "b");
    assert_eq!(late.way, Way::Reflinks);
    assert_eq!(std::fs::read(late.copy.root().join("etc/late/file")).unwrap(), b"late");
    // The kernel does not delete these at once, so their files are removed one by one.
    delete_versions(&request.images_dir, &[sealed], &mut || Ok(()), &mut Quiet).unwrap();
    delete_working_copy(&request.images_dir, "b", &mut Quiet).unwrap();
    assert_clean(&request.images_dir);
}

#[test]
fn unfinished_subvolumes_are_removed_at_the_next_start() {
    let bench = Bench::new();
    let request = bench.request();
    let _disk = Disk::btrfs(bench.path("state"), bench.path("disk"));
    import(&request, &mut Quiet).unwrap();
    let images = &request.images_dir;
    let left = [images.join("test/.incoming-1"), images.join(".work/.deleted-1")];
    for dir in &left {
        std::fs::create_dir_all(dir).unwrap();
        subvolume(&dir.join("root"));
        std::fs::write(dir.join("root/file"), "x").unwrap();
    }
    assert_eq!(collect_leftovers(images, true, &mut Quiet).unwrap().len(), 2);
    clone(&request, "test@1", "a");
    assert!(left.iter().all(|dir| !dir.exists()));
    // A copy that fails leaves no snapshot.
    struct Panics;
    impl Progress for Panics {
        fn begin(&mut self, _step: Step, _bytes: Option<u64>) {}
        fn advance(&mut self, _files: u64, _bytes: u64) {}
        fn remark(&mut self, _text: &str) {}
        fn reached(&mut self, point: &'static str) {
            assert_ne!(point, "synced");
        }
    }
    let request = CloneRequest {
        images_dir: images.clone(),
        parent: "test@1".parse().unwrap(),
        architecture: None,
        name: "b".into(),
        by: String::new(),
        now: Timestamp(1),
    };
    let failed = std::panic::catch_unwind(|| clone_version(&request, &mut Panics));
    assert!(failed.is_err());
    assert_clean(images);
    assert_eq!(working_copies(images).0.len(), 1);
}
