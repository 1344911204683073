//! The observations of one node at one moment.

use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;

/// The state of a node, as far as rollouts and restarts need it. One place of the daemon makes it for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether the system is up and sends heartbeats.
    pub up: bool,
    /// Whether the machine is switched on: its system is up, or a message of its firmware, loader or agent was received a moment ago.
    pub on: bool,
    /// Time of the last message from it.
    pub heard: Timestamp,
    /// Faults of a system that is up; empty for a healthy one.
    pub problem: String,
    /// The step at which its boot has stalled, with the likely causes; empty if it has not stalled.
    pub stalled: String,
    /// The version of its current boot; none if no boot is pinned.
    pub image: Option<ImageRef>,
    /// Start of its current boot.
    pub opened: Timestamp,
    /// The boot in which its system came up last, which it runs. Empty if it never came up.
    pub boot: String,
    /// Start of the boot that it runs.
    pub boot_opened: Timestamp,
    /// Number of the boot that it runs, in the order of all boots.
    pub sequence: u64,
    /// What it does by an order for one boot, for people (`rescue`); empty in a usual boot.
    pub ordered: String,
    /// Whether all checks of the running system hold.
    pub healthy: bool,
    /// Starts of all its boots, including those that never came up; in any order.
    pub begun: Vec<Timestamp>,
}
