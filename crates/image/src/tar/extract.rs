//! Extracts entries into a tree, and never outside of it.

use super::{
    layers::Layer,
    reader::{Entry, Kind, Reader},
    stream,
};
use crate::{
    error::{Doing, ImportError, Result, show_name},
    progress::{Progress, Step},
    tree::{Copied, Meta, Remarks, SpaceGuard, Target, open_dir, open_dir_as_root, remove_tree, write_extents},
};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, fstat, ftruncate, linkat, makedev, mkdirat, mknodat, openat, statat,
        symlinkat, unlinkat,
    },
    io::Errno,
};
use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
};

/// Most bytes of names and extended attributes of all directories together: enough for some millions of directories.
const MOST_KEPT: usize = 256 << 20;
/// Attributes of directories that a layer needs but has no entry for. They are constant, so that every import gives the same tree.
pub(super) const DEFAULT_META: Meta = Meta {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: (0, 0),
    xattrs: Vec::new(),
};

pub(super) struct Extractor<'a> {
    pub(super) root: BorrowedFd<'a>,
    space: &'a mut SpaceGuard,
    pub(super) remarks: &'a mut Remarks,
    /// The state of the layer that is being extracted; none if the archive is not a layer.
    pub(super) layer: Option<Layer>,
    /// Attributes of directories, set at the end because files that are made in a directory change its times. For layers with the
    /// directory's inode, because a later layer can make another directory of that name.
    pub(super) dirs: BTreeMap<Vec<u8>, (Option<u64>, Meta)>,
    /// Bytes of names and extended attributes in `dirs`, rounded up.
    kept: usize,
    /// The directory of the last entry; the next entry usually has the same one.
    pub(super) parent: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
    copied: Copied,
}

/// Extracts `file` into the empty directory `root`.
pub(crate) fn extract(
    file: File,
    root: BorrowedFd<'_>,
    space: &mut SpaceGuard,
    remarks: &mut Remarks,
    progress: &mut dyn Progress,
) -> Result<Copied> {
    let stream = stream::open(file)?;
    progress.begin(Step::Copy, Some(stream.len));
    let mut reader = Reader::new(stream.bytes);
    let mut extractor = Extractor::new(root, space, remarks);
    let mut shown = 0;
    let (mut acls, mut flags) = (0, 0);
    while let Some(entry) = reader.next()? {
        acls += u64::from(entry.text_acl);
        flags += u64::from(entry.has_flags);
        let made = extractor.entry(&entry, &mut reader);
        made.map_err(|e| about(&entry, e))?;
        let position = stream.position.load(Ordering::Relaxed);
        progress.advance(1, position - shown);
        shown = position;
    }
    extractor.report_lost_acls(acls);
    extractor.report_lost_flags(flags);
    extractor.finish_dirs()?;
    Ok(extractor.copied)
}

/// Adds the entry to errors of system calls that the archive causes; a full disk is not one.
pub(super) fn about(entry: &Entry, error: ImportError) -> ImportError {
    match error {
        ImportError::Io { ref source, .. } if !error.is_full() => ImportError::Archive {
            entry: show_name(&entry.path),
            why: source.to_string(),
        },
        other => other,
    }
}

/// The path of an entry without `.`. Refuses paths that lead out of the tree.
pub(super) fn clean(path: &[u8], what: &str) -> std::result::Result<Vec<u8>, String> {
    if path.starts_with(b"/") {
        return Err(format!(
            "its {what} is absolute; make the archive with `tar -C ROOT -c .`"
        ));
    }
    if path.contains(&0) {
        return Err(format!("its {what} contains NUL"));
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(format!("its {what} '{}' leads out of the tree", show_name(path))),
            // NAME_MAX
            long if long.len() > 255 => return Err(format!("its {what} has a part of {} bytes", long.len())),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

impl<'a> Extractor<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, space: &'a mut SpaceGuard, remarks: &'a mut Remarks) -> Self {
        Extractor {
            root,
            space,
            remarks,
            layer: None,
            dirs: BTreeMap::new(),
            kept: 0,
            parent: None,
            buffer: vec![0; 1 << 18],
            copied: Copied::default(),
        }
    }

    pub(super) fn report_lost_acls(&mut self, files: u64) {
        if files > 0 {
            self.remarks.remark(format!(
                "access control lists of {files} files were left out: the archive holds them as text; \
                 import the directory itself to keep them"
            ));
        }
    }

    pub(super) fn report_lost_flags(&mut self, files: u64) {
        if files > 0 {
            self.remarks.remark(format!(
                "BSD file flags (such as schg) of {files} files were left out: neither this machine nor NFS has them, and the root of a \
                 node is read-only anyway"
            ));
        }
    }

    /// The path of an entry or of a link's target, cleaned.
    pub(super) fn clean(&self, path: &[u8], what: &str) -> std::result::Result<Vec<u8>, String> {
        match &self.layer {
            // Some builders write a leading slash, which means the container's own root.
            Some(_) => clean(&path[path.iter().take_while(|b| **b == b'/').count()..], what),
            None => clean(path, what),
        }
    }

    /// Opens the directory `path` of the tree.
    pub(super) fn open_dir(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        match &self.layer {
            Some(_) => open_dir_as_root(self.root, path),
            None => open_dir(self.root, path),
        }
    }

    pub(super) fn open_parent<'p>(&self, path: &'p [u8]) -> rustix::io::Result<(OwnedFd, &'p [u8])> {
        let (parent, name) = split(path);
        Ok((self.open_dir(parent)?, name))
    }

    pub(super) fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let refuse = |why: String| ImportError::Archive {
            entry: show_name(&entry.path),
            why,
        };
        let path = self.clean(&entry.path, "name").map_err(refuse)?;
        if path.is_empty() {
            if matches!(entry.kind, Kind::Node(FileType::Directory, ..)) {
                return self.defer_attributes(path, &entry.meta);
            }
            return Err(refuse("has no name".to_owned()));
        }
        self.space.made_entry()?;
        self.copied.files += 1;
        let doing = || format!("extracting {}", show_name(&entry.path));
        let (parent_path, name) = split(&path);
        let parent = self.parent(parent_path, entry)?;
        let name = CString::new(name).map_err(std::io::Error::from).doing(doing)?;
        let dir = parent.as_fd();
        match entry.kind {
            Kind::HardLink => {
                let target = self.clean(&entry.link, "link").map_err(refuse)?;
                let (target_dir, target_name) = self.open_parent(&target).map_err(|e| {
                    refuse(format!(
                        "is a link to {}, which cannot be reached: {e}",
                        show_name(&entry.link)
                    ))
                })?;
                let link = || linkat(&target_dir, target_name, dir, &name, AtFlags::empty());
                match self.replacing(dir, &name, &path, entry, link)? {
                    Err(Errno::NOENT) => {
                        return Err(refuse(format!(
                            "is a link to {}, which is not in the archive before it",
                            show_name(&entry.link)
                        )));
                    }
                    other => other.doing(doing)?,
                }
            }
            Kind::Node(FileType::Directory, ..) => {
                match mkdirat(dir, &name, Mode::from_raw_mode(0o700)) {
                    Err(Errno::EXIST) if is_dir(dir, &name) => self.copied.files -= 1,
                    Err(Errno::EXIST) => {
                        let make = || mkdirat(dir, &name, Mode::from_raw_mode(0o700));
                        self.replacing(dir, &name, &path, entry, make)?.doing(doing)?;
                    }
                    other => other.doing(doing)?,
                }
                self.defer_attributes(path.clone(), &entry.meta)?;
            }
            Kind::Node(FileType::RegularFile, ..) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let make = || openat(dir, &name, flags, Mode::from_raw_mode(0o600));
                let file = self.replacing(dir, &name, &path, entry, make)?.doing(doing)?;
                self.content(entry, reader, file.as_fd())?;
                entry
                    .meta
                    .apply(Target::Fd(file.as_fd()), FileType::RegularFile, &path, self.remarks)?;
            }
            Kind::Node(kind, major, minor) => {
                if kind == FileType::Symlink && (entry.link.is_empty() || entry.link.contains(&0)) {
                    return Err(refuse("is a symbolic link to nothing".to_owned()));
                }
                let make = || match kind {
                    FileType::Symlink => symlinkat(entry.link.as_slice(), dir, &name),
                    _ => mknodat(dir, &name, kind, Mode::from_raw_mode(0o600), makedev(major, minor)),
                };
                self.replacing(dir, &name, &path, entry, make)?.doing(doing)?;
                entry.meta.apply(Target::Name(dir, &name), kind, &path, self.remarks)?;
            }
        }
        if let Some(layer) = &mut self.layer {
            layer.made(dir, name.as_bytes()).doing(doing)?;
        }
        self.parent = Some((parent_path.to_vec(), parent));
        Ok(())
    }

    /// Makes a file. An existing one of that name is removed first, because the later entry of an archive wins.
    fn replacing<T>(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CString,
        path: &[u8],
        entry: &Entry,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<rustix::io::Result<T>> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return Ok(other),
        }
        let removed = if self.layer.is_some() && is_dir(dir, name) {
            // Everything below that name in lower layers is hidden.
            self.forget(path);
            remove_tree(dir, name)
        } else if is_dir(dir, name) {
            self.dirs.remove(path);
            unlinkat(dir, name, AtFlags::REMOVEDIR)
        } else {
            unlinkat(dir, name, AtFlags::empty())
        };
        if removed == Err(Errno::NOTEMPTY) {
            return Err(ImportError::Archive {
                entry: show_name(&entry.path),
                why: "would replace a directory that is not empty".to_owned(),
            });
        }
        removed.doing(|| format!("replacing {}", show_name(path)))?;
        self.copied.files = self.copied.files.saturating_sub(1);
        Ok(make())
    }

    /// Opens the directory `path`, and creates it if it is missing.
    fn parent(&mut self, path: &[u8], entry: &Entry) -> Result<OwnedFd> {
        if let Some((cached, fd)) = self.parent.take()
            && cached == path
        {
            return Ok(fd);
        }
        let refuse = |path: &[u8], e: Errno| ImportError::Archive {
            entry: show_name(&entry.path),
            why: match e {
                // RESOLVE_BENEATH
                Errno::XDEV => format!("{} is a link that leads out of the tree", show_name(path)),
                Errno::NOTDIR => format!("{} is not a directory", show_name(path)),
                e => format!("{} cannot be opened: {e}", show_name(path)),
            },
        };
        match self.open_dir(path) {
            Err(Errno::NOENT) => {}
            other => {
                let dir = other.map_err(|e| refuse(path, e))?;
                self.touch(path)?;
                return Ok(dir);
            }
        }
        let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        for end in ends {
            let part = &path[..end];
            match self.open_dir(part) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(refuse(part, e)),
            }
            let (above, name) = self.open_parent(part).map_err(|e| refuse(part, e))?;
            mkdirat(&above, name, Mode::from_raw_mode(0o755)).map_err(|e| refuse(part, e))?;
            self.space.made_entry()?;
            self.copied.files += 1;
            if self.layer.is_some() {
                self.defer_attributes(part.to_vec(), &DEFAULT_META)?;
            }
        }
        let dir = self.open_dir(path).map_err(|e| refuse(path, e))?;
        self.touch(path)?;
        Ok(dir)
    }

    fn content<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>, file: BorrowedFd<'_>) -> Result<()> {
        let doing = || format!("extracting {}", show_name(&entry.path));
        for (offset, len) in &entry.data.segments {
            let mut done = 0;
            while done < *len {
                let want = self.buffer.len().min((len - done).try_into().unwrap_or(usize::MAX));
                let got = reader.data(&mut self.buffer[..want])?;
                if got == 0 {
                    return Err(ImportError::Archive {
                        entry: show_name(&entry.path),
                        why: "has less data than its header says".to_owned(),
                    });
                }
                write_extents(file, &self.buffer[..got], offset + done).doing(doing)?;
                done += got as u64;
                self.space.wrote(got as u64)?;
            }
        }
        self.copied.bytes += entry.data.size;
        ftruncate(file, entry.data.size).doing(doing)
    }

    /// Stores a directory's attributes until the end.
    pub(super) fn defer_attributes(&mut self, path: Vec<u8>, meta: &Meta) -> Result<()> {
        let doing = || format!("looking at {}", show_name(&path));
        let inode = match &self.layer {
            Some(_) => Some(fstat(self.open_dir(&path).doing(doing)?).doing(doing)?.st_ino),
            None => None,
        };
        let bytes = |meta: &Meta| path.len() + meta.xattrs.iter().map(|(_, value)| value.len() + 64).sum::<usize>();
        self.kept += bytes(meta);
        // All are in memory until the end, and a compressed archive can hold any number of them.
        if self.kept > MOST_KEPT {
            return Err(ImportError::Archive {
                entry: show_name(&path),
                why: format!(
                    "the names and extended attributes of its directories have more than {MOST_KEPT} bytes together"
                ),
            });
        }
        if let Some((_, before)) = self.dirs.get(&path) {
            self.kept -= bytes(before);
        }
        self.dirs.insert(path, (inode, meta.clone()));
        Ok(())
    }

    /// Sets the attributes of directories.
    pub(super) fn finish_dirs(&mut self) -> Result<()> {
        for (path, (inode, meta)) in std::mem::take(&mut self.dirs).iter().rev() {
            let doing = || format!("setting the attributes of {}", show_name(path));
            let dir = match self.open_dir(path) {
                // Its name led through a link that a later layer replaced.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if inode.is_some() => continue,
                other => other.doing(doing)?,
            };
            if inode.is_none_or(|inode| fstat(&dir).is_ok_and(|stat| stat.st_ino == inode)) {
                meta.apply(Target::Fd(dir.as_fd()), FileType::Directory, path, self.remarks)?;
            }
        }
        Ok(())
    }
}

/// Splits a path into its directory and its last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let cut = path.iter().rposition(|b| *b == b'/');
    cut.map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..]))
}

pub(super) fn is_dir(dir: BorrowedFd<'_>, name: &CStr) -> bool {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}
