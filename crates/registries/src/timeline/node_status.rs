//! How a node is: the single answer for `status`, explanations, rollouts, restarts, exports and hooks.

use super::{NodeState, Recorder, Retries, Standing, Subject};
use crate::boots::{Boot, Boots};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::decide::World;
use rackstrap_wire::{DiskState, Hardware, ImageRef};
use std::sync::Arc;

/// A machine that boots and has been silent for this many milliseconds is switched off, or waits at a screen.
const SILENCE_MS: u64 = 300_000;

/// How one node is at one time. [`NodeStatus::of`] is the only place that derives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Where the node is.
    pub state: NodeState,
    /// When the state began. For a lost node, when it was last heard of; for a stalled node, when it last progressed. None if
    /// the node was never heard of.
    pub since: Option<Timestamp>,
    /// The last failure, retry or lack; else why the node is back on another version. Empty if there is none.
    pub reason: String,
    /// When it was last heard of; none if it never was.
    pub heard: Option<Timestamp>,
    /// The boot that it is in; none while firmware asks and no boot is pinned.
    pub boot: Option<Arc<Boot>>,
    /// The newest boot whose system came up: what the node runs, or ran last. None if no boot ever got ready.
    pub running: Option<Arc<Boot>>,
    /// The image version of `boot`, or of the boot before while no boot is pinned. None if it never booted.
    pub version: Option<ImageRef>,
    /// Whether the system of `running` is up and all its checks hold.
    pub healthy: bool,
    /// The checks of `running` that failed, for people; empty if none did.
    pub checks: String,
    /// The retries of its boots.
    pub retries: Retries,
    /// All remembered boots, the newest first.
    boots: Vec<Arc<Boot>>,
}

impl NodeStatus {
    /// How `node` is at `now`, also if its silence is not recorded yet.
    pub fn of(world: &World, recorder: &Recorder, boots: &Boots, node: &str, now: Timestamp) -> NodeStatus {
        recorder.settle(now);
        let subject = Subject::Node(node.to_owned());
        let standing = recorder.standing_at(&subject, now, heartbeats(world, boots));
        NodeStatus {
            retries: recorder.retries(&subject),
            ..NodeStatus::from(world, standing.unwrap_or_default(), boots, node)
        }
    }

    /// How `node` is by its recorded events: a silent node is lost only after that was recorded as an event.
    pub fn recorded(world: &World, recorder: &Recorder, boots: &Boots, node: &str) -> NodeStatus {
        let subject = Subject::Node(node.to_owned());
        NodeStatus {
            retries: recorder.retries(&subject),
            ..NodeStatus::from(world, recorder.standing(&subject).unwrap_or_default(), boots, node)
        }
    }

    fn from(world: &World, standing: Standing, boots: &Boots, node: &str) -> NodeStatus {
        let boot = boots.get(&standing.boot);
        let boots = boots.of_node(node);
        let running = boots.iter().find(|boot| boot.ready.is_some()).cloned();
        let mut status = NodeStatus {
            state: standing.state,
            since: (standing.state != NodeState::Absent).then_some(standing.since),
            reason: match standing.last_error.is_empty() {
                true => rolled_back(world, node).unwrap_or_default(),
                false => standing.last_error,
            },
            heard: (standing.heard.0 > 0).then_some(standing.heard),
            healthy: running.as_ref().is_some_and(|boot| boot.healthy()),
            checks: running.as_ref().map(|boot| boot.problem()).unwrap_or_default(),
            version: None,
            retries: Retries::default(),
            boot,
            running,
            boots,
        };
        status.version = status.last_boot().map(|boot| boot.image().clone());
        status
    }

    /// Whether the machine is switched on, as far as the daemon knows: its system is up, or it boots and was heard of in the last five
    /// minutes.
    pub fn is_on(&self, now: Timestamp) -> bool {
        self.state.is_up() || (self.state.is_booting() && self.heard.is_some_and(|heard| now.since(heard) < SILENCE_MS))
    }

    /// The step at which its boot stalled, with the likely causes; empty if it has not stalled.
    pub fn stalled(&self) -> &str {
        match self.state {
            NodeState::Stalled => &self.reason,
            _ => "",
        }
    }

    /// The missing parts of a node that is up; empty for a complete one.
    pub fn lacks(&self) -> &str {
        match self.state {
            NodeState::Degraded => &self.reason,
            _ => "",
        }
    }

    /// The boot that it is in; while no boot is pinned, the last one that was not in doubt. None if it never booted.
    pub fn last_boot(&self) -> Option<&Arc<Boot>> {
        let before = || self.boots.iter().find(|boot| boot.is_believed());
        self.boot.as_ref().or_else(before)
    }

    /// When each boot began that is not in doubt, the newest first; also those that never came up.
    pub fn begun(&self) -> impl Iterator<Item = Timestamp> {
        let believed = self.boots.iter().filter(|boot| boot.is_believed());
        believed.map(|boot| boot.opened)
    }

    /// What the agent of the newest boot that reported it found in the machine; none if no agent ever did.
    pub fn hardware(&self) -> Option<&Hardware> {
        self.boots.iter().find_map(|boot| boot.hardware.as_ref())
    }

    /// The disk as the agent of the newest boot that reported it left it; none if no agent ever did.
    pub fn disk(&self) -> Option<&DiskState> {
        self.boots.iter().find_map(|boot| boot.disk.as_ref())
    }
}

/// Returns a function from a boot to the seconds between its heartbeats: the period in the boot's plan, which the node keeps
/// until it boots again. If the boot or its period is unknown, the site's present period is used.
pub(super) fn heartbeats(world: &World, boots: &Boots) -> impl Fn(&str) -> u32 {
    let of_site = world.site.limits.heartbeat_secs;
    move |boot| {
        let told = boots.get(boot).map(|boot| boot.plan.heartbeat_secs);
        told.filter(|secs| *secs > 0).unwrap_or(of_site)
    }
}

/// Why the node runs another version than the one it is assigned; none if it does not.
fn rolled_back(world: &World, node: &str) -> Option<String> {
    let trial = world
        .assignments
        .trials
        .get(node)
        .filter(|trial| trial.rolled_back.is_some())?;
    Some(format!("{}: back on {}", trial.verdict(), trial.last_known_good))
}
