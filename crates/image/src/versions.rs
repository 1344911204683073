//! The directory of versions: `images/NAME/VERSION`. A version is made as `.incoming-…` and renamed when it is complete.

use super::{
    ImageVersion, Manifest,
    catalog::load_version,
    error::{Doing, ImportError, Result},
    import::check_name,
    leftovers::{INCOMING, remove_leftovers},
    locks::{lock_dir, open_dir},
    progress::Progress,
    tree::remove_tree,
};
use rackstrap_base::arch::Architecture;
use rackstrap_catalog::System;
use rackstrap_wire::ImageRef;
use rustix::{
    fs::{self as rfs, AtFlags, FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// The file in `images/NAME` with the highest number of a deleted version, so that no number is used twice.
const LAST: &str = ".last";

/// Mode of `images/`. A user who can open a directory can lock it, and so prevent all changes to it. With this mode only root can open
/// it and what is below.
const PRIVATE: u32 = 0o700;

/// The directory `images/`.
#[derive(Debug)]
pub(crate) struct Images {
    fd: OwnedFd,
    path: PathBuf,
}

fn make_dir(path: &Path, mode: u32) -> Result<OwnedFd> {
    match rfs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e).doing(|| format!("making {}", path.display())),
    }
    open_dir(path).doing(|| format!("opening {}", path.display()))
}

/// Creates the directory of images if it is missing, and makes it accessible to root only.
///
/// # Errors
/// System calls.
pub fn own_images(path: &Path) -> Result<()> {
    Images::open(path).map(drop)
}

impl Images {
    /// Opens the directory for a change, creates it if it is missing, and makes it accessible to root only.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(state) = path.parent() {
            std::fs::create_dir_all(state).doing(|| format!("making {}", state.display()))?;
        }
        let fd = make_dir(path, PRIVATE)?;
        let doing = || format!("making {} accessible to root only (mode {PRIVATE:o})", path.display());
        // An administrator or an older rackstrap may have made it with another mode.
        let mode = rfs::fstat(&fd).doing(doing)?.st_mode & 0o7777;
        if mode & !PRIVATE != 0 {
            rfs::fchmod(&fd, Mode::from_raw_mode(PRIVATE)).doing(doing)?;
        }
        Ok(Images {
            fd,
            path: path.to_owned(),
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the directory until the result is dropped. Names and numbers are only assigned under this lock.
    pub fn lock(&self) -> Result<OwnedFd> {
        lock_dir(self.fd.as_fd(), &self.path)
    }

    /// The directory of the image `name`, created if it is missing.
    pub fn of(&self, name: &str) -> Result<OwnedFd> {
        make_dir(&self.path.join(name), 0o755)
    }

    /// Removes the directory of `name` if it is empty.
    pub fn tidy(&self, name: &str) {
        // This succeeds only without versions, without a recorded number, and without unfinished versions.
        let _ = rfs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
    }

    /// Writes renames in the directory to disk.
    pub fn sync(&self) -> Result<()> {
        rfs::fsync(&self.fd).doing(|| format!("writing {} to disk", self.path.display()))
    }

    /// Makes `dir`, which is `entry` in `from`, what `place` says: everything is written to disk first, and then one rename makes it
    /// visible.
    pub fn publish(
        &self,
        place: &Place,
        (from, entry): (BorrowedFd<'_>, &CStr),
        dir: BorrowedFd<'_>,
        manifest: impl FnOnce(ImageRef) -> Manifest,
        progress: &mut dyn Progress,
    ) -> Result<ImageRef> {
        let name = place.name();
        rfs::syncfs(dir).doing(|| format!("writing the tree of {name} to disk"))?;
        let _lock = self.lock()?;
        let (parent, image) = match place {
            Place::Next(name) => {
                let parent = self.of(name)?;
                let version = next_version(&self.path.join(name))?;
                let name = name.clone();
                (Some(parent), ImageRef { name, version })
            }
            Place::Variant(image) => (None, image.clone()),
        };
        let manifest = manifest(image.clone());
        let (parent, number) = match parent {
            Some(parent) => (parent, image.version.to_string()),
            None => self.of_variant(&image, &manifest)?,
        };
        let text = toml::to_string(&manifest)
            .map_err(|e| ImportError::Request(format!("the manifest of {image} cannot be written as TOML: {e}")))?;
        write_new(dir, c"manifest.toml", text.as_bytes()).doing(|| format!("writing the manifest of {image}"))?;
        rfs::fsync(dir).doing(|| format!("writing the manifest of {image} to disk"))?;
        progress.reached("manifest");
        rfs::renameat_with(from, entry, &parent, number.as_str(), RenameFlags::NOREPLACE)
            .doing(|| format!("naming it {image}"))?;
        progress.reached("named");
        // From here on the version exists, whatever else fails.
        let synced = rfs::fsync(&parent).and(rfs::fsync(from)).and(rfs::fsync(&self.fd));
        if let Err(e) = synced {
            tracing::warn!(image = %image, error = %e, "a power cut in the next seconds could undo the new version");
        }
        Ok(image)
    }

    /// The open directory of `image`, and the name of a new variant with this manifest in it.
    fn of_variant(&self, image: &ImageRef, manifest: &Manifest) -> Result<(OwnedFd, String)> {
        let version = self.version(image)?;
        let variant = free_variant(&version, &manifest.arch, Some(manifest.system))?;
        let dir = open_dir(&version.dir).doing(|| format!("opening {}", version.dir.display()))?;
        Ok((dir, variant.to_string()))
    }

    /// The version `image`, as it is on disk now.
    pub fn version(&self, image: &ImageRef) -> Result<ImageVersion> {
        let dir = self.path.join(&image.name).join(image.version.to_string());
        if !dir.is_dir() {
            return Err(ImportError::Request(format!(
                "{image} does not exist, so that it cannot get a further variant; see: rackstrap image list"
            )));
        }
        load_version(&dir, image, &mut Vec::new())
            .map_err(|why| ImportError::Request(format!("{}: {why}", dir.display())))
    }

    /// Records that `name` had version `version`, before it is deleted.
    pub fn remember(&self, name: &str, version: u32) -> Result<()> {
        let path = self.path.join(name);
        if remembered(&path)? >= version {
            return Ok(());
        }
        let doing = || format!("writing {}", path.join(LAST).display());
        let dir = self.of(name)?;
        write_new(dir.as_fd(), c".last.new", format!("{version}\n").as_bytes()).doing(doing)?;
        rfs::renameat(&dir, c".last.new", &dir, LAST).doing(doing)?;
        rfs::fsync(&dir).doing(doing)
    }
}

/// What a complete directory becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The next version of the image with this name.
    Next(String),
    /// A further variant of this version.
    Variant(ImageRef),
}

impl Place {
    /// Reads `debian` (the next version) or `debian@3` (a further variant of that version).
    pub fn parse(text: &str) -> Result<Self> {
        if !text.contains('@') {
            return check_name(text).map(|()| Place::Next(text.to_owned()));
        }
        match text.parse() {
            Ok(image) => Ok(Place::Variant(image)),
            Err(error) => Err(ImportError::Request(format!(
                "{error}; write NAME for the image's next version, or NAME@VERSION for a further variant of that version"
            ))),
        }
    }

    /// Name of the image.
    pub fn name(&self) -> &str {
        match self {
            Place::Next(name) => name,
            Place::Variant(image) => &image.name,
        }
    }
}

/// The architecture `arch` (as `uname -m` names it), if `version` has no variant for it. `system` is that of the tree; none if it is not
/// known yet.
///
/// All variants of a version are of one system: rollouts, checks and disk layouts treat a version as a whole.
pub(crate) fn free_variant(version: &ImageVersion, arch: &str, system: Option<System>) -> Result<Architecture> {
    let image = &version.manifest.image;
    let own = version.manifest.system;
    if let Some(system) = system.filter(|system| *system != own) {
        return Err(ImportError::Request(format!(
            "{image} is {}, and the tree is {}: all variants of a version are of one system; import the tree as an image of its own",
            own.name(),
            system.name()
        )));
    }
    let Some(architecture) = Architecture::of_machine(arch) else {
        return Err(ImportError::Request(format!(
            "the tree is for {arch}, an architecture of which {image} can have no further variant; import it as an image of its own"
        )));
    };
    if version
        .variants()
        .any(|variant| variant.architecture() == Some(architecture))
    {
        return Err(ImportError::Request(format!(
            "{image} has a variant for {architecture} already; a version never changes, so import the tree as the next version \
             ({}), and the trees for other architectures as its variants",
            image.name
        )));
    }
    Ok(architecture)
}

/// Creates a file with `content`. The content is on disk when this returns, the file's name is not.
pub(crate) fn write_new(dir: BorrowedFd<'_>, name: &CStr, content: &[u8]) -> std::io::Result<()> {
    match rfs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rfs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?);
    file.write_all(content)?;
    file.sync_all()
}

/// A directory that is being made. If it is dropped before it has its final name, it is removed with its content.
#[derive(Debug)]
pub(crate) struct Incoming {
    images: Images,
    place: Place,
    parent: OwnedFd,
    entry: CString,
    /// Open and locked: if another process can lock it, its maker is dead.
    dir: OwnedFd,
    named: bool,
}

impl Incoming {
    /// Releases the lock after the final rename, so that other processes may read or delete it. Closing the descriptor is not enough
    /// if a child process that is being started has it too.
    fn release(&mut self) {
        self.named = true;
        let _ = rfs::flock(&self.dir, FlockOperation::Unlock);
    }

    /// Makes a directory for the next version of `name` below `images`, and removes the leftovers of interrupted processes there.
    pub fn create(images_path: &Path, name: &str) -> Result<Self> {
        Incoming::create_for(images_path, Place::Next(name.to_owned()))
    }

    /// The same for any place.
    pub fn create_for(images_path: &Path, place: Place) -> Result<Self> {
        let name = place.name();
        let images = Images::open(images_path)?;
        let _lock = images.lock()?;
        remove_leftovers(images_path, &mut |_, _| ())?;
        let parent_path = images_path.join(name);
        let parent = images.of(name)?;
        let entry = format!("{INCOMING}{:08x}", rand::random::<u32>());
        let path = parent_path.join(&entry);
        let doing = || format!("making {}", path.display());
        rfs::mkdir(&path, Mode::from_raw_mode(0o700)).doing(doing)?;
        let dir = open_dir(&path).doing(doing)?;
        rfs::flock(&dir, FlockOperation::NonBlockingLockExclusive).doing(doing)?;
        drop(_lock);
        Ok(Incoming {
            images,
            place,
            parent,
            entry: CString::new(entry).expect("hex digits"),
            dir,
            named: false,
        })
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        let entry = std::ffi::OsStr::from_bytes(self.entry.to_bytes());
        self.images.path.join(self.place.name()).join(entry)
    }

    /// The open directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Gives it its number or its architecture as a name, and so makes it a version or a variant.
    pub fn seal(
        mut self,
        manifest: impl FnOnce(ImageRef) -> Manifest,
        progress: &mut dyn Progress,
    ) -> Result<ImageRef> {
        let from = (self.parent.as_fd(), self.entry.as_c_str());
        let image = self
            .images
            .publish(&self.place, from, self.dir.as_fd(), manifest, progress)?;
        self.release();
        Ok(image)
    }

    /// Renames it to `name`, which must be free, in the same directory.
    pub fn name(mut self, name: &str, progress: &mut dyn Progress) -> Result<()> {
        rfs::syncfs(&self.dir).doing(|| format!("writing {name} to disk"))?;
        progress.reached("synced");
        let _lock = self.images.lock()?;
        match rfs::renameat_with(&self.parent, &self.entry, &self.parent, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {
                return Err(ImportError::Request(format!(
                    "another process made {name} meanwhile; choose another name"
                )));
            }
            other => other.doing(|| format!("naming it {name}"))?,
        }
        self.release();
        progress.reached("named");
        rfs::fsync(&self.parent).doing(|| format!("writing {name} to disk"))?;
        self.images.sync()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.named {
            return;
        }
        // The next process removes what cannot be removed now, because its lock is released.
        if let Err(e) = remove_tree(self.parent.as_fd(), &self.entry) {
            tracing::warn!(dir = %self.path().display(), error = %e, "an unfinished directory could not be removed");
        }
        if let Ok(_lock) = self.images.lock() {
            self.images.tidy(self.place.name());
        }
    }
}

/// The number for the next version in `dir`, which no version ever had.
fn next_version(dir: &Path) -> Result<u32> {
    let newest = versions(dir)?.into_iter().max().unwrap_or(0).max(remembered(dir)?);
    newest
        .checked_add(1)
        .ok_or_else(|| ImportError::Request(format!("{} had a version {newest}, the last possible", dir.display())))
}

/// The number in [`LAST`]; 0 if there is none.
fn remembered(dir: &Path) -> Result<u32> {
    let path = dir.join(LAST);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            ImportError::Request(format!(
                "{} does not contain a number; write the highest number of any version there into it",
                path.display()
            ))
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e).doing(|| format!("reading {}", path.display())),
    }
}

/// Numbers of all versions in `images/NAME`, in any state.
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

/// The number in the name of a version's directory: plain digits, from 1.
pub(crate) fn version_number(name: &str) -> Option<u32> {
    let plain = name.bytes().all(|b| b.is_ascii_digit()) && !name.starts_with('0');
    plain.then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, progress::Quiet};

    fn seal(incoming: Incoming) -> ImageRef {
        incoming.seal(Manifest::bare, &mut Quiet).unwrap()
    }

    #[test]
    fn versions_count_up_and_unsealed_ones_are_removed() {
        let state = tempfile::tempdir().unwrap();
        let images = state.path().join("deep/images");
        let first = Incoming::create(&images, "debian").unwrap();
        std::fs::write(first.path().join("x"), "y").unwrap();
        assert_eq!(seal(first).to_string(), "debian@1");
        std::fs::create_dir(images.join("debian/7")).unwrap();
        std::fs::create_dir(images.join("debian/08")).unwrap();
        let (a, b) = (
            Incoming::create(&images, "debian").unwrap(),
            Incoming::create(&images, "debian").unwrap(),
        );
        assert!(a.path().exists() && b.path().exists());
        assert_eq!(seal(b).version, 8);
        assert_eq!(seal(a).version, 9);
        let dropped = Incoming::create(&images, "other").unwrap();
        let path = dropped.path();
        std::fs::create_dir_all(path.join("root/a/b")).unwrap();
        drop(dropped);
        assert!(!path.exists() && !images.join("other").exists());
        assert_eq!(std::fs::read_to_string(images.join("debian/1/x")).unwrap(), "y");
    }

    #[test]
    fn other_users_cannot_open_and_lock_the_images() {
        use std::os::unix::{fs::PermissionsExt, process::CommandExt};
        let state = tempfile::tempdir().unwrap();
        let images = state.path().join("images");
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(state.path(), 0o755);
        let mode = || images.metadata().unwrap().permissions().mode() & 0o7777;
        let lock = |path: &Path| {
            let mut flock = std::process::Command::new("flock");
            flock
                .args(["--nonblock", "--shared"])
                .arg(path)
                .arg("true")
                .stderr(std::process::Stdio::null());
            flock.uid(65534).gid(65534).status().unwrap().success()
        };
        Images::open(&images).unwrap();
        assert_eq!(mode(), 0o700);
        let version = images.join("debian/1");
        std::fs::create_dir_all(&version).unwrap();
        // An older rackstrap used this mode.
        for dir in [&images, &images.join("debian"), &version] {
            set(dir, 0o755);
        }
        assert!(lock(&images) && lock(&version), "an open directory can be locked");
        Images::open(&images).unwrap();
        assert!(!lock(&images) && !lock(&version));
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let state = tempfile::tempdir().unwrap();
        let images = state.path().join("images");
        seal(Incoming::create(&images, "debian").unwrap());
        seal(Incoming::create(&images, "debian").unwrap());
        let all = Images::open(&images).unwrap();
        all.remember("debian", 2).unwrap();
        all.remember("debian", 1).unwrap();
        for number in ["1", "2"] {
            std::fs::remove_dir_all(images.join("debian").join(number)).unwrap();
        }
        all.tidy("debian");
        assert_eq!(seal(Incoming::create(&images, "debian").unwrap()).version, 3);
        std::fs::write(images.join("debian/.last"), "many").unwrap();
        let error = Incoming::create(&images, "debian")
            .unwrap()
            .seal(Manifest::bare, &mut Quiet);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains(".last does not contain a number")
        );
    }

    #[test]
    fn leftovers_of_dead_processes_are_removed_and_others_are_not() {
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
