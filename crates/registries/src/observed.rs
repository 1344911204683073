//! How nodes are, for the planner: the only place where [`Observed`] is made.

use crate::{
    boots::{Boot, Boots},
    timeline::{NodeState, NodeStatus, Recorder},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_lifecycle::{Node, Observed};
use rackstrap_model::{
    decide::{SharedWorld, World},
    inventory::{self, Settings},
    orders::BootOrder,
};

/// Answers how nodes are; clones share it.
#[derive(Clone)]
pub struct Observer {
    world: SharedWorld,
    boots: Boots,
    recorder: Recorder,
}

/// The image setting of a node, its own or that of its profiles: a name, or a version.
pub fn setting(world: &World, node: &inventory::Node) -> Option<String> {
    let settings = Settings::of_node(&world.site, node, |_| ());
    settings.text(|p| &p.image).map(str::to_owned)
}

impl Observer {
    /// Uses the daemon's world, boots and timelines.
    pub fn new(world: SharedWorld, boots: Boots, recorder: Recorder) -> Observer {
        Observer { world, boots, recorder }
    }

    /// How a node is; none if it does not exist.
    pub fn observe(&self, name: &str, now: Timestamp) -> Option<Observed> {
        let world = self.world.load();
        world.inventory.get(name)?;
        let status = NodeStatus::of(&world, &self.recorder, &self.boots, name, now);
        Some(self.observed(name, &status, now))
    }

    /// The same, together with the version that decisions give it.
    pub fn node(&self, name: &str, now: Timestamp) -> Option<Node> {
        let world = self.world.load();
        let setting = setting(&world, world.inventory.get(name)?);
        let status = NodeStatus::of(&world, &self.recorder, &self.boots, name, now);
        let running = status.running.as_deref();
        Some(Node {
            observed: self.observed(name, &status, now),
            follows: setting.filter(|setting| !setting.contains('@')),
            leaves: running.and_then(|running| leaves(&world, name, running)),
        })
    }

    /// The image whose rollout makes `node` leave `boot` for another version; none if the node runs another boot.
    pub fn leaves(&self, node: &str, boot: &str) -> Option<String> {
        let world = self.world.load();
        let mut boots = self.boots.of_node(node).into_iter();
        let running = boots.find(|boot| boot.ready.is_some())?;
        (running.plan.id == boot).then(|| leaves(&world, node, &running))?
    }

    fn observed(&self, name: &str, status: &NodeStatus, now: Timestamp) -> Observed {
        let order = self.boots.orders().get(name);
        observed(status, order.as_ref(), now)
    }
}

/// What the node does by an order; empty in a usual boot. No boot is pinned for what reports nothing: its order is in use until the next boot.
fn ordered(status: &NodeStatus, order: Option<&BootOrder>) -> String {
    let by_loader = order.filter(|order| status.state == NodeState::Unmanaged && order.used.is_some());
    let pinned = || status.boot.as_ref()?.once.as_ref().map(|once| &once.what);
    let what = by_loader.map(|order| &order.what).or_else(pinned);
    what.map(ToString::to_string).unwrap_or_default()
}

fn observed(status: &NodeStatus, order: Option<&BootOrder>, now: Timestamp) -> Observed {
    let (running, pinned) = (status.running.as_ref(), status.boot.as_ref());
    Observed {
        up: status.state.is_up(),
        on: status.is_on(now),
        heard: status.heard.unwrap_or_default(),
        problem: status.lacks().to_owned(),
        stalled: status.stalled().to_owned(),
        image: pinned.map(|boot| boot.image().clone()),
        opened: pinned.map(|boot| boot.opened).unwrap_or_default(),
        boot: running.map(|boot| boot.plan.id.clone()).unwrap_or_default(),
        boot_opened: running.map(|boot| boot.opened).unwrap_or_default(),
        sequence: running.map_or(0, |boot| boot.sequence),
        ordered: ordered(status, order),
        healthy: status.healthy,
        begun: status.begun().collect(),
    }
}

fn leaves(world: &World, node: &str, running: &Boot) -> Option<String> {
    let assignments = &world.assignments;
    // An administrator wants what runs by an order. The boot after it is that of the rollout anyway.
    if assignments.restarting.is_empty() || !running.is_usual() {
        return None;
    }
    let setting = setting(world, world.inventory.get(node)?)?;
    let limit = world.site.limits.boots_before_going_back;
    assignments.leaves(node, &setting, running.image(), &world.images, limit)
}
