//! Nodes' disks over boots: which one a boot has to find, what is on it, and what an administrator ordered for the next one.

use crate::{
    clock::Timestamp,
    inventory::{Changed, Node},
    store::{Batch, Store, StoreError, Table},
};
use rackstrap_wire::{DiskMarker, DiskPlan, DiskProblem, DiskState, DiskStatus, SeenDisk, UsedSpace, Wipe};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Most mount points of a node whose use is kept.
const MOST_USED: usize = 32;

/// What is known of one node's disk, as the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDisk {
    /// What the disk phase of the last boot left.
    pub state: DiskState,
    /// The prepared disk that the next boot must find; none while the agent may choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenDisk>,
    /// The marker of that disk; its id is empty from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<DiskMarker>,
    /// How full its file systems are, as the running node said last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<UsedSpace>,
    /// What an administrator wants of the next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<DiskOrder>,
}

/// What `rackstrap node reprep` wants of a node's next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOrder {
    /// Overwrite somebody else's data as well.
    pub wipe_foreign: bool,
    /// Who wants it.
    pub by: String,
    /// Since when; boots that were opened earlier do not know of it.
    pub at: Timestamp,
}

/// What an administrator says of nodes' disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskWish {
    /// The disk of the last boot is gone: take the one that is there.
    NewDisk {
        /// Even if it holds somebody else's data.
        wipe_foreign: bool,
    },
    /// Prepare the disk at the next boot, whatever its marker says.
    Prepare {
        /// Even if it holds somebody else's data.
        wipe_foreign: bool,
    },
    /// Leave it as it is after all.
    Cancel,
}

/// All nodes' disks; clones share them.
#[derive(Clone)]
pub struct Disks {
    pub(super) store: Store,
    rows: Arc<RwLock<BTreeMap<String, NodeDisk>>>,
}

impl NodeDisk {
    /// After a boot whose agent got `plan` and left `state` (pure).
    fn after(mut self, plan: Option<&DiskPlan>, opened: Timestamp, state: &DiskState) -> Self {
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
        self.order = self.order.filter(|order| opened < order.at);
        self.state = state.clone();
        self
    }

    fn wish(&mut self, wish: DiskWish, by: &str, at: Timestamp) {
        let order = |wipe_foreign| {
            let by = by.to_owned();
            Some(DiskOrder { wipe_foreign, by, at })
        };
        match wish {
            DiskWish::NewDisk { wipe_foreign } => {
                self.forget_seen();
                self.order = wipe_foreign.then(|| order(true)).flatten();
            }
            DiskWish::Prepare { wipe_foreign } => self.order = order(wipe_foreign),
            DiskWish::Cancel => self.order = None,
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

/// The marker that an agent without [`rackstrap_wire::DiskFacts`] left: that of its plan.
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
    /// Loads all rows. Nodes that have none yet (the store is an older release's) get what their boots, oldest first, tell.
    pub(super) fn load<'a>(store: Store, boots: impl Iterator<Item = &'a super::Boot>) -> Result<Disks, StoreError> {
        let mut rows = BTreeMap::new();
        for (key, row) in store.scan::<NodeDisk>(Table::Disks, b"")? {
            rows.insert(String::from_utf8_lossy(&key).into_owned(), row);
        }
        let mut older: BTreeMap<String, NodeDisk> = BTreeMap::new();
        for boot in boots.filter(|boot| !rows.contains_key(&boot.plan.node)) {
            if let Some(state) = &boot.disk {
                let row = older.entry(boot.plan.node.clone()).or_default();
                *row = std::mem::take(row).after(boot.plan.disk.as_ref(), boot.opened, state);
            }
        }
        rows.extend(older);
        Ok(Disks {
            store,
            rows: Arc::new(RwLock::new(rows)),
        })
    }

    /// What is known of a node's disk.
    pub fn get(&self, node: &str) -> Option<NodeDisk> {
        self.read().get(node).cloned()
    }

    /// Tells a boot that is about to be pinned what it has to find, and what was ordered.
    pub(super) fn fill(&self, node: &str, plan: Option<&mut DiskPlan>) {
        let (Some(plan), Some(row)) = (plan, self.get(node)) else {
            return;
        };
        plan.seen = row.seen;
        let Some(order) = row.order else { return };
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
    }

    /// The row after a boot's disk phase; the caller has it written with the boot, and calls [`Disks::settle`].
    pub(super) fn note(&self, boot: &super::Boot, state: &DiskState) -> NodeDisk {
        let mut rows = self.write();
        let row = rows.entry(boot.plan.node.clone()).or_default();
        *row = std::mem::take(row).after(boot.plan.disk.as_ref(), boot.opened, state);
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

    /// Does what an administrator says; on disk when it returns.
    pub fn wish(&self, nodes: &[String], wish: DiskWish, by: &str, at: Timestamp) -> Result<(), StoreError> {
        self.change(nodes.iter().map(|node| {
            let by = by.to_owned();
            (node.clone(), move |mut row: NodeDisk| {
                row.wish(wish, &by, at);
                Some((None, row))
            })
        }))
    }

    /// Follows a change of the inventory: a renamed node keeps its disk, one that is deleted has none, and of a node that got another
    /// machine (none of its cards is left) the disk may be any.
    pub fn follow(&self, changed: &[Changed]) -> Result<(), StoreError> {
        let rows = changed.iter().filter_map(|changed| {
            let (before, after) = (changed.before.as_ref()?, changed.after.as_ref());
            let is_other = |after: &Node| before.hwaddrs.iter().all(|card| !after.hwaddrs.contains(card));
            let other_machine = after.is_some_and(is_other);
            if after.is_some_and(|after| after.name == before.name) && !other_machine {
                return None;
            }
            let name = after.map(|after| after.name.clone());
            let follow = move |mut row: NodeDisk| {
                if other_machine {
                    row.forget_seen();
                }
                Some((Some(name?), row))
            };
            Some((before.name.clone(), follow))
        });
        let rows: Vec<_> = rows.collect();
        match rows.is_empty() {
            true => Ok(()),
            false => self.change(rows),
        }
    }

    /// Changes rows of nodes, each named once; on disk first. `f` says under which name a row goes on and what it is then.
    fn change<F: FnOnce(NodeDisk) -> Option<(Option<String>, NodeDisk)>>(
        &self,
        rows: impl IntoIterator<Item = (String, F)>,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        let mut all = self.write();
        let mut next = all.clone();
        let mut kept = Vec::new();
        for (node, f) in rows {
            // A node without a row gets one for an order, and none for a new name.
            let known = next.remove(&node);
            let was_known = known.is_some();
            batch = batch.delete(Table::Disks, node.as_bytes());
            if let Some((name, row)) = f(known.unwrap_or_default())
                && (was_known || row != NodeDisk::default())
            {
                kept.push((name.unwrap_or(node), row));
            }
        }
        for (name, row) in kept {
            batch = batch.put(Table::Disks, name.as_bytes(), &row);
            next.insert(name, row);
        }
        self.store.commit_blocking(batch)?;
        *all = next;
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, NodeDisk>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, NodeDisk>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;
