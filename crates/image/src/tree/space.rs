//! Watches the free space of the file system on which an image is made.

use crate::error::{Doing, ImportError, Result};
use rustix::fs::{StatVfs, fstatvfs};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Bytes written between two checks of the file system.
const LOOK_EVERY: u64 = 32 << 20;
/// Entries made between two checks.
const LOOK_EVERY_ENTRIES: u32 = 1024;
/// Space that stays free for the daemon's store on the same file system: a fiftieth of it, at most this.
const RESERVE: u64 = 256 << 20;

/// Stops an import before it fills the disk, for example with a compressed bomb.
#[derive(Debug)]
pub(crate) struct SpaceGuard {
    fd: OwnedFd,
    dir: PathBuf,
    written: u64,
    next_look: u64,
    entries: u32,
    total: Option<u64>,
}

impl SpaceGuard {
    /// Watches the file system of `dir`, opened as `fd`. `total` is the number of bytes to be written, if known.
    pub fn new(fd: BorrowedFd<'_>, dir: &Path, total: Option<u64>) -> Result<Self> {
        let mut guard = SpaceGuard {
            fd: fd
                .as_fd()
                .try_clone_to_owned()
                .doing(|| format!("opening {}", dir.display()))?,
            dir: dir.to_owned(),
            written: 0,
            next_look: 0,
            entries: 0,
            total,
        };
        guard.wrote(0)?;
        Ok(guard)
    }

    /// Records that `bytes` were written.
    pub fn wrote(&mut self, bytes: u64) -> Result<()> {
        self.written += bytes;
        if self.written < self.next_look {
            return Ok(());
        }
        self.check()?;
        self.next_look = self.written + LOOK_EVERY;
        Ok(())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Records that an entry was made.
    pub fn made_entry(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries >= LOOK_EVERY_ENTRIES {
            self.entries = 0;
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let stat = self.stat()?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserve = (stat.f_blocks.saturating_mul(stat.f_frsize) / 50).min(RESERVE);
        // File systems without a fixed number of inodes (btrfs) report 0 of 0.
        let no_inodes = stat.f_files > 0 && stat.f_favail < 256;
        if free < reserve || no_inodes {
            return Err(self.full_with(free, reserve, no_inodes));
        }
        Ok(())
    }

    fn stat(&self) -> Result<StatVfs> {
        fstatvfs(&self.fd).doing(|| format!("reading the free space on the file system of {}", self.dir.display()))
    }

    /// The error for a system call that failed with ENOSPC.
    pub fn full(&self) -> ImportError {
        match self.stat() {
            Ok(stat) => {
                let no_inodes = stat.f_files > 0 && stat.f_favail == 0;
                self.full_with(stat.f_bavail.saturating_mul(stat.f_frsize), 0, no_inodes)
            }
            Err(e) => e,
        }
    }

    fn full_with(&self, free: u64, reserve: u64, inodes: bool) -> ImportError {
        let left = self.total.map(|total| total.saturating_sub(self.written).max(1));
        ImportError::NoSpace {
            dir: self.dir.clone(),
            free,
            missing: left.map(|left| (left + reserve).saturating_sub(free).max(1)),
            inodes,
        }
    }
}
