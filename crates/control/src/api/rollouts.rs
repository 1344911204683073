//! Requests and answers about rollouts and current versions.

use super::{RestartsWithdrawn, Watchable};
use rackstrap_base::clock::Timestamp;
use rackstrap_registries::rollout::Share;
use rackstrap_wire::ImageRef;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version that all nodes of an image boot, unless a profile pins one or a rollout gives another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentVersion {
    /// The version.
    pub image: ImageRef,
    /// Numbers of the versions that were current before, the most recent one last; empty for the first one.
    #[serde(default)]
    pub before: Vec<u32>,
    /// Since when the version is current.
    pub since: Timestamp,
    /// The user who made it current.
    pub by: String,
}

/// `rackstrap image promote`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PromoteImage {
    /// The version.
    pub image: ImageRef,
}

/// A step of `rackstrap image rename`: the command renames the directory between the first and the last step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameImage {
    /// The name before.
    pub old: String,
    /// The new name.
    pub new: String,
    /// The step.
    pub step: RenameImageStep,
}

/// The steps of renaming an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenameImageStep {
    /// Before the directory is renamed.
    Begin,
    /// The directory was renamed.
    Done,
    /// The directory could not be renamed.
    Failed,
}

/// `rackstrap image rollback`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RollBack {
    /// The image's name.
    pub name: String,
}

/// The result of [`RollBack`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolledBack {
    /// The current version afterwards.
    #[serde(flatten)]
    pub current: CurrentVersion,
    /// The rollout that was ended; none if no rollout was active.
    pub ended: Option<ImageRef>,
    /// What happened to the restarts of that rollout.
    #[serde(default)]
    pub restarts: RestartsWithdrawn,
}

/// A rollout that was paused or ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutHeld {
    /// The rollout afterwards.
    #[serde(flatten)]
    pub rollout: RolloutAnswer,
    /// What happened to the restarts of the rollout.
    #[serde(default)]
    pub restarts: RestartsWithdrawn,
}

/// `rackstrap rollout start`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BeginRollout {
    /// The request.
    pub wish: RolloutWish,
}

/// A request for a rollout. It has no author, because the daemon knows the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutWish {
    /// The version.
    pub image: ImageRef,
    /// The canary.
    pub nodes: Vec<String>,
    /// Whether the nodes are restarted.
    pub reboot: bool,
    /// With `reboot`: how many nodes may be down at the same time.
    pub max_down: Share,
    /// Time from the first boot of the version until the node must be ready, in seconds.
    pub ready_within_secs: u64,
    /// How many nodes may fail; one more stops the rollout.
    pub max_failures: u32,
    /// How long a node must stay healthy until it counts as good, in seconds.
    pub soak_secs: u64,
    /// A remark; may be empty.
    pub message: String,
}

/// The result of [`BeginRollout`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutBegun {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: RolloutAnswer,
    /// What may go wrong, one line for each.
    pub warnings: Vec<String>,
}

/// `rackstrap rollout promote`, `pause`, `resume` and `abort`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutOrder {
    /// NAME or NAME@VERSION; none for the only active rollout.
    pub image: Option<String>,
    /// How to continue; `resume` reads only the number of failures.
    #[serde(default)]
    pub pace: RolloutPace,
}

/// How the remaining nodes get a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPace {
    /// Size of a batch; none: unchanged, or a tenth of the nodes.
    #[serde(default)]
    pub batch: Option<Share>,
    /// Time between the end of a batch and the next one, in seconds; none: unchanged, or 0.
    #[serde(default)]
    pub pause_secs: Option<u64>,
    /// How many nodes may fail; none: unchanged.
    #[serde(default)]
    pub max_failures: Option<u32>,
}

/// `rackstrap rollout retry`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Retry {
    /// The nodes.
    pub nodes: Vec<String>,
}

/// `rackstrap rollout status` and `list`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutsAnswer {
    /// The daemon's present time.
    pub now: Timestamp,
    /// Current versions, by image name.
    pub current: Vec<CurrentVersion>,
    /// All remembered rollouts, the newest last.
    pub rollouts: Vec<RolloutRow>,
}

impl Watchable for RolloutsAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// A rollout, and its nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutRow {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: RolloutAnswer,
    /// The reason why it waits, as text; empty if it has ended.
    pub waits_for: String,
    /// Its nodes. Of ended rollouts, only the last one of each image has them.
    pub nodes: Vec<RolloutNode>,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutAnswer {
    /// Number of the rollout, from 1, in the order of their beginning.
    pub number: u64,
    /// The version.
    pub image: ImageRef,
    /// The version that was current when it began.
    pub from: ImageRef,
    /// The user who began it.
    pub by: String,
    /// When it began.
    pub began: Timestamp,
    /// A remark; may be empty.
    pub message: String,
    /// The stage.
    pub stage: RolloutStage,
    /// Whether it is paused until an administrator resumes it.
    pub paused: bool,
    /// Why it stopped by itself; empty if it did not.
    pub stopped: String,
    /// Size of a batch.
    pub batch: Share,
    /// Time between the end of a batch and the next one, in seconds.
    pub pause_secs: u64,
    /// Time from the first boot of the version until the node must be ready, in seconds.
    pub ready_within_secs: u64,
    /// How many nodes may fail.
    pub max_failures: u32,
    /// How long a node must stay healthy, in seconds.
    pub soak_secs: u64,
    /// Whether its nodes are restarted.
    pub reboot: bool,
    /// How many nodes may be down at the same time for that.
    pub max_down: Share,
    /// The last batch that was given the version; 0 is the canary.
    #[serde(rename = "round")]
    pub last_batch: u32,
    /// Since when all batches so far are complete.
    pub settled: Option<Timestamp>,
    /// When it ended; none while it is active.
    pub ended: Option<Timestamp>,
    /// Number of nodes of the image when they were last counted.
    pub all: usize,
    /// What happened, oldest first.
    #[serde(rename = "notes")]
    pub remarks: Vec<RolloutRemark>,
    /// The number of nodes in each state.
    pub tally: RolloutTally,
}

impl RolloutAnswer {
    /// Whether it is active.
    pub fn is_on(&self) -> bool {
        matches!(self.stage, RolloutStage::Canary | RolloutStage::Promoting)
    }

    /// Whether no further nodes get the version, because it is paused or has stopped by itself.
    pub fn is_held(&self) -> bool {
        self.paused || !self.stopped.is_empty()
    }
}

/// The stage of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutStage {
    /// The canary has the version.
    #[serde(rename = "subset")]
    Canary,
    /// The remaining nodes get it, batch by batch.
    Promoting,
    /// All nodes have it, and it is the current version.
    Done,
    /// It was ended, and its nodes go back.
    Aborted,
    /// It was active or done, and the version before is current again.
    RolledBack,
}

impl RolloutStage {
    /// Whether the nodes go back to the version that was current before.
    pub fn is_taken_back(self) -> bool {
        matches!(self, RolloutStage::Aborted | RolloutStage::RolledBack)
    }
}

impl fmt::Display for RolloutStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RolloutStage::Canary => "canary",
            RolloutStage::Promoting => "promoting",
            RolloutStage::Done => "done",
            RolloutStage::Aborted => "aborted",
            RolloutStage::RolledBack => "rolled back",
        })
    }
}

/// An event of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRemark {
    /// When it happened.
    pub at: Timestamp,
    /// What happened, and the user who caused it.
    pub what: String,
}

/// The number of nodes in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutTally {
    /// Nodes that wait.
    pub waiting: usize,
    /// Nodes that boot.
    pub booting: usize,
    /// Nodes that are ready.
    pub ready: usize,
    /// Nodes that failed.
    pub failed: usize,
    /// Nodes that rolled back to their last known good version.
    #[serde(rename = "gone_back")]
    pub rolled_back: usize,
}

/// A node of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutNode {
    /// Name of the node.
    pub node: String,
    /// The state of the node in the rollout.
    #[serde(flatten)]
    pub state: RolloutNodeState,
    /// Since when the state lasts.
    pub since: Timestamp,
    /// The batch of the node; 0 is the canary.
    #[serde(rename = "round")]
    pub batch: u32,
    /// Whether the next batch waits for it. False if it was off when it was given the version, or became silent or stalled
    /// since.
    pub counts: bool,
    /// Whether it was degraded already before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_degraded: bool,
    /// Whether it was ready for the whole soak time.
    #[serde(rename = "good")]
    pub proven: bool,
    /// Boots that fetched the version's kernel since it was last ready.
    pub boots: u32,
    /// Id of the last of these boots; empty if there is none.
    pub boot: String,
    /// When the first of these boots fetched the kernel; none before that.
    pub first: Option<Timestamp>,
    /// Why its next step is overdue, while it waits or boots; empty if it is not overdue.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stalled: String,
    /// What it does by an order for one boot (`rescue`), which says nothing about the version; empty in a usual boot.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ordered: String,
    /// The version that it runs or boots into; none before its first boot.
    pub image: Option<ImageRef>,
}

/// The state of a node in a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum RolloutNodeState {
    /// It was given the version and has not booted it.
    Waiting,
    /// It boots the version.
    Booting,
    /// It is ready.
    Ready,
    /// It is not ready or not healthy, and its time is over.
    Failed {
        /// The reason, for people.
        why: String,
    },
    /// It boots its last known good version.
    #[serde(rename = "gone-back")]
    RolledBack {
        /// The reason, for people.
        why: String,
    },
}

impl RolloutNodeState {
    /// Why it failed; empty if it did not fail.
    pub fn why(&self) -> &str {
        match self {
            RolloutNodeState::Failed { why } | RolloutNodeState::RolledBack { why } => why,
            RolloutNodeState::Waiting | RolloutNodeState::Booting | RolloutNodeState::Ready => "",
        }
    }
}

impl fmt::Display for RolloutNodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RolloutNodeState::Waiting => "waiting",
            RolloutNodeState::Booting => "booting",
            RolloutNodeState::Ready => "ready",
            RolloutNodeState::Failed { .. } => "failed",
            RolloutNodeState::RolledBack { .. } => "rolled back",
        })
    }
}
