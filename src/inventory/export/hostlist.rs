//! All names as one hostlist.

use super::ExportNode;
use crate::inventory::hostlist::NodeSet;

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let set: NodeSet = nodes.iter().map(|node| node.name.as_str()).collect();
    format!("{set}\n")
}
