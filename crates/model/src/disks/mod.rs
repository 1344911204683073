//! Nodes' disks: their records, an administrator's orders for them, and the effects of a boot on them (pure).

mod confirmed;
mod effects;
mod health;
mod layouts;

pub use confirmed::{Confirmed, DiskRules, next_effect};
pub use effects::{
    DiskEffect, DiskTrouble, EffectKind, changed_layouts, describe_effects, disk_effects, size as disk_size,
};

pub use health::{KnownHealth, follow as follow_health, is_news as is_news_of_health};
pub use layouts::{OtherDisk, content as disk_now, older_agent};

use crate::inventory::Changed;
use effects::disk_effect;
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::{DiskMarker, DiskPlan, DiskState, DiskStatus, SeenDisk, UsedSpace, Wipe};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    /// The prepared disks of the node's further layouts, by the name of the layout. A layout that the node no longer has stays here, so that
    /// its disk is known if the layout comes back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, OtherDisk>,
    /// Used space of its file systems, as the running node last reported it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<UsedSpace>,
    /// The order for the next boot, if an administrator gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<DiskOrder>,
    /// The health of all disks of the node, as the running node last reported it; empty if it reported none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<KnownHealth>,
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
    /// Names of the layouts that the order is for; empty for all of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<String>,
    /// Names of the partitions whose file systems are made again; empty for the whole disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
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
    /// The same of the plan's further layouts, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_wipe: Vec<Wipe>,
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

impl DiskWish {
    /// The order that this request makes, if any. No other order has its `id`.
    pub fn order(self, id: u64, by: &str, at: Timestamp) -> Option<DiskOrder> {
        let wipe_foreign = match self {
            DiskWish::NewDisk { wipe_foreign: false } | DiskWish::Cancel => return None,
            DiskWish::NewDisk { wipe_foreign } | DiskWish::Prepare { wipe_foreign } => wipe_foreign,
        };
        Some(DiskOrder {
            id,
            wipe_foreign,
            layouts: Vec::new(),
            partitions: Vec::new(),
            by: by.to_owned(),
            at,
        })
    }
}

impl NodeDisk {
    /// The row after a boot with this plan, whose agent left the disk in `state`. The boot began at `opened`, and carried out
    /// `ordered`.
    #[must_use]
    pub fn after(
        mut self,
        plan: Option<&DiskPlan>,
        ordered: Option<&Ordered>,
        opened: Timestamp,
        state: &DiskState,
    ) -> Self {
        let marker = state.facts.marker.clone().or_else(|| older_marker(plan, &state.status));
        self.follow_layouts(state, marker);
        let prepared = |status: &DiskStatus| matches!(status, DiskStatus::Prepared { .. });
        if prepared(&state.status) || state.layouts.iter().any(|one| prepared(&one.status)) {
            self.used.clear();
        }
        let done = |order: &DiskOrder| match (ordered, order.id) {
            (Some(ordered), id) => ordered.id == id,
            // Neither the boot nor the order has an id: an older release wrote both.
            (None, 0) => opened >= order.at,
            (None, _) => false,
        };
        self.order = self.order.filter(|order| !done(order));
        self.state = state.clone();
        self
    }

    /// `order` is the one that `wish` makes for the layouts with these names, if any; no name stands for all layouts.
    pub fn wish(&mut self, wish: DiskWish, layouts: &[String], order: Option<DiskOrder>) {
        if matches!(wish, DiskWish::NewDisk { .. }) {
            match layouts {
                [] => self.forget_seen(),
                names => names.iter().for_each(|name| self.forget_layout(name)),
            }
        }
        self.order = order;
    }

    /// Forgets the disks of the last boot: the next boot may find others.
    pub fn forget_seen(&mut self) {
        self.forget_first();
        self.more.clear();
        for one in &mut self.state.layouts {
            layouts::forget_problem(&mut one.facts);
        }
    }

    /// Forgets the disk of the first layout.
    fn forget_first(&mut self) {
        layouts::forget_problem(&mut self.state.facts);
        self.seen = None;
        self.marker = None;
        self.used.clear();
    }
}

/// What happens to rows when the inventory changes.
#[derive(Debug, Default)]
pub struct Followed {
    /// Names whose rows are deleted.
    pub gone: BTreeSet<String>,
    /// Rows of nodes under their present names.
    pub come: BTreeMap<String, NodeDisk>,
}

impl Followed {
    /// A renamed node keeps its disk. A deleted node loses its row. If a node's machine was exchanged, its disk may be any
    /// disk, and an order concerned the disk of the machine before.
    pub fn of(rows: &BTreeMap<String, NodeDisk>, changed: &[Changed]) -> Followed {
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
                row.health.clear();
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
