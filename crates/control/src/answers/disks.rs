//! Answers about nodes' disks.

use crate::api::{self, DiskOrderRow, NodeDiskRow};
use rackstrap_model::disks::{DiskOrder, DiskWish, NodeDisk};

impl From<NodeDisk> for NodeDiskRow {
    fn from(disk: NodeDisk) -> Self {
        NodeDiskRow {
            state: disk.state,
            seen: disk.seen,
            marker: disk.marker,
            used: disk.used,
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

/// For `check`, which computes the effect of another site file on the disks.
impl From<NodeDiskRow> for NodeDisk {
    fn from(row: NodeDiskRow) -> Self {
        NodeDisk {
            state: row.state,
            seen: row.seen,
            marker: row.marker,
            used: row.used,
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
