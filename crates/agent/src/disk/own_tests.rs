//! What users can put in the place of the agent's directory, and what can stand in it.

use super::*;
use rustix::fs::{CWD, mknodat};
use std::{os::unix::fs::chown, os::unix::fs::symlink, path::Path, sync::mpsc::channel, time::Duration};

/// What it is, and how it is put there.
type Strange<'a> = (&'a str, &'a dyn Fn(&Path));

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// Reads the list, and fails if that takes long.
fn read(root: &Path) -> Res<Option<Vec<u8>>> {
    let (done, answer) = channel();
    let root = root.to_owned();
    std::thread::spawn(move || {
        let text = Own::find(open(&root), "/tmp").and_then(|there| match there {
            There::Own(own) => own.list(),
            There::Nothing => Ok(None),
            There::Strange(failure) => Err(failure),
        });
        let _ = done.send(text);
    });
    let answer = answer.recv_timeout(Duration::from_secs(60));
    answer.expect("reading the list does not end")
}

#[test]
fn what_a_user_put_in_the_place_of_the_directory_is_not_entered() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("image"), "list 1\0\0").unwrap();
    let others: [Strange<'_>; 5] = [
        ("a user's directory", &|path| {
            fs::create_dir(path).unwrap();
            mknodat(CWD, path.join("image"), FileType::Fifo, Mode::RUSR, 0).unwrap();
            chown(path, Some(1000), None).unwrap();
        }),
        ("one that all may write", &|path| {
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
    assert!(!root.path().join(NAME).exists(), "looking makes nothing");
}

#[test]
fn only_a_file_of_roots_of_a_sane_length_is_a_list() {
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    let others: [Strange<'_>; 5] = [
        ("is not a file of root's", &|path| {
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        }),
        ("symbolic links", &|path| symlink("/dev/zero", path).unwrap()),
        ("symbolic links", &|path| symlink(elsewhere.path(), path).unwrap()),
        ("is not a file of root's", &|path| {
            fs::write(path, "list 1\0\0").unwrap();
            chown(path, Some(1000), None).unwrap();
        }),
        ("is longer than any list", &|path| {
            File::create(path).unwrap().set_len(1 << 40).unwrap();
        }),
    ];
    for (why, put) in others {
        let root = tempfile::tempdir().unwrap();
        let own = Own::make(open(root.path()), "/tmp").unwrap();
        put(&root.path().join(NAME).join("image"));
        let refused = read(root.path()).expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
        // What stands there is no obstacle to a new list.
        own.keep(b"list 1\0\0").unwrap();
        assert_eq!(read(root.path()), Ok(Some(b"list 1\0\0".to_vec())));
    }
}
