//! Compares copies with their originals. These tests need root, as imports do.

use super::*;
use crate::{error::ImportError, progress::Quiet};
use rustix::fs::{Mode, OFlags};
use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}

fn copy(from: &Path, to: &Path, skip: Option<Id>) -> Result<(Copied, Vec<String>), ImportError> {
    fs::create_dir(to).unwrap();
    let (from, to_fd) = (open(from), open(to));
    let mut space = SpaceGuard::new(to_fd.as_fd(), to, None)?;
    let mut remarks = Remarks::default();
    let copied = copy_tree(from.as_fd(), to_fd.as_fd(), skip, &mut space, &mut remarks, &mut Quiet)?;
    Ok((copied, remarks.into_lines()))
}

fn remove(path: &Path) {
    let name = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
    remove_tree(open(path.parent().unwrap()).as_fd(), &name).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_copy_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    nasty::make(&from, true);
    let (counted, _) = count_tree(open(&from).as_fd(), None).unwrap();
    let (copied, remarks) = copy(&from, &to, None).unwrap();
    assert_eq!(remarks, Vec::<String>::new());
    assert_eq!(copied, counted);
    nasty::assert_same(&from, &to);
    assert!(nasty::look(&to).len() as u64 == copied.files + 1);
    remove(&from);
    remove(&to);
}

#[test]
fn every_file_system_keeps_the_contents() {
    // The copy is from a disk to memory: without reflinks, and on many kernels without copy_file_range.
    let dir = tempfile::tempdir().unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (from, to) = (dir.path().join("from"), memory.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("plain"), vec![5; 3_000_000]).unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 100 << 20).unwrap();
    copy(&from, &to, None).unwrap();
    nasty::assert_same(&from, &to);
}

#[test]
fn other_mounts_and_the_images_are_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("var/images/debian/1")).unwrap();
    fs::create_dir_all(from.join("mnt")).unwrap();
    fs::write(from.join("var/images/debian/1/big"), "big").unwrap();
    let mount = |args: &[&str]| {
        assert!(
            std::process::Command::new("mount")
                .args(args)
                .status()
                .unwrap()
                .success()
        )
    };
    mount(&["-t", "tmpfs", "none", from.join("mnt").to_str().unwrap()]);
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(from.join("mnt"));
    fs::write(from.join("mnt/inside"), "x").unwrap();
    // A bind mount of the same file system is also another mount.
    fs::create_dir(from.join("bind")).unwrap();
    mount(&[
        "--bind",
        from.join("var").to_str().unwrap(),
        from.join("bind").to_str().unwrap(),
    ]);
    let _unmount_bind = Unmount(from.join("bind"));
    let images = Id::of(&rustix::fs::stat(from.join("var/images")).unwrap());
    let (counted, _) = count_tree(open(&from).as_fd(), Some(images)).unwrap();
    let (copied, remarks) = copy(&from, &to, Some(images)).unwrap();
    assert_eq!(copied.files, 4);
    assert_eq!(counted, copied);
    assert_eq!(remarks.len(), 3, "{remarks:?}");
    assert!(to.join("mnt").is_dir() && !to.join("mnt/inside").exists());
    assert!(to.join("bind").is_dir() && !to.join("bind/images").exists());
    assert!(to.join("var/images").is_dir() && !to.join("var/images/debian").exists());
}

#[test]
fn removal_enters_no_mount() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("home")).unwrap();
    fs::write(dir.path().join("home/file"), "x").unwrap();
    fs::create_dir_all(dir.path().join("gone/a/home")).unwrap();
    let (from, at) = (dir.path().join("home"), dir.path().join("gone/a/home"));
    let mount = std::process::Command::new("mount")
        .arg("--bind")
        .args([&from, &at])
        .status();
    assert!(mount.unwrap().success());
    let gone = remove_tree(open(dir.path()).as_fd(), c"gone");
    let umount = std::process::Command::new("umount").arg(&at).status();
    assert!(umount.unwrap().success());
    assert_eq!(gone, Err(rustix::io::Errno::BUSY));
    assert_eq!(fs::read(from.join("file")).unwrap(), b"x");
    remove(&dir.path().join("gone"));
}

#[test]
fn removal_follows_no_link() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("gone/a/b")).unwrap();
    fs::create_dir_all(dir.path().join("kept")).unwrap();
    fs::write(dir.path().join("kept/file"), "x").unwrap();
    std::os::unix::fs::symlink(dir.path().join("kept"), dir.path().join("gone/a/link")).unwrap();
    remove(&dir.path().join("gone"));
    assert!(dir.path().join("kept/file").exists());
    remove(&dir.path().join("never-there"));
}
