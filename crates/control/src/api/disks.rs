//! Requests and answers about nodes' disks.

use super::{DiskEffect, NodeRow};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::{DiskHealth, DiskMarker, DiskState, FaultKind, SeenDisk, UsedSpace};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A node, and the record of its disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskRow {
    /// The node.
    pub node: NodeRow,
    /// Its disk; none if no boot has reported a disk.
    pub disk: Option<NodeDiskRow>,
    /// The effect of the site file in use on the disk, if the effect is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<DiskEffect>,
}

/// The record of a node's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDiskRow {
    /// The state in which the disk phase of the last boot left the disk.
    pub state: DiskState,
    /// The prepared disk that the next boot must find; none while the agent may choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenDisk>,
    /// The marker of that disk. Its id is empty if an older agent reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<DiskMarker>,
    /// The prepared disks of the node's further layouts, by the name of the layout; empty for a node with one layout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, OtherDiskRow>,
    /// Used space of its file systems, as the running node last reported it; empty if it reported nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<UsedSpace>,
    /// The order for the next boot, if an administrator gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<DiskOrderRow>,
    /// The health of all disks of the node, as the running node last reported it; empty if it reported none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<DiskHealthRow>,
}

/// The prepared disk of a further layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherDiskRow {
    /// The disk that the next boot must find for the layout.
    pub seen: SeenDisk,
    /// Its marker.
    pub marker: DiskMarker,
}

/// The health of one disk of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskHealthRow {
    /// What the disk reports, and its faults.
    #[serde(flatten)]
    pub health: DiskHealth,
    /// When each fault was reported first, by its kind; empty for a healthy disk.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<FaultKind, Timestamp>,
}

/// The order to prepare a node's disk at its next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOrderRow {
    /// Distinguishes this order from all others; 0 from an older release.
    #[serde(default)]
    pub id: u64,
    /// Overwrite data that rackstrap did not write, too.
    pub wipe_foreign: bool,
    /// Names of the layouts whose disks are prepared; empty for all of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<String>,
    /// Names of the only partitions to prepare; empty for the whole disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
    /// The user who gave the order.
    pub by: String,
    /// When it was given.
    pub at: Timestamp,
}

/// `rackstrap node reprep`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WishDisks {
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// What to do with their disks.
    pub wish: DiskWish,
    /// Names of the layouts whose disks are meant; empty for nodes with one layout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<String>,
    /// Names of the only partitions to prepare; empty for the whole disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
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
