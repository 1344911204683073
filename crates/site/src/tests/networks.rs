//! `[[network]]`.

use super::*;
use rackstrap_wire::{CardMatch, NetworkKind};

const IB: &str = "[[network]]\nname = \"ib\"\ntype = \"infiniband\"\nmatch = { driver = \"mlx5_core\", port = 1 }\n\
                  node-address = \"10.6.{rack}.{slot}\"\nprefix = 16\n";
/// Two cards, a bond of them, and a VLAN on it; in another order than they are made.
const BOND: &str = "[[network]]\nname = \"v100\"\ntype = \"vlan\"\nparent = \"fast\"\nid = 100\n\
                    node-address = \"10.8.{rack}.{slot}\"\nprefix = 16\n\
                    [[network]]\nname = \"fast\"\ntype = \"bond\"\nmembers = [\"left\", \"right\"]\nmode = \"802.3ad\"\nmtu = 9000\n\
                    node-address = \"10.7.{rack}.{slot}\"\nprefix = 16\n\
                    [[network]]\nname = \"left\"\ntype = \"ethernet\"\nmatch = { driver = \"ixgbe\", port = 1 }\n\
                    [[network]]\nname = \"right\"\ntype = \"ethernet\"\nmatch = { driver = \"ixgbe\", port = 2 }\n";

fn with(lines: &str) -> String {
    format!("{SMALL}\n[profile.gpu]\n[profile.cpu]\n{lines}")
}

#[test]
fn a_network_has_all_that_a_node_needs() {
    let more = "mtu = 2044\nspeed = \"2.5G\"\nrouter = \"10.6.0.1\"\nroutes = [\"10.9.0.0/16 via 10.6.0.2\"]\n\
                dns = [\"10.6.0.3\"]\nsearch = [\"ib.example\"]\nprofiles = [\"gpu\"]\n";
    let site = site(&with(&format!("{IB}{more}")));
    let network = &site.networks[0];
    assert_eq!(network.host_name("r01n03"), "r01n03-ib");
    assert_eq!(network.address_of("r01n03"), Some([10, 6, 1, 3].into()));
    assert_eq!(network.address_of("gpu7"), None);
    assert_eq!(network.node_at([10, 6, 1, 3].into()).as_deref(), Some("r01n03"));
    assert_eq!(network.node_at([10, 5, 1, 3].into()), None);
    assert!(network.applies_to(&["gpu".to_owned()]) && !network.applies_to(&[]));
    let plan = network.plan("r01n03", network.kind.clone());
    let expected = serde_json::json!({
        "name": "ib",
        "kind": { "type": "infiniband", "card": { "driver": "mlx5_core", "port": 1 } },
        "address": ["10.6.1.3", 16],
        "mtu": 2044,
        "router": "10.6.0.1",
        "routes": [{ "to": ["10.9.0.0", 16], "via": "10.6.0.2" }],
        "dns": ["10.6.0.3"],
        "search": ["ib.example"],
        "speed": 2500,
    });
    assert_eq!(serde_json::to_value(plan).unwrap(), expected);
}

#[test]
fn networks_come_after_those_that_they_are_made_of() {
    let site = site(&with(BOND));
    let names: Vec<&str> = site.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(names, ["left", "right", "fast", "v100"]);
    assert_eq!(
        site.networks[0].kind,
        NetworkKind::Ethernet {
            card: CardMatch {
                driver: Some("ixgbe".to_owned()),
                port: Some(1),
                ..CardMatch::default()
            }
        }
    );
    assert_eq!(site.networks[0].address_of("r01n03"), None);
}

#[test]
fn several_patterns_of_names_have_one_address_each() {
    let text = with(IB)
        .replace("[[subnet]]", "[[cluster.naming]]\nnode-name = \"gpu-{n}\"\nnode-address = \"10.5.200.{n+20}\"\nrange = { n = \"0-9\" }\n[[subnet]]")
        .replace("[cluster]", "[cluster]\nrange = { rack = \"1-99\" }")
        .replace("\"10.6.{rack}.{slot}\"", "[\"10.6.{rack}.{slot}\", \"10.6.200.{n+1}\"]");
    let network = &site(&text).networks[0];
    assert_eq!(network.address_of("gpu-0"), Some([10, 6, 200, 1].into()));
    assert_eq!(network.node_at([10, 6, 200, 10].into()).as_deref(), Some("gpu-9"));
    assert_eq!(network.address_of("r02n01"), Some([10, 6, 2, 1].into()));
    let none = text.replace("\"10.6.200.{n+1}\"]", "\"\"]");
    assert_eq!(super::site(&none).networks[0].address_of("gpu-0"), None);
    let one = text.replace(", \"10.6.200.{n+1}\"]", "]");
    assert!(said(&one).contains("'node-address' has 1 patterns, and [cluster] has 2 of names"));
    let clash = text.replace("\"10.6.200.{n+1}\"", "\"10.6.20.{n+1}\"");
    assert!(said(&clash).contains("would both have 10.6.20.1"), "{}", said(&clash));
}

/// A bond of the boot card alone.
const BOOT_BOND: &str =
    "[[network]]\nname = \"bond0\"\ntype = \"bond\"\nmembers = [\"boot\"]\nmode = \"active-backup\"\n";

/// A further VLAN on the boot card or its bond.
fn further_vlan(parent: &str, more: &str) -> String {
    format!(
        "[[network]]\nname = \"v6\"\ntype = \"vlan\"\nparent = \"{parent}\"\nid = 6\n\
         node-address = \"10.8.{{rack}}.{{slot}}\"\nprefix = 16\n{more}"
    )
}

#[test]
fn the_boot_card_and_its_bond_can_have_further_vlans() {
    assert_eq!(said(&with(&further_vlan("boot", ""))), "ok");
    assert_eq!(said(&with(&format!("{BOOT_BOND}{}", further_vlan("bond0", "")))), "ok");
}

#[test]
fn the_boot_card_can_be_in_a_bond_and_a_mode_for_which_the_switch_needs_a_group_is_a_warning() {
    let second = "[[network]]\nname = \"second\"\ntype = \"ethernet\"\nmatch = { driver = \"igb\", port = 2 }\n";
    let of = |mode: &str| {
        let bond = BOOT_BOND.replace("[\"boot\"]", "[\"boot\", \"second\"]");
        with(&format!("{second}{}", bond.replace("active-backup", mode)))
    };
    for mode in ["active-backup", "balance-tlb", "balance-alb"] {
        assert_eq!(said(&of(mode)), "ok");
    }
    for (mode, help) in [
        ("802.3ad", "'lacp fallback'"),
        ("balance-xor", "make a group of the ports"),
    ] {
        let text = said(&of(mode));
        assert!(
            text.contains("the switch must know the bond 'bond0'") && text.contains(help) && text.ends_with("ok"),
            "{text}"
        );
    }
    let networks = site(&of("802.3ad")).networks;
    assert_eq!(networks[1].kind.below(), ["boot", "second"]);
}

#[test]
fn what_is_wrong_is_named_with_what_to_write() {
    let ib = |from: &str, to: &str| with(&IB.replace(from, to));
    let bond = |from: &str, to: &str| with(&BOND.replace(from, to));
    let and = |more: &str| with(&format!("{IB}{more}"));
    for (text, wanted) in [
        (ib("\"ib\"", "\"ib0\""), "is a name that the kernel gives itself"),
        (ib("\"ib\"", "\"Storage\""), "is not the name of a network"),
        (ib("\"ib\"", "\"boot\""), "means the boot network"),
        (
            ib("\"infiniband\"", "\"infinband\""),
            "did you mean type = \"infiniband\"?",
        ),
        (ib("prefix = 16\n", ""), "[[network]] needs 'prefix'"),
        (ib("prefix = 16", "prefix = 31"), "prefix = 31 is out of range"),
        (
            ib("prefix = 16", "prefix = 25"),
            "r01n127-ib would have 10.6.1.127, the first or the last",
        ),
        (
            ib("node-address = \"10.6.{rack}.{slot}\"\n", ""),
            "a network without 'node-address' has no 'prefix'",
        ),
        (ib("10.6.{rack}.{slot}", "10.6.1.{slot}"), "'rack'"),
        (
            ib("10.6.{rack}.{slot}", "10.5.{slot}.{rack}"),
            "rack = 255 has no address",
        ),
        (
            ib("10.6.{rack}", "10.5.{rack}"),
            "the network of r01n01-ib, 10.5.1.1/16, overlaps the subnet 10.5.0.0/16",
        ),
        (
            ib("match = { driver = \"mlx5_core\", port = 1 }\n", ""),
            "[[network]] needs 'match'",
        ),
        (
            ib("driver = \"mlx5_core\", ", ""),
            "'match' has no condition that a card could fulfil",
        ),
        (ib("driver = ", "drivers = "), "did you mean 'driver'?"),
        (
            ib("port = 1", "port = 0"),
            "counts the ports of the cards that fit, from 1",
        ),
        (
            ib("driver = \"mlx5_core\", port = 1", "pci = \"81:0\""),
            "'81:0' is not a PCI address",
        ),
        (
            ib("driver = \"mlx5_core\"", "mac = \"52:54:00:01:01:02\""),
            "one node has a card with the address",
        ),
        (
            ib("driver = \"mlx5_core\", port = 1", "label = \"\""),
            "'' is not the label of a network card",
        ),
        (
            ib("driver = \"mlx5_core\", port = 1", "lable = \"NIC 1\""),
            "did you mean 'label'?",
        ),
        (and("speed = \"10\"\n"), "'10' is not a speed"),
        (and("speed = \"0G\"\n"), "'0G' is not a speed"),
        (and("speed = \"1.55G\"\n"), "'1.55G' is not a speed"),
        (
            and("members = [\"a\"]\n"),
            "a network of type \"infiniband\" has no 'members'",
        ),
        (
            and("router = \"10.7.0.1\"\n"),
            "10.7.0.1 is not in the network of r01n01-ib, 10.6.1.1/16",
        ),
        (
            and("router = \"10.6.1.9\"\n"),
            "the router's address 10.6.1.9 is also that of r01n09-ib",
        ),
        (and("routes = [\"10.8.0.0/16\"]\n"), "'10.8.0.0/16' is not a route"),
        (
            and("routes = [\"0.0.0.0/0 via 10.6.0.1\"]\n"),
            "write router = \"10.6.0.1\"",
        ),
        (
            and("routes = [\"10.8.0.0/16 via 10.9.0.1\"]\n"),
            "10.9.0.1 is not in the network",
        ),
        (and("profiles = [\"gpus\"]\n"), "did you mean \"gpu\"?"),
        (and("profiles = []\n"), "a network for no profile reaches no node"),
        (and(&IB.replace("10.6", "10.7")), "two networks have the name 'ib'"),
        (
            and(&IB.replace("\"ib\"", "\"ib-b\"")),
            "the networks 'ib' and 'ib-b' overlap in 10.6.0.0/16",
        ),
        (
            and(&IB.replace("\"ib\"", "\"ib-b\"").replace("10.6", "10.7")),
            "'ib' and 'ib-b' are for the same card",
        ),
        (with("[network]\nname = \"ib\"\n"), "write [[network]]"),
        (with("[[network]]\n"), "[[network]] needs 'name'"),
        (
            bond("[\"left\", \"right\"]", "[]"),
            "a bond without members carries nothing",
        ),
        (
            bond("[\"left\", \"right\"]", "[\"left\", \"rihgt\"]"),
            "did you mean \"right\"?",
        ),
        (
            bond("[\"left\", \"right\"]", "[\"left\", \"left\"]"),
            "'left' is a member twice",
        ),
        (
            bond("[\"left\", \"right\"]", "[\"left\", \"boot\"]"),
            "'fast' has the boot card, so it is the boot network, and has no 'node-address'",
        ),
        (
            bond("[\"left\", \"right\"]", "[\"left\", \"boot\"]"),
            "and has no 'mtu'",
        ),
        (
            with(&format!(
                "{BOOT_BOND}[[network]]\nname = \"br\"\ntype = \"bridge\"\nmembers = [\"bond0\"]\n"
            )),
            "'bond0' is on the boot card, so only the agent makes it, and it cannot be below 'br'",
        ),
        (
            with(&format!("{BOOT_BOND}{}", further_vlan("bond0", "mtu = 9000\n"))),
            "mtu = 9000 is more than the 1500 of the boot network",
        ),
        (
            with(&further_vlan("boot", "")).replace("[[subnet]]\n", "[[subnet]]\nvlan = 6\n"),
            "VLAN 6 is the boot network 10.5.0.0/16 itself",
        ),
        (with(&format!("{BOOT_BOND}mtu = 9000\n")), "and has no 'mtu'\n"),
        (
            with(&format!("{BOOT_BOND}{}", BOOT_BOND.replace("bond0", "bond1"))),
            "the boot card is a member of 'bond0' and of 'bond1'",
        ),
        (
            with("[[network]]\nname = \"br\"\ntype = \"bridge\"\nmembers = [\"boot\"]\n"),
            "the boot card cannot be in a bridge",
        ),
        (bond("802.3ad", "lacp"), "did you mean mode = \"802.3ad\"?"),
        (bond("802.3ad", "1"), "did you mean mode = \"active-backup\"?"),
        (
            bond("[\"left\", \"right\"]", "[\"v100\"]"),
            "the networks 'v100', 'fast' are made of each other",
        ),
        (
            bond("\"fast\"\nid", "\"v100\"\nid"),
            "the networks 'v100' are made of each other",
        ),
        (bond("\"fast\"\nid", "\"fats\"\nid"), "did you mean \"fast\"?"),
        (bond("id = 100", "id = 4095"), "id = 4095 is out of range"),
        (
            bond("id = 100", "id = 100\nmtu = 9100"),
            "mtu = 9100 is more than the 9000 of 'fast' below it",
        ),
        (
            bond("mode = \"802.3ad\"", "mode = \"802.3ad\"\nprofiles = [\"gpu\"]"),
            "nodes may have the network 'v100' without 'fast'",
        ),
        (
            bond("\"left\"\ntype", "\"left\"\nmtu = 1500\ntype"),
            "'left' has mtu = 1500, and 'fast', whose member it is, 9000",
        ),
        (
            bond(
                "port = 1 }",
                "port = 1 }\nnode-address = \"10.9.{rack}.{slot}\"\nprefix = 16",
            ),
            "'left' is a member of 'fast', and has addresses of its own",
        ),
        (
            with(&format!(
                "{BOND}[[network]]\nname = \"br\"\ntype = \"bridge\"\nmembers = [\"left\"]\n"
            )),
            "'left' is a member of 'fast' and of 'br'",
        ),
        (
            with("[[network]]\nname = \"left\"\ntype = \"ethernet\"\nmatch = { name = \"eno2\" }\n"),
            "the network 'left' has no addresses, and no other network is made of it",
        ),
        (
            with(IB) + "[[network]]\nname = \"x\"\ntype = \"vlan\"\nparent = \"ib\"\nid = 5\n",
            "carries partitions and no VLANs",
        ),
    ] {
        let said = said(&text);
        assert!(said.contains(wanted), "{wanted:?} is not in: {said}\nof: {text}");
    }
}

#[test]
fn hostile_lists_are_bounded() {
    let many: String = (0..40)
        .map(|n| {
            IB.replace("\"ib\"", &format!("\"n{n}x\""))
                .replace("10.6", &format!("10.{}", n + 10))
        })
        .collect();
    assert!(said(&with(&many)).contains("there are 40 networks, at most 32"));
    let members: Vec<String> = (0..20).map(|n| format!("\"m{n}x\"")).collect();
    let text = BOND.replace("\"left\", \"right\"", &members.join(", "));
    assert!(said(&with(&text)).contains("there are 20 entries in 'members', at most 16"));
}

/// The blocks of TOML of a page.
fn blocks(page: &str) -> Vec<String> {
    let fenced = page.split("```toml\n").skip(1);
    let all = fenced.map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
    all.collect()
}

#[test]
fn the_examples_of_the_documents_are_valid() {
    let guide = blocks(include_str!("../../../../docs/how-to/networks.md"));
    let sections: Vec<&String> = guide.iter().filter(|block| block.contains("[[network]]")).collect();
    assert_eq!(sections.len(), 2, "InfiniBand, and a bond with a VLAN");
    for section in &sections {
        assert_eq!(said(&with(section)), said(&with("")), "{section}");
    }
    let both: String = sections.iter().map(|section| section.as_str()).collect();
    assert_eq!(site(&with(&both)).networks.len(), 5);
    let conditions: Vec<&String> = guide.iter().filter(|block| block.starts_with("match = ")).collect();
    assert!(!conditions.is_empty());
    for condition in conditions {
        let card = IB.replace("match = { driver = \"mlx5_core\", port = 1 }\n", condition);
        site(&with(&card.replace("infiniband", "ethernet")));
    }
    let reference = blocks(include_str!("../../../../docs/reference/site-file.md"));
    let of_networks: Vec<&String> = reference.iter().filter(|block| block.contains("[[network]]")).collect();
    assert_eq!(of_networks.len(), 1);
    site(&with(of_networks[0]));
}
