//! Finding places in a tree that is being made, without leaving it and without a limit on the length of paths.

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Result,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What tells one file from another: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    dev: u64,
    ino: u64,
}

impl Id {
    /// Of a file's status.
    pub fn of(stat: &rustix::fs::Stat) -> Self {
        Id {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// A path of the kernel holds at most 4,095 bytes (PATH_MAX); longer ones are walked in pieces.
const PIECE: usize = 3072;

/// Opens the directory that holds `path`, which is relative, non-empty, and without `.` and `..`. Links on the way are
/// followed as long as they stay beneath `root`. The second part is the last name of the path.
pub(crate) fn open_parent<'p>(root: BorrowedFd<'_>, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8])> {
    let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    Ok((open_dir(root, parent)?, name))
}

/// Opens the directory `path`, as [`open_parent`] does; an empty one is `root` itself.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let mut dir = open_piece(root, b".")?;
    let mut rest = path;
    while !rest.is_empty() {
        let cut = if rest.len() <= PIECE {
            rest.len()
        } else {
            // A single name longer than a piece cannot exist (NAME_MAX is 255): the kernel says so.
            rest[..PIECE].iter().rposition(|b| *b == b'/').unwrap_or(rest.len())
        };
        dir = open_piece(dir.as_fd(), &rest[..cut])?;
        rest = rest.get(cut + 1..).unwrap_or_default();
    }
    Ok(dir)
}

/// Opens the directory `path` of a container's root. Links on the way are followed as the container would follow them:
/// absolute ones begin at `root`, and `..` of `root` is itself.
pub(crate) fn open_dir_as_root(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    // In pieces the kernel would take each piece's beginning for the root. Such long paths do without absolute links.
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
