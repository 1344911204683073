//! Nodes' disks over several boots: which disk a boot has to find, what is on it, and what an administrator ordered for the
//! next boot.

use crate::inventory::Changed;
use rackstrap_base::{
    clock::Timestamp,
    sync::{read, write},
};
use rackstrap_store::{Batch, Keeper, Store, StoreError, Table};
use rackstrap_wire::{DiskMarker, DiskPlan, DiskProblem, DiskState, DiskStatus, SeenDisk, UsedSpace, Wipe};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// At most this many mount points are kept for a node, with their used space.
const MOST_USED: usize = 32;

/// The record of one node's disk in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDisk {
    /// The state in which the disk phase of the last boot left the disk.
    pub state: DiskState,
    /// The prepared disk that the next boot must find; none while the agent may choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenDisk>,
    /// The marker of that disk. Its id is empty if an older agent reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<DiskMarker>,
    /// Used space of its file systems, as the running node last reported it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<UsedSpace>,
    /// The order for the next boot, if an administrator gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<DiskOrder>,
}

/// What `rackstrap node reprep` orders for a node's next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOrder {
    /// Distinguishes this order from all others. A boot that carries an order out names its id, so that no clock decides
    /// whether it was carried out. 0 in a store of an older release.
    #[serde(default)]
    pub id: u64,
    /// Overwrite data that rackstrap did not write, too.
    pub wipe_foreign: bool,
    /// The user who gave the order.
    pub by: String,
    /// When the order was given, for people.
    pub at: Timestamp,
}

/// The order that a boot carries out, in the pinned boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// The id of the order.
    pub id: u64,
    /// The effect of the boot on foreign data without the order.
    pub wipe: Wipe,
    /// Whether the plan, and so the order, was sent to the node.
    pub sent: bool,
}

/// An administrator's order about nodes' disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskWish {
    /// The disk of the last boot is gone: use the disk that is found.
    NewDisk {
        /// Also if it holds foreign data.
        wipe_foreign: bool,
    },
    /// Prepare the disk at the next boot, whatever its marker says.
    Prepare {
        /// Also if it holds foreign data.
        wipe_foreign: bool,
    },
    /// Cancel the order.
    Cancel,
}

/// The disks of all nodes; clones share them.
#[derive(Clone)]
pub struct Disks {
    pub(super) store: Store,
    rows: Arc<RwLock<BTreeMap<String, NodeDisk>>>,
    /// Takes one request at a time, so that memory and store see requests in the same order. Boots and heartbeats meanwhile
    /// change rows without waiting, so a request expects no row to be unchanged, and is applied again to a row that has
    /// changed.
    wishes: Arc<Keeper>,
}

impl DiskWish {
    /// The order that this request makes, if any.
    fn order(self, by: &str, at: Timestamp) -> Option<DiskOrder> {
        let wipe_foreign = match self {
            DiskWish::NewDisk { wipe_foreign: false } | DiskWish::Cancel => return None,
            DiskWish::NewDisk { wipe_foreign } | DiskWish::Prepare { wipe_foreign } => wipe_foreign,
        };
        Some(DiskOrder {
            id: rand::random(),
            wipe_foreign,
            by: by.to_owned(),
            at,
        })
    }
}

impl NodeDisk {
    /// The row after `boot`, whose agent left the disk in `state` (pure).
    fn after(mut self, boot: &super::Boot, state: &DiskState) -> Self {
        let plan = boot.plan.disk.as_ref();
        let marker = state.facts.marker.clone().or_else(|| older_marker(plan, &state.status));
        if let Some(marker) = marker {
            self.seen = Some(SeenDisk {
                device: state.device.clone(),
                serial: state.facts.serial.clone(),
                marker: marker.id.clone(),
            });
            self.marker = Some(marker);
        }
        if matches!(state.status, DiskStatus::Prepared { .. }) {
            self.used.clear();
        }
        let done = |order: &DiskOrder| match (&boot.ordered, order.id) {
            (Some(ordered), id) => ordered.id == id,
            // Neither the boot nor the order has an id: an older release wrote both.
            (None, 0) => boot.opened >= order.at,
            (None, _) => false,
        };
        self.order = self.order.filter(|order| !done(order));
        self.state = state.clone();
        self
    }

    /// `order` is the one that `wish` makes, if any.
    fn wish(&mut self, wish: DiskWish, order: Option<DiskOrder>) {
        if matches!(wish, DiskWish::NewDisk { .. }) {
            self.forget_seen();
        }
        self.order = order;
    }

    /// Writes the row, or deletes it if nothing is known.
    fn put(&self, batch: Batch, node: &str) -> Batch {
        match *self == NodeDisk::default() {
            true => batch.delete(Table::Disks, node.as_bytes()),
            false => batch.put(Table::Disks, node.as_bytes(), self),
        }
    }

    fn forget_seen(&mut self) {
        let facts = &mut self.state.facts;
        facts.problem = facts
            .problem
            .filter(|problem| !matches!(problem, DiskProblem::Missing | DiskProblem::OtherMarker));
        self.seen = None;
        self.marker = None;
        self.used.clear();
    }
}

/// What happens to rows when the inventory changes.
#[derive(Default)]
struct Followed {
    gone: BTreeSet<String>,
    come: BTreeMap<String, NodeDisk>,
}

impl Followed {
    /// A renamed node keeps its disk. A deleted node loses its row. If a node's machine was exchanged, its disk may be any
    /// disk, and an order concerned the disk of the machine before (pure).
    fn of(rows: &BTreeMap<String, NodeDisk>, changed: &[Changed]) -> Followed {
        let mut followed = Followed::default();
        for changed in changed {
            let Some((before, row)) = changed
                .before
                .as_ref()
                .and_then(|node| Some((node, rows.get(&node.name)?)))
            else {
                continue;
            };
            let after = changed.after.as_ref();
            let other = is_other_machine(changed);
            if !other && after.is_some_and(|after| after.name == before.name) {
                continue;
            }
            followed.gone.insert(before.name.clone());
            let Some(after) = after else { continue };
            let mut row = row.clone();
            if other {
                row.forget_seen();
                row.order = None;
            }
            followed.come.insert(after.name.clone(), row);
        }
        for name in followed.come.keys() {
            followed.gone.remove(name);
        }
        followed
    }
}

/// Whether the node is a different machine after the change: it kept none of its cards.
pub fn is_other_machine(changed: &Changed) -> bool {
    let Changed {
        before: Some(before),
        after: Some(after),
    } = changed
    else {
        return false;
    };
    before.hwaddrs.iter().all(|card| !after.hwaddrs.contains(card))
}

/// The marker that an agent without [`rackstrap_wire::DiskFacts`] wrote: the one in its plan.
fn older_marker(plan: Option<&DiskPlan>, status: &DiskStatus) -> Option<DiskMarker> {
    let plan = plan?;
    matches!(status, DiskStatus::Kept { .. } | DiskStatus::Prepared { .. }).then(|| DiskMarker {
        id: String::new(),
        layout: plan.layout.name.clone(),
        version: plan.layout.version,
        digest: plan.digest.clone(),
    })
}

impl Disks {
    /// Loads all rows. A node without a row (in a store of an older release) gets one from its boots, oldest first.
    pub(super) fn load<'a>(store: Store, boots: impl Iterator<Item = &'a super::Boot>) -> Result<Disks, StoreError> {
        let mut rows = BTreeMap::new();
        for (key, row) in store.scan::<NodeDisk>(Table::Disks, b"")? {
            // Older releases kept reports without limits.
            let state = row.state.bounded();
            rows.insert(String::from_utf8_lossy(&key).into_owned(), NodeDisk { state, ..row });
        }
        let mut older: BTreeMap<String, NodeDisk> = BTreeMap::new();
        for boot in boots.filter(|boot| !rows.contains_key(&boot.plan.node)) {
            if let Some(state) = &boot.disk {
                let row = older.entry(boot.plan.node.clone()).or_default();
                *row = std::mem::take(row).after(boot, state);
            }
        }
        rows.extend(older);
        Ok(Disks {
            wishes: Arc::new(Keeper::new(store.clone(), ())),
            store,
            rows: Arc::new(RwLock::new(rows)),
        })
    }

    /// The record of a node's disk; none if there is none.
    pub fn get(&self, node: &str) -> Option<NodeDisk> {
        self.read().get(node).cloned()
    }

    /// Completes the disk plan of a boot that is about to be pinned: the disk to find, and the order, which is also returned.
    pub(super) fn fill(&self, node: &str, plan: Option<&mut DiskPlan>) -> Option<Ordered> {
        let row = self.get(node)?;
        let ordered = row.order.as_ref().map(|order| Ordered {
            id: order.id,
            wipe: plan.as_ref().map(|plan| plan.wipe).unwrap_or_default(),
            sent: false,
        });
        // An order for a node without a layout ends with this boot. It does not wait for a later layout.
        let Some(plan) = plan else { return ordered };
        plan.seen = row.seen;
        let order = row.order?;
        plan.again = true;
        if order.wipe_foreign {
            plan.wipe = Wipe::Always;
            // The order is about the disk whose content was shown to the administrator, not about another disk that has its
            // name at the next boot.
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

    /// Takes a cancelled order out of the plan of `boot`, which is about to be sent.
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

    /// The row after a boot's disk phase. The caller writes it together with the boot, and then calls [`Disks::settle`].
    pub(super) fn record(&self, boot: &super::Boot, state: &DiskState) -> NodeDisk {
        let mut rows = self.write();
        let row = rows.entry(boot.plan.node.clone()).or_default();
        *row = std::mem::take(row).after(boot, state);
        row.clone()
    }

    /// Writes the row of `node` again if it now differs from `written`: an order that came in between was written first, and
    /// then overwritten on disk.
    pub(super) fn settle(&self, node: &str, written: &NodeDisk) {
        let rows = self.read();
        if let Some(row) = rows.get(node).filter(|row| *row != written) {
            self.store.queue(Batch::new().put(Table::Disks, node.as_bytes(), row));
        }
    }

    /// Records the used space of a running node's disk. The write is not waited for, and made only if the use changed by more
    /// than a twentieth, because it only informs people.
    pub fn record_used(&self, node: &str, mut used: Vec<UsedSpace>) {
        used.truncate(MOST_USED);
        let near = |a: &UsedSpace, b: &UsedSpace| a.mount == b.mount && a.bytes.abs_diff(b.bytes) <= a.bytes / 20;
        // Only mounts on the node's own disk count. A write is needed if their use has changed.
        let news = |row: &NodeDisk, used: &mut Vec<UsedSpace>| {
            used.retain(|space| row.state.mounts.iter().any(|m| m.mount.as_ref() == Some(&space.mount)));
            let same = row.used.len() == used.len() && row.used.iter().zip(&*used).all(|(a, b)| near(a, b));
            !used.is_empty() && !same
        };
        // Most heartbeats return here, under the shared lock.
        if !self.read().get(node).is_some_and(|row| news(row, &mut used)) {
            return;
        }
        let mut rows = self.write();
        if let Some(row) = rows.get_mut(node).filter(|row| news(row, &mut used)) {
            row.used = used;
            self.store.queue(Batch::new().put(Table::Disks, node.as_bytes(), row));
        }
    }

    /// Carries out an administrator's order; on disk when it returns. Returns the orders that are cancelled or
    /// replaced, by node.
    ///
    /// # Errors
    /// An error of the store. Nothing is published then.
    pub fn wish(
        &self,
        nodes: &[String],
        wish: DiskWish,
        by: &str,
        at: Timestamp,
    ) -> Result<Vec<(String, DiskOrder)>, StoreError> {
        let orders: Vec<_> = nodes.iter().map(|node| (node, wish.order(by, at))).collect();
        let draft = |(): &()| {
            let rows = self.read();
            let wished = orders.iter().map(|(node, order)| {
                let mut row = rows.get(*node).cloned().unwrap_or_default();
                row.wish(wish, order.clone());
                row
            });
            let wished: Vec<NodeDisk> = wished.collect();
            let batch = (nodes.iter().zip(&wished)).fold(Batch::new(), |batch, (node, row)| row.put(batch, node));
            Ok::<_, StoreError>((wished, batch))
        };
        let (withdrawn, again) = self.wishes.change(draft, |(), written| {
            let (mut withdrawn, mut again) = (Vec::new(), Batch::new());
            let mut rows = self.write();
            for ((node, order), written) in orders.iter().zip(&written) {
                let mut row = rows.remove(*node).unwrap_or_default();
                withdrawn.extend(row.order.take().map(|order| ((*node).clone(), order)));
                row.wish(wish, order.clone());
                // A boot or a heartbeat changed the row meanwhile, and queued it without the order.
                if row != *written {
                    again = row.put(again, node);
                }
                if row != NodeDisk::default() {
                    rows.insert((*node).clone(), row);
                }
            }
            let is_again = !again.is_empty();
            if is_again {
                // Queued under the lock, so that everything queued later includes the order.
                self.store.queue(again);
            }
            (withdrawn, is_again)
        })?;
        if again {
            self.store.flush()?;
        }
        Ok(withdrawn)
    }

    /// Forgets nodes that `is_node` does not know: the names are free, and later rows of these names start empty.
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

    /// The rows that follow from a change of the inventory, to be written together with it.
    pub(super) fn followed_rows(&self, changed: &[Changed]) -> Batch {
        let followed = Followed::of(&self.read(), changed);
        let gone = followed.gone.iter();
        let batch = gone.fold(Batch::new(), |batch, name| batch.delete(Table::Disks, name.as_bytes()));
        let come = followed.come.iter();
        come.fold(batch, |batch, (name, row)| {
            batch.put(Table::Disks, name.as_bytes(), row)
        })
    }

    /// Makes the same change in memory. Rows that were queued meanwhile under an old name are overwritten.
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
