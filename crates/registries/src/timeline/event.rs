//! One event, and the state of a node that follows from its events.

use super::EventKind;
use rackstrap_base::{clock::Timestamp, level::Level, text::one_line};
use rackstrap_wire::{AgentEvent, ConsoleLine, HwAddr, Outcome, is_panic};
use serde::{Deserialize, Serialize};

/// The machine that a timeline is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A node of the inventory, by name.
    Node(String),
    /// An unknown machine, by hardware address.
    Machine(HwAddr),
}

/// One row of a timeline: one thing that happened, perhaps several times in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When the server learned of it.
    pub at: Timestamp,
    /// Id of the boot that it belongs to; empty if none is pinned yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// What happened: `dhcp discover`, `script`, `agent disk`, `ready` in the store and for people.
    pub step: EventKind,
    /// The program that sent a DHCP packet; none for all other events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// Whether the event is normal or a fault.
    pub level: Level,
    /// What people read, at most 500 bytes; empty if the kind says all.
    pub detail: String,
    /// How long it took, in milliseconds; none if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// How often it happened in a row, from 1; `at` is the first time.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
    /// The last time that it happened; none if it happened once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

/// The program of a machine that sent a DHCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sender {
    /// The machine's firmware, or the DHCP client of a system.
    Firmware,
    /// iPXE: the loader runs.
    Ipxe,
}

/// Longest detail that is kept, bytes.
pub(crate) const DETAIL_LIMIT: usize = 500;

fn once() -> u64 {
    1
}

fn is_once(count: &u64) -> bool {
    *count == 1
}

impl Event {
    /// Something that happened once, outside of a pinned boot.
    pub fn new(at: Timestamp, step: EventKind, level: Level, detail: impl Into<String>) -> Self {
        Event {
            at,
            boot: String::new(),
            step,
            sender: None,
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

    /// The same, sent by that program.
    pub fn sent_by(mut self, sender: Sender) -> Self {
        self.sender = Some(sender);
        self
    }

    /// Completes a row of an older release, in which only the text of the detail distinguishes iPXE from firmware. For rows that
    /// are read, not for new events.
    pub(super) fn complete_sender(&mut self) {
        if self.sender.is_none() && matches!(self.step, EventKind::Dhcp(_) | EventKind::DhcpClient(_)) {
            self.sender = Some(match self.detail.contains("iPXE") {
                true => Sender::Ipxe,
                false => Sender::Firmware,
            });
        }
    }

    /// The same, with the time that it took.
    pub fn took(mut self, millis: u64) -> Self {
        self.took_ms = Some(millis);
        self
    }

    /// What the agent of that boot reported. A phase that ended has its duration.
    pub fn of_agent(at: Timestamp, boot: &str, reported: &AgentEvent) -> Self {
        if let Some(from) = reported.console {
            return Event::of_console(at, from, &reported.detail).of_boot(boot);
        }
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
        let event = Event::new(at, EventKind::Agent(reported.phase), level, detail).of_boot(boot);
        match reported.outcome {
            Outcome::Started | Outcome::Step => event,
            _ => event.took(reported.took_ms),
        }
    }

    /// A line of the node's console.
    pub fn of_console(at: Timestamp, from: ConsoleLine, line: &str) -> Self {
        let (kind, level) = match is_panic(line) {
            true => (EventKind::Panic, Level::Error),
            false => (EventKind::Console, Level::Ok),
        };
        let detail = match from {
            ConsoleLine::Crash => format!("before the restart: {line}"),
            ConsoleLine::Kernel | ConsoleLine::Other => line.to_owned(),
        };
        Event::new(at, kind, level, detail)
    }

    /// The last time that it happened.
    pub fn latest(&self) -> Timestamp {
        self.last.unwrap_or(self.at)
    }

    /// Whether `next` is the same thing once more, so that one row with a count is enough.
    pub(crate) fn repeats_as(&self, next: &Event) -> bool {
        self.boot == next.boot
            && self.step == next.step
            && self.sender == next.sender
            && self.level == next.level
            && self.detail == next.detail
    }

    /// Cuts text from outside to the length that is kept, and removes control characters.
    pub(super) fn bound(&mut self) {
        self.detail = one_line(&self.detail, DETAIL_LIMIT);
        self.boot = one_line(&self.boot, 40);
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

impl NodeState {
    /// The name in JSON and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Absent => "absent",
            NodeState::Loading => "loading",
            NodeState::Agent => "agent",
            NodeState::Starting => "starting",
            NodeState::Ready => "ready",
            NodeState::Degraded => "degraded",
            NodeState::Unmanaged => "unmanaged",
            NodeState::Off => "off",
            NodeState::Stalled => "stalled",
            NodeState::Lost => "lost",
            NodeState::Waiting => "waiting",
        }
    }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a node is between power-on and a running system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Never heard of.
    #[default]
    Absent,
    /// Firmware or loader is asking.
    Loading,
    /// The agent is at work.
    Agent,
    /// The operating system starts.
    Starting,
    /// The system is up.
    Ready,
    /// The system is up with less than was asked for.
    Degraded,
    /// Its loader started something that reports nothing: the system on its own disk, or a test of its memory.
    Unmanaged,
    /// An administrator switched it off.
    Off,
    /// The node began to boot, and its next step is overdue.
    Stalled,
    /// The system was up, and its heartbeats stopped.
    Lost,
    /// An unknown machine that waits.
    Waiting,
}

impl NodeState {
    /// All states of nodes, the best first. The only other state is that of an unknown machine.
    pub const OF_NODES: [NodeState; 10] = [
        NodeState::Ready,
        NodeState::Degraded,
        NodeState::Starting,
        NodeState::Agent,
        NodeState::Loading,
        NodeState::Unmanaged,
        NodeState::Off,
        NodeState::Stalled,
        NodeState::Lost,
        NodeState::Absent,
    ];

    /// Whether its system is up, with or without all that was asked for.
    pub fn is_up(self) -> bool {
        matches!(self, NodeState::Ready | NodeState::Degraded)
    }

    /// Whether its firmware, its loader, its agent or its starting system is at work.
    pub(crate) fn is_booting(self) -> bool {
        matches!(self, NodeState::Loading | NodeState::Agent | NodeState::Starting)
    }

    /// Whether it is lost or stalled.
    pub(crate) fn is_overdue(self) -> bool {
        matches!(self, NodeState::Lost | NodeState::Stalled)
    }

    /// Whether it reads its root, as far as the daemon knows: from the agent's work until it becomes silent.
    pub fn has_root(self) -> bool {
        self.is_up() || matches!(self, NodeState::Agent | NodeState::Starting)
    }
}
