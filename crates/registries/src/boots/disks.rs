//! Nodes' disks over several boots: which disk a boot has to find, what is on it, and what an administrator ordered for the
//! next boot.

use rackstrap_base::{
    clock::Timestamp,
    sync::{read, write},
};
use rackstrap_model::{
    disks::{DiskOrder, DiskWish, Followed, NodeDisk, Ordered, follow_health, is_news_of_health},
    inventory::Changed,
};
use rackstrap_store::{Batch, Keeper, Store, StoreError, Table};
use rackstrap_wire::{DiskFacts, DiskHealth, DiskPlan, DiskProblem, DiskState, SeenDisk, UsedSpace, Wipe};
use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// At most this many mount points are kept for a node, with their used space.
const MOST_USED: usize = 32;

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

/// The parts of nodes' disks that an order is for.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Names of the layouts; empty for all.
    pub layouts: Vec<String>,
    /// Names of the partitions; empty for the whole disks.
    pub partitions: Vec<String>,
}

/// The row after `boot`, whose agent left the disk in `state`.
fn after(row: NodeDisk, boot: &super::Boot, state: &DiskState) -> NodeDisk {
    row.after(boot.plan.disk.as_ref(), boot.ordered.as_ref(), boot.opened, state)
}

/// Writes the row, or deletes it if nothing is known.
fn put(row: &NodeDisk, batch: Batch, node: &str) -> Batch {
    match *row == NodeDisk::default() {
        true => batch.delete(Table::Disks, node.as_bytes()),
        false => batch.put(Table::Disks, node.as_bytes(), row),
    }
}

/// Calls `work` for the plan of each layout, with its number and the names of all layouts.
fn each_plan(plan: &mut DiskPlan, mut work: impl FnMut(usize, &[&str], &mut DiskPlan)) {
    let mut more = std::mem::take(&mut plan.more);
    let plans = || std::iter::once(&*plan).chain(&more);
    let names: Vec<String> = plans().map(|plan| plan.layout.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (index, plan) in std::iter::once(&mut *plan).chain(&mut more).enumerate() {
        work(index, &names, plan);
    }
    plan.more = more;
}

/// Puts an order into the plan of one layout. `shown` is the disk that the last boot found for it, and what is known of that disk.
fn carry_out(order: &DiskOrder, shown: Option<(&String, &DiskFacts)>, plan: &mut DiskPlan) {
    plan.again = order.partitions.is_empty();
    let is_its = |name: &&String| {
        let mut all = plan.layout.partitions.iter();
        all.any(|partition| partition.name == **name)
    };
    plan.remake = order.partitions.iter().filter(is_its).cloned().collect();
    // An order for partitions is none for a disk, and least of all for that of another layout.
    if !(order.wipe_foreign && plan.again) {
        return;
    }
    plan.wipe = Wipe::Always;
    // The order is about the disk whose content was shown to the administrator, not about another disk that has its name at the next boot.
    if let Some((device, facts)) = shown
        && plan.seen.is_none()
        && facts.problem == Some(DiskProblem::Foreign)
        && !facts.serial.is_empty()
    {
        plan.seen = Some(SeenDisk {
            device: device.clone(),
            serial: facts.serial.clone(),
            marker: String::new(),
        });
    }
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

    /// The record of a node's disk; none before its first report.
    pub fn get(&self, node: &str) -> Option<NodeDisk> {
        self.read().get(node).cloned()
    }

    /// Completes the disk plan of a boot that is about to be pinned: the disk to find, and the order, which is also returned.
    pub(super) fn fill(&self, node: &str, plan: Option<&mut DiskPlan>) -> Option<Ordered> {
        let row = self.get(node)?;
        let ordered = row.order.as_ref().map(|order| Ordered {
            id: order.id,
            wipe: plan.as_ref().map(|plan| plan.wipe).unwrap_or_default(),
            more_wipe: plan
                .iter()
                .flat_map(|plan| plan.more.iter().map(|plan| plan.wipe))
                .collect(),
            sent: false,
        });
        // An order for a node without a layout ends with this boot. It does not wait for a later layout.
        let Some(plan) = plan else { return ordered };
        each_plan(plan, |index, names, plan| {
            plan.seen = row.seen_of(names, index);
            let Some(order) = row.order_for(names, index) else {
                return;
            };
            let one = row.state.layouts.iter().find(|one| one.layout == plan.layout.name);
            let shown = match (one, index) {
                (Some(one), _) => Some((&one.device, &one.facts)),
                (None, 0) => Some((&row.state.device, &row.state.facts)),
                (None, _) => None,
            };
            carry_out(order, shown, plan);
        });
        ordered
    }

    /// Takes a cancelled order out of the plan of `boot`, which is about to be sent.
    pub(super) fn withdraw(&self, boot: &mut super::Boot) {
        let Some(ordered) = &boot.ordered else { return };
        let row = self.get(&boot.plan.node).unwrap_or_default();
        if row.order.as_ref().is_some_and(|order| order.id == ordered.id) {
            return;
        }
        if let Some(plan) = &mut boot.plan.disk {
            let wipes: Vec<Wipe> = std::iter::once(ordered.wipe)
                .chain(ordered.more_wipe.iter().copied())
                .collect();
            each_plan(plan, |index, names, plan| {
                // A boot of a release without further layouts has no plan of them either.
                plan.wipe = wipes.get(index).copied().unwrap_or_default();
                (plan.again, plan.seen) = (false, row.seen_of(names, index));
                plan.remake.clear();
            });
        }
    }

    /// The row after a boot's disk phase. The caller writes it together with the boot, and then calls [`Disks::settle`].
    pub(super) fn record(&self, boot: &super::Boot, state: &DiskState) -> NodeDisk {
        let mut rows = self.write();
        let row = rows.entry(boot.plan.node.clone()).or_default();
        *row = after(std::mem::take(row), boot, state);
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

    /// Records the health of a running node's disks. The write is not waited for, and made only if more changed than temperatures and hours.
    pub fn record_health(&self, node: &str, report: Vec<DiskHealth>, now: Timestamp) {
        let mut rows = self.write();
        let known = rows.get(node).map(|row| row.health.as_slice()).unwrap_or_default();
        let health = follow_health(known, report, now);
        let news = is_news_of_health(known, &health);
        if health.is_empty() && !news {
            return;
        }
        let row = rows.entry(node.to_owned()).or_default();
        row.health = health;
        if news {
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
        self.wish_of(nodes, wish, &Parts::default(), by, at)
    }

    /// The same for some parts of the disks only.
    ///
    /// # Errors
    /// Those of [`Disks::wish`].
    pub fn wish_of(
        &self,
        nodes: &[String],
        wish: DiskWish,
        parts: &Parts,
        by: &str,
        at: Timestamp,
    ) -> Result<Vec<(String, DiskOrder)>, StoreError> {
        let order = || {
            let order = wish.order(rand::random(), by, at)?;
            Some(DiskOrder {
                layouts: parts.layouts.clone(),
                partitions: parts.partitions.clone(),
                ..order
            })
        };
        let orders: Vec<_> = nodes.iter().map(|node| (node, order())).collect();
        let draft = |(): &()| {
            let rows = self.read();
            let wished = orders.iter().map(|(node, order)| {
                let mut row = rows.get(*node).cloned().unwrap_or_default();
                row.wish(wish, &parts.layouts, order.clone());
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
                row.wish(wish, &parts.layouts, order.clone());
                // A boot or a heartbeat changed the row meanwhile, and queued it without the order.
                if row != *written {
                    again = put(&row, again, node);
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
#[path = "disks_layouts_tests.rs"]
mod layouts_tests;
#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;
