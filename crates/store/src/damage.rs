//! Rows that cannot be read: which of them the daemon can do without, and what was met of them.

use super::{Table, error::key_text};
use rackstrap_base::sync::lock;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard},
};

/// Unreadable rows that are remembered by name; further ones are counted.
const NAMED: usize = 1_000;

impl Table {
    /// Whether the daemon can run without a row of this table: what happened, and what machines will tell again. A row that is
    /// missing from any other table would take a node's name, root or secrets away, or give an address to two machines.
    pub fn is_expendable(self) -> bool {
        match self {
            Table::History | Table::Machines | Table::Events | Table::Standings | Table::SetAside => true,
            Table::Nodes
            | Table::Sessions
            | Table::Leases
            | Table::Boots
            | Table::Disks
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
    /// Key: text, or hex digits behind `0x`.
    pub key: String,
    /// What is wrong with it.
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

/// Rows by their names, for a message: some of them and how many more.
pub(super) fn some_of(rows: &[BadRow]) -> String {
    const SHOWN: usize = 5;
    let mut text = Vec::from_iter(rows.iter().take(SHOWN).map(ToString::to_string)).join("; ");
    if let Some(more @ 1..) = rows.len().checked_sub(SHOWN) {
        text += &format!("; and {more} more");
    }
    text
}

/// What was met of expendable rows that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Damage(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    rows: BTreeMap<(&'static str, Vec<u8>), String>,
    more: u64,
}

impl Damage {
    /// Remembers a row that was passed over, and logs it the first time.
    pub(super) fn passed_over(&self, table: Table, key: &[u8], reason: &str) {
        let mut met = self.lock();
        let id = (table.name(), key.to_vec());
        if met.rows.contains_key(&id) {
            return;
        }
        if met.rows.len() >= NAMED {
            met.more += 1;
            // By powers of two: a damaged disk must not fill the log as well.
            if met.more.is_power_of_two() {
                tracing::warn!("store: {} further rows cannot be read and are passed over", met.more);
            }
            return;
        }
        met.rows.insert(id, reason.to_owned());
        drop(met);
        tracing::warn!("store: {} is passed over", BadRow::new(table, key, reason));
    }

    /// The rows that were passed over, and how many more there were than are remembered.
    #[cfg(test)]
    pub(super) fn met(&self) -> (Vec<BadRow>, u64) {
        let met = self.lock();
        let rows = met.rows.iter().map(|((table, key), reason)| BadRow {
            table: (*table).to_owned(),
            key: key_text(key),
            reason: reason.clone(),
        });
        (rows.collect(), met.more)
    }

    fn lock(&self) -> MutexGuard<'_, Met> {
        lock(&self.0)
    }
}
