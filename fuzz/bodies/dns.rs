//! A packet to the name server, chosen by the fuzzer: its first byte says who asks, and how.

use arc_swap::ArcSwap;
use rackstrap::parts::dns::{Reaction, Transport, View, Views, respond};
use rackstrap_catalog::Catalog;
use rackstrap_model::{
    decide::World,
    inventory::{Inventory, Node},
};
use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, LazyLock},
};

const SITE: &str = r#"[cluster]
domain = "cluster.example"
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24"]
[dns]
forward = ["10.0.0.53"]
[[subnet]]
network = "10.5.0.0/16"
interface = "eth1"
server = "10.5.0.1"
[[subnet]]
network = "10.8.0.64/26"
interface = "eth1"
server = "10.8.0.65"
"#;

static VIEW: LazyLock<Arc<View>> = LazyLock::new(|| {
    let (site, _) = rackstrap_site::parse(SITE, Path::new("site.toml")).unwrap();
    let node = Node {
        name: "r01n03".to_owned(),
        hwaddrs: vec!["52:54:00:00:01:03".parse().unwrap()],
        ipaddr: Ipv4Addr::new(10, 5, 1, 3),
        profiles: Vec::new(),
        groups: Default::default(),
        attributes: Default::default(),
    };
    let world = World {
        site: Arc::new(site),
        inventory: Arc::new(Inventory::new([node])),
        images: Arc::new(Catalog::default()),
        assignments: Arc::default(),
        confirmed: None,
    };
    let views = Views::of(Arc::new(ArcSwap::from_pointee(world)), 1).unwrap().unwrap();
    views.load(|| 1)
});

/// One run; true if the packet was a query.
pub fn run(input: &[u8]) -> bool {
    let Some((&how, packet)) = input.split_first() else {
        return false;
    };
    let client = match how & 1 {
        0 => Ipv4Addr::new(10, 5, 1, 3),
        _ => Ipv4Addr::new(192, 0, 2, 7),
    };
    let (transport, most) = match how & 2 {
        0 => (Transport::Udp, 1232),
        _ => (Transport::Tcp, 65535),
    };
    match respond(&VIEW, client, transport, packet) {
        Reaction::Silence(_) => false,
        Reaction::Reply(bytes, _) => {
            assert!(bytes.len() <= most && bytes[..2] == packet[..2] && bytes[2] & 0x80 != 0);
            // FORMERR and NOTIMP are not for queries.
            !matches!(bytes[3] & 15, 1 | 4)
        }
        Reaction::Forward(relay) => {
            assert_eq!(client, Ipv4Addr::new(10, 5, 1, 3), "passed on for a stranger");
            // The packet as its own answer.
            relay.read(u16::from_be_bytes([packet[0], packet[1]]), packet);
            assert!(relay.query(7).unwrap().len() <= 512);
            true
        }
    }
}
