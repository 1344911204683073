//! The node's own files, written into the new root and never outside of it.
//!
//! The image is somebody's tree with somebody's symlinks, absolute ones among them (`/etc/mtab`, `/var/run`). Every path is
//! resolved by the kernel as if the new root were `/` (openat2 with RESOLVE_IN_ROOT), so that no link leads into the
//! initramfs.

use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::{OverlayContent, OverlayFile};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};
use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// The new root, held open.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens it.
    pub fn open(root: &Path) -> Res<Self> {
        let root = File::open(root).doing(|| format!("opening {}", root.display()))?;
        Ok(Tree { root: root.into() })
    }

    /// Opens a directory, making what is missing of it (0755, root).
    pub fn directory(&self, path: &str) -> Res<OwnedFd> {
        let mut done = String::new();
        let mut parent: OwnedFd = self.resolve(".")?;
        for part in parts(path)? {
            done.push('/');
            done += part;
            let next = match self.resolve(&done[1..]) {
                Ok(directory) => directory,
                Err(_) => {
                    match rustix::fs::mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
                        // The umask must not decide.
                        Ok(()) => rustix::fs::chmodat(&parent, part, Mode::from_raw_mode(0o755), AtFlags::empty())
                            .doing(|| format!("making {done}"))?,
                        Err(Errno::EXIST) => {}
                        Err(e) => return Err(Failure::new(format!("making {done}: {e}"))),
                    }
                    self.resolve(&done[1..])?
                }
            };
            parent = next;
        }
        Ok(parent)
    }

    /// Opens a regular file of the root as a path; no link leads to it.
    pub fn file(&self, path: &[u8]) -> std::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        match kind {
            FileType::RegularFile => Ok(file),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn resolve(&self, path: &str) -> Res<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .doing(|| format!("opening /{path}"))
    }

    /// Writes one file, replacing what is there unless that is a directory.
    pub fn write(&self, file: &OverlayFile) -> Res<()> {
        let bytes = match &file.content {
            OverlayContent::Text(text) => text.as_bytes(),
            OverlayContent::Symlink(target) => {
                let (parent, name) = self.parent(&file.path)?;
                let doing = || format!("linking {}", file.path);
                remove(parent.as_fd(), name).doing(doing)?;
                rustix::fs::symlinkat(target.as_str(), &parent, name).doing(doing)?;
                return chown(parent.as_fd(), name, file).doing(doing);
            }
            OverlayContent::Directory => return self.make_directory(file),
        };
        self.write_bytes(file, bytes)
    }

    fn make_directory(&self, file: &OverlayFile) -> Res<()> {
        let (parent, name) = self.parent(&file.path)?;
        let doing = || format!("making {}", file.path);
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            // Whatever it is leads to a directory, or is in the way.
            Err(Errno::EXIST) => return self.directory(&file.path).map(drop),
            Err(e) => return Err(e).doing(doing),
        }
        chown(parent.as_fd(), name, file).doing(doing)?;
        let mode = Mode::from_raw_mode(file.mode & 0o7777);
        rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()).doing(doing)
    }

    /// Writes one regular file with any content.
    pub fn write_bytes(&self, file: &OverlayFile, bytes: &[u8]) -> Res<()> {
        let (parent, name) = self.parent(&file.path)?;
        let doing = || format!("writing {}", file.path);
        remove(parent.as_fd(), name).doing(doing)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nobody but root until owner and mode are right.
        let created = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).doing(doing)?;
        let mut created = File::from(created);
        created.write_all(bytes).doing(doing)?;
        let (uid, gid) = (Uid::from_raw(file.uid), Gid::from_raw(file.gid));
        rustix::fs::fchown(&created, Some(uid), Some(gid)).doing(doing)?;
        rustix::fs::fchmod(&created, Mode::from_raw_mode(file.mode & 0o7777)).doing(doing)
    }

    fn parent<'a>(&self, path: &'a str) -> Res<(OwnedFd, &'a str)> {
        parts(path)?;
        match path.rsplit_once('/') {
            Some((parent, name)) if !name.is_empty() => Ok((self.directory(parent)?, name)),
            _ => Err(Failure::new(format!("'{path}' names no file"))),
        }
    }
}

/// The components of an absolute path; `.` and `..` are refused.
fn parts(path: &str) -> Res<Vec<&str>> {
    if !path.is_empty() && !path.starts_with('/') {
        return Err(Failure::new(format!("'{path}' is not an absolute path")));
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if parts.iter().any(|p| matches!(*p, "." | "..") || p.contains('\0')) {
        return Err(Failure::new(format!("'{path}' has . or .. in it")));
    }
    Ok(parts)
}

fn remove(parent: std::os::fd::BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

fn chown(parent: std::os::fd::BorrowedFd<'_>, name: &str, file: &OverlayFile) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(file.uid), Gid::from_raw(file.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    fn text(path: &str, mode: u32, text: &str) -> OverlayFile {
        OverlayFile {
            path: path.into(),
            mode,
            uid: 7,
            gid: 8,
            content: OverlayContent::Text(text.into()),
        }
    }

    #[test]
    fn files_have_their_content_owner_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.write(&text("/etc/deep/er/key", 0o4640, "secret")).unwrap();
        tree.write(&text("/etc/deep/er/key", 0o600, "second")).unwrap();
        let link = OverlayFile {
            content: OverlayContent::Symlink("/usr/lib/x".into()),
            ..text("/etc/link", 0, "")
        };
        tree.write(&link).unwrap();
        let meta = fs::metadata(dir.path().join("etc/deep/er/key")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o600, 7, 8));
        assert_eq!(fs::read(dir.path().join("etc/deep/er/key")).unwrap(), b"second");
        let made = fs::metadata(dir.path().join("etc/deep")).unwrap();
        assert_eq!((made.mode() & 0o7777, made.uid()), (0o755, 0));
        assert_eq!(
            fs::read_link(dir.path().join("etc/link")).unwrap(),
            Path::new("/usr/lib/x")
        );
        assert_eq!(fs::symlink_metadata(dir.path().join("etc/link")).unwrap().uid(), 7);
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let outside = dir.path().join("outside");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("passwd"), "theirs").unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../../outside", root.join("etc/relative")).unwrap();
        symlink(outside.join("passwd"), root.join("etc/passwd")).unwrap();
        let tree = Tree::open(&root).unwrap();
        // The last component is replaced, not followed; links on the way lead to places inside, if anywhere.
        tree.write(&text("/etc/passwd", 0o644, "ours")).unwrap();
        let _ = tree.write(&text("/absolute/passwd", 0o644, "ours"));
        let _ = tree.write(&text("/etc/relative/passwd", 0o644, "ours"));
        assert_eq!(fs::read(outside.join("passwd")).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read(root.join("etc/passwd")).unwrap(), b"ours");
        for path in [
            "/../outside/passwd",
            "/etc/../../outside/x",
            "etc/x",
            "/",
            "/etc/",
            "",
            "/etc/.",
        ] {
            assert!(tree.write(&text(path, 0o644, "x")).is_err(), "{path}");
        }
    }

    #[test]
    fn directories_are_made_and_those_that_are_there_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/x"), "kept").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let make = |path: &str| {
            tree.write(&OverlayFile {
                content: OverlayContent::Directory,
                ..text(path, 0o1770, "")
            })
        };
        let before = fs::metadata(dir.path().join("home")).unwrap();
        for path in ["/home", "/link", "/opt/software", "/opt/software"] {
            make(path).unwrap();
        }
        let home = fs::metadata(dir.path().join("home")).unwrap();
        assert_eq!((home.mode(), home.uid()), (before.mode(), before.uid()));
        assert_eq!(fs::read(dir.path().join("link/x")).unwrap(), b"kept");
        let made = fs::metadata(dir.path().join("opt/software")).unwrap();
        assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o1770, 7, 8));
        assert!(make("/file").is_err() && make("/../x").is_err());
    }

    #[test]
    fn links_inside_the_root_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::create_dir(dir.path().join("var")).unwrap();
        symlink("/run", dir.path().join("var/run")).unwrap();
        Tree::open(dir.path())
            .unwrap()
            .write(&text("/var/run/a/b", 0o644, "x"))
            .unwrap();
        assert_eq!(fs::read(dir.path().join("run/a/b")).unwrap(), b"x");
    }
}
