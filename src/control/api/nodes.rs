//! Of the inventory.

use super::{CheckRow, DiskEffect, StatusRow};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::inventory::Change;
use rackstrap_wire::{Hardware, HwAddr};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// A node of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Name by the site's pattern, `r01n03`.
    pub name: String,
    /// Hardware addresses; the first is the card that boots. Never empty.
    pub hwaddrs: Vec<HwAddr>,
    /// Address; follows from the name.
    pub ipaddr: Ipv4Addr,
    /// Profiles of the site file; later ones win. Empty: only `default`.
    pub profiles: Vec<String>,
    /// Groups, in order.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Facts of the site's own about the node, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A node before and after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChange {
    /// As it was; none for a new node.
    pub before: Option<NodeRow>,
    /// As it is; none for one that was deleted.
    pub after: Option<NodeRow>,
}

/// A change of a node that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// When.
    pub at: Timestamp,
    /// Who made it: a user, or what the daemon did it for.
    pub by: String,
    /// The node before and after it.
    pub changed: NodeChange,
}

/// A setting of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRow {
    /// Key in the site file.
    pub key: String,
    /// Value, as text.
    pub value: String,
    /// Profile that it is from.
    pub profile: String,
}

/// `rackstrap node show`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The node.
    pub node: NodeRow,
    /// What its profiles say, and which of them said it.
    pub settings: Vec<SettingRow>,
    /// What the site file wants for it and it would not get if it booted now, and the like.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What must be true of it, as its boot has it, or as its next one would.
    #[serde(default)]
    pub checks: Vec<CheckRow>,
    /// Where it is.
    pub status: StatusRow,
    /// What its machine is, as its agent said last; none before its first boot.
    pub hardware: Option<Hardware>,
    /// Its boots that the timeline still holds, oldest first.
    pub boots: Vec<super::BootSummary>,
}

/// Changes of the inventory, to be made together or not at all. Who makes them is not said: the daemon knows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Changes {
    /// The changes.
    pub changes: Vec<Change>,
    /// Only say what they would make.
    #[serde(default)]
    pub dry_run: bool,
    /// Also if nodes that run lose their roots.
    #[serde(default)]
    pub running: bool,
}

/// What became of [`Changes`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangesAnswer {
    /// Every node that is different now, or would be.
    pub changed: Vec<NodeChange>,
    /// What the next boots of these nodes do to their disks because of it.
    pub effects: Vec<DiskEffect>,
    /// Orders about disks that go with the machines they were meant for, a line each.
    #[serde(default)]
    pub dropped: Vec<String>,
}

/// What is known of a node that is exported to other programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRow {
    /// Name, `r01n03`.
    pub name: String,
    /// Address.
    pub ipaddr: Ipv4Addr,
    /// Hardware addresses; the first is the card that boots.
    pub hwaddrs: Vec<HwAddr>,
    /// Domain of the site; none if it has none.
    pub domain: Option<String>,
    /// Profiles, as the node names them.
    pub profiles: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// What its agent found; none before its first boot.
    pub hardware: Option<Hardware>,
    /// Bytes of the local partition for jobs' temporary files; none without one, or if its size is unknown.
    pub scratch: Option<u64>,
}
