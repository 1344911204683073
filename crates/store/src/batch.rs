//! Writes that are handed over as one thing.

use super::{StoreError, Table, Write, error::key_text};
use serde::Serialize;

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

/// Writes that happen together or not at all, if their preconditions hold.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    absent: Vec<(Table, Vec<u8>)>,
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
        self.absent.extend(other.absent);
        self.ops.extend(other.ops);
        self
    }

    /// The batch is only written if `key` is not there; otherwise it fails with [`StoreError::Conflict`].
    pub fn expect_absent(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.absent.push((table, key.into()));
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
    pub(super) fn apply(&self, tx: &mut Write) -> Result<(), StoreError> {
        for (table, key) in &self.absent {
            if tx.is_there(*table, key)? {
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
