//! Of rollouts, and of what is current.

use crate::{
    decide::Current,
    restart::Withdrawn,
    rollout::{Member, Pace, Rollout, Wish},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;
use serde::{Deserialize, Serialize};

/// `rackstrap image promote`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PromoteImage {
    /// The version.
    pub image: ImageRef,
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
    pub current: Current,
    /// The rollout that was on, and is no more.
    pub ended: Option<ImageRef>,
    /// What becomes of restarts that it had wanted.
    #[serde(default)]
    pub restarts: Withdrawn,
}

/// A rollout that was paused or ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutHeld {
    /// As it is now.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// What becomes of restarts that it had wanted.
    #[serde(default)]
    pub restarts: Withdrawn,
}

/// `rackstrap rollout start`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BeginRollout {
    /// What is wanted.
    pub wish: Wish,
}

/// What became of [`BeginRollout`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutBegun {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// What may go wrong with it, a line each.
    pub warnings: Vec<String>,
}

/// `rackstrap rollout promote`, `pause`, `resume` and `abort`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutOrder {
    /// NAME or NAME@VERSION; none for the only one that is on.
    pub image: Option<String>,
    /// How it is to go on; of `resume`, only the failures that are allowed.
    #[serde(default)]
    pub pace: Pace,
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
    pub current: Vec<Current>,
    /// All that are remembered, the newest last.
    pub rollouts: Vec<RolloutRow>,
}

impl super::Watchable for RolloutsAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// A rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutRow {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// What it waits for, for people; empty if it is over.
    pub waits_for: String,
    /// Its nodes; of those that are over, only the last one of each image has them.
    pub nodes: Vec<RolloutNode>,
}

/// A node of a rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutNode {
    /// Its name.
    pub node: String,
    /// How it fares.
    #[serde(flatten)]
    pub member: Member,
    /// What it runs, or boots into.
    pub image: Option<ImageRef>,
}
