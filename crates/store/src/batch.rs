//! Writes that are handed over as one thing.

use super::{StoreError, Table, embedded::Transaction, error::key_text};
use serde::{Serialize, de::DeserializeOwned};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a key, if it is there.
    Delete(Table, Vec<u8>),
    /// Has the thread that applies it panic.
    #[cfg(test)]
    Panic,
}

/// What a key has to hold for a batch to be written.
#[derive(Clone, Debug)]
enum Want {
    Absent,
    /// That value, as `read` writes what it reads.
    Value {
        value: Vec<u8>,
        read: fn(&[u8]) -> Option<Vec<u8>>,
    },
    /// These bytes, as they are stored, readable or not.
    Stored(Vec<u8>),
}

/// Writes that happen together or not at all, if what the batch expects still holds.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    wants: Vec<(Table, Vec<u8>, Want)>,
    ops: Vec<Op>,
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Sets `key` to `value`.
    ///
    /// Panics if `value` cannot be written as JSON, which only maps with keys that are no text cannot; no type of ours is one.
    pub fn put<T: Serialize>(mut self, table: Table, key: impl Into<Vec<u8>>, value: &T) -> Self {
        let value = serde_json::to_vec(value).expect("types of the store are JSON");
        self.ops.push(Op::Put(table, key.into(), value));
        self
    }

    /// Removes `key`, if it is there.
    pub fn delete(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.ops.push(Op::Delete(table, key.into()));
        self
    }

    /// Has the thread that applies it panic.
    #[cfg(test)]
    pub(super) fn panic(mut self) -> Self {
        self.ops.push(Op::Panic);
        self
    }

    /// What `other` does, behind what this does.
    pub fn and(mut self, other: Batch) -> Self {
        self.wants.extend(other.wants);
        self.ops.extend(other.ops);
        self
    }

    /// The batch is only written if `key` is not there; otherwise it fails with [`StoreError::Conflict`].
    pub fn expect_absent(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.wants.push((table, key.into(), Want::Absent));
        self
    }

    /// The batch is only written if `key` has that value; otherwise it fails with [`StoreError::Conflict`]. What counts is what the
    /// type reads and not the bytes: an older release may have written the same value in another way.
    ///
    /// Panics as [`Batch::put`] does. `T` has its fields in one order (no `HashMap`), or equal values would differ.
    pub fn expect<T: Serialize + DeserializeOwned>(mut self, table: Table, key: impl Into<Vec<u8>>, value: &T) -> Self {
        let want = Want::Value {
            value: serde_json::to_vec(value).expect("types of the store are JSON"),
            read: |stored| serde_json::to_vec(&serde_json::from_slice::<T>(stored).ok()?).ok(),
        };
        self.wants.push((table, key.into(), want));
        self
    }

    /// [`Batch::expect`], or [`Batch::expect_absent`] if nothing was there.
    pub fn expect_read<T: Serialize + DeserializeOwned>(
        self,
        table: Table,
        key: impl Into<Vec<u8>>,
        value: Option<&T>,
    ) -> Self {
        match value {
            Some(value) => self.expect(table, key, value),
            None => self.expect_absent(table, key),
        }
    }

    /// The batch is only written if these bytes are stored under `key`.
    pub(super) fn expect_stored(mut self, table: Table, key: &[u8], stored: Vec<u8>) -> Self {
        self.wants.push((table, key.to_vec(), Want::Stored(stored)));
        self
    }

    /// Number of writes in it.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// True without writes.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Applies it, or fails with [`StoreError::Conflict`] before the first write.
    pub(super) fn apply(&self, tx: &mut Transaction) -> Result<(), StoreError> {
        for (table, key, want) in &self.wants {
            let holds = match want {
                Want::Absent => !tx.is_there(*table, key)?,
                Want::Stored(bytes) => tx.stored(*table, key)?.is_some_and(|stored| stored == *bytes),
                Want::Value { value, read } => {
                    let found = tx.value(*table, key)?;
                    found
                        .and_then(|found| read(&found))
                        .is_some_and(|found| found == *value)
                }
            };
            if !holds {
                return Err(StoreError::Conflict {
                    table: table.name(),
                    key: key_text(key),
                });
            }
        }
        for op in &self.ops {
            match op {
                Op::Put(table, key, value) => tx.put_value(*table, key, value)?,
                Op::Delete(table, key) => tx.delete(*table, key)?,
                #[cfg(test)]
                Op::Panic => panic!("a test wants it"),
            }
        }
        Ok(())
    }
}
