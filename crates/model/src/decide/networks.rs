//! The networks of a node besides the boot network.

use crate::inventory::{Inventory, Node, Settings};
use rackstrap_site::{Network, Site, expanded_card};
use rackstrap_wire::{BOOT_NETWORK, NetworkKind, NetworkPlan};
use std::net::Ipv4Addr;

/// The networks that the node has, each after those that it is made of, and what it does not get, one line for each.
pub fn networks_of(site: &Site, node: &Node, settings: &Settings<'_>) -> (Vec<NetworkPlan>, Vec<String>) {
    let (mut plans, mut problems): (Vec<NetworkPlan>, Vec<String>) = (Vec::new(), Vec::new());
    for network in site
        .networks
        .iter()
        .filter(|network| network.applies_to(&node.profiles))
    {
        let missing = |name: &&String| name.as_str() != BOOT_NETWORK && plans.iter().all(|plan| plan.name != **name);
        let below = network.kind.below().iter().find(missing);
        let kind = match below {
            Some(below) => Err(format!("the node does not have {below}, which it is made of")),
            None => kind_of(network, settings),
        };
        match kind {
            Ok(kind) => plans.push(network.plan(&node.name, kind)),
            Err(why) => {
                problems.push(format!("network {}: {why}", network.name));
                continue;
            }
        }
        let address = plans.last().and_then(|plan| plan.address);
        if network.hosts.is_some() && address.is_none() {
            problems.push(format!(
                "network {}: the name {} has no address there, because it does not follow a pattern of node-name",
                network.name, node.name
            ));
        }
    }
    (plans, problems)
}

/// The names `NODE-NETWORK` of a node with their addresses.
pub fn hosts_of(site: &Site, node: &Node) -> Vec<(String, Ipv4Addr)> {
    let networks = site
        .networks
        .iter()
        .filter(|network| network.applies_to(&node.profiles));
    let host = |network: &Network| Some((network.host_name(&node.name), network.address_of(&node.name)?));
    networks.filter_map(host).collect()
}

/// The address of the host with this name in a network; none if it is not the name `NODE-NETWORK` of a node.
pub fn host_address(site: &Site, inventory: &Inventory, name: &str) -> Option<Ipv4Addr> {
    site.networks.iter().find_map(|network| {
        let node = name.strip_suffix(network.name.as_str())?.strip_suffix('-')?;
        let node = inventory.get(node).filter(|node| network.applies_to(&node.profiles))?;
        network.address_of(&node.name)
    })
}

/// The name `NODE-NETWORK` of the node with this address in a network; none if no node has it.
pub fn host_at(site: &Site, inventory: &Inventory, address: Ipv4Addr) -> Option<String> {
    site.networks.iter().find_map(|network| {
        let node = inventory.get(&network.node_at(address)?)?;
        let has_it = network.applies_to(&node.profiles);
        has_it.then(|| network.host_name(&node.name))
    })
}

/// The type, with the values of variables.
fn kind_of(network: &Network, settings: &Settings<'_>) -> Result<NetworkKind, String> {
    let card = |card| expanded_card(card, |name| settings.variable(name));
    Ok(match &network.kind {
        NetworkKind::Ethernet { card: wanted } => NetworkKind::Ethernet { card: card(wanted)? },
        NetworkKind::Infiniband { card: wanted } => NetworkKind::Infiniband { card: card(wanted)? },
        other => other.clone(),
    })
}

/// `10.6.1.3/16, infiniband, driver mlx5_core, MTU 2044`, for people.
pub fn describe_network(plan: &NetworkPlan) -> String {
    let mut parts = vec![match plan.address {
        Some((address, prefix)) => format!("{address}/{prefix}"),
        None if plan.kind.is_boot_bond() => "address of the boot network".to_owned(),
        None => "no address".to_owned(),
    }];
    parts.push(match &plan.kind {
        NetworkKind::Ethernet { card } | NetworkKind::Infiniband { card } => format!("{}, {card}", plan.kind.as_str()),
        NetworkKind::Bond { members, mode } => format!("bond of {}, {mode}", members.join(" and ")),
        NetworkKind::Vlan { parent, id } => format!("VLAN {id} on {parent}"),
        NetworkKind::Bridge { members } if members.is_empty() => "bridge".to_owned(),
        NetworkKind::Bridge { members } => format!("bridge of {}", members.join(" and ")),
        NetworkKind::Unknown => "of an unknown type".to_owned(),
    });
    parts.extend(plan.mtu.map(|mtu| format!("MTU {mtu}")));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const SITE: &str = "[profile.fast]\n\
        [[network]]\nname = \"left\"\ntype = \"ethernet\"\nmatch = { mac = \"{{ vars.left }}\" }\nprofiles = [\"fast\"]\n\
        [[network]]\nname = \"v5\"\ntype = \"vlan\"\nparent = \"left\"\nid = 5\nprofiles = [\"fast\"]\n\
        node-address = \"10.8.{rack}.{slot}\"\nprefix = 16\n\
        [[network]]\nname = \"ib\"\ntype = \"infiniband\"\nmatch = { driver = \"mlx5_core\" }\nmtu = 2044\n\
        node-address = \"10.6.{rack}.{slot}\"\nprefix = 16\n";

    fn of(profiles: &[&str], settings: serde_json::Value, name: &str) -> (Vec<String>, Vec<String>) {
        let site = testing::cluster(SITE);
        let node = Node {
            name: name.to_owned(),
            profiles: profiles.iter().map(|name| (*name).to_owned()).collect(),
            settings: serde_json::from_value(settings).unwrap(),
            ..testing::node("r01n03")
        };
        let (plans, problems) = networks_of(&site, &node, &Settings::of_node(&site, &node, |_| ()));
        let plans = plans
            .iter()
            .map(|plan| format!("{}: {}", plan.name, describe_network(plan)));
        (plans.collect(), problems)
    }

    #[test]
    fn the_bond_of_the_boot_card_has_the_nodes_address() {
        let kind = NetworkKind::Bond {
            members: vec!["boot".to_owned(), "second".to_owned()],
            mode: "active-backup".to_owned(),
        };
        assert_eq!(
            describe_network(&NetworkPlan::new("bond0", kind)),
            "address of the boot network, bond of boot and second, active-backup"
        );
    }

    #[test]
    fn hosts_are_found_by_their_names() {
        let site = testing::cluster(SITE);
        let fast = Node {
            profiles: vec!["fast".to_owned()],
            ..testing::node("r01n04")
        };
        let inventory = Inventory::new([testing::node("r01n03"), fast.clone()]);
        let of = |name: &str| host_address(&site, &inventory, name);
        assert_eq!(of("r01n03-ib"), Some([10, 6, 1, 3].into()));
        assert_eq!(of("r01n04-v5"), Some([10, 8, 1, 4].into()));
        for none in ["r01n03-v5", "r01n04-left", "r01n05-ib", "r01n03ib", "-ib", "r01n03"] {
            assert_eq!(of(none), None, "{none}");
        }
        let at = |address: [u8; 4]| host_at(&site, &inventory, address.into());
        assert_eq!(at([10, 6, 1, 3]).as_deref(), Some("r01n03-ib"));
        assert_eq!(at([10, 8, 1, 4]).as_deref(), Some("r01n04-v5"));
        // Of a node without the network, of no node, and of no network.
        for none in [[10, 8, 1, 3], [10, 6, 1, 5], [10, 5, 1, 3], [192, 0, 2, 1]] {
            assert_eq!(at(none), None, "{none:?}");
        }
        let hosts: Vec<String> = hosts_of(&site, &fast).into_iter().map(|(name, _)| name).collect();
        assert_eq!(hosts, ["r01n04-v5", "r01n04-ib"]);
    }

    #[test]
    fn a_node_gets_the_networks_of_its_profiles_with_its_own_variables() {
        let none = serde_json::json!({});
        let (plans, problems) = of(&[], none.clone(), "r01n03");
        assert_eq!(plans, ["ib: 10.6.1.3/16, infiniband, driver mlx5_core, MTU 2044"]);
        assert_eq!(problems, [""; 0]);
        let (plans, problems) = of(
            &["fast"],
            serde_json::json!({ "vars.left": "52-54-00-01-01-0A" }),
            "r01n03",
        );
        assert_eq!(plans[0], "left: no address, ethernet, MAC 52:54:00:01:01:0a");
        assert_eq!(plans[1], "v5: 10.8.1.3/16, VLAN 5 on left");
        assert_eq!(problems, [""; 0]);
        let (plans, problems) = of(&["fast"], none.clone(), "r01n03");
        assert_eq!(plans.len(), 1, "{plans:?}");
        assert_eq!(
            problems,
            [
                "network left: vars.left is not defined",
                "network v5: the node does not have left, which it is made of",
            ]
        );
        let (plans, problems) = of(&[], none, "old-name");
        assert_eq!(plans, ["ib: no address, infiniband, driver mlx5_core, MTU 2044"]);
        assert!(problems[0].contains("does not follow a pattern"), "{problems:?}");
    }
}
