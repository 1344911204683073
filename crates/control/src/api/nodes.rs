//! Requests and answers about the inventory.

use super::{CheckRow, DiskEffect, DiskHealthRow, NodeState, StatusRow};
use ipnet::Ipv4Net;
use rackstrap_base::clock::Timestamp;
use rackstrap_model::inventory::Change;
use rackstrap_wire::{Hardware, HwAddr, ImageRef, NetworkPlan};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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
    /// Groups, sorted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Attributes that administrators set, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Its own settings, by key; a key that ends with `+` adds to what its profiles have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Value>,
}

/// A node before and after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChange {
    /// The node before the change; none for a new node.
    pub before: Option<NodeRow>,
    /// The node after the change; none for a deleted node.
    pub after: Option<NodeRow>,
}

/// An entry of a node's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// When the change was made.
    pub at: Timestamp,
    /// The user who made the change, or the part of the daemon.
    pub by: String,
    /// The node before and after the change.
    pub changed: NodeChange,
}

/// A setting of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRow {
    /// Key in the site file.
    pub key: String,
    /// Value, as text.
    pub value: String,
    /// The profile that the value comes from; empty if it comes from no profile.
    pub profile: String,
    /// Where the value comes from: `node`, `profile gpu`, or `default` for the profile of that name.
    #[serde(default)]
    pub from: String,
    /// What the node itself adds to it, which is part of `value`; none if it adds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<String>,
    /// The values that this one wins over, the strongest first.
    #[serde(default)]
    pub hides: Vec<HiddenRow>,
}

/// A value that another one wins over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenRow {
    /// Where it comes from, as [`SettingRow::from`].
    pub from: String,
    /// The value, as text.
    pub value: String,
}

/// `rackstrap node show`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The node.
    pub node: NodeRow,
    /// Its settings, with the profile of each.
    pub settings: Vec<SettingRow>,
    /// Settings of the site file that it would not get if it booted now, and similar remarks.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Its checks in the present boot, or in the next one.
    #[serde(default)]
    pub checks: Vec<CheckRow>,
    /// Its networks besides the boot network, at its next boot.
    #[serde(default)]
    pub networks: Vec<NetworkPlan>,
    /// Its BMC, as `10.6.1.3 (ipmi, user admin)`; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bmc: String,
    /// The state of the node.
    pub status: StatusRow,
    /// Its hardware, as its agent last reported it; none before its first boot.
    pub hardware: Option<Hardware>,
    /// The boot order of its UEFI firmware, and what the agent does to it; empty on a BIOS, and before its first boot.
    #[serde(default)]
    pub boot_order: String,
    /// The health of its disks, as the running node last reported it; empty if it reported none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskHealthRow>,
    /// The entry by which its UEFI firmware started it last, and other systems on its disks that firmware can start; empty if not known.
    #[serde(default)]
    pub started_by: String,
    /// Its boots on the timeline, oldest first.
    pub boots: Vec<super::BootSummary>,
}

/// Changes of the inventory, which are made together or not at all. The request has no author, because the daemon knows the
/// user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Changes {
    /// The changes.
    pub changes: Vec<Change>,
    /// Whether to only report the result.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether to make the changes even if running nodes lose their roots.
    #[serde(default)]
    pub running: bool,
}

/// The result of [`Changes`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangesAnswer {
    /// All nodes that changed, or would change.
    pub changed: Vec<NodeChange>,
    /// The effects of the changes on the nodes' disks at their next boots.
    pub effects: Vec<DiskEffect>,
    /// Orders about disks that are dropped together with the machines that they concerned, one line for each.
    #[serde(default)]
    pub dropped: Vec<String>,
    /// What keeps the changed nodes from booting, one line for each problem.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Nodes of a network that boot the same, in an export to other DHCP servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSubnet {
    /// Network address and prefix length.
    pub network: Ipv4Net,
    /// The daemon's address there.
    pub server: Ipv4Addr,
    /// The beginning of all URLs there: `http://10.5.0.1:80`.
    pub base: String,
    /// The URL of iPXE's script, with the settings that iPXE inserts.
    pub script: String,
    /// Whether the daemon itself answers the boot part there.
    pub is_proxy: bool,
    /// What their firmware loads first, those of the longest classes first; empty where the daemon answers that itself.
    pub files: Vec<ExportFile>,
    /// Names of the nodes.
    pub nodes: Vec<String>,
}

/// A boot loader in an export to other DHCP servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportFile {
    /// How the vendor class (option 60) begins: `PXEClient` or `HTTPClient`, or more of it.
    pub class: String,
    /// Architecture types (option 93).
    pub archs: Vec<u16>,
    /// The name by which it is served.
    pub file: String,
}

/// A node in an export to other programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRow {
    /// Name, `r01n03`.
    pub name: String,
    /// Address on the boot network.
    pub ipaddr: Ipv4Addr,
    /// Hardware addresses; the first is the card that boots.
    pub hwaddrs: Vec<HwAddr>,
    /// Domain of the site; none if it has none.
    pub domain: Option<String>,
    /// Profiles, as the node names them.
    pub profiles: Vec<String>,
    /// The groups that the node is in.
    pub groups: Vec<String>,
    /// What its agent found; none before its first boot.
    pub hardware: Option<Hardware>,
    /// Size in bytes of the local partition for jobs' temporary files; none without one, or if its size is unknown.
    pub scratch: Option<u64>,
    /// Its names and addresses in further networks.
    #[serde(default)]
    pub networks: Vec<(String, Ipv4Addr)>,
    /// The rack that its name says; empty if it says none.
    #[serde(default)]
    pub rack: String,
    /// Its state; none from a daemon that does not report it.
    #[serde(default)]
    pub state: Option<NodeState>,
    /// Image version of its boot; none if it never booted.
    #[serde(default)]
    pub image: Option<ImageRef>,
    /// Attributes that administrators set, by name.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Its own settings, by key, without the values of secret variables.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// The variables of the node and its profiles that are not secret, by name.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// Public host keys of its sshd; empty before its first boot.
    #[serde(default)]
    pub host_keys: Vec<String>,
}
