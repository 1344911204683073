//! A rollout gives a version to nodes: first to a canary, then to the rest in batches. It assigns versions; restarts execute.

mod progress;
#[cfg(test)]
mod rows_tests;
#[cfg(test)]
mod tests;

pub use progress::Audience;

use crate::{Observed, Share};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Most remarks of a rollout.
const REMARKS: usize = 100;

/// The request of an administrator with `rackstrap rollout start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The version.
    pub image: ImageRef,
    /// The canary: the nodes that get it first.
    pub nodes: Vec<String>,
    /// Restart the nodes instead of waiting for their next boots.
    pub reboot: bool,
    /// With `reboot`: how many nodes may be out of service at once.
    pub max_down: Share,
    /// Seconds from the first boot of the version until the node has to be ready.
    pub ready_within_secs: u64,
    /// Nodes that may fail; one more failure stops the rollout.
    pub max_failures: u32,
    /// Seconds for which a node has to stay healthy before it counts as proven.
    pub soak_secs: u64,
    /// A remark of the administrator; empty if there is none.
    pub message: String,
}

/// How fast the remaining nodes get the version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Nodes that get it at once. None keeps the setting, which is a tenth at first.
    #[serde(default)]
    pub batch: Option<Share>,
    /// Seconds between the end of a batch and the next one. None keeps the setting, which is 0 at first.
    #[serde(default)]
    pub pause_secs: Option<u64>,
    /// Nodes that may fail. None keeps the setting.
    #[serde(default)]
    pub max_failures: Option<u32>,
}

/// The stage of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The canary has the version.
    #[serde(rename = "subset")]
    Canary,
    /// The other nodes get it, batch by batch.
    Promoting,
    /// All nodes have it: it is the current version.
    Done,
    /// Its nodes return to the earlier version.
    Aborted,
    /// It was done or active, and the earlier version is current again.
    RolledBack,
}

impl Stage {
    /// True if the nodes return to the version that was current before.
    pub fn is_taken_back(self) -> bool {
        matches!(self, Stage::Aborted | Stage::RolledBack)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stage::Canary => "canary",
            Stage::Promoting => "promoting",
            Stage::Done => "done",
            Stage::Aborted => "aborted",
            Stage::RolledBack => "rolled back",
        })
    }
}

/// The progress of a node with the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// It was given the version and has not booted it.
    Waiting,
    /// It boots the version.
    Booting,
    /// Its system is up on the version.
    Ready,
    /// It was not ready in time, or is not healthy.
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

impl State {
    /// True if it counts towards `max_failures`.
    pub fn is_failure(&self) -> bool {
        matches!(self, State::Failed { .. } | State::RolledBack { .. })
    }

    /// The reason of a failure; empty if there is none.
    pub fn why(&self) -> &str {
        match self {
            State::Failed { why } | State::RolledBack { why } => why,
            State::Waiting | State::Booting | State::Ready => "",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Waiting => "waiting",
            State::Booting => "booting",
            State::Ready => "ready",
            State::Failed { .. } => "failed",
            State::RolledBack { .. } => "rolled back",
        })
    }
}

/// A node of a rollout. Its fields on disk have the names of the first release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its progress.
    #[serde(flatten)]
    pub state: State,
    /// Time at which it reached that state.
    pub since: Timestamp,
    /// Its batch; 0 is the canary.
    #[serde(rename = "round")]
    pub batch: u32,
    /// Whether the next batch waits for it. False if it was off when it got the version, or fell silent or stalled since.
    pub counts: bool,
    /// Whether it was degraded before it got the version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_degraded: bool,
    /// Whether it was ready for the whole soak time.
    #[serde(rename = "good")]
    pub proven: bool,
    /// Boots with the version's kernel since it was last ready.
    pub boots: u32,
    /// The last of these boots; empty if there was none.
    pub boot: String,
    /// Start of the first of these boots.
    pub first: Option<Timestamp>,
    /// Why its next step is overdue, while it waits or boots; empty if it is not overdue.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stalled: String,
    /// What it does by an order for one boot (`rescue`), which says nothing about the version; empty in a usual boot.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ordered: String,
    /// The fields of its restart in rows of older releases. They are read, but not written.
    #[serde(flatten, skip_serializing)]
    pub before_planner: AskedToRestart,
}

/// The boot in which a node got the order to restart. Older releases kept it in the rollout's row, because rollouts had no request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AskedToRestart {
    /// The boot that the node should leave; empty if none.
    #[serde(default)]
    pub restart: String,
    /// Time of the order.
    #[serde(default)]
    pub asked: Timestamp,
}

impl Member {
    /// A node that gets the version now.
    pub fn new(batch: u32, observed: &Observed, now: Timestamp) -> Member {
        Member {
            state: State::Waiting,
            since: now,
            batch,
            counts: observed.on || !observed.ordered.is_empty(),
            // The problem of a node in a rescue shell is the shell.
            was_degraded: observed.on && observed.ordered.is_empty() && !observed.problem.is_empty(),
            proven: false,
            boots: 0,
            boot: String::new(),
            first: None,
            stalled: String::new(),
            ordered: observed.ordered.clone(),
            before_planner: AskedToRestart::default(),
        }
    }

    /// True if the next batch need not wait for it: it is proven, or has failed.
    pub fn is_settled(&self) -> bool {
        self.state.is_failure() || self.proven
    }

    /// True if the next batch waits for it now. A boot by an order may last for days.
    pub fn is_awaited(&self) -> bool {
        self.counts && !self.is_settled() && self.ordered.is_empty()
    }
}

/// An event of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Time of the event.
    pub at: Timestamp,
    /// The event, and the administrator who ordered it.
    pub what: String,
    /// What kind of thing it was, as far as anything follows from it. Rows of older releases do not say.
    #[serde(default, skip_serializing_if = "Happened::is_else")]
    pub kind: Happened,
}

/// What happened to a rollout, as far as anything follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It was paused.
    Paused,
    /// It was ended, or taken back after it had ended.
    TakenBack,
    /// Something else.
    #[default]
    Else,
}

impl Happened {
    fn is_else(&self) -> bool {
        *self == Happened::Else
    }
}

/// A version on its way to the nodes of its image. It is pure: it gets events, and decides which nodes get the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Number of the rollout, from 1, in the order of their starts.
    pub number: u64,
    /// The version.
    pub image: ImageRef,
    /// The version that was current at the start.
    pub from: ImageRef,
    /// The administrator who started it.
    pub by: String,
    /// Time of the start.
    pub began: Timestamp,
    /// A remark; empty if there is none.
    pub message: String,
    /// How far it is.
    pub stage: Stage,
    /// Whether an administrator has paused it.
    pub paused: bool,
    /// Why it stopped by itself; empty if it did not.
    pub stopped: String,
    /// Nodes that get it at once.
    pub batch: Share,
    /// Seconds between the end of a batch and the next one.
    pub pause_secs: u64,
    /// Seconds from the first boot of the version until the node has to be ready.
    pub ready_within_secs: u64,
    /// Nodes that may fail.
    pub max_failures: u32,
    /// Seconds for which a node has to stay healthy.
    pub soak_secs: u64,
    /// Whether its nodes are restarted, by its one request.
    pub reboot: bool,
    /// How many of them may be out of service at once.
    pub max_down: Share,
    /// The last batch that was given; 0 is the canary.
    #[serde(rename = "round")]
    pub last_batch: u32,
    /// Time since which the batches so far need no more waiting; none while they do.
    pub settled: Option<Timestamp>,
    /// Time of its end; none while it is active.
    pub ended: Option<Timestamp>,
    /// The stage in which the planner had nothing more to do for it: no node restarts for it, unless it gets into another stage. None
    /// until then, and in rows of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Stage>,
    /// Number of the image's nodes at the last count.
    pub all: usize,
    /// Its events, oldest first.
    #[serde(rename = "notes")]
    pub remarks: Vec<Remark>,
    /// Number of nodes in each state. It is kept after the nodes themselves are deleted.
    pub tally: Tally,
    /// Its nodes, which the store keeps in rows of their own.
    #[serde(skip)]
    pub nodes: BTreeMap<String, Member>,
}

/// Number of nodes in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Nodes that have not booted the version.
    pub waiting: usize,
    /// Nodes that boot it.
    pub booting: usize,
    /// Nodes that are up on it.
    pub ready: usize,
    /// Nodes that failed on it.
    pub failed: usize,
    /// Nodes that boot their last known good version.
    #[serde(rename = "gone_back")]
    pub rolled_back: usize,
}

impl Rollout {
    /// Starts a rollout.
    pub fn begin<'a>(
        wish: &Wish,
        number: u64,
        from: &ImageRef,
        observe: impl Fn(&str) -> &'a Observed,
        by: &str,
        now: Timestamp,
    ) -> Rollout {
        let nodes = wish.nodes.iter();
        let nodes = nodes.map(|node| (node.clone(), Member::new(0, observe(node), now)));
        let mut rollout = Rollout {
            number,
            image: wish.image.clone(),
            from: from.clone(),
            by: by.to_owned(),
            began: now,
            message: wish.message.clone(),
            stage: Stage::Canary,
            paused: false,
            stopped: String::new(),
            batch: Share::Percent(10),
            pause_secs: 0,
            ready_within_secs: wish.ready_within_secs,
            max_failures: wish.max_failures,
            soak_secs: wish.soak_secs,
            reboot: wish.reboot,
            max_down: wish.max_down,
            last_batch: 0,
            settled: None,
            ended: None,
            finished: None,
            all: 0,
            remarks: Vec::new(),
            tally: Tally::default(),
            nodes: nodes.collect(),
        };
        let what = format!("given to {}, by {by}", rollout.names(|_| true));
        rollout.remark(what, now);
        rollout
    }

    /// True until it ends.
    pub fn is_on(&self) -> bool {
        matches!(self.stage, Stage::Canary | Stage::Promoting)
    }

    /// True if it has ended, and no node restarts for it any more.
    pub fn is_finished(&self) -> bool {
        self.finished == Some(self.stage)
    }

    /// True if no further node gets the version: it is paused, or has stopped by itself.
    pub fn is_held(&self) -> bool {
        self.paused || !self.stopped.is_empty()
    }

    /// True if `node` boots the version at its next boot. In a rollout that is held, only nodes that began to boot it do.
    pub fn gives(&self, node: &str) -> bool {
        let begun = |member: &Member| !self.is_held() || member.state != State::Waiting;
        self.is_on() && self.nodes.get(node).is_some_and(begun)
    }

    /// The name of a batch.
    pub fn batch_name(&self, batch: u32) -> String {
        match batch {
            0 => "canary of a rollout".to_owned(),
            batch => format!("batch {batch} of a rollout"),
        }
    }

    /// Nodes that failed.
    pub fn failures(&self) -> usize {
        self.nodes.values().filter(|member| member.state.is_failure()).count()
    }

    /// Counts how many nodes are in which state.
    pub fn count(&mut self) {
        let count = |fits: fn(&State) -> bool| self.nodes.values().filter(|m| fits(&m.state)).count();
        self.tally = Tally {
            waiting: count(|s| *s == State::Waiting),
            booting: count(|s| *s == State::Booting),
            ready: count(|s| *s == State::Ready),
            failed: count(|s| matches!(s, State::Failed { .. })),
            rolled_back: count(|s| matches!(s, State::RolledBack { .. })),
        };
    }

    /// The nodes for which `fits` is true, as a hostlist of limited length.
    fn names(&self, fits: impl Fn(&Member) -> bool) -> String {
        let nodes = self.nodes.iter().filter(|(_, member)| fits(member));
        shown(nodes.map(|(name, _)| name.as_str()))
    }

    /// Records an event.
    pub fn remark(&mut self, what: impl Into<String>, now: Timestamp) {
        self.remark_that(Happened::Else, what, now);
    }

    /// The same, of something that more follows from.
    pub fn remark_that(&mut self, kind: Happened, what: impl Into<String>, now: Timestamp) {
        self.remarks.push(Remark {
            at: now,
            what: what.into(),
            kind,
        });
        self.remarks.drain(..self.remarks.len().saturating_sub(REMARKS));
    }
}

/// Most bytes of a hostlist in a sentence.
const SHOWN: usize = 160;

/// Names as a hostlist, or their number if that is too long for a sentence.
pub fn shown<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let set: rackstrap_hostlist::NodeSet = names.into_iter().collect();
    let text = set.fold();
    match text.len() {
        0 => "no node".to_owned(),
        1..=SHOWN => text,
        _ => format!("{} nodes", set.len()),
    }
}
