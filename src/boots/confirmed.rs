//! Which of the site file's rules for disks an administrator has confirmed.
//!
//! A reload asks before it accepts a site file by which nodes lose data. A restart of the daemon cannot ask, so it holds back
//! rules that were not confirmed: nodes that would lose data boot by the last confirmed rules until an administrator confirms
//! the new ones.
//!
//! The store holds the records of disks. The rules in a restored backup may be older than the disks, and applying them
//! could destroy data too: see [`trust_site_file`].

use super::{Boot, Boots, DiskEffect, Disks, EffectKind, NodeDisk, disk_effect, effects::policy_of};
use crate::{
    config::{LayoutPolicy, Site},
    inventory::Node,
};
use rackstrap_store::{Batch, DISK_RULES, Store, StoreError, Table};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// All rules of a site file for disks that were last confirmed, or that needed no confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    layouts: BTreeMap<String, LayoutPolicy>,
    profiles: BTreeMap<String, Choice>,
    /// Treat any site file as confirmed: the other fields may be older than the disks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    trust_site_file: bool,
}

/// A profile's settings for disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Choice {
    layout: Option<String>,
    disk: Option<String>,
}

impl Confirmed {
    /// The rules of `site` for disks.
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

    /// The rules that follow from boots, for a store of a release that recorded none: the layouts that the daemon last sent
    /// to each node, applied from the oldest boot on.
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

    /// `site` with the confirmed rules, also those of profiles that were removed from it, because nodes may still have them.
    /// A profile that is new in `site` has no confirmed rules. New layouts stay.
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

/// Makes the next start treat its site file as confirmed, and drops all orders to prepare a disk. After a backup was restored
/// without the old store, the disks may be newer than the backup, and the orders may have been carried out already.
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

/// The rules for nodes' disks. Both fields come from one world, so that a request during a reload uses the old rules or the
/// new ones, never a mixture.
#[derive(Clone, Copy, Debug)]
pub struct DiskRules<'a> {
    /// The site file in use.
    pub site: &'a Site,
    /// The same site file with the rules that were last confirmed; none if `site` has no unconfirmed rules.
    pub confirmed: Option<&'a Site>,
}

/// The effect of the next boot of `node` on its disk (pure), and whether the confirmed rules decided that instead of the site
/// file.
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

/// Whether nothing is known of the node's disk, so that it may have a layout that `site` would replace (pure). The node's
/// machine was exchanged, or the node was deleted and added again. A blank disk loses nothing by the confirmed rules either.
fn is_risky(site: &Site, confirmed: &Site, node: &Node, disk: Option<&NodeDisk>) -> bool {
    if disk.is_some_and(|disk| disk.marker.is_some() || disk.order.is_some()) {
        return false;
    }
    let new_profile = node.profiles.iter().any(|name| {
        let layout = |site: &Site| site.profiles.get(name).and_then(|profile| profile.layout.clone());
        layout(site).is_some() && layout(confirmed).is_none()
    });
    // A new profile or layout is on no disk yet.
    !new_profile && policy_of(site, node) != policy_of(confirmed, node)
}

impl Disks {
    /// The effect of the next boot of `node` on its disk; none if it keeps the disk.
    pub fn next_effect(&self, rules: DiskRules<'_>, node: &Node) -> Option<DiskEffect> {
        self.next_effect_on(rules, node, self.get(&node.name).as_ref())
    }

    /// The same for all nodes.
    pub fn next_effects<'a>(&self, rules: DiskRules<'_>, nodes: impl Iterator<Item = &'a Node>) -> Vec<DiskEffect> {
        nodes.filter_map(|node| self.next_effect(rules, node)).collect()
    }

    /// The same for a node with the given disk. Until a node is renamed, the disk's row has the old name.
    pub fn next_effect_on(&self, rules: DiskRules<'_>, node: &Node, disk: Option<&NodeDisk>) -> Option<DiskEffect> {
        next_effect(rules, node, disk).0
    }

    /// The site file by whose rules the next boot of `node` treats its disk; none if that is the site file in use.
    pub fn rules_instead<'a>(&self, rules: DiskRules<'a>, node: &Node) -> Option<&'a Site> {
        let (_, instead) = next_effect(rules, node, self.get(&node.name).as_ref());
        rules.confirmed.filter(|_| instead)
    }

    /// Records that all rules of `site` for disks are confirmed, before decisions use them. Blocks for a disk flush.
    ///
    /// # Errors
    /// An error of the store.
    pub fn confirm(&self, site: &Site) -> Result<(), StoreError> {
        let batch = Batch::new().put(Table::Meta, DISK_RULES, &Confirmed::of(site));
        self.store.commit_blocking(batch)
    }
}

impl Boots {
    /// Accepts the site file of a start. Rules that would lose data and were never confirmed are held back; then the result
    /// is `site` with the rules that were last confirmed. Blocks for a disk flush.
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
            // Nothing is known to be lost on a node that never reported a disk, so such a node alone holds nothing back.
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
