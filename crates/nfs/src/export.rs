//! An export: descriptors of its root, and of the files below it that are in use.

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

/// Whether this thread may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It must not: answer from memory, or return [`Stop::WouldBlock`].
    Inline,
    /// It may, for any time.
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

/// A root file tree, served read-only.
///
/// Files are only looked up below the root, one name at a time from an open directory. Symbolic links are never followed, because that
/// is the client's task, and no name leads to another mount.
#[derive(Debug)]
pub struct ExportRoot {
    id: ExportId,
    name: String,
    /// The root, opened for reading, because `open_by_handle_at` does not accept an `O_PATH` descriptor.
    root: OwnedFd,
    root_id: FileId,
    /// None if the kernel has file handles for the file system.
    index: Option<Index>,
    open: Mutex<LruCache<FileId, Arc<Node>>>,
}

/// A file of an export, held open.
#[derive(Debug)]
pub struct Node {
    id: FileId,
    /// `O_PATH`, because opening a device would call its driver, and opening a fifo would wait for a writer.
    path: OwnedFd,
    /// Opened for reading at the first READ.
    data: OnceLock<OwnedFd>,
    /// Read at the first call of a user for whom it matters.
    acl: OnceLock<Option<Acl>>,
    _counted: Counted,
}

/// Number of files that all exports together hold open. The limit is for the process, because exports change with image versions.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// Files that every export may hold open, whatever the others hold.
const GUARANTEED: usize = 64;

/// Most files that may be held open, with two descriptors each: a quarter of the process' descriptors, within fixed bounds. The rest is
/// for connections.
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
    /// The id of the file.
    pub fn id(&self) -> &FileId {
        &self.id
    }

    /// Its `O_PATH` descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.path.as_fd()
    }

    /// Its attributes. The inode is in memory while the file is open, so this never waits for a disk.
    ///
    /// # Errors
    /// NFS3ERR_IO and the like.
    pub fn attr(&self) -> Result<Attr, Stop> {
        Ok(attr_of(&rustix::fs::fstat(&self.path)?)?)
    }

    /// Its ACL, which is read once.
    ///
    /// # Errors
    /// [`Stop::WouldBlock`] if it was not read yet and `pace` does not allow it. NFS3ERR_IO if it cannot be read or parsed, because then
    /// the permissions are unknown.
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

    /// The default ACL of a directory, read from the disk.
    ///
    /// # Errors
    /// As for [`Node::acl`].
    pub fn default_acl(&self, pace: Pace) -> Result<Option<Acl>, Stop> {
        match pace {
            Pace::Inline => Err(Stop::WouldBlock),
            Pace::MayBlock => self.read_acl(acl::XATTR_DEFAULT),
        }
    }

    fn read_acl(&self, xattr: &str) -> Result<Option<Acl>, Stop> {
        // fgetxattr(2) does not accept O_PATH descriptors, and devices have no others here.
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
    /// Opens the directory `path` as the export `id`; `name` is for people. On a file system without file handles this may take seconds,
    /// because it walks the whole tree.
    ///
    /// The root gets a private, read-only mount if that is allowed (CAP_SYS_ADMIN). Then later mounts inside the tree are not visible, the
    /// kernel ends `..` at the root, and access times do not change.
    ///
    /// # Errors
    /// [`ExportError`] if it is not a directory, or cannot be opened or walked.
    pub fn open(path: &Path, id: ExportId, name: String) -> Result<Self, ExportError> {
        Self::open_as(path, id, name, true)
    }

    /// Like [`ExportRoot::open`], but with an index of inode numbers even if the kernel has file handles.
    ///
    /// # Errors
    /// As for [`ExportRoot::open`].
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
                // The error is ENOSYS before Linux 5.12, and EPERM in a service without CAP_SYS_ADMIN.
                tracing::warn!(
                    "{}: cannot make a private read-only mount ({errno}); it is exported with the file systems that are mounted in it",
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

    /// `fsid` of all its files: the export's id, so that a client distinguishes two exports of one disk.
    pub fn fsid(&self) -> u64 {
        u64::from_be_bytes(self.id.0)
    }

    /// The root's file id.
    pub fn root_id(&self) -> &FileId {
        &self.root_id
    }

    /// Sizes of the file system of the export.
    ///
    /// # Errors
    /// NFS3ERR_IO and others.
    pub fn statvfs(&self) -> Result<StatVfs, Stop> {
        Ok(rustix::fs::fstatvfs(&self.root)?)
    }

    /// Magic number of the file system of the export (statfs(2)).
    pub fn fs_type(&self) -> i64 {
        rustix::fs::fstatfs(&self.root).map_or(0, |s| s.f_type)
    }

    /// The file of an id, which must come from a handle with our MAC.
    ///
    /// # Errors
    /// NFS3ERR_STALE if it no longer exists; [`Stop::WouldBlock`] if it is not open yet and `pace` does not allow opening it.
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
            // The handle is of another kind of file system, because the image was moved.
            Errno::NOENT | Errno::INVAL | Errno::LOOP | Errno::NOTDIR | Errno::STALE => Status::Stale.into(),
            // Another program has a lease on the file.
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

    /// The file `name` in the directory `dir`. The caller has checked that `name` is one name of at most 255 bytes.
    ///
    /// # Errors
    /// NFS3ERR_NOENT and others; [`Stop::WouldBlock`] if the name is not in the kernel's cache and `pace` does not allow waiting.
    pub fn child(&self, dir: &Node, name: &[u8], pace: Pace) -> Result<(Arc<Node>, Attr), Stop> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match name {
            b"." => return self.with_attr(self.node(&dir.id, pace)?),
            b".." if dir.id == self.root_id => return self.with_attr(self.node(&dir.id, pace)?),
            // The parents of an open directory are in memory. RESOLVE_BENEATH would refuse this name.
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

    /// Id and attributes of an entry of `dir`, which is not held open.
    ///
    /// # Errors
    /// As for [`ExportRoot::child`].
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

    /// A descriptor for reading a regular file's data, opened once.
    ///
    /// # Errors
    /// As for [`ExportRoot::node`].
    pub fn data<'a>(&self, node: &'a Node, pace: Pace) -> Result<BorrowedFd<'a>, Stop> {
        if let Some(fd) = node.data.get() {
            return Ok(fd.as_fd());
        }
        if pace == Pace::Inline {
            return Err(Stop::WouldBlock);
        }
        // NONBLOCK is for leases of other programs on the file; it does not affect data of regular files.
        let fd = self.open_id(&node.id, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
        Ok(node.data.get_or_init(|| fd).as_fd())
    }

    /// A new descriptor for listing a directory.
    ///
    /// # Errors
    /// As for [`ExportRoot::node`].
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
        // Descriptors are closed outside of the lock.
        drop(held);
        drop(dropped);
        node
    }
}

/// A mount of `dir` that no other process can see. It ends when its last descriptor is closed.
fn private_mount(dir: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(dir, "", flags)?;
    sys::restrict_mount(mount.as_fd())?;
    Ok(mount)
}

fn indexed(ino: u64) -> FileId {
    FileId::new(Source::Index, 0, &ino.to_be_bytes()).expect("eight bytes fit")
}

/// Converts `stat` to NFS attributes.
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
