//! A backup: every row of the store in one file that says what it is, and shows when it was cut or altered.
//!
//! Three frames as zstd has them (RFC 8878, section 3.1), so that `zstd -dc FILE` prints the rows and `head -2 FILE` the header:
//! 1. a skippable one: `rackstrap-backup 1`, a newline, [`Header`] as one line of JSON;
//! 2. a compressed one: a line a row, `table TAB key TAB value`, tables in the order of [`Table::ALL`], keys ascending. A key
//!    that is no plain text is `0x` and hex digits; the value is JSON;
//! 3. a skippable one: `blake3`, a blank, and the BLAKE3 digest of every byte before this frame.
//!
//! Both ends are pure: they know `io::Read` and `io::Write`. What is read may be anybody's: every length has a bound.

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

/// Version of the form that is described above.
const FORMAT: u32 = 1;
/// What a file begins with, behind the eight bytes of its frame.
const MAGIC: &str = "rackstrap-backup ";
/// First of the sixteen magic numbers of skippable frames (RFC 8878, section 3.1.2).
const SKIPPABLE: u32 = 0x184D_2A50;
/// Longest header, bytes: nine counts and some names are 300.
const HEADER_LIMIT: usize = 16 << 10;
/// Longest name of a cluster or a release in it, bytes.
const NAME_LIMIT: usize = 1 << 10;
/// Longest key, bytes: the longest of ours are names and addresses.
const KEY_LIMIT: usize = 4 << 10;
/// Longest value, bytes: the largest of ours, a boot with its plan, has some KiB.
const VALUE_LIMIT: usize = 16 << 20;
/// All rows at most, bytes: 10,000 timelines of 10,000 events, the largest that a site file may ask for, are a third.
const TOTAL_LIMIT: u64 = 64 << 30;
/// zstd's level: rows shrink to a tenth at some hundred MB/s.
const LEVEL: i32 = 3;
/// Largest window that is decompressed with, as a power of two: level 3 takes 2 MiB, and nobody gets more than 8.
const WINDOW_LOG: u32 = 23;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of what the tables hold.
    pub schema: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// When the store was like this.
    #[serde(with = "rfc3339")]
    pub made: Timestamp,
    /// Release that made it.
    pub rackstrap: String,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
}

impl Header {
    /// Rows of `table`.
    pub fn count(&self, table: Table) -> u64 {
        self.rows.get(table.name()).copied().unwrap_or_default()
    }

    /// Rows of all tables.
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

/// Why there is no backup, or why one is not taken.
#[derive(Debug, Error)]
pub enum BackupError {
    /// Something else.
    #[error("it is no backup of rackstrap: it does not begin like one")]
    Foreign,
    /// The form is newer.
    #[error(
        "its format is version {found}, and this rackstrap reads versions up to {FORMAT}; use the newer rackstrap that made it"
    )]
    NewerFormat {
        /// Version in the file.
        found: u64,
    },
    /// The content is newer.
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
    #[error("it ends too early: it was cut, or not copied whole")]
    Cut,
    /// Bytes are not what they were.
    #[error("it was altered, or damaged on its way: {0}")]
    Damaged(String),
    /// A row that cannot be in a backup.
    #[error("{table} {key}: {what}")]
    Row {
        /// Table.
        table: &'static str,
        /// Key, as text.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// More than is ever read back.
    #[error("its rows are more than {} GiB", TOTAL_LIMIT >> 30)]
    TooMuch,
    /// The file, or whatever it is.
    #[error("cannot {what} it: {error}")]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The store.
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

/// A key on its line: each has one spelling.
fn key_on_line(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.starts_with("0x") && !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex::encode(key)),
    }
}

/// A time that people read, with its milliseconds.
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
