//! Updates a kept disk after the image changed: files that came from the image become those of the version that boots, and files
//! that the node made or changed stay.
//!
//! The file system keeps the list ([`ImageList`]) of the version that it was last updated to, in `.rackstrap/image`. So each path has
//! three states: in that list, in the list of the booting version, and on the disk.
//!
//! - If the disk matches the old list, the path becomes what the new list says (made, replaced, removed).
//! - Otherwise the node changed, made or deleted it. It stays, and is reported if the new version has something else there.
//! - A directory is removed only if it is empty.
//!
//! A disk from before lists existed counts as one with an empty old list: missing files are made, and nothing is replaced. The same
//! holds for a disk whose list belongs to another mount point: the layout was edited, and a list of one directory says nothing about
//! another. A list names its mount point as a directory that belongs to it (`o var`), which older agents read and ignore.
//!
//! Power cuts: contents are first copied to `.rackstrap/stage` and flushed. Then the new list is added to the old list on disk, so that
//! from here on the states of both count as the image's. Then the names change, with one rename per file. Last, the new list replaces
//! both. After a cut, the next boot of any version finds every path in a state that one of the lists names, and updates it.

use super::{
    own::{self, Lookup, Own},
    seed,
};
use crate::fail::{Doing, Res};
use rackstrap_wire::image_list::{self, Entry, ImageList, letter};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Most kept paths that are named; the rest is counted.
const NAMED: usize = 5;
/// Nodes change these directories all the time, and naming them would hide the rest.
const UNNAMED: [&str; 3] = ["/var/log/", "/var/cache/", "/var/tmp/"];

/// A copy of one of the image's directories on one file system.
pub struct ImageCopy<'a> {
    /// The directory in the image.
    pub image: &'a Path,
    /// The root of the file system.
    pub target: &'a Path,
    /// Mount point on the node, `/var`.
    pub mount: &'a str,
    /// Mount points of the disk's other file systems.
    pub mounts: &'a [&'a str],
}

/// The path of `mount` below the root, as in lists.
fn below(mount: &str) -> Option<&[u8]> {
    mount.strip_prefix('/').map(str::as_bytes).filter(|m| !m.is_empty())
}

/// `path` relative to the directory `dir`; none if it is not inside.
fn inside<'a>(path: &'a [u8], dir: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(dir)?.strip_prefix(b"/")
}

impl ImageCopy<'_> {
    /// The part of the image's list that belongs to this file system, as text.
    fn wanted(&self, list: &ImageList<'_>) -> Vec<u8> {
        let mut text = Vec::new();
        image_list::begin(&mut text);
        let Some(mount) = below(self.mount) else { return text };
        image_list::add_owned(&mut text, mount);
        for entry in &list.entries {
            let elsewhere = |other: &&str| {
                below(other).is_some_and(|other| inside(other, mount).is_some() && inside(entry.path, other).is_some())
            };
            if let Some(path) = inside(entry.path, mount)
                && !self.mounts.iter().any(elsewhere)
                && !path.starts_with(own::NAME.as_bytes())
            {
                image_list::add_entry(&mut text, &Entry { path, ..*entry });
            }
        }
        text
    }

    /// Records the list of a file system that was just filled, and gives its files their capabilities.
    pub fn record_seed(&self, list: &ImageList<'_>) -> Res<()> {
        let text = self.wanted(list);
        if ImageList::parse(&text).is_ok_and(|wanted| wanted.entries.is_empty()) {
            return Ok(());
        }
        for (path, value) in &list.capabilities {
            if let Some(path) = below(self.mount).and_then(|mount| inside(path, mount)) {
                let file = self.target.join(OsStr::from_bytes(path));
                // Files below another file system's mount point are not on this one.
                if fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file()) {
                    seed::set_capability(&file, value)
                        .doing(|| format!("setting capabilities of {}", file.display()))?;
                }
            }
        }
        self.own()?.record(&text)
    }

    /// Updates a kept file system to the list. Returns what was changed, for people; none if nothing was.
    pub fn refresh(&self, list: &ImageList<'_>) -> Res<Option<String>> {
        let text = self.wanted(list);
        let wanted = ImageList::parse(&text).doing(|| "reading the image's list".into())?;
        let before = match Own::find(open(self.target)?, self.mount)? {
            Lookup::Own(own) => own.list()?,
            // A user's object, where the image has nothing to keep: it does no harm.
            Lookup::Foreign(_) if wanted.entries.is_empty() => return Ok(None),
            Lookup::Foreign(failure) => return Err(failure),
            Lookup::Missing => None,
        };
        if before.as_deref() == Some(&text) || before.is_none() && wanted.entries.is_empty() {
            return Ok(None);
        }
        let before = before.unwrap_or_default();
        // A list that cannot be read, or of another directory, proves nothing: no file of the node is replaced because of it.
        let mut known = ImageList::parse_all(&before).unwrap_or_default();
        if !known.iter().all(|list| self.is_of(list)) {
            known.clear();
        }
        let counts = !known.is_empty();
        if !counts {
            known.push(ImageList::default());
        }
        let own = self.own()?;
        own.clear_stage()?;
        let mut work = Work {
            copy: self,
            list,
            root: open(self.target)?,
            stage: own.stage(),
            changes: Vec::new(),
            kept: Vec::new(),
        };
        work.compare(&known, &wanted)?;
        if !work.changes.is_empty() {
            let staged = work.fill_stage().and_then(|()| self.sync());
            if let Err(failure) = staged {
                // Nothing has changed yet, so the node gets its space back.
                let _ = own.clear_stage();
                return Err(failure);
            }
            let mut both = Vec::new();
            match counts {
                true => both.extend(&before),
                false => image_list::begin(&mut both),
            }
            both.extend(&text);
            own.record(&both)?;
            work.apply()?;
            self.sync()?;
        }
        own.record(&text)?;
        own.clear_stage()?;
        let changed = !work.changes.is_empty() || !work.kept.is_empty();
        Ok(changed.then(|| work.summary()))
    }

    /// True if a list is of this directory, or from an agent that did not record the directory.
    fn is_of(&self, list: &ImageList<'_>) -> bool {
        list.owned.iter().all(|mount| below(self.mount) == Some(*mount))
    }

    /// Opens the directory that keeps the list, and creates it if it is missing.
    fn own(&self) -> Res<Own> {
        Own::make(open(self.target)?, self.mount)
    }

    fn sync(&self) -> Res<()> {
        let synced = File::open(self.target).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
        synced.doing(|| format!("writing {} to disk", self.mount))
    }
}

fn open(path: &Path) -> Res<OwnedFd> {
    File::open(path)
        .map(OwnedFd::from)
        .doing(|| format!("opening {}", path.display()))
}

/// The change at one path.
struct Change<'a> {
    path: &'a [u8],
    /// Type of the object that the disk has at this path; none if the path does not exist.
    there: Option<FileType>,
    /// The entry of the booting version; none if it has none.
    want: Option<Entry<'a>>,
}

impl Change<'_> {
    fn makes_directory(&self) -> bool {
        self.want.is_some_and(|want| want.kind == b'd')
    }

    /// True if the old object must be removed before the new one can come; a rename replaces everything except directories.
    fn clears(&self) -> bool {
        let directory = self.there == Some(FileType::Directory);
        match self.want {
            _ if self.there.is_none() => false,
            None => true,
            Some(_) => directory != self.makes_directory(),
        }
    }
}

struct Work<'a, 'l> {
    copy: &'a ImageCopy<'a>,
    list: &'a ImageList<'l>,
    root: OwnedFd,
    stage: PathBuf,
    changes: Vec<Change<'a>>,
    /// Paths that stay as the node has them, though the image has something else.
    kept: Vec<&'a [u8]>,
}

impl<'a> Work<'a, '_> {
    fn compare(&mut self, known: &'a [ImageList<'a>], wanted: &'a ImageList<'a>) -> Res<()> {
        let mut paths: Vec<&[u8]> = known
            .iter()
            .chain([wanted])
            .flat_map(|l| &l.entries)
            .map(|e| e.path)
            .collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let want = wanted.entry(path);
            let before: Vec<_> = known.iter().map(|list| list.entry(path)).collect();
            if before.iter().all(|old| *old == want) {
                continue;
            }
            match self.assess(path, &before, want)? {
                Verdict::Image(there) => self.changes.push(Change {
                    path,
                    there,
                    want: want.copied(),
                }),
                Verdict::Node if want.is_some() => self.kept.push(path),
                Verdict::Node | Verdict::Right => {}
            }
        }
        Ok(())
    }

    fn assess(&self, path: &[u8], before: &[Option<&Entry<'_>>], want: Option<&Entry<'_>>) -> Res<Verdict> {
        let doing = || format!("looking at {}/{}", self.copy.mount, String::from_utf8_lossy(path));
        let (fd, stat) = match self.at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).doing(doing)?;
                (fd, stat)
            }
            Err(Errno::NOENT) => {
                let absent = before.iter().any(Option::is_none);
                // A power cut can fall between the removal of a file and the making of a directory with its name, or the reverse.
                let kinds = before.iter().flatten().map(|entry| entry.kind == b'd');
                let between = kinds.clone().any(|dir| dir) && !kinds.clone().all(|dir| dir);
                return Ok(match want {
                    None => Verdict::Right,
                    Some(_) if absent || between => Verdict::Image(None),
                    Some(_) => Verdict::Node,
                });
            }
            // The node replaced a directory of the image by something else.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(Verdict::Node),
            Err(e) => return Err(e).doing(doing),
        };
        let mut crc = None;
        let mut right = false;
        for old in before.iter().flatten() {
            if self.equal(path, &fd, &stat, old, &mut crc).doing(doing)? {
                if Some(*old) != want {
                    return Ok(Verdict::Image(Some(FileType::from_raw_mode(stat.st_mode))));
                }
                right = true;
            }
        }
        let right = right || want.is_some_and(|want| self.equal(path, &fd, &stat, want, &mut crc).unwrap_or(false));
        Ok(if right { Verdict::Right } else { Verdict::Node })
    }

    /// True if the disk has what the entry says.
    fn equal(
        &self,
        path: &[u8],
        fd: &OwnedFd,
        stat: &Stat,
        entry: &Entry<'_>,
        crc: &mut Option<u32>,
    ) -> std::io::Result<bool> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let link = kind == FileType::Symlink;
        if letter(kind.as_raw_mode()) != entry.kind
            || (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid)
            || !link && stat.st_mode & 0o7777 != entry.mode
        {
            return Ok(false);
        }
        Ok(match kind {
            FileType::RegularFile if stat.st_size as u64 == entry.size => {
                if crc.is_none() {
                    let file = self.at(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
                    *crc = Some(checksum(file.into())?);
                }
                *crc == Some(entry.crc)
            }
            FileType::RegularFile => false,
            FileType::Symlink => rustix::fs::readlinkat(fd, "", Vec::new())?.to_bytes() == entry.target,
            FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev == entry.size,
            _ => true,
        })
    }

    /// Opens a path of the file system without following links.
    fn at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Copies everything except directories to the stage, each under the number of its change.
    fn fill_stage(&self) -> Res<()> {
        fs::create_dir(&self.stage).doing(|| format!("making {}", self.stage.display()))?;
        for (number, change) in self.changes.iter().enumerate() {
            if change.want.is_none() || change.makes_directory() {
                continue;
            }
            let from = self.source(change.path);
            let to = self.stage.join(number.to_string());
            let copy = || -> std::io::Result<()> {
                let stat = rustix::fs::lstat(&from)?;
                seed::copy_file(&from, &to, &stat)?;
                match self.capability(change.path) {
                    Some(value) => seed::set_capability(&to, value),
                    None => Ok(()),
                }
            };
            copy().doing(|| format!("copying {} of the image", self.named(change.path)))?;
        }
        Ok(())
    }

    fn capability(&self, path: &[u8]) -> Option<&[u8]> {
        let mount = below(self.copy.mount)?;
        let found = self
            .list
            .capabilities
            .iter()
            .find(|(file, _)| inside(file, mount) == Some(path));
        found.map(|(_, value)| value.as_slice())
    }

    fn source(&self, path: &[u8]) -> PathBuf {
        self.copy.image.join(OsStr::from_bytes(path))
    }

    fn named(&self, path: &[u8]) -> String {
        format!("{}/{}", self.copy.mount, String::from_utf8_lossy(path))
    }

    /// Changes the names: removals from the deepest path up, then additions from the top down.
    fn apply(&mut self) -> Res<()> {
        let mut stays = Vec::new();
        for (number, change) in self.changes.iter().enumerate().rev() {
            if change.clears() && !self.clear_away(change)? {
                stays.push(number);
            }
        }
        for (number, change) in self.changes.iter().enumerate() {
            if change.want.is_some() && !stays.contains(&number) {
                self.bring(number, change)
                    .doing(|| format!("changing {}", self.named(change.path)))?;
            }
        }
        for number in stays {
            if self.changes[number].want.is_some() {
                self.kept.push(self.changes[number].path);
            }
        }
        Ok(())
    }

    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b"."[..], path),
        };
        Ok((
            self.at(parent, OFlags::PATH | OFlags::DIRECTORY)?,
            OsStr::from_bytes(name),
        ))
    }

    /// Removes an object that is in the way or no longer in the image. Returns false for a directory that holds files of the node.
    fn clear_away(&self, change: &Change<'_>) -> Res<bool> {
        let flags = match change.there {
            Some(FileType::Directory) => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        let gone = self
            .parent(change.path)
            .and_then(|(dir, name)| rustix::fs::unlinkat(dir, name, flags));
        match gone {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(e) => Err(e).doing(|| format!("removing {}", self.named(change.path))),
        }
    }

    fn bring(&self, number: usize, change: &Change<'_>) -> std::io::Result<()> {
        let (dir, name) = match self.parent(change.path) {
            Ok(parent) => parent,
            // The node has removed this directory, so it does not need the files in it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        if !change.makes_directory() {
            let stage = File::open(&self.stage)?;
            return Ok(rustix::fs::renameat(&stage, number.to_string(), &dir, name)?);
        }
        match rustix::fs::mkdirat(&dir, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let from = self.source(change.path);
        let stat = rustix::fs::lstat(&from)?;
        let to = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        seed::attributes(&from, &to, &stat)
    }

    /// A summary of the changes, for people.
    fn summary(&self) -> String {
        let count = |fits: fn(&Change<'_>) -> bool| self.changes.iter().filter(|change| fits(change)).count();
        let mut text = format!(
            "{} was updated from the image: {} made, {} replaced, {} removed",
            self.copy.mount,
            count(|c| c.there.is_none()),
            count(|c| c.there.is_some() && c.want.is_some()),
            count(|c| c.want.is_none())
        );
        let kept: Vec<String> = self.kept.iter().map(|path| self.named(path)).collect();
        let kept: Vec<&str> = kept
            .iter()
            .map(String::as_str)
            .filter(|path| !UNNAMED.iter().any(|dir| path.starts_with(dir)))
            .collect();
        if !kept.is_empty() {
            text += "; kept because the node changed them: ";
            text += &kept[..kept.len().min(NAMED)].join(", ");
            if kept.len() > NAMED {
                text += &format!(" and {} more", kept.len() - NAMED);
            }
        }
        text
    }
}

/// The owner of a path's state.
enum Verdict {
    /// The image of the earlier boot: the path becomes what is wanted.
    Image(Option<FileType>),
    /// The node.
    Node,
    /// The path already is what is wanted.
    Right,
}

fn checksum(mut file: File) -> std::io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
