//! Settings that nodes of the inventory have, and that the site file no longer has or that no image is for.

use super::{Finding, finding, images, lines, networks, vars};
use rackstrap_catalog::Catalog;
use rackstrap_hostlist::NodeSet;
use rackstrap_model::inventory::{Node, address_problem};
use rackstrap_site::{IPADDR, SettingProblem, Site};
use std::collections::BTreeMap;

/// Profiles that nodes have and `site` does not, settings of their own that it no longer allows, and nodes whose names or
/// addresses do not follow its patterns. All keep what they have, so no other message reports it. Then images of nodes' own
/// that do not exist, and images of nodes that do not set their networks up.
pub fn of_nodes<'a>(site: &Site, catalog: &Catalog, nodes: impl Iterator<Item = &'a Node> + Clone) -> Vec<Finding> {
    let mut found = of_each(site, catalog, nodes.clone());
    found.extend(lines::of_nodes(site, catalog, nodes.clone()));
    found.extend(networks::of_nodes(site, catalog, nodes.clone()));
    found.extend(super::bmcs::of_nodes(site, nodes.clone()));
    found.extend(vars::of_nodes(site, nodes));
    found
}

fn of_each<'a>(site: &Site, catalog: &Catalog, nodes: impl Iterator<Item = &'a Node>) -> Vec<Finding> {
    let naming = &site.cluster.naming;
    let mut settings: BTreeMap<String, (SettingProblem, NodeSet)> = BTreeMap::new();
    let mut addresses = Vec::new();
    let mut own_images: BTreeMap<&str, NodeSet> = BTreeMap::new();
    let mut profiles: BTreeMap<&str, NodeSet> = BTreeMap::new();
    let (mut elsewhere, mut misnamed) = (NodeSet::default(), NodeSet::default());
    for node in nodes {
        for profile in &node.profiles {
            // Every node has the default profile, with or without its own section.
            if profile != "default" && !site.profiles.contains_key(profile) {
                profiles.entry(profile).or_default().insert(node.name.as_str());
            }
        }
        for problem in node.settings.problems(site) {
            let (_, nodes) = settings
                .entry(problem.to_string())
                .or_insert((problem, NodeSet::default()));
            nodes.insert(node.name.as_str());
        }
        if let Some(image) = node
            .settings
            .set()
            .image
            .as_deref()
            .filter(|image| !images::is_there(image, catalog))
        {
            own_images.entry(image).or_default().insert(node.name.as_str());
        }
        if let Some(own) = node.settings.ipaddr() {
            if let Some(problem) = address_problem(site, own, true) {
                let message = format!("{} has the address {own} of its own, {problem}", node.name);
                let help = format!(
                    "give it another one while it is off: rackstrap node set {} {IPADDR}=ADDRESS",
                    node.name
                );
                addresses.push(finding(
                    false,
                    &format!("setting {IPADDR} of {}", node.name),
                    message,
                    help,
                ));
            }
            continue;
        }
        match naming.name_to_address(&node.name) {
            Ok(address) if address == node.ipaddr => {}
            Ok(_) => drop(elsewhere.insert(node.name.as_str())),
            Err(_) => drop(misnamed.insert(node.name.as_str())),
        }
    }
    let mut found: Vec<Finding> = profiles
        .into_iter()
        .map(|(profile, nodes)| {
            let message = format!("profile '{profile}' of {nodes} is not in the site file: its nodes boot without it");
            let help = format!(
                "add [profile.{profile}] again, or remove it from the nodes: rackstrap node unset '{nodes}' --profile {profile}"
            );
            finding(false, &format!("profile {profile}"), message, help)
        })
        .collect();
    found.extend(settings.into_iter().map(|(text, (problem, nodes))| {
        let message = format!("{nodes}: {text}; the setting has no effect");
        let key = problem.key.trim_end_matches('+');
        let help = format!("set it again, or remove it: rackstrap node unset '{nodes}' {key}");
        finding(false, &format!("setting {key} of {nodes}"), message, help)
    }));
    found.extend(own_images.into_iter().map(|(image, nodes)| {
        let message = format!("image {image} does not exist; {nodes} cannot boot, whose own setting it is");
        let help = format!(
            "{}; or remove the setting: rackstrap node unset '{nodes}' image",
            images::remedy(image, catalog)
        );
        finding(true, &format!("image {image} of {nodes}"), message, help)
    }));
    found.extend(addresses);
    if !elsewhere.is_empty() {
        let message = format!(
            "the addresses of {elsewhere} do not follow from their names by node-address = \"{}\", and are kept",
            naming.address_pattern()
        );
        let help = format!(
            "restore the old pattern, or give the nodes the new addresses while they are off: rackstrap node rename \
             '{elsewhere}' '{elsewhere}'"
        );
        found.push(finding(false, "node-address", message, help));
    }
    if !misnamed.is_empty() {
        let message = format!(
            "the names of {misnamed} do not follow node-name = \"{}\", and are kept",
            naming.name_pattern()
        );
        let help = format!(
            "restore the old pattern, or give the nodes new names while they are off: rackstrap node rename '{misnamed}' NAMES"
        );
        found.push(finding(false, "node-name", message, help));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn site(change: impl Fn(String) -> String) -> Site {
        let text = change(include_str!("../../rackstrap.example.toml").to_owned());
        rackstrap_site::parse(&text, Path::new("site.toml")).unwrap().0
    }

    fn node(name: &str, profiles: &[&str]) -> Node {
        Node {
            name: name.to_owned(),
            hwaddrs: Vec::new(),
            ipaddr: site(|text| text).cluster.naming.name_to_address(name).unwrap(),
            profiles: profiles.iter().map(|&profile| profile.to_owned()).collect(),
            groups: Default::default(),
            attributes: Default::default(),
            settings: Default::default(),
        }
    }

    #[test]
    fn settings_of_nodes_that_the_file_lacks_are_named_with_the_nodes() {
        let nodes = [
            node("r01n01", &["gpu"]),
            node("r01n02", &["default", "gpu"]),
            node("r02n01", &[]),
        ];
        let said = |site: &Site| -> Vec<String> {
            let found = of_nodes(site, &Catalog::default(), nodes.iter()).into_iter();
            found.map(|one| format!("{}; {}", one.message, one.help)).collect()
        };
        assert!(said(&site(|text| text + "\n[profile.gpu]\n")).is_empty());
        assert_eq!(
            said(&site(|text| text)),
            [
                "profile 'gpu' of r01n[01-02] is not in the site file: its nodes boot without it; add [profile.gpu] \
                 again, or remove it from the nodes: rackstrap node unset 'r01n[01-02]' --profile gpu"
            ]
        );
        let moved = said(&site(|text| {
            text.replace("10.5.{rack}.{slot}", "10.5.{slot}.{rack}") + "\n[profile.gpu]\n"
        }));
        assert_eq!(moved.len(), 1, "r01n01 is where it was: {moved:?}");
        assert!(
            moved[0].starts_with("the addresses of r01n02,r02n01 do not follow"),
            "{moved:?}"
        );
        assert!(
            moved[0].ends_with("rackstrap node rename 'r01n02,r02n01' 'r01n02,r02n01'"),
            "{moved:?}"
        );
        let named = said(&site(|text| {
            text.replace("r{rack:02}n{slot:02}", "x{rack:02}n{slot:02}") + "\n[profile.gpu]\n"
        }));
        assert_eq!(named.len(), 1, "{named:?}");
        assert!(
            named[0].starts_with(
                "the names of r01n[01-02],r02n01 do not follow node-name = \"x{rack:02}n{slot:02}\", and are kept; "
            ),
            "{named:?}"
        );
    }

    #[test]
    fn settings_that_became_invalid_are_named_with_their_nodes_and_the_remedy() {
        let own = |name: &str, settings: serde_json::Value| Node {
            settings: serde_json::from_value(settings).unwrap(),
            ..node(name, &[])
        };
        let nodes = [
            own(
                "r01n01",
                serde_json::json!({ "layout": "gone", "of-a-later-release": 1 }),
            ),
            own("r01n02", serde_json::json!({ "layout": "gone" })),
            own("r01n03", serde_json::json!({ "ipaddr": "192.0.2.9" })),
            own("r01n04", serde_json::json!({ "ipaddr": "10.5.0.9" })),
        ];
        let found = of_nodes(&site(|text| text), &Catalog::default(), nodes.iter());
        let said: Vec<String> = found
            .iter()
            .map(|one| format!("{}; {}", one.message, one.help))
            .collect();
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(
            said[0].starts_with("r01n[01-02]: layout = \"gone\": layout 'gone' does not exist")
                && said[0].ends_with("rackstrap node unset 'r01n[01-02]' layout"),
            "{said:#?}"
        );
        assert!(
            said[1].starts_with("r01n01: of-a-later-release: a node has no setting 'of-a-later-release'"),
            "{said:#?}"
        );
        assert!(
            said[2].starts_with("r01n03 has the address 192.0.2.9 of its own, which is in none of the site's networks")
                && said[2].ends_with("rackstrap node set r01n03 ipaddr=ADDRESS"),
            "{said:#?}"
        );
        assert!(found.iter().all(|one| !one.fatal));
    }
}
