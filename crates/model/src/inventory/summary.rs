//! Describes the result of changes, in few lines also for thousands of nodes.

use super::{Changed, differences};
use rackstrap_hostlist::NodeSet;
use std::collections::HashMap;

/// Up to this many nodes are described one by one.
const ONE_BY_ONE: usize = 20;
/// At most this many lines for different changes; nodes with further changes are named in one more line.
const LINES: usize = 20;

/// One line for each node. For many nodes, one line for all nodes with the same change, and at most [`LINES`] of these.
pub fn summary(changed: &[Changed]) -> Vec<String> {
    if changed.len() <= ONE_BY_ONE {
        return changed.iter().map(one).collect();
    }
    let mut kinds: Vec<(String, NodeSet)> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for changed in changed {
        let what = match (&changed.before, &changed.after) {
            // The hardware addresses differ, and are in the file that they come from.
            (None, _) => "added".to_owned(),
            (_, None) => "deleted".to_owned(),
            _ => differences(changed).join(", "),
        };
        let at = *index.entry(what.clone()).or_insert(kinds.len());
        if at == kinds.len() {
            kinds.push((what, NodeSet::default()));
        }
        kinds[at].1.insert(before(changed));
    }
    let rest = kinds.split_off(kinds.len().min(LINES));
    let mut lines: Vec<String> = kinds.iter().map(|(what, nodes)| format!("{nodes}: {what}")).collect();
    let rest: NodeSet = rest.into_iter().flat_map(|(_, nodes)| nodes).collect();
    if !rest.is_empty() {
        lines.push(format!("{rest}: also changed; --json shows how"));
    }
    lines
}

fn before(changed: &Changed) -> &str {
    changed.before.as_ref().map_or(changed.name(), |node| &node.name)
}

fn one(changed: &Changed) -> String {
    match (&changed.before, &changed.after) {
        (Some(node), None) => {
            let hwaddrs: Vec<String> = node.hwaddrs.iter().map(ToString::to_string).collect();
            format!("{} deleted; hwaddr {} is free again", node.name, hwaddrs.join(", "))
        }
        _ => format!("{}: {}", before(changed), differences(changed).join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Node;
    use super::*;

    fn node(slot: u16, group: &str) -> Node {
        Node {
            name: format!("r01n{slot:02}"),
            hwaddrs: Vec::new(),
            ipaddr: [10, 5, 1, slot as u8].into(),
            profiles: Vec::new(),
            groups: [group.to_owned()].into(),
            attributes: Default::default(),
            settings: Default::default(),
        }
    }

    fn changes(count: u16, group: impl Fn(u16) -> String) -> Vec<Changed> {
        let change = |slot| Changed {
            before: Some(node(slot, "old")),
            after: Some(node(slot, &group(slot))),
        };
        (1..=count).map(change).collect()
    }

    #[test]
    fn a_few_nodes_are_described_one_by_one() {
        let lines = summary(&changes(2, |_| "new".to_owned()));
        assert_eq!(lines, ["r01n01: groups old -> new", "r01n02: groups old -> new"]);
    }

    #[test]
    fn many_nodes_take_few_lines() {
        let added = |slot| Changed {
            before: None,
            after: Some(node(slot, "new")),
        };
        let added: Vec<Changed> = (1..=99).map(added).collect();
        assert_eq!(summary(&added), ["r01n[01-99]: added"]);
        let same = summary(&changes(99, |_| "new".to_owned()));
        assert_eq!(same, ["r01n[01-99]: groups old -> new"]);
        let different = summary(&changes(99, |slot| format!("g{slot}")));
        assert_eq!(different.len(), LINES + 1);
        assert_eq!(different[LINES], "r01n[21-99]: also changed; --json shows how");
    }
}
