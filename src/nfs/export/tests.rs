//! Descriptors: how many are held, and that files are found again.

use super::*;
use std::fs;

/// A directory in memory where there is one: these tests make thousands of files.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn export(path: &Path) -> ExportRoot {
    ExportRoot::open(path, ExportId([1; 8]), "test@1".into()).unwrap()
}

#[test]
fn files_held_open_are_bounded_and_found_again() {
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
    // The first ones were closed meanwhile: not to be had inline, and found again by their ids.
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
fn what_is_not_in_memory_is_not_waited_for() {
    let dir = tempdir();
    fs::write(dir.path().join("file"), "data").unwrap();
    let export = export(dir.path());
    let blocks = |result: Result<_, Stop>| assert_eq!(result.err(), Some(Stop::WouldBlock));
    blocks(export.node(export.root_id(), Pace::Inline).map(|_| ()));
    let root = export.node(export.root_id(), Pace::MayBlock).unwrap();
    let (file, _) = export.child(&root, b"file", Pace::MayBlock).unwrap();
    // In the kernel's name cache by now.
    assert!(export.child(&root, b"file", Pace::Inline).is_ok());
    blocks(export.data(&file, Pace::Inline).map(|_| ()));
    export.data(&file, Pace::MayBlock).unwrap();
    assert!(export.data(&file, Pace::Inline).is_ok());
    blocks(file.acl(Pace::Inline).map(|_| ()));
    assert_eq!(file.acl(Pace::MayBlock), Ok(None));
    assert_eq!(file.acl(Pace::Inline), Ok(None));
}

#[test]
fn the_tree_stays_as_it_is() {
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
    // Our own mount is read-only and without devices, whatever the one below is.
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

#[test]
fn what_cannot_be_exported_says_so() {
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
