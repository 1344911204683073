//! Which of the site file's rules for disks an administrator has confirmed.
//!
//! A reload asks before it accepts a site file by which nodes lose data. A restart of the daemon cannot ask, so it holds back
//! rules that were not confirmed: nodes that would lose data boot by the last confirmed rules until an administrator confirms
//! the new ones.
//!
//! The store holds the records of disks. The rules in a restored backup may be older than the disks, and applying them
//! could destroy data too: see [`trust_site_file`].

use super::{Boots, Disks};
use rackstrap_model::{
    disks::{Confirmed, DiskEffect, DiskRules, NodeDisk, next_effect},
    inventory::Node,
};
use rackstrap_site::Site;
use rackstrap_store::{Batch, DISK_RULES, Store, StoreError, Table};
use std::sync::Arc;

/// Makes the next start treat its site file as confirmed, and drops all orders to prepare a disk. After a backup was restored
/// without the old store, the disks may be newer than the backup, and the orders may have been carried out already.
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
            Confirmed::of_plans(site, boots.iter().filter_map(|boot| boot.plan.disk.as_ref()))
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
