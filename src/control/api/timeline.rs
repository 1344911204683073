//! Requests and answers about timelines.

use super::{BootSummary, Level, Watchable};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};

/// `rackstrap timeline`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimelineAnswer {
    /// The node or machine of the timeline.
    pub subject: TimelineOf,
    /// Its events, oldest first; empty for a node that was never heard of.
    pub events: Vec<EventRow>,
    /// The same events, summarised as boots.
    pub boots: Vec<BootSummary>,
}

impl Watchable for TimelineAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        None
    }
}

/// The subject of a timeline: a node by name, or an unknown machine by hardware address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimelineOf {
    /// A node of the inventory.
    Node(String),
    /// An unknown machine.
    Machine(HwAddr),
}

impl std::fmt::Display for TimelineOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TimelineOf::Node(name) => f.write_str(name),
            TimelineOf::Machine(hwaddr) => write!(f, "{hwaddr}"),
        }
    }
}

/// Something that happened, once or several times in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// When the server learned of it; the first time, if it happened several times.
    pub at: Timestamp,
    /// Boot that it belongs to; empty if none was pinned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// Short name of the step: `dhcp discover`, `kernel`, `agent disk`, `ready`.
    pub step: String,
    /// Whether it is normal or a fault.
    pub level: Level,
    /// The text, for people.
    pub detail: String,
    /// How long it took, in milliseconds; none if that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// How often it happened in a row, from 1; left out if it is 1.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
    /// The last time; none if it happened once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

impl EventRow {
    /// The last time that it happened.
    pub fn latest(&self) -> Timestamp {
        self.last.unwrap_or(self.at)
    }
}

fn once() -> u64 {
    1
}

fn is_once(count: &u64) -> bool {
    *count == 1
}
