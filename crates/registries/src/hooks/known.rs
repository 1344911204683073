//! What hooks are told about nodes, and the differences between two times.

use crate::{
    boots::Boots,
    timeline::{NodeState, NodeStatus, Recorder},
};
use rackstrap_hostlist::{Dialect, NodeSet};
use rackstrap_model::{
    decide::World,
    inventory::{Node, Settings},
};
use rackstrap_wire::{FaultKind, Hardware};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// The longest value of an environment variable. `execve` accepts 128 KiB including the name (`MAX_ARG_STRLEN`).
const LONGEST: usize = 120 << 10;

/// All nodes, with what their agents found.
#[derive(Clone, Debug, Default)]
pub struct Known(BTreeMap<String, One>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct One {
    node: Arc<Node>,
    hardware: Option<Hardware>,
    /// Mount points of local partitions, and their sizes in bytes.
    mounts: Vec<(String, u64)>,
    /// `Lost` or `Stalled`; none if the node is neither.
    overdue: Option<NodeState>,
    /// The kinds of faults of its disks; empty without any.
    faults: BTreeSet<(String, FaultKind)>,
}

/// Names of nodes that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Nodes that were added to the inventory.
    pub added: NodeSet,
    /// Nodes that changed, became lost or stalled, or recovered.
    pub changed: NodeSet,
    /// Nodes that were deleted.
    pub deleted: NodeSet,
}

impl Known {
    /// The current state.
    pub fn of(world: &World, boots: &Boots, recorder: &Recorder) -> Known {
        let all = world.inventory.iter().map(|node| {
            let status = NodeStatus::recorded(world, recorder, boots, &node.name);
            let mounts = status.disk().into_iter().flat_map(|disk| &disk.mounts);
            let one = One {
                node: node.clone(),
                // No export shows modules, and another kernel may divide them differently.
                hardware: status.hardware().map(|hardware| Hardware {
                    modules: Vec::new(),
                    ..hardware.clone()
                }),
                mounts: mounts
                    .filter_map(|mount| Some((mount.mount.clone()?, mount.size)))
                    .collect(),
                overdue: Some(status.state).filter(|state| state.is_overdue()),
                faults: faults(boots, &node.name),
            };
            (node.name.clone(), one)
        });
        Known(all.collect())
    }

    /// Variables with the nodes that are lost or stalled now, so that a program that starts late knows them.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let all = |state| {
            let nodes = self.0.iter().filter(|(_, one)| one.overdue == Some(state));
            hostlist(&nodes.map(|(name, _)| name.as_str()).collect())
        };
        let with_faults = self.0.iter().filter(|(_, one)| !one.faults.is_empty());
        let with_faults: NodeSet = with_faults.map(|(name, _)| name.as_str()).collect();
        vec![
            ("RACKSTRAP_STALLED", all(NodeState::Stalled)),
            ("RACKSTRAP_LOST", all(NodeState::Lost)),
            ("RACKSTRAP_DISK_FAULTS", hostlist(&with_faults)),
        ]
    }

    /// The differences between `self` and `later`.
    pub fn until(&self, later: &Known) -> Differences {
        let mut differences = Differences::default();
        for (name, one) in &later.0 {
            match self.0.get(name) {
                None => drop(differences.added.insert(name.as_str())),
                Some(before) if before != one => drop(differences.changed.insert(name.as_str())),
                Some(_) => {}
            }
        }
        let gone = self.0.keys().filter(|name| !later.0.contains_key(*name));
        differences.deleted.extend(gone.map(String::as_str));
        differences
    }
}

impl Differences {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.deleted.is_empty()
    }

    /// The differences as variables with hostlists.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("RACKSTRAP_ADDED", hostlist(&self.added)),
            ("RACKSTRAP_CHANGED", hostlist(&self.changed)),
            ("RACKSTRAP_DELETED", hostlist(&self.deleted)),
        ]
    }
}

/// The faults of a node's disks: each disk with the kinds of its faults.
fn faults(boots: &Boots, node: &str) -> BTreeSet<(String, FaultKind)> {
    let health = boots.disks().get(node).map(|disk| disk.health).unwrap_or_default();
    let all = health.into_iter().flat_map(|known| {
        let device = known.health.device;
        let kinds = known.health.faults.into_iter();
        kinds.map(move |fault| (device.clone(), fault.kind))
    });
    all.collect()
}

/// `RACKSTRAP_VARS`: the variables of each node as JSON, without secret ones; `{}` if that would be too long.
pub fn variables<'n>(world: &World, nodes: impl Iterator<Item = &'n str>) -> (&'static str, String) {
    let all: BTreeMap<&str, BTreeMap<String, Value>> = nodes
        .filter_map(|name| {
            let settings = Settings::of_node(&world.site, world.inventory.get(name)?, |_| ());
            let plain = settings.plain_vars().into_iter();
            Some((
                name,
                plain.map(|(name, value)| (name.to_owned(), value.clone())).collect(),
            ))
        })
        .collect();
    let text = serde_json::to_string(&all).ok().filter(|text| text.len() <= LONGEST);
    ("RACKSTRAP_VARS", text.unwrap_or_else(|| "{}".to_owned()))
}

/// The value of a variable: a hostlist that Slurm can read, or `*` if that would be too long.
fn hostlist(set: &NodeSet) -> String {
    Some(set.fold_as(Dialect::Slurm))
        .filter(|list| list.len() <= LONGEST)
        .unwrap_or("*".to_owned())
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("added", &self.added),
            ("changed", &self.changed),
            ("deleted", &self.deleted),
        ];
        let parts = all.into_iter().filter(|(_, set)| !set.is_empty());
        let parts: Vec<String> = parts.map(|(what, set)| format!("{what} {}", set.fold())).collect();
        match parts.is_empty() {
            true => f.write_str("the daemon has started"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}
