//! Opens paths in a tree that is being made, without leaving it and without a limit on their length.

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Result,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The identity of a file: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    dev: u64,
    ino: u64,
}

impl Id {
    /// The identity in a file's status.
    pub fn of(stat: &rustix::fs::Stat) -> Self {
        Id {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// How many names the file has besides one. The kernel's field has 64 bits on x86-64, and 32 on arm64.
pub(crate) fn other_names(stat: &rustix::fs::Stat) -> usize {
    usize::try_from(stat.st_nlink).unwrap_or(usize::MAX).saturating_sub(1)
}

/// A path for the kernel has at most 4,095 bytes (PATH_MAX); longer ones are opened in pieces.
const PIECE: usize = 3072;

/// Opens the directory that holds `path`, which is relative, not empty, and without `.` and `..`. Links on the way are followed if they
/// stay below `root`. Also returns the last name of the path.
pub(crate) fn open_parent<'p>(root: BorrowedFd<'_>, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8])> {
    let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    Ok((open_dir(root, parent)?, name))
}

/// Opens the directory `path` like [`open_parent`]; an empty path is `root` itself.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let mut dir = open_piece(root, b".")?;
    let mut rest = path;
    while !rest.is_empty() {
        let cut = if rest.len() <= PIECE {
            rest.len()
        } else {
            // A single name longer than a piece cannot exist (NAME_MAX is 255); the kernel then returns an error.
            rest[..PIECE].iter().rposition(|b| *b == b'/').unwrap_or(rest.len())
        };
        dir = open_piece(dir.as_fd(), &rest[..cut])?;
        rest = rest.get(cut + 1..).unwrap_or_default();
    }
    Ok(dir)
}

/// Opens the directory `path` of a container's root. Links on the way are followed as in the container: absolute ones start at
/// `root`, and `..` of `root` is `root`.
pub(crate) fn open_dir_as_root(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    // For each piece, the kernel would take the piece's first directory for the root. So long paths cannot contain absolute links.
    if path.is_empty() || path.len() > PIECE {
        return open_dir(root, path);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(
        root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

fn open_piece(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(
        dir,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}
