//! XDR (RFC 4506), as far as ONC RPC and NFS need it: a reader that borrows, and writers on [`Buf`].

use super::buf::Buf;

/// The arguments end early, or contain a value outside of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads XDR values from a slice, without copies and allocations. A length that exceeds the remaining bytes is [`Malformed`].
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The bytes that were not read yet.
    #[cfg(test)]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Exactly `n` bytes, and the padding to a multiple of four after them. The padding may have any value: the RFC asks senders for zeroes,
    /// and refusing others has no benefit.
    pub fn fixed(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let padded = n.checked_next_multiple_of(4).ok_or(Malformed)?;
        if padded > self.rest.len() {
            return Err(Malformed);
        }
        let (taken, rest) = self.rest.split_at(padded);
        self.rest = rest;
        Ok(&taken[..n])
    }

    /// `unsigned int`
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*head))
    }

    /// `unsigned hyper`
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<8>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*head))
    }

    /// `bool`: 0 or 1.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// `opaque<max>` and `string<max>`
    pub fn opaque(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let n = self.u32()? as usize;
        if n > max {
            return Err(Malformed);
        }
        self.fixed(n)
    }
}

impl Buf {
    /// `unsigned int`, `enum`, `bool`
    pub fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// `unsigned hyper`
    pub fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// `opaque[n]`: the bytes and zeros up to a multiple of four.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.put(bytes);
        self.put(&[0; 3][..bytes.len().wrapping_neg() % 4]);
    }

    /// `opaque<>` and `string<>`
    pub fn opaque(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.fixed(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn written_values_are_read_back(a: u32, b: u64, c: Vec<u8>, d: bool) {
            let mut buf = Buf::default();
            buf.u32(a);
            buf.opaque(&c);
            buf.u64(b);
            buf.u32(d.into());
            prop_assert_eq!(buf.len() % 4, 0);
            let mut r = Reader::new(buf.as_slice());
            prop_assert_eq!(r.u32(), Ok(a));
            prop_assert_eq!(r.opaque(c.len()), Ok(&c[..]));
            prop_assert_eq!(r.u64(), Ok(b));
            prop_assert_eq!(r.bool(), Ok(d));
            prop_assert!(r.rest().is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, max in 0usize..100) {
            let mut r = Reader::new(&bytes);
            while let Ok(read) = r.opaque(max) {
                prop_assert!(read.len() <= max);
            }
            prop_assert!(r.rest().len() <= bytes.len());
        }
    }

    #[test]
    fn a_wrong_length_is_refused() {
        assert_eq!(Reader::new(&[0xff; 8]).opaque(usize::MAX), Err(Malformed));
        assert_eq!(Reader::new(&[0, 0, 0, 5, 1, 2, 3, 4, 5]).opaque(9), Err(Malformed));
        assert_eq!(Reader::new(&[0, 0, 0, 4, 1, 2, 3, 4]).opaque(3), Err(Malformed));
        assert_eq!(Reader::new(&[0, 0, 0, 2]).bool(), Err(Malformed));
        assert_eq!(Reader::new(&[0; 4]).fixed(usize::MAX), Err(Malformed));
    }
}
