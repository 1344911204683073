//! Relayed requests: RFC 1542, 3046, 3527, 5107.

use super::golden;
use crate::{testing::*, *};

const NODE: &str = "52:54:00:00:01:03";
const INFO: [u8; 12] = [1, 4, b'g', b'e', b'0', b'7', 2, 4, 0xff, 0, 9, 1];

fn world() -> World {
    World::with(&[(NODE, "r01n03", "10.6.1.3")])
}

#[test]
fn giaddr_selects_the_subnet_and_gets_the_reply() {
    let world = world();
    let mut engine = world.engine();
    let mut out = String::new();
    let ask = |kind, mac| Packet::new(kind, mac).giaddr("10.6.0.254").option(82, &INFO);
    for (what, packet) in [
        ("node", ask(1, NODE)),
        ("node, SELECTING", ask(3, NODE).server("10.6.0.1").requested("10.6.1.3")),
        (
            "node, wrong address: NAK with broadcast flag",
            ask(3, NODE).requested("10.6.1.4"),
        ),
        ("unknown machine", ask(1, "52:54:00:00:09:09")),
        (
            "unknown machine, wrong network",
            ask(3, "52:54:00:00:09:09").requested("10.5.255.1"),
        ),
        ("INFORM: to the client", ask(8, NODE).ciaddr("10.6.1.3")),
        ("a relay that nobody knows", Packet::new(1, NODE).giaddr("10.99.0.1")),
    ] {
        out.push_str(&format!("# {what}\n{}\n", show(&packet.to(&mut engine, &world))));
    }
    golden("relays", &out);
}

#[test]
fn the_event_knows_the_switch_port() {
    let world = world();
    let outcome = Packet::new(1, NODE)
        .giaddr("10.6.0.254")
        .option(82, &INFO)
        .to(&mut world.engine(), &world);
    assert_eq!(outcome.event.relay, Some(ip("10.6.0.254")));
    assert_eq!(outcome.event.circuit_id.as_deref(), Some(&b"ge07"[..]));
    assert_eq!(outcome.event.remote_id.as_deref(), Some(&[0xff, 0, 9, 1][..]));
}

/// A switch that snoops puts option 82 in and leaves giaddr alone; it wants it back.
#[test]
fn option_82_is_echoed_without_a_relay_as_well() {
    let world = World::with(&[(NODE, "r01n03", "10.5.1.3")]);
    let outcome = Packet::new(1, NODE).option(82, &INFO).to(&mut world.engine(), &world);
    assert_eq!(option(&outcome, 82).unwrap(), INFO);
}

#[test]
fn option_82_longer_than_one_option() {
    let world = world();
    let (long, rest) = ([7; 200], [9; 100]);
    let packet = Packet::new(1, NODE)
        .giaddr("10.6.0.254")
        .option(57, &1400u16.to_be_bytes());
    let outcome = packet
        .option(82, &[&[1, 250][..], &long].concat())
        .option(82, &rest)
        .to(&mut world.engine(), &world);
    let bytes = &outcome.reply.as_ref().unwrap().bytes;
    let echoed: Vec<u8> = [&[1, 250][..], &long, &rest].concat();
    let at = bytes.windows(2).position(|w| w == [82, 255]).unwrap();
    assert_eq!(bytes[at + 2..at + 257], echoed[..255]);
    assert_eq!(bytes[at + 257..at + 259], [82, 47]);
    // RFC 3046 section 2.1: last, before the end option.
    assert_eq!(bytes[at + 259..at + 307], [&echoed[255..], &[255]].concat());
}

#[test]
fn relays_can_name_the_link_and_the_server() {
    let world = world();
    let info = [5, 4, 10, 6, 0, 0, 11, 4, 10, 6, 0, 254];
    let ask = |kind| Packet::new(kind, NODE).giaddr("172.16.0.9").option(82, &info);
    let mut engine = world.engine();
    let offer = ask(1).to(&mut engine, &world);
    assert_eq!(given(&offer), Some(ip("10.6.1.3")));
    assert_eq!(option(&offer, 54).unwrap(), [10, 6, 0, 254]);
    let to = Destination::Routed("172.16.0.9:67".parse().unwrap());
    assert_eq!(offer.reply.unwrap().destination, to);
    let ack = ask(3)
        .server("10.6.0.254")
        .requested("10.6.1.3")
        .to(&mut engine, &world);
    assert_eq!(ack.event.answer, AnswerKind::Ack);
    // A client cannot choose its subnet so.
    let direct = Packet::new(1, NODE).option(82, &info).to(&mut engine, &world);
    assert!(direct.reply.is_none(), "{:?}", direct.event);
}

/// RENEWING goes past the relay: the subnet is that of the client's address, the interface the one it came by.
#[test]
fn a_relayed_client_renews_directly() {
    let world = world();
    let renew = Packet::new(3, NODE).ciaddr("10.6.1.3").to(&mut world.engine(), &world);
    assert_eq!(renew.event.answer, AnswerKind::Ack, "{:?}", renew.event);
    let reply = renew.reply.unwrap();
    assert_eq!(reply.destination, Destination::Routed("10.6.1.3:68".parse().unwrap()));
    assert_eq!(reply.source, ip("10.6.0.1"));
}

/// RFC 3046 section 2.2: option 82 is echoed whole, or not at all.
#[test]
fn an_option_82_that_does_not_fit_is_left_out_and_told() {
    let world = world();
    let ask = |bytes: usize, max: u16| {
        let mut packet = Packet::new(1, NODE).giaddr("10.6.0.254").option(60, b"PXEClient");
        packet = packet.option(93, &[0, 0]).option(57, &max.to_be_bytes());
        let info: Vec<u8> = [&[1, 200][..], &[7; 200]]
            .concat()
            .into_iter()
            .cycle()
            .take(bytes)
            .collect();
        for piece in info.chunks(255) {
            packet = packet.option(82, piece);
        }
        let outcome = packet.to(&mut world.engine(), &world);
        let length = outcome.reply.as_ref().unwrap().bytes.len();
        let limit = usize::from(max.clamp(576, 1500)) - 28;
        assert!(length <= limit, "{length} bytes for a client that takes {limit}");
        outcome
    };
    let fits = ask(150, 576);
    assert_eq!(option(&fits, 82).unwrap().len(), 150);
    assert!(!fits.event.alarm, "{}", fits.event.reason);
    for (bytes, max) in [(400, 576), (1200, 1500), (1200, 65_280), (8000, 65_280)] {
        let outcome = ask(bytes, max);
        assert_eq!(option(&outcome, 82), None, "{bytes}");
        // Nothing else is missing, although it could have been spared.
        assert_eq!(option(&outcome, 12).unwrap(), b"r01n03");
        assert!(option(&outcome, 43).is_some());
        assert!(outcome.event.alarm);
        let said = format!("the relay's option 82 of {bytes} bytes is left out");
        assert!(outcome.event.reason.contains(&said), "{}", outcome.event.reason);
    }
}
