//! What is known of one node at one moment.

use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;

/// How a node is, as far as rollouts and restarts ask. Made in one place of the daemon, for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The system is up and sends heartbeats.
    pub up: bool,
    /// The machine is switched on: its system is up, or its firmware, its loader or its agent was heard of a moment ago.
    pub on: bool,
    /// When it was last heard of.
    pub heard: Timestamp,
    /// What the system lacks though it is up; empty if nothing.
    pub problem: String,
    /// The step at which its boot has stalled, with the likely causes; empty if it has not.
    pub stalled: String,
    /// The version of the boot that it is in; none if no boot is pinned.
    pub image: Option<ImageRef>,
    /// When that boot began.
    pub opened: Timestamp,
    /// The boot that its system came up with last: what it runs. Empty if it never came up.
    pub boot: String,
    /// When the boot that it runs began.
    pub boot_opened: Timestamp,
    /// Number of the boot that it runs among all boots, in the order in which they began.
    pub sequence: u64,
    /// All checks of what it runs hold.
    pub healthy: bool,
    /// When each of its boots began, also of those that never came up; in any order.
    pub begun: Vec<Timestamp>,
}
