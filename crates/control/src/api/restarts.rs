//! Requests and answers about restarts.

use super::Watchable;
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `rackstrap node restart --list`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestartsAnswer {
    /// The daemon's present time.
    pub now: Timestamp,
    /// All requests, the oldest first, including some that have ended.
    pub requests: Vec<RestartRow>,
    /// How many nodes active rollouts take down at the same time, for people, by image name.
    #[serde(default)]
    pub bounds: BTreeMap<String, String>,
}

impl Watchable for RestartsAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// A request for restarts, with the progress of each node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRow {
    /// Id of the request: letters and digits.
    pub id: String,
    /// When it was made.
    pub wanted: Timestamp,
    /// Number of the last boot before it: a node whose boot has a higher number has booted since then. None from an older
    /// release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// The user who made it.
    pub by: String,
    /// The image whose rollout made it; empty if a user did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout: String,
    /// Number of that rollout; 0 if a user made the request.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u64,
    /// The reason.
    pub reason: String,
    /// How many of the nodes may be out of service at the same time, from 1.
    pub max_down: u32,
    /// Whether the site's `drain` and `resume` programs are run.
    pub drain: bool,
    /// Seconds within which a node must be ready again.
    pub within_secs: u32,
    /// Why no further nodes restart; empty if the request was not stopped.
    #[serde(default)]
    pub stopped: String,
    /// Its nodes, in the order of their turns.
    #[serde(default)]
    pub nodes: Vec<RestartNode>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A node of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartNode {
    /// Name of the node.
    pub name: String,
    /// The present step.
    pub step: RestartStep,
    /// Since when the step lasts.
    pub since: Timestamp,
    /// As [`RestartRow::after`], if the node joined the request later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// How often the program that this step waits for has failed.
    #[serde(default)]
    pub failures: u32,
    /// When that program is run again.
    #[serde(default)]
    pub again: Timestamp,
    /// The last error; empty if there was none.
    #[serde(default)]
    pub said: String,
}

/// The step of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum RestartStep {
    /// Its turn has not come, or it is not up.
    Waiting,
    /// The drain program takes it out of service.
    Draining,
    /// The answer to its next heartbeat is the order to restart.
    Drained,
    /// It has received the order.
    Told {
        /// The boot in which it received the order.
        boot: String,
        /// When it last received the order.
        last: Timestamp,
        /// Whether the node has answered the order.
        noted: bool,
    },
    /// It was not ready again in time, or could not receive the order in time.
    Late {
        /// Whether it has received the order.
        told: bool,
    },
    /// The resume program puts it back into service.
    Resuming {
        /// How its restart ends after that.
        then: RestartEnd,
    },
    /// Nothing remains to be done.
    Ended {
        /// How it ended.
        how: RestartEnd,
    },
}

/// How the restart of a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartEnd {
    /// It restarted, and is ready.
    Restarted,
    /// It booted without the order, so no restart is needed.
    Unneeded,
    /// It came back too late.
    Late,
    /// It restarted and is not healthy, and another request restarts it again.
    Unwell,
    /// It received no order: the request was cancelled or stopped, or the node was deleted.
    GivenUp,
}

impl RestartStep {
    /// The name for people.
    pub fn as_str(&self) -> &'static str {
        match self {
            RestartStep::Waiting => "waiting",
            RestartStep::Draining => "draining",
            RestartStep::Drained => "drained",
            RestartStep::Told { .. } => "restarting",
            RestartStep::Late { .. } => "late",
            RestartStep::Resuming { .. } => "resuming",
            RestartStep::Ended { how } => match how {
                RestartEnd::Restarted => "restarted",
                RestartEnd::Unneeded => "booted by itself",
                RestartEnd::Late => "restarted, late",
                RestartEnd::Unwell => "restarted, unwell",
                RestartEnd::GivenUp => "not restarted",
            },
        }
    }
}

/// `rackstrap node restart`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WantRestarts {
    /// The request.
    pub want: RestartWish,
    /// Whether to only report the result.
    pub dry_run: bool,
}

/// Nodes to restart. The request has no author, because the daemon knows the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartWish {
    /// The nodes, in the order of their turns.
    pub nodes: Vec<String>,
    /// The reason, for the drain program, the node and its timeline. If it is empty, the reason names the user.
    pub reason: String,
    /// How many of them may be out of service at the same time.
    pub max_down: u32,
    /// Whether the site's `drain` and `resume` programs are run.
    pub drain: bool,
    /// Seconds within which a node must be ready again.
    pub within_secs: u32,
}

/// The result of [`WantRestarts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartsWanted {
    /// Id of the request; empty if it has no nodes, or after a dry run.
    pub id: String,
    /// The nodes of the request.
    pub nodes: Vec<String>,
    /// Nodes that another request restarts already.
    pub already: Vec<String>,
    /// Nodes of `nodes` that are not up. They restart only if they were up all the time and could not be heard.
    pub not_up: Vec<String>,
    /// Whether the site's drain program is run first.
    pub drained: bool,
}

/// `rackstrap node restart --cancel`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CancelRestarts {
    /// Nodes whose restart is cancelled.
    pub nodes: Vec<String>,
}

/// The result of [`CancelRestarts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartsCancelled {
    /// Nodes whose restart was cancelled.
    pub cancelled: Vec<String>,
    /// Nodes that have received the order already.
    pub told: Vec<String>,
    /// Nodes without a request.
    pub none: Vec<String>,
}

/// What happened to restarts that a rollout had requested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartsWithdrawn {
    /// Nodes whose restart was cancelled. Nodes that were drained are resumed.
    pub cancelled: Vec<String>,
    /// Nodes that have received the order already, and restart.
    pub told: Vec<String>,
}
