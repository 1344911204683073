//! Extracting entries into a tree, never outside of it.

use super::{
    reader::{Entry, Kind, Reader},
    stream,
};
use crate::image::{
    error::{Doing, ImportError, Result, show_name},
    progress::{Progress, Step},
    tree::{Copied, Meta, Notes, SpaceGuard, Target, open_dir, open_parent, write_extents},
};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ftruncate, linkat, makedev, mkdirat, mknodat, openat, statat, symlinkat,
        unlinkat,
    },
    io::Errno,
};
use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
};

struct Extractor<'a> {
    root: BorrowedFd<'a>,
    space: &'a mut SpaceGuard,
    notes: &'a mut Notes,
    /// Attributes of directories, set at the end: what is made in them changes their times.
    dirs: BTreeMap<Vec<u8>, Meta>,
    /// The directory of the last entry: most of the time the next one's too.
    parent: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
    copied: Copied,
}

/// Extracts `file` into the empty directory `root`.
pub(crate) fn extract(
    file: File,
    root: BorrowedFd<'_>,
    space: &mut SpaceGuard,
    notes: &mut Notes,
    progress: &mut dyn Progress,
) -> Result<Copied> {
    let stream = stream::open(file)?;
    progress.begin(Step::Copy, Some(stream.len));
    let mut reader = Reader::new(stream.bytes);
    let mut extractor = Extractor {
        root,
        space,
        notes,
        dirs: BTreeMap::new(),
        parent: None,
        buffer: vec![0; 1 << 18],
        copied: Copied::default(),
    };
    let mut shown = 0;
    let mut acls = 0;
    while let Some(entry) = reader.next()? {
        acls += u64::from(entry.text_acl);
        let made = extractor.entry(&entry, &mut reader);
        made.map_err(|e| about(&entry, e))?;
        let position = stream.position.load(Ordering::Relaxed);
        progress.advance(1, position - shown);
        shown = position;
    }
    if acls > 0 {
        extractor.notes.remark(format!(
            "access control lists of {acls} files were left out: the archive holds them as text; \
             import the directory itself to keep them"
        ));
    }
    extractor.finish()
}

/// Names the entry in errors of system calls that are the archive's fault; a full disk is not.
fn about(entry: &Entry, error: ImportError) -> ImportError {
    match error {
        ImportError::Io { ref source, .. } if !error.is_full() => ImportError::Archive {
            entry: show_name(&entry.path),
            why: source.to_string(),
        },
        other => other,
    }
}

/// The path of an entry without `.`; refuses what leads out of the tree.
fn clean(path: &[u8], what: &str) -> std::result::Result<Vec<u8>, String> {
    if path.starts_with(b"/") {
        return Err(format!(
            "its {what} is absolute; make the archive with `tar -C ROOT -c .`"
        ));
    }
    if path.contains(&0) {
        return Err(format!("its {what} holds NUL"));
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

impl Extractor<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let refuse = |why: String| ImportError::Archive {
            entry: show_name(&entry.path),
            why,
        };
        let path = clean(&entry.path, "name").map_err(refuse)?;
        if path.is_empty() {
            if matches!(entry.kind, Kind::Node(FileType::Directory, ..)) {
                self.dirs.insert(path, entry.meta.clone());
                return Ok(());
            }
            return Err(refuse("has no name".to_owned()));
        }
        self.space.made_entry()?;
        self.copied.files += 1;
        let doing = || format!("extracting {}", show_name(&entry.path));
        let cut = path.iter().rposition(|b| *b == b'/');
        let (parent_path, name) = cut.map_or((&path[..0], &path[..]), |at| (&path[..at], &path[at + 1..]));
        let parent = self.parent(parent_path, entry)?;
        let name = CString::new(name).map_err(std::io::Error::from).doing(doing)?;
        let dir = parent.as_fd();
        match entry.kind {
            Kind::HardLink => {
                let target = clean(&entry.link, "link").map_err(refuse)?;
                let (target_dir, target_name) = open_parent(self.root, &target).map_err(|e| {
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
                self.dirs.insert(path, entry.meta.clone());
            }
            Kind::Node(FileType::RegularFile, ..) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let make = || openat(dir, &name, flags, Mode::from_raw_mode(0o600));
                let file = self.replacing(dir, &name, &path, entry, make)?.doing(doing)?;
                self.content(entry, reader, file.as_fd())?;
                entry
                    .meta
                    .apply(Target::Fd(file.as_fd()), FileType::RegularFile, &path, self.notes)?;
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
                entry.meta.apply(Target::Name(dir, &name), kind, &path, self.notes)?;
            }
        }
        self.parent = Some((parent_path_of(&entry.path), parent));
        Ok(())
    }

    /// Makes a file; what is there already under that name goes first, as a later entry of an archive wins.
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
        let removed = if is_dir(dir, name) {
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

    /// Opens the directory `path`, made if it is missing.
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
                Errno::NOTDIR => format!("{} is no directory", show_name(path)),
                e => format!("{} cannot be opened: {e}", show_name(path)),
            },
        };
        match open_dir(self.root, path) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|e| refuse(path, e)),
        }
        let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        for end in ends {
            let part = &path[..end];
            match open_dir(self.root, part) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(refuse(part, e)),
            }
            let (above, name) = open_parent(self.root, part).map_err(|e| refuse(part, e))?;
            mkdirat(&above, name, Mode::from_raw_mode(0o755)).map_err(|e| refuse(part, e))?;
            self.space.made_entry()?;
            self.copied.files += 1;
        }
        open_dir(self.root, path).map_err(|e| refuse(path, e))
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
                        why: "has less data than it says".to_owned(),
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

    fn finish(self) -> Result<Copied> {
        for (path, meta) in self.dirs.iter().rev() {
            let doing = || format!("setting the attributes of {}", show_name(path));
            let dir = open_dir(self.root, path).doing(doing)?;
            meta.apply(Target::Fd(dir.as_fd()), FileType::Directory, path, self.notes)?;
        }
        Ok(self.copied)
    }
}

fn parent_path_of(path: &[u8]) -> Vec<u8> {
    let path = clean(path, "name").unwrap_or_default();
    let cut = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    path[..cut].to_vec()
}

fn is_dir(dir: BorrowedFd<'_>, name: &CString) -> bool {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}
