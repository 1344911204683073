//! Which of the site file's rules for disks an administrator has confirmed.
//!
//! A reload asks before it takes over a file by which nodes lose data. A restart cannot ask, so it holds back what nobody confirmed:
//! nodes that would lose data boot by the rules that were confirmed last, until somebody says otherwise.
//!
//! What is known of disks comes from the store. The rules of a restored backup may be older than the disks, and to go back to them could
//! destroy data too: [`trust_site_file`].

use super::{Boots, Disks};
use rackstrap_model::{
    disks::{Confirmed, DiskEffect, DiskRules, NodeDisk, next_effect},
    inventory::Node,
};
use rackstrap_site::Site;
use rackstrap_store::{Batch, DISK_RULES, Store, StoreError, Table};
use std::sync::Arc;

/// Has the next start take its site file as confirmed, and no order to prepare a disk be carried out: after a backup was restored without
/// the old store, the disks may be newer than what the backup says of them, and the orders carried out already.
///
/// # Errors
/// An error of the store.
pub fn trust_site_file(store: &Store) -> Result<(), StoreError> {
    let mut batch = Batch::new().put(Table::Meta, DISK_RULES, &Confirmed::trusting_the_site_file());
    for (key, mut disk) in store.scan::<NodeDisk>(Table::Disks, b"")? {
        batch = batch.expect(Table::Disks, key.clone(), &disk);
        if disk.order.take().is_some() {
            batch = batch.put(Table::Disks, key, &disk);
        }
    }
    store.commit_blocking(batch)
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
            Confirmed::of_plans(site, boots.iter().filter_map(|boot| boot.plan.disk.as_ref()))
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
