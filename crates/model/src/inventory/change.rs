//! Changes of the inventory (pure): their result, or all reasons against them.

use super::{
    Inventory, Node,
    check::{
        check_attributes, check_groups, check_hwaddrs, check_new_address, check_place, check_profiles, check_settings,
        find,
    },
    node::CHANGED,
    refusal::{InventoryError, Refusals},
};
use rackstrap_site::{NodeSettings, Site, value::Value};
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A node as an administrator adds it. Its address follows from its name, or is its own setting `ipaddr`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// Name by the site's pattern; any other one needs the setting `ipaddr`.
    pub name: String,
    /// Hardware addresses; the first is the card that boots.
    pub hwaddrs: Vec<HwAddr>,
    /// Profiles; later ones win.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Groups that the node is in.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Attributes, by name.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Its own settings, which win over those of its profiles.
    #[serde(default, skip_serializing_if = "NodeSettings::is_empty")]
    pub settings: NodeSettings,
}

/// Changes of a node. Settings that are not named stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patch {
    /// Replaces all its hardware addresses.
    pub hwaddrs: Option<Vec<HwAddr>>,
    /// Replaces all its profiles.
    pub profiles: Option<Vec<String>>,
    /// Profiles to remove.
    pub drop_profiles: BTreeSet<String>,
    /// Hardware addresses to remove; at least one has to remain.
    pub drop_hwaddrs: BTreeSet<HwAddr>,
    /// Groups to join.
    pub join: BTreeSet<String>,
    /// Groups to leave.
    pub leave: BTreeSet<String>,
    /// Attributes to set. They replace those of the same names.
    pub attributes: BTreeMap<String, String>,
    /// Names of attributes to remove.
    pub drop_attributes: BTreeSet<String>,
    /// Own settings to change: `KEY` replaces, `KEY+` adds, `KEY-` takes away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Value>,
    /// Keys of own settings to remove, before `settings` are changed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub drop_settings: BTreeSet<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Adds a node.
    Add(NewNode),
    /// Changes a node.
    Set {
        /// Name of the node.
        name: String,
        /// The settings to change.
        patch: Patch,
    },
    /// Renames a node, which gets the address of its new name.
    Rename {
        /// Present name.
        from: String,
        /// New name.
        to: String,
    },
    /// Deletes a node.
    Delete {
        /// Name of the node.
        name: String,
    },
}

/// A node before and after a change. None if it did not exist before, or does not exist after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The node before the change; none for a new node.
    pub before: Option<Node>,
    /// The node after the change; none for a deleted node.
    pub after: Option<Node>,
}

impl Changed {
    /// The node's name: the new one, if it has one.
    pub fn name(&self) -> &str {
        match (&self.after, &self.before) {
            (Some(node), _) | (None, Some(node)) => &node.name,
            (None, None) => "",
        }
    }

    /// The same without the values of secret variables, for listings and the history; one that changed differs from before.
    #[must_use]
    pub fn without_secrets(&self) -> Changed {
        let before = self.before.as_ref().map(|node| (node, node.hide_secrets()));
        let after = self.after.as_ref().map(|node| {
            let known = |key: &str| {
                before
                    .as_ref()
                    .and_then(|(before, _)| before.settings.written().get(key))
            };
            let mut hidden = node.hide_secrets();
            let changed = node
                .secrets()
                .filter(|(key, value)| known(key).is_some_and(|known| known != *value));
            for (key, _) in changed {
                // Cannot fail: the key is a variable's.
                let _ = hidden.settings.change(key, &Value::from(CHANGED));
            }
            hidden
        });
        Changed {
            before: before.map(|(_, hidden)| hidden),
            after,
        }
    }

    /// Whether nothing changed.
    pub fn is_nothing(&self) -> bool {
        self.before == self.after
    }
}

impl Change {
    /// The name of the node before the change.
    fn name(&self) -> &str {
        match self {
            Change::Add(new) => &new.name,
            Change::Set { name, .. } | Change::Delete { name } => name,
            Change::Rename { from, .. } => from,
        }
    }
}

/// Makes all of `changes` or none of them, all at once: a hardware address may move from one node to another.
///
/// # Errors
/// All reasons against all of the changes.
pub fn apply(inventory: &Inventory, site: &Site, changes: &[Change]) -> Result<(Inventory, Vec<Changed>), Refusals> {
    let mut draft = inventory.clone();
    let mut refused = Vec::new();
    let mut touched = BTreeSet::new();
    // Changed nodes are removed first, so that the order of the changes does not matter.
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
            // The node was found above, or the change was refused.
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
    let ipaddr = check_place(draft, site, &new.name, new.settings.ipaddr()).map_err(|error| wrong.push(error));
    wrong.extend(check_hwaddrs(draft, &new.name, &new.hwaddrs));
    wrong.extend(check_profiles(site, &new.name, &profiles));
    wrong.extend(check_groups(&new.name, &new.groups));
    wrong.extend(check_attributes(&new.name, &new.attributes));
    wrong.extend(check_settings(site, &new.name, &new.settings));
    match ipaddr {
        Ok(ipaddr) if wrong.is_empty() => Ok(Node {
            name: new.name.clone(),
            hwaddrs: new.hwaddrs.clone(),
            ipaddr,
            profiles,
            groups: new.groups.clone(),
            attributes: new.attributes.clone(),
            settings: new.settings.clone(),
        }),
        _ => Err(wrong),
    }
}

/// Checks only what changes: a profile that was removed from the site file does not prevent the change of a card.
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
    let own = node.settings.ipaddr();
    wrong.extend(patch_settings(site, &mut node, patch));
    if node.settings.ipaddr() != own {
        match check_new_address(draft, site, &node.name, node.settings.ipaddr()) {
            Ok(ipaddr) => node.ipaddr = ipaddr,
            Err(error) => wrong.push(error),
        }
    }
    match wrong.is_empty() {
        true => Ok(node),
        false => Err(wrong),
    }
}

/// Changes the node's own settings. A setting that does not change is not checked, so that one that became invalid can be
/// removed, and does not prevent the change of another.
fn patch_settings(site: &Site, node: &mut Node, patch: &Patch) -> Vec<InventoryError> {
    let mut wrong = Vec::new();
    if patch.settings.is_empty() && patch.drop_settings.is_empty() {
        return wrong;
    }
    let before = node.settings.clone();
    for key in &patch.drop_settings {
        node.settings.remove(key);
    }
    for (key, value) in &patch.settings {
        if let Err(problem) = node.settings.change(key, value) {
            wrong.push(InventoryError::setting(&node.name, problem));
        }
    }
    let is_new = |error: &InventoryError| match error {
        InventoryError::Setting { problem, .. } => {
            before.written().get(&problem.key) != node.settings.written().get(&problem.key)
        }
        _ => true,
    };
    wrong.extend(
        check_settings(site, &node.name, &node.settings)
            .into_iter()
            .filter(is_new),
    );
    wrong
}

/// Each profile once. The last of several stays, because later profiles win.
fn each_once(profiles: &[String]) -> Vec<String> {
    let last = |(at, profile): &(usize, &String)| !profiles[at + 1..].contains(profile);
    let kept = profiles.iter().enumerate().filter(last);
    kept.map(|(_, profile)| profile.clone()).collect()
}

fn renamed(draft: &Inventory, site: &Site, node: &Node, to: &str) -> Result<Node, Vec<InventoryError>> {
    Ok(Node {
        ipaddr: check_place(draft, site, to, node.settings.ipaddr()).map_err(|error| vec![error])?,
        name: to.to_owned(),
        ..node.clone()
    })
}

/// All reasons against a new or changed node, whatever happens to other nodes. `inventory` may already have it.
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
