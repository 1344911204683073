//! The history of nodes: who changed what, and when.

use rackstrap_base::{clock::Timestamp, text::one_line};
use rackstrap_model::inventory::{Changed, Entry};
use rackstrap_store::{Batch, Read, Store, StoreError, Table};
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, btree_map};

/// At most this many entries are kept for each name; the oldest are deleted first.
const PER_NODE: usize = 100;
/// Longest name of an author, in bytes.
const WHO: usize = 64;
/// Key in [`Table::Meta`] of the number of the last entry.
const LAST: &[u8] = b"history";

/// Names contain no slash.
fn prefix(name: &str) -> Vec<u8> {
    format!("{name}/").into_bytes()
}

/// Number of the last entry in the store. Each change of the inventory makes a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastEntry(Option<u64>);

impl LastEntry {
    /// The last entry of the store.
    ///
    /// # Errors
    /// An error of the store.
    pub fn read(store: &Store) -> Result<LastEntry, StoreError> {
        store.get(Table::Meta, LAST).map(LastEntry)
    }
}

/// Records `changed` under each name that it concerns. Returns the batch to write with the change, and the new last entry.
/// The batch expects that `last` is still the last one.
///
/// # Errors
/// An error of the store.
pub fn remember(
    rows: &Read<'_>,
    last: LastEntry,
    at: Timestamp,
    by: &str,
    changed: &[Changed],
) -> Result<(Batch, LastEntry), StoreError> {
    let mut number = last.0.unwrap_or_default();
    let by = one_line(by, WHO);
    let mut batch = Batch::new().expect_read(Table::Meta, LAST, last.0.as_ref());
    // The keys of each name's entries, oldest first.
    let mut kept: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    for changed in changed {
        number += 1;
        let entry = Entry {
            at,
            by: by.clone(),
            changed: changed.without_secrets(),
        };
        let mut names: Vec<&str> = [&changed.before, &changed.after]
            .into_iter()
            .flatten()
            .map(|node| node.name.as_str())
            .collect();
        names.dedup();
        for name in names {
            let prefix = prefix(name);
            let key = [&prefix[..], format!("{number:016x}").as_bytes()].concat();
            let keys = match kept.entry(name) {
                btree_map::Entry::Occupied(keys) => keys.into_mut(),
                btree_map::Entry::Vacant(vacant) => {
                    let known = rows.scan::<IgnoredAny>(Table::History, &prefix)?;
                    vacant.insert(known.into_iter().map(|(key, _)| key).collect())
                }
            };
            batch = batch.put(Table::History, key.clone(), &entry);
            keys.push(key);
            let oldest = keys.drain(..keys.len().saturating_sub(PER_NODE));
            batch = oldest.fold(batch, |batch, key| batch.delete(Table::History, key));
        }
    }
    Ok((batch.put(Table::Meta, LAST, &number), LastEntry(Some(number))))
}

/// The history of a name, oldest first, also of deleted nodes.
pub fn history(store: &Store, name: &str) -> Result<Vec<Entry>, StoreError> {
    let entries = store.scan(Table::History, &prefix(name))?;
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}
