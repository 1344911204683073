//! A backup: every row of the store in one file with a header. A file that was cut or altered is recognised.
//!
//! It has three frames of zstd (RFC 8878, section 3.1), so `zstd -dc FILE` prints the rows and `head -2 FILE` the header:
//! 1. a skippable one: `rackstrap-backup 1`, a newline, [`Header`] as one line of JSON;
//! 2. a compressed one: one line for each row, `table TAB key TAB value`, tables in the order of [`Table::ALL`], keys ascending. A
//!    key that is not plain text is `0x` and hex digits; the value is JSON;
//! 3. a skippable one: `blake3`, a blank, and the BLAKE3 digest of every byte before this frame.
//!
//! Reader and writer are pure: they use `io::Read` and `io::Write`. A file may come from anywhere, so every length has a limit.

pub mod file;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::Reader;
pub(crate) use writer::Writer;

use super::{StoreError, Table};
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io};
use thiserror::Error;

/// Version of the format above.
const FORMAT: u32 = 1;
/// The start of the first frame's content.
const MAGIC: &str = "rackstrap-backup ";
/// First of the sixteen magic numbers of skippable frames (RFC 8878, section 3.1.2).
const SKIPPABLE: u32 = 0x184D_2A50;
/// Longest header in bytes. Nine counts and some names have about 300.
const HEADER_LIMIT: usize = 16 << 10;
/// Longest name of a cluster or a release in the header, in bytes.
const NAME_LIMIT: usize = 1 << 10;
/// Longest key in bytes. The longest real ones are names and addresses.
const KEY_LIMIT: usize = 4 << 10;
/// Longest value in bytes. The largest real ones, boots with their plans, have some KiB.
const VALUE_LIMIT: usize = 16 << 20;
/// Most bytes of all rows: three times 10,000 timelines of 10,000 events, the largest store that a site file allows.
const TOTAL_LIMIT: u64 = 64 << 30;
/// Compression level of zstd: rows shrink to a tenth at some hundred MB/s.
const LEVEL: i32 = 3;
/// Largest window for decompression, as a power of two: level 3 needs 2 MiB, and 8 MiB are allowed.
const WINDOW_LOG: u32 = 23;

/// The header of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the tables' content.
    pub schema: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Time of the backup.
    #[serde(with = "rfc3339")]
    pub made: Timestamp,
    /// Release of rackstrap that made it.
    pub rackstrap: String,
    /// Number of rows of each table.
    pub rows: BTreeMap<String, u64>,
}

impl Header {
    /// Number of rows of `table`.
    pub fn count(&self, table: Table) -> u64 {
        self.rows.get(table.name()).copied().unwrap_or_default()
    }

    /// Number of rows of all tables.
    pub fn total(&self) -> u64 {
        self.rows.values().fold(0, |sum, rows| sum.saturating_add(*rows))
    }
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Its table.
    pub table: Table,
    /// Its key.
    pub key: &'a [u8],
    /// Its value, JSON.
    pub value: &'a [u8],
}

/// Why a backup failed, or why a file is not accepted as a backup.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The file is something else.
    #[error("it is not a backup of rackstrap: it does not begin with a backup's header")]
    Foreign,
    /// The format is newer.
    #[error(
        "its format is version {found}, and this rackstrap reads versions up to {FORMAT}; use the newer rackstrap that made it"
    )]
    NewerFormat {
        /// Version in the file.
        found: u64,
    },
    /// The schema is newer.
    #[error(
        "it holds a store of schema version {found} (made by rackstrap {by}), and this rackstrap knows versions up to {known}; \
         use that rackstrap"
    )]
    NewerSchema {
        /// Version in the file.
        found: u32,
        /// Release that made it.
        by: String,
        /// Newest version of this release.
        known: u32,
    },
    /// The end is missing.
    #[error("it ends too early: it was cut, or not copied completely")]
    Cut,
    /// The content was changed.
    #[error("it was altered, or damaged on its way: {0}")]
    Damaged(String),
    /// A row that a backup cannot contain.
    #[error("{table} {key}: {what}")]
    Row {
        /// Name of the row's table.
        table: &'static str,
        /// The key, as text.
        key: String,
        /// The fault.
        what: String,
    },
    /// The rows exceed the limit for reading.
    #[error("its rows are more than {} GiB", TOTAL_LIMIT >> 30)]
    TooMuch,
    /// An error of the file.
    #[error("cannot {what} it: {error}")]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The error of the system call.
        error: io::Error,
    },
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A skippable frame around `content`.
fn frame(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("headers and digests are short");
    [&SKIPPABLE.to_le_bytes()[..], &length.to_le_bytes(), content].concat()
}

/// The last frame.
fn trailer(digest: &blake3::Hash) -> Vec<u8> {
    frame(format!("blake3 {}\n", digest.to_hex()).as_bytes())
}

/// A key on its line; each key has one spelling.
fn key_on_line(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.starts_with("0x") && !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex::encode(key)),
    }
}

/// A time with milliseconds, in a form for people.
mod rfc3339 {
    use rackstrap_base::clock::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        let millis = i64::try_from(at.0).map_err(S::Error::custom)?;
        let time = jiff::Timestamp::from_millisecond(millis).map_err(S::Error::custom)?;
        to.collect_str(&time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let time: jiff::Timestamp = String::deserialize(from)?.parse().map_err(D::Error::custom)?;
        let millis = u64::try_from(time.as_millisecond()).map_err(D::Error::custom)?;
        Ok(Timestamp(millis))
    }
}
