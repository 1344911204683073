//! Computed groups of nodes, in addition to those that administrators made: the groups that hostlists may name.

use super::Node;
use rackstrap_hostlist::naming::Naming;
use std::collections::BTreeMap;

/// The members of every group, by its name after the `@` of a hostlist: `gpu`, which nodes joined; `profile:compute` and
/// `rack:r03`; and what `of` adds, such as `state:ready`. Names of joined groups have no colon, so computed groups cannot
/// hide them.
pub fn groups<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    naming: &Naming,
    of: impl Fn(&Node) -> Vec<String>,
) -> BTreeMap<String, Vec<String>> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in nodes {
        // A node without a profile has the settings of `default`.
        let default = ["default".to_owned()];
        let profiles: &[String] = if node.profiles.is_empty() {
            &default
        } else {
            &node.profiles
        };
        let profiles = profiles.iter().map(|profile| format!("profile:{profile}"));
        let rack = rack_of(naming, node).map(|rack| format!("rack:{rack}"));
        for group in node.groups.iter().cloned().chain(profiles).chain(rack).chain(of(node)) {
            members.entry(group).or_default().push(node.name.clone());
        }
    }
    members
}

/// The rack that the name of a node says; none if the node has an address of its own because its name follows no pattern.
pub fn rack_of<'n>(naming: &Naming, node: &'n Node) -> Option<&'n str> {
    let free = node.settings.ipaddr().is_some() && naming.position(&node.name).is_none();
    (!free).then(|| naming.rack_of(&node.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_in_groups_by_profile_rack_and_state() {
        let naming = Naming::new("r{rack:02}n{slot:02}", "10.5.{rack}.{slot}").unwrap();
        let node = |name: &str, profiles: &[&str], groups: &[&str]| Node {
            name: name.to_owned(),
            hwaddrs: Vec::new(),
            ipaddr: naming.name_to_address(name).unwrap(),
            profiles: profiles.iter().map(|s| (*s).to_owned()).collect(),
            groups: groups.iter().map(|s| (*s).to_owned()).collect(),
            attributes: Default::default(),
            settings: Default::default(),
        };
        let nodes = [
            node("r01n01", &[], &["new"]),
            node("r01n02", &["compute", "gpu"], &[]),
            node("r02n01", &["compute"], &["new"]),
        ];
        let found = groups(&nodes, &naming, |node| {
            vec![format!(
                "state:{}",
                if node.name.ends_with('2') { "lost" } else { "ready" }
            )]
        });
        let members: Vec<(&str, String)> = found
            .iter()
            .map(|(name, nodes)| (name.as_str(), nodes.join(" ")))
            .collect();
        let want = [
            ("new", "r01n01 r02n01"),
            ("profile:compute", "r01n02 r02n01"),
            ("profile:default", "r01n01"),
            ("profile:gpu", "r01n02"),
            ("rack:r01", "r01n01 r01n02"),
            ("rack:r02", "r02n01"),
            ("state:lost", "r01n02"),
            ("state:ready", "r01n01 r02n01"),
        ];
        assert_eq!(members, want.map(|(name, nodes)| (name, nodes.to_owned())));
    }
}
