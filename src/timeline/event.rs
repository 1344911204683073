//! One event, and the state of a node that follows from its events.

use rackstrap_base::{clock::Timestamp, text::one_line};
use rackstrap_wire::{AgentEvent, HwAddr, Outcome};
use serde::{Deserialize, Serialize};

/// Whose timeline: a node's by name, or an unknown machine's by hardware address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A node of the inventory.
    Node(String),
    /// A machine that is none.
    Machine(HwAddr),
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When the server learned of it.
    pub at: Timestamp,
    /// Boot it belongs to, if one is pinned already.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// Short name of the step: `dhcp discover`, `tftp`, `script`, `kernel`, `agent disk`, `nfs mount`, `ready`.
    pub step: String,
    /// How it went.
    pub level: Level,
    /// For people, at most 500 bytes.
    pub detail: String,
    /// How long it took, in milliseconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// How often it happened in a row, from 1; `at` is the first time.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
    /// The last time, if it happened more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

/// Who can cause rows of a timeline in numbers: these may not push out what else there is to know of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Requests for addresses, files and scripts: whoever has the node's address can make them, a user's program among them.
    Requests,
    /// Reports in the agent's name.
    Agent,
}

impl Source {
    /// Rows of it among `window` rows. Together they leave some for all that is not caused by packets.
    pub(super) fn share(self, window: usize) -> usize {
        match self {
            Source::Requests => window / 3,
            Source::Agent => window * 7 / 12,
        }
    }
}

/// Bytes of a detail that are kept.
pub const DETAIL_LIMIT: usize = 500;

fn once() -> u64 {
    1
}

fn is_once(count: &u64) -> bool {
    *count == 1
}

impl Event {
    /// Something that happened once, outside of a pinned boot.
    pub fn new(at: Timestamp, step: impl Into<String>, level: Level, detail: impl Into<String>) -> Self {
        Event {
            at,
            boot: String::new(),
            step: step.into(),
            level,
            detail: detail.into(),
            took_ms: None,
            count: 1,
            last: None,
        }
    }

    /// The same, as part of that boot.
    pub fn of_boot(mut self, boot: impl Into<String>) -> Self {
        self.boot = boot.into();
        self
    }

    /// The same, with the time that it took.
    pub fn took(mut self, millis: u64) -> Self {
        self.took_ms = Some(millis);
        self
    }

    /// What the agent of that boot reported: step `agent PHASE`; a phase that ended has its duration.
    pub fn of_agent(at: Timestamp, boot: &str, reported: &AgentEvent) -> Self {
        let level = match reported.outcome {
            Outcome::Started | Outcome::Step | Outcome::Done => Level::Ok,
            Outcome::Degraded => Level::Degraded,
            Outcome::Retrying => Level::Retry,
            Outcome::Failed => Level::Error,
        };
        let detail = match reported.outcome {
            Outcome::Started if reported.detail.is_empty() => "started".to_owned(),
            Outcome::Retrying => format!("attempt {}: {}", reported.attempt, reported.detail),
            _ => reported.detail.clone(),
        };
        let event = Event::new(at, format!("agent {}", reported.phase), level, detail).of_boot(boot);
        match reported.outcome {
            Outcome::Started | Outcome::Step => event,
            _ => event.took(reported.took_ms),
        }
    }

    /// Who can cause many rows like this one, if there is somebody.
    pub(super) fn source(&self) -> Option<Source> {
        match self.kind() {
            "agent" => Some(Source::Agent),
            "dhcp" | "dhcp-first" | "tftp" | "tftp-client" | "script" | "refused" | "nfs" | "nfs-client"
            | "script-client" | "kernel-client" | "initramfs-client" | "agent-client" => Some(Source::Requests),
            _ => None,
        }
    }

    /// The first word of the step.
    pub(super) fn kind(&self) -> &str {
        self.step.split_whitespace().next().unwrap_or_default()
    }

    /// The last time that it happened.
    pub fn latest(&self) -> Timestamp {
        self.last.unwrap_or(self.at)
    }

    /// True if `next` is the same thing once more, so that one row with a count says it all.
    pub fn repeats_as(&self, next: &Event) -> bool {
        self.boot == next.boot && self.step == next.step && self.level == next.level && self.detail == next.detail
    }

    /// Cuts what came from outside to a length that can be kept, and takes control characters out of it.
    pub(super) fn bound(&mut self) {
        for (text, limit) in [
            (&mut self.detail, DETAIL_LIMIT),
            (&mut self.step, 40),
            (&mut self.boot, 40),
        ] {
            *text = one_line(text, limit);
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Node(name) => f.write_str(name),
            Subject::Machine(hwaddr) => write!(f, "{hwaddr}"),
        }
    }
}

impl State {
    /// The name that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Loading => "loading",
            State::Agent => "agent",
            State::Starting => "starting",
            State::Ready => "ready",
            State::Degraded => "degraded",
            State::Stalled => "stalled",
            State::Lost => "lost",
            State::Waiting => "waiting",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How an event is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, with less than asked for (a degraded disk).
    Degraded,
    /// A failed attempt that is being repeated.
    Retry,
    /// A failure.
    Error,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Never heard of.
    Absent,
    /// Firmware or loader is asking.
    Loading,
    /// The agent is at work.
    Agent,
    /// The operating system starts.
    Starting,
    /// Up.
    Ready,
    /// Up, with less than asked for.
    Degraded,
    /// Began to boot; the next step is overdue.
    Stalled,
    /// Was up; its heartbeats stopped.
    Lost,
    /// An unknown machine that waits.
    Waiting,
}

impl State {
    /// All that a node may be, the best first; the rest is for unknown machines.
    pub const OF_NODES: [State; 8] = [
        State::Ready,
        State::Degraded,
        State::Starting,
        State::Agent,
        State::Loading,
        State::Stalled,
        State::Lost,
        State::Absent,
    ];

    /// True if it reads its root, as far as we know: from the agent's work until it falls silent.
    pub fn has_root(self) -> bool {
        matches!(self, State::Agent | State::Starting | State::Ready | State::Degraded)
    }
}
