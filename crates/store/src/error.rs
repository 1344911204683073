//! Errors of the store.

use rackstrap_base::text::is_harmful;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why an operation of the store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error(
        "store {}: another rackstrap serve uses it{}; stop it first, or set another [server] state-dir for this one",
        path.display(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// Process that holds the lock, if the kernel tells.
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
    /// The file is not a store, or is damaged.
    #[error(
        "store {}: it is damaged, or not a rackstrap store ({error}); restore a backup with `rackstrap restore FILE`, or \
         move it away to start with an empty store{}", path.display(), nightly(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        error: String,
    },
    /// Rows that the daemon needs cannot be read.
    #[error(
        "store {}: rows cannot be read: {rows}; restore a backup with `rackstrap restore FILE`{}", path.display(),
        nightly(path)
    )]
    Rows {
        /// The file.
        path: PathBuf,
        /// Some of them, by table and key, with their faults, and the number of the rest.
        rows: String,
    },
    /// The file system failed.
    #[error("store {}: cannot {what} it: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation: `open`, `read`, `write`.
        what: &'static str,
        /// The error of the file system.
        error: String,
    },
    /// A value is not of the type that this release writes.
    #[error("store: {table} {key}: unreadable value: {error}")]
    Value {
        /// Name of the row's table.
        table: &'static str,
        /// The key, as text.
        key: String,
        /// The fault.
        error: String,
    },
    /// An expectation of a batch does not hold, because another change was faster.
    #[error("store: {table} {key} was changed meanwhile")]
    Conflict {
        /// Name of the row's table.
        table: &'static str,
        /// The key, as text.
        key: String,
    },
    /// The transaction that contained this batch could not be written.
    #[error("{0}")]
    NotWritten(String),
    /// The writer has ended.
    #[error("store: it is being closed")]
    Closed,
}

/// A hint with the directory of nightly backups, if it exists. The site file may name another one.
fn nightly(store: &Path) -> String {
    let dir = store.with_file_name(rackstrap_base::NIGHTLY_DIR);
    match dir.is_dir() {
        true => format!("; nightly backups are in {}", dir.display()),
        false => String::new(),
    }
}

/// A key for people: plain text, or else hex.
pub(super) fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(is_harmful) => text.to_owned(),
        _ => format!("0x{}", hex::encode(key)),
    }
}
