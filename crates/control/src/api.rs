//! Requests and answers between the command line and the daemon, each with its own type. `answers/` makes them of the
//! program's types. Both sides are one program, so no type is kept for older releases. But scripts read `--json`, so fields
//! keep their names.
//!
//! The store's rows are not here. These types of other modules are: their vocabulary, which means the same everywhere, and
//! reports that are computed for an answer and stored in no table:
//!
//! | From | Vocabulary | Reports |
//! |---|---|---|
//! | [`rackstrap_model::disks`] | | [`DiskEffect`], [`DiskTrouble`] |
//! | [`rackstrap_registries::discovery`] | | [`FullPool`] |
//! | [`rackstrap_model::inventory`] | [`Change`](rackstrap_model::inventory::Change): a requested change of a node | |
//! | [`rackstrap_overlay`] | | [`ListedTree`], [`Preview`], [`UsersReport`] |
//! | [`rackstrap_registries::rollout`] | [`Share`](rackstrap_registries::rollout::Share) | |
//! | [`rackstrap_registries::timeline`] | [`Level`], [`NodeState`] | |
//! | `rackstrap_base` | times | [`SiteWarning`](rackstrap_base::warnings::SiteWarning) |
//! | `rackstrap_store` | [`BadRow`]: the name of a row, and its fault | [`Look`] |
//! | `rackstrap_wire` | the protocol of agents: addresses, versions, disks and their layouts, hardware | |
//!
//! `answers/tests.rs` compares this list with the imports, and pins the JSON of all these types.

use rackstrap_base::clock::Timestamp;
use rackstrap_overlay::ListedTree;
use rackstrap_store::{BadRow, Look};
use rackstrap_wire::{ContentOf, DiskPlan, ImageRef, Layout, NetworkPlan, RootOf, Wipe};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

mod discovery;
mod disks;
mod firmware;
mod leases;
mod nodes;
mod orders;
pub mod paths;
mod power;
mod restarts;
mod rollouts;
mod status;
mod timeline;
mod watch;

pub use discovery::*;
pub use disks::*;
pub use firmware::*;
pub use leases::*;
pub use nodes::*;
pub use orders::*;
pub use power::*;
pub use restarts::*;
pub use rollouts::*;
pub use status::*;
pub use timeline::*;
pub use watch::*;

pub use rackstrap_model::disks::{DiskEffect, DiskTrouble};
pub use rackstrap_overlay::{Preview, UsersReport};
pub use rackstrap_registries::{
    discovery::FullPool,
    timeline::{Level, NodeState},
};

/// An answer with a status other than 2xx.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What failed, on what, and what to do.
    pub error: String,
}

/// `rackstrap backup --check`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreAnswer {
    /// The rows that can be read, and those that cannot.
    #[serde(flatten)]
    pub look: Look,
    /// Rows that could not be read, and that the daemon set aside.
    pub set_aside: Vec<SetAsideRow>,
    /// The directory of nightly backups; none if the site file disables them, or if no daemon runs.
    pub backups: Option<PathBuf>,
}

/// A row that was removed from its table because it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAsideRow {
    /// When it was set aside.
    pub at: Timestamp,
    /// The row, and its problem.
    #[serde(flatten)]
    pub row: BadRow,
    /// The stored value, in hex digits.
    pub stored: String,
}

/// `rackstrap backup --discard`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discarded {
    /// Number of deleted rows.
    pub rows: u64,
}

/// The answer of a request that succeeded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// The result, as text.
    pub message: String,
}

/// A check of a node, and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRow {
    /// The text of the check.
    pub check: String,
    /// The result.
    pub state: CheckState,
    /// The finding, if the check fails.
    pub detail: String,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// The node has not reported a result yet.
    Unknown,
    /// The check passes.
    Holds,
    /// The check does not pass yet, and the node waits for it.
    Waits,
    /// The check fails.
    Failed,
}

impl CheckState {
    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckState::Unknown => "unknown",
            CheckState::Holds => "holds",
            CheckState::Waits => "waits",
            CheckState::Failed => "failed",
        }
    }
}

impl CheckRow {
    /// A check that no node has made.
    pub fn of_nobody(check: String) -> Self {
        CheckRow {
            check,
            state: CheckState::Unknown,
            detail: String::new(),
        }
    }
}

/// `rackstrap explain`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// The order for one boot of the node, which waits for a boot, or which a boot uses now. None for a node without an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<BootOrderRow>,
    /// The text that was asked about.
    pub about: String,
    /// How the decision was made, one line for each step.
    pub why: Vec<String>,
    /// Settings of the site file that the node does not get, and similar remarks.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The decision; none for unknown machines.
    pub decision: Option<ExplainDecision>,
    /// How rollouts concern it, one line for each.
    #[serde(default)]
    pub rollouts: Vec<String>,
    /// The boot that is pinned already, which a new decision does not change.
    pub pinned: Option<PinnedBoot>,
    /// The retries of its boots.
    #[serde(default)]
    pub retries: RetriesRow,
    /// Its lease of a temporary pool; none if it has no lease.
    pub lease: Option<LeaseRow>,
}

/// The boot decision for a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainDecision {
    /// The node.
    pub node: NodeRow,
    /// The image version; none for a node that cannot boot one.
    pub image: Option<ImageRef>,
    /// Why there is no image version.
    pub image_problem: Option<String>,
    /// The plan for the disk; none if disks are left alone.
    pub disk: Option<DiskPlan>,
    /// Kernel arguments of the site.
    pub kernel_args: String,
    /// Overlay trees.
    pub templates: Vec<String>,
    /// The serial console; empty if there is none.
    pub console: String,
    /// The boot order of its UEFI firmware, and what the agent does to it; empty on a BIOS, and before its first boot.
    #[serde(default)]
    pub boot_order: String,
    /// The entry by which its UEFI firmware started it last, and other systems on its disks that firmware can start; empty if not known.
    #[serde(default)]
    pub started_by: String,
    /// The path of PID 1.
    pub init: String,
    /// Size limit of the writable layer.
    pub ram_size: String,
    /// MTU of its card in bytes; none = as the card has it.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// VLAN of the boot network; none if its packets have no tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Its networks besides the boot network.
    #[serde(default)]
    pub networks: Vec<NetworkPlan>,
    /// Its BMC, as `10.6.1.3 (ipmi, user admin)`; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bmc: String,
    /// Options of its DHCP answers, those of its subnet included, as the site file has them.
    #[serde(default)]
    pub dhcp_options: Vec<String>,
    /// The checks of the running node.
    #[serde(default)]
    pub checks: Vec<String>,
    /// Where its settings come from, and what they hide.
    #[serde(default)]
    pub settings: Vec<SettingRow>,
    /// The disks that the node's last boot found, its own one first; empty before its first boot with a layout.
    #[serde(default)]
    pub disks: Vec<FoundDisk>,
}

/// A disk that a node's last boot found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDisk {
    /// Kernel name.
    pub device: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether the boot chose it.
    pub chosen: bool,
    /// What it held, for people; of the chosen disk its layout.
    pub holds: String,
    /// Its properties as the text of a rule; empty from an older agent.
    pub properties: String,
}

/// A pinned boot, without its token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinnedBoot {
    /// Id of the boot.
    pub id: String,
    /// The image version of the boot.
    pub image: ImageRef,
    /// When its script was sent.
    pub opened: Timestamp,
    /// When its system was up; none if it is not.
    pub ready: Option<Timestamp>,
    /// The results of its checks.
    #[serde(default)]
    pub checks: Vec<CheckRow>,
}

/// A disk layout of the site file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayoutRow {
    /// The layout.
    #[serde(flatten)]
    pub layout: Layout,
    /// The digest of the layout, as in the marker of a disk.
    pub digest: String,
    /// Which data may be overwritten for it.
    pub wipe: Wipe,
    /// The disk that it is for, `auto`, a kernel name, or the text of a rule, unless a setting `disk` says otherwise; none if the layout does not
    /// say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Owners and modes of the partitions' root directories.
    #[serde(default)]
    pub roots: Vec<RootOf>,
    /// Labels and encryption of partitions that have one.
    #[serde(default)]
    pub contents: Vec<ContentOf>,
    /// Profiles that use it.
    pub profiles: Vec<String>,
}

/// `rackstrap reload`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Reload {
    /// Whether to accept the file even if nodes lose data at their next boots.
    #[serde(default)]
    pub reprep: bool,
}

/// The result of [`Reload`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// The result, as text; empty if nothing was done.
    pub message: String,
    /// Effects on nodes that lose data, or are degraded, at their next boots because of the file.
    pub effects: Vec<DiskEffect>,
    /// False if the old site file stays in use because nodes would lose data.
    pub done: bool,
}

/// A tree of nodes' files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TreeRow {
    /// The tree.
    #[serde(flatten)]
    pub tree: ListedTree,
    /// Profiles whose nodes get the tree.
    pub profiles: Vec<String>,
}

/// An image version that may not be deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageUse {
    /// The version.
    pub image: ImageRef,
    /// Nodes that run from it or boot into it.
    pub nodes: Vec<String>,
    /// Other reasons to keep it: profiles, rollouts, nodes that would go back to it.
    pub reasons: Vec<String>,
    /// Its variants that nodes run from or boot into, by name, with those nodes; none from an older daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variants: Option<BTreeMap<String, BTreeSet<String>>>,
}
