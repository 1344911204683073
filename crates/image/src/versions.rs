//! The directory of versions: `images/NAME/VERSION`, made beside as `.incoming-…` and renamed when it is whole.

use super::{
    Manifest,
    error::{Doing, ImportError, Result},
    leftovers::{INCOMING, remove_leftovers},
    locks::{lock_dir, open_dir},
    progress::Progress,
    tree::remove_tree,
};
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

/// In `images/NAME`: the highest number that a version ever had, kept when that one is deleted. A number never means
/// two things.
const LAST: &str = ".last";

/// Of `images/`. Whoever can open a directory can lock it, and so keep everybody else from changing it for as long as he likes:
/// nobody but root can open what is here or below.
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

/// Makes the directory of images if it is not there, and root's alone in any case.
///
/// # Errors
/// What cannot be made or changed.
pub fn own_images(path: &Path) -> Result<()> {
    Images::open(path).map(drop)
}

impl Images {
    /// Opens it for a change, and makes it if it is not there. It is root's alone from then on.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(state) = path.parent() {
            std::fs::create_dir_all(state).doing(|| format!("making {}", state.display()))?;
        }
        let fd = make_dir(path, PRIVATE)?;
        let doing = || format!("making {} root's alone (mode {PRIVATE:o})", path.display());
        // Others made it, or an older rackstrap.
        let mode = rfs::fstat(&fd).doing(doing)?.st_mode & 0o7777;
        if mode & !PRIVATE != 0 {
            rfs::fchmod(&fd, Mode::from_raw_mode(PRIVATE)).doing(doing)?;
        }
        Ok(Images {
            fd,
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks it for as long as the answer lives: names and numbers are given and taken under this lock.
    pub fn lock(&self) -> Result<OwnedFd> {
        lock_dir(self.fd.as_fd(), &self.path)
    }

    /// The directory of the image `name`, which is made if it is not there.
    pub fn of(&self, name: &str) -> Result<OwnedFd> {
        make_dir(&self.path.join(name), 0o755)
    }

    /// Removes the directory of `name` if there is nothing in it.
    pub fn tidy(&self, name: &str) {
        // Only succeeds if there is no version, no number to be remembered, and nothing that is being made.
        let _ = rfs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
    }

    /// Has what was renamed in it stay so.
    pub fn sync(&self) -> Result<()> {
        rfs::fsync(&self.fd).doing(|| format!("writing {} to disk", self.path.display()))
    }

    /// Makes `dir`, which is `entry` in `from`, the next version of `name`: all of it is on disk first, then it
    /// appears at once, by one rename.
    pub fn publish(
        &self,
        name: &str,
        (from, entry): (BorrowedFd<'_>, &CStr),
        dir: BorrowedFd<'_>,
        manifest: impl FnOnce(ImageRef) -> Manifest,
        progress: &mut dyn Progress,
    ) -> Result<ImageRef> {
        rfs::syncfs(dir).doing(|| format!("writing the tree of {name} to disk"))?;
        let _lock = self.lock()?;
        let parent_path = self.path.join(name);
        let parent = self.of(name)?;
        let image = ImageRef {
            name: name.to_owned(),
            version: next_version(&parent_path)?,
        };
        let text = toml::to_string(&manifest(image.clone()))
            .map_err(|e| ImportError::Request(format!("the manifest of {image} cannot be written as TOML: {e}")))?;
        write_new(dir, c"manifest.toml", text.as_bytes()).doing(|| format!("writing the manifest of {image}"))?;
        rfs::fsync(dir).doing(|| format!("writing the manifest of {image} to disk"))?;
        progress.reached("manifest");
        let number = image.version.to_string();
        rfs::renameat_with(from, entry, &parent, number.as_str(), RenameFlags::NOREPLACE)
            .doing(|| format!("naming it {image}"))?;
        progress.reached("named");
        // From here on it is there, whatever else goes wrong.
        let synced = rfs::fsync(&parent).and(rfs::fsync(from)).and(rfs::fsync(&self.fd));
        if let Err(e) = synced {
            tracing::warn!(image = %image, error = %e, "a power cut in the next seconds could undo the new version");
        }
        Ok(image)
    }

    /// Remembers that `name` had version `version`, which is about to go.
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

/// Writes a file anew; it is on disk when this returns, its name is not.
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

/// A directory that is being made. Dropped before it has its name, it is removed with everything in it.
#[derive(Debug)]
pub(crate) struct Incoming {
    images: Images,
    name: String,
    parent: OwnedFd,
    entry: CString,
    /// Open and locked: whoever can lock it knows that its maker is dead.
    dir: OwnedFd,
    named: bool,
}

impl Incoming {
    /// It has its name: whoever wants to read or delete it may. Closing it would not do, should a child process that is just
    /// being started have the descriptor too.
    fn let_go(&mut self) {
        self.named = true;
        let _ = rfs::flock(&self.dir, FlockOperation::Unlock);
    }

    /// Makes a place for the next version of `name` below `images`, and removes what others that died left there.
    pub fn create(images_path: &Path, name: &str) -> Result<Self> {
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
            name: name.to_owned(),
            parent,
            entry: CString::new(entry).expect("hex digits"),
            dir,
            named: false,
        })
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        let entry = std::ffi::OsStr::from_bytes(self.entry.to_bytes());
        self.images.path.join(&self.name).join(entry)
    }

    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Gives it the next number and makes it a version.
    pub fn seal(
        mut self,
        manifest: impl FnOnce(ImageRef) -> Manifest,
        progress: &mut dyn Progress,
    ) -> Result<ImageRef> {
        let from = (self.parent.as_fd(), self.entry.as_c_str());
        let image = self
            .images
            .publish(&self.name, from, self.dir.as_fd(), manifest, progress)?;
        self.let_go();
        Ok(image)
    }

    /// Names it `name`, which must be free, beside where it was made.
    pub fn name(mut self, name: &str, progress: &mut dyn Progress) -> Result<()> {
        rfs::syncfs(&self.dir).doing(|| format!("writing {name} to disk"))?;
        progress.reached("synced");
        let _lock = self.images.lock()?;
        match rfs::renameat_with(&self.parent, &self.entry, &self.parent, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {
                return Err(ImportError::Request(format!(
                    "{name} came into being meanwhile; give it another name"
                )));
            }
            other => other.doing(|| format!("naming it {name}"))?,
        }
        self.let_go();
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
        // What cannot be removed now is removed by the next one, as nobody holds its lock any more.
        if let Err(e) = remove_tree(self.parent.as_fd(), &self.entry) {
            tracing::warn!(dir = %self.path().display(), error = %e, "what was half made could not be removed");
        }
        if let Ok(_lock) = self.images.lock() {
            self.images.tidy(&self.name);
        }
    }
}

/// The number that the next version in `dir` gets: no version ever had it.
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
                "{} holds no number; write the highest number that a version there ever had into it",
                path.display()
            ))
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e).doing(|| format!("reading {}", path.display())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, progress::Quiet};

    fn seal(incoming: Incoming) -> ImageRef {
        incoming.seal(Manifest::bare, &mut Quiet).unwrap()
    }

    #[test]
    fn versions_count_up_and_the_unsealed_vanish() {
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
    fn nobody_else_can_open_it_and_so_lock_it() {
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
        // As an older rackstrap made it.
        for dir in [&images, &images.join("debian"), &version] {
            set(dir, 0o755);
        }
        assert!(lock(&images) && lock(&version), "he could");
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
        assert!(error.unwrap_err().to_string().contains(".last holds no number"));
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
