//! Copies a directory with everything in it.

use super::{DataCopier, Id, Meta, Remarks, SpaceGuard, Target, meta::make_node, open_parent, other_names};
use crate::{
    error::{Doing, ImportError, Result, show_name},
    progress::Progress,
};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, linkat, mkdirat, openat, openat2, readlinkat,
        statat, symlinkat,
    },
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Directories that are open at a time, of those between the root and the current one. The others are reopened by `..`, so that a
/// tree may be deeper than a process may have open files.
const KEPT_OPEN: usize = 64;

/// The amount that was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Files of any kind, without the tree's own directory.
    pub files: u64,
    /// Bytes of regular files, hard links counted once.
    pub bytes: u64,
}

struct Frame {
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    from_id: Id,
    to_id: Id,
    meta: Meta,
    entries: std::vec::IntoIter<CString>,
    path_len: usize,
}

struct Copier<'a> {
    root: BorrowedFd<'a>,
    skip: Option<Id>,
    space: &'a mut SpaceGuard,
    remarks: &'a mut Remarks,
    progress: &'a mut dyn Progress,
    data: DataCopier,
    /// The first path of a file with several names, and the number of names that are still to come.
    links: HashMap<Id, (Vec<u8>, usize)>,
    copied: Copied,
    path: Vec<u8>,
}

/// Copies the content of `from` into the empty directory `to`, and the attributes of `from` itself.
///
/// Other mounts below `from` are not entered: the copy has an empty directory or file there. The directory `skip` is not entered
/// either: it holds the images themselves, if the `/` of a running system is imported.
pub(crate) fn copy_tree(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    skip: Option<Id>,
    space: &mut SpaceGuard,
    remarks: &mut Remarks,
    progress: &mut dyn Progress,
) -> Result<Copied> {
    let mut copier = Copier {
        root: to,
        skip,
        space,
        remarks,
        progress,
        data: DataCopier::default(),
        links: HashMap::new(),
        copied: Copied::default(),
        path: Vec::new(),
    };
    let doing = || "opening the tree";
    let mut stack = vec![copier.frame(
        from.try_clone_to_owned().doing(doing)?,
        to.try_clone_to_owned().doing(doing)?,
    )?];
    while let Some(top) = stack.last_mut() {
        if let Some(name) = top.entries.next() {
            copier.path.truncate(top.path_len);
            if top.path_len > 0 {
                copier.path.push(b'/');
            }
            copier.path.extend_from_slice(name.to_bytes());
            let (Some(from), Some(to)) = (&top.from, &top.to) else {
                unreachable!("the current directory is open");
            };
            if let Some(inner) = copier.entry(from.as_fd(), to.as_fd(), &name)? {
                stack.push(inner);
                if let Some(far) = stack.len().checked_sub(KEPT_OPEN + 2) {
                    (stack[far + 1].from, stack[far + 1].to) = (None, None);
                }
            }
            continue;
        }
        let done = stack.pop().expect("the stack is not empty");
        copier.path.truncate(done.path_len);
        copier.finish(done, stack.last_mut())?;
    }
    Ok(copier.copied)
}

/// Counts what [`copy_tree`] would copy, and the bytes that it would allocate.
pub(crate) fn count_tree(from: BorrowedFd<'_>, skip: Option<Id>) -> Result<(Copied, u64)> {
    let mut seen: std::collections::HashSet<Id> = Default::default();
    let mut copied = Copied::default();
    let mut allocated = 0;
    let doing = || "counting the tree";
    let own = fstat(from).doing(doing)?;
    let mut dir = open_dir(from, c".").doing(doing)?;
    let mut above: Vec<(Id, Vec<CString>)> = vec![];
    let mut here = (Id::of(&own), names(dir.as_fd()).doing(doing)?);
    loop {
        let Some(name) = here.1.pop() else {
            let Some(up) = above.pop() else {
                return Ok((copied, allocated));
            };
            dir = openat(
                &dir,
                c"..",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .doing(doing)?;
            if Id::of(&fstat(&dir).doing(doing)?) != up.0 {
                return Err(moved(b"a directory"));
            }
            here = up;
            continue;
        };
        let Ok(stat) = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        copied.files += 1;
        let id = Id::of(&stat);
        if stat.st_nlink == 1 || FileType::from_raw_mode(stat.st_mode) == FileType::Directory || seen.insert(id) {
            allocated += stat.st_blocks as u64 * 512;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                copied.bytes += stat.st_size as u64;
            }
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && Some(id) != skip {
            // Mounts and vanished files are met again, and reported, when the tree is copied.
            if let Ok(inner) = open_dir(dir.as_fd(), &name) {
                let list = names(inner.as_fd()).doing(doing)?;
                above.push(std::mem::replace(&mut here, (id, list)));
                dir = inner;
            }
        }
    }
}

fn moved(path: &[u8]) -> ImportError {
    ImportError::Request(format!(
        "{} was moved while it was copied; import from a tree that no process writes to",
        show_name(path)
    ))
}

/// Opens a directory of the source, but no link and no other mount.
fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(
        dir,
        name,
        flags,
        Mode::empty(),
        ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS,
    )
}

/// Names in a directory, in the order of their inodes, which is the order on disk for most file systems.
fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push((entry.ino(), entry.file_name().to_owned()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

impl Copier<'_> {
    fn frame(&mut self, from: OwnedFd, to: OwnedFd) -> Result<Frame> {
        let path = &self.path;
        let doing = || format!("reading the directory {}", show_name(path));
        let stat = fstat(&from).doing(doing)?;
        Ok(Frame {
            from_id: Id::of(&stat),
            to_id: Id::of(&fstat(&to).doing(doing)?),
            meta: Meta::read(Target::Fd(from.as_fd()), &stat).doing(doing)?,
            entries: names(from.as_fd()).doing(doing)?.into_iter(),
            path_len: path.len(),
            from: Some(from),
            to: Some(to),
        })
    }

    /// Sets a directory's attributes after its content, because new files in it change its times. Reopens its parent if that was closed.
    fn finish(&mut self, done: Frame, parent: Option<&mut Frame>) -> Result<()> {
        let (Some(from), Some(to)) = (&done.from, &done.to) else {
            unreachable!("the current directory is open");
        };
        done.meta
            .apply(Target::Fd(to.as_fd()), FileType::Directory, &self.path, self.remarks)?;
        let Some(parent) = parent else { return Ok(()) };
        for (slot, child, id) in [
            (&mut parent.from, from, parent.from_id),
            (&mut parent.to, to, parent.to_id),
        ] {
            if slot.is_some() {
                continue;
            }
            let doing = || format!("going up from {}", show_name(&self.path));
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let up = openat(child, c"..", flags, Mode::empty()).doing(doing)?;
            if Id::of(&fstat(&up).doing(doing)?) != id {
                return Err(moved(&self.path));
            }
            *slot = Some(up);
        }
        Ok(())
    }

    /// Copies one entry. A directory is created and returned, to be filled next.
    fn entry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<Option<Frame>> {
        let path = self.path.clone();
        let doing = || format!("copying {}", show_name(&path));
        let stat = match statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                self.remarks
                    .remark(format!("{} vanished while the tree was copied", show_name(&path)));
                return Ok(None);
            }
            Err(e) => return Err(e).doing(doing),
        };
        self.copied.files += 1;
        self.progress.advance(1, 0);
        self.space.made_entry()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return self.directory(from, to, name, &stat);
        }
        let several = stat.st_nlink > 1;
        if several && self.link(to, name, Id::of(&stat))? {
            return Ok(None);
        }
        match kind {
            FileType::RegularFile => self.regular(from, to, name)?,
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new()).doing(doing)?;
                symlinkat(&target, to, name).doing(doing)?;
                self.attributes(from, to, name, &stat)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {
                make_node(to, name, kind, stat.st_rdev).doing(doing)?;
                self.attributes(from, to, name, &stat)?;
            }
            _ => {
                return Err(ImportError::Request(format!(
                    "{} is of an unknown kind",
                    show_name(&path)
                )));
            }
        }
        if several {
            self.links.insert(Id::of(&stat), (path, other_names(&stat)));
        }
        Ok(None)
    }

    fn attributes(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
        let meta = Meta::read(Target::Name(from, name), stat)
            .doing(|| format!("reading the attributes of {}", show_name(&self.path)))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        meta.apply(Target::Name(to, name), kind, &self.path, self.remarks)
    }

    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<Option<Frame>> {
        let path = self.path.clone();
        let doing = || format!("copying the directory {}", show_name(&path));
        mkdirat(to, name, Mode::from_raw_mode(0o700)).doing(doing)?;
        let skipped = Some(Id::of(stat)) == self.skip;
        let opened = if skipped {
            Err(Errno::XDEV)
        } else {
            open_dir(from, name)
        };
        match opened {
            Ok(from) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let to = openat(to, name, flags, Mode::empty()).doing(doing)?;
                self.frame(from, to).map(Some)
            }
            Err(Errno::XDEV) => {
                let why = if skipped {
                    "it holds the images themselves"
                } else {
                    "another file system is mounted there"
                };
                self.remarks
                    .remark(format!("/{} is empty in the image: {why}", show_name(&path)));
                let meta = Meta {
                    mode: stat.st_mode & 0o7777,
                    uid: stat.st_uid,
                    gid: stat.st_gid,
                    mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
                    xattrs: Vec::new(),
                };
                meta.apply(Target::Name(to, name), FileType::Directory, &path, self.remarks)?;
                Ok(None)
            }
            Err(e) => Err(e).doing(doing),
        }
    }

    /// Returns true if this file was copied under another name and is now linked.
    fn link(&mut self, to: BorrowedFd<'_>, name: &CStr, id: Id) -> Result<bool> {
        let Some((first, left)) = self.links.get_mut(&id) else {
            return Ok(false);
        };
        *left -= 1;
        let all_made = *left == 0;
        let doing = || format!("linking {} to {}", show_name(&self.path), show_name(first));
        let (dir, first_name) = open_parent(self.root, first).doing(doing)?;
        linkat(&dir, first_name, to, name, AtFlags::empty()).doing(doing)?;
        if all_made {
            self.links.remove(&id);
        }
        Ok(true)
    }

    fn regular(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let path = self.path.clone();
        let doing = || format!("copying {}", show_name(&path));
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = openat(to, name, new, Mode::from_raw_mode(0o600)).doing(doing)?;
        // NONBLOCK: if a fifo has replaced it meanwhile, this does not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let source = match openat2(from, name, flags, Mode::empty(), resolve) {
            Ok(source) => source,
            Err(Errno::XDEV) => {
                self.remarks.remark(format!(
                    "/{} is empty in the image: another file system is mounted there",
                    show_name(&path)
                ));
                return Ok(());
            }
            Err(e) => return Err(e).doing(doing),
        };
        let stat = fstat(&source).doing(doing)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(moved(&path));
        }
        self.data
            .copy(source.as_fd(), &stat, target.as_fd(), &path, self.space, self.progress)?;
        self.copied.bytes += stat.st_size as u64;
        let meta = Meta::read(Target::Fd(source.as_fd()), &stat).doing(doing)?;
        meta.apply(Target::Fd(target.as_fd()), FileType::RegularFile, &path, self.remarks)
    }
}
