//! Directories of interrupted processes, and directories that are being deleted.

use super::{
    error::{Doing, Result, show_name},
    locks::{Locked, held, open_dir, try_lock},
    progress::{Progress, Step},
    tree::{remove_tree, remove_tree_watched},
    versions::Images,
};
use rustix::fs::{self as rfs, FlockOperation, RenameFlags};
use std::{
    ffi::CString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Prefix of directories that are not versions yet.
pub(crate) const INCOMING: &str = ".incoming-";
/// Prefix of directories that are being deleted.
pub(crate) const DELETED: &str = ".deleted-";

/// Removes what interrupted processes left below `images`. `removed` is called for each directory before its removal, and with the
/// number of files removed since. The caller holds the lock of the images.
pub(crate) fn remove_leftovers(images: &Path, removed: &mut dyn FnMut(&Path, u64)) -> Result<()> {
    for path in leftovers(images)? {
        let Some(parent) = path.parent() else { continue };
        removed(&path, 0);
        let dir = open_dir(parent).doing(|| format!("opening {}", parent.display()))?;
        let name = path.file_name().unwrap_or_default();
        let name = CString::new(name.as_bytes()).expect("directories hold no NUL");
        remove_tree_watched(dir.as_fd(), &name, &mut |count| removed(&path, count))
            .doing(|| format!("removing {}, which was left behind", path.display()))?;
    }
    Ok(())
}

/// Directories that interrupted processes left below `images`: no process holds a lock on them.
pub(crate) fn leftovers(images: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let list = |dir: &Path| -> Result<Vec<PathBuf>> {
        let doing = || format!("reading {}", dir.display());
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).doing(doing)? {
            paths.push(entry.doing(doing)?.path());
        }
        Ok(paths)
    };
    for name in list(images)? {
        if !name.is_dir() {
            continue;
        }
        for entry in list(&name)? {
            let file_name = entry.file_name().unwrap_or_default().as_bytes();
            if ![INCOMING, DELETED].iter().any(|p| file_name.starts_with(p.as_bytes())) {
                continue;
            }
            let Ok(dir) = open_dir(&entry) else { continue };
            if rfs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                found.push(entry);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A directory that was hidden by a rename, to be removed or to come back.
#[derive(Debug)]
pub(crate) struct Discarded {
    images: Images,
    /// The directory below `images/` that contained it.
    holder: String,
    parent: OwnedFd,
    /// The directory that it comes back to: `parent`, or that of a version for a variant.
    home: OwnedFd,
    name: CString,
    hidden: CString,
    /// Open and locked, so that no process takes it for a leftover.
    _dir: Locked,
}

impl Discarded {
    /// Hides `images/HOLDER/NAME`, unless a process holds it. The caller holds the lock of the images.
    pub fn take(images: Images, holder: &str, name: &str, what: &str) -> Result<Self> {
        let parent = images.of(holder)?;
        Discarded::hide(images, holder, parent, &PathBuf::from(name), what)
    }

    /// Hides `images/HOLDER/VERSION/VARIANT` in the same way.
    pub fn take_variant(images: Images, holder: &str, version: &str, variant: &str, what: &str) -> Result<Self> {
        let path = images.path().join(holder).join(version);
        let home = open_dir(&path).doing(|| format!("opening {}", path.display()))?;
        Discarded::hide(images, holder, home, &Path::new(version).join(variant), what)
    }

    /// `below` is the path below the holder's directory, and `home` the open directory that contains it.
    fn hide(images: Images, holder: &str, home: OwnedFd, below: &Path, what: &str) -> Result<Self> {
        let path = images.path().join(holder).join(below);
        let name = below.file_name().unwrap_or_default().as_bytes();
        let dir = open_dir(&path).doing(|| format!("opening {}", path.display()))?;
        let dir = try_lock(dir, false, &path)?
            .map_err(|pids| held(&format!("{what} is being read; try again when that has ended"), &pids))?;
        let parent = images.of(holder)?;
        let name = CString::new(name).expect("names hold no NUL");
        let hidden = CString::new(format!("{DELETED}{:08x}", rand::random::<u32>())).expect("hex digits");
        let doing = || format!("hiding {}", path.display());
        rfs::renameat_with(&home, &name, &parent, &hidden, RenameFlags::NOREPLACE).doing(doing)?;
        rfs::fsync(&parent).and(rfs::fsync(&home)).doing(doing)?;
        Ok(Discarded {
            images,
            holder: holder.to_owned(),
            parent,
            home,
            name,
            hidden,
            _dir: dir,
        })
    }

    /// Moves it back to its place.
    pub fn put_back(self) -> Result<()> {
        let doing = || format!("putting {} back", show_name(self.name.to_bytes()));
        rfs::renameat_with(
            &self.parent,
            &self.hidden,
            &self.home,
            &self.name,
            RenameFlags::NOREPLACE,
        )
        .doing(doing)?;
        rfs::fsync(&self.home).and(rfs::fsync(&self.parent)).doing(doing)
    }

    /// Removes it and frees its space. After an interruption the rest is a leftover.
    pub fn remove(self, progress: &mut dyn Progress) -> Result<()> {
        progress.begin(Step::Remove, None);
        remove_tree_watched(self.parent.as_fd(), &self.hidden, &mut |count| {
            progress.advance(count, 0)
        })
        .doing(|| format!("removing what was {}", show_name(self.name.to_bytes())))?;
        let _lock = self.images.lock()?;
        self.images.tidy(&self.holder);
        Ok(())
    }
}

/// Removes `name` in `dir`, a file or a tree. It may be missing.
pub(crate) fn remove_if_there(dir: impl AsFd, name: &str) -> Result<()> {
    let entry = CString::new(name).expect("names hold no NUL");
    remove_tree(dir.as_fd(), &entry).doing(|| format!("removing {name}"))
}
