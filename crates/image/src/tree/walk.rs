//! Walks through a tree in an order that does not depend on the file system.

use super::Id;
use crate::error::{Doing, ImportError, Result, show_name};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::Errno,
};
use std::{
    cmp::Ordering,
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Visits every entry of a tree: a directory before its content, and the names of each directory in the order of their bytes. Two
/// descriptors suffice for any depth. The first entry is the tree itself, with an empty path.
#[derive(Debug)]
pub(crate) struct Walk {
    dir: OwnedFd,
    /// The directories on the way down, each with the names that are still to come, the next one last.
    above: Vec<Level>,
    here: Level,
    /// Path of the current entry.
    path: Vec<u8>,
    /// The current entry, if it is a directory that will be entered next.
    enter: Option<CString>,
    begun: bool,
}

#[derive(Debug)]
struct Level {
    id: Id,
    names: Vec<CString>,
    path_len: usize,
}

/// An entry of the tree.
#[derive(Debug)]
pub(crate) struct Entry<'w> {
    /// Its path relative to the tree; empty for the tree itself.
    pub path: &'w [u8],
    /// The directory that contains it. Its name there is `.` for the tree itself.
    pub dir: BorrowedFd<'w>,
    /// Its name in `dir`.
    pub name: CString,
    /// Its status.
    pub stat: Stat,
}

impl Entry<'_> {
    /// Its type.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Opens the entry, which is a regular file.
    pub fn open(&self) -> Result<std::fs::File> {
        // NONBLOCK: if a fifo has replaced it meanwhile, this does not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = openat(self.dir, &self.name, flags, Mode::empty()).doing(|| reading(self.path))?;
        Ok(fd.into())
    }
}

/// The operation of reading `path`, for messages.
pub(crate) fn reading(path: &[u8]) -> String {
    format!("reading /{}", show_name(path))
}

/// The order in which a walk visits two paths. No name contains `/`, so it can stand for the lowest byte.
pub(crate) fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Names in a directory, in reverse order.
fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push(entry.file_name().to_owned());
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

impl Walk {
    /// Starts at the directory `root`.
    pub fn new(root: BorrowedFd<'_>) -> Result<Self> {
        let doing = || "opening the tree";
        let dir = open_dir(root, c".").doing(doing)?;
        let id = Id::of(&fstat(&dir).doing(doing)?);
        Ok(Walk {
            here: Level {
                id,
                names: names(dir.as_fd()).doing(doing)?,
                path_len: 0,
            },
            dir,
            above: Vec::new(),
            path: Vec::new(),
            enter: None,
            begun: false,
        })
    }

    /// The next entry; none at the end.
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        if !self.begun {
            self.begun = true;
            let stat = fstat(&self.dir).doing(|| "opening the tree")?;
            return Ok(Some(self.entry(c".".to_owned(), stat)));
        }
        if let Some(name) = self.enter.take() {
            let doing = || reading(&self.path);
            let inner = open_dir(self.dir.as_fd(), &name).doing(doing)?;
            let level = Level {
                id: Id::of(&fstat(&inner).doing(doing)?),
                names: names(inner.as_fd()).doing(doing)?,
                path_len: self.path.len(),
            };
            self.above.push(std::mem::replace(&mut self.here, level));
            self.dir = inner;
        }
        loop {
            self.path.truncate(self.here.path_len);
            let Some(name) = self.here.names.pop() else {
                let Some(up) = self.above.pop() else { return Ok(None) };
                let doing = || format!("going up from /{}", show_name(&self.path));
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = openat(&self.dir, c"..", flags, Mode::empty()).doing(doing)?;
                if Id::of(&fstat(&dir).doing(doing)?) != up.id {
                    return Err(changing(&self.path));
                }
                (self.dir, self.here) = (dir, up);
                continue;
            };
            if self.here.path_len > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            let stat = match statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Err(changing(&self.path)),
                Err(e) => return Err(e).doing(|| reading(&self.path)),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.enter = Some(name.clone());
            }
            return Ok(Some(self.entry(name, stat)));
        }
    }

    fn entry(&self, name: CString, stat: Stat) -> Entry<'_> {
        Entry {
            path: &self.path,
            dir: self.dir.as_fd(),
            name,
            stat,
        }
    }
}

/// The error for a tree that changes while it is read.
pub(crate) fn changing(path: &[u8]) -> ImportError {
    ImportError::Request(format!(
        "/{} changed while the tree was read; try again when no process writes to it",
        show_name(path)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::nasty;

    #[test]
    fn every_entry_is_visited_in_order() {
        let dir = tempfile::tempdir().unwrap();
        nasty::make(dir.path(), true);
        let root = std::fs::File::open(dir.path()).unwrap();
        let mut walk = Walk::new(root.as_fd()).unwrap();
        let mut paths = Vec::new();
        while let Some(entry) = walk.next().unwrap() {
            paths.push(entry.path.to_vec());
        }
        assert!(paths.is_sorted_by(|a, b| walk_order(a, b) == Ordering::Less));
        // `nasty` adds a slash to each path except the first one.
        let mut seen: Vec<Vec<u8>> = nasty::look(dir.path()).into_keys().collect();
        seen.iter_mut().for_each(|path| drop(path.drain(..path.len().min(1))));
        seen.sort_by(|a, b| walk_order(a, b));
        assert!(paths == seen, "{} of {}", paths.len(), seen.len());
    }

    #[test]
    fn a_directory_comes_before_its_content_and_that_before_longer_names() {
        for (before, after) in [("a", "a/b"), ("a/b", "a.b"), ("a/z", "a-"), ("", "a"), ("a", "b")] {
            assert_eq!(
                walk_order(before.as_bytes(), after.as_bytes()),
                Ordering::Less,
                "{before} {after}"
            );
        }
    }
}
