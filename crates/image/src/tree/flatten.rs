//! Converts subvolumes inside a tree to plain directories.

use super::{
    Remarks, SpaceGuard, Walk, copy_tree, open_parent, remove_tree,
    subvolume::{has_nested, is_root, is_subvolume},
};
use crate::{
    error::{Doing, Result, show_name},
    locks::open_dir,
    progress::Progress,
};
use rustix::fs::{Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with};
use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// Suffix of the directory that replaces a subvolume.
const PLAIN: &[u8] = b".rackstrap-plain";

/// Converts the subvolumes in the tree at `root` to plain directories, if the tree itself is a subvolume. systemd-tmpfiles makes some
/// (`/var/lib/machines`) where `/` is one. A snapshot would not include their content, and on a node all of them would have the
/// inode number of `/`.
pub(crate) fn flatten(
    root: &Path,
    space: &mut SpaceGuard,
    remarks: &mut Remarks,
    progress: &mut dyn Progress,
) -> Result<()> {
    let dir = open_dir(root).doing(|| format!("opening {}", root.display()))?;
    // If the kernel cannot tell, the tree is searched.
    if !is_subvolume(dir.as_fd()) || !has_nested(dir.as_fd()).unwrap_or(true) {
        return Ok(());
    }
    let mut found = Vec::new();
    let mut walk = Walk::new(dir.as_fd())?;
    while let Some(entry) = walk.next()? {
        if !entry.path.is_empty() && is_root(&entry.stat) {
            found.push(entry.path.to_vec());
        }
    }
    // Nested subvolumes come first.
    for path in found.iter().rev() {
        replace(dir.as_fd(), path, space, remarks, progress)?;
    }
    Ok(())
}

/// After an interruption the next call continues: the copy is missing or incomplete, or has the final name, and the remaining one is
/// superfluous.
fn replace(
    root: BorrowedFd<'_>,
    path: &[u8],
    space: &mut SpaceGuard,
    remarks: &mut Remarks,
    progress: &mut dyn Progress,
) -> Result<()> {
    let doing = || format!("making a plain directory of the subvolume /{}", show_name(path));
    let (parent, name) = open_parent(root, path).doing(doing)?;
    let own = CString::new(name).expect("names hold no NUL");
    if name.ends_with(PLAIN) {
        return remove_tree(parent.as_fd(), &own).doing(doing);
    }
    let plain = CString::new([name, PLAIN].concat()).expect("names hold no NUL");
    remove_tree(parent.as_fd(), &plain).doing(doing)?;
    let mut copy = || {
        mkdirat(&parent, &plain, Mode::from_raw_mode(0o700)).doing(doing)?;
        let open = |name: &CString| -> Result<OwnedFd> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&parent, name, flags, Mode::empty()).doing(doing)
        };
        let (from, to) = (open(&own)?, open(&plain)?);
        copy_tree(from.as_fd(), to.as_fd(), None, space, remarks, progress)?;
        renameat_with(&parent, &plain, &parent, &own, RenameFlags::EXCHANGE).doing(doing)
    };
    let copied = copy();
    // This is the subvolume or an incomplete copy.
    let removed = remove_tree(parent.as_fd(), &plain).doing(doing);
    copied.and(removed)
}
