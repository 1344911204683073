//! Changes of the inventory, without any effect of their own: what they make, or all that speaks against them.

use super::{
    Inventory, Node,
    check::{check_attributes, check_groups, check_hwaddrs, check_place, check_profiles, find},
    refusal::{InventoryError, Refusals},
};
use rackstrap_site::Site;
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A node as an administrator names it; its address follows from its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// Name by the site's pattern.
    pub name: String,
    /// Hardware addresses, the one that boots first.
    pub hwaddrs: Vec<HwAddr>,
    /// Profiles; later ones win.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Groups.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Attributes.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// What shall be different about a node. What is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patch {
    /// All its hardware addresses.
    pub hwaddrs: Option<Vec<HwAddr>>,
    /// All its profiles.
    pub profiles: Option<Vec<String>>,
    /// Profiles that it no longer has.
    pub drop_profiles: BTreeSet<String>,
    /// Hardware addresses that it no longer has; one has to remain.
    pub drop_hwaddrs: BTreeSet<HwAddr>,
    /// Groups that it joins.
    pub join: BTreeSet<String>,
    /// Groups that it leaves.
    pub leave: BTreeSet<String>,
    /// Attributes that it gets, in place of those of the same names.
    pub attributes: BTreeMap<String, String>,
    /// Names of attributes that it no longer has.
    pub drop_attributes: BTreeSet<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A new node.
    Add(NewNode),
    /// Something about a node.
    Set {
        /// Name of the node.
        name: String,
        /// The settings to change.
        patch: Patch,
    },
    /// A machine was moved: another name, and the address that belongs to it.
    Rename {
        /// Present name.
        from: String,
        /// New name.
        to: String,
    },
    /// A node is no more.
    Delete {
        /// Name of the node.
        name: String,
    },
}

/// A node before and after a change; not there, not yet or no more, where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// As it was.
    pub before: Option<Node>,
    /// As it is.
    pub after: Option<Node>,
}

impl Changed {
    /// Its name: the new one, if it has one.
    pub fn name(&self) -> &str {
        match (&self.after, &self.before) {
            (Some(node), _) | (None, Some(node)) => &node.name,
            (None, None) => "",
        }
    }

    /// True if nothing is different.
    pub fn is_nothing(&self) -> bool {
        self.before == self.after
    }
}

impl Change {
    /// The node that it is about, as it is called before.
    fn name(&self) -> &str {
        match self {
            Change::Add(new) => &new.name,
            Change::Set { name, .. } | Change::Delete { name } => name,
            Change::Rename { from, .. } => from,
        }
    }
}

/// All of `changes` or none of them, together: a hardware address may move from one node to another among them.
///
/// # Errors
/// Everything that speaks against any of them.
pub fn apply(inventory: &Inventory, site: &Site, changes: &[Change]) -> Result<(Inventory, Vec<Changed>), Refusals> {
    let mut draft = inventory.clone();
    let mut refused = Vec::new();
    let mut touched = BTreeSet::new();
    // Whoever is changed makes room first, so that the order of changes does not matter.
    let mut before = Vec::with_capacity(changes.len());
    for (at, change) in changes.iter().enumerate() {
        let name = change.name();
        let found = match change {
            _ if !touched.insert(name) => Err(InventoryError::Twice(name.chars().take(64).collect())),
            Change::Add(_) => Ok(None),
            _ => find(inventory, name).map(|_| draft.remove(name)),
        };
        before.push(found.map_err(|error| refused.push((at, error))).ok());
    }
    let mut done = Vec::with_capacity(changes.len());
    for (at, (change, before)) in changes.iter().zip(before).enumerate() {
        let Some(before) = before else { continue };
        let after = match (change, &before) {
            (Change::Add(new), _) => added(&draft, site, new).map(Some),
            (Change::Delete { .. }, Some(_)) => Ok(None),
            (Change::Set { patch, .. }, Some(node)) => patched(&draft, site, node, patch).map(Some),
            (Change::Rename { to, .. }, Some(node)) => renamed(&draft, site, node, to).map(Some),
            // Found above, or refused.
            (_, None) => continue,
        };
        match after {
            Ok(after) => {
                let after = after.map(Arc::new);
                if let Some(node) = &after {
                    draft.insert(node.clone());
                }
                done.push(Changed {
                    before: before.map(Arc::unwrap_or_clone),
                    after: after.map(Arc::unwrap_or_clone),
                });
            }
            Err(errors) => refused.extend(errors.into_iter().map(|error| (at, error))),
        }
    }
    match refused.is_empty() {
        true => Ok((draft, done)),
        false => {
            refused.sort_by_key(|(at, _)| *at);
            Err(Refusals(refused))
        }
    }
}

fn added(draft: &Inventory, site: &Site, new: &NewNode) -> Result<Node, Vec<InventoryError>> {
    let profiles = each_once(&new.profiles);
    let mut wrong = Vec::new();
    let ipaddr = check_place(draft, site, &new.name).map_err(|error| wrong.push(error));
    wrong.extend(check_hwaddrs(draft, &new.name, &new.hwaddrs));
    wrong.extend(check_profiles(site, &new.name, &profiles));
    wrong.extend(check_groups(&new.name, &new.groups));
    wrong.extend(check_attributes(&new.name, &new.attributes));
    match ipaddr {
        Ok(ipaddr) if wrong.is_empty() => Ok(Node {
            name: new.name.clone(),
            hwaddrs: new.hwaddrs.clone(),
            ipaddr,
            profiles,
            groups: new.groups.clone(),
            attributes: new.attributes.clone(),
        }),
        _ => Err(wrong),
    }
}

/// Only what is changed is checked: a profile that has left the site file since does not stand in the way of a new card.
fn patched(draft: &Inventory, site: &Site, node: &Node, patch: &Patch) -> Result<Node, Vec<InventoryError>> {
    let mut node = node.clone();
    let mut wrong = Vec::new();
    if let Some(hwaddrs) = &patch.hwaddrs {
        wrong.extend(check_hwaddrs(draft, &node.name, hwaddrs));
        node.hwaddrs = hwaddrs.clone();
    }
    node.hwaddrs.retain(|hwaddr| !patch.drop_hwaddrs.contains(hwaddr));
    if node.hwaddrs.is_empty() && wrong.is_empty() {
        wrong.push(InventoryError::LastHwaddr(node.name.clone()));
    }
    if let Some(profiles) = &patch.profiles {
        node.profiles = each_once(profiles);
        wrong.extend(check_profiles(site, &node.name, &node.profiles));
    }
    node.profiles.retain(|profile| !patch.drop_profiles.contains(profile));
    node.groups = node.groups.union(&patch.join).cloned().collect();
    node.groups.retain(|group| !patch.leave.contains(group));
    wrong.extend(check_groups(&node.name, &node.groups));
    node.attributes.retain(|name, _| !patch.drop_attributes.contains(name));
    node.attributes.extend(patch.attributes.clone());
    wrong.extend(check_attributes(&node.name, &node.attributes));
    match wrong.is_empty() {
        true => Ok(node),
        false => Err(wrong),
    }
}

/// Each profile once. The last of several stays, because later ones win.
fn each_once(profiles: &[String]) -> Vec<String> {
    let last = |(at, profile): &(usize, &String)| !profiles[at + 1..].contains(profile);
    let kept = profiles.iter().enumerate().filter(last);
    kept.map(|(_, profile)| profile.clone()).collect()
}

fn renamed(draft: &Inventory, site: &Site, node: &Node, to: &str) -> Result<Node, Vec<InventoryError>> {
    Ok(Node {
        ipaddr: check_place(draft, site, to).map_err(|error| vec![error])?,
        name: to.to_owned(),
        ..node.clone()
    })
}

/// All that speaks against a node that is new or changed, whatever becomes of other nodes. `inventory` may have it.
pub fn faults(inventory: &Inventory, site: &Site, change: &Change) -> Vec<InventoryError> {
    let (name, made) = match change {
        Change::Add(new) => (&new.name, added(inventory, site, new)),
        Change::Set { name, patch } => match find(inventory, name) {
            Ok(node) => (name, patched(inventory, site, node, patch)),
            Err(error) => return vec![error],
        },
        Change::Rename { .. } | Change::Delete { .. } => return Vec::new(),
    };
    let mut wrong = made.err().unwrap_or_default();
    wrong.retain(|error| !matches!(error, InventoryError::Taken { owner, .. } if owner == name));
    wrong
}
