//! What entries of a file make of the inventory: changes, and what speaks against each, by its line.

use super::Entry;
use crate::{
    config::{Site, one_line},
    inventory::{Change, Changed, Inventory, NewNode, Node, Patch, apply},
};
use serde::Serialize;
use std::fmt;

/// Conflicts that are shown; nobody mends more at once.
const SHOWN: usize = 100;

/// What an import would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The changes that do it, for [`apply`].
    #[serde(skip)]
    pub changes: Vec<Change>,
    /// Nodes that would be new or different.
    pub changed: Vec<Changed>,
    /// Nodes that are there and just so.
    pub unchanged: usize,
    /// What speaks against it; nothing is imported unless this is empty.
    pub conflicts: Vec<Conflict>,
}

/// Why an entry cannot become part of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Line of the file.
    pub line: usize,
    /// What speaks against it, and what to do.
    pub message: String,
    /// True if it is only about an address that the file gives to the node.
    pub is_address: bool,
}

/// Compares `entries` with `inventory`, as if all of them were put in at once: nodes of the file may exchange their
/// cards.
pub fn compare(inventory: &Inventory, site: &Site, entries: &[Entry]) -> Difference {
    let mut difference = Difference {
        changes: entries
            .iter()
            .map(|entry| change(entry, inventory.get(&entry.name).map(AsRef::as_ref)))
            .collect(),
        ..Difference::default()
    };
    let conflict = |entry: &Entry, message: String, is_address| Conflict {
        line: entry.line,
        message: one_line(&message),
        is_address,
    };
    let wrong = entries
        .iter()
        .filter_map(|entry| Some(conflict(entry, other_address(entry, site)?, true)));
    difference.conflicts.extend(wrong);
    match apply(inventory, site, &difference.changes) {
        Ok((_, changed)) => {
            let (same, changed): (Vec<_>, _) = changed.into_iter().partition(Changed::is_nothing);
            difference.unchanged = same.len();
            difference.changed = changed;
        }
        Err(refusals) => difference.conflicts.extend(
            refusals
                .0
                .iter()
                .map(|(at, error)| conflict(&entries[*at], error.to_string(), false)),
        ),
    }
    difference.conflicts.sort_by_key(|conflict| conflict.line);
    difference
}

/// The change that an entry asks for: of what it does not say, an existing node keeps what it has.
fn change(entry: &Entry, existing: Option<&Node>) -> Change {
    let groups = entry.groups.as_ref().map(|groups| groups.iter().cloned().collect());
    let Some(node) = existing else {
        return Change::Add(NewNode {
            name: entry.name.clone(),
            hwaddrs: entry.hwaddrs.clone(),
            profiles: entry.profiles.clone().unwrap_or_default(),
            groups: groups.unwrap_or_default(),
        });
    };
    // What stays as it is is not asked about, even if the site file has changed since.
    let groups = groups.unwrap_or_else(|| node.groups.clone());
    let patch = Patch {
        hwaddrs: (node.hwaddrs != entry.hwaddrs).then(|| entry.hwaddrs.clone()),
        profiles: entry.profiles.clone().filter(|profiles| *profiles != node.profiles),
        join: groups.difference(&node.groups).cloned().collect(),
        leave: node.groups.difference(&groups).cloned().collect(),
        ..Patch::default()
    };
    Change::Set {
        name: node.name.clone(),
        patch,
    }
}

/// The source gives it another address than its name does.
fn other_address(entry: &Entry, site: &Site) -> Option<String> {
    let said = entry.ipaddr?;
    let own = site
        .cluster
        .naming
        .name_to_address(&entry.name)
        .ok()
        .filter(|own| *own != said)?;
    Some(format!(
        "the file gives {} the address {said}, and its name stands for {own}; correct one of the two, or leave the \
         address out",
        entry.name
    ))
}

impl fmt::Display for Difference {
    /// A line for each node that would change, and a count of everything; if something speaks against it, a line for each conflict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Conflict { line, message, .. } in self.conflicts.iter().take(SHOWN) {
            writeln!(f, "line {line}: {message}")?;
        }
        if self.conflicts.len() > SHOWN {
            writeln!(f, "… and {} more", self.conflicts.len() - SHOWN)?;
        }
        // Nodes that "were added" have no place in a refusal.
        match self.conflicts.len() {
            0 => {}
            1 => return f.write_str("1 conflict: nothing is imported"),
            count => return write!(f, "{count} conflicts: nothing is imported"),
        }
        for line in crate::inventory::summary(&self.changed) {
            writeln!(f, "{line}")?;
        }
        let added = self.changed.iter().filter(|changed| changed.before.is_none()).count();
        write!(
            f,
            "{added} added, {} changed, {} unchanged",
            self.changed.len() - added,
            self.unchanged
        )
    }
}
