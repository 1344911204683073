//! Tests of the name server's view of the world, and of the name server that nodes use.

use super::*;
use rackstrap_catalog::Catalog;
use rackstrap_dns::{Outcome, Reaction, Transport, respond};
use rackstrap_model::decide::{Decision, Requester, World, decide};
use rackstrap_registries::testing::{self, node};

const SITE: &str = r#"[cluster]
domain = "cluster.example"
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24", "10.5.255.0/24"]
[dns]
forward = ["10.0.0.53"]
"#;
const SUBNET: &str = "[[subnet]]\nnetwork = \"10.5.0.0/16\"\ninterface = \"eth1\"\nserver = \"10.5.0.1\"\n";
const NODE: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 3);
/// A second in November 2026.
const NOW: u32 = 1_795_000_000;

fn site(text: &str) -> Site {
    testing::site(&format!("{text}{SUBNET}"))
}

fn world(text: &str) -> SharedWorld {
    testing::world(site(text))
        .nodes(["r01n03", "r12n254"].map(node))
        .shared()
}

/// The outcome of a node's question for the address of `name` (RFC 1035 section 4.1).
fn asked(view: &View, name: &str) -> Outcome {
    let mut packet = vec![0x12, 0x67, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 1, 0, 1]);
    match respond(view, NODE, Transport::Udp, &packet) {
        Reaction::Reply(_, outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_applies_to_the_next_query_and_increases_the_serial_number() {
    let world = world(SITE);
    let views = Views::since(world.clone(), NOW).unwrap().unwrap();
    let first = views.load(|| panic!("nothing changed"));
    assert_eq!(first.serial, NOW);
    let name = "r02n01.cluster.example.";
    assert_eq!(asked(&first, name), Outcome::NoName);

    let inventory = Arc::new(Inventory::new([node("r02n01")]));
    world.rcu(|world| World {
        inventory: inventory.clone(),
        ..World::clone(world)
    });
    let second = views.load(|| NOW);
    assert_eq!(second.serial, NOW + 1, "larger also within the same second");
    assert_eq!(asked(&second, name), Outcome::Answered);
    assert_eq!(asked(&second, "r01n03.cluster.example."), Outcome::NoName);

    // Images change without a change of the zones.
    world.rcu(|world| World {
        images: Arc::new(Catalog::default()),
        assignments: Arc::default(),
        ..World::clone(world)
    });
    assert!(Arc::ptr_eq(&second, &views.load(|| panic!("nothing changed"))));

    let renamed = Arc::new(site(
        &SITE
            .replace("[dns]", "[dns]\nname = \"boot\"")
            .replace("10.0.0.53", "10.0.0.54"),
    ));
    world.rcu(|world| World {
        site: renamed.clone(),
        ..World::clone(world)
    });
    let third = views.load(|| NOW + 60);
    assert_eq!(
        (third.serial, third.zones.forward[0].to_string()),
        (NOW + 60, "10.0.0.54:53".to_owned())
    );
    assert_eq!(asked(&third, "boot.cluster.example."), Outcome::Answered);
    assert_eq!(asked(&third, "rackstrap.cluster.example."), Outcome::NoName);
}

#[test]
fn names_in_further_networks_are_answered_for_nodes_that_exist() {
    let network = "[[network]]\nname = \"ib\"\ntype = \"infiniband\"\nmatch = { driver = \"mlx5_core\" }\n\
                   node-address = \"10.6.{rack}.{slot}\"\nprefix = 16\n";
    let views = Views::since(world(&format!("{SITE}{network}")), NOW).unwrap().unwrap();
    let view = views.load(|| NOW);
    assert_eq!(view.nodes.address_of("r01n03-ib"), Some([10, 6, 1, 3].into()));
    assert_eq!(asked(&view, "r01n03-ib.cluster.example."), Outcome::Answered);
    assert_eq!(asked(&view, "r01n04-ib.cluster.example."), Outcome::NoName);
    assert_eq!(asked(&view, "r01n03-ibx.cluster.example."), Outcome::NoName);
    let name = |address: [u8; 4]| view.nodes.name_of(address.into());
    assert_eq!(name([10, 6, 1, 3]).as_deref(), Some("r01n03-ib"));
    assert_eq!(name([10, 5, 1, 3]).as_deref(), Some("r01n03"));
    assert_eq!(name([10, 6, 1, 4]), None);
    let within = |network: &str| {
        view.nodes
            .network_in(network.parse().unwrap())
            .map(|net| net.to_string())
    };
    assert_eq!(within("10.6.1.3/32").as_deref(), Some("10.6.0.0/16"));
    assert_eq!(within("10.0.0.0/8").as_deref(), Some("10.6.0.0/16"));
    assert_eq!(within("10.7.0.0/16"), None);
}

/// DHCP's options, the plan's network and the node's resolv.conf all come from this subnet.
#[test]
fn nodes_use_the_dns_server_of_their_subnet() {
    let told = |text: &str| {
        let requester = Requester {
            ipaddr: Some(NODE),
            ..Requester::default()
        };
        match decide(&world(text).load(), &requester) {
            Decision::Node(node) => node.subnet.dns,
            Decision::Unknown { why, .. } => panic!("{why:?}"),
        }
    };
    assert_eq!(told(SITE), [Ipv4Addr::new(10, 5, 0, 1)]);
    assert_eq!(
        told(&SITE.replace("[dns]\nforward = [\"10.0.0.53\"]\n", "")),
        [] as [Ipv4Addr; 0]
    );
}

#[test]
fn a_site_without_the_section_has_no_name_server() {
    let text = SITE.replace("[dns]\nforward = [\"10.0.0.53\"]\n", "");
    assert!(Views::since(world(&text), NOW).unwrap().is_none());
}
