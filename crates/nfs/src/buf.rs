//! The buffer for encoded replies, and the pool of such buffers.

use rackstrap_base::sync::lock;
use std::sync::Mutex;

/// Bytes of replies, with an initialised tail into which file data is read directly.
///
/// A plain `Vec` would have to be zeroed for every READ before `pread` fills it. Here memory is zeroed once, when the buffer grows,
/// and reused after [`Buf::clear`].
#[derive(Default, Debug)]
pub struct Buf {
    data: Vec<u8>,
    len: usize,
}

impl Buf {
    /// Number of bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no byte was written since the buffer was made or cleared.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes written.
    pub fn as_slice(&self) -> &[u8] {
        &self.data[..self.len]
    }

    /// Removes the content and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Removes the content after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Memory held, in bytes.
    pub fn capacity(&self) -> usize {
        self.data.len()
    }

    /// The next `n` bytes, to be filled and then added by [`Buf::advance`].
    pub fn tail(&mut self, n: usize) -> &mut [u8] {
        let need = self.len + n;
        if need > self.data.len() {
            let grown = need.max(self.data.len() * 2).max(1024);
            self.data.resize(grown, 0);
        }
        &mut self.data[self.len..need]
    }

    /// Adds `n` bytes that were written to [`Buf::tail`].
    pub fn advance(&mut self, n: usize) {
        assert!(self.len + n <= self.data.len(), "advance() past the end of tail()");
        self.len += n;
    }

    /// Appends bytes unchanged.
    pub fn put(&mut self, bytes: &[u8]) {
        self.tail(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Overwrites four bytes at `at` with a big-endian number.
    pub fn patch_u32(&mut self, at: usize, value: u32) {
        self.data[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
}

/// Reply buffers for reuse.
///
/// A connection has buffers only while it has something to send, so that 4,000 mounted but silent nodes use no reply memory.
#[derive(Default, Debug)]
pub struct Pool {
    free: Mutex<Vec<Buf>>,
}

impl Pool {
    /// Most buffers that are kept. With replies up to 1 MiB (grown by doubling) this limits the pool to about 100 MiB.
    const KEEP: usize = 32;
    /// Larger buffers are freed.
    const KEEP_BYTES: usize = 4 << 20;

    /// An empty buffer.
    pub fn take(&self) -> Buf {
        lock(&self.free).pop().unwrap_or_default()
    }

    /// Returns a buffer to the pool.
    pub fn give(&self, mut buf: Buf) {
        buf.clear();
        let mut free = lock(&self.free);
        if free.len() < Self::KEEP && buf.capacity() <= Self::KEEP_BYTES {
            free.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_and_advance_append() {
        let mut buf = Buf::default();
        buf.put(b"ab");
        buf.tail(3).copy_from_slice(b"cde");
        buf.advance(2);
        assert_eq!(buf.as_slice(), b"abcd");
        buf.patch_u32(0, 0x3031_3233);
        assert_eq!(buf.as_slice(), b"0123");
        buf.truncate(1);
        assert_eq!(buf.as_slice(), b"0");
        let pool = Pool::default();
        pool.give(buf);
        let again = pool.take();
        assert!(again.is_empty() && again.capacity() >= 1024);
    }
}
