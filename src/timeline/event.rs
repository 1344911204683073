//! One event, and the state of a node that follows from its events.

use crate::clock::Timestamp;
use rackstrap_wire::HwAddr;
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
}

/// How an event is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Was up; its heartbeats stopped.
    Lost,
    /// An unknown machine that waits.
    Waiting,
}
