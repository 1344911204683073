//! Copies the content of regular files: shared if the file system can, with holes kept, otherwise copied by the kernel.

use super::SpaceGuard;
use crate::{
    error::{Doing, ImportError, Result, show_name},
    progress::Progress,
};
use rustix::{
    fs::{SeekFrom, Stat, copy_file_range, ftruncate, ioctl_ficlone, seek},
    io::{Errno, pread, pwrite},
};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes copied between two calls of the progress.
const CHUNK: u64 = 8 << 20;

/// Copies contents, and remembers what this pair of file systems supports.
#[derive(Debug)]
pub(crate) struct DataCopier {
    can_clone: bool,
    can_copy_range: bool,
    buffer: Vec<u8>,
}

impl Default for DataCopier {
    fn default() -> Self {
        DataCopier {
            can_clone: true,
            can_copy_range: true,
            buffer: Vec::new(),
        }
    }
}

impl DataCopier {
    /// Copies the file `from` with the status `stat` to the empty file `to`.
    pub fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        stat: &Stat,
        to: BorrowedFd<'_>,
        path: &[u8],
        space: &mut SpaceGuard,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let size = stat.st_size as u64;
        if size == 0 {
            return Ok(());
        }
        if self.can_clone {
            match ioctl_ficlone(to, from) {
                Ok(()) => {
                    progress.advance(0, size);
                    return Ok(());
                }
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM) => {
                    self.can_clone = false;
                }
                Err(e) => return Err(e).doing(|| copying(path)),
            }
        }
        let mut done = 0;
        if stat.st_blocks as u64 * 512 >= size {
            self.copy_range(from, 0, size, to, path, space, progress)?;
        } else {
            // Fewer blocks than bytes: it has holes (or its file system compresses, and then reports no holes).
            while let Some((start, end)) = next_data(from, done, size).doing(|| copying(path))? {
                progress.advance(0, start - done);
                self.copy_range(from, start, end - start, to, path, space, progress)?;
                done = end;
            }
            progress.advance(0, size - done);
            ftruncate(to, size).doing(|| copying(path))?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // one call site's worth of context, all of it needed
    fn copy_range(
        &mut self,
        from: BorrowedFd<'_>,
        start: u64,
        len: u64,
        to: BorrowedFd<'_>,
        path: &[u8],
        space: &mut SpaceGuard,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let mut at = start;
        let end = start + len;
        while at < end {
            let copied = self.some(from, at, to, (end - at).min(CHUNK)).doing(|| copying(path))?;
            if copied == 0 {
                return Err(ImportError::Request(format!(
                    "{} became shorter while it was copied; import from a tree that no process writes to",
                    show_name(path)
                )));
            }
            at += copied;
            space.wrote(copied)?;
            progress.advance(0, copied);
        }
        Ok(())
    }

    fn some(&mut self, from: BorrowedFd<'_>, at: u64, to: BorrowedFd<'_>, len: u64) -> rustix::io::Result<u64> {
        if self.can_copy_range {
            let (mut off_in, mut off_out) = (at, at);
            match copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), len as usize) {
                // Some kernels (before 5.19) copy 0 bytes of generated files; reading returns the content.
                Ok(0) => {}
                Ok(copied) => return Ok(copied as u64),
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF | Errno::PERM) => {
                    self.can_copy_range = false;
                }
                Err(e) => return Err(e),
            }
        }
        self.buffer.resize(1 << 20, 0);
        let want = self.buffer.len().min(len as usize);
        let got = pread(from, &mut self.buffer[..want], at)?;
        let mut written = 0;
        while written < got {
            written += pwrite(to, &self.buffer[written..got], at + written as u64)?;
        }
        Ok(got as u64)
    }
}

fn copying(path: &[u8]) -> String {
    format!("copying {}", show_name(path))
}

/// The next range of data at or after `from`.
fn next_data(fd: BorrowedFd<'_>, from: u64, size: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    if from >= size {
        return Ok(None);
    }
    match seek(fd, SeekFrom::Data(from)) {
        Ok(start) if start < size => {
            let end = seek(fd, SeekFrom::Hole(start))?.min(size);
            Ok(Some((start, end.max(start + 1))))
        }
        Ok(_) | Err(Errno::NXIO) => Ok(None),
        // The file system does not support holes.
        Err(Errno::INVAL) => Ok(Some((from, size))),
        Err(e) => Err(e),
    }
}

/// Writes all of `bytes` at `at`.
pub(crate) fn write_extents(to: impl AsFd, bytes: &[u8], at: u64) -> rustix::io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        written += pwrite(&to, &bytes[written..], at + written as u64)?;
    }
    Ok(())
}
