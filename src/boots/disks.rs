//! Nodes' disks over boots: which one a boot has to find, what is on it, and what an administrator ordered for the next one.

use rackstrap_base::{
    clock::Timestamp,
    sync::{read, write},
};
use rackstrap_model::{
    disks::{DiskOrder, DiskWish, Followed, NodeDisk, Ordered},
    inventory::Changed,
};
use rackstrap_store::{Batch, Keeper, Store, StoreError, Table};
use rackstrap_wire::{DiskPlan, DiskProblem, DiskState, SeenDisk, UsedSpace, Wipe};
use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Most mount points of a node whose use is kept.
const MOST_USED: usize = 32;

/// All nodes' disks; clones share them.
#[derive(Clone)]
pub struct Disks {
    pub(super) store: Store,
    rows: Arc<RwLock<BTreeMap<String, NodeDisk>>>,
    /// One wish at a time, so that memory and store get two wishes in one order. What boots and heartbeats say of the rows in the
    /// meantime is written behind, so a wish expects nothing of them, and is said again to a row that has changed.
    wishes: Arc<Keeper>,
}

/// The row after `boot`, whose agent left `state`.
fn after(row: NodeDisk, boot: &super::Boot, state: &DiskState) -> NodeDisk {
    row.after(boot.plan.disk.as_ref(), boot.ordered.as_ref(), boot.opened, state)
}

/// Writes it, or takes it away if nothing is known.
fn put(row: &NodeDisk, batch: Batch, node: &str) -> Batch {
    match *row == NodeDisk::default() {
        true => batch.delete(Table::Disks, node.as_bytes()),
        false => batch.put(Table::Disks, node.as_bytes(), row),
    }
}

impl Disks {
    /// Loads all rows. Nodes that have none yet (the store is an older release's) get what their boots, oldest first, tell.
    pub(super) fn load<'a>(store: Store, boots: impl Iterator<Item = &'a super::Boot>) -> Result<Disks, StoreError> {
        let mut rows = BTreeMap::new();
        for (key, row) in store.scan::<NodeDisk>(Table::Disks, b"")? {
            // A release before this one kept what nodes said as they said it.
            let state = row.state.bounded();
            rows.insert(String::from_utf8_lossy(&key).into_owned(), NodeDisk { state, ..row });
        }
        let mut older: BTreeMap<String, NodeDisk> = BTreeMap::new();
        for boot in boots.filter(|boot| !rows.contains_key(&boot.plan.node)) {
            if let Some(state) = &boot.disk {
                let row = older.entry(boot.plan.node.clone()).or_default();
                *row = after(std::mem::take(row), boot, state);
            }
        }
        rows.extend(older);
        Ok(Disks {
            wishes: Arc::new(Keeper::new(store.clone(), ())),
            store,
            rows: Arc::new(RwLock::new(rows)),
        })
    }

    /// What is known of a node's disk.
    pub fn get(&self, node: &str) -> Option<NodeDisk> {
        self.read().get(node).cloned()
    }

    /// Tells a boot that is about to be pinned what it has to find, and what was ordered, which it returns.
    pub(super) fn fill(&self, node: &str, plan: Option<&mut DiskPlan>) -> Option<Ordered> {
        let row = self.get(node)?;
        let ordered = row.order.as_ref().map(|order| Ordered {
            id: order.id,
            wipe: plan.as_ref().map(|plan| plan.wipe).unwrap_or_default(),
            sent: false,
        });
        // An order that finds no layout is over with this boot. It does not wait for a layout of later.
        let Some(plan) = plan else { return ordered };
        plan.seen = row.seen;
        let order = row.order?;
        plan.again = true;
        if order.wipe_foreign {
            plan.wipe = Wipe::Always;
            // The order is about the disk whose content the administrator was shown, and not about another one that has its name
            // at the next boot.
            let shown = &row.state;
            if plan.seen.is_none()
                && shown.facts.problem == Some(DiskProblem::Foreign)
                && !shown.facts.serial.is_empty()
            {
                plan.seen = Some(SeenDisk {
                    device: shown.device.clone(),
                    serial: shown.facts.serial.clone(),
                    marker: String::new(),
                });
            }
        }
        ordered
    }

    /// Takes an order that does not stand any more back out of the plan of `boot`, which goes to its node now.
    pub(super) fn withdraw(&self, boot: &mut super::Boot) {
        let Some(ordered) = &boot.ordered else { return };
        let row = self.get(&boot.plan.node).unwrap_or_default();
        if row.order.is_some_and(|order| order.id == ordered.id) {
            return;
        }
        if let Some(plan) = &mut boot.plan.disk {
            (plan.again, plan.wipe, plan.seen) = (false, ordered.wipe, row.seen);
        }
    }

    /// The row after a boot's disk phase; the caller has it written with the boot, and calls [`Disks::settle`].
    pub(super) fn note(&self, boot: &super::Boot, state: &DiskState) -> NodeDisk {
        let mut rows = self.write();
        let row = rows.entry(boot.plan.node.clone()).or_default();
        *row = after(std::mem::take(row), boot, state);
        row.clone()
    }

    /// Writes the row of `node` once more if it is another one by now than `written`: an order that came in between was on disk first,
    /// and was overwritten there.
    pub(super) fn settle(&self, node: &str, written: &NodeDisk) {
        let rows = self.read();
        if let Some(row) = rows.get(node).filter(|row| *row != written) {
            self.store.queue(Batch::new().put(Table::Disks, node.as_bytes(), row));
        }
    }

    /// Notes how full a running node's disk is. Written behind, and only if it changed by more than a twentieth: it is for people.
    pub fn note_used(&self, node: &str, mut used: Vec<UsedSpace>) {
        used.truncate(MOST_USED);
        let near = |a: &UsedSpace, b: &UsedSpace| a.mount == b.mount && a.bytes.abs_diff(b.bytes) <= a.bytes / 20;
        // Only mounts of the node's own disk count. The row is news if their use has changed.
        let news = |row: &NodeDisk, used: &mut Vec<UsedSpace>| {
            used.retain(|space| row.state.mounts.iter().any(|m| m.mount.as_ref() == Some(&space.mount)));
            let same = row.used.len() == used.len() && row.used.iter().zip(&*used).all(|(a, b)| near(a, b));
            !used.is_empty() && !same
        };
        // Almost all heartbeats end here, and none of them waits for another one.
        if !self.read().get(node).is_some_and(|row| news(row, &mut used)) {
            return;
        }
        let mut rows = self.write();
        if let Some(row) = rows.get_mut(node).filter(|row| news(row, &mut used)) {
            row.used = used;
            self.store.queue(Batch::new().put(Table::Disks, node.as_bytes(), row));
        }
    }

    /// Does what an administrator says; on disk when it returns. Returns the orders that stand no more, by node.
    ///
    /// # Errors
    /// An error of the store. If it could not be written, nobody sees it either.
    pub fn wish(
        &self,
        nodes: &[String],
        wish: DiskWish,
        by: &str,
        at: Timestamp,
    ) -> Result<Vec<(String, DiskOrder)>, StoreError> {
        let orders: Vec<_> = nodes
            .iter()
            .map(|node| (node, wish.order(rand::random(), by, at)))
            .collect();
        let draft = |(): &()| {
            let rows = self.read();
            let wished = orders.iter().map(|(node, order)| {
                let mut row = rows.get(*node).cloned().unwrap_or_default();
                row.wish(wish, order.clone());
                row
            });
            let wished: Vec<NodeDisk> = wished.collect();
            let batch = (nodes.iter().zip(&wished)).fold(Batch::new(), |batch, (node, row)| put(row, batch, node));
            Ok::<_, StoreError>((wished, batch))
        };
        let (withdrawn, again) = self.wishes.change(draft, |(), written| {
            let (mut withdrawn, mut again) = (Vec::new(), Batch::new());
            let mut rows = self.write();
            for ((node, order), written) in orders.iter().zip(&written) {
                let mut row = rows.remove(*node).unwrap_or_default();
                withdrawn.extend(row.order.take().map(|order| ((*node).clone(), order)));
                row.wish(wish, order.clone());
                // A boot or a heartbeat came between, and what it queued knows nothing of the wish.
                if row != *written {
                    again = put(&row, again, node);
                }
                if row != NodeDisk::default() {
                    rows.insert((*node).clone(), row);
                }
            }
            let is_again = !again.is_empty();
            if is_again {
                // With the lock held: what is queued later has the wish.
                self.store.queue(again);
            }
            (withdrawn, is_again)
        })?;
        if again {
            self.store.flush()?;
        }
        Ok(withdrawn)
    }

    /// Forgets nodes that `is_node` does not know; their names are free, and what becomes known by them later begins anew.
    pub(super) fn retain(&self, is_node: impl Fn(&str) -> bool) {
        let mut batch = Batch::new();
        self.write().retain(|name, _| {
            let stays = is_node(name);
            if !stays {
                batch = std::mem::take(&mut batch).delete(Table::Disks, name.as_bytes());
            }
            stays
        });
        if !batch.is_empty() {
            self.store.queue(batch);
        }
    }

    /// What a change of the inventory means, to be written with it.
    pub(super) fn followed_rows(&self, changed: &[Changed]) -> Batch {
        let followed = Followed::of(&self.read(), changed);
        let gone = followed.gone.iter();
        let batch = gone.fold(Batch::new(), |batch, name| batch.delete(Table::Disks, name.as_bytes()));
        let come = followed.come.iter();
        come.fold(batch, |batch, (name, row)| {
            batch.put(Table::Disks, name.as_bytes(), row)
        })
    }

    /// Does the same in memory. What was queued meanwhile under an old name is written over.
    pub(super) fn publish_followed(&self, changed: &[Changed]) {
        let mut rows = self.write();
        let followed = Followed::of(&rows, changed);
        let mut batch = Batch::new();
        for name in followed.gone {
            rows.remove(&name);
            batch = batch.delete(Table::Disks, name.as_bytes());
        }
        for (name, row) in followed.come {
            batch = batch.put(Table::Disks, name.as_bytes(), &row);
            rows.insert(name, row);
        }
        if !batch.is_empty() {
            self.store.queue(batch);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, NodeDisk>> {
        read(&self.rows)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, NodeDisk>> {
        write(&self.rows)
    }
}

#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;
