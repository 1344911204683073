//! Tests of inventory changes: what is refused, in which words, and what the next packet sees.

use super::*;
use crate::{
    config::{Site, parse},
    decide::{Decision, Requester, SharedWorld, World, decide},
    image::Catalog,
    store::{Store, Table},
};
use arc_swap::ArcSwap;
use proptest::prelude::*;
use rackstrap_wire::HwAddr;
use std::{path::Path, sync::Arc};

const SITE: &str = r#"
[cluster]
node-name = "r{rack:02}n{slot:02}"
node-address = "10.{rack}.0.{slot}"
reserved = ["10.3.0.0/24", "10.1.0.0/29", "10.1.0.192/27"]

[[subnet]]
network = "10.1.0.0/24"
interface = "eth1"
server = "10.1.0.1"
router = "10.1.0.2"
pool = "10.1.0.200-10.1.0.220"

[[subnet]]
network = "10.3.0.0/24"
relayed = true
server = "10.3.0.1"

[profile.default]
[profile.gpu]
"#;

fn site() -> Site {
    let mut site = parse(SITE, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}")).0;
    // A checked site reserves what the daemon, the router and the pool have; a node is refused there even so.
    site.cluster.reserved.truncate(1);
    site
}

fn mac(text: &str) -> HwAddr {
    text.parse().unwrap()
}

fn new(name: &str, hwaddrs: &[&str]) -> NewNode {
    NewNode {
        name: name.into(),
        hwaddrs: hwaddrs.iter().map(|text| mac(text)).collect(),
        profile: None,
    }
}

fn world() -> SharedWorld {
    Arc::new(ArcSwap::from_pointee(World {
        site: Arc::new(site()),
        inventory: Arc::new(Inventory::default()),
        images: Arc::new(Catalog::default()),
    }))
}

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.redb")).unwrap();
    (dir, store)
}

#[test]
fn what_is_refused_says_why_and_what_to_do() {
    let one = check_add(&Inventory::default(), &site(), &new("r01n10", &["52:54:00:01:01:01"])).unwrap();
    assert_eq!(one.ipaddr, std::net::Ipv4Addr::new(10, 1, 0, 10));
    assert_eq!(one.profile, "default");
    let inventory = Inventory::new([one]);
    let said = |new: &NewNode| check_add(&inventory, &site(), new).unwrap_err().to_string();
    let other = "52:54:00:00:00:99";
    assert_eq!(
        said(&new("r01n07", &["52:54:00:01:01:01"])),
        "node r01n07: hwaddr 52:54:00:01:01:01 already belongs to r01n10; to move it: rackstrap node delete r01n10, then \
         rackstrap node add r01n07 --hwaddr 52:54:00:01:01:01"
    );
    assert!(
        said(&new("r01n10", &[other])).starts_with("node r01n10 exists already, with hwaddr 52:54:00:01:01:01; to")
    );
    let name = said(&new("rack1", &[other]));
    assert!(
        name.contains("rack1") && name.contains("r{rack:02}n{slot:02}"),
        "{name}"
    );
    assert!(said(&new("r01n11", &[])).contains("add --hwaddr"));
    assert!(said(&new("r01n11", &["01:00:5e:00:00:01"])).contains("is a multicast address, which no network card has"));
    assert!(said(&new("r01n11", &["ff:ff:ff:ff:ff:ff"])).contains("is the broadcast address"));
    assert!(said(&new("r01n11", &["00:00:00:00:00:00"])).contains("is all zeros"));
    assert!(said(&new("r01n11", &[other, "52-54-00-00-00-99"])).contains("is named twice"));
    let many: Vec<String> = (0..9).map(|i| format!("52:54:00:00:00:0{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(said(&new("r01n11", &many)).contains("9 hardware addresses; a node has at most 8"));
    let address = |name: &str| said(&new(name, &[other]));
    assert_eq!(
        address("r01n01"),
        "node r01n01: its address would be 10.1.0.1, which is the daemon's own; choose another position"
    );
    assert!(address("r01n02").contains("10.1.0.2, which is the router's"));
    assert!(address("r01n210").contains("in the temporary pool (10.1.0.200 to 10.1.0.220)"));
    assert!(address("r03n05").contains("in the reserved network 10.3.0.0/24"));
    assert!(address("r02n05").contains("in none of the site's networks (10.1.0.0/24, 10.3.0.0/24)"));
    let profile = |name: &str| {
        said(&NewNode {
            profile: Some(name.into()),
            ..new("r01n11", &[other])
        })
    };
    assert!(profile("gpus").ends_with("there is no profile 'gpus'; did you mean 'gpu'?"));
    assert!(profile("storage").ends_with("there is no profile 'storage'; the site file has: default, gpu"));
    let found = |name: &str| find(&inventory, name).unwrap_err().to_string();
    assert_eq!(found("r01n1"), "there is no node 'r01n1'; did you mean r01n10?");
    assert_eq!(found("x"), "there is no node 'x'; to see all: rackstrap node list");
}

#[test]
fn the_next_packet_sees_a_change_and_so_does_the_next_start() {
    let (dir, store) = open();
    let world = world();
    let nodes = Nodes::new(store.clone(), world.clone());
    let hwaddr = mac("52:54:00:01:01:01");
    let known = || {
        let requester = Requester {
            hwaddr: Some(hwaddr),
            ..Requester::default()
        };
        match decide(&world.load(), &requester) {
            Decision::Node(decided) => Some(decided.node.name.clone()),
            Decision::Unknown { .. } => None,
        }
    };
    assert_eq!(known(), None);
    nodes.add(&new("r01n10", &["52:54:00:01:01:01"])).unwrap();
    assert_eq!(known().as_deref(), Some("r01n10"));
    nodes.add(&new("r01n11", &["52:54:00:01:01:02"])).unwrap();
    store.secret("r01n10", "ssh", || 1).unwrap();
    store.secret("r01n11", "ssh", || 2).unwrap();
    nodes.delete("r01n10").unwrap();
    assert_eq!(known(), None);
    assert!(matches!(
        nodes.delete("r01n10"),
        Err(ChangeError::Refused(InventoryError::Unknown { .. }))
    ));
    let secrets = store.scan::<u32>(Table::Secrets, b"").unwrap();
    assert_eq!(
        secrets,
        [(b"r01n11/ssh".to_vec(), 2)],
        "only the deleted node's are gone"
    );
    drop((nodes, store));
    let store = Store::open(&dir.path().join("store.redb")).unwrap();
    let names: Vec<String> = load(&store).unwrap().into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["r01n11"]);
}

#[test]
fn two_racks_racked_at_once_do_not_collide() {
    let (_dir, store) = open();
    let world = world();
    let nodes = Nodes::new(store.clone(), world.clone());
    let won: usize = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..16u8)
            .map(|i| {
                let nodes = nodes.clone();
                // Everybody wants one of four names, with one of eight cards.
                let wanted = new(&format!("r01n1{}", i % 4), &[&format!("52:54:00:00:00:0{}", i % 8)]);
                scope.spawn(move || nodes.add(&wanted).is_ok())
            })
            .collect();
        tasks.into_iter().map(|task| usize::from(task.join().unwrap())).sum()
    });
    assert_eq!(won, 4);
    let stored = load(&store).unwrap();
    assert_eq!(stored.len(), 4);
    assert_eq!(world.load().inventory.len(), 4);
}

proptest! {
    /// Whatever is asked for in whatever order: names, addresses and cards stay unique.
    #[test]
    fn an_inventory_never_has_duplicates(
        wanted in prop::collection::vec((1u8..4, 1u8..12, prop::collection::vec(0u8..12, 0..4)), 0..40)
    ) {
        let site = site();
        let mut nodes: Vec<Node> = Vec::new();
        for (rack, slot, cards) in wanted {
            let hwaddrs = cards.iter().map(|card| HwAddr([0x52, 0x54, 0, 0, 0, *card])).collect();
            let wanted = NewNode { name: format!("r{rack:02}n{slot:02}"), hwaddrs, profile: None };
            if let Ok(node) = check_add(&Inventory::new(nodes.clone()), &site, &wanted) {
                prop_assert_eq!(site.cluster.naming.address_to_name(node.ipaddr), Some(node.name.clone()));
                nodes.push(node);
            }
        }
        let mut cards: Vec<HwAddr> = nodes.iter().flat_map(|node| node.hwaddrs.clone()).collect();
        let (all, inventory) = (cards.len(), Inventory::new(nodes.clone()));
        cards.sort();
        cards.dedup();
        prop_assert_eq!(cards.len(), all);
        prop_assert_eq!(inventory.len(), nodes.len());
        for node in &nodes {
            prop_assert_eq!(&inventory.by_ipaddr(node.ipaddr).unwrap().name, &node.name);
        }
    }
}
