//! A packet to the name server, chosen by the fuzzer: its first byte says who asks, and how.

use ipnet::Ipv4Net;
use rackstrap_dns::{Nodes, Reaction, Transport, View, Zones, respond};
use std::{
    borrow::Cow,
    net::Ipv4Addr,
    sync::{Arc, LazyLock},
};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 3);

/// r01n03.
#[derive(Debug)]
struct OneNode;

impl Nodes for OneNode {
    fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        (name == "r01n03").then_some(NODE)
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<Cow<'_, str>> {
        (address == NODE).then_some(Cow::Borrowed("r01n03"))
    }

    fn network_in(&self, within: Ipv4Net) -> Option<Ipv4Net> {
        let network = Ipv4Net::new([10, 6, 16, 0].into(), 20).ok()?;
        (network.contains(&within) || within.contains(&network)).then_some(network)
    }
}

static VIEW: LazyLock<View> = LazyLock::new(|| {
    let subnets = [("10.5.0.0/16", [10, 5, 0, 1]), ("10.8.0.64/26", [10, 8, 0, 65])];
    let subnets = subnets.map(|(network, server)| (network.parse().unwrap(), server.into()));
    let forward = ["10.0.0.53:53".parse().unwrap()];
    View {
        zones: Zones::new("cluster.example", "rackstrap", subnets, &forward).unwrap(),
        nodes: Arc::new(OneNode),
        serial: 1,
    }
});

/// One run; true if the packet was a query.
pub fn run(input: &[u8]) -> bool {
    let Some((&how, packet)) = input.split_first() else {
        return false;
    };
    let client = match how & 1 {
        0 => NODE,
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
            assert_eq!(client, NODE, "passed on for a stranger");
            // The packet as its own answer.
            relay.read(u16::from_be_bytes([packet[0], packet[1]]), packet);
            assert!(relay.query(7).unwrap().len() <= 512);
            true
        }
    }
}
