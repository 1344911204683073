//! Of nodes' disks.

use super::{DiskEffect, NodeRow};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::{DiskMarker, DiskState, SeenDisk, UsedSpace};
use serde::{Deserialize, Serialize};

/// A node, and what is known of its disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskRow {
    /// The node.
    pub node: NodeRow,
    /// Its disk; none if no boot has told of it.
    pub disk: Option<NodeDiskRow>,
    /// What the site file that is in use would do to it, if that is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<DiskEffect>,
}

/// What is known of a node's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDiskRow {
    /// What the disk phase of the last boot left.
    pub state: DiskState,
    /// The prepared disk that the next boot must find; none while the agent may choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenDisk>,
    /// The marker of that disk; its id is empty from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<DiskMarker>,
    /// How full its file systems are, as the running node said last. Empty if it has said nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<UsedSpace>,
    /// What an administrator wants of the next boot; none if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<DiskOrderRow>,
}

/// The order to prepare a node's disk at its next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOrderRow {
    /// Tells it from every other order; 0 from an older release.
    #[serde(default)]
    pub id: u64,
    /// Overwrite somebody else's data as well.
    pub wipe_foreign: bool,
    /// Who gave it.
    pub by: String,
    /// When it was given.
    pub at: Timestamp,
}

/// `rackstrap node reprep`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WishDisks {
    /// Nodes.
    pub nodes: Vec<String>,
    /// What is wanted of their disks.
    pub wish: DiskWish,
}

/// What an administrator wants of nodes' disks.
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
    /// Withdraw an order.
    Cancel,
}
