//! `.rackstrap` in the root of a file system of the disk: what the agent keeps there from boot to boot.
//!
//! Where everybody may write (/tmp), any user can put something of that name there before the agent does: a FIFO, whose opening
//! never ends, a link to a device, a list of gigabytes. So the directory is opened without following a link and has to be root's
//! before anything in it is looked at, and everything in it is reached from its descriptor.

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

/// Its name.
pub const NAME: &str = ".rackstrap";
/// Longest list that is read back; far more than an import writes.
const LONGEST: u64 = 64 << 20;

/// The directory, open, and root's.
#[derive(Debug)]
pub struct Own {
    directory: OwnedFd,
    /// `/var/.rackstrap`, for people.
    shown: String,
}

/// What is there under the directory's name.
#[derive(Debug)]
pub enum There {
    /// Nothing.
    Nothing,
    /// Something that is not a directory of root's alone; the failure says so.
    Strange(Failure),
    /// The directory.
    Own(Own),
}

impl Own {
    /// Looks for it in the file system whose root is `root`, and that is mounted at `mount` on the node. Makes nothing.
    pub fn find(root: impl AsFd, mount: &str) -> Res<There> {
        let shown = format!("{mount}/{NAME}");
        let strange = || There::Strange(Failure::new(format!("{shown} is not root's directory; remove it")));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(root, NAME, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(There::Nothing),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(strange()),
            Err(e) => return Err(e).doing(|| format!("opening {shown}")),
        };
        let stat = fstat(&directory).doing(|| format!("looking at {shown}"))?;
        Ok(match stat.st_uid == 0 && stat.st_mode & 0o022 == 0 {
            true => There::Own(Own { directory, shown }),
            false => strange(),
        })
    }

    /// The same, made if it is missing.
    pub fn make(root: impl AsFd, mount: &str) -> Res<Own> {
        match mkdirat(&root, NAME, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).doing(|| format!("making {mount}/{NAME}")),
        }
        match Own::find(root, mount)? {
            There::Own(own) => Ok(own),
            There::Strange(failure) => Err(failure),
            There::Nothing => Err(Failure::new(format!("{mount}/{NAME} is gone again"))),
        }
    }

    /// The text of the lists that are kept here, if there are any.
    pub fn list(&self) -> Res<Option<Vec<u8>>> {
        let doing = || format!("reading {}/image", self.shown);
        // Whatever it is, opening it does not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(&self.directory, "image", flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).doing(doing),
        };
        let stat = fstat(&file).doing(doing)?;
        let strange = |what: &str| Err(Failure::new(format!("{}/image {what}; remove it", self.shown)));
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != 0 {
            return strange("is not a file of root's");
        }
        if stat.st_size as u64 > LONGEST {
            return strange("is longer than any list");
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text).doing(doing)?;
        Ok(Some(text))
    }

    /// Replaces the list on disk at one stroke.
    pub fn keep(&self, text: &[u8]) -> Res<()> {
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

    /// Where new files wait for their places.
    pub fn stage(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/stage", self.directory.as_raw_fd()))
    }

    /// Removes the stage and what is in it.
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
