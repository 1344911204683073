//! What a rollout is: which version for which nodes, how far it is, and how each node fares.

use rackstrap_base::{clock::Timestamp, words::count};
use rackstrap_wire::ImageRef;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Notes that a rollout keeps about itself.
const NOTES: usize = 100;

/// A number of nodes, or a part of all nodes of the image: `8`, `10%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many nodes.
    Nodes(u32),
    /// So many hundredths of all nodes, from 1 to 100.
    Percent(u32),
}

impl Share {
    /// How many of `all` nodes that are: at least one, and never more than the part that was named.
    pub fn of(self, all: usize) -> usize {
        let nodes = match self {
            Share::Nodes(nodes) => nodes as usize,
            Share::Percent(percent) => all.saturating_mul(percent as usize) / 100,
        };
        nodes.max(1)
    }

    /// For people: `8`, or `10% (1 of 14 nodes)`.
    pub fn describe(self, all: usize) -> String {
        match self {
            Share::Nodes(_) => self.to_string(),
            Share::Percent(_) => format!("{self} ({} of {})", self.of(all), count(all, "node")),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Nodes(nodes) => write!(f, "{nodes}"),
            Share::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text: String = text.chars().take(40).collect();
            format!("'{text}' is no number of nodes; write 8 for eight nodes, or 10% for a tenth of them")
        };
        let share = match text.strip_suffix('%') {
            Some(percent) => Share::Percent(percent.trim_end().parse().map_err(|_| wrong())?),
            None => Share::Nodes(text.parse().map_err(|_| wrong())?),
        };
        match share {
            Share::Nodes(1..) | Share::Percent(1..=100) => Ok(share),
            _ => Err(wrong()),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an administrator asks for who begins one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The version.
    pub image: ImageRef,
    /// Who gets it first.
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
    /// What a person remarks.
    pub message: String,
}

/// How the rest of the nodes is to get it.
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
    /// The first nodes have it.
    Subset,
    /// The others get it, batch by batch.
    Promoting,
    /// All have it: it is the current version.
    Done,
    /// Its nodes go back.
    Aborted,
    /// It was done, or on, and the version before is current again.
    RolledBack,
}

impl Stage {
    /// True if the nodes go back to what was current before.
    pub fn is_taken_back(self) -> bool {
        matches!(self, Stage::Aborted | Stage::RolledBack)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stage::Subset => "subset",
            Stage::Promoting => "promoting",
            Stage::Done => "done",
            Stage::Aborted => "aborted",
            Stage::RolledBack => "rolled back",
        })
    }
}

/// How a node fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
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
    /// It boots the last version on which it was ready.
    GoneBack {
        /// For people.
        why: String,
    },
}

impl State {
    /// What counts against the limit.
    pub fn is_failure(&self) -> bool {
        matches!(self, State::Failed { .. } | State::GoneBack { .. })
    }

    /// Why it failed; empty if it has not.
    pub fn why(&self) -> &str {
        match self {
            State::Failed { why } | State::GoneBack { why } => why,
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
            State::GoneBack { .. } => "gone back",
        })
    }
}

/// A node of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// How it fares.
    #[serde(flatten)]
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// The batch that it is in; 0 is the subset.
    pub round: u32,
    /// False if the next batch does not wait for it: it was off when it was given the version, or fell silent or stalled since.
    pub counts: bool,
    /// It was up with less than asked for already before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_degraded: bool,
    /// It was ready for as long as it had to be.
    pub good: bool,
    /// Boots that took the version's kernel since it was ready last.
    pub boots: u32,
    /// The last of them.
    pub boot: String,
    /// When the first of them did.
    pub first: Option<Timestamp>,
    /// The boot that was asked to restart, empty if none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub restart: String,
    /// When it was asked.
    #[serde(default)]
    pub asked: Timestamp,
    /// Why its next step is overdue, while it waits or boots; empty if it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stalled: String,
}

impl Member {
    /// A node that is given the version now.
    pub(super) fn new(round: u32, seen: Seen<'_>, now: Timestamp) -> Member {
        Member {
            state: State::Waiting,
            since: now,
            round,
            counts: seen.up,
            was_degraded: seen.up && !seen.trouble.is_empty(),
            good: false,
            boots: 0,
            boot: String::new(),
            first: None,
            restart: String::new(),
            asked: Timestamp(0),
            stalled: String::new(),
        }
    }

    /// True if nothing is to be waited for: it is good, or has failed.
    pub fn is_settled(&self) -> bool {
        self.state.is_failure() || self.good
    }
}

/// Where a node is, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen<'a> {
    /// It was heard of as one hears of nodes that are switched on.
    pub up: bool,
    /// When it was last heard of.
    pub heard: Timestamp,
    /// What it lacks though it is up; empty if nothing.
    pub trouble: &'a str,
    /// The step at which its boot stands still, and the likely causes; empty if it does not.
    pub stalled: &'a str,
    /// The version of the boot that it is in; none if no boot is pinned.
    pub image: Option<&'a ImageRef>,
    /// When that boot began.
    pub opened: Timestamp,
}

/// Something that happened to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// What, and by whom.
    pub what: String,
}

/// A version on its way to the nodes of its image. Pure: it is told what happens, and says who is given what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Orders all rollouts, from 1.
    pub number: u64,
    /// The version.
    pub image: ImageRef,
    /// The version that was current when it began.
    pub from: ImageRef,
    /// Who began it.
    pub by: String,
    /// When.
    pub began: Timestamp,
    /// A remark.
    pub message: String,
    /// How far it is.
    pub stage: Stage,
    /// It goes on when somebody says so.
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
    /// The last batch that was given; 0 is the subset.
    pub round: u32,
    /// Since when there is nothing to wait for in the batches so far.
    pub settled: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Nodes of the image when they were counted last.
    pub all: usize,
    /// What happened, oldest first.
    pub notes: Vec<Note>,
    /// How many nodes fare how; kept when the nodes themselves are forgotten.
    pub tally: Tally,
    /// Its nodes, which the store keeps in rows of their own.
    #[serde(skip)]
    pub nodes: BTreeMap<String, Member>,
}

/// How many nodes fare how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Waiting.
    pub waiting: usize,
    /// Booting.
    pub booting: usize,
    /// Ready.
    pub ready: usize,
    /// Failed.
    pub failed: usize,
    /// Gone back.
    pub gone_back: usize,
}

impl Rollout {
    /// Begins one.
    pub fn begin<'a>(
        wish: &Wish,
        number: u64,
        from: &ImageRef,
        seen: impl Fn(&str) -> Seen<'a>,
        by: &str,
        now: Timestamp,
    ) -> Rollout {
        let nodes = wish.nodes.iter();
        let nodes = nodes.map(|node| (node.clone(), Member::new(0, seen(node), now)));
        let mut rollout = Rollout {
            number,
            image: wish.image.clone(),
            from: from.clone(),
            by: by.to_owned(),
            began: now,
            message: wish.message.clone(),
            stage: Stage::Subset,
            paused: false,
            stopped: String::new(),
            batch: Share::Percent(10),
            pause_secs: 0,
            ready_within_secs: wish.ready_within_secs,
            max_failures: wish.max_failures,
            soak_secs: wish.soak_secs,
            reboot: wish.reboot,
            max_down: wish.max_down,
            round: 0,
            settled: None,
            ended: None,
            all: 0,
            notes: Vec::new(),
            tally: Tally::default(),
            nodes: nodes.collect(),
        };
        let what = format!("given to {}, by {by}", rollout.names(|_| true));
        rollout.note(what, now);
        rollout
    }

    /// True until it ends.
    pub fn is_on(&self) -> bool {
        matches!(self.stage, Stage::Subset | Stage::Promoting)
    }

    /// True if nobody else is given the version: it is paused, or has stopped by itself.
    pub fn is_held(&self) -> bool {
        self.paused || !self.stopped.is_empty()
    }

    /// True if `node` boots the version at its next boot. Of one that is held, only nodes that began to boot it do.
    pub fn gives(&self, node: &str) -> bool {
        let begun = |member: &Member| !self.is_held() || member.state != State::Waiting;
        self.is_on() && self.nodes.get(node).is_some_and(begun)
    }

    /// What a batch is called.
    pub(super) fn batch_name(&self, round: u32) -> String {
        match round {
            0 => "first nodes of a rollout".to_owned(),
            round => format!("batch {round} of a rollout"),
        }
    }

    /// Nodes that failed.
    pub fn failures(&self) -> usize {
        self.nodes.values().filter(|member| member.state.is_failure()).count()
    }

    /// Counts how the nodes fare.
    pub(super) fn count(&mut self) {
        let count = |fits: fn(&State) -> bool| self.nodes.values().filter(|m| fits(&m.state)).count();
        self.tally = Tally {
            waiting: count(|s| *s == State::Waiting),
            booting: count(|s| *s == State::Booting),
            ready: count(|s| *s == State::Ready),
            failed: count(|s| matches!(s, State::Failed { .. })),
            gone_back: count(|s| matches!(s, State::GoneBack { .. })),
        };
    }

    /// The nodes that fit, as a hostlist of bearable length.
    pub(super) fn names(&self, fits: impl Fn(&Member) -> bool) -> String {
        let nodes = self.nodes.iter().filter(|(_, member)| fits(member));
        shown(nodes.map(|(name, _)| name.as_str()))
    }

    pub(super) fn note(&mut self, what: impl Into<String>, now: Timestamp) {
        self.notes.push(Note {
            at: now,
            what: what.into(),
        });
        self.notes.drain(..self.notes.len().saturating_sub(NOTES));
    }
}

/// Bytes of a hostlist in a sentence.
const SHOWN: usize = 160;

/// Names as a hostlist, or their number if that is too long for a sentence.
pub(super) fn shown<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let set: rackstrap_hostlist::NodeSet = names.into_iter().collect();
    let text = set.fold();
    match text.len() {
        0 => "no node".to_owned(),
        1..=SHOWN => text,
        _ => format!("{} nodes", set.len()),
    }
}
