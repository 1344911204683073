//! Tests of the zones' content. The tests in the folder have the packets.

mod forwarding;
mod packets;

use super::*;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::A},
};
use ipnet::Ipv4Net;
use std::{
    borrow::Cow,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, LazyLock},
};

/// A /16 with nodes, a /24 and a /22 of other networks, and two small subnets that share a zone with networks of other
/// owners.
const SUBNETS: [(&str, &str); 5] = [
    ("10.5.0.0/16", "10.5.0.1"),
    ("10.6.7.0/24", "10.6.7.1"),
    ("10.7.4.0/22", "10.7.4.1"),
    ("10.8.0.64/26", "10.8.0.65"),
    ("10.8.0.128/26", "10.8.0.129"),
];
const NODE: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 3);
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// A second in November 2026.
const NOW: u32 = 1_795_000_000;

/// r01n03 and r12n254. The first one has addresses in two further networks, 10.6.16.0/20 and 10.8.0.192/26.
#[derive(Debug)]
struct Racks;

const FURTHER: [(&str, Ipv4Addr, u8); 2] = [
    ("r01n03-ib", Ipv4Addr::new(10, 6, 17, 3), 20),
    ("r01n03-small", Ipv4Addr::new(10, 8, 0, 200), 26),
];

const RACKS: [(&str, Ipv4Addr); 2] = [("r01n03", NODE), ("r12n254", Ipv4Addr::new(10, 5, 12, 254))];

impl Nodes for Racks {
    fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        let node = RACKS.iter().find(|(known, _)| *known == name);
        node.map(|(_, address)| *address)
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<Cow<'_, str>> {
        let further = FURTHER.iter().map(|(name, known, _)| (*name, *known));
        let node = RACKS.into_iter().chain(further).find(|(_, known)| *known == address);
        node.map(|(name, _)| Cow::Borrowed(name))
    }

    fn network_in(&self, within: Ipv4Net) -> Option<Ipv4Net> {
        let networks = FURTHER.map(|(_, address, prefix)| Ipv4Net::new(address, prefix).unwrap().trunc());
        networks
            .into_iter()
            .find(|network| network.contains(&within) || within.contains(network))
    }
}

impl Views for Arc<View> {
    fn view(&self) -> Arc<View> {
        self.clone()
    }
}

/// The site, with these subnets besides its own.
fn site(forward: &[SocketAddrV4], more: &[(&str, &str)]) -> Arc<View> {
    let subnets = SUBNETS.iter().chain(more);
    let subnets = subnets.map(|(network, server)| (network.parse::<Ipv4Net>().unwrap(), server.parse().unwrap()));
    Arc::new(View {
        zones: Zones::new("cluster.example", "rackstrap", subnets, forward).unwrap(),
        nodes: Arc::new(Racks),
        serial: NOW,
    })
}

fn forwarders() -> [SocketAddrV4; 1] {
    [SocketAddrV4::new([10, 0, 0, 53].into(), 53)]
}

fn view() -> Arc<View> {
    static VIEW: LazyLock<Arc<View>> = LazyLock::new(|| site(&forwarders(), &[]));
    VIEW.clone()
}

fn without_forwarders() -> Arc<View> {
    site(&[], &[])
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

/// The answer to a question that `client` sent by UDP, and how it ended.
fn asked(view: &View, client: Ipv4Addr, query: &Message) -> (Message, Outcome) {
    match respond(view, client, Transport::Udp, &query.to_vec().unwrap()) {
        Reaction::Reply(bytes, outcome) => {
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.metadata.id, query.metadata.id);
            assert_eq!(reply.metadata.message_type, MessageType::Response);
            (reply, outcome)
        }
        other => panic!("{other:?}"),
    }
}

/// `NoError aa: name ttl type data; …`: the answer to a question that a node sent by UDP.
fn say(name: &str, kind: RecordType) -> String {
    let (reply, _) = asked(&view(), NODE, &query(name, kind));
    let list = |all: &[Record]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut text = format!("{:?}", reply.metadata.response_code);
    if reply.metadata.authoritative {
        text += " aa";
    }
    for (title, records) in [
        ("", &reply.answers),
        ("authority ", &reply.authorities),
        ("additional ", &reply.additionals),
    ] {
        if !records.is_empty() {
            text += &format!(": {title}{}", list(records));
        }
    }
    text
}

const SOA: &str = "5 IN SOA rackstrap.cluster.example. hostmaster.cluster.example. 1795000000 3600 600 1209600 5";

#[test]
fn nodes_and_the_server_have_addresses() {
    assert_eq!(
        say("r01n03.cluster.example.", RecordType::A),
        "NoError aa: r01n03.cluster.example. 60 IN A 10.5.1.3"
    );
    // Names are case-insensitive, and are returned as they were asked: resolvers check this (0x20).
    assert_eq!(
        say("R12N254.Cluster.EXAMPLE.", RecordType::A),
        "NoError aa: R12N254.Cluster.EXAMPLE. 60 IN A 10.5.12.254"
    );
    assert_eq!(
        say("r01n03.cluster.example.", RecordType::ANY),
        "NoError aa: r01n03.cluster.example. 60 IN A 10.5.1.3"
    );
    let all = say("RackStrap.cluster.example.", RecordType::A);
    assert!(
        all.starts_with("NoError aa: RackStrap.cluster.example. 60 IN A 10.5.0.1; "),
        "{all}"
    );
    assert_eq!(all.matches(" A ").count(), 5, "{all}");
    // A client behind another interface gets the address in its network first.
    let (reply, _) = asked(
        &view(),
        [10, 8, 0, 130].into(),
        &query("rackstrap.cluster.example.", RecordType::A),
    );
    assert_eq!(
        reply.answers.first().map(|r| &r.data),
        Some(&RData::A(A([10, 8, 0, 129].into())))
    );
    assert_eq!(reply.answers.len(), 5);
}

#[test]
fn addresses_have_names() {
    assert_eq!(
        say("3.1.5.10.in-addr.arpa.", RecordType::PTR),
        "NoError aa: 3.1.5.10.in-addr.arpa. 60 IN PTR r01n03.cluster.example."
    );
    assert_eq!(
        say("1.0.5.10.IN-ADDR.arpa.", RecordType::PTR),
        "NoError aa: 1.0.5.10.IN-ADDR.arpa. 60 IN PTR rackstrap.cluster.example."
    );
    assert_eq!(
        say("129.0.8.10.in-addr.arpa.", RecordType::PTR),
        "NoError aa: 129.0.8.10.in-addr.arpa. 60 IN PTR rackstrap.cluster.example."
    );
}

#[test]
fn missing_names_are_denied_with_the_zones_soa() {
    let no_data = |zone: &str| format!("NoError aa: authority {zone} {SOA}");
    let no_name = |zone: &str| format!("NXDomain aa: authority {zone} {SOA}");
    let (domain, racks) = ("cluster.example.", "5.10.in-addr.arpa.");
    for (name, kind, said) in [
        ("r01n03.cluster.example.", RecordType::AAAA, no_data(domain)),
        ("rackstrap.cluster.example.", RecordType::MX, no_data(domain)),
        ("cluster.example.", RecordType::A, no_data(domain)),
        ("r01n04.cluster.example.", RecordType::A, no_name(domain)),
        ("r01n04.cluster.example.", RecordType::AAAA, no_name(domain)),
        ("www.r01n03.cluster.example.", RecordType::A, no_name(domain)),
        // An unknown machine's address in the pool has no name.
        ("9.255.5.10.in-addr.arpa.", RecordType::PTR, no_name(racks)),
        ("3.1.5.10.in-addr.arpa.", RecordType::A, no_data(racks)),
        ("x.3.1.5.10.in-addr.arpa.", RecordType::PTR, no_name(racks)),
        ("256.1.5.10.in-addr.arpa.", RecordType::PTR, no_name(racks)),
        ("03.1.5.10.in-addr.arpa.", RecordType::PTR, no_name(racks)),
        // Names between a zone and its addresses exist, although they have no records (RFC 8020).
        ("1.5.10.in-addr.arpa.", RecordType::PTR, no_data(racks)),
        ("5.10.in-addr.arpa.", RecordType::PTR, no_data(racks)),
        (
            "9.7.6.10.in-addr.arpa.",
            RecordType::PTR,
            no_name("7.6.10.in-addr.arpa."),
        ),
        (
            "9.5.7.10.in-addr.arpa.",
            RecordType::PTR,
            no_name("5.7.10.in-addr.arpa."),
        ),
        (
            "66.0.8.10.in-addr.arpa.",
            RecordType::PTR,
            no_name("0.8.10.in-addr.arpa."),
        ),
        ("0.8.10.in-addr.arpa.", RecordType::TXT, no_data("0.8.10.in-addr.arpa.")),
    ] {
        assert_eq!(say(name, kind), said, "{name} {kind}");
    }
}

#[test]
fn zones_have_soa_and_name_servers() {
    let zones = [
        "cluster.example.",
        "5.10.in-addr.arpa.",
        "7.6.10.in-addr.arpa.",
        "4.7.10.in-addr.arpa.",
        "7.7.10.in-addr.arpa.",
        "0.8.10.in-addr.arpa.",
    ];
    for zone in zones {
        assert_eq!(
            say(zone, RecordType::SOA),
            format!("NoError aa: {zone} {}", SOA.replacen('5', "60", 1))
        );
        let said = say(zone, RecordType::NS);
        let start = format!(
            "NoError aa: {zone} 60 IN NS rackstrap.cluster.example.: additional rackstrap.cluster.example. 60 IN A 10.5.0.1; "
        );
        assert!(said.starts_with(&start), "{said}");
    }
}

#[test]
fn addresses_in_further_networks_have_names() {
    let ptr = |name: &str| say(name, RecordType::PTR);
    assert_eq!(
        ptr("3.17.6.10.in-addr.arpa."),
        "NoError aa: 3.17.6.10.in-addr.arpa. 60 IN PTR r01n03-ib.cluster.example."
    );
    assert_eq!(
        ptr("200.0.8.10.in-addr.arpa."),
        "NoError aa: 200.0.8.10.in-addr.arpa. 60 IN PTR r01n03-small.cluster.example."
    );
    // An address without a node, in a zone that also has one of the subnets, and one of a network of 20 bits, of which each third octet is a zone.
    for (name, zone) in [
        ("201.0.8.10.in-addr.arpa.", "0.8.10.in-addr.arpa."),
        ("4.17.6.10.in-addr.arpa.", "17.6.10.in-addr.arpa."),
        ("3.31.6.10.in-addr.arpa.", "31.6.10.in-addr.arpa."),
    ] {
        let said = ptr(name);
        assert!(
            said.starts_with(&format!("NXDomain aa: authority {zone} ")),
            "{name}: {said}"
        );
        assert!(say(zone, RecordType::SOA).starts_with(&format!("NoError aa: {zone} 60 IN SOA ")));
    }
}

#[test]
fn other_names_are_forwarded_for_machines_of_the_site_only() {
    let view = view();
    let elsewhere = [
        "www.example.",
        "example.",
        "notcluster.example.",
        ".",
        "10.in-addr.arpa.",
        "in-addr.arpa.",
        "7.10.in-addr.arpa.",
        "8.7.10.in-addr.arpa.",
        "1.2.0.192.in-addr.arpa.",
        // In the zone that two of the subnets share with networks of other owners.
        "63.0.8.10.in-addr.arpa.",
        "3.0.8.10.in-addr.arpa.",
        // Next to a further network of nodes, and above it.
        "3.32.6.10.in-addr.arpa.",
        "6.10.in-addr.arpa.",
    ];
    for name in elsewhere {
        let query = query(name, RecordType::PTR);
        let reaction = respond(&view, NODE, Transport::Udp, &query.to_vec().unwrap());
        assert!(matches!(reaction, Reaction::Forward(_)), "{name}: {reaction:?}");
        let (reply, outcome) = asked(&view, FOREIGN, &query);
        assert_eq!(
            (reply.metadata.response_code, outcome),
            (ResponseCode::Refused, Outcome::RefusedForeign)
        );
        assert!(!reply.metadata.recursion_available);
        let (reply, outcome) = asked(&without_forwarders(), NODE, &query);
        assert_eq!(
            (reply.metadata.response_code, outcome),
            (ResponseCode::Refused, Outcome::RefusedName)
        );
    }
    // The zones are answered for all clients.
    let (reply, outcome) = asked(&view, FOREIGN, &query("r01n03.cluster.example.", RecordType::A));
    assert_eq!((reply.answers.len(), outcome), (1, Outcome::Answered));
    let (reply, _) = asked(&view, NODE, &query("r01n03.cluster.example.", RecordType::A));
    assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);

    let mut iterative = query("www.example.", RecordType::A);
    iterative.metadata.recursion_desired = false;
    assert_eq!(asked(&view, NODE, &iterative).1, Outcome::RefusedName);
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(asked(&view, NODE, &chaos).1, Outcome::RefusedName);
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(
            asked(&view, NODE, &query("cluster.example.", kind)).1,
            Outcome::RefusedName
        );
    }
}
