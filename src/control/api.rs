//! What the command line and the daemon say to each other. Both are one program: nothing here is kept over releases.

use crate::{
    boots::{Boot, DiskEffect, DiskWish, NodeDisk},
    discovery::{FullPool, View, Wanted},
    inventory::{Change, Changed, Node, Setting},
    overlay::ListedTree,
    restart::{Request, Want},
    timeline::{BootSummary, Event, NodeState, StatusRow, Subject},
};
use rackstrap_base::{clock::Timestamp, warnings::SiteWarning};
use rackstrap_store::{Look, SetAside};
use rackstrap_wire::{DiskPlan, Hardware, HwAddr, ImageRef, LOGIN, Layout, Wipe};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

pub mod paths;
mod rollouts;
mod watch;

pub use rollouts::*;
pub use watch::*;

/// Any answer that is not 2xx.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What, on what, and what to do.
    pub error: String,
}

/// `rackstrap backup --check`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreAnswer {
    /// What can be read and what cannot.
    #[serde(flatten)]
    pub look: Look,
    /// Rows that could not be read, and that the daemon took out of its way.
    pub set_aside: Vec<SetAside>,
    /// Where nightly backups are; none if the site file wants none, or if no daemon runs.
    pub backups: Option<PathBuf>,
}

/// `rackstrap backup --discard`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discarded {
    /// Rows that were deleted.
    pub rows: u64,
}

/// Something was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// What.
    pub message: String,
}

/// `rackstrap status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// Name of the cluster.
    pub cluster: String,
    /// The daemon's present.
    pub now: Timestamp,
    /// All nodes, then the unknown machines, but for those that are ignored.
    pub nodes: Vec<StatusRow>,
    /// Unknown machines that are ignored.
    pub ignored: usize,
    /// Pools that have no address for some of the machines.
    pub full: Vec<FullPool>,
    /// What is wrong with the site as a whole, each with its remedy.
    #[serde(default)]
    pub warnings: Vec<SiteWarning>,
}

impl Watchable for StatusAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// `rackstrap node show`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The node.
    pub node: Node,
    /// What its profiles say, and which of them said it.
    pub settings: Vec<Setting>,
    /// What the site file wants for it and it would not get if it booted now, and the like.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What must be true of it, as its boot has it, or as its next one would.
    #[serde(default)]
    pub checks: Vec<CheckRow>,
    /// Where it is.
    pub status: StatusRow,
    /// What its machine is, as its agent said last.
    pub hardware: Option<Hardware>,
    /// Its boots that the timeline still holds, oldest first.
    pub boots: Vec<BootSummary>,
}

/// One thing that must be true of a node, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRow {
    /// The check, as it is written.
    pub check: String,
    /// What came of it.
    pub state: CheckState,
    /// What was seen, if it does not hold.
    pub detail: String,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// The node has not told yet.
    Unknown,
    /// It holds.
    Holds,
    /// It does not hold yet, and the node waits for it.
    Waits,
    /// It does not hold.
    Failed,
}

impl CheckState {
    /// The name that people see.
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

/// The checks of a boot's plan.
pub fn checks_of(boot: &Boot) -> Vec<CheckRow> {
    // An older agent says nothing of the last one: it is shown where it was made.
    let own = (boot.checks.iter().map(|result| &result.check)).filter(|check| *check == LOGIN);
    let checks = boot.plan.health.checks.iter().chain(own).map(|check| {
        let result = boot.checks.iter().find(|result| result.check == *check);
        let state = match result {
            None => CheckState::Unknown,
            Some(result) if result.ok => CheckState::Holds,
            Some(_) if boot.ready.is_none() => CheckState::Waits,
            Some(_) => CheckState::Failed,
        };
        CheckRow {
            check: check.clone(),
            state,
            detail: result.map(|result| result.detail.clone()).unwrap_or_default(),
        }
    });
    checks.collect()
}

/// Changes of the inventory, to be made together or not at all.
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
    pub changed: Vec<Changed>,
    /// What the next boots of these nodes do to their disks because of it.
    pub effects: Vec<DiskEffect>,
    /// Orders about disks that go with the machines they were meant for, a line each.
    #[serde(default)]
    pub dropped: Vec<String>,
}

/// `rackstrap discover list` and `watch`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiscoveryAnswer {
    /// The daemon's present.
    pub now: Timestamp,
    /// Who waits, and racks that are being filled.
    #[serde(flatten)]
    pub view: View,
    /// Those racks, position by position.
    pub racks: Vec<Elevation>,
}

impl Watchable for DiscoveryAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// A rack, from its lowest position up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Elevation {
    /// The rack.
    pub rack: String,
    /// Its positions, as far as they matter: up to some behind the next one.
    pub slots: Vec<Slot>,
}

/// A position in a rack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// The name that belongs to it.
    pub name: String,
    /// What is there.
    pub what: SlotState,
    /// The node's card.
    pub hwaddr: Option<HwAddr>,
    /// Where the node is.
    pub state: Option<NodeState>,
    /// True if this session placed it.
    pub new: bool,
}

/// What is at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// A node.
    Node,
    /// Nobody: the next machine comes here.
    Next,
    /// Nobody yet.
    Free,
    /// Nobody, by wish.
    Skipped,
    /// Nobody, as the site file reserves its address.
    Reserved,
}

/// `rackstrap discover start`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Begin {
    /// What is wanted.
    pub wanted: Wanted,
}

/// A rack that is being filled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rack {
    /// Which.
    pub rack: String,
    /// Also if a node that runs loses its root.
    #[serde(default)]
    pub running: bool,
}

/// `rackstrap discover accept`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accept {
    /// The machine.
    pub hwaddr: HwAddr,
    /// The node that it shall be; none for the next position of its rack.
    pub node: Option<String>,
    /// The node exists, and gets this machine.
    #[serde(default)]
    pub replace: bool,
}

/// What became of [`Accept`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// The node that the machine is.
    pub node: String,
}

/// `rackstrap discover ignore`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ignore {
    /// The machine.
    pub hwaddr: HwAddr,
    /// False to show it again.
    pub ignored: bool,
}

/// `rackstrap timeline`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimelineAnswer {
    /// Whose.
    pub subject: Subject,
    /// Its events, oldest first.
    pub events: Vec<Event>,
    /// The same, as boots.
    pub boots: Vec<BootSummary>,
}

impl Watchable for TimelineAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        None
    }
}

/// `rackstrap explain`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// What was asked about.
    pub about: String,
    /// How the decision came about, one line a step.
    pub why: Vec<String>,
    /// What the site file wants for the node and it does not get, and the like.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The decision; none for unknown machines.
    pub decision: Option<ExplainDecision>,
    /// What rollouts have to do with it, one line each.
    #[serde(default)]
    pub rollouts: Vec<String>,
    /// The boot that is pinned already, which a new decision does not touch.
    pub pinned: Option<PinnedBoot>,
    /// Its lease of a temporary pool.
    pub lease: Option<LeaseRow>,
}

/// What a node shall boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainDecision {
    /// The node.
    pub node: Node,
    /// Image version.
    pub image: Option<ImageRef>,
    /// Why there is none.
    pub image_problem: Option<String>,
    /// The disk.
    pub disk: Option<DiskPlan>,
    /// Kernel arguments of the site.
    pub kernel_args: String,
    /// Overlay trees.
    pub templates: Vec<String>,
    /// Serial console or empty.
    pub console: String,
    /// PID 1.
    pub init: String,
    /// Size limit of the writable layer.
    pub ram_size: String,
    /// What must be true of the running node.
    #[serde(default)]
    pub checks: Vec<String>,
}

/// A pinned boot, without its token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinnedBoot {
    /// Its id.
    pub id: String,
    /// Its image version.
    pub image: ImageRef,
    /// When its script was handed out.
    pub opened: Timestamp,
    /// When its system was up.
    pub ready: Option<Timestamp>,
    /// What came of its checks.
    #[serde(default)]
    pub checks: Vec<CheckRow>,
}

impl From<&Boot> for PinnedBoot {
    fn from(boot: &Boot) -> Self {
        PinnedBoot {
            id: boot.plan.id.clone(),
            image: boot.image().clone(),
            opened: boot.opened,
            ready: boot.ready,
            checks: checks_of(boot),
        }
    }
}

/// `rackstrap node restart --list`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestartsAnswer {
    /// The daemon's present.
    pub now: Timestamp,
    /// The oldest first.
    pub requests: Vec<Request>,
    /// How many nodes rollouts that are on take down at once, for people, by image name.
    #[serde(default)]
    pub bounds: BTreeMap<String, String>,
}

impl Watchable for RestartsAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// `rackstrap node restart`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WantRestarts {
    /// What is wanted.
    pub want: Want,
    /// Only say what would be.
    pub dry_run: bool,
}

/// `rackstrap node restart --cancel`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CancelRestarts {
    /// Nodes that are not to be restarted.
    pub nodes: Vec<String>,
}

/// A lease of a temporary pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The address.
    pub ipaddr: Ipv4Addr,
    /// What DHCP keeps about it: `hwaddr`, `state`, `since`, `expires` and more.
    #[serde(flatten)]
    pub lease: BTreeMap<String, serde_json::Value>,
}

/// `rackstrap lease release`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReleaseLeases {
    /// Addresses and hardware addresses.
    pub leases: Vec<String>,
    /// Only say which leases would end.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of [`ReleaseLeases`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Released {
    /// Leases that ended, or would.
    pub released: Vec<LeaseRow>,
    /// What no lease was found for, as it was asked.
    pub none: Vec<String>,
}

/// A disk layout of the site file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayoutRow {
    /// The layout.
    #[serde(flatten)]
    pub layout: Layout,
    /// Its digest, as disks are marked with it.
    pub digest: String,
    /// What may be overwritten for it.
    pub wipe: Wipe,
    /// Profiles that name it.
    pub profiles: Vec<String>,
}

/// `rackstrap reload`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Reload {
    /// Also if nodes lose data at their next boots.
    #[serde(default)]
    pub reprep: bool,
}

/// What became of [`Reload`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// What was done, for people; empty if nothing was.
    pub message: String,
    /// Nodes that lose data, or are degraded, at their next boots because of the file.
    pub effects: Vec<DiskEffect>,
    /// False if the old site file stays in use because nodes would lose data.
    pub done: bool,
}

/// What is known of a node's disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskRow {
    /// The node.
    pub node: Node,
    /// Its disk; none if no boot has told of it.
    pub disk: Option<NodeDisk>,
    /// What the site file that is in use would do to it, if that is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<DiskEffect>,
}

/// `rackstrap node reprep`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WishDisks {
    /// Nodes.
    pub nodes: Vec<String>,
    /// What is wanted of their disks.
    pub wish: DiskWish,
}

/// A tree of nodes' files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TreeRow {
    /// The tree.
    #[serde(flatten)]
    pub tree: ListedTree,
    /// Profiles whose nodes get it.
    pub profiles: Vec<String>,
}

/// An image version that may not be deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageUse {
    /// The version.
    pub image: ImageRef,
    /// Nodes that run from it or boot into it.
    pub nodes: Vec<String>,
    /// Why it has to stay apart from that: profiles, rollouts, nodes that would go back to it.
    pub reasons: Vec<String>,
}
