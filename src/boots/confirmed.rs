//! Which of the site file's rules for disks an administrator has confirmed.
//!
//! A reload asks before it takes over a file by which nodes lose data. A restart cannot ask, so it holds back what nobody confirmed:
//! nodes that would lose data boot by the rules that were confirmed last, until somebody says otherwise.
//!
//! What is known of disks comes from the store. The rules of a restored backup may be older than the disks, and to go back to them could
//! destroy data too: [`trust_site_file`].

use super::{Boot, Boots, DiskEffect, Disks, EffectKind, NodeDisk, disk_effect, effects::policy_of};
use crate::inventory::Node;
use rackstrap_site::{LayoutPolicy, Site};
use rackstrap_store::{Batch, DISK_RULES, Store, StoreError, Table};
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
        let choice = |profile: &rackstrap_site::Profile| Choice {
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
/// An error of the store.
pub fn trust_site_file(store: &Store) -> Result<(), StoreError> {
    let trusted = Confirmed {
        layouts: BTreeMap::new(),
        profiles: BTreeMap::new(),
        trust_site_file: true,
    };
    let mut batch = Batch::new().put(Table::Meta, DISK_RULES, &trusted);
    for (key, mut disk) in store.scan::<NodeDisk>(Table::Disks, b"")? {
        batch = batch.expect(Table::Disks, key.clone(), &disk);
        if disk.order.take().is_some() {
            batch = batch.put(Table::Disks, key, &disk);
        }
    }
    store.commit_blocking(batch)
}

/// By which rules nodes' disks are treated. Both are of one world: a request that straddles a reload sees the old ones or the new ones.
#[derive(Clone, Copy, Debug)]
pub struct DiskRules<'a> {
    /// The site file that is in use.
    pub site: &'a Site,
    /// The same with the rules that were confirmed last, if `site` has others.
    pub confirmed: Option<&'a Site>,
}

/// What the next boot of `node` does with its disk (pure). True if the boot is by the confirmed rules instead of the site file's.
fn next_effect(rules: DiskRules<'_>, node: &Node, disk: Option<&NodeDisk>) -> (Option<DiskEffect>, bool) {
    let DiskRules { site, confirmed } = rules;
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
    /// What the next boot of `node` does with its disk: none if it keeps it.
    pub fn next_effect(&self, rules: DiskRules<'_>, node: &Node) -> Option<DiskEffect> {
        self.next_effect_on(rules, node, self.get(&node.name).as_ref())
    }

    /// The same of all nodes.
    pub fn next_effects<'a>(&self, rules: DiskRules<'_>, nodes: impl Iterator<Item = &'a Node>) -> Vec<DiskEffect> {
        nodes.filter_map(|node| self.next_effect(rules, node)).collect()
    }

    /// The same of one with the disk that the node will have: its row has the old name until the node is renamed.
    pub fn next_effect_on(&self, rules: DiskRules<'_>, node: &Node, disk: Option<&NodeDisk>) -> Option<DiskEffect> {
        next_effect(rules, node, disk).0
    }

    /// The site file with the rules by which the next boot of `node` treats its disk, if these are not those of the one in use.
    pub fn rules_instead<'a>(&self, rules: DiskRules<'a>, node: &Node) -> Option<&'a Site> {
        let (_, instead) = next_effect(rules, node, self.get(&node.name).as_ref());
        rules.confirmed.filter(|_| instead)
    }

    /// Writes down that all that `site` says of disks is confirmed, before any node sees it. Blocks for a disk flush.
    ///
    /// # Errors
    /// An error of the store.
    pub fn confirm(&self, site: &Site) -> Result<(), StoreError> {
        let batch = Batch::new().put(Table::Meta, DISK_RULES, &Confirmed::of(site));
        self.store.commit_blocking(batch)
    }
}

impl Boots {
    /// Takes over the site file of a start. What of it would lose data of nodes, and was never confirmed, is held back; the answer is
    /// then `site` with the rules that were confirmed last. Blocks for a disk flush.
    ///
    /// # Errors
    /// An error of the store.
    pub fn hold_back(&self, site: &Site, nodes: &[Arc<Node>]) -> Result<Option<Arc<Site>>, StoreError> {
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
            let rules = DiskRules {
                site,
                confirmed: Some(&view),
            };
            // Of a node that never told of a disk nothing is known to be lost, so it alone holds nothing back.
            let held = |node: &Arc<Node>| {
                matches!(
                    next_effect(rules, node, disks.get(&node.name).as_ref()),
                    (Some(_), true)
                )
            };
            if nodes.iter().any(held) {
                if !known {
                    let batch = Batch::new().put(Table::Meta, DISK_RULES, &confirmed);
                    disks.store.commit_blocking(batch)?;
                }
                return Ok(Some(Arc::new(view)));
            }
        }
        disks.confirm(site)?;
        Ok(None)
    }
}

#[cfg(test)]
#[path = "confirmed_tests.rs"]
mod tests;
