//! An export: descriptors of its root, and of the files beneath it that are in use.

use super::{
    acl::{self, Acl},
    attr::{Attr, FileType, Time},
    handle::{ExportId, FileId, Source},
    index::{Index, open_beneath},
    status::{Status, Stop},
    sys,
};
use lru::LruCache;
use rackstrap_base::sync::lock;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags, ResolveFlags, StatVfs},
    io::Errno,
    mount::OpenTreeFlags,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// May this thread wait for a disk?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// No: answer from memory, or say [`Stop::WouldBlock`].
    Inline,
    /// Yes. It may wait for a disk as long as that takes.
    MayBlock,
}

/// Why a directory cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("cannot export {}: {what}: {source}", .path.display())]
pub struct ExportError {
    path: PathBuf,
    what: &'static str,
    source: std::io::Error,
}

/// A root file tree that is served, read-only.
///
/// Files are found beneath the root only, one name at a time from an open directory; symbolic links are
/// never followed (that is the client's business), and no name leads to another mount.
#[derive(Debug)]
pub struct ExportRoot {
    id: ExportId,
    name: String,
    /// The root, opened for reading: `open_by_handle_at` does not take an `O_PATH` descriptor.
    root: OwnedFd,
    root_id: FileId,
    /// None where the kernel has file handles.
    index: Option<Index>,
    open: Mutex<LruCache<FileId, Arc<Node>>>,
}

/// A file of an export, held open.
#[derive(Debug)]
pub struct Node {
    id: FileId,
    /// `O_PATH`: devices and fifos are never opened in earnest, as that would talk to a driver or wait for a writer.
    path: OwnedFd,
    /// Opened for reading at the first READ.
    data: OnceLock<OwnedFd>,
    /// Read when somebody asks to whom it matters.
    acl: OnceLock<Option<Acl>>,
    _counted: Counted,
}

/// Files that all exports together hold open; exports come and go with image versions, so the bound is one for the process.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// Every export may hold so many whatever the others hold.
const GUARANTEED: usize = 64;

/// Files that may be held open, two descriptors each: a quarter of the descriptors that
/// the process may have, within reason; the rest is for connections.
fn allowed() -> usize {
    static ALLOWED: OnceLock<usize> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        (limit.unwrap_or(1 << 20) / 8).clamp(GUARANTEED as u64, 8192) as usize
    })
}

/// XATTR_SIZE_MAX (linux/limits.h)
const MAX_XATTR: usize = 64 << 10;

#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Self {
        HELD.fetch_add(1, Relaxed);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Relaxed);
    }
}

impl Node {
    /// Which file this is.
    pub fn id(&self) -> &FileId {
        &self.id
    }

    /// Its `O_PATH` descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.path.as_fd()
    }

    /// Its attributes. The inode is in memory as long as we hold it open, so this never waits for a disk.
    ///
    /// # Errors
    /// NFS3ERR_IO and the like.
    pub fn attr(&self) -> Result<Attr, Stop> {
        Ok(attr_of(&rustix::fs::fstat(&self.path)?)?)
    }

    /// Its ACL, read once.
    ///
    /// # Errors
    /// [`Stop::WouldBlock`] if it was not read yet and `pace` does not allow to; NFS3ERR_IO if it cannot be
    /// read or is none, as nobody knows then who may do what.
    pub fn acl(&self, pace: Pace) -> Result<Option<&Acl>, Stop> {
        if let Some(acl) = self.acl.get() {
            return Ok(acl.as_ref());
        }
        if pace == Pace::Inline {
            return Err(Stop::WouldBlock);
        }
        let acl = self.read_acl(acl::XATTR)?;
        Ok(self.acl.get_or_init(|| acl).as_ref())
    }

    /// What a directory hands down to what is made in it; read from the disk.
    ///
    /// # Errors
    /// As of [`Node::acl`].
    pub fn default_acl(&self, pace: Pace) -> Result<Option<Acl>, Stop> {
        match pace {
            Pace::Inline => Err(Stop::WouldBlock),
            Pace::MayBlock => self.read_acl(acl::XATTR_DEFAULT),
        }
    }

    fn read_acl(&self, xattr: &str) -> Result<Option<Acl>, Stop> {
        // fgetxattr(2) does not take O_PATH descriptors, and other ones are not to be had of devices.
        let path = format!("/proc/self/fd/{}", self.path.as_raw_fd());
        let mut value = vec![0; MAX_XATTR];
        match rustix::fs::getxattr(path, xattr, &mut value) {
            Ok(len) => Ok(Some(Acl::parse(&value[..len]).ok_or(Status::Io)?)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(_) => Err(Status::Io.into()),
        }
    }
}

impl ExportRoot {
    /// Opens the directory `path` as the export `id`; `name` is for people. May take seconds on a file system without
    /// file handles, as the whole tree is walked.
    ///
    /// The root is a private, read-only mount of its own where we may make one (CAP_SYS_ADMIN): whatever
    /// somebody mounts inside the tree is not seen, `..` ends at the root in the kernel already, and access times stay as they are.
    ///
    /// # Errors
    /// [`ExportError`] if it is not a directory, or cannot be opened or walked.
    pub fn open(path: &Path, id: ExportId, name: String) -> Result<Self, ExportError> {
        Self::open_as(path, id, name, true)
    }

    /// As [`ExportRoot::open`], but finds files by an index of inode numbers even where the kernel has file handles.
    ///
    /// # Errors
    /// As [`ExportRoot::open`].
    pub fn open_indexed(path: &Path, id: ExportId, name: String) -> Result<Self, ExportError> {
        Self::open_as(path, id, name, false)
    }

    fn open_as(path: &Path, id: ExportId, name: String, kernel_handles: bool) -> Result<Self, ExportError> {
        let failed = |what: &'static str| {
            move |errno: Errno| ExportError {
                path: path.to_owned(),
                what,
                source: errno.into(),
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let plain = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open the directory"))?;
        let root = match private_mount(&plain) {
            Ok(mount) => rustix::fs::openat(mount, ".", flags, Mode::empty()).map_err(failed("open its mount"))?,
            Err(errno) => {
                // ENOSYS before Linux 5.12; EPERM in a service that lacks CAP_SYS_ADMIN.
                tracing::warn!(
                    "{}: no read-only mount of its own can be made ({errno}): it is exported as it is, with what is mounted in it",
                    path.display()
                );
                plain
            }
        };
        let stat = rustix::fs::fstat(&root).map_err(failed("stat the directory"))?;
        let by_kernel = sys::file_id(root.as_fd())
            .ok()
            .filter(|id| kernel_handles && sys::open_by_id(root.as_fd(), id, OFlags::PATH | OFlags::CLOEXEC).is_ok());
        let (root_id, index) = match by_kernel {
            Some(id) => (id, None),
            None => {
                let index = Index::build(&root, stat.st_ino).map_err(failed("walk the tree"))?;
                (indexed(stat.st_ino), Some(index))
            }
        };
        Ok(ExportRoot {
            id,
            name,
            root,
            root_id,
            index,
            open: Mutex::new(LruCache::unbounded()),
        })
    }

    /// Its id in handles.
    pub fn id(&self) -> ExportId {
        self.id
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `fsid` of all its files: the export's id, so that a client tells two exports of one disk apart.
    pub fn fsid(&self) -> u64 {
        u64::from_be_bytes(self.id.0)
    }

    /// The root's file id.
    pub fn root_id(&self) -> &FileId {
        &self.root_id
    }

    /// Sizes of the file system that the export is on.
    ///
    /// # Errors
    /// NFS3ERR_IO and the like.
    pub fn statvfs(&self) -> Result<StatVfs, Stop> {
        Ok(rustix::fs::fstatvfs(&self.root)?)
    }

    /// Magic number of the file system that the export is on (statfs(2)).
    pub fn fs_type(&self) -> i64 {
        rustix::fs::fstatfs(&self.root).map_or(0, |s| s.f_type)
    }

    /// The file of an id, which must have come out of a handle with our MAC.
    ///
    /// # Errors
    /// NFS3ERR_STALE if it is gone; [`Stop::WouldBlock`] if it is not open yet and `pace` does not allow to open it.
    pub fn node(&self, id: &FileId, pace: Pace) -> Result<Arc<Node>, Stop> {
        if let Some(node) = self.held().get(id) {
            return Ok(node.clone());
        }
        if pace == Pace::Inline {
            return Err(Stop::WouldBlock);
        }
        let path = self.open_id(id, OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok(self.hold(*id, path))
    }

    fn open_id(&self, id: &FileId, flags: OFlags) -> Result<OwnedFd, Stop> {
        let gone = |errno| match errno {
            // Handles of another kind of file system: the image was moved.
            Errno::NOENT | Errno::INVAL | Errno::LOOP | Errno::NOTDIR | Errno::STALE => Status::Stale.into(),
            // Somebody has a lease on the file.
            Errno::AGAIN => Status::Jukebox.into(),
            other => Stop::from(other),
        };
        match (&self.index, id.source()) {
            (None, Source::Kernel) => sys::open_by_id(self.root.as_fd(), id, flags | OFlags::CLOEXEC).map_err(gone),
            (Some(index), Source::Index) => {
                let ino = id
                    .bytes()
                    .try_into()
                    .map(u64::from_be_bytes)
                    .map_err(|_| Status::Stale)?;
                let path = index.path(ino).ok_or(Status::Stale)?;
                let fd = open_beneath(&self.root, &path, flags).map_err(gone)?;
                if rustix::fs::fstat(&fd)?.st_ino != ino {
                    return Err(Status::Stale.into());
                }
                Ok(fd)
            }
            _ => Err(Status::Stale.into()),
        }
    }

    /// The file `name` in the directory `dir`; the caller made sure that `name` is one name of at most 255 bytes.
    ///
    /// # Errors
    /// NFS3ERR_NOENT and the like; [`Stop::WouldBlock`] if the name is not in the kernel's cache and `pace` does not allow to wait.
    pub fn child(&self, dir: &Node, name: &[u8], pace: Pace) -> Result<(Arc<Node>, Attr), Stop> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match name {
            b"." => return self.with_attr(self.node(&dir.id, pace)?),
            b".." if dir.id == self.root_id => return self.with_attr(self.node(&dir.id, pace)?),
            // The parents of an open directory are in memory. RESOLVE_BENEATH would refuse the name.
            b".." => rustix::fs::openat(&dir.path, "..", flags, Mode::empty())?,
            _ => {
                use ResolveFlags as R;
                let mut how = R::BENEATH | R::NO_MAGICLINKS | R::NO_XDEV;
                if pace == Pace::Inline {
                    how |= R::CACHED;
                }
                rustix::fs::openat2(&dir.path, name, flags, Mode::empty(), how)?
            }
        };
        let stat = rustix::fs::fstat(&fd)?;
        let id = match self.index {
            None => sys::file_id(fd.as_fd())?,
            Some(_) => indexed(stat.st_ino),
        };
        Ok((self.hold(id, fd), attr_of(&stat)?))
    }

    fn with_attr(&self, node: Arc<Node>) -> Result<(Arc<Node>, Attr), Stop> {
        let attr = node.attr()?;
        Ok((node, attr))
    }

    /// Id and attributes of an entry of `dir`, without holding it open.
    ///
    /// # Errors
    /// As [`ExportRoot::child`].
    pub fn peek(&self, dir: &Node, name: &[u8]) -> Result<(FileId, Attr), Stop> {
        if matches!(name, b"." | b"..") {
            let (node, attr) = self.child(dir, name, Pace::MayBlock)?;
            return Ok((node.id, attr));
        }
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&dir.path, name, flags, Mode::empty(), how)?;
        let stat = rustix::fs::fstat(&fd)?;
        let id = match self.index {
            None => sys::file_id(fd.as_fd())?,
            Some(_) => indexed(stat.st_ino),
        };
        Ok((id, attr_of(&stat)?))
    }

    /// A descriptor to read a regular file's data from, opened once.
    ///
    /// # Errors
    /// As [`ExportRoot::node`].
    pub fn data<'a>(&self, node: &'a Node, pace: Pace) -> Result<BorrowedFd<'a>, Stop> {
        if let Some(fd) = node.data.get() {
            return Ok(fd.as_fd());
        }
        if pace == Pace::Inline {
            return Err(Stop::WouldBlock);
        }
        // NONBLOCK for leases that somebody may hold on the file; data of regular files is not concerned.
        let fd = self.open_id(&node.id, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
        Ok(node.data.get_or_init(|| fd).as_fd())
    }

    /// A descriptor of its own to list a directory with.
    ///
    /// # Errors
    /// As [`ExportRoot::node`].
    pub fn listing(&self, dir: &Node) -> Result<OwnedFd, Stop> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&dir.path, ".", flags, Mode::empty())?)
    }

    fn held(&self) -> MutexGuard<'_, LruCache<FileId, Arc<Node>>> {
        lock(&self.open)
    }

    fn hold(&self, id: FileId, path: OwnedFd) -> Arc<Node> {
        let mut held = self.held();
        if let Some(node) = held.get(&id) {
            return node.clone();
        }
        let node = Arc::new(Node {
            id,
            path,
            data: OnceLock::new(),
            acl: OnceLock::new(),
            _counted: Counted::new(),
        });
        held.put(id, node.clone());
        let mut dropped = Vec::new();
        while HELD.load(Relaxed) - dropped.len() > allowed() && held.len() > GUARANTEED {
            dropped.extend(held.pop_lru());
        }
        // close(2) outside the lock.
        drop(held);
        drop(dropped);
        node
    }
}

/// A mount of `dir` alone that no other process sees. It ends when its last descriptor is closed.
fn private_mount(dir: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(dir, "", flags)?;
    sys::restrict_mount(mount.as_fd())?;
    Ok(mount)
}

fn indexed(ino: u64) -> FileId {
    FileId::new(Source::Index, 0, &ino.to_be_bytes()).expect("eight bytes fit")
}

/// `stat` as NFS sees it.
pub fn attr_of(stat: &rustix::fs::Stat) -> Result<Attr, Status> {
    use rustix::fs::FileType as F;
    let kind = match F::from_raw_mode(stat.st_mode) {
        F::RegularFile => FileType::Regular,
        F::Directory => FileType::Directory,
        F::BlockDevice => FileType::Block,
        F::CharacterDevice => FileType::Character,
        F::Symlink => FileType::Symlink,
        F::Socket => FileType::Socket,
        F::Fifo => FileType::Fifo,
        F::Unknown => return Err(Status::Io),
    };
    let device = matches!(kind, FileType::Block | FileType::Character);
    Ok(Attr {
        kind,
        mode: stat.st_mode & 0o7777,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size as u64,
        used: stat.st_blocks as u64 * 512,
        rdev: if device {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        } else {
            (0, 0)
        },
        fileid: stat.st_ino,
        atime: Time::clamped(stat.st_atime, stat.st_atime_nsec as u32),
        mtime: Time::clamped(stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: Time::clamped(stat.st_ctime, stat.st_ctime_nsec as u32),
    })
}

#[cfg(test)]
mod tests;
