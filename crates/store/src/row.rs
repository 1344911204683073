//! The stored form of a value: a mark, a checksum, and the value.
//!
//! The database has checksums of its own pages, but verifies them only after a crash. A bit that a disk or a memory module flips in a
//! page goes unnoticed, and most of them leave valid JSON (another digit in a number). The checksum covers table and key too, so a
//! damaged index, which shows a row under another key, is also detected.

use super::{StoreError, Table, damage::Damage, error::key_text, migrate};
use serde::de::DeserializeOwned;

/// First byte of a value with a checksum. It never begins JSON, because it is not valid in UTF-8.
const MARK: u8 = 0xc1;

/// Length of the checksum: the first eight bytes of a BLAKE3 digest.
const CHECKSUM: usize = 8;

/// Why a stored value is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsound {
    /// The mark is missing, or there are fewer bytes than in a checksum.
    NoChecksum,
    /// The checksum belongs to another table, key or value.
    Checksum,
}

impl Unsound {
    fn text(self) -> &'static str {
        match self {
            Unsound::NoChecksum => "it has no checksum",
            Unsound::Checksum => "its checksum is wrong",
        }
    }
}

/// The stored form of a value.
pub(super) fn seal(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + CHECKSUM + value.len());
    stored.push(MARK);
    stored.extend_from_slice(&checksum(table, key, value));
    stored.extend_from_slice(value);
    stored
}

/// The value in a stored form.
///
/// # Errors
/// It was altered, or stored under another key.
fn open<'a>(table: Table, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], Unsound> {
    let rest = stored.strip_prefix(&[MARK]).ok_or(Unsound::NoChecksum)?;
    let (sum, value) = rest.split_first_chunk::<CHECKSUM>().ok_or(Unsound::NoChecksum)?;
    match *sum == checksum(table, key, value) {
        true => Ok(value),
        false => Err(Unsound::Checksum),
    }
}

fn checksum(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.name().as_bytes());
    // The length separates the key from the value after it.
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    sum
}

/// The content of a stored row.
pub(super) enum Sound<'a> {
    /// The value.
    Value(&'a [u8]),
    /// Why the value cannot be read.
    Unreadable(&'static str),
}

/// The value stored under `key`. With `bare`, a value without a checksum is accepted.
pub(super) fn unseal<'a>(bare: bool, table: Table, key: &[u8], stored: &'a [u8]) -> Sound<'a> {
    // The schema's version has the form of releases without checksums, so that they recognise a newer store.
    if migrate::is_schema(table, key) {
        return Sound::Value(stored);
    }
    match open(table, key, stored) {
        Ok(value) => Sound::Value(value),
        Err(Unsound::NoChecksum) if bare => Sound::Value(stored),
        Err(unsound) => Sound::Unreadable(unsound.text()),
    }
}

pub(super) fn decode<T: DeserializeOwned>(
    bare: bool,
    table: Table,
    key: &[u8],
    stored: &[u8],
) -> Result<T, StoreError> {
    let error = match unseal(bare, table, key, stored) {
        Sound::Value(value) => match serde_json::from_slice(value) {
            Ok(value) => return Ok(value),
            Err(error) => error.to_string(),
        },
        Sound::Unreadable(reason) => reason.to_owned(),
    };
    Err(StoreError::Value {
        table: table.name(),
        key: key_text(key),
        error,
    })
}

/// Skips unreadable rows that the daemon can run without.
pub(super) fn usable<T>(
    damage: &Damage,
    table: Table,
    key: &[u8],
    value: Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Value { error, .. }) if table.is_expendable() => {
            damage.skipped(table, key, &error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_flipped_bit_and_another_key_are_detected(
            key in prop::collection::vec(any::<u8>(), 0..20),
            value in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let stored = seal(Table::Nodes, &key, &value);
            prop_assert_eq!(open(Table::Nodes, &key, &stored), Ok(&value[..]));
            prop_assert!(open(Table::Leases, &key, &stored).is_err());
            let mut other = key.clone();
            other.push(0);
            prop_assert!(open(Table::Nodes, &other, &stored).is_err());
            let mut flipped = stored.clone();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            prop_assert!(open(Table::Nodes, &key, &flipped).is_err());
            prop_assert!(open(Table::Nodes, &key, &stored[..at]).is_err());
        }
    }
}
