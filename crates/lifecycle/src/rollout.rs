//! A rollout gives a version to nodes: first to a canary, then to the rest in batches. It assigns; restarts execute.

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

/// Remarks that a rollout keeps about itself.
const REMARKS: usize = 100;

/// What an administrator asks for with `rackstrap rollout start`.
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
    /// From the first boot of the version until the node has to be ready, seconds.
    pub ready_within_secs: u64,
    /// Nodes that may fail; one more stops the rollout.
    pub max_failures: u32,
    /// How long a node has to stay healthy before it counts as proven, seconds.
    pub soak_secs: u64,
    /// A remark of the administrator; empty if there is none.
    pub message: String,
}

/// How fast the rest of the nodes gets the version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
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

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The canary has it.
    #[serde(rename = "subset")]
    Canary,
    /// The other nodes get it, batch by batch.
    Promoting,
    /// All nodes have it: it is the current version.
    Done,
    /// Its nodes return to the version before.
    Aborted,
    /// It was done, or on, and the version before is current again.
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

/// How far a node is with the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// It was given the version and has not booted it.
    Waiting,
    /// It took the version's kernel.
    Booting,
    /// Its system is up on the version.
    Ready,
    /// It was not ready in time, or is not healthy.
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

impl State {
    /// True if it counts towards `max_failures`.
    pub fn is_failure(&self) -> bool {
        matches!(self, State::Failed { .. } | State::RolledBack { .. })
    }

    /// Why it failed; empty if it has not.
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

/// A node of a rollout. The names of its fields on disk are those of the first release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// How far it is.
    #[serde(flatten)]
    pub state: State,
    /// When it came to that state.
    pub since: Timestamp,
    /// The batch that it belongs to; 0 is the canary.
    #[serde(rename = "round")]
    pub batch: u32,
    /// False if the next batch does not wait for it: it was off when it was given the version, or fell silent or stalled since.
    pub counts: bool,
    /// It was degraded already before it was given the version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_degraded: bool,
    /// It was ready for the whole soak time.
    #[serde(rename = "good")]
    pub proven: bool,
    /// Boots that took the version's kernel since it was ready last.
    pub boots: u32,
    /// The last of them; empty if there was none.
    pub boot: String,
    /// When the first of them took the kernel.
    pub first: Option<Timestamp>,
    /// Why its next step is overdue, while it waits or boots; empty if it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stalled: String,
    /// What releases before the planner kept of its restart. Read once, never written.
    #[serde(flatten, skip_serializing)]
    pub before_planner: AskedToRestart,
}

/// Until rollouts had one request for restarts, a row said itself in which boot its node was asked to restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AskedToRestart {
    /// The boot that the node was asked to leave; empty if none.
    #[serde(default)]
    pub restart: String,
    /// When it was asked.
    #[serde(default)]
    pub asked: Timestamp,
}

impl Member {
    /// A node that is given the version now.
    pub fn new(batch: u32, observed: &Observed, now: Timestamp) -> Member {
        Member {
            state: State::Waiting,
            since: now,
            batch,
            counts: observed.on,
            was_degraded: observed.on && !observed.problem.is_empty(),
            proven: false,
            boots: 0,
            boot: String::new(),
            first: None,
            stalled: String::new(),
            before_planner: AskedToRestart::default(),
        }
    }

    /// True if the next batch has nothing to wait for here: it is proven, or has failed.
    pub fn is_settled(&self) -> bool {
        self.state.is_failure() || self.proven
    }
}

/// Something that happened to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// When it happened.
    pub at: Timestamp,
    /// What happened, and who ordered it.
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

/// A version on its way to the nodes of its image. Pure: it hears what happens, and says which nodes get the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Orders all rollouts, from 1.
    pub number: u64,
    /// The version.
    pub image: ImageRef,
    /// The version that was current when it began.
    pub from: ImageRef,
    /// The administrator who began it.
    pub by: String,
    /// When it began.
    pub began: Timestamp,
    /// A remark; empty if there is none.
    pub message: String,
    /// How far it is.
    pub stage: Stage,
    /// True until somebody resumes it.
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
    /// How long a node has to stay healthy, seconds.
    pub soak_secs: u64,
    /// Its nodes are restarted, by the one request that it owns.
    pub reboot: bool,
    /// How many of them may be out of service at once.
    pub max_down: Share,
    /// The last batch that was given; 0 is the canary.
    #[serde(rename = "round")]
    pub last_batch: u32,
    /// Since when there is nothing to wait for in the batches so far.
    pub settled: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Nodes of the image when they were counted last.
    pub all: usize,
    /// What happened, oldest first.
    #[serde(rename = "notes")]
    pub remarks: Vec<Remark>,
    /// How many nodes are in which state; kept when the nodes themselves are forgotten.
    pub tally: Tally,
    /// Its nodes, which the store keeps in rows of their own.
    #[serde(skip)]
    pub nodes: BTreeMap<String, Member>,
}

/// How many nodes are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Nodes that have not booted the version.
    pub waiting: usize,
    /// Nodes that took its kernel.
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
    /// Begins one.
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

    /// True if no further node gets the version: it is paused, or has stopped by itself.
    pub fn is_held(&self) -> bool {
        self.paused || !self.stopped.is_empty()
    }

    /// True if `node` boots the version at its next boot. Of one that is held, only nodes that began to boot it do.
    pub fn gives(&self, node: &str) -> bool {
        let begun = |member: &Member| !self.is_held() || member.state != State::Waiting;
        self.is_on() && self.nodes.get(node).is_some_and(begun)
    }

    /// What a batch is called.
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

    /// The nodes that fit, as a hostlist of bearable length.
    fn names(&self, fits: impl Fn(&Member) -> bool) -> String {
        let nodes = self.nodes.iter().filter(|(_, member)| fits(member));
        shown(nodes.map(|(name, _)| name.as_str()))
    }

    /// Remembers that something happened.
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

/// Bytes of a hostlist in a sentence.
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
