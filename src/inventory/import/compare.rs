//! How imported nodes differ from the inventory, and whether they can become part of it.

use super::Entry;
use crate::{
    config::Site,
    inventory::{Inventory, NewNode, Node, check_add},
};
use rackstrap_wire::HwAddr;
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    fmt,
};

/// What an import would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Nodes that are new.
    pub added: Vec<Node>,
    /// Nodes that are there and differ.
    pub changed: Vec<Change>,
    /// Names of nodes that are there and just so.
    pub unchanged: Vec<String>,
    /// What speaks against it; nothing is imported unless this is empty.
    pub conflicts: Vec<Conflict>,
}

/// A node that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The node as it would be.
    pub node: Node,
    /// What changes about it; at least one.
    pub fields: Vec<FieldChange>,
}

/// One field of a node, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// `hwaddrs`, `profile`, `ipaddr`.
    pub field: &'static str,
    /// As it is.
    pub old: String,
    /// As it would be.
    pub new: String,
}

/// Why an entry cannot become part of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Line of the file.
    pub line: usize,
    /// Name in the file.
    pub name: String,
    /// What speaks against it, and what to do.
    pub message: String,
}

impl Difference {
    /// True if the import may happen.
    pub fn is_possible(&self) -> bool {
        self.conflicts.is_empty()
    }

    /// True if the import would do nothing.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty()
    }
}

/// Compares `entries` with `inventory`, as if all of them were put in at once: nodes of the file may exchange their
/// cards.
pub fn compare(inventory: &Inventory, site: &Site, entries: &[Entry]) -> Difference {
    let mut difference = Difference::default();
    let named: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    // What stays beside the imported nodes; against that each of them is checked like one that is added.
    let others = inventory.iter().filter(|node| !named.contains(node.name.as_str()));
    let others = Inventory::new(others.map(|node| Node::clone(node)));
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
    let mut owners: HashMap<HwAddr, &Entry> = HashMap::with_capacity(entries.len());
    for entry in entries {
        let mut messages = Vec::new();
        if let Some(line) = seen.insert(&entry.name, entry.line) {
            messages.push(format!("{} is on line {line} already; name each node once", entry.name));
        }
        for hwaddr in &entry.hwaddrs {
            match owners.insert(*hwaddr, entry) {
                Some(owner) if owner.name != entry.name => messages.push(format!(
                    "hwaddr {hwaddr} is on line {} already, as {}'s; a card is in one machine",
                    owner.line, owner.name
                )),
                _ => {}
            }
        }
        let existing = inventory.get(&entry.name);
        match wanted(entry, existing.map(AsRef::as_ref)) {
            Err(message) => messages.push(message),
            Ok(new) => match checked(&others, site, existing.map(AsRef::as_ref), &new) {
                Err(message) => messages.push(message),
                Ok(node) => {
                    messages.extend(other_address(entry, &node));
                    if messages.is_empty() {
                        sort_in(&mut difference, existing.map(AsRef::as_ref), node);
                    }
                }
            },
        }
        difference
            .conflicts
            .extend(messages.into_iter().map(|message| Conflict {
                line: entry.line,
                name: entry.name.clone(),
                message: super::report::one_line(&message),
            }));
    }
    difference
}

/// The node that `entry` asks for: of what it does not say, `existing` keeps what it has.
fn wanted(entry: &Entry, existing: Option<&Node>) -> Result<NewNode, String> {
    let profile = match entry.profiles.as_deref() {
        None => existing.map(|node| node.profile.clone()),
        Some([]) => None,
        Some([one]) => Some(one.clone()),
        Some(several) => {
            let (name, several) = (&entry.name, several.join(", "));
            return Err(format!(
                "{name} would have several profiles ({several}); a node has one"
            ));
        }
    };
    if let Some(groups) = entry.groups.as_ref().filter(|groups| !groups.is_empty()) {
        let (name, groups) = (&entry.name, groups.join(", "));
        return Err(format!(
            "{name} would be in groups ({groups}), which nodes do not have; leave them out"
        ));
    }
    Ok(NewNode {
        name: entry.name.clone(),
        hwaddrs: entry.hwaddrs.clone(),
        profile,
    })
}

/// The node that `new` makes beside `others`.
fn checked(others: &Inventory, site: &Site, existing: Option<&Node>, new: &NewNode) -> Result<Node, String> {
    // Of a node that stays as it is nothing is asked, even if the site file has changed since.
    match existing {
        Some(node) if node.hwaddrs == new.hwaddrs && Some(&node.profile) == new.profile.as_ref() => Ok(node.clone()),
        _ => check_add(others, site, new).map_err(|error| error.to_string()),
    }
}

/// What differs between two states of a node: the one place that knows all its fields.
fn fields(old: &Node, new: &Node) -> Vec<FieldChange> {
    let hwaddrs = |node: &Node| {
        node.hwaddrs
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let all = [
        ("hwaddrs", hwaddrs(old), hwaddrs(new)),
        ("ipaddr", old.ipaddr.to_string(), new.ipaddr.to_string()),
        ("profile", old.profile.clone(), new.profile.clone()),
    ];
    let differs = |(_, old, new): &(&str, String, String)| old != new;
    let change = |(field, old, new)| FieldChange { field, old, new };
    all.into_iter().filter(differs).map(change).collect()
}

fn sort_in(difference: &mut Difference, existing: Option<&Node>, node: Node) {
    let Some(existing) = existing else {
        difference.added.push(node);
        return;
    };
    match fields(existing, &node) {
        fields if fields.is_empty() => difference.unchanged.push(node.name),
        fields => difference.changed.push(Change { node, fields }),
    }
}

/// The source gives it another address than its name does.
fn other_address(entry: &Entry, node: &Node) -> Option<String> {
    let said = entry.ipaddr.filter(|said| *said != node.ipaddr)?;
    Some(format!(
        "the file gives {} the address {said}, and its name stands for {}; correct one of the two, or leave the \
         address out",
        node.name, node.ipaddr
    ))
}

impl fmt::Display for Difference {
    /// A line for each thing that would change, and a count of everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.added {
            let hwaddrs: Vec<String> = node.hwaddrs.iter().map(ToString::to_string).collect();
            writeln!(
                f,
                "+ {}  {}  {}  {}",
                node.name,
                node.ipaddr,
                hwaddrs.join(" "),
                node.profile
            )?;
        }
        for Change { node, fields } in &self.changed {
            for FieldChange { field, old, new } in fields {
                writeln!(f, "~ {}  {field}: {old} -> {new}", node.name)?;
            }
        }
        for Conflict { line, message, .. } in &self.conflicts {
            writeln!(f, "! line {line}: {message}")?;
        }
        write!(
            f,
            "{} added, {} changed, {} unchanged",
            self.added.len(),
            self.changed.len(),
            self.unchanged.len()
        )?;
        match self.conflicts.len() {
            0 => Ok(()),
            1 => f.write_str(", 1 conflict: nothing is imported"),
            count => write!(f, ", {count} conflicts: nothing is imported"),
        }
    }
}
