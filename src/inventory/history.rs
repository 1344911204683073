//! The history of nodes: who changed what, and when.

use super::{Changed, Node};
use rackstrap_base::{clock::Timestamp, text::one_line};
use rackstrap_store::{Batch, Read, Store, StoreError, Table};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use std::collections::{BTreeMap, BTreeSet, btree_map};

/// At most this many entries are kept for each name; the oldest are deleted first.
const PER_NODE: usize = 100;
/// Longest name of an author, in bytes.
const WHO: usize = 64;
/// Key in [`Table::Meta`] of the number of the last entry.
const LAST: &[u8] = b"history";

/// One change of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Time of the change.
    pub at: Timestamp,
    /// The user who made the change, or the part of the daemon.
    pub by: String,
    /// The node before and after the change.
    pub changed: Changed,
}

/// What changed, one line for each difference: `added`, `hwaddr 52:54:… -> 52:54:…`.
pub fn differences(changed: &Changed) -> Vec<String> {
    let (before, after) = match (&changed.before, &changed.after) {
        (None, Some(node)) => return vec![format!("added{}", described(node))],
        (Some(node), None) => return vec![format!("deleted{}", described(node))],
        (Some(before), Some(after)) => (before, after),
        (None, None) => return Vec::new(),
    };
    let mut lines = Vec::new();
    let mut compare = |what: &str, before: String, after: String| {
        if before != after {
            lines.push(format!("{what} {} -> {}", dash(&before), dash(&after)));
        }
    };
    compare("name", before.name.clone(), after.name.clone());
    compare("address", before.ipaddr.to_string(), after.ipaddr.to_string());
    compare("hwaddr", words(&before.hwaddrs), words(&after.hwaddrs));
    compare("profiles", words(&before.profiles), words(&after.profiles));
    compare("groups", words(&before.groups), words(&after.groups));
    let names: BTreeSet<&String> = before.attributes.keys().chain(after.attributes.keys()).collect();
    for name in names {
        let value = |node: &Node| node.attributes.get(name).cloned().unwrap_or_default();
        compare(&format!("attribute {name}"), value(before), value(after));
    }
    lines
}

fn described(node: &Node) -> String {
    let mut text = format!(": hwaddr {}", words(&node.hwaddrs));
    let attributes = node.attributes.iter().map(|(name, value)| format!("{name}={value}"));
    for (what, list) in [
        ("profiles", words(&node.profiles)),
        ("groups", words(&node.groups)),
        ("attributes", words(attributes)),
    ] {
        if !list.is_empty() {
            text += &format!(", {what} {list}");
        }
    }
    text
}

fn words<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(" ")
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

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
            changed: changed.clone(),
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
