//! Descriptors: the limit on open files, and finding closed files again.

use super::*;
use std::{fs, process::Command};

/// A directory in memory if possible, because these tests make thousands of files.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn export(path: &Path) -> ExportRoot {
    ExportRoot::open(path, ExportId([1; 8]), "test@1".into()).unwrap()
}

#[test]
fn open_files_are_limited_and_closed_ones_are_found_again() {
    let dir = tempdir();
    let count = allowed() + 300;
    for i in 0..count {
        fs::write(dir.path().join(i.to_string()), i.to_string()).unwrap();
    }
    let export = export(dir.path());
    let root = export.node(export.root_id(), Pace::MayBlock).unwrap();
    let mut ids = Vec::new();
    for i in 0..count {
        let (node, attr) = export.child(&root, i.to_string().as_bytes(), Pace::MayBlock).unwrap();
        ids.push((*node.id(), attr.fileid));
    }
    assert!(export.held().len() <= allowed());
    // The first ones were closed meanwhile: they are not available inline, but are found again by their ids.
    let (id, fileid) = ids[0];
    assert_eq!(export.node(&id, Pace::Inline).err(), Some(Stop::WouldBlock));
    let node = export.node(&id, Pace::MayBlock).unwrap();
    assert_eq!(node.attr().unwrap().fileid, fileid);
    assert!(Arc::ptr_eq(&node, &export.node(&id, Pace::Inline).unwrap()));
    let mut data = [0; 8];
    let n = rustix::io::pread(export.data(&node, Pace::MayBlock).unwrap(), &mut data, 0).unwrap();
    assert_eq!(&data[..n], b"0");
}

#[test]
fn an_inline_call_does_not_wait_for_the_disk() {
    let dir = tempdir();
    fs::write(dir.path().join("file"), "data").unwrap();
    let export = export(dir.path());
    let blocks = |result: Result<_, Stop>| assert_eq!(result.err(), Some(Stop::WouldBlock));
    blocks(export.node(export.root_id(), Pace::Inline).map(|_| ()));
    let root = export.node(export.root_id(), Pace::MayBlock).unwrap();
    let (file, _) = export.child(&root, b"file", Pace::MayBlock).unwrap();
    // The name is in the kernel's cache now.
    assert!(export.child(&root, b"file", Pace::Inline).is_ok());
    blocks(export.data(&file, Pace::Inline).map(|_| ()));
    export.data(&file, Pace::MayBlock).unwrap();
    assert!(export.data(&file, Pace::Inline).is_ok());
    blocks(file.acl(Pace::Inline).map(|_| ()));
    assert_eq!(file.acl(Pace::MayBlock), Ok(None));
    assert_eq!(file.acl(Pace::Inline), Ok(None));
}

#[test]
fn the_tree_is_not_changed() {
    let dir = tempdir();
    fs::write(dir.path().join("file"), "data").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("null"),
        rustix::fs::FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    let export = export(dir.path());
    // Our private mount is read-only and without devices, whatever the mount below allows.
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let open = |name: &str, flags| rustix::fs::openat(&export.root, name, flags, Mode::empty()).err();
    assert_eq!(open("file", flags), Some(Errno::ROFS));
    assert_eq!(open("null", OFlags::RDONLY), Some(Errno::ACCESS));
    assert_eq!(open("..", OFlags::PATH), None);
    let up = rustix::fs::openat(&export.root, "..", OFlags::PATH, Mode::empty()).unwrap();
    assert_eq!(
        rustix::fs::fstat(up).unwrap().st_ino,
        rustix::fs::stat(dir.path()).unwrap().st_ino
    );
}

/// btrfs in a file, unmounted when dropped.
struct Btrfs(tempfile::TempDir);

impl Btrfs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::File::create(&disk).unwrap().set_len(200 << 20).unwrap();
        fs::create_dir(dir.path().join("at")).unwrap();
        let made = Command::new("mkfs.btrfs").arg("-q").arg(&disk).status().unwrap();
        assert!(made.success());
        let btrfs = Btrfs(dir);
        btrfs.mount();
        btrfs
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("at")
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(self.0.path().join("disk"));
        assert!(mount.arg(self.path()).status().unwrap().success());
    }

    fn unmount(&self) {
        assert!(Command::new("umount").arg(self.path()).status().unwrap().success());
    }

    fn btrfs(&self, args: &[&str]) {
        let mut btrfs = Command::new("btrfs");
        btrfs.args(["-q", "subvolume"]).args(args).current_dir(self.path());
        assert!(btrfs.status().unwrap().success(), "{args:?}");
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn a_root_that_is_a_subvolume_is_served() {
    let btrfs = Btrfs::new();
    let at = btrfs.path();
    btrfs.btrfs(&["create", "one"]);
    fs::create_dir_all(at.join("one/deep/er")).unwrap();
    fs::write(at.join("one/deep/er/file"), "one").unwrap();
    btrfs.btrfs(&["snapshot", "one", "two"]);
    fs::write(at.join("two/deep/er/file"), "two").unwrap();
    let names: [&[u8]; 3] = [b"deep", b"er", b"file"];
    // Each directory's `..` is the one before it, from the root down.
    let walk = |export: &ExportRoot| {
        let mut node = export.node(export.root_id(), Pace::MayBlock).unwrap();
        let mut ids = vec![*node.id()];
        for name in names {
            let (next, attr) = export.child(&node, name, Pace::MayBlock).unwrap();
            assert_eq!(attr.fileid, export.peek(&node, name).unwrap().1.fileid);
            if name != b"file" {
                assert_eq!(export.child(&next, b"..", Pace::MayBlock).unwrap().0.id(), node.id());
            }
            node = next;
            ids.push(*node.id());
        }
        ids
    };
    let content = |export: &ExportRoot, id: &FileId| {
        let node = export.node(id, Pace::MayBlock).unwrap();
        let mut data = [0; 8];
        let n = rustix::io::pread(export.data(&node, Pace::MayBlock).unwrap(), &mut data, 0).unwrap();
        String::from_utf8(data[..n].to_vec()).unwrap()
    };
    let held: Vec<Vec<FileId>> = ["one", "two"]
        .map(|name| {
            let export = export(&at.join(name));
            let ids = walk(&export);
            assert_eq!(ids[3].source(), Source::Kernel);
            assert_eq!(content(&export, &ids[3]), name);
            let root = export.node(export.root_id(), Pace::MayBlock).unwrap();
            assert!(export.child(&root, b"..", Pace::MayBlock).unwrap().0.id() == root.id());
            ids
        })
        .into();
    // They have the same inode numbers, but are different files.
    assert_ne!(held[0], held[1]);
    // After a restart of the server, with nothing in memory, the handles are the same, including those of directories.
    btrfs.unmount();
    btrfs.mount();
    for (name, ids) in ["one", "two"].iter().zip(&held) {
        let export = export(&at.join(name));
        assert_eq!(export.root_id(), &ids[0]);
        assert_eq!(content(&export, &ids[3]), *name);
        let er = export.node(&ids[2], Pace::MayBlock).unwrap();
        let (deep, _) = export.child(&er, b"..", Pace::MayBlock).unwrap();
        assert_eq!(deep.id(), &ids[1]);
        assert_eq!(export.child(&deep, b"..", Pace::MayBlock).unwrap().0.id(), &ids[0]);
        assert_eq!(&walk(&export), ids);
    }
}

#[test]
fn a_directory_that_cannot_be_exported_is_refused_with_the_reason() {
    let dir = tempdir();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.as_path(), Path::new("/nonexistent/root")] {
        let error = ExportRoot::open(path, ExportId([1; 8]), "x".into())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("cannot export {}: open the directory: ", path.display())),
            "{error}"
        );
    }
}
