//! Objects that users can create under the directory's name, and in the place of the list.

use super::*;
use rustix::fs::{CWD, mknodat};
use std::{os::unix::fs::chown, os::unix::fs::symlink, path::Path, sync::mpsc::channel, time::Duration};

/// A description, and a function that creates the object.
type Foreign<'a> = (&'a str, &'a dyn Fn(&Path));

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// Reads the list, and fails if that takes long.
fn read(root: &Path) -> Res<Option<Vec<u8>>> {
    let (done, answer) = channel();
    let root = root.to_owned();
    std::thread::spawn(move || {
        let text = Own::find(open(&root), "/tmp").and_then(|there| match there {
            Lookup::Own(own) => own.list(),
            Lookup::Missing => Ok(None),
            Lookup::Foreign(failure) => Err(failure),
        });
        let _ = done.send(text);
    });
    let answer = answer.recv_timeout(Duration::from_secs(60));
    answer.expect("reading the list takes too long")
}

#[test]
fn an_object_of_a_user_in_place_of_the_directory_is_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("image"), "list 1\0\0").unwrap();
    let others: [Foreign<'_>; 5] = [
        ("a user's directory", &|path| {
            fs::create_dir(path).unwrap();
            mknodat(CWD, path.join("image"), FileType::Fifo, Mode::RUSR, 0).unwrap();
            chown(path, Some(1000), None).unwrap();
        }),
        ("a directory that all users may write", &|path| {
            fs::create_dir(path).unwrap();
            rustix::fs::chmod(path, Mode::from_raw_mode(0o777)).unwrap();
        }),
        ("a link", &|path| symlink(elsewhere.path(), path).unwrap()),
        ("a file", &|path| fs::write(path, "").unwrap()),
        ("a FIFO", &|path| {
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        }),
    ];
    for (what, put) in others {
        let root = tempfile::tempdir().unwrap();
        put(&root.path().join(NAME));
        let refused = read(root.path()).expect_err(what).to_string();
        assert_eq!(refused, "/tmp/.rackstrap is not root's directory; remove it", "{what}");
        assert!(Own::make(open(root.path()), "/tmp").is_err(), "{what}");
    }
    let root = tempfile::tempdir().unwrap();
    assert_eq!(read(root.path()), Ok(None));
    assert!(!root.path().join(NAME).exists(), "the lookup created it");
}

#[test]
fn only_a_short_regular_file_of_root_is_read_as_a_list() {
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    let others: [Foreign<'_>; 5] = [
        ("is not a regular file of root", &|path| {
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        }),
        ("symbolic links", &|path| symlink("/dev/zero", path).unwrap()),
        ("symbolic links", &|path| symlink(elsewhere.path(), path).unwrap()),
        ("is not a regular file of root", &|path| {
            fs::write(path, "list 1\0\0").unwrap();
            chown(path, Some(1000), None).unwrap();
        }),
        ("is too long for a list", &|path| {
            File::create(path).unwrap().set_len(1 << 40).unwrap();
        }),
    ];
    for (why, put) in others {
        let root = tempfile::tempdir().unwrap();
        let own = Own::make(open(root.path()), "/tmp").unwrap();
        put(&root.path().join(NAME).join("image"));
        let refused = read(root.path()).expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
        // Any such object can be replaced by a new list.
        own.record(b"list 1\0\0").unwrap();
        assert_eq!(read(root.path()), Ok(Some(b"list 1\0\0".to_vec())));
    }
}
