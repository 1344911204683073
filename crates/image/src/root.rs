//! Reads a root tree without leaving it.

use rustix::fs::{self as rfs, FileType, Mode, OFlags, ResolveFlags};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

/// A directory that is the `/` of an operating system. Its symbolic links, including absolute ones, are resolved inside it
/// (openat2(2), RESOLVE_IN_ROOT), as in a chroot.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

impl RootDir {
    /// Opens the directory `path`; fails if it is not a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rfs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(RootDir { fd })
    }

    fn open_in(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rfs::openat2(
            &self.fd,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )?)
    }

    /// Opens a regular file for reading. Links are resolved inside the tree.
    pub fn open_file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        // Check the type first: opening a device or a fifo has effects.
        let fd = self.open_in(path.as_ref(), OFlags::PATH)?;
        let stat = rfs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        let proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
        Ok(File::from(rfs::open(
            proc,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// The whole content of a regular file of at most `limit` bytes.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open_file(path)?.take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::other(format!("larger than {limit} bytes")));
        }
        Ok(content)
    }

    /// The path to which `path` leads after all its links, relative to the tree, and the mode of the file there.
    pub fn resolve(&self, path: impl AsRef<Path>) -> io::Result<(PathBuf, u32)> {
        let fd = self.open_in(path.as_ref(), OFlags::PATH)?;
        let place = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let (own, found) = (place(self.fd.as_fd())?, place(fd.as_fd())?);
        let inside = found.strip_prefix(&own).map_err(io::Error::other)?.to_owned();
        Ok((inside, rfs::fstat(&fd)?.st_mode))
    }

    /// True if `path` leads to an existing file.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.open_in(path.as_ref(), OFlags::PATH).is_ok()
    }

    /// Makes a regular file that does not exist, of root and with these permissions. Missing directories are made with mode 0755. Links
    /// of the tree lead to places inside it.
    pub fn create(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for dir in parents.into_iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
            if self.exists(dir) {
                continue;
            }
            let (within, name) = (dir.parent(), dir.file_name());
            let within = within.filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let within = self.open_in(within, OFlags::RDONLY | OFlags::DIRECTORY)?;
            rfs::mkdirat(&within, name.unwrap_or_default(), Mode::from_raw_mode(0o755))?;
        }
        let fd = rfs::openat2(
            &self.fd,
            path,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )?;
        let mut file = File::from(fd);
        file.write_all(content)?;
        // Not by the mode of openat2(2), from which the umask is taken away.
        rfs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(())
    }

    /// Names in a directory, sorted; empty if the directory does not exist.
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        let fd = match self.open_in(path.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(vec![]),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in rfs::Dir::new(fd)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        let tree = outside.path().join("tree");
        std::fs::create_dir_all(tree.join("usr/lib/systemd")).unwrap();
        std::fs::create_dir_all(tree.join("sbin")).unwrap();
        std::fs::write(tree.join("usr/lib/systemd/systemd"), "x").unwrap();
        symlink("/usr/lib/systemd/systemd", tree.join("sbin/init")).unwrap();
        symlink("../../../../secret", tree.join("climb")).unwrap();
        symlink(outside.path().join("secret"), tree.join("absolute")).unwrap();
        let root = RootDir::open(&tree).unwrap();
        assert_eq!(
            root.resolve("sbin/init").unwrap().0,
            Path::new("usr/lib/systemd/systemd")
        );
        assert_eq!(
            root.resolve("/sbin/init").unwrap().0,
            Path::new("usr/lib/systemd/systemd")
        );
        for path in ["climb", "absolute", "../secret"] {
            assert!(root.open_file(path).is_err(), "{path}");
        }
        assert!(root.open_file("usr").is_err());
        assert_eq!(root.read("sbin/init", 1).unwrap(), b"x");
        assert!(root.read("sbin/init", 0).is_err());
        assert_eq!(root.list("usr/lib").unwrap(), ["systemd"]);
        assert!(root.list("nowhere").unwrap().is_empty());
    }
}
