//! What the command line and the daemon say to each other: requests and answers, each a type of its own. `answers/` next to it makes
//! them of the program's types. Both sides are one program: nothing here is kept over releases, but scripts read `--json`, so fields keep
//! their names.
//!
//! No row of the store is here. What is here of other modules is their vocabulary, which means the same wherever it stands, and reports
//! that are made for whoever asks and kept nowhere:
//!
//! | From | Vocabulary | Reports |
//! |---|---|---|
//! | [`crate::boots`] | | [`DiskEffect`], [`DiskTrouble`] |
//! | [`crate::discovery`] | | [`FullPool`] |
//! | [`crate::inventory`] | [`Change`](crate::inventory::Change): what is to become of nodes | |
//! | [`crate::overlay`] | | [`ListedTree`], [`Preview`], [`UsersReport`] |
//! | [`crate::rollout`] | [`Share`](crate::rollout::Share) | |
//! | [`crate::timeline`] | [`Level`], [`NodeState`] | |
//! | `rackstrap_base` | times | [`SiteWarning`](rackstrap_base::warnings::SiteWarning) |
//! | `rackstrap_store` | [`BadRow`]: a row's name, and what is wrong with it | [`Look`] |
//! | `rackstrap_wire` | what agents and the daemon say to each other: addresses, versions, disks and their layouts, hardware | |
//!
//! `answers/tests.rs` compares this list with the imports, and pins the JSON of all of them.

use crate::overlay::ListedTree;
use rackstrap_base::clock::Timestamp;
use rackstrap_store::{BadRow, Look};
use rackstrap_wire::{DiskPlan, ImageRef, Layout, Wipe};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

mod discovery;
mod disks;
mod leases;
mod nodes;
pub mod paths;
mod restarts;
mod rollouts;
mod status;
mod timeline;
mod watch;

pub use discovery::*;
pub use disks::*;
pub use leases::*;
pub use nodes::*;
pub use restarts::*;
pub use rollouts::*;
pub use status::*;
pub use timeline::*;
pub use watch::*;

pub use crate::{
    discovery::FullPool,
    overlay::{Preview, UsersReport},
    timeline::{Level, NodeState},
};
pub use rackstrap_model::disks::{DiskEffect, DiskTrouble};

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
    pub set_aside: Vec<SetAsideRow>,
    /// Where nightly backups are; none if the site file wants none, or if no daemon runs.
    pub backups: Option<PathBuf>,
}

/// A row that was taken out of its table as it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAsideRow {
    /// When.
    pub at: Timestamp,
    /// The row, and what was wrong with it.
    #[serde(flatten)]
    pub row: BadRow,
    /// What was stored as its value, in hex digits.
    pub stored: String,
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
    pub node: NodeRow,
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
