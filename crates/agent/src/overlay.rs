//! Writes the node's own files into the new root and never outside of it.
//!
//! The image contains any symlinks, absolute ones among them (`/etc/mtab`, `/var/run`). Every path is walked one directory at a
//! time as if the new root were `/`, so that no link leads into the initramfs.
//!
//! A disk that is mounted in the new root also has links of the node's users. One in a home directory could redirect a file that
//! root writes to any place of the system. So links of users other than root are followed in the image but not on a disk.

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
    /// Opens the root.
    pub fn open(root: &Path) -> Res<Self> {
        let root = File::open(root).doing(|| format!("opening {}", root.display()))?;
        Ok(Tree { root: root.into() })
    }

    /// Opens a directory, and creates missing ones on the way (0755, root).
    pub fn directory(&self, path: &str) -> Res<OwnedFd> {
        let (directory, end) = self.walk(path, true)?;
        end.map(|()| directory)
    }

    /// The device of the deepest existing directory on the way to `path`; none if it cannot be found out.
    pub fn device(&self, path: &str) -> Option<u64> {
        let (directory, _) = self.walk(path, false).ok()?;
        Some(rustix::fs::fstat(directory).ok()?.st_dev)
    }

    /// The last directory that the way to `path` reaches, and why it ends there if that is not `path` itself.
    fn walk(&self, path: &str, make: bool) -> Res<(OwnedFd, Res<()>)> {
        let doing = || format!("opening {path}");
        let root = rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty()).doing(doing)?;
        let device = rustix::fs::fstat(&root).doing(doing)?.st_dev;
        let mut walk = Walk {
            device,
            way: vec![root],
            todo: parts(path)?.into_iter().rev().map(|part| (part.into(), make)).collect(),
            links: 0,
        };
        let mut end = Ok(());
        while let Some((part, make)) = walk.todo.pop() {
            end = walk.step(&part, make).doing(doing);
            if end.is_err() {
                break;
            }
        }
        let last = walk.way.pop();
        Ok((last.ok_or_else(|| Failure::new(doing()))?, end))
    }

    /// Opens a regular file of the root with O_PATH, without following links.
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

    /// Writes one file, and replaces what is there unless that is a directory.
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
            // Either it leads to a directory, or this fails with the reason.
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
        // Only root can read the file until owner and mode are right.
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
            _ => Err(Failure::new(format!("'{path}' does not name a file"))),
        }
    }
}

/// Flags that open a directory for the next step, but no link.
const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Most links in one path, as in the kernel.
const MOST_LINKS: u32 = 40;

/// A walk through the tree.
struct Walk {
    /// The root's device. Objects on another device belong to a mounted file system.
    device: u64,
    /// The directories from the root to the current one; never empty.
    way: Vec<OwnedFd>,
    /// The remaining parts, the last one first, and whether a missing part is created.
    todo: Vec<(Vec<u8>, bool)>,
    links: u32,
}

impl Walk {
    fn step(&mut self, part: &[u8], make: bool) -> Result<(), String> {
        let said = |e: Errno| format!("{}: {e}", String::from_utf8_lossy(part));
        let Some(here) = self.way.last() else {
            return Err(said(Errno::NOENT));
        };
        if part == b".." {
            if self.way.len() > 1 {
                self.way.pop();
            }
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(here, part, flags, Mode::empty());
        let next = match open() {
            Err(Errno::NOENT) if make => {
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::mkdirat(here, part, mode).map_err(said)?;
                // Set the mode, whatever the umask is.
                rustix::fs::chmodat(here, part, mode, AtFlags::empty()).map_err(said)?;
                open().map_err(said)?
            }
            other => other.map_err(said)?,
        };
        let stat = rustix::fs::fstat(&next).map_err(said)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.way.push(next),
            FileType::Symlink => {
                // A directory reports its real device; a link in an overlay does not.
                let on_disk = rustix::fs::fstat(here).map_err(said)?.st_dev != self.device;
                if on_disk && stat.st_uid != 0 {
                    let name = String::from_utf8_lossy(part);
                    return Err(format!(
                        "{name} is a link of user {}, which is not followed",
                        stat.st_uid
                    ));
                }
                self.links += 1;
                if self.links > MOST_LINKS {
                    return Err(said(Errno::LOOP));
                }
                let target = rustix::fs::readlinkat(&next, "", Vec::new()).map_err(said)?;
                let target = target.to_bytes();
                if target.starts_with(b"/") {
                    self.way.truncate(1);
                }
                let parts = target.split(|byte| *byte == b'/').rev();
                let parts = parts.filter(|part| !part.is_empty() && *part != b".");
                // The target of a link is not created if it is missing.
                self.todo.extend(parts.map(|part| (part.to_vec(), false)));
            }
            _ => return Err(said(Errno::NOTDIR)),
        }
        Ok(())
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
    fn links_of_users_on_a_disk_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["etc/real", "home", "opt"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let disk = crate::testdisk::Mounted::tmpfs(&dir.path().join("home"), "size=1m");
        for (path, target, owner) in [
            ("home/alice", "/etc", 1000),
            ("home/roots", "../etc/real", 0),
            // The image may have links of any user.
            ("opt/service", "../etc", 1000),
        ] {
            symlink(target, dir.path().join(path)).unwrap();
            std::os::unix::fs::lchown(dir.path().join(path), Some(owner), None).unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        let refused = tree.write(&text("/home/alice/shadow", 0o600, "x")).unwrap_err();
        assert!(refused.to_string().contains("a link of user 1000"), "{refused}");
        // The same holds on the way to the target of another link.
        symlink("/home/alice", dir.path().join("opt/through")).unwrap();
        assert!(tree.write(&text("/opt/through/shadow", 0o600, "x")).is_err());
        assert!(tree.directory("/home/alice/new").is_err());
        assert!(!dir.path().join("etc/shadow").exists() && !dir.path().join("etc/new").exists());
        tree.write(&text("/home/roots/file", 0o600, "x")).unwrap();
        tree.write(&text("/opt/service/file", 0o600, "x")).unwrap();
        assert!(dir.path().join("etc/real/file").exists() && dir.path().join("etc/file").exists());
        // The last component is replaced, so it is not followed.
        tree.write(&text("/home/alice", 0o600, "x")).unwrap();
        assert!(!dir.path().join("home/alice").is_symlink());
        drop(disk);
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
