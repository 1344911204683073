//! Requests and answers about timelines.

use super::{Level, Watchable};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `rackstrap timeline`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimelineAnswer {
    /// The node or machine of the timeline.
    pub subject: TimelineOf,
    /// Its events, oldest first; empty for a node that was never heard of.
    pub events: Vec<EventRow>,
    /// The same events, summarised as boots.
    pub boots: Vec<BootSummary>,
    /// The retries of its boots, also of those whose events are forgotten.
    #[serde(default)]
    pub retries: RetriesRow,
}

/// Numbers of retries by the step that failed: `dhcp`, `loader`, `tftp`, `script`, `kernel`, `initramfs`, `boot`, `agent` (it was
/// not heard of), and the phases of the agent: `network`, `plan`, `root`, `disk`, `overlay`, ...
pub type RetryCounts = BTreeMap<String, u64>;

/// The retries of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetriesRow {
    /// Those of the boot that it is in, or that brought it up.
    pub current: RetryCounts,
    /// All of them.
    pub all: RetryCounts,
}

/// `4 times: kernel 3, dhcp 1`, the most frequent first; empty if there were none.
pub fn describe_retries(counts: &RetryCounts) -> String {
    let total: u64 = counts.values().fold(0, |sum, count| sum.saturating_add(*count));
    let mut parts: Vec<(&String, &u64)> = counts.iter().collect();
    parts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let times = match total {
        0 => return String::new(),
        1 => "once".to_owned(),
        total => format!("{total} times"),
    };
    let parts: Vec<String> = match parts.as_slice() {
        [(step, _)] => vec![(*step).clone()],
        parts => parts.iter().map(|(step, count)| format!("{step} {count}")).collect(),
    };
    format!("{times}: {}", parts.join(", "))
}

impl Watchable for TimelineAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        None
    }
}

/// One boot, from the first packet to `ready`, or to its last step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSummary {
    /// Id of the boot; the last one if scripts were fetched several times, empty if none was pinned.
    pub boot: String,
    /// When its first packet came.
    pub began: Timestamp,
    /// When its system was up; none if it never was.
    pub ready: Option<Timestamp>,
    /// Milliseconds from the first packet to `ready`, or to the last event.
    pub total_ms: u64,
    /// Number of failures before it was ready; 0 if nothing failed.
    pub retries: u64,
    /// The missing parts; empty if the boot is complete.
    pub lacks: Vec<String>,
    /// Its steps, in the order in which they began.
    pub steps: Vec<BootStep>,
}

/// One step of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootStep {
    /// Short name of the step: `dhcp discover`, `kernel`, `agent disk`, `ready`.
    pub step: String,
    /// Milliseconds after the boot's first packet.
    pub at_ms: u64,
    /// How long it took in milliseconds: as reported, else until the next step began.
    pub took_ms: u64,
    /// Number of its events, from 1.
    pub count: u64,
    /// The detail of its last event.
    pub detail: String,
    /// The worst level in it.
    pub level: Level,
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
