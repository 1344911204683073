//! Digests, and readers that compare bytes with a digest.

use super::{Result, refused};
use rackstrap_base::text::cut;
use ring::digest::{Context, SHA256};
use std::{
    fmt,
    io::{self, Read},
};

/// A SHA-256 digest, `sha256:` and 64 hexadecimal digits (OCI image specification, "Digests").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Parses a digest. The specification's other algorithm, sha512, is not supported, because no registry uses it.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| refused(format!("'{}' is not a digest: {why}", cut(text, 150).escape_debug()));
        let Some(hex_text) = text.strip_prefix("sha256:") else {
            return Err(wrong("only sha256: is supported"));
        };
        let mut bytes = [0; 32];
        // Upper case would be a second name for the same blob.
        if hex_text.bytes().any(|b| b.is_ascii_uppercase()) || hex::decode_to_slice(hex_text, &mut bytes).is_err() {
            return Err(wrong("sha256: must be followed by 64 lower-case hexadecimal digits"));
        }
        Ok(Digest(bytes))
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(bytes);
        Digest::taken(context)
    }

    fn taken(context: Context) -> Self {
        let mut digest = Digest([0; 32]);
        digest.0.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// The digits without the prefix.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

/// Counts and hashes the bytes that are read, and fails after the expected number.
pub(super) struct Checked<R> {
    inner: R,
    context: Context,
    read: u64,
    size: Option<u64>,
}

impl<R: Read> Checked<R> {
    /// `size` is the expected number of bytes, if known.
    pub fn new(inner: R, size: Option<u64>) -> Self {
        Checked {
            inner,
            context: Context::new(&SHA256),
            read: 0,
            size,
        }
    }

    /// Reads the rest and compares. `what` names the bytes in errors.
    pub fn finish(mut self, what: &str, wanted: Option<&Digest>) -> Result<()> {
        let rest = io::copy(&mut self, &mut io::sink());
        rest.map_err(|e| refused(format!("{what} cannot be read: {e}")))?;
        if let Some(size) = self.size
            && self.read != size
        {
            return Err(refused(format!(
                "{what} has {} bytes, but the manifest says {size}; it was cut off or changed",
                self.read
            )));
        }
        let found = Digest::taken(self.context);
        match wanted {
            Some(wanted) if *wanted != found => Err(refused(format!(
                "{what} does not match its digest: expected {wanted}, found {found}; it was changed or damaged"
            ))),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.context.update(&buffer[..got]);
        self.read += got as u64;
        match self.size {
            Some(size) if self.read > size => Err(io::Error::other(format!(
                "it has more than the {size} bytes that the manifest says"
            ))),
            _ => Ok(got),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_read_in_its_one_form_and_refused_in_any_other() {
        assert_eq!(Digest::parse(EMPTY).unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
        for wrong in [
            "",
            "sha256:",
            "sha512:00",
            &EMPTY[..70],
            &EMPTY.to_uppercase(),
            &EMPTY.replace("e3b", "E3B"),
            &EMPTY.replace("e3b", "../"),
            &format!("{EMPTY}0"),
        ] {
            assert!(Digest::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_compared() {
        let check = |bytes: &[u8], size, digest: &[u8]| {
            Checked::new(bytes, size)
                .finish("it", Some(&Digest::of(digest)))
                .map_err(|e| e.to_string())
        };
        assert_eq!(check(b"abc", Some(3), b"abc"), Ok(()));
        assert!(check(b"abc", Some(4), b"abc").unwrap_err().contains("has 3 bytes"));
        assert!(check(b"abc", Some(2), b"abc").unwrap_err().contains("more than the 2"));
        assert!(check(b"abc", None, b"abd").unwrap_err().contains("changed or damaged"));
    }
}
