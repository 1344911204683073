//! An index from inode numbers to paths, for file systems without file handles of the kernel (overlayfs without `nfs_export`, some FUSE
//! ones). It is built once by a walk, and stays right because sealed images do not change.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};
use std::collections::HashMap;

/// The place of each inode: the inode of its directory, and its name there.
#[derive(Debug)]
pub struct Index {
    root: u64,
    places: HashMap<u64, (u64, Box<[u8]>)>,
}

/// Most directories of a path. Deeper trees than PATH_MAX allows cannot be opened by path.
const MAX_DEPTH: usize = 2048;

impl Index {
    /// Walks the tree below `root`, without following symbolic links or leaving its file system.
    ///
    /// # Errors
    /// Errors of listing a directory: a tree that cannot be walked completely cannot be served.
    pub fn build(root: &OwnedFd, root_ino: u64) -> rustix::io::Result<Self> {
        let mut index = Index {
            root: root_ino,
            places: HashMap::new(),
        };
        let mut pending = vec![root_ino];
        while let Some(parent) = pending.pop() {
            let path = index.path(parent).ok_or(Errno::NAMETOOLONG)?;
            let dir = open_beneath(root, &path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                // This does not use `d_ino`, for which overlayfs may return the number of a layer, unlike stat(2).
                let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let ino = stat.st_ino;
                let known = index.places.insert(ino, (parent, name.to_bytes().into()));
                if known.is_none() && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    pending.push(ino);
                }
            }
        }
        Ok(index)
    }

    /// The path of an inode, relative to the root.
    pub fn path(&self, ino: u64) -> Option<Vec<u8>> {
        let (mut at, mut names) = (ino, Vec::new());
        while at != self.root {
            let (parent, name) = self.places.get(&at)?;
            names.push(&name[..]);
            if names.len() > MAX_DEPTH {
                return None;
            }
            at = *parent;
        }
        names.reverse();
        Some(if names.is_empty() {
            b".".to_vec()
        } else {
            names.join(&b'/')
        })
    }
}

/// Opens a path strictly below `root`.
///
/// # Errors
/// ELOOP at a symbolic link, EXDEV if the path would leave the tree or its mount.
pub fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags as R;
    rustix::fs::openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        R::BENEATH | R::NO_SYMLINKS | R::NO_MAGICLINKS | R::NO_XDEV,
    )
}
