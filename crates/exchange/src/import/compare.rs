//! Compares the entries of a file with the inventory: the changes that they make, and the conflicts, by line.

use super::{Entry, Place, Places};
use rackstrap_model::inventory::{Change, Changed, Inventory, InventoryError, NewNode, Node, Patch, apply, faults};
use rackstrap_site::{HIDDEN, IPADDR, Site, one_line, value::Value, variable};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

/// The result of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The changes, for [`apply`].
    #[serde(skip)]
    pub changes: Vec<Change>,
    /// Nodes that would be new or different.
    pub changed: Vec<Changed>,
    /// Number of nodes that are in the inventory already and equal.
    pub unchanged: usize,
    /// Conflicts. Nothing is imported unless this is empty.
    pub conflicts: Vec<Conflict>,
}

/// Why an entry cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Line of the file.
    pub line: usize,
    /// Column of the problem, from 1; 0 if it is unknown.
    pub column: usize,
    /// The problem, and what to do.
    pub message: String,
    /// The node that has the card already; empty for other problems.
    #[serde(skip)]
    pub(super) owner: String,
    /// Whether the problem is only an address that the file gives to the node.
    pub(super) is_address: bool,
    /// Whether it ends if the node keeps the address of the file as its own.
    #[serde(skip)]
    pub(super) can_keep: bool,
}

/// Compares `entries` with `inventory`, as if all of them were added at once, so that nodes of the file may exchange their
/// cards.
pub fn compare(inventory: &Inventory, site: &Site, entries: &[Entry]) -> Difference {
    let mut difference = Difference {
        changes: entries
            .iter()
            .map(|entry| change(entry, inventory.get(&entry.name).map(AsRef::as_ref)))
            .collect(),
        ..Difference::default()
    };
    let wrong = entries.iter().filter_map(|entry| other_address(entry, inventory, site));
    difference.conflicts.extend(wrong);
    match apply(inventory, site, &difference.changes) {
        Ok((_, changed)) => {
            let (same, changed): (Vec<_>, _) = changed.into_iter().partition(Changed::is_nothing);
            difference.unchanged = same.len();
            difference.changed = changed;
        }
        Err(refusals) => {
            let conflicts = refusals.0.iter().map(|(at, error)| conflict(&entries[*at], error));
            difference.conflicts.extend(conflicts);
        }
    }
    difference
        .conflicts
        .sort_by_key(|conflict| (conflict.line, conflict.column));
    difference
}

/// Further problems of entries that have a problem already, each by itself.
pub(super) fn conflicts_of_flawed(inventory: &Inventory, site: &Site, flawed: &[Entry]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for entry in flawed {
        let existing = inventory.get(&entry.name).map(AsRef::as_ref);
        conflicts.extend(other_address(entry, inventory, site));
        let said = |error: &&InventoryError| {
            // The problem of its line says this already.
            matches!(
                error,
                InventoryError::LastHwaddr(_)
                    | InventoryError::NoHwaddr(_)
                    | InventoryError::Repeated { .. }
                    | InventoryError::Twice(_)
            )
        };
        let faults = faults(inventory, site, &change(entry, existing));
        conflicts.extend(faults.iter().filter(|error| !said(error)).map(|e| conflict(entry, e)));
    }
    conflicts
}

fn conflict(entry: &Entry, error: &InventoryError) -> Conflict {
    let (line, column) = place(entry, error).unwrap_or(entry.places.name);
    Conflict {
        line: if line == 0 { entry.line } else { line },
        column,
        message: one_line(&error.to_string()),
        owner: match error {
            InventoryError::Taken { owner, .. } => owner.clone(),
            _ => String::new(),
        },
        is_address: false,
        // A name that no pattern has needs an address of its own.
        can_keep: matches!(error, InventoryError::Name(_)) && entry.ipaddr.is_some() && own_ipaddr(entry).is_none(),
    }
}

/// The place of the part that `error` is about; none for the name.
fn place(entry: &Entry, error: &InventoryError) -> Option<Place> {
    let Places {
        hwaddrs,
        profiles,
        groups,
        settings,
        ..
    } = &entry.places;
    let among = |places: &[Place], all: Option<&Vec<String>>, word: &String| {
        let at = all?.iter().position(|one| one == word)?;
        places.get(at).copied()
    };
    match error {
        InventoryError::Profile { profile, .. } => among(profiles, entry.profiles.as_ref(), profile),
        InventoryError::Group { group, .. } => among(groups, entry.groups.as_ref(), group),
        InventoryError::Setting { problem, .. } => settings.get(&problem.key).copied(),
        InventoryError::TooMany { what: "profiles", .. } => profiles.first().copied(),
        InventoryError::TooMany { what: "groups", .. } => groups.first().copied(),
        InventoryError::TooMany { .. } => hwaddrs.first().copied(),
        InventoryError::Repeated { hwaddr, .. }
        | InventoryError::NoCard { hwaddr, .. }
        | InventoryError::Taken { hwaddr, .. } => {
            let at = entry.hwaddrs.iter().rposition(|one| one == hwaddr)?;
            hwaddrs.get(at).copied()
        }
        InventoryError::Name(_)
        | InventoryError::Exists { .. }
        | InventoryError::AttributeName { .. }
        | InventoryError::AttributeValue { .. }
        | InventoryError::LastHwaddr(_)
        | InventoryError::NoHwaddr(_)
        | InventoryError::Address { .. }
        | InventoryError::Twice(_)
        | InventoryError::Unknown { .. } => None,
    }
}

/// The change of an entry. An existing node keeps the settings that the entry does not have.
fn change(entry: &Entry, existing: Option<&Node>) -> Change {
    let groups = entry.groups.as_ref().map(|groups| groups.iter().cloned().collect());
    let Some(node) = existing else {
        return Change::Add(NewNode {
            name: entry.name.clone(),
            hwaddrs: entry.hwaddrs.clone(),
            profiles: entry.profiles.clone().unwrap_or_default(),
            groups: groups.unwrap_or_default(),
            attributes: entry.attributes.clone().unwrap_or_default(),
            settings: entry.settings.clone().unwrap_or_default().into(),
        });
    };
    // Unchanged settings are not checked, even if the site file has changed since.
    let groups = groups.unwrap_or_else(|| node.groups.clone());
    let attributes = entry.attributes.as_ref().unwrap_or(&node.attributes);
    let before = node.settings.written();
    // A file has no secret values of an export, so that those of the node stay. One that was written by hand is taken.
    let is_open = |key: &String| !variable(key).is_some_and(|(_, secret)| secret);
    let open = || before.keys().filter(|key| is_open(key)).cloned();
    let settings = entry.settings.as_ref().map(|settings| {
        let given = settings.iter().filter(|(_, value)| value.as_str() != Some(HIDDEN));
        given
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect::<BTreeMap<_, _>>()
    });
    let same = |settings: &BTreeMap<String, Value>| {
        open().eq(settings.keys().cloned()) && settings.iter().all(|(key, value)| before.get(key) == Some(value))
    };
    let settings = settings.filter(|settings| !same(settings));
    let patch = Patch {
        hwaddrs: (node.hwaddrs != entry.hwaddrs).then(|| entry.hwaddrs.clone()),
        profiles: entry.profiles.clone().filter(|profiles| *profiles != node.profiles),
        join: groups.difference(&node.groups).cloned().collect(),
        leave: node.groups.difference(&groups).cloned().collect(),
        attributes: (attributes
            .iter()
            .filter(|(name, value)| node.attributes.get(*name) != Some(value)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect(),
        drop_attributes: (node
            .attributes
            .keys()
            .filter(|name| !entry.adds && !attributes.contains_key(*name)))
        .cloned()
        .collect(),
        // All are written again, because `KEY+` would add to what the node has.
        drop_settings: settings.iter().filter(|_| !entry.adds).flat_map(|_| open()).collect(),
        settings: settings.unwrap_or_default(),
        ..Patch::default()
    };
    Change::Set {
        name: node.name.clone(),
        patch,
    }
}

/// The address of its own that the entry gives the node.
fn own_ipaddr(entry: &Entry) -> Option<Ipv4Addr> {
    entry.settings.as_ref()?.get(IPADDR)?.as_str()?.parse().ok()
}

/// The conflict if the file gives the node another address than its name does.
fn other_address(entry: &Entry, inventory: &Inventory, site: &Site) -> Option<Conflict> {
    let said = entry.ipaddr?;
    let existing = inventory.get(&entry.name);
    // The node keeps its own address if the file has none of its settings.
    let kept = existing.filter(|_| entry.settings.is_none() || entry.adds);
    let own = own_ipaddr(entry).or_else(|| kept.and_then(|node| node.settings.ipaddr()));
    if own == Some(said) {
        return None;
    }
    let own = own
        .or_else(|| site.cluster.naming.name_to_address(&entry.name).ok())
        .filter(|own| *own != said)?;
    let message = format!(
        "the file gives {} the address {said}, and its name stands for {own}; correct one of the two, or leave the \
         address out",
        entry.name
    );
    Some(Conflict {
        line: entry.line,
        column: entry.places.name.1,
        message: one_line(&message),
        owner: String::new(),
        is_address: true,
        can_keep: true,
    })
}

impl fmt::Display for Difference {
    /// One line for each node that would change, and the numbers of all changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in rackstrap_model::inventory::summary(&self.changed) {
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
