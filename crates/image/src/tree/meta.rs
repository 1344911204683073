//! Reads and writes owner, mode, times and extended attributes of a file.

use crate::error::{Doing, ImportError, Result, show_name};
use rustix::{
    fs::{
        self as rfs, AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat,
        chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens, lgetxattr, llistxattr, lsetxattr,
        utimensat,
    },
    io::Errno,
};
use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

/// Longest list of names and longest value on Linux (XATTR_LIST_MAX, XATTR_SIZE_MAX in linux/limits.h).
const XATTR_MAX: usize = 65536;

/// The attributes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permissions with suid, sgid and sticky bits: 0 to 0o7777.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Id of the group.
    pub gid: u32,
    /// Time of the last change of content, seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Extended attributes.
    pub xattrs: Vec<(CString, Vec<u8>)>,
}

/// A file, open or by its name in a directory (for files that must not be opened: links, devices, fifos).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// An open file.
    Fd(BorrowedFd<'a>),
    /// A file by name; a link is not followed.
    Name(BorrowedFd<'a>, &'a CStr),
}

/// Attributes that could not be kept, counted by name.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    lost_xattrs: BTreeMap<String, (u64, String)>,
    /// Other remarks, up to a limit.
    pub remarks: Vec<String>,
}

impl Remarks {
    /// Adds a remark, up to the limit.
    pub fn remark(&mut self, text: String) {
        const MOST: usize = 50;
        if self.remarks.len() < MOST {
            self.remarks.push(text);
        } else if self.remarks.len() == MOST {
            self.remarks.push("more remarks of that kind left out".to_owned());
        }
    }

    /// All remarks as lines.
    pub fn into_lines(self) -> Vec<String> {
        let lost = self.lost_xattrs.into_iter().map(|(name, (count, first))| {
            format!("the file system of the images does not keep {name}: left out on {count} files, first {first}")
        });
        lost.chain(self.remarks).collect()
    }
}

/// Attributes that depend on the system that made the tree, and that a node does not need. All other attributes are kept, or the
/// import fails.
pub(crate) fn may_be_lost(name: &CStr) -> bool {
    let name = name.to_bytes();
    matches!(
        name,
        b"security.selinux" | b"security.ima" | b"security.evm" | b"security.SMACK64"
    ) || name.starts_with(b"system.") && !name.starts_with(b"system.posix_acl_")
        || name.starts_with(b"btrfs.")
}

impl Target<'_> {
    /// Before Linux 6.13, no call for extended attributes takes a directory and a name.
    fn proc_path(dir: BorrowedFd<'_>, name: &CStr) -> PathBuf {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
        path
    }

    /// All extended attributes.
    pub fn xattrs(self) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
        // Nearly every file has none, so a small buffer is tried first.
        let mut names = vec![0; 256];
        let len = loop {
            let got = match self {
                Target::Fd(fd) => flistxattr(fd, names.as_mut_slice()),
                Target::Name(dir, name) => llistxattr(Self::proc_path(dir, name), names.as_mut_slice()),
            };
            match got {
                Err(Errno::RANGE) if names.len() < XATTR_MAX => names.resize(XATTR_MAX, 0),
                Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
                other => break other?,
            }
        };
        let mut found = Vec::new();
        for name in names[..len].split_inclusive(|b| *b == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            let mut value = vec![0; XATTR_MAX];
            let got = match self {
                Target::Fd(fd) => fgetxattr(fd, name, value.as_mut_slice()),
                Target::Name(dir, file) => lgetxattr(Self::proc_path(dir, file), name, value.as_mut_slice()),
            };
            match got {
                Ok(len) => {
                    value.truncate(len);
                    value.shrink_to_fit();
                    found.push((name.to_owned(), value));
                }
                // It was removed after it was listed.
                Err(Errno::NODATA) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }
}

impl Meta {
    /// Reads the attributes of `target`, which has the status `stat`.
    pub fn read(target: Target<'_>, stat: &Stat) -> rustix::io::Result<Self> {
        Ok(Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            xattrs: target.xattrs()?,
        })
    }

    /// Writes the attributes to `target`, a file of that kind. `path` is for messages.
    pub fn apply(&self, target: Target<'_>, kind: FileType, path: &[u8], remarks: &mut Remarks) -> Result<()> {
        // The order matters: a change of the owner clears suid bits and capabilities, and every change changes times.
        let doing = |what: &str| format!("setting {what} of {} in the image", show_name(path));
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        if self.uid == u32::MAX || self.gid == u32::MAX {
            return Err(ImportError::Request(format!("{} has no valid owner", show_name(path))));
        }
        match target {
            Target::Fd(fd) => fchown(fd, Some(uid), Some(gid)),
            Target::Name(dir, name) => chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW),
        }
        .doing(|| doing("the owner"))?;
        for (name, value) in &self.xattrs {
            let set = match target {
                Target::Fd(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
                Target::Name(dir, file) => lsetxattr(Target::proc_path(dir, file), name, value, XattrFlags::empty()),
            };
            match set {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) if may_be_lost(name) => {
                    let lost = remarks.lost_xattrs.entry(name.to_string_lossy().into_owned());
                    lost.or_insert_with(|| (0, show_name(path))).0 += 1;
                }
                Err(e) => return Err(e).doing(|| doing(&format!("the attribute {}", show_name(name.to_bytes())))),
            }
        }
        let mode = Mode::from_raw_mode(self.mode & 0o7777);
        match target {
            Target::Fd(fd) => fchmod(fd, mode).doing(|| doing("the mode"))?,
            // Links have no mode of their own.
            Target::Name(..) if kind == FileType::Symlink => {}
            Target::Name(dir, name) => chmodat(dir, name, mode, AtFlags::empty()).doing(|| doing("the mode"))?,
        }
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: self.mtime.0,
                tv_nsec: self.mtime.1,
            },
        };
        match target {
            Target::Fd(fd) => futimens(fd, &times),
            Target::Name(dir, name) => utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
        .doing(|| doing("the times"))
    }
}

/// Makes a device, fifo or socket.
pub(crate) fn make_node(dir: BorrowedFd<'_>, name: &CStr, kind: FileType, device: rfs::Dev) -> rustix::io::Result<()> {
    rfs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
}
