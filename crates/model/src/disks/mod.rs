//! What is known of nodes' disks, what an administrator wants of them, and what a boot does with them.

mod confirmed;
mod effects;

pub use confirmed::{Confirmed, DiskRules, next_effect};
pub use effects::{
    DiskEffect, DiskTrouble, EffectKind, changed_layouts, describe_effects, disk_effects, now as disk_now,
    size as disk_size,
};

use crate::inventory::Changed;
use effects::disk_effect;
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::{DiskMarker, DiskPlan, DiskProblem, DiskState, DiskStatus, SeenDisk, UsedSpace, Wipe};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Tells it from every other order. A boot that carries an order out says which, so that no clock decides whether it is done. 0 in
    /// a store of an older release.
    #[serde(default)]
    pub id: u64,
    /// Overwrite somebody else's data as well.
    pub wipe_foreign: bool,
    /// Who wants it.
    pub by: String,
    /// Since when, for people.
    pub at: Timestamp,
}

/// The order that a boot carries out, in the pinned boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// The order's id.
    pub id: u64,
    /// What the boot does with somebody else's data without the order.
    pub wipe: Wipe,
    /// True once the node may have the plan, and so the order.
    pub sent: bool,
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

impl DiskWish {
    /// The order that it makes, if it makes one. `id` tells that from every other order.
    pub fn order(self, id: u64, by: &str, at: Timestamp) -> Option<DiskOrder> {
        let wipe_foreign = match self {
            DiskWish::NewDisk { wipe_foreign: false } | DiskWish::Cancel => return None,
            DiskWish::NewDisk { wipe_foreign } | DiskWish::Prepare { wipe_foreign } => wipe_foreign,
        };
        Some(DiskOrder {
            id,
            wipe_foreign,
            by: by.to_owned(),
            at,
        })
    }
}

impl NodeDisk {
    /// After a boot with this plan, which began at `opened` to carry `ordered` out, and whose agent left `state`.
    #[must_use]
    pub fn after(
        mut self,
        plan: Option<&DiskPlan>,
        ordered: Option<&Ordered>,
        opened: Timestamp,
        state: &DiskState,
    ) -> Self {
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
        let done = |order: &DiskOrder| match (ordered, order.id) {
            (Some(ordered), id) => ordered.id == id,
            // Neither the boot nor the order knows of ids: an older release wrote both.
            (None, 0) => opened >= order.at,
            (None, _) => false,
        };
        self.order = self.order.filter(|order| !done(order));
        self.state = state.clone();
        self
    }

    /// `order` is the one that the wish makes, if it makes one.
    pub fn wish(&mut self, wish: DiskWish, order: Option<DiskOrder>) {
        if matches!(wish, DiskWish::NewDisk { .. }) {
            self.forget_seen();
        }
        self.order = order;
    }

    /// The disk may be another one.
    pub fn forget_seen(&mut self) {
        let facts = &mut self.state.facts;
        facts.problem = facts
            .problem
            .filter(|problem| !matches!(problem, DiskProblem::Missing | DiskProblem::OtherMarker));
        self.seen = None;
        self.marker = None;
        self.used.clear();
    }
}

/// What becomes of rows when the inventory changes.
#[derive(Debug, Default)]
pub struct Followed {
    /// Nodes that have none any more.
    pub gone: BTreeSet<String>,
    /// Rows of nodes under their present names.
    pub come: BTreeMap<String, NodeDisk>,
}

impl Followed {
    /// A renamed node keeps its disk, one that is deleted has none, and of a node that got another machine the disk may be any: an
    /// order was about the disk of the machine before.
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
            }
            followed.come.insert(after.name.clone(), row);
        }
        for name in followed.come.keys() {
            followed.gone.remove(name);
        }
        followed
    }
}

/// True if a node is another machine after a change: none of its cards is left.
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
