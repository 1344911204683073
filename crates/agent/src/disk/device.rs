//! A disk as this code uses it: bytes at offsets, and flushes that order writes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
};

/// A disk. Offsets and lengths are in bytes; writes are durable after [`BlockDevice::flush`] only.
pub trait BlockDevice {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Bytes of a logical block: 512 or 4096. A power cut leaves each block either old or new.
    fn sector(&self) -> u32;
    /// Reads exactly `buf.len()` bytes.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all earlier writes are on stable storage.
    fn flush(&mut self) -> io::Result<()>;
    /// Drops cached content. A disk and its partitions have separate page caches in Linux: a cached read of `/dev/vda` does not show
    /// what mkfs wrote through `/dev/vda2`.
    fn forget(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `length` zero bytes from `offset` on.
pub fn write_zeroes(device: &mut dyn BlockDevice, offset: u64, length: u64) -> io::Result<()> {
    let zeroes = [0u8; 64 << 10];
    let mut done = 0;
    while done < length {
        let n = (length - done).min(zeroes.len() as u64);
        device.write_at(offset + done, &zeroes[..n as usize])?;
        done += n;
    }
    Ok(())
}

/// A block device node or, in tests, a plain file.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    size: u64,
    sector: u32,
    block: bool,
}

impl FileDevice {
    /// Opens `path`, read-only unless `writable`, so that an inspection cannot change the disk.
    pub fn open(path: &Path, writable: bool) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        let mut file = OpenOptions::new().read(true).write(writable).open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let block = file.metadata()?.file_type().is_block_device();
        let sector = if block {
            rustix::fs::ioctl_blksszget(&file)?
        } else {
            512
        };
        Ok(FileDevice {
            file,
            size,
            sector,
            block,
        })
    }
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector(&self) -> u32 {
        self.sector
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn forget(&mut self) -> io::Result<()> {
        if self.block {
            crate::sys::flush_buffers(&self.file)
        } else {
            Ok(())
        }
    }
}

/// A position in a [`BlockDevice`], for the `gpt` crate.
pub struct Cursor<'a> {
    device: &'a mut dyn BlockDevice,
    at: u64,
}

impl<'a> Cursor<'a> {
    /// Starts at offset 0.
    pub fn new(device: &'a mut dyn BlockDevice) -> Self {
        Cursor { device, at: 0 }
    }
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "disk of {} bytes at {}", self.device.size(), self.at)
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (buf.len() as u64).min(self.device.size().saturating_sub(self.at)) as usize;
        self.device.read_at(self.at, &mut buf[..n])?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Cursor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.at.saturating_add(bytes.len() as u64) > self.device.size() {
            return Err(io::Error::other("a write past the end of the disk"));
        }
        self.device.write_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The caller decides when to flush; the crate would flush once per header.
        Ok(())
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let base = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::Current(d) => self.at.checked_add_signed(d),
            SeekFrom::End(d) => self.device.size().checked_add_signed(d),
        };
        self.at = base.ok_or_else(|| io::Error::other("a seek to before the disk"))?;
        Ok(self.at)
    }
}
