//! Requests and answers about the states of nodes.

use super::{BootOrderRow, DiskTrouble, FullPool, NodeState, RetryCounts, Watchable};
use rackstrap_base::{clock::Timestamp, warnings::SiteWarning};
use rackstrap_wire::ImageRef;
use serde::{Deserialize, Serialize};

/// One row of `rackstrap status`: a node, or an unknown machine that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRow {
    /// Node name, or the hardware address of an unknown machine.
    pub node: String,
    /// Where the node is.
    pub state: NodeState,
    /// When the state began; none if the node was never heard of.
    pub since: Option<Timestamp>,
    /// Image version of its boot; none if it never booted.
    pub image: Option<ImageRef>,
    /// Address of the node, or of the lease of an unknown machine; none if it has no lease.
    pub ipaddr: Option<std::net::Ipv4Addr>,
    /// Its disk in a few words; empty if no agent reported it.
    pub disk: String,
    /// What its next boot does to the disk other than keeping it; empty if nothing.
    #[serde(default)]
    pub next_disk: String,
    /// Why its disk was left alone; none if a person cannot correct that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_trouble: Option<DiskTrouble>,
    /// The last failure, retry or lack; why an unknown machine is not placed automatically. Empty if there is none.
    pub last_error: String,
    /// When it was last heard of; none if it never was.
    pub heard: Option<Timestamp>,
    /// Id of the boot that it is in, empty if none is pinned.
    pub boot: String,
    /// The difference from what its image asks for, in a few words (`SELinux permissive`); empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remark: String,
    /// The order for one boot of the node, which waits for a boot, or which a boot uses now. None for a node without an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<BootOrderRow>,
    /// The retries of the boot that it is in, or that brought it up; empty if nothing failed.
    #[serde(default, skip_serializing_if = "RetryCounts::is_empty")]
    pub retries: RetryCounts,
}

/// `rackstrap status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// Name of the cluster.
    pub cluster: String,
    /// The daemon's present time.
    pub now: Timestamp,
    /// All nodes, and then the unknown machines that are not ignored.
    pub nodes: Vec<StatusRow>,
    /// Number of unknown machines that are ignored.
    pub ignored: usize,
    /// Pools that have no address for some of the machines.
    pub full: Vec<FullPool>,
    /// Problems of the site as a whole, each with its remedy.
    #[serde(default)]
    pub warnings: Vec<SiteWarning>,
}

impl Watchable for StatusAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}
