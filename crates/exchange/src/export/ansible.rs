//! An inventory for Ansible, in the form of its `yaml` plugin, which also reads JSON: `ansible-inventory -i FILE.json --list`.
//!
//! Names of groups have letters, digits and `_` only: others make Ansible warn, and cannot be read as attributes.

use super::ExportNode;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let mut hosts = Map::new();
    let mut members: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for node in nodes {
        let networks: BTreeMap<&String, _> = node.networks.iter().map(|(name, ipaddr)| (name, ipaddr)).collect();
        // One dictionary, so that no name of a variable is one of Ansible's own.
        let facts = json!({
            "attributes": node.attributes, "hwaddrs": node.hwaddrs, "image": node.image, "profiles": node.profiles,
            "networks": networks, "rack": node.rack, "vars": node.vars,
        });
        hosts.insert(
            node.name.clone(),
            json!({ "ansible_host": node.ipaddr, "ansible_user": "root", "rackstrap": facts }),
        );
        let default = ["default".to_owned()];
        let profiles = if node.profiles.is_empty() {
            &default[..]
        } else {
            &node.profiles
        };
        let profiles = profiles.iter().map(|profile| format!("profile:{profile}"));
        let rack = (!node.rack.is_empty()).then(|| format!("rack:{}", node.rack));
        for group in node.groups.iter().cloned().chain(profiles).chain(rack) {
            members.entry(group).or_default().insert(&node.name);
        }
    }
    let mut children = Map::new();
    for (group, members) in members {
        let mut name = group_name(&group);
        // Two names that differ in their punctuation, and names that Ansible or a host has.
        while children.contains_key(&name) || hosts.contains_key(&name) {
            name.push('_');
        }
        let members: Map<String, Value> = members.into_iter().map(|node| (node.to_owned(), json!({}))).collect();
        children.insert(name, json!({ "hosts": members }));
    }
    super::json_text(&json!({ "all": { "hosts": hosts, "children": children } }))
}

/// `profile_compute` of `profile:compute`.
fn group_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let plain: String = name.chars().map(plain).collect();
    match plain.as_str() {
        "all" | "ungrouped" => format!("group_{plain}"),
        _ if plain.starts_with(|c: char| c.is_ascii_digit()) => format!("group_{plain}"),
        _ => plain,
    }
}
