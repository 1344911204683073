//! Of restarts.

use super::Watchable;
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `rackstrap node restart --list`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestartsAnswer {
    /// The daemon's present.
    pub now: Timestamp,
    /// All requests, the oldest first; some of those that are over are remembered.
    pub requests: Vec<RestartRow>,
    /// How many nodes rollouts that are on take down at once, for people, by image name.
    #[serde(default)]
    pub bounds: BTreeMap<String, String>,
}

impl Watchable for RestartsAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// Nodes that are to be restarted, and how far each is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRow {
    /// Its id: letters and digits.
    pub id: String,
    /// Since when.
    pub wanted: Timestamp,
    /// Number of the last boot before it: a node has booted since then if its boot has a higher one. None from an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Who wants it.
    pub by: String,
    /// The image whose rollout wants it; empty if a person does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout: String,
    /// Number of that rollout; 0 if a person wants it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u64,
    /// Why.
    pub reason: String,
    /// How many of the nodes may be out of service at once, from 1.
    pub max_down: u32,
    /// True if the site's `drain` and `resume` programs are run.
    pub drain: bool,
    /// Seconds within which a node has to be ready again.
    pub within_secs: u32,
    /// Why no more nodes are restarted; empty while all is well.
    #[serde(default)]
    pub stopped: String,
    /// Its nodes, in the order in which they have their turns.
    #[serde(default)]
    pub nodes: Vec<RestartNode>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A node that is to be restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartNode {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub step: RestartStep,
    /// Since when.
    pub since: Timestamp,
    /// As [`RestartRow::after`], if it came later than the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Failed runs of the program that this step waits for.
    #[serde(default)]
    pub failures: u32,
    /// When that program is run again.
    #[serde(default)]
    pub again: Timestamp,
    /// What went wrong last; empty if nothing did.
    #[serde(default)]
    pub said: String,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum RestartStep {
    /// Its turn has not come, or it is not up.
    Waiting,
    /// The drain program is to take it out of service.
    Draining,
    /// Its next heartbeat is answered with the order to restart.
    Drained,
    /// It has the order.
    Told {
        /// The boot in which it was told.
        boot: String,
        /// When it was told last.
        last: Timestamp,
        /// True once the node said what it does about it.
        noted: bool,
    },
    /// It was not ready again in time, or could not be told in time.
    Late {
        /// True if it has the order.
        told: bool,
    },
    /// The resume program is to put it back into service.
    Resuming {
        /// How it ends then.
        then: RestartEnd,
    },
    /// Nothing more is to be done.
    Ended {
        /// How it ended.
        how: RestartEnd,
    },
}

/// How a restart ended for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartEnd {
    /// It restarted, and is ready.
    Restarted,
    /// It booted without being told, and so need not be.
    Unneeded,
    /// It came back after its time.
    Late,
    /// It restarted and was not well, and another request restarts it once more.
    Unwell,
    /// It was not told: the request was cancelled or stopped, or the node was deleted.
    GivenUp,
}

impl RestartStep {
    /// In a word or two.
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
    /// What is wanted.
    pub want: RestartWish,
    /// Only say what would be.
    pub dry_run: bool,
}

/// Nodes to restart. Who wants it is not said: the daemon knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartWish {
    /// The nodes, in the order in which they are to have their turns.
    pub nodes: Vec<String>,
    /// Why, for the drain program, the node and its timeline; empty: because this user wants it.
    pub reason: String,
    /// How many of them may be out of service at once.
    pub max_down: u32,
    /// Run the site's `drain` and `resume` programs.
    pub drain: bool,
    /// Seconds within which a node has to be ready again.
    pub within_secs: u32,
}

/// What becomes of [`WantRestarts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartsWanted {
    /// The request's id; empty if it has no nodes, or was only planned.
    pub id: String,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// Nodes that another request restarts already.
    pub already: Vec<String>,
    /// Those of `nodes` that are not up: they are restarted only if they were up all the time and could not be heard.
    pub not_up: Vec<String>,
    /// True if the site's drain program is run before.
    pub drained: bool,
}

/// `rackstrap node restart --cancel`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CancelRestarts {
    /// Nodes that are not to be restarted.
    pub nodes: Vec<String>,
}

/// What becomes of [`CancelRestarts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartsCancelled {
    /// Nodes that are not restarted.
    pub cancelled: Vec<String>,
    /// Nodes that were told already.
    pub told: Vec<String>,
    /// Nodes that no request restarts.
    pub none: Vec<String>,
}

/// What becomes of restarts that a rollout wanted, and wants no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartsWithdrawn {
    /// Nodes that are not restarted; those that were drained are resumed.
    pub cancelled: Vec<String>,
    /// Nodes that were told already, and restart.
    pub told: Vec<String>,
}
