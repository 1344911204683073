//! A look at every row of the store: at a start in the background, and by `rackstrap backup --check`.

use super::{
    BadRow, Store, StoreError, Table, Write,
    damage::some_of,
    embedded::{Database, Read},
    row::Sound,
};
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// Rows that are kept aside at most; further ones stay where they are, and are passed over there.
const KEPT_ASIDE: u64 = 1_000;

/// What a look at the store has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Rows that can be read, by table.
    pub rows: BTreeMap<String, u64>,
    /// Rows that cannot be read, and that the daemon cannot do without.
    pub needed: Vec<BadRow>,
    /// Rows that cannot be read, and that the daemon can do without.
    pub expendable: Vec<BadRow>,
    /// Tables that cannot be read to their end, and why.
    pub tables: BTreeMap<String, String>,
}

impl Look {
    /// Rows that can be read.
    pub fn total(&self) -> u64 {
        self.rows.values().sum()
    }

    /// Whether everything can be read.
    pub fn is_sound(&self) -> bool {
        self.needed.is_empty() && self.expendable.is_empty() && self.tables.is_empty()
    }
}

/// A row that was taken out of its table as it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Time at which the row was set aside.
    pub at: Timestamp,
    /// The row, and what was wrong with it.
    #[serde(flatten)]
    pub row: BadRow,
    /// What was stored as its value, in hex digits: for whoever wants to see what is left of it.
    pub stored: String,
}

/// Looks at the tables that `wanted` names.
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

/// Refuses a store of which a row cannot be read that the daemon cannot do without.
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
    /// Looks at every row, in one snapshot. The store can be used meanwhile.
    ///
    /// # Errors
    /// The snapshot cannot be made. What is wrong with tables and rows is in the answer.
    pub fn look(&self) -> Result<Look, StoreError> {
        self.read(|snapshot| Ok(look(snapshot, |_| true)))
    }

    /// The same for the store in file `path`, which nobody has open. It stays at its schema version.
    ///
    /// # Errors
    /// There is none, another process has it open, or it cannot be opened at all.
    pub fn look_at_file(path: &Path) -> Result<Look, StoreError> {
        Database::open_existing(path)?.read(|snapshot| Ok(look(snapshot, |_| true)))
    }

    /// Takes rows that cannot be read, and that can be done without, out of their tables and keeps what is left of them in
    /// [`Table::SetAside`]. Returns how many it took.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn set_aside_damaged(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut found: Vec<(Table, Vec<u8>)> = Vec::new();
        self.read(|snapshot| {
            for table in Table::ALL.into_iter().filter(|table| table.is_expendable()) {
                snapshot.each_checked(table, |key, row| {
                    if matches!(row, Sound::Unreadable(_)) {
                        found.push((table, key.to_vec()));
                    }
                    Ok::<_, StoreError>(())
                })?;
            }
            Ok::<_, StoreError>(())
        })?;
        if found.is_empty() {
            return Ok(0);
        }
        self.write(|tx| {
            let mut room = KEPT_ASIDE.saturating_sub(tx.count(Table::SetAside)?);
            let mut taken = 0;
            for (table, key) in &found {
                if room == 0 {
                    break;
                }
                if set_aside(tx, *table, key, now)? {
                    taken += 1;
                    room -= 1;
                }
            }
            Ok(taken)
        })
    }

    /// The rows that were set aside.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn rows_set_aside(&self) -> Result<Vec<SetAside>, StoreError> {
        let rows = self.scan(Table::SetAside, b"")?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// Deletes what was set aside. Returns how many rows that were.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn forget_rows_set_aside(&self) -> Result<u64, StoreError> {
        self.write(|tx| {
            let rows = tx.scan::<serde::de::IgnoredAny>(Table::SetAside, b"")?;
            for (key, _) in &rows {
                tx.delete(Table::SetAside, key)?;
            }
            Ok(rows.len() as u64)
        })
    }

    /// Rows that were passed over since the store was opened, as they cannot be read; and how many more there were than are named.
    #[cfg(test)]
    pub(super) fn passed_over(&self) -> (Vec<BadRow>, u64) {
        self.shared.database.damage.met()
    }
}

/// False if the row is not there any more, or was written again meanwhile.
fn set_aside(tx: &mut Write<'_>, table: Table, key: &[u8], now: Timestamp) -> Result<bool, StoreError> {
    let Some((stored, reason)) = tx.unreadable(table, key)? else {
        return Ok(false);
    };
    // What cannot be read of what was set aside is nothing that anyone could use.
    if table != Table::SetAside {
        let row = SetAside {
            at: now,
            row: BadRow::new(table, key, reason),
            stored: hex::encode(stored),
        };
        let name = [table.name().as_bytes(), b"/", key].concat();
        tx.put(Table::SetAside, &name, &row)?;
    }
    tx.delete(table, key)?;
    Ok(true)
}
