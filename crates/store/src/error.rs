//! What can go wrong with the store.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the store did not do what it was asked to.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error(
        "store {}: another rackstrap serve runs on it{}; stop that one first, or give this one another [server] state-dir",
        path.display(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// Process that holds the lock, where the kernel says.
        holder: Option<u32>,
    },
    /// A newer release wrote it.
    #[error(
        "store {}: its schema is version {found}, and this rackstrap knows versions up to {known}; \
         run the newer rackstrap again, or restore the store as it was before the upgrade", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version of this release.
        known: u32,
    },
    /// Not a store, or a damaged one.
    #[error(
        "store {}: it is damaged, or no rackstrap store ({error}); bring a backup back with `rackstrap restore FILE`, or \
         move it away to begin with an empty store{}", path.display(), nightly(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        error: String,
    },
    /// Rows cannot be read that the daemon cannot do without.
    #[error(
        "store {}: rows cannot be read: {rows}; bring a backup back with `rackstrap restore FILE`{}", path.display(),
        nightly(path)
    )]
    Rows {
        /// The file.
        path: PathBuf,
        /// Some of them, by table and key, with what is wrong, and how many more.
        rows: String,
    },
    /// The file system said no.
    #[error("store {}: cannot {what} it: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done: `open`, `read`, `write`.
        what: &'static str,
        /// What the file system said.
        error: String,
    },
    /// A value is not what this release writes.
    #[error("store: {table} {key}: unreadable value: {error}")]
    Value {
        /// Table.
        table: &'static str,
        /// Key, as text.
        key: String,
        /// What is wrong.
        error: String,
    },
    /// A batch's precondition does not hold (any more): somebody else was faster.
    #[error("store: {table} {key} was changed by somebody else meanwhile")]
    Conflict {
        /// Table.
        table: &'static str,
        /// Key, as text.
        key: String,
    },
    /// The transaction that this batch shared could not be written.
    #[error("{0}")]
    NotWritten(String),
    /// The writer has ended.
    #[error("store: it is being closed")]
    Closed,
}

/// Where the service keeps its nightly backups unless the site file says otherwise, if there are any.
fn nightly(store: &Path) -> String {
    let dir = store.with_file_name(rackstrap_base::NIGHTLY_DIR);
    match dir.is_dir() {
        true => format!("; nightly backups are in {}", dir.display()),
        false => String::new(),
    }
}

/// A key for people: text where it is text, hex where it is not.
pub(super) fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex::encode(key)),
    }
}
