//! Every state of RFC 2131, for nodes and for unknown machines.

use super::golden;
use crate::{testing::*, *};

const NODE: &str = "52:54:00:00:01:03";
const OTHER: &str = "52:54:00:00:09:09";

fn world() -> World {
    World::with(&[(NODE, "r01n03", "10.5.1.3")])
}

/// One line a packet: what was said, and what came of it.
fn script(world: &World, packets: &[(&str, Packet)]) -> String {
    let mut engine = world.engine();
    packets.iter().fold(String::new(), |out, (what, packet)| {
        format!("{out}# {what}\n{}\n", show(&packet.to(&mut engine, world)))
    })
}

#[test]
fn a_node_in_every_state() {
    let ask = |kind| Packet::new(kind, NODE);
    let text = script(
        &world(),
        &[
            ("DISCOVER", ask(1)),
            ("DISCOVER, broadcast flag", ask(1).broadcast()),
            ("SELECTING", ask(3).server("10.5.0.1").requested("10.5.1.3")),
            (
                "SELECTING, another address than offered",
                ask(3).server("10.5.0.1").requested("10.5.1.4"),
            ),
            (
                "SELECTING, address in ciaddr",
                ask(3).server("10.5.0.1").ciaddr("10.5.1.3"),
            ),
            (
                "SELECTING another server",
                ask(3).server("10.5.0.9").requested("10.5.1.3"),
            ),
            ("INIT-REBOOT", ask(3).requested("10.5.1.3")),
            ("INIT-REBOOT, other address", ask(3).requested("10.5.255.7")),
            (
                "INIT-REBOOT, other network",
                ask(3).requested("192.168.1.7").broadcast(),
            ),
            ("RENEWING", ask(3).ciaddr("10.5.1.3")),
            (
                "RENEWING what it was before it became a node",
                ask(3).ciaddr("10.5.255.7"),
            ),
            ("DECLINE", ask(4).server("10.5.0.1").requested("10.5.1.3")),
            (
                "DECLINE of another address",
                ask(4).server("10.5.0.1").requested("10.5.1.4"),
            ),
            ("RELEASE", ask(7).server("10.5.0.1").ciaddr("10.5.1.3")),
            (
                "RELEASE to another server",
                ask(7).server("10.5.0.9").ciaddr("10.5.1.3"),
            ),
            ("INFORM", ask(8).ciaddr("10.5.1.3").option(55, &[6, 15, 42])),
            ("INFORM from elsewhere", ask(8).ciaddr("8.8.8.8")),
        ],
    );
    golden("states of a node", &text);
}

#[test]
fn an_unknown_machine_in_every_state() {
    let ask = |kind| Packet::new(kind, OTHER);
    let text = script(
        &world(),
        &[
            ("INIT-REBOOT without a record: silence", ask(3).requested("10.5.255.9")),
            ("INIT-REBOOT, other network", ask(3).requested("192.168.1.7")),
            ("RENEWING without a record: silence", ask(3).ciaddr("10.5.255.9")),
            ("DISCOVER", ask(1)),
            ("DISCOVER again", ask(1).requested("10.5.255.77")),
            ("SELECTING", ask(3).server("10.5.0.1").requested("10.5.255.1")),
            ("INIT-REBOOT", ask(3).requested("10.5.255.1")),
            ("INIT-REBOOT, other address", ask(3).requested("10.5.255.2")),
            ("RENEWING", ask(3).ciaddr("10.5.255.1")),
            ("RELEASE", ask(7).server("10.5.0.1").ciaddr("10.5.255.1")),
            ("DISCOVER: the same address", ask(1)),
            ("SELECTING", ask(3).server("10.5.0.1").requested("10.5.255.1")),
            ("DECLINE", ask(4).server("10.5.0.1").requested("10.5.255.1")),
            ("DECLINE again", ask(4).server("10.5.0.1").requested("10.5.255.1")),
            ("DISCOVER: another address", ask(1)),
            (
                "SELECTING the one in quarantine",
                ask(3).server("10.5.0.1").requested("10.5.255.1"),
            ),
            (
                "SELECTING another server",
                ask(3).server("10.5.0.9").requested("10.5.9.9"),
            ),
            ("INFORM", ask(8).ciaddr("10.5.7.7")),
        ],
    );
    golden("states of an unknown machine", &text);
}

#[test]
fn silence_where_told_and_where_there_is_nothing_to_give() {
    let mut world = world();
    world.silent.push(OTHER.parse().unwrap());
    let mut engine = world.engine();
    for packet in [
        Packet::new(1, OTHER),
        Packet::new(3, OTHER).requested("192.168.1.1"),
        Packet::new(8, OTHER).ciaddr("10.5.7.7"),
    ] {
        let outcome = packet.to(&mut engine, &world);
        assert_eq!(
            (outcome.event.answer, &*outcome.event.reason),
            (AnswerKind::Silent, "told to be silent")
        );
        assert!(outcome.reply.is_none());
    }
    world.silent.clear();
    let no_pool = Packet::new(1, OTHER).to_at(&mut engine, &world, "eth1", NOW);
    assert!(no_pool.reply.is_none());
    assert_eq!(no_pool.event.reason, "an unknown machine, and 10.7.0.0/16 has no pool");
    let wrong_network = Packet::new(3, OTHER)
        .requested("192.168.1.1")
        .to_at(&mut engine, &world, "eth1", NOW);
    assert!(wrong_network.reply.is_none());
    let no_subnet = Packet::new(1, OTHER).to_at(&mut engine, &world, "eth7", NOW);
    assert_eq!(no_subnet.event.reason, "no subnet of the site file is on eth7");
}

#[test]
fn a_node_on_the_wrong_network_is_an_alarm() {
    let world = world();
    let mut engine = world.engine();
    let outcome = Packet::new(1, NODE).to_at(&mut engine, &world, "eth1", NOW);
    assert!(outcome.reply.is_none() && outcome.event.alarm, "{:?}", outcome.event);
    let outcome = Packet::new(3, NODE)
        .requested("10.5.1.3")
        .to_at(&mut engine, &world, "eth1", NOW);
    assert_eq!(outcome.event.answer, AnswerKind::Nak);
}

/// r01n03 is of VLAN 5, whose interface is eth1; without a tag it asks on eth0, which has a pool.
fn world_with_vlan() -> World {
    let mut world = World::with(&[(NODE, "r01n03", "10.7.1.3")]);
    let network = std::sync::Arc::make_mut(&mut world.network);
    network.subnets[2].vlan = Some(5);
    world.settings.mtu = Some(9000);
    world
}

#[test]
fn a_node_of_a_vlan_starts_without_its_tag_from_the_pool() {
    let world = world_with_vlan();
    let mut engine = world.engine();
    let first = ip("10.5.255.1");
    let offer = Packet::new(1, NODE).option(55, &[26]).to(&mut engine, &world);
    assert_eq!(given(&offer), Some(first));
    assert_eq!(
        offer.event.reason,
        "pool address to start r01n03 without a tag; in VLAN 5 it is 10.7.1.3"
    );
    assert_eq!(
        option(&offer, 54).unwrap(),
        [10, 5, 0, 1],
        "by the server's address there"
    );
    assert_eq!(option(&offer, 26), None, "the MTU is that of the VLAN");
    let taken = Packet::new(3, NODE).server("10.5.0.1").requested("10.5.255.1");
    let ack = taken.to(&mut engine, &world);
    assert_eq!((ack.event.answer, ack.event.known), (AnswerKind::Ack, true));
    assert_eq!(
        stored(&ack)[0].hwaddr,
        NODE.parse().unwrap(),
        "on disk before the answer"
    );
    assert_eq!(ack.writes.len(), 1, "the lease stays");
    assert_eq!(option(&ack, 51).unwrap(), 900u32.to_be_bytes(), "long enough to load");
    assert_eq!(engine.holder(first, NOW).unwrap().hwaddr, NODE.parse().unwrap());
    let rival = Packet::new(3, NODE).server("10.5.0.9").requested("10.5.255.1");
    let rival = rival.to(&mut engine, &world);
    assert!(rival.reply.is_none() && rival.event.alarm, "{:?}", rival.event);
    assert_eq!(
        rival.event.reason,
        "r01n03, without a tag: took the offer of another DHCP server, 10.5.0.9"
    );
    // The address of the VLAN is not usable there.
    let again = Packet::new(3, NODE).requested("10.7.1.3").to(&mut engine, &world);
    assert_eq!(again.event.answer, AnswerKind::Nak);

    // Firmware that sets the tag has its own address, and needs the other one no longer.
    let tagged = Packet::new(3, NODE).server("10.7.0.1").requested("10.7.1.3");
    let ack = tagged.to_at(&mut engine, &world, "eth1", NOW);
    assert_eq!(given(&ack), Some(ip("10.7.1.3")));
    assert_eq!(ack.writes, [Write::Forget(first)]);
}

#[test]
fn a_node_of_a_vlan_is_on_the_wrong_network_where_nothing_starts_without_a_tag() {
    let mut world = world_with_vlan();
    std::sync::Arc::make_mut(&mut world.network).subnets[0].pool = None;
    let mut engine = world.engine();
    let outcome = Packet::new(1, NODE).to(&mut engine, &world);
    assert!(outcome.reply.is_none() && outcome.event.alarm, "{:?}", outcome.event);
    // Another VLAN starts no nodes, either.
    let mut world = world_with_vlan();
    std::sync::Arc::make_mut(&mut world.network).subnets[0].vlan = Some(6);
    let mut engine = world.engine();
    let outcome = Packet::new(1, NODE).to(&mut engine, &world);
    assert!(outcome.reply.is_none() && outcome.event.alarm, "{:?}", outcome.event);
}

/// Racked: waiting in the pool, then given a name; the pool address is free for the next.
#[test]
fn an_unknown_machine_becomes_a_node() {
    let mut world = World::default();
    let mut engine = world.engine();
    let granted = Packet::new(3, NODE)
        .server("10.5.0.1")
        .requested("10.5.255.1")
        .to(&mut engine, &world);
    assert_eq!(stored(&granted)[0].hwaddr, NODE.parse().unwrap());
    assert_eq!(
        engine.holder(ip("10.5.255.1"), NOW).unwrap().hwaddr,
        NODE.parse().unwrap()
    );
    world
        .nodes
        .insert(NODE.parse().unwrap(), ("r01n03".into(), ip("10.5.1.3")));
    let renewing = Packet::new(3, NODE).ciaddr("10.5.255.1").to(&mut engine, &world);
    assert_eq!(renewing.event.answer, AnswerKind::Nak);
    let offer = Packet::new(1, NODE).to(&mut engine, &world);
    assert_eq!((given(&offer), offer.writes.len()), (Some(ip("10.5.1.3")), 0));
    let ack = Packet::new(3, NODE)
        .server("10.5.0.1")
        .requested("10.5.1.3")
        .to(&mut engine, &world);
    assert_eq!(ack.writes, [Write::Forget(ip("10.5.255.1"))]);
    assert_eq!(engine.holder(ip("10.5.255.1"), NOW), None);
}

#[test]
fn two_subnets_on_one_interface() {
    let mut world = World::with(&[(NODE, "r01n03", "10.8.1.3")]);
    let shared = subnet("10.8.0.0/16", Some("eth0"), "10.8.0.1", None);
    std::sync::Arc::make_mut(&mut world.network).subnets.push(shared);
    let mut engine = world.engine();
    let node = Packet::new(1, NODE).to(&mut engine, &world);
    assert_eq!(given(&node), Some(ip("10.8.1.3")));
    assert_eq!(option(&node, 54).unwrap(), [10, 8, 0, 1]);
    let unknown = Packet::new(1, OTHER).to(&mut engine, &world);
    assert_eq!(option(&unknown, 54).unwrap(), [10, 5, 0, 1]);
}

#[test]
fn a_changed_site_keeps_the_leases_that_still_fit() {
    let mut world = World::default();
    let mut engine = world.engine();
    for (mac, address) in [(NODE, "10.5.255.1"), (OTHER, "10.5.255.200")] {
        Packet::new(3, mac)
            .server("10.5.0.1")
            .requested(address)
            .to(&mut engine, &world);
    }
    let mut network = (*world.network).clone();
    network.subnets[0].pool = Some((ip("10.5.255.100"), ip("10.5.255.254")));
    world.network = std::sync::Arc::new(network);
    engine.set_network(&world.network);
    assert_eq!(engine.holder(ip("10.5.255.1"), NOW), None);
    assert!(engine.holder(ip("10.5.255.200"), NOW).is_some());
    assert_eq!(
        given(&Packet::new(1, NODE).to(&mut engine, &world)),
        Some(ip("10.5.255.100"))
    );
}

/// dora, dnsmasq and others lose offers at a restart; their clients then wait for a NAK and begin again.
#[test]
fn a_restart_between_offer_and_request_changes_nothing() {
    let world = World::default();
    let offer = Packet::new(1, OTHER).to(&mut world.engine(), &world);
    let address = given(&offer).unwrap().to_string();
    let mut engine = world.engine();
    let ack = Packet::new(3, OTHER)
        .server("10.5.0.1")
        .requested(&address)
        .to(&mut engine, &world);
    assert_eq!(ack.event.answer, AnswerKind::Ack);
    let (mut engine, unused) = Engine::new(world.network.clone(), &engine.leases());
    assert!(unused.is_empty());
    let renewed = Packet::new(3, OTHER).ciaddr(&address).to(&mut engine, &world);
    assert_eq!(renewed.event.answer, AnswerKind::Ack);
}

#[test]
fn a_further_card_of_a_node_leaves_its_pool_address_to_unknown_machines_after_two_minutes() {
    let mut world = world();
    // A pool of one address.
    let subnets = &mut std::sync::Arc::make_mut(&mut world.network).subnets;
    subnets[0].pool = Some((ip("10.5.255.1"), ip("10.5.255.1")));
    world.further_cards = vec![OTHER.parse().unwrap()];
    let mut engine = world.engine();
    let take = |engine: &mut Engine, mac: &str, now| {
        let at = |packet: Packet, engine: &mut Engine| packet.to_at(engine, &world, "eth0", now).event.answer;
        let offer = at(Packet::new(1, mac), engine);
        let ack = at(Packet::new(3, mac).server("10.5.0.1").requested("10.5.255.1"), engine);
        (offer, ack)
    };
    let stranger = "52:54:00:00:09:0a";
    assert_eq!(take(&mut engine, OTHER, NOW), (AnswerKind::Offer, AnswerKind::Ack));
    let before = NOW.plus_secs(119);
    assert_eq!(take(&mut engine, stranger, before).0, AnswerKind::Silent, "it loads");
    let after = NOW.plus_secs(121);
    assert_eq!(take(&mut engine, stranger, after), (AnswerKind::Offer, AnswerKind::Ack));
    // An unknown machine keeps it for the whole time of the subnet.
    let later = after.plus_secs(599);
    assert_eq!(take(&mut engine, OTHER, later).0, AnswerKind::Silent);
}
