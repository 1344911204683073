//! All names as one hostlist, which Slurm can read, too.

use super::ExportNode;
use rackstrap_hostlist::{Dialect, NodeSet};

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let set: NodeSet = nodes.iter().map(|node| node.name.as_str()).collect();
    format!("{}\n", set.fold_as(Dialect::Slurm))
}
