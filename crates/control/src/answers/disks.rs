//! Answers about nodes' disks.

use crate::api::{self, DiskHealthRow, DiskOrderRow, NodeDiskRow, OtherDiskRow};
use rackstrap_model::disks::{DiskOrder, DiskWish, KnownHealth, NodeDisk, OtherDisk};
use rackstrap_wire::{DiskFacts, DiskState};

impl From<NodeDisk> for NodeDiskRow {
    fn from(disk: NodeDisk) -> Self {
        NodeDiskRow {
            state: disk.state,
            seen: disk.seen,
            marker: disk.marker,
            more: (disk.more.into_iter())
                .map(|(layout, OtherDisk { seen, marker })| (layout, OtherDiskRow { seen, marker }))
                .collect(),
            used: disk.used,
            health: disk.health.into_iter().map(DiskHealthRow::from).collect(),
            order: disk.order.map(|order| DiskOrderRow {
                id: order.id,
                wipe_foreign: order.wipe_foreign,
                layouts: order.layouts,
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
        let chosen = |device: &str, size, facts: &DiskFacts| {
            let holds = match (&facts.marker, facts.foreign.as_str()) {
                (Some(marker), _) => format!("{} v{}", marker.layout, marker.version),
                (None, foreign) => foreign.to_owned(),
            };
            (!device.is_empty()).then(|| api::FoundDisk {
                device: device.to_owned(),
                size,
                chosen: true,
                holds,
                properties: facts.about.clone(),
            })
        };
        let first = chosen(&state.device, state.size, &state.facts);
        let further = state.layouts.iter().skip(1);
        let further = further.filter_map(|one| chosen(&one.device, one.size, &one.facts));
        let unused = state.facts.unused.iter().map(|disk| api::FoundDisk {
            device: disk.device.clone(),
            size: disk.size,
            chosen: false,
            holds: disk.what.clone(),
            properties: disk.about.clone(),
        });
        first.into_iter().chain(further).chain(unused).collect()
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
            more: (row.more.into_iter())
                .map(|(layout, OtherDiskRow { seen, marker })| (layout, OtherDisk { seen, marker }))
                .collect(),
            used: row.used,
            health: row.health.into_iter().map(KnownHealth::from).collect(),
            order: row.order.map(|order| DiskOrder {
                id: order.id,
                wipe_foreign: order.wipe_foreign,
                layouts: order.layouts,
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
