//! What other programs are told of, and what is different between two looks at it.

use crate::{
    boots::Boots,
    inventory::{
        Inventory, Node,
        hostlist::{Dialect, NodeSet},
    },
};
use rackstrap_wire::Hardware;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Longest value of a variable of a program's environment; `execve` takes 128 KiB with the name (`MAX_ARG_STRLEN`).
const LONGEST: usize = 120 << 10;

/// All nodes, with what their agents found.
#[derive(Clone, Debug, Default)]
pub struct Known(BTreeMap<String, One>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct One {
    node: Arc<Node>,
    hardware: Option<Hardware>,
    /// Mount points of local partitions, and their bytes.
    mounts: Vec<(String, u64)>,
}

/// Names of nodes that are different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// New ones.
    pub added: NodeSet,
    /// Those of which something is different.
    pub changed: NodeSet,
    /// Those that are no more.
    pub deleted: NodeSet,
}

impl Known {
    /// What is known now.
    pub fn of(inventory: &Inventory, boots: &Boots) -> Known {
        let all = inventory.iter().map(|node| {
            let boots = boots.of_node(&node.name);
            let mounts = boots
                .iter()
                .find_map(|boot| boot.disk.as_ref())
                .map(|disk| &disk.mounts);
            let mounts = mounts.into_iter().flatten();
            let one = One {
                node: node.clone(),
                // No export shows modules, and another kernel may divide them up otherwise.
                hardware: boots
                    .iter()
                    .find_map(|boot| boot.hardware.clone())
                    .map(|hardware| Hardware {
                        modules: Vec::new(),
                        ..hardware
                    }),
                mounts: mounts
                    .filter_map(|mount| Some((mount.mount.clone()?, mount.size)))
                    .collect(),
            };
            (node.name.clone(), one)
        });
        Known(all.collect())
    }

    /// What is different in `later`.
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
    /// True if nothing is.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.deleted.is_empty()
    }

    /// As variables: hostlists that Slurm reads too, which are `*` where they would be too long for one.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let value = |set: &NodeSet| {
            Some(set.fold_as(Dialect::Slurm))
                .filter(|list| list.len() <= LONGEST)
                .unwrap_or("*".to_owned())
        };
        vec![
            ("RACKSTRAP_ADDED", value(&self.added)),
            ("RACKSTRAP_CHANGED", value(&self.changed)),
            ("RACKSTRAP_DELETED", value(&self.deleted)),
        ]
    }
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
