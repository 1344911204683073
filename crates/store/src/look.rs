//! Verifies every row of the store: after a start in the background, and by `rackstrap backup --check`.

use super::{
    BadRow, Batch, Store, StoreError, Table,
    damage::some_of,
    embedded::{Database, Read},
    row::Sound,
};
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// Most rows that are set aside; further ones stay in their tables and are skipped there.
const KEPT_ASIDE: u64 = 1_000;

/// The result of verifying a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Number of readable rows, by table.
    pub rows: BTreeMap<String, u64>,
    /// Unreadable rows that the daemon needs.
    pub needed: Vec<BadRow>,
    /// Unreadable rows that the daemon can run without.
    pub expendable: Vec<BadRow>,
    /// Tables that cannot be read to their end, with the reason.
    pub tables: BTreeMap<String, String>,
}

impl Look {
    /// Number of readable rows.
    pub fn total(&self) -> u64 {
        self.rows.values().sum()
    }

    /// True if everything can be read.
    pub fn is_sound(&self) -> bool {
        self.needed.is_empty() && self.expendable.is_empty() && self.tables.is_empty()
    }
}

/// A row that was removed from its table because it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Time of the removal.
    pub at: Timestamp,
    /// The row and its fault.
    #[serde(flatten)]
    pub row: BadRow,
    /// The stored bytes in hex digits, for a person who wants to recover data.
    pub stored: String,
}

/// Verifies the tables for which `wanted` is true.
fn look(snapshot: &Read<'_>, wanted: impl Fn(Table) -> bool) -> Look {
    let mut found = Look::default();
    for table in Table::ALL.into_iter().filter(|table| wanted(*table)) {
        let mut rows = 0;
        let bad = match table.is_expendable() {
            true => &mut found.expendable,
            false => &mut found.needed,
        };
        let end = snapshot.each_checked(table, |key, row| {
            match row {
                Sound::Value(_) => rows += 1,
                Sound::Unreadable(reason) => bad.push(BadRow::new(table, key, reason)),
            }
            Ok::<_, StoreError>(())
        });
        found.rows.insert(table.name().to_owned(), rows);
        if let Err(error) = end {
            found.tables.insert(table.name().to_owned(), error.to_string());
        }
    }
    found
}

/// Fails if the store has unreadable rows that the daemon needs.
pub(super) fn refuse_damaged(database: &Database) -> Result<(), StoreError> {
    database.read(|snapshot| {
        let found = look(snapshot, |table| !table.is_expendable());
        let path = database.path().to_owned();
        match found.tables.into_iter().next() {
            Some((table, error)) => Err(StoreError::Damaged {
                path,
                error: format!("table {table}: {error}"),
            }),
            None if found.needed.is_empty() => Ok(()),
            None => Err(StoreError::Rows {
                path,
                rows: some_of(&found.needed),
            }),
        }
    })
}

impl Store {
    /// Verifies every row, in one snapshot. The store can be used meanwhile.
    ///
    /// # Errors
    /// The snapshot cannot be made. Faults of tables and rows are in the result.
    pub fn look(&self) -> Result<Look, StoreError> {
        self.read(|snapshot| Ok(look(snapshot, |_| true)))
    }

    /// The same for the store in file `path`, which no process may have open. Its schema version stays.
    ///
    /// # Errors
    /// The store does not exist, another process has it open, or it cannot be opened at all.
    pub fn look_at_file(path: &Path) -> Result<Look, StoreError> {
        Database::open_existing(path)?.read(|snapshot| Ok(look(snapshot, |_| true)))
    }

    /// Moves unreadable rows that the daemon can run without from their tables to [`Table::SetAside`]. Returns their number.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn set_aside_damaged(&self, now: Timestamp) -> Result<u64, StoreError> {
        let (rows, mut room) = self.read(|snapshot| {
            let aside = snapshot.count_stored(Table::SetAside)?;
            Ok::<_, StoreError>((damaged(snapshot)?, KEPT_ASIDE.saturating_sub(aside)))
        })?;
        let mut taken = 0;
        for Damaged {
            table,
            key,
            reason,
            stored,
        } in rows
        {
            if room == 0 {
                break;
            }
            let mut batch = Batch::new().delete(table, key.clone());
            // Unreadable rows of this table itself are of no use.
            if table != Table::SetAside {
                let row = SetAside {
                    at: now,
                    row: BadRow::new(table, &key, reason),
                    stored: hex::encode(&stored),
                };
                let name = [table.name().as_bytes(), b"/", &key[..]].concat();
                batch = batch.put(Table::SetAside, name, &row);
            }
            match self.commit_blocking(batch.expect_stored(table, &key, stored)) {
                Ok(()) => {
                    taken += 1;
                    room -= 1;
                }
                // The row was written again meanwhile.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// The rows that were set aside.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn rows_set_aside(&self) -> Result<Vec<SetAside>, StoreError> {
        let rows = self.scan(Table::SetAside, b"")?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// Deletes the rows that were set aside. Returns their number.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn forget_rows_set_aside(&self) -> Result<u64, StoreError> {
        let rows = self.scan::<serde::de::IgnoredAny>(Table::SetAside, b"")?;
        let count = rows.len() as u64;
        let gone = |batch: Batch, (key, _)| batch.delete(Table::SetAside, key);
        self.commit_blocking(rows.into_iter().fold(Batch::new(), gone))?;
        Ok(count)
    }

    /// Unreadable rows that were skipped since the store was opened, and the number of further ones without a name.
    #[cfg(test)]
    pub(super) fn skipped(&self) -> (Vec<BadRow>, u64) {
        self.shared.database.damage.skipped_rows()
    }
}

/// An unreadable row, as stored.
struct Damaged {
    table: Table,
    key: Vec<u8>,
    reason: &'static str,
    stored: Vec<u8>,
}

/// The unreadable rows that the daemon can run without.
fn damaged(snapshot: &Read<'_>) -> Result<Vec<Damaged>, StoreError> {
    let mut found = Vec::new();
    for table in Table::ALL.into_iter().filter(|table| table.is_expendable()) {
        snapshot.each_checked(table, |key, row| {
            if let Sound::Unreadable(reason) = row {
                found.push((table, key.to_vec(), reason));
            }
            Ok::<_, StoreError>(())
        })?;
    }
    let rows = found.into_iter().map(|(table, key, reason)| {
        let stored = snapshot.stored(table, &key)?;
        Ok(stored.map(|stored| Damaged {
            table,
            key,
            reason,
            stored,
        }))
    });
    rows.filter_map(Result::transpose).collect()
}
