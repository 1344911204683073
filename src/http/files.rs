//! Files in memory, one copy for all transfers by TFTP, whose engine sends from memory.

use bytes::Bytes;
use rackstrap_base::sync::lock;
use std::{
    collections::HashMap,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

/// Largest kernel or initramfs that is sent from memory, in bytes.
const MOST: u64 = 1 << 30;

/// The files that are being sent. Only sealed versions are read, which do not change.
#[derive(Debug, Default)]
pub struct SharedFiles(Mutex<HashMap<PathBuf, Weak<Vec<u8>>>>);

impl SharedFiles {
    /// The content of `path`, read once for all transfers that overlap.
    ///
    /// # Errors
    /// The file cannot be read, or is too large.
    pub fn read(&self, path: &Path) -> io::Result<Bytes> {
        // Locked while the file is read: the machines of a rack ask for the same one at the same time.
        let mut known = lock(&self.0);
        if let Some(content) = known.get(path).and_then(Weak::upgrade) {
            return Ok(Bytes::from_owner(Owner(content)));
        }
        known.retain(|_, content| content.strong_count() > 0);
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        if len > MOST {
            return Err(io::Error::other(format!(
                "it has {len} bytes, and at most {MOST} are sent by TFTP"
            )));
        }
        let mut content = Vec::with_capacity(len as usize);
        file.take(MOST).read_to_end(&mut content)?;
        let content = Arc::new(content);
        known.insert(path.to_owned(), Arc::downgrade(&content));
        Ok(Bytes::from_owner(Owner(content)))
    }
}

/// Keeps the content for as long as a transfer uses it.
struct Owner(Arc<Vec<u8>>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_share_one_copy_that_goes_with_the_last_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let (path, files) = (dir.path().join("kernel"), SharedFiles::default());
        std::fs::write(&path, "one").unwrap();
        let (first, second) = (files.read(&path).unwrap(), files.read(&path).unwrap());
        assert_eq!((first.as_ptr(), &*first), (second.as_ptr(), &b"one"[..]));
        drop((first, second));
        std::fs::write(&path, "two").unwrap();
        assert_eq!(files.read(&path).unwrap(), "two");
        assert!(files.read(&dir.path().join("none")).is_err());
    }
}
