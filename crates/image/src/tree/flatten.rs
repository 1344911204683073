//! Subvolumes inside of a tree, made plain directories.

use super::{
    Notes, SpaceGuard, Walk, copy_tree, open_parent, remove_tree,
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

/// Behind the name of a directory that takes a subvolume's place.
const PLAIN: &[u8] = b".rackstrap-plain";

/// Makes plain directories of the subvolumes in the tree at `root`, if it is a subvolume itself. systemd-tmpfiles makes some
/// (`/var/lib/machines`) where `/` is one. A snapshot would not have what is in them, and on a node all of them had the
/// inode number of `/`.
pub(crate) fn flatten(
    root: &Path,
    space: &mut SpaceGuard,
    notes: &mut Notes,
    progress: &mut dyn Progress,
) -> Result<()> {
    let dir = open_dir(root).doing(|| format!("opening {}", root.display()))?;
    // A kernel that cannot tell has to be asked the long way.
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
    // Those inside of others first.
    for path in found.iter().rev() {
        replace(dir.as_fd(), path, space, notes, progress)?;
    }
    Ok(())
}

/// Ended at any moment, the next call goes on: the copy is not there, not whole, or it has its name, and what has the other
/// one is superfluous.
fn replace(
    root: BorrowedFd<'_>,
    path: &[u8],
    space: &mut SpaceGuard,
    notes: &mut Notes,
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
        copy_tree(from.as_fd(), to.as_fd(), None, space, notes, progress)?;
        renameat_with(&parent, &plain, &parent, &own, RenameFlags::EXCHANGE).doing(doing)
    };
    let copied = copy();
    // Whichever of the two it is now.
    let removed = remove_tree(parent.as_fd(), &plain).doing(doing);
    copied.and(removed)
}
