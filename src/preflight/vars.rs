//! Variables that texts of the site file read, and that nodes do not have.

use super::{Finding, finding};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::inventory::{Node, Settings};
use rackstrap_site::{Site, expanded_card, expanded_mount, vars::has_variables};
use std::collections::{BTreeMap, BTreeSet};

/// One finding for each text and problem, with its place and the nodes. A profile that no node has is tried by itself.
pub(super) fn of_nodes<'a>(site: &Site, nodes: impl Iterator<Item = &'a Node>) -> Vec<Finding> {
    let reads = |text: &Option<String>| text.as_deref().is_some_and(has_variables);
    let in_mounts = site
        .mounts
        .iter()
        .any(|mount| has_variables(&mount.what) || has_variables(&mount.options));
    let in_networks = site
        .networks
        .iter()
        .filter_map(|network| network.kind.card())
        .any(|card| {
            let texts = [&card.mac, &card.pci];
            texts.into_iter().any(reads)
        });
    let in_profiles = site.profiles.values().any(|profile| reads(&profile.kernel_args));
    // By text, problem and place: the nodes.
    let mut found: BTreeMap<(String, String), (String, NodeSet)> = BTreeMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut try_one = |settings: &Settings<'_>, profiles: &[String], node: &str| {
        let mut add = |what: String, place: Option<&String>, problem: String| {
            let place = place.map_or_else(String::new, |place| format!("{place}: "));
            let (_, nodes) = found.entry((what, problem)).or_insert((place, NodeSet::default()));
            nodes.insert(node);
        };
        if let Err(problem) = settings.kernel_args() {
            let from = settings.kernel_args_from().unwrap_or_default();
            add(format!("kernel-args of {from}"), site.places.get(&from), problem);
        }
        for mount in site.mounts.iter().filter(|mount| mount.applies_to(profiles)) {
            if let Err(problem) = expanded_mount(mount, |name| settings.variable(name)) {
                let place = [&mount.what, &mount.options]
                    .into_iter()
                    .find_map(|text| site.places.get(&format!("mount {text}")));
                add(format!("the mount on {}", mount.place), place, problem);
            }
        }
        for network in site.networks.iter().filter(|network| network.applies_to(profiles)) {
            let card = network
                .kind
                .card()
                .map(|card| expanded_card(card, |name| settings.variable(name)));
            if let Some(Err(problem)) = card {
                let place = site.places.get(&format!("network {}", network.name));
                add(format!("match of the network {}", network.name), place, problem);
            }
        }
    };
    for node in nodes {
        used.insert("default");
        used.extend(
            node.profiles
                .iter()
                .filter_map(|name| site.profiles.get_key_value(name))
                .map(|(name, _)| name.as_str()),
        );
        if in_mounts
            || in_networks
            || in_profiles
            || reads(&node.settings.set().kernel_args)
            || reads(&node.settings.added().kernel_args)
        {
            try_one(&Settings::of_node(site, node, |_| ()), &node.profiles, &node.name);
        }
    }
    if in_mounts || in_networks || in_profiles {
        for profile in site.profiles.keys().filter(|profile| !used.contains(profile.as_str())) {
            let profiles = std::slice::from_ref(profile);
            try_one(&Settings::of(site, profiles, |_| ()), profiles, "");
        }
    }
    let all = found.into_iter().map(|((what, problem), (place, nodes))| {
        let nodes: NodeSet = nodes.iter().filter(|name| !name.is_empty()).collect();
        let of = match nodes.is_empty() {
            true => String::new(),
            false => format!(", for {nodes}"),
        };
        let help = match (problem.contains("is not defined"), nodes.is_empty()) {
            (false, _) => "correct the text, or the variable".to_owned(),
            (true, true) => "write the variable in [cluster.vars] or in [profile.NAME.vars]".to_owned(),
            (true, false) => {
                format!("write the variable in [cluster.vars] or in [profile.NAME.vars], or: rackstrap node set '{nodes}' vars.NAME=VALUE")
            }
        };
        // Without its kernel arguments a node does not boot; without a mount it does.
        let fatal = what.starts_with("kernel-args") || problem.contains("is not defined");
        finding(fatal, &format!("variable {what}: {problem}"), format!("{place}{what}: {problem}{of}"), help)
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_model::testing;

    fn found(site: &str, nodes: &[(&str, &str, serde_json::Value)]) -> Vec<String> {
        let site = testing::cluster(site);
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|(name, profile, settings)| Node {
                profiles: vec![(*profile).to_owned()],
                settings: serde_json::from_value(settings.clone()).unwrap(),
                ..testing::node(name)
            })
            .collect();
        let all = of_nodes(&site, nodes.iter()).into_iter();
        all.map(|one| format!("{}; {}", one.message, one.help)).collect()
    }

    #[test]
    fn an_undefined_variable_is_named_with_its_place_and_its_nodes() {
        let text = "[profile.gpu]\nkernel-args = \"hugepages={{ vars.pages }}\"\n[[mount]]\nwhat = \"{{ vars.nas }}:/home\"\n\
                    where = \"/home\"\ntype = \"nfs\"\n";
        let none = serde_json::json!({});
        let both = serde_json::json!({ "vars.pages": 64, "vars.nas": "10.5.0.2" });
        let said = found(
            text,
            &[
                ("r01n01", "gpu", none.clone()),
                ("r01n02", "gpu", none.clone()),
                ("r01n03", "gpu", both),
            ],
        );
        assert_eq!(
            said,
            [
                "/site.toml:13:15: kernel-args of profile gpu: vars.pages is not defined, for r01n[01-02]; write the variable in \
                 [cluster.vars] or in [profile.NAME.vars], or: rackstrap node set 'r01n[01-02]' vars.NAME=VALUE",
                "/site.toml:15:8: the mount on /home: vars.nas is not defined, for r01n[01-02]; write the variable in [cluster.vars] \
                 or in [profile.NAME.vars], or: rackstrap node set 'r01n[01-02]' vars.NAME=VALUE",
            ]
        );
        // Without nodes, what the profile has counts.
        assert_eq!(found(text, &[]).len(), 2);
        let defined = text.replace("[profile.gpu]", "[profile.gpu]\nvars = { pages = 64, nas = \"nas\" }");
        assert_eq!(
            found(&defined, &[]).len(),
            1,
            "other profiles mount it too: {:?}",
            found(&defined, &[])
        );
        assert_eq!(found(&defined, &[("r01n01", "gpu", none.clone())]), [""; 0]);
        let table = serde_json::json!({ "vars.pages": { "a": 1 }, "vars.nas": "a b" });
        let wrong = found(text, &[("r01n01", "gpu", table)]);
        assert!(
            wrong[0].contains("vars.pages is a table, and a text is wanted here"),
            "{wrong:?}"
        );
        let network = "[[network]]\nname = \"ib\"\ntype = \"ethernet\"\nmatch = { mac = \"{{ vars.mac }}\" }\n\
                       node-address = \"10.6.{rack}.{slot}\"\nprefix = 16\n[profile.gpu]\n";
        let of_network = found(network, &[("r01n01", "gpu", none.clone())]);
        assert!(
            of_network[0].starts_with("/site.toml:15:9: match of the network ib: vars.mac is not defined, for r01n01"),
            "{of_network:?}"
        );
        let defined = serde_json::json!({ "vars.mac": "52:54:00:01:01:02" });
        assert_eq!(found(network, &[("r01n01", "gpu", defined)]), [""; 0]);
        let own = serde_json::json!({ "kernel-args+": "a={{ vars.x }}" });
        let of_node = found("[profile.gpu]\n", &[("r01n01", "gpu", own)]);
        assert!(
            of_node[0].starts_with("kernel-args of node: vars.x is not defined, for r01n01"),
            "{of_node:?}"
        );
    }
}
