//! `.rackstrap` in the root of a file system of the disk: what the agent keeps there between boots.
//!
//! Where all users may write (/tmp), a user can create that name before the agent does: a FIFO, whose opening never ends, a link to
//! a device, a list of gigabytes. So the agent opens the directory without following a link, checks that it belongs to root, and
//! reaches everything in it through its descriptor.

use crate::fail::{Doing, Failure, Res};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdirat, openat, renameat, unlinkat},
    io::Errno,
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
};

/// Name of the directory.
pub const NAME: &str = ".rackstrap";
/// Longest list that is read; an import writes far less.
const LONGEST: u64 = 64 << 20;

/// The directory, open, and owned by root.
#[derive(Debug)]
pub struct Own {
    directory: OwnedFd,
    /// `/var/.rackstrap`, for people.
    shown: String,
}

/// The object under the directory's name in a file system.
#[derive(Debug)]
pub enum Lookup {
    /// The name does not exist.
    Missing,
    /// Something else than a directory that only root may write; the failure names it.
    Foreign(Failure),
    /// The directory.
    Own(Own),
}

impl Own {
    /// Looks for the directory in the file system with the root `root`, mounted at `mount` on the node. Creates nothing.
    pub fn find(root: impl AsFd, mount: &str) -> Res<Lookup> {
        let shown = format!("{mount}/{NAME}");
        let foreign = || Lookup::Foreign(Failure::new(format!("{shown} is not root's directory; remove it")));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(root, NAME, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Lookup::Missing),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(foreign()),
            Err(e) => return Err(e).doing(|| format!("opening {shown}")),
        };
        let stat = fstat(&directory).doing(|| format!("looking at {shown}"))?;
        Ok(match stat.st_uid == 0 && stat.st_mode & 0o022 == 0 {
            true => Lookup::Own(Own { directory, shown }),
            false => foreign(),
        })
    }

    /// Like [`Own::find`], but creates the directory if it is missing.
    pub fn make(root: impl AsFd, mount: &str) -> Res<Own> {
        match mkdirat(&root, NAME, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).doing(|| format!("making {mount}/{NAME}")),
        }
        match Own::find(root, mount)? {
            Lookup::Own(own) => Ok(own),
            Lookup::Foreign(failure) => Err(failure),
            Lookup::Missing => Err(Failure::new(format!("{mount}/{NAME} was removed again"))),
        }
    }

    /// The text of the lists on this disk; none before the first ones are written.
    pub fn list(&self) -> Res<Option<Vec<u8>>> {
        let doing = || format!("reading {}/image", self.shown);
        // NONBLOCK: opening a FIFO must not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(&self.directory, "image", flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).doing(doing),
        };
        let stat = fstat(&file).doing(doing)?;
        let refuse = |what: &str| Err(Failure::new(format!("{}/image {what}; remove it", self.shown)));
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != 0 {
            return refuse("is not a regular file of root");
        }
        if stat.st_size as u64 > LONGEST {
            return refuse("is too long for a list");
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text).doing(doing)?;
        Ok(Some(text))
    }

    /// Replaces the list on disk atomically.
    pub fn record(&self, text: &[u8]) -> Res<()> {
        let doing = || format!("writing {}/image", self.shown);
        let _ = unlinkat(&self.directory, "image.new", AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: File = openat(&self.directory, "image.new", flags, Mode::RUSR | Mode::WUSR)
            .doing(doing)?
            .into();
        file.write_all(text).doing(doing)?;
        file.sync_all().doing(doing)?;
        renameat(&self.directory, "image.new", &self.directory, "image").doing(doing)?;
        rustix::fs::fsync(&self.directory).doing(doing)
    }

    /// The directory of new files before they are renamed to their places.
    pub fn stage(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/stage", self.directory.as_raw_fd()))
    }

    /// Removes the stage and its content.
    pub fn clear_stage(&self) -> Res<()> {
        match fs::remove_dir_all(self.stage()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).doing(|| format!("clearing {}/stage", self.shown))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
