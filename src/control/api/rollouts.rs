//! Of rollouts, and of current versions.

use super::{RestartsWithdrawn, Watchable};
use crate::rollout::Share;
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version that all nodes of an image boot, unless a profile pins one or a rollout gives another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentVersion {
    /// The version.
    pub image: ImageRef,
    /// Numbers of those that were current before it, the last one last; empty for the first one.
    #[serde(default)]
    pub before: Vec<u32>,
    /// Since when.
    pub since: Timestamp,
    /// Who made it current.
    pub by: String,
}

/// `rackstrap image promote`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PromoteImage {
    /// The version.
    pub image: ImageRef,
}

/// A step of `rackstrap image rename`: the command moves the directory between the first step and the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameImage {
    /// Its name until now.
    pub old: String,
    /// Its name from now on.
    pub new: String,
    /// How far that is.
    pub step: RenameImageStep,
}

/// How far the renaming of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenameImageStep {
    /// About to be done.
    Begin,
    /// Done.
    Done,
    /// Not done: the directory could not be moved.
    Failed,
}

/// `rackstrap image rollback`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RollBack {
    /// The image's name.
    pub name: String,
}

/// What became of [`RollBack`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolledBack {
    /// What is current now.
    #[serde(flatten)]
    pub current: CurrentVersion,
    /// The rollout that was on, and is no more; none if none was.
    pub ended: Option<ImageRef>,
    /// What becomes of restarts that it had wanted.
    #[serde(default)]
    pub restarts: RestartsWithdrawn,
}

/// A rollout that was paused or ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutHeld {
    /// As it is now.
    #[serde(flatten)]
    pub rollout: RolloutAnswer,
    /// What becomes of restarts that it had wanted.
    #[serde(default)]
    pub restarts: RestartsWithdrawn,
}

/// `rackstrap rollout start`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BeginRollout {
    /// What is wanted.
    pub wish: RolloutWish,
}

/// What an administrator wants of a rollout. Who wants it is not said: the daemon knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutWish {
    /// The version.
    pub image: ImageRef,
    /// Nodes that get it first.
    pub nodes: Vec<String>,
    /// Their agents are to restart them.
    pub reboot: bool,
    /// With `reboot`: how many nodes may be down at once.
    pub max_down: Share,
    /// From the first boot of the version until the node has to be ready, seconds.
    pub ready_within_secs: u64,
    /// Nodes that may fail; one more stops the rollout.
    pub max_failures: u32,
    /// How long a node has to stay well until it counts as good, seconds.
    pub soak_secs: u64,
    /// A remark; may be empty.
    pub message: String,
}

/// What became of [`BeginRollout`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutBegun {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: RolloutAnswer,
    /// What may go wrong with it, a line each.
    pub warnings: Vec<String>,
}

/// `rackstrap rollout promote`, `pause`, `resume` and `abort`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutOrder {
    /// NAME or NAME@VERSION; none for the only one that is on.
    pub image: Option<String>,
    /// How it is to continue; of `resume`, only the failures that are allowed.
    #[serde(default)]
    pub pace: RolloutPace,
}

/// How the other nodes are to get a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPace {
    /// Nodes that get it at once; none: as it was, or a tenth.
    #[serde(default)]
    pub batch: Option<Share>,
    /// Between the end of a batch and the next one, seconds; none: as it was, or 0.
    #[serde(default)]
    pub pause_secs: Option<u64>,
    /// Nodes that may fail; none: as it was.
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
    /// The daemon's present.
    pub now: Timestamp,
    /// What is current, by image name.
    pub current: Vec<CurrentVersion>,
    /// All that are remembered, the newest last.
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
    /// What it waits for, for people; empty if it is over.
    pub waits_for: String,
    /// Its nodes; of those that are over, only the last one of each image has them.
    pub nodes: Vec<RolloutNode>,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutAnswer {
    /// Orders all rollouts, from 1.
    pub number: u64,
    /// The version.
    pub image: ImageRef,
    /// The version that was current when it began.
    pub from: ImageRef,
    /// Who began it.
    pub by: String,
    /// When it began.
    pub began: Timestamp,
    /// A remark; may be empty.
    pub message: String,
    /// How far it is.
    pub stage: RolloutStage,
    /// It continues when somebody says so.
    pub paused: bool,
    /// Why it stopped by itself; empty if it did not.
    pub stopped: String,
    /// Nodes that get it at once.
    pub batch: Share,
    /// Between the end of a batch and the next one, seconds.
    pub pause_secs: u64,
    /// From the first boot of the version until the node has to be ready, seconds.
    pub ready_within_secs: u64,
    /// Nodes that may fail.
    pub max_failures: u32,
    /// How long a node has to stay well, seconds.
    pub soak_secs: u64,
    /// Agents are to restart their nodes.
    pub reboot: bool,
    /// How many may be down at once for that.
    pub max_down: Share,
    /// The last batch that was given; 0 is the canary.
    #[serde(rename = "round")]
    pub last_batch: u32,
    /// Since when there is nothing to wait for in the batches so far.
    pub settled: Option<Timestamp>,
    /// When it ended; none while it is on.
    pub ended: Option<Timestamp>,
    /// Nodes of the image when they were counted last.
    pub all: usize,
    /// What happened, oldest first.
    #[serde(rename = "notes")]
    pub remarks: Vec<RolloutRemark>,
    /// How many nodes fare how.
    pub tally: RolloutTally,
}

impl RolloutAnswer {
    /// True until it ends.
    pub fn is_on(&self) -> bool {
        matches!(self.stage, RolloutStage::Canary | RolloutStage::Promoting)
    }

    /// True if no further node is given the version: it is paused, or has stopped by itself.
    pub fn is_held(&self) -> bool {
        self.paused || !self.stopped.is_empty()
    }
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutStage {
    /// The canary has it.
    #[serde(rename = "subset")]
    Canary,
    /// The others get it, batch by batch.
    Promoting,
    /// All have it: it is the current version.
    Done,
    /// Its nodes go back.
    Aborted,
    /// It was done, or on, and the version before is current again.
    RolledBack,
}

impl RolloutStage {
    /// True if the nodes go back to what was current before.
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

/// Something that happened to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRemark {
    /// When.
    pub at: Timestamp,
    /// What, and by whom.
    pub what: String,
}

/// How many nodes fare how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutTally {
    /// Waiting.
    pub waiting: usize,
    /// Booting.
    pub booting: usize,
    /// Ready.
    pub ready: usize,
    /// Failed.
    pub failed: usize,
    /// Rolled back to the last version on which they were ready.
    #[serde(rename = "gone_back")]
    pub rolled_back: usize,
}

/// A node of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutNode {
    /// Its name.
    pub node: String,
    /// How it fares.
    #[serde(flatten)]
    pub state: RolloutNodeState,
    /// Since when.
    pub since: Timestamp,
    /// The batch that it is in; 0 is the canary.
    #[serde(rename = "round")]
    pub batch: u32,
    /// False if the next batch does not wait for it: it was off when it was given the version, or fell silent or stalled since.
    pub counts: bool,
    /// It was up with less than asked for already before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_degraded: bool,
    /// It was ready for as long as it had to be.
    #[serde(rename = "good")]
    pub proven: bool,
    /// Boots that took the version's kernel since it was ready last.
    pub boots: u32,
    /// The last of them; empty if none.
    pub boot: String,
    /// When the first of them did; none if none.
    pub first: Option<Timestamp>,
    /// Why its next step is overdue, while it waits or boots; empty if it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stalled: String,
    /// What it runs, or boots into; none before its first boot.
    pub image: Option<ImageRef>,
}

/// How a node of a rollout fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum RolloutNodeState {
    /// It was given the version and has not booted it.
    Waiting,
    /// It has begun to.
    Booting,
    /// It is up.
    Ready,
    /// It is not, or not well, in spite of time enough.
    Failed {
        /// For people.
        why: String,
    },
    /// It boots its last known good version.
    #[serde(rename = "gone-back")]
    RolledBack {
        /// For people.
        why: String,
    },
}

impl RolloutNodeState {
    /// Why it failed; empty if it has not.
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
