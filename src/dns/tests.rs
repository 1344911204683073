use super::{engine::MAX_UDP, relay::Verdict, *};
use crate::{
    config::{self, Site},
    decide::{SharedWorld, World},
    image::Catalog,
    inventory::{Inventory, Node},
};
use arc_swap::ArcSwap;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::A},
};
use proptest::prelude::*;
use std::{net::Ipv4Addr, path::Path, sync::Arc};

/// A /16 with nodes, a /24 and a /22 of other networks, and two small ones that share a zone with somebody else.
const SITE: &str = r#"[cluster]
domain = "cluster.example"
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24", "10.5.255.0/24"]
[dns]
forward = ["10.0.0.53"]
"#;
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

fn site(text: &str) -> Site {
    let subnets: String = SUBNETS
        .iter()
        .map(|(net, server)| format!("[[subnet]]\nnetwork = \"{net}\"\ninterface = \"eth1\"\nserver = \"{server}\"\n"))
        .collect();
    config::parse(&format!("{text}{subnets}"), Path::new("site.toml"))
        .unwrap_or_else(|e| panic!("{e}"))
        .0
}

fn node(name: &str, ipaddr: [u8; 4]) -> Node {
    Node {
        name: name.to_owned(),
        hwaddrs: vec![
            format!("52:54:00:00:{:02x}:{:02x}", ipaddr[2], ipaddr[3])
                .parse()
                .unwrap(),
        ],
        ipaddr: ipaddr.into(),
        profiles: Vec::new(),
        groups: Default::default(),
    }
}

fn world(text: &str) -> SharedWorld {
    let nodes = [node("r01n03", [10, 5, 1, 3]), node("r12n254", [10, 5, 12, 254])];
    Arc::new(ArcSwap::from_pointee(World {
        site: Arc::new(site(text)),
        inventory: Arc::new(Inventory::new(nodes)),
        images: Arc::new(Catalog::default()),
    }))
}

fn view() -> Arc<View> {
    Views::of(world(SITE), NOW).unwrap().unwrap().load(|| NOW)
}

fn without_forwarders() -> Arc<View> {
    let text = SITE.replace("forward = [\"10.0.0.53\"]", "");
    Views::of(world(&text), NOW).unwrap().unwrap().load(|| NOW)
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

/// The answer to a question of `client` by UDP, and how it ended.
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

/// `NoError aa: name ttl type data; …`, what a question of a node by UDP is answered.
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

const SOA: &str = "5 IN SOA rackstrap.cluster.example. hostmaster.cluster.example. 1795000000 3600 600 86400 5";

#[test]
fn nodes_and_the_server_have_addresses() {
    assert_eq!(
        say("r01n03.cluster.example.", RecordType::A),
        "NoError aa: r01n03.cluster.example. 60 IN A 10.5.1.3"
    );
    // Names are the same in every case, and come back as they were asked: resolvers check it (0x20).
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
    // A client behind another card gets the address there first.
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
fn what_is_not_there_is_denied_with_the_zones_soa() {
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
        // Names between a zone and its addresses are there, although they have nothing (RFC 8020).
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
fn zones_say_who_answers_for_them() {
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
fn other_names_are_passed_on_for_our_own_machines_only() {
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
        // In the zone that two of the subnets share with somebody else.
        "63.0.8.10.in-addr.arpa.",
        "200.0.8.10.in-addr.arpa.",
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
    // The zones are everybody's.
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

#[test]
fn a_change_is_seen_by_the_next_query_and_moves_the_serial_number() {
    let world = world(SITE);
    let views = Views::of(world.clone(), NOW).unwrap().unwrap();
    let first = views.load(|| panic!("nothing changed"));
    assert_eq!(first.serial, NOW);
    let name = "r02n01.cluster.example.";
    assert_eq!(asked(&first, NODE, &query(name, RecordType::A)).1, Outcome::NoName);

    let inventory = Arc::new(Inventory::new([node("r02n01", [10, 5, 2, 1])]));
    world.rcu(|world| World {
        inventory: inventory.clone(),
        ..World::clone(world)
    });
    let second = views.load(|| NOW);
    assert_eq!(second.serial, NOW + 1, "larger also within the same second");
    assert_eq!(asked(&second, NODE, &query(name, RecordType::A)).1, Outcome::Answered);
    assert_eq!(
        asked(&second, NODE, &query("r01n03.cluster.example.", RecordType::A)).1,
        Outcome::NoName
    );

    // Images come and go without the zones changing.
    world.rcu(|world| World {
        images: Arc::new(Catalog::default()),
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
    assert_eq!(
        asked(&third, NODE, &query("boot.cluster.example.", RecordType::A)).1,
        Outcome::Answered
    );
    assert_eq!(
        asked(&third, NODE, &query("rackstrap.cluster.example.", RecordType::A)).1,
        Outcome::NoName
    );
}

#[test]
fn a_site_without_the_section_has_no_name_server() {
    let text = SITE.replace("[dns]\nforward = [\"10.0.0.53\"]\n", "");
    assert!(Views::of(world(&text), NOW).unwrap().is_none());
}

#[test]
fn answers_fit_into_what_the_client_takes() {
    // 70 server addresses: 16 bytes each.
    let subnets: String = (0..70)
        .map(|i| {
            format!("[[subnet]]\nnetwork = \"10.9.{i}.0/24\"\nrelayed = true\nserver = \"10.9.{i}.1\"\nrouter = \"10.9.{i}.2\"\n")
        })
        .collect();
    let world = world(&format!("{SITE}{subnets}"));
    let view = Views::of(world, NOW).unwrap().unwrap().load(|| NOW);
    let mut plain = query("rackstrap.cluster.example.", RecordType::A);
    let (reply, outcome) = asked(&view, NODE, &plain);
    assert!(outcome == Outcome::Truncated && reply.metadata.truncation && reply.answers.is_empty());
    assert_eq!(reply.queries, plain.queries);
    // The cap holds whatever the client says.
    plain.set_edns(Edns::new());
    for (takes, says) in [(100, 512), (1232, 1232), (65535, 1232)] {
        plain.edns.as_mut().unwrap().set_max_payload(takes);
        let bytes = match respond(&view, NODE, Transport::Udp, &plain.to_vec().unwrap()) {
            Reaction::Reply(bytes, Outcome::Truncated) => bytes,
            other => panic!("{other:?}"),
        };
        assert!(bytes.len() <= says, "{takes}: {}", bytes.len());
        assert_eq!(Message::from_vec(&bytes).unwrap().edns.unwrap().max_payload(), MAX_UDP);
    }
    match respond(&view, NODE, Transport::Tcp, &plain.to_vec().unwrap()) {
        Reaction::Reply(bytes, Outcome::Answered) => assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 75),
        other => panic!("{other:?}"),
    }
    // Of what does not fit, addresses that nobody asked for go first.
    let (reply, outcome) = asked(&view, NODE, &query("cluster.example.", RecordType::NS));
    assert!(outcome == Outcome::Answered && !reply.metadata.truncation && reply.additionals.is_empty());
}

#[test]
fn what_is_no_query_is_told_so_or_dropped() {
    let view = view();
    let good = query("r01n03.cluster.example.", RecordType::A).to_vec().unwrap();
    let react = |bytes: &[u8]| match respond(&view, NODE, Transport::Udp, bytes) {
        Reaction::Reply(bytes, outcome) => {
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.metadata.id, 4711);
            (Some(reply.metadata.response_code), outcome)
        }
        Reaction::Silence(outcome) => (None, outcome),
        Reaction::Forward(relay) => panic!("{relay:?}"),
    };
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let malformed = (Some(ResponseCode::FormErr), Outcome::Malformed);
    assert_eq!(react(&good), (Some(ResponseCode::NoError), Outcome::Answered));
    assert_eq!(react(&[]), (None, Outcome::DroppedShort));
    assert_eq!(react(&good[..11]), (None, Outcome::DroppedShort));
    assert_eq!(react(&good[..20]), malformed);
    assert_eq!(react(&with(2, 0x81)), (None, Outcome::DroppedResponse));
    // UPDATE, NOTIFY.
    assert_eq!(
        react(&with(2, 5 << 3)),
        (Some(ResponseCode::NotImp), Outcome::NotImplemented)
    );
    assert_eq!(
        react(&with(2, 4 << 3)),
        (Some(ResponseCode::NotImp), Outcome::NotImplemented)
    );
    // Counts of questions, answers, authorities and additional records that are wrong, or huge.
    for (at, byte) in [(5, 0), (5, 2), (4, 255), (6, 255), (7, 1), (9, 1), (11, 1), (10, 255)] {
        assert_eq!(react(&with(at, byte)), malformed, "{at}");
    }
    // A compression pointer to itself.
    assert_eq!(react(&[&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat()), malformed);
    let mut version = query("r01n03.cluster.example.", RecordType::A);
    version.set_edns(Edns::new()).edns.as_mut().unwrap().set_version(1);
    let (reply, outcome) = asked(&view, NODE, &version);
    assert_eq!((outcome, reply.answers.len()), (Outcome::BadVersion, 0));
    assert_eq!(reply.edns.unwrap().version(), 0);
    assert_eq!(u16::from(reply.metadata.response_code), 16);
}

fn relay_of(query: &Message) -> Relay {
    match respond(&view(), NODE, Transport::Udp, &query.to_vec().unwrap()) {
        Reaction::Forward(relay) => *relay,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_is_passed_on_in_our_own_words() {
    let mut original = query("WWW.example.", RecordType::TXT);
    original.metadata.checking_disabled = true;
    let asked = Message::from_vec(&relay_of(&original).query(99).unwrap()).unwrap();
    assert_eq!((asked.metadata.id, asked.edns.is_none()), (99, true));
    assert!(asked.metadata.recursion_desired && asked.metadata.checking_disabled);
    assert!(asked.queries[0].name().eq_case(original.queries[0].name()));

    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(4096);
    original.set_edns(edns);
    let asked = Message::from_vec(&relay_of(&original).query(99).unwrap()).unwrap();
    let edns = asked.edns.unwrap();
    assert!(edns.flags().dnssec_ok && edns.max_payload() == MAX_UDP);
}

#[test]
fn only_the_answer_to_the_question_comes_back() {
    let original = query("www.example.", RecordType::A);
    let relay = relay_of(&original);
    let mut answer = Message::response(99, OpCode::Query);
    answer.add_queries(original.queries.clone());
    let ipaddr = RData::A(A::new(192, 0, 2, 80));
    answer.add_answer(Record::from_rdata(Name::from_ascii("www.example.").unwrap(), 300, ipaddr));
    let bytes = answer.to_vec().unwrap();
    assert_eq!(relay.read(99, &bytes), Some(Verdict::Answer));
    assert_eq!(relay.read(98, &bytes), None, "another id");
    assert_eq!(relay.read(99, &relay.query(99).unwrap()), None, "a query");
    assert_eq!(relay.read(99, &bytes[..14]), None);
    let mut other = answer.clone();
    other.queries[0].set_query_type(RecordType::AAAA);
    assert_eq!(relay.read(99, &other.to_vec().unwrap()), None, "another question");
    let mut none = answer.clone();
    none.queries.clear();
    assert_eq!(relay.read(99, &none.to_vec().unwrap()), None, "no question");
    none.metadata.response_code = ResponseCode::Refused;
    assert_eq!(relay.read(99, &none.to_vec().unwrap()), Some(Verdict::Unable));

    let Reaction::Reply(passed, Outcome::Forwarded) = relay.clone().answer(bytes.clone()) else {
        panic!()
    };
    assert_eq!((&passed[..2], &passed[2..]), (&4711u16.to_be_bytes()[..], &bytes[2..]));

    let Reaction::Reply(long, Outcome::Truncated) = relay.clone().answer([&bytes[..], &[0; 600]].concat()) else {
        panic!()
    };
    let long = Message::from_vec(&long).unwrap();
    assert!(long.metadata.truncation && long.metadata.id == 4711 && long.queries == original.queries);

    let Reaction::Reply(failed, Outcome::ForwardFailed) = relay.failed(Outcome::ForwardFailed) else {
        panic!()
    };
    assert_eq!(
        Message::from_vec(&failed).unwrap().metadata.response_code,
        ResponseCode::ServFail
    );
}

/// Whatever comes, an answer is bounded, has the packet's id, and is a response.
fn sound(packet: &[u8], client: Ipv4Addr, transport: Transport) {
    match respond(&view(), client, transport, packet) {
        Reaction::Reply(bytes, _) => {
            assert_eq!(bytes[..2], packet[..2]);
            assert!(bytes[2] & 0x80 != 0 && (transport == Transport::Tcp || bytes.len() <= MAX_UDP.into()));
            Message::from_vec(&bytes).unwrap();
        }
        Reaction::Silence(outcome) => assert!(
            matches!(outcome, Outcome::DroppedShort | Outcome::DroppedResponse),
            "{outcome:?}"
        ),
        Reaction::Forward(relay) => {
            assert!(Zones::is_ours(&view().zones, client));
            relay.read(1, packet);
            let query = relay.query(7).unwrap();
            assert_eq!(relay.read(7, &query), None);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(packet in prop::collection::vec(any::<u8>(), 0..300), ours: bool, tcp: bool) {
        sound(&packet, if ours { NODE } else { FOREIGN }, if tcp { Transport::Tcp } else { Transport::Udp });
    }

    /// Queries with some bytes changed get further than random ones.
    #[test]
    fn no_mangled_query_panics(
        labels in prop::collection::vec(prop_oneof!["[0-9]{1,3}", Just("in-addr".to_owned()), Just("arpa".to_owned()),
            Just("cluster".to_owned()), Just("example".to_owned()), "[a-zA-Z0-9-]{1,63}"], 0..7),
        kind: u16, edns: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in 0usize..400,
    ) {
        let name = Name::from_labels(labels.iter().map(|l| l.as_bytes()));
        prop_assume!(name.is_ok());
        let mut query = query(".", kind.into());
        query.queries[0].set_name(name.unwrap());
        if edns {
            query.set_edns(Edns::new());
        }
        let mut packet = query.to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        packet.truncate(cut.max(12));
        sound(&packet, NODE, Transport::Udp);
    }

    /// Every address of every subnet has its name in exactly one place, and no other address has one.
    #[test]
    fn exactly_the_subnets_are_ours(address: u32, near: bool, which in 0usize..SUBNETS.len()) {
        let network: ipnet::Ipv4Net = SUBNETS[which].0.parse().unwrap();
        // Around a subnet's edges as well as anywhere.
        let address = if near { u32::from(network.network()).wrapping_add(address % 2048).wrapping_sub(512) } else { address };
        let address = Ipv4Addr::from(address);
        let [a, b, c, d] = address.octets();
        let name = Name::from_ascii(&format!("{d}.{c}.{b}.{a}.in-addr.arpa.")).unwrap();
        let ours = SUBNETS.iter().any(|(net, _)| net.parse::<ipnet::Ipv4Net>().unwrap().contains(&address));
        let found = find(&view(), NODE, &Query::query(name, RecordType::PTR)).unwrap();
        prop_assert_eq!(ours, found != Found::Elsewhere);
    }
}
