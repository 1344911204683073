//! A disk in memory whose power can be cut at any write, for tests.

use super::device::BlockDevice;
use std::io;

/// A disk with a write cache: of the sectors written since the last flush, a power cut keeps any subset, and nothing is written
/// after it.
#[derive(Clone)]
pub struct Model {
    /// Bytes on stable storage.
    pub durable: Vec<u8>,
    /// Writes since the last flush, in order.
    pub cached: Vec<(u64, Vec<u8>)>,
    pub sector: u32,
    /// Sectors that can still be written before the power cut.
    pub left: Option<u64>,
    /// Sectors written so far.
    pub writes: u64,
}

impl Model {
    /// A blank disk.
    pub fn new(size: u64, sector: u32) -> Self {
        Model {
            durable: vec![0; size as usize],
            cached: Vec::new(),
            sector,
            left: None,
            writes: 0,
        }
    }

    /// Cuts the power: `coin` decides for each cached sector whether it reached the disk.
    pub fn cut(&mut self, mut coin: impl FnMut() -> bool) {
        let step = self.sector as usize;
        let mut after = self.durable.clone();
        let mut touched = std::collections::BTreeSet::new();
        for (at, bytes) in self.cached.drain(..) {
            let at = at as usize;
            after[at..at + bytes.len()].copy_from_slice(&bytes);
            touched.extend(at / step..(at + bytes.len()).div_ceil(step));
        }
        for sector in touched {
            if coin() {
                let range = sector * step..(sector + 1) * step;
                self.durable[range.clone()].copy_from_slice(&after[range]);
            }
        }
        self.left = None;
    }
}

impl BlockDevice for Model {
    fn size(&self) -> u64 {
        self.durable.len() as u64
    }
    fn sector(&self) -> u32 {
        self.sector
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = offset as usize;
        let to = from + buf.len();
        buf.copy_from_slice(self.durable.get(from..to).ok_or(io::ErrorKind::UnexpectedEof)?);
        for (at, bytes) in &self.cached {
            let at = *at as usize;
            let (low, high) = (from.max(at), to.min(at + bytes.len()));
            if low < high {
                buf[low - from..high - from].copy_from_slice(&bytes[low - at..high - at]);
            }
        }
        Ok(())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let step = u64::from(self.sector);
        let end = offset + bytes.len() as u64;
        assert!(end <= self.size(), "a write past the end");
        let (first, last) = (offset / step, end.div_ceil(step));
        let may = self.left.map_or(last, |left| last.min(first + left));
        self.writes += may - first;
        self.left = self.left.map(|left| left - (may - first));
        let kept = (may * step).min(end).saturating_sub(offset) as usize;
        self.cached.push((offset, bytes[..kept].to_vec()));
        if may < last {
            Err(io::Error::other("power cut"))
        } else {
            Ok(())
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.left == Some(0) {
            return Err(io::Error::other("power cut"));
        }
        for (at, bytes) in self.cached.drain(..) {
            self.durable[at as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
}
