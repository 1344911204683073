//! Rows that cannot be read: whether the daemon can run without them, and which were found.

use super::{Table, error::key_text};
use rackstrap_base::sync::lock;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard},
};

/// Most unreadable rows that are kept by name; further ones are counted.
const NAMED: usize = 1_000;

impl Table {
    /// Whether the daemon can run without a row of this table: events, and facts that machines will report again. A missing row of
    /// another table would take a node's name, root or secrets away, or give an address to two machines.
    pub fn is_expendable(self) -> bool {
        match self {
            Table::History | Table::Machines | Table::Events | Table::Standings | Table::SetAside => true,
            Table::Nodes
            | Table::Sessions
            | Table::Leases
            | Table::Boots
            | Table::Disks
            | Table::Orders
            | Table::Restarts
            | Table::Current
            | Table::Rollouts
            | Table::RolloutNodes
            | Table::Trials
            | Table::Secrets
            | Table::Meta => false,
        }
    }
}

/// A row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// Name of the table.
    pub table: String,
    /// The key: text, or hex digits after `0x`.
    pub key: String,
    /// The fault.
    pub reason: String,
}

impl BadRow {
    pub(super) fn new(table: Table, key: &[u8], reason: impl Into<String>) -> Self {
        BadRow {
            table: table.name().to_owned(),
            key: key_text(key),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.table, self.key, self.reason)
    }
}

/// The names of some rows for a message, and the number of the rest.
pub(super) fn some_of(rows: &[BadRow]) -> String {
    const SHOWN: usize = 5;
    let mut text = Vec::from_iter(rows.iter().take(SHOWN).map(ToString::to_string)).join("; ");
    if let Some(more @ 1..) = rows.len().checked_sub(SHOWN) {
        text += &format!("; and {more} more");
    }
    text
}

/// Expendable rows that were found unreadable.
#[derive(Debug, Default)]
pub(super) struct Damage(Mutex<SkippedRows>);

#[derive(Debug, Default)]
struct SkippedRows {
    rows: BTreeMap<(&'static str, Vec<u8>), String>,
    more: u64,
}

impl Damage {
    /// Records a row that was skipped, and logs it the first time.
    pub(super) fn skipped(&self, table: Table, key: &[u8], reason: &str) {
        let mut known = self.lock();
        let id = (table.name(), key.to_vec());
        if known.rows.contains_key(&id) {
            return;
        }
        if known.rows.len() >= NAMED {
            known.more += 1;
            // Further rows are logged by powers of two, because a damaged disk must not fill the log too.
            if known.more.is_power_of_two() {
                tracing::warn!("store: {} further rows cannot be read and are skipped", known.more);
            }
            return;
        }
        known.rows.insert(id, reason.to_owned());
        drop(known);
        tracing::warn!("store: {} is skipped", BadRow::new(table, key, reason));
    }

    /// The rows that were skipped, and the number of further ones that were not kept by name.
    #[cfg(test)]
    pub(super) fn skipped_rows(&self) -> (Vec<BadRow>, u64) {
        let known = self.lock();
        let rows = known.rows.iter().map(|((table, key), reason)| BadRow {
            table: (*table).to_owned(),
            key: key_text(key),
            reason: reason.clone(),
        });
        (rows.collect(), known.more)
    }

    fn lock(&self) -> MutexGuard<'_, SkippedRows> {
        lock(&self.0)
    }
}
