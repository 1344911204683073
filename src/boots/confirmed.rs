//! Which of the site file's rules for disks an administrator has confirmed.
//!
//! A reload asks before it takes over a file by which nodes lose data. A restart cannot ask, so it holds back what nobody confirmed:
//! nodes that would lose data boot by the rules that were confirmed last, until somebody says otherwise.
//!
//! What is known of disks comes from the store. The rules of a restored backup may be older than the disks, and to go back to them could
//! destroy data too: [`trust_site_file`].

use super::{Boot, Boots, DiskEffect, Disks, EffectKind, NodeDisk, disk_effect, effects::policy_of};
use crate::{
    config::{LayoutPolicy, Site},
    inventory::Node,
    store::{Batch, DISK_RULES, Store, StoreError, Table},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// All that a site file says of disks, as it was last confirmed, or did not need to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    layouts: BTreeMap<String, LayoutPolicy>,
    profiles: BTreeMap<String, Choice>,
    /// Take the site file as confirmed, whatever it says: what else is written here is older than the disks may be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    trust_site_file: bool,
}

/// What a profile says of disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Choice {
    layout: Option<String>,
    disk: Option<String>,
}

impl Confirmed {
    /// All that `site` says of disks.
    pub fn of(site: &Site) -> Confirmed {
        let choice = |profile: &crate::config::Profile| Choice {
            layout: profile.layout.clone(),
            disk: profile.disk.clone(),
        };
        Confirmed {
            layouts: site.layouts.clone(),
            profiles: (site
                .profiles
                .iter()
                .map(|(name, profile)| (name.clone(), choice(profile))))
            .collect(),
            trust_site_file: false,
        }
    }

    /// Of a release that wrote nothing of it: the layouts are those that the daemon last sent to a node, given from the oldest boot on.
    fn of_boots<'a>(site: &Site, boots: impl Iterator<Item = &'a Boot>) -> Confirmed {
        let mut confirmed = Confirmed::of(site);
        for plan in boots
            .filter_map(|boot| boot.plan.disk.as_ref())
            .filter(|plan| !plan.again)
        {
            let policy = LayoutPolicy {
                layout: plan.layout.clone(),
                digest: plan.digest.clone(),
                wipe: plan.wipe,
            };
            confirmed.layouts.insert(policy.layout.name.clone(), policy);
        }
        confirmed
    }

    /// `site` with the rules that are confirmed, also those of profiles that are no longer in it: nodes may still have them. Of a
    /// profile that is new in it nothing is confirmed, and no more than that its name was left on a node is known. New layouts stay.
    fn view(&self, site: &Site) -> Site {
        let mut view = site.clone();
        for (name, policy) in &self.layouts {
            view.layouts.insert(name.clone(), policy.clone());
        }
        for (name, profile) in &mut view.profiles {
            if !self.profiles.contains_key(name) {
                profile.layout = None;
                profile.disk = None;
            }
        }
        for (name, choice) in &self.profiles {
            let profile = view.profiles.entry(name.clone()).or_default();
            profile.layout.clone_from(&choice.layout);
            profile.disk.clone_from(&choice.disk);
        }
        view
    }
}

/// Has the next start take its site file as confirmed, and no order to prepare a disk be carried out: after a backup was restored without
/// the old store, the disks may be newer than what the backup says of them, and the orders carried out already.
///
/// # Errors
/// Those of the store.
pub fn trust_site_file(store: &Store) -> Result<(), StoreError> {
    let trusted = Confirmed {
        layouts: BTreeMap::new(),
        profiles: BTreeMap::new(),
        trust_site_file: true,
    };
    store.write(|tx| {
        for (key, mut disk) in tx.scan::<NodeDisk>(Table::Disks, b"")? {
            if disk.order.take().is_some() {
                tx.put(Table::Disks, &key, &disk)?;
            }
        }
        tx.put(Table::Meta, DISK_RULES, &trusted)
    })
}

/// What the next boot of `node` does with its disk, where `confirmed` has the confirmed rules if `site` has others (pure). True if the
/// boot is by the confirmed ones.
fn next_effect(
    site: &Site,
    confirmed: Option<&Site>,
    node: &Node,
    disk: Option<&NodeDisk>,
) -> (Option<DiskEffect>, bool) {
    let effect = disk_effect(site, node, disk);
    let Some(confirmed) = confirmed else {
        return (effect, false);
    };
    let Some(lost) = effect.as_ref().filter(|effect| effect.needs_consent()) else {
        let instead =
            effect.is_none() && is_risky(site, confirmed, node, disk) && disk_effect(confirmed, node, disk).is_none();
        return (effect, instead);
    };
    match disk_effect(confirmed, node, disk) {
        Some(known) if known == *lost => (effect, false),
        Some(known) if known.loses_data() => (Some(known), true),
        _ => {
            let held = DiskEffect {
                kind: EffectKind::Held,
                ..lost.clone()
            };
            (Some(held), true)
        }
    }
}

/// True for a node of whose disk nothing is known, so that it may have a layout that `site` would replace (pure): one whose disk was
/// changed or that was deleted and added again. A blank disk loses nothing by the confirmed rules either.
fn is_risky(site: &Site, confirmed: &Site, node: &Node, disk: Option<&NodeDisk>) -> bool {
    if disk.is_some_and(|disk| disk.marker.is_some() || disk.order.is_some()) {
        return false;
    }
    let new_profile = node.profiles.iter().any(|name| {
        let layout = |site: &Site| site.profiles.get(name).and_then(|profile| profile.layout.clone());
        layout(site).is_some() && layout(confirmed).is_none()
    });
    // Nobody had what is new: it is for disks that come.
    !new_profile && policy_of(site, node) != policy_of(confirmed, node)
}

impl Disks {
    /// What the next boot of `node` does with its disk under `site`, the site file that is in use: none if it keeps it.
    pub fn next_effect(&self, site: &Site, node: &Node) -> Option<DiskEffect> {
        self.next_effect_on(site, node, self.get(&node.name).as_ref())
    }

    /// The same of all nodes.
    pub fn next_effects<'a>(&self, site: &Site, nodes: impl Iterator<Item = &'a Node>) -> Vec<DiskEffect> {
        nodes.filter_map(|node| self.next_effect(site, node)).collect()
    }

    /// The same of one with the disk that the node will have: its row has the old name until the node is renamed.
    pub fn next_effect_on(&self, site: &Site, node: &Node, disk: Option<&NodeDisk>) -> Option<DiskEffect> {
        next_effect(site, self.held_back().as_deref(), node, disk).0
    }

    /// The site file with the rules by which the next boot of `node` treats its disk, if these are not those of `site`.
    pub fn rules_instead(&self, site: &Site, node: &Node) -> Option<Arc<Site>> {
        let confirmed = self.held_back()?;
        let (_, instead) = next_effect(site, Some(&confirmed), node, self.get(&node.name).as_ref());
        instead.then_some(confirmed)
    }

    /// Writes down that all that `site` says of disks is confirmed. It counts when [`Disks::hold_nothing`] was called, after
    /// everybody sees the new site file. Blocks for a disk flush.
    ///
    /// # Errors
    /// Those of the store.
    pub fn confirm(&self, site: &Site) -> Result<(), StoreError> {
        let batch = Batch::new().put(Table::Meta, DISK_RULES, &Confirmed::of(site));
        self.store.commit_blocking(batch)
    }

    /// Nothing of the site file that is in use is held back any more.
    pub fn hold_nothing(&self) {
        self.confirmed.store(None);
    }

    fn held_back(&self) -> Option<Arc<Site>> {
        self.confirmed.load_full()
    }
}

impl Boots {
    /// Takes over the site file of a start. What of it would lose data of nodes, and was never confirmed, is held back; the answer is
    /// what becomes of these nodes. Blocks for a disk flush.
    ///
    /// # Errors
    /// Those of the store.
    pub fn hold_back(&self, site: &Site, nodes: &[Arc<Node>]) -> Result<Vec<DiskEffect>, StoreError> {
        let disks = self.disks();
        let stored: Option<Confirmed> = disks.store.get(Table::Meta, DISK_RULES)?;
        let known = stored.is_some();
        let confirmed = stored.unwrap_or_else(|| {
            let mut boots: Vec<_> = nodes.iter().flat_map(|node| self.of_node(&node.name)).collect();
            boots.sort_by_key(|boot| (boot.opened, boot.sequence));
            Confirmed::of_boots(site, boots.iter().map(|boot| &**boot))
        });
        if !confirmed.trust_site_file {
            let view = confirmed.view(site);
            let held = nodes.iter().filter_map(|node| {
                match next_effect(site, Some(&view), node, disks.get(&node.name).as_ref()) {
                    (effect, true) => effect,
                    (_, false) => None,
                }
            });
            let held: Vec<DiskEffect> = held.collect();
            if !held.is_empty() {
                if !known {
                    let batch = Batch::new().put(Table::Meta, DISK_RULES, &confirmed);
                    disks.store.commit_blocking(batch)?;
                }
                disks.confirmed.store(Some(Arc::new(view)));
                return Ok(held);
            }
        }
        disks.confirm(site)?;
        disks.hold_nothing();
        Ok(Vec::new())
    }
}

#[cfg(test)]
#[path = "confirmed_tests.rs"]
mod tests;
