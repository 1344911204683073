//! Answers about nodes' disks.

use crate::api::{self, DiskHealthRow, DiskOrderRow, NodeDiskRow};
use rackstrap_model::disks::{DiskOrder, DiskWish, KnownHealth, NodeDisk};
use rackstrap_wire::DiskState;

impl From<NodeDisk> for NodeDiskRow {
    fn from(disk: NodeDisk) -> Self {
        NodeDiskRow {
            state: disk.state,
            seen: disk.seen,
            marker: disk.marker,
            used: disk.used,
            health: disk.health.into_iter().map(DiskHealthRow::from).collect(),
            order: disk.order.map(|order| DiskOrderRow {
                id: order.id,
                wipe_foreign: order.wipe_foreign,
                partitions: order.partitions,
                by: order.by,
                at: order.at,
            }),
        }
    }
}

impl api::FoundDisk {
    /// The disks that a boot found which left them in `state`, the chosen one first.
    pub fn of(state: &DiskState) -> Vec<api::FoundDisk> {
        let facts = &state.facts;
        let holds = match (&facts.marker, facts.foreign.as_str()) {
            (Some(marker), _) => format!("{} v{}", marker.layout, marker.version),
            (None, foreign) => foreign.to_owned(),
        };
        let chosen = (!state.device.is_empty()).then(|| api::FoundDisk {
            device: state.device.clone(),
            size: state.size,
            chosen: true,
            holds,
            properties: facts.about.clone(),
        });
        let unused = facts.unused.iter().map(|disk| api::FoundDisk {
            device: disk.device.clone(),
            size: disk.size,
            chosen: false,
            holds: disk.what.clone(),
            properties: disk.about.clone(),
        });
        chosen.into_iter().chain(unused).collect()
    }
}

impl From<KnownHealth> for DiskHealthRow {
    fn from(known: KnownHealth) -> Self {
        DiskHealthRow {
            health: known.health,
            since: known.since,
        }
    }
}

impl From<DiskHealthRow> for KnownHealth {
    fn from(row: DiskHealthRow) -> Self {
        KnownHealth {
            health: row.health,
            since: row.since,
        }
    }
}

/// For `check`, which computes the effect of another site file on the disks.
impl From<NodeDiskRow> for NodeDisk {
    fn from(row: NodeDiskRow) -> Self {
        NodeDisk {
            state: row.state,
            seen: row.seen,
            marker: row.marker,
            used: row.used,
            health: row.health.into_iter().map(KnownHealth::from).collect(),
            order: row.order.map(|order| DiskOrder {
                id: order.id,
                wipe_foreign: order.wipe_foreign,
                partitions: order.partitions,
                by: order.by,
                at: order.at,
            }),
        }
    }
}

impl From<api::DiskWish> for DiskWish {
    fn from(wish: api::DiskWish) -> Self {
        match wish {
            api::DiskWish::NewDisk { wipe_foreign } => DiskWish::NewDisk { wipe_foreign },
            api::DiskWish::Prepare { wipe_foreign } => DiskWish::Prepare { wipe_foreign },
            api::DiskWish::Cancel => DiskWish::Cancel,
        }
    }
}
