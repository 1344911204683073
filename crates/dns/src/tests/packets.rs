//! Tests of packets: answers that do not fit, bytes that are not a query, forwarded questions, and random bytes.

use super::*;
use crate::{engine::MAX_UDP, relay::Verdict};
use hickory_proto::op::Edns;
use proptest::prelude::*;

#[test]
fn answers_fit_into_the_clients_maximum_size() {
    // 70 server addresses: 16 bytes each.
    let subnets: Vec<(String, String)> = (0..70)
        .map(|i| (format!("10.9.{i}.0/24"), format!("10.9.{i}.1")))
        .collect();
    let subnets = Vec::from_iter(
        subnets
            .iter()
            .map(|(network, server)| (network.as_str(), server.as_str())),
    );
    let view = site(&forwarders(), &subnets);
    let mut plain = query("rackstrap.cluster.example.", RecordType::A);
    let (reply, outcome) = asked(&view, NODE, &plain);
    assert!(outcome == Outcome::Truncated && reply.metadata.truncation && reply.answers.is_empty());
    assert_eq!(reply.queries, plain.queries);
    // The limit holds whatever size the client says.
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
    // If an answer does not fit, additional addresses are left out first.
    let (reply, outcome) = asked(&view, NODE, &query("cluster.example.", RecordType::NS));
    assert!(outcome == Outcome::Answered && !reply.metadata.truncation && reply.additionals.is_empty());
}

#[test]
fn bytes_that_are_not_a_query_are_refused_or_dropped() {
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
    // The operations UPDATE and NOTIFY.
    assert_eq!(
        react(&with(2, 5 << 3)),
        (Some(ResponseCode::NotImp), Outcome::NotImplemented)
    );
    assert_eq!(
        react(&with(2, 4 << 3)),
        (Some(ResponseCode::NotImp), Outcome::NotImplemented)
    );
    // Counts of questions, answers, authorities and additional records that are wrong or huge.
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
fn a_question_is_encoded_again_before_it_is_forwarded() {
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
fn only_the_answer_to_the_question_is_returned() {
    let original = query("www.example.", RecordType::A);
    let relay = relay_of(&original);
    let mut answer = Message::response(99, OpCode::Query);
    answer.add_queries(original.queries.clone());
    let ipaddr = RData::A(A::new(192, 0, 2, 80));
    answer.add_answer(Record::from_rdata(
        Name::from_ascii("www.example.").unwrap(),
        300,
        ipaddr,
    ));
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

/// Whatever the packet is, an answer is bounded, has the packet's id, and is a response.
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

    /// Queries with some changed bytes reach more code than random bytes.
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

    /// Every address of every subnet and further network has its name in exactly one place, and no other address has a name.
    #[test]
    fn exactly_the_subnets_are_ours(address: u32, near: bool, which in 0usize..SUBNETS.len()) {
        let network: ipnet::Ipv4Net = SUBNETS[which].0.parse().unwrap();
        // Addresses around a subnet's edges, and anywhere.
        let address = if near { u32::from(network.network()).wrapping_add(address % 2048).wrapping_sub(512) } else { address };
        let address = Ipv4Addr::from(address);
        let [a, b, c, d] = address.octets();
        let name = Name::from_ascii(format!("{d}.{c}.{b}.{a}.in-addr.arpa.")).unwrap();
        let in_subnet = SUBNETS.iter().any(|(net, _)| net.parse::<ipnet::Ipv4Net>().unwrap().contains(&address));
        let further = |(_, of, prefix): &(&str, Ipv4Addr, u8)| ipnet::Ipv4Net::new(*of, *prefix).unwrap().contains(&address);
        let ours = in_subnet || FURTHER.iter().any(further);
        let found = find(&view(), NODE, &Query::query(name, RecordType::PTR)).unwrap();
        prop_assert_eq!(ours, found != Found::Elsewhere);
    }
}
