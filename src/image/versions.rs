//! The directory of versions: `images/NAME/VERSION`, made beside as `.incoming-…` and renamed when it is whole.

use super::{
    Manifest,
    error::{Doing, ImportError, Result},
    tree::remove_tree,
};
use rackstrap_wire::ImageRef;
use rustix::{
    fs::{self as rfs, AtFlags, FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};
use std::{
    ffi::CString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Prefix of directories that are no versions yet.
const INCOMING: &str = ".incoming-";

/// A version that is being made. Dropped before it is sealed, it is removed with everything in it.
#[derive(Debug)]
pub(crate) struct Incoming {
    images: OwnedFd,
    images_path: PathBuf,
    name: String,
    parent: OwnedFd,
    entry: CString,
    /// Open and locked: whoever can lock it knows that its maker is dead.
    dir: OwnedFd,
    sealed: bool,
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    rfs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn make_dir(path: &Path, mode: u32) -> Result<OwnedFd> {
    match rfs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e).doing(|| format!("making {}", path.display())),
    }
    open_dir(path).doing(|| format!("opening {}", path.display()))
}

/// Locks the directory of all images for as long as the answer lives: names and numbers are given under it.
fn lock(images: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let doing = || format!("locking {}", path.display());
    // A lock belongs to an open file description: a new one for each holder.
    let fd = rfs::openat(
        images,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .doing(doing)?;
    loop {
        match rfs::flock(&fd, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            other => return other.map(|()| fd).doing(doing),
        }
    }
}

impl Incoming {
    /// Makes a place for the next version of `name` below `images`, and removes what imports that died left there.
    pub fn create(images_path: &Path, name: &str) -> Result<Self> {
        if let Some(state) = images_path.parent() {
            std::fs::create_dir_all(state).doing(|| format!("making {}", state.display()))?;
        }
        let images = make_dir(images_path, 0o755)?;
        let _lock = lock(&images, images_path)?;
        remove_stale(images_path)?;
        let parent_path = images_path.join(name);
        let parent = make_dir(&parent_path, 0o755)?;
        let entry = format!("{INCOMING}{:08x}", rand::random::<u32>());
        let path = parent_path.join(&entry);
        let doing = || format!("making {}", path.display());
        rfs::mkdir(&path, Mode::from_raw_mode(0o700)).doing(doing)?;
        let dir = open_dir(&path).doing(doing)?;
        rfs::flock(&dir, FlockOperation::NonBlockingLockExclusive).doing(doing)?;
        Ok(Incoming {
            images,
            images_path: images_path.to_owned(),
            name: name.to_owned(),
            parent,
            entry: CString::new(entry).expect("hex digits"),
            dir,
            sealed: false,
        })
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        let entry = std::ffi::OsStr::from_bytes(self.entry.to_bytes());
        self.images_path.join(&self.name).join(entry)
    }

    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Gives it the next number and makes it a version: all of it is on disk first, then it appears at once.
    pub fn seal(mut self, manifest: impl FnOnce(ImageRef) -> Manifest) -> Result<ImageRef> {
        let parent_path = self.images_path.join(&self.name);
        rfs::syncfs(&self.dir).doing(|| format!("writing {} to disk", self.path().display()))?;
        let _lock = lock(&self.images, &self.images_path)?;
        let newest = versions(&parent_path)?.into_iter().max().unwrap_or(0);
        let version = newest
            .checked_add(1)
            .ok_or_else(|| ImportError::Request(format!("{} has a version {newest}, the last possible", self.name)))?;
        let image = ImageRef {
            name: self.name.clone(),
            version,
        };
        let text = toml::to_string(&manifest(image.clone()))
            .map_err(|e| ImportError::Request(format!("the manifest of {image} cannot be written as TOML: {e}")))?;
        let doing = || format!("writing the manifest of {image}");
        let file = rfs::openat(
            &self.dir,
            c"manifest.toml",
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .doing(doing)?;
        let mut file = std::fs::File::from(file);
        std::io::Write::write_all(&mut file, text.as_bytes()).doing(doing)?;
        file.sync_all().doing(doing)?;
        rfs::fsync(&self.dir).doing(doing)?;
        let number = version.to_string();
        rfs::renameat_with(
            &self.parent,
            &*self.entry,
            &self.parent,
            number.as_str(),
            RenameFlags::NOREPLACE,
        )
        .doing(|| format!("naming it {image}"))?;
        self.sealed = true;
        rfs::fsync(&self.parent).doing(|| format!("writing {} to disk", parent_path.display()))?;
        rfs::fsync(&self.images).doing(|| format!("writing {} to disk", self.images_path.display()))?;
        Ok(image)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.sealed {
            return;
        }
        // What cannot be removed now is removed by the next import, as nobody holds its lock any more.
        if let Err(e) = remove_tree(self.parent.as_fd(), &self.entry) {
            tracing::warn!(dir = %self.path().display(), error = %e, "a failed import could not be removed");
        }
        if let Ok(_lock) = lock(&self.images, &self.images_path) {
            // Only succeeds if there is no version and no other import.
            let _ = rfs::unlinkat(&self.images, self.name.as_str(), AtFlags::REMOVEDIR);
        }
    }
}

/// Numbers of all versions in `images/NAME`, whatever state they are in.
pub(crate) fn versions(dir: &Path) -> Result<Vec<u32>> {
    let doing = || format!("reading {}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).doing(doing)? {
        let name = entry.doing(doing)?.file_name();
        if let Some(number) = name.to_str().and_then(version_number) {
            found.push(number);
        }
    }
    Ok(found)
}

/// The version that a directory's name says: plain digits, from 1.
pub(crate) fn version_number(name: &str) -> Option<u32> {
    let plain = name.bytes().all(|b| b.is_ascii_digit()) && !name.starts_with('0');
    plain.then(|| name.parse().ok())?
}

/// Removes what imports that died left behind.
fn remove_stale(images: &Path) -> Result<()> {
    let doing = || format!("reading {}", images.display());
    for name in std::fs::read_dir(images).doing(doing)? {
        let name = name.doing(doing)?.path();
        if !name.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&name).doing(|| format!("reading {}", name.display()))? {
            let entry = entry.doing(|| format!("reading {}", name.display()))?;
            if !entry.file_name().as_bytes().starts_with(INCOMING.as_bytes()) {
                continue;
            }
            let Ok(dir) = open_dir(&entry.path()) else { continue };
            if rfs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let parent = open_dir(&name).doing(|| format!("opening {}", name.display()))?;
            let file_name = CString::new(entry.file_name().as_bytes()).expect("directories hold no NUL");
            remove_tree(parent.as_fd(), &file_name)
                .doing(|| format!("removing {}, which an import left behind", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, image::InitKind};

    fn manifest(image: ImageRef) -> Manifest {
        Manifest {
            image,
            created: Timestamp(1),
            source: "test".into(),
            message: String::new(),
            kernel_release: "6".into(),
            arch: "x86_64".into(),
            init: InitKind::Other,
            files: 0,
            bytes: 0,
            os: String::new(),
        }
    }

    #[test]
    fn versions_count_up_and_the_unsealed_vanish() {
        let state = tempfile::tempdir().unwrap();
        let images = state.path().join("deep/images");
        let first = Incoming::create(&images, "debian").unwrap();
        std::fs::write(first.path().join("x"), "y").unwrap();
        assert_eq!(first.seal(manifest).unwrap().to_string(), "debian@1");
        std::fs::create_dir(images.join("debian/7")).unwrap();
        std::fs::create_dir(images.join("debian/08")).unwrap();
        let (a, b) = (
            Incoming::create(&images, "debian").unwrap(),
            Incoming::create(&images, "debian").unwrap(),
        );
        assert!(a.path().exists() && b.path().exists());
        assert_eq!(b.seal(manifest).unwrap().version, 8);
        assert_eq!(a.seal(manifest).unwrap().version, 9);
        let dropped = Incoming::create(&images, "other").unwrap();
        let path = dropped.path();
        std::fs::create_dir_all(path.join("root/a/b")).unwrap();
        drop(dropped);
        assert!(!path.exists() && !images.join("other").exists());
        assert_eq!(std::fs::read_to_string(images.join("debian/1/x")).unwrap(), "y");
    }

    #[test]
    fn what_the_dead_left_is_removed_and_the_living_is_not() {
        let state = tempfile::tempdir().unwrap();
        let images = state.path().join("images");
        let living = Incoming::create(&images, "a").unwrap();
        let dead = images.join("a/.incoming-dead");
        std::fs::create_dir_all(dead.join("root/usr")).unwrap();
        std::os::unix::fs::symlink(state.path(), dead.join("root/link")).unwrap();
        let next = Incoming::create(&images, "b").unwrap();
        assert!(!dead.exists() && living.path().exists() && next.path().exists());
        assert!(images.exists());
    }
}
