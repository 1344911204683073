//! File handles: their format, and the proof that the server made them.
//!
//! ```text
//!  0      version, 1
//!  1      source of the file id: 0 the kernel's file handle, 1 an index by inode number
//!  2      the kernel's handle type
//!  3      length n of the file id, 1 to 36
//!  4..12  export id
//! 12..    file id, n bytes (of the kernel's: inode number and generation)
//!  ..     MAC, 16 bytes: keyed BLAKE3 of all that is before it, cut
//! ```
//!
//! Handles are not kept in a table, so they are valid as long as the file and the key exist: a daemon that was restarted, or that
//! replaces another one with the same key and the same disk, still accepts them. The MAC proves that the server made a handle:
//! `open_by_handle_at` opens any inode of a file system, even outside the export.

use super::status::Status;
use std::fmt;
use subtle::ConstantTimeEq;

/// NFS3_FHSIZE (RFC 1813): most bytes of a handle.
pub const MAX_HANDLE: usize = 64;
const VERSION: u8 = 1;
const HEADER: usize = 12;
const MAC: usize = 16;
/// Most bytes of a file id: 64 minus the header and the MAC.
pub const MAX_FILE_ID: usize = MAX_HANDLE - HEADER - MAC;

/// The id of an export in handles: the first 8 bytes of BLAKE3 of `name@version`, computed by the code that opens the export.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportId(pub [u8; 8]);

impl fmt::Debug for ExportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// The source of a file id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `name_to_handle_at(2)`
    Kernel = 0,
    /// An index by inode number, for file systems without file handles of the kernel.
    Index = 1,
}

/// The id of a file in an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    source: Source,
    kind: u8,
    len: u8,
    data: [u8; MAX_FILE_ID],
}

impl FileId {
    /// None if `bytes` are empty or too many.
    pub fn new(source: Source, kind: u8, bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let mut data = [0; MAX_FILE_ID];
        data.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(FileId {
            source,
            kind,
            len: bytes.len() as u8,
            data,
        })
    }

    /// Its source.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The kernel's handle type.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// The id itself.
    pub fn bytes(&self) -> &[u8] {
        &self.data[..self.len as usize]
    }
}

/// A handle in the form of the wire.
#[derive(Clone, Copy, Debug)]
pub struct WireHandle {
    len: usize,
    data: [u8; MAX_HANDLE],
}

impl WireHandle {
    /// The bytes of the handle.
    pub fn as_slice(&self) -> &[u8] {
        &self.data[..self.len]
    }
}

/// The key for the MAC of handles. Handles stay valid over restarts if the key is kept on disk.
#[derive(Clone)]
pub struct HandleKey([u8; 32]);

impl HandleKey {
    /// A key of 32 random bytes.
    pub fn new(key: [u8; 32]) -> Self {
        HandleKey(key)
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC] {
        *blake3::keyed_hash(&self.0, bytes)
            .as_bytes()
            .first_chunk()
            .expect("a hash has 32 bytes")
    }

    /// The handle of a file.
    pub fn seal(&self, export: ExportId, file: &FileId) -> WireHandle {
        let mut data = [0; MAX_HANDLE];
        data[..4].copy_from_slice(&[VERSION, file.source as u8, file.kind, file.len]);
        data[4..HEADER].copy_from_slice(&export.0);
        let signed = HEADER + file.len as usize;
        data[HEADER..signed].copy_from_slice(file.bytes());
        let mac = self.mac(&data[..signed]);
        data[signed..signed + MAC].copy_from_slice(&mac);
        WireHandle {
            len: signed + MAC,
            data,
        }
    }

    /// The file of a handle.
    ///
    /// # Errors
    /// NFS3ERR_BADHANDLE for bytes that [`HandleKey::seal`] with this key did not make.
    pub fn open(&self, wire: &[u8]) -> Result<(ExportId, FileId), Status> {
        let bad = Status::BadHandle;
        if wire.len() > MAX_HANDLE || wire.len() <= HEADER + MAC {
            return Err(bad);
        }
        let (signed, mac) = wire.split_at(wire.len() - MAC);
        let (header, id) = signed.split_at(HEADER);
        let source = match header[1] {
            0 => Source::Kernel,
            1 => Source::Index,
            _ => return Err(bad),
        };
        if header[0] != VERSION || header[3] as usize != id.len() {
            return Err(bad);
        }
        // In constant time, so that the time of a refusal does not show how many bytes were right.
        if !bool::from(self.mac(signed).ct_eq(mac)) {
            return Err(bad);
        }
        let export = ExportId(*header[4..].first_chunk().ok_or(bad)?);
        Ok((export, FileId::new(source, header[2], id).ok_or(bad)?))
    }
}

impl std::fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandleKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sealed_handle_opens_and_no_other(
            key: [u8; 32], other: [u8; 32], export: [u8; 8], kind: u8,
            id in prop::collection::vec(any::<u8>(), 1..=MAX_FILE_ID),
            at: prop::sample::Index, flip in 1u8..,
        ) {
            let (key, other) = (HandleKey::new(key), HandleKey::new(other));
            let file = FileId::new(Source::Kernel, kind, &id).unwrap();
            let wire = key.seal(ExportId(export), &file);
            prop_assert!(wire.as_slice().len() <= MAX_HANDLE);
            prop_assert_eq!(key.open(wire.as_slice()), Ok((ExportId(export), file)));
            prop_assert_eq!(other.open(wire.as_slice()), Err(Status::BadHandle));
            for cut in 0..wire.as_slice().len() {
                prop_assert_eq!(key.open(&wire.as_slice()[..cut]), Err(Status::BadHandle));
            }
            let mut forged = wire.as_slice().to_vec();
            forged[at.index(wire.len)] ^= flip;
            prop_assert_eq!(key.open(&forged), Err(Status::BadHandle));
            let mut longer = wire.as_slice().to_vec();
            longer.push(0);
            prop_assert_eq!(key.open(&longer), Err(Status::BadHandle));
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(HandleKey::new([1; 32]).open(&bytes), Err(Status::BadHandle));
        }
    }

    #[test]
    fn file_ids_have_1_to_36_bytes() {
        assert_eq!(MAX_FILE_ID, 36);
        assert!(FileId::new(Source::Index, 0, &[]).is_none());
        assert!(FileId::new(Source::Index, 0, &[0; 36]).is_some());
        assert!(FileId::new(Source::Index, 0, &[0; 37]).is_none());
    }
}
