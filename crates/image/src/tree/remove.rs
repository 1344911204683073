//! Removes a tree of any depth.

use super::subvolume::{destroy, is_root, on_btrfs};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat, unlinkat},
    io::{Errno, Result},
};
use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Removes `name` in `parent` with everything in it. It may be missing. Links are removed, not followed. A mount point in it is an
/// error (EBUSY), and the mounted file system is not changed. Subvolumes of btrfs are deleted as a whole if the kernel allows it.
/// Two descriptors suffice for any depth; `std::fs::remove_dir_all` needs one per level.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    remove_tree_watched(parent, name, &mut |_| ())
}

/// Like [`remove_tree`]. `removed` is called now and then with the number of files removed since.
pub(crate) fn remove_tree_watched(parent: BorrowedFd<'_>, name: &CStr, removed: &mut dyn FnMut(u64)) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    let mut dir = open(parent, name)?;
    let subvolumes = on_btrfs(dir.as_fd());
    if subvolumes && whole(parent, name, &dir) {
        removed(1);
        return Ok(());
    }
    // The directories on the way down: the name of each, and the names in its parent that are still to be removed.
    let mut above: Vec<(CString, Vec<CString>)> = Vec::new();
    let mut subdirs = clear(&dir, removed)?;
    loop {
        if let Some(next) = subdirs.pop() {
            let inner = open(dir.as_fd(), &next)?;
            if subvolumes && whole(dir.as_fd(), &next, &inner) {
                removed(1);
                continue;
            }
            above.push((next, subdirs));
            subdirs = clear(&inner, removed)?;
            dir = inner;
            continue;
        }
        let Some((done, left)) = above.pop() else {
            break;
        };
        dir = openat(&dir, c"..", FLAGS, Mode::empty())?;
        unlinkat(&dir, &done, AtFlags::REMOVEDIR)?;
        subdirs = left;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a directory to empty it, but never one on which something is mounted.
fn open(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match openat2(dir, name, FLAGS, Mode::empty(), resolve) {
        Err(Errno::XDEV) => Err(Errno::BUSY),
        other => other,
    }
}

/// Deletes `dir`, which is `name` in `parent`, if it is a subvolume and the kernel allows it. If this fails, its files are removed
/// one by one.
fn whole(parent: BorrowedFd<'_>, name: &CStr, dir: &OwnedFd) -> bool {
    fstat(dir).is_ok_and(|stat| is_root(&stat)) && destroy(parent, name).is_ok()
}

/// Unlinks everything in `dir` except directories, and returns the directories.
fn clear(dir: &OwnedFd, removed: &mut dyn FnMut(u64)) -> Result<Vec<CString>> {
    let mut subdirs = Vec::new();
    let mut others = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            known => known,
        };
        let list = if kind == FileType::Directory {
            &mut subdirs
        } else {
            &mut others
        };
        list.push(name.to_owned());
    }
    for name in &others {
        unlinkat(dir, name, AtFlags::empty())?;
    }
    removed(others.len() as u64 + 1);
    Ok(subdirs)
}
