//! Batches of writes.

use super::{StoreError, Table, embedded::Transaction, error::key_text};
use serde::{Serialize, de::DeserializeOwned};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a key, if it is there.
    Delete(Table, Vec<u8>),
    /// Makes the thread that applies it panic.
    #[cfg(test)]
    Panic,
}

/// The value that a key must have for a batch to be written.
#[derive(Clone, Debug)]
enum Want {
    Absent,
    /// This value, in the form in which `read` serializes what it parses.
    Value {
        value: Vec<u8>,
        read: fn(&[u8]) -> Option<Vec<u8>>,
    },
    /// These stored bytes, whether they can be read or not.
    Stored(Vec<u8>),
}

/// Writes that happen together or not at all, if the expectations of the batch hold.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    wants: Vec<(Table, Vec<u8>, Want)>,
    ops: Vec<Op>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Sets `key` to `value`.
    ///
    /// Panics if `value` cannot be written as JSON. That only happens for maps whose keys are not text; the store has no such type.
    pub fn put<T: Serialize>(mut self, table: Table, key: impl Into<Vec<u8>>, value: &T) -> Self {
        let value = serde_json::to_vec(value).expect("types of the store are JSON");
        self.ops.push(Op::Put(table, key.into(), value));
        self
    }

    /// Removes `key` if it exists.
    pub fn delete(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.ops.push(Op::Delete(table, key.into()));
        self
    }

    /// Makes the thread that applies the batch panic.
    #[cfg(test)]
    pub(super) fn panic(mut self) -> Self {
        self.ops.push(Op::Panic);
        self
    }

    /// Appends the writes and expectations of `other`.
    pub fn and(mut self, other: Batch) -> Self {
        self.wants.extend(other.wants);
        self.ops.extend(other.ops);
        self
    }

    /// Requires that `key` does not exist; otherwise the batch fails with [`StoreError::Conflict`].
    pub fn expect_absent(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.wants.push((table, key.into(), Want::Absent));
        self
    }

    /// Requires that `key` has that value; otherwise the batch fails with [`StoreError::Conflict`]. Values are compared as parsed by the
    /// type and not as bytes, because an older release may have written the same value in another form.
    ///
    /// Panics like [`Batch::put`]. `T` must serialize its fields in a fixed order (no `HashMap`), or equal values would differ.
    pub fn expect<T: Serialize + DeserializeOwned>(mut self, table: Table, key: impl Into<Vec<u8>>, value: &T) -> Self {
        let want = Want::Value {
            value: serde_json::to_vec(value).expect("types of the store are JSON"),
            read: |stored| serde_json::to_vec(&serde_json::from_slice::<T>(stored).ok()?).ok(),
        };
        self.wants.push((table, key.into(), want));
        self
    }

    /// [`Batch::expect`], or [`Batch::expect_absent`] if the value read was none.
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

    /// Requires that these bytes are stored under `key`.
    pub(super) fn expect_stored(mut self, table: Table, key: &[u8], stored: Vec<u8>) -> Self {
        self.wants.push((table, key.to_vec(), Want::Stored(stored)));
        self
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// True if there are no writes.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Applies the batch, or fails with [`StoreError::Conflict`] before the first write.
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
