//! Beside another DHCP server: what gets the boot part, and what is left alone.

use super::golden;
use crate::{AnswerKind, Counters, DhcpEvent, Ingress, Left, Request, testing::*};
use rackstrap_base::subnet::DhcpPart;
use std::sync::Arc;

const NODE: (&str, &str, &str) = ("52:54:00:77:01:01", "r01n03", "10.5.1.3");
const BIOS: &[u8] = b"PXEClient:Arch:00000:UNDI:002001";
const UEFI: &[u8] = b"PXEClient:Arch:00007:UNDI:003016";

fn proxy(nodes: &[(&str, &str, &str)]) -> World {
    World::with(nodes).answering(DhcpPart::Proxy)
}

fn left(outcome: &crate::Outcome) -> Option<Left> {
    assert!(outcome.reply.is_none() && outcome.event.answer == AnswerKind::Silent);
    assert!(outcome.writes.is_empty());
    outcome.event.left
}

/// Nothing of the network's settings may come from here: an address, mask, router, name servers, broadcast address, times of the
/// lease, domain, host name, time servers.
fn gives_no_address(outcome: &crate::Outcome) {
    for code in [1, 3, 6, 12, 15, 28, 42, 51, 58, 59] {
        assert_eq!(option(outcome, code), None, "option {code}");
    }
    assert_eq!(given(outcome), None);
    assert!(outcome.writes.is_empty());
}

/// All requests of captured firmware. Their DISCOVERs are answered, and their REQUESTs to dnsmasq at 10.77.0.1, which offered
/// 10.77.200.30, are not.
#[test]
fn captured_firmware() {
    let world = proxy(&[NODE]);
    for capture in ["bios-undionly.kpxe", "uefi-snponly.efi", "uefi-http-boot"] {
        let mut out = String::new();
        let mut offers = 0;
        for bytes in requests(capture) {
            let outcome = Packet(bytes).to(&mut world.engine(), &world);
            if outcome.reply.is_some() {
                offers += 1;
                gives_no_address(&outcome);
            }
            out.push_str(&show(&outcome));
        }
        assert!(offers >= 2, "{capture}");
        golden(&format!("proxy {capture}"), &out);
    }
}

/// A BIOS takes the file from the OFFER; UEFI asks at port 4011, from that port or from port 68; iPXE takes a URL.
#[test]
fn each_firmware_gets_what_it_takes() {
    let world = proxy(&[NODE]);
    let engine = &mut world.engine();
    let uuid = [&[0][..], &[7; 16]].concat();
    let machine = |kind| Packet::new(kind, NODE.0).option(97, &uuid);
    let uefi = |kind| machine(kind).option(60, UEFI).option(93, &[0, 7]);
    let ipxe = machine(1).option(60, BIOS).option(93, &[0, 0]).option(77, b"iPXE");
    let mut out = String::new();
    for outcome in [
        machine(1).option(60, BIOS).option(93, &[0, 0]).to(engine, &world),
        uefi(1).to(engine, &world),
        uefi(3)
            .ciaddr("10.5.1.3")
            .to_boot_server(engine, &world, "10.5.1.3:4011"),
        machine(3)
            .option(60, BIOS)
            .server("10.5.0.1")
            .ciaddr("10.5.1.3")
            .to_boot_server(engine, &world, "10.5.1.3:68"),
        ipxe.to(engine, &world),
        machine(1)
            .option(60, b"HTTPClient:Arch:00016:UNDI:003001")
            .option(93, &[0, 16])
            .to(engine, &world),
    ] {
        gives_no_address(&outcome);
        out.push_str(&show(&outcome));
    }
    golden("proxy each firmware", &out);
}

#[test]
fn a_system_that_does_not_boot_from_the_network_gets_nothing() {
    let world = proxy(&[NODE]);
    let engine = &mut world.engine();
    for class in [&b"udhcp 1.35.0"[..], b"MSFT 5.0", b"PXEClien"] {
        let outcome = Packet::new(1, NODE.0).option(60, class).to(engine, &world);
        assert_eq!(left(&outcome), Some(Left::NotABoot));
    }
    let none = Packet::new(1, "52:54:00:00:09:09").to(engine, &world);
    assert_eq!(left(&none), Some(Left::NotABoot));
    assert!(!none.event.alarm && none.event.reason.contains("not a network boot"));
}

/// RFC 2131 section 4.3: what follows the OFFER belongs to the server that gave the address.
#[test]
fn addresses_are_left_to_the_other_server() {
    let world = proxy(&[NODE]);
    let engine = &mut world.engine();
    let from_it = |kind, address: &str| {
        let packet = Packet::new(kind, NODE.0).option(60, UEFI);
        packet.requested(address).server("10.5.0.9")
    };
    // A DECLINE names an address as well, and takes none. These come as firmware sends them: without an address of its own.
    let taken = |kind| {
        let request = Request::parse(&from_it(kind, "10.5.1.3").0).unwrap();
        let from = Ingress {
            interface: "eth0",
            source: "0.0.0.0:68".parse().unwrap(),
            port: 67,
        };
        let event = world.engine().handle(&request, from, NOW, &world).event;
        (event.booting, event.left, event.takes_address())
    };
    assert_eq!(taken(3), (true, Some(Left::Address), true));
    assert_eq!(taken(4), (true, Some(Left::Address), false));
    let good = from_it(3, "10.5.1.3").to(engine, &world);
    assert_eq!(left(&good), Some(Left::Address));
    assert_eq!(good.event.address, Some(ip("10.5.1.3")));
    assert!(!good.event.alarm && good.event.reason == "takes 10.5.1.3 from the DHCP server 10.5.0.9");
    for packet in [
        Packet::new(3, NODE.0).option(60, UEFI).ciaddr("10.5.1.3"),
        Packet::new(3, NODE.0).requested("10.5.1.3"),
        from_it(4, "10.5.1.3"),
        Packet::new(7, NODE.0).ciaddr("10.5.1.3").server("10.5.0.9"),
        Packet::new(8, NODE.0).ciaddr("10.5.1.3"),
        Packet::new(3, "52:54:00:00:09:09")
            .requested("10.5.7.7")
            .server("10.5.0.9"),
    ] {
        let outcome = packet.to(engine, &world);
        assert_eq!(left(&outcome), Some(Left::Address), "{}", outcome.event.reason);
        assert!(!outcome.event.alarm, "{}", outcome.event.reason);
    }
}

#[test]
fn a_node_with_another_address_than_its_name_says_is_an_alarm_with_its_remedy() {
    let world = proxy(&[NODE]);
    let wrong = |packet: Packet| {
        packet
            .requested("10.5.1.77")
            .server("10.5.0.9")
            .to(&mut world.engine(), &world)
    };
    let outcome = wrong(Packet::new(3, NODE.0).option(60, UEFI));
    assert_eq!(left(&outcome), Some(Left::Address));
    let DhcpEvent { alarm, reason, .. } = &outcome.event;
    let text = "r01n03 has 10.5.1.77, its name says 10.5.1.3: add a host reservation to your DHCP server (`rackstrap export kea`";
    assert!(*alarm && reason.starts_with(text), "{reason}");
    // A running system can ask for what it wants.
    assert!(!wrong(Packet::new(3, NODE.0)).event.alarm);
}

#[test]
fn an_offer_opens_a_boot_and_port_4011_does_not() {
    let world = proxy(&[NODE]);
    let engine = &mut world.engine();
    let uefi = |kind| Packet::new(kind, NODE.0).option(60, UEFI).option(93, &[0, 7]);
    assert!(uefi(1).to(engine, &world).event.completes_boot());
    for source in ["10.5.1.3:4011", "10.5.1.3:68"] {
        let outcome = uefi(3).ciaddr("10.5.1.3").to_boot_server(engine, &world, source);
        assert_eq!(outcome.event.answer, AnswerKind::Ack);
        assert!(!outcome.event.booting && !outcome.event.completes_boot());
        // It does not say where the machine is plugged in.
        assert!(outcome.event.boot_server && outcome.event.interface.is_empty());
        assert_eq!(outcome.event.address, Some(ip("10.5.1.3")));
    }
    assert!(!uefi(1).to(engine, &world).event.boot_server);
    // With a lease of its own, the ACK counts and the OFFER does not.
    let full = World::with(&[NODE]);
    let engine = &mut full.engine();
    assert!(!uefi(1).to(engine, &full).event.completes_boot());
    let ack = uefi(3).requested("10.5.1.3").server("10.5.0.1").to(engine, &full);
    assert!(ack.event.completes_boot());
}

/// PXE 2.1, section 2.2.3: the client has its address and asks for its file.
#[test]
fn port_4011_answers_firmware_in_proxy_subnets_only() {
    let world = proxy(&[NODE]);
    let engine = &mut world.engine();
    let request = |kind| Packet::new(kind, NODE.0).ciaddr("10.5.1.3");
    let uefi = |kind| request(kind).option(60, UEFI).option(93, &[0, 7]);
    let item = |kind: u8| uefi(3).option(43, &[71, 4, 0, kind, 0, 0, 255]);
    for (packet, source, why) in [
        // A stranger, and one that speaks for a node.
        (uefi(3), "192.0.2.7:4011", "in no subnet"),
        (uefi(3), "10.5.1.4:4011", "in the name of 10.5.1.3"),
        // Two ways without an address.
        (Packet::new(1, NODE.0).option(60, UEFI), "0.0.0.0:68", "in no subnet"),
        (uefi(1), "10.5.1.3:68", "not a discover"),
        (uefi(8), "10.5.1.3:68", "not a inform"),
        (uefi(7), "10.5.1.3:68", "not a release"),
        (request(3), "10.5.1.3:68", "without the class PXEClient"),
        (request(3).option(60, b"HTTPClient"), "10.5.1.3:68", "without the class"),
        (item(5), "10.5.1.3:68", "entry 5 of a boot menu"),
        (uefi(3).giaddr("10.5.0.254"), "10.5.1.3:67", "a relay, 10.5.0.254"),
    ] {
        let outcome = packet.to_boot_server(engine, &world, source);
        assert_eq!(left(&outcome), Some(Left::BootRequest), "{why}");
        assert!(outcome.event.reason.contains(why), "{why}: {}", outcome.event.reason);
        assert!(!outcome.event.alarm && !outcome.event.booting);
    }
    // The first entry of a menu, and a broken option 43, are the file itself.
    for packet in [
        item(0),
        uefi(3).option(43, &[71, 9, 0]),
        uefi(3).option(43, &[71, 1, 5]),
    ] {
        let outcome = packet.to_boot_server(engine, &world, "10.5.1.3:4011");
        assert_eq!(option(&outcome, 67).unwrap(), b"snponly.efi\0");
    }
    for part in [DhcpPart::Full, DhcpPart::Off] {
        let world = World::with(&[NODE]).answering(part);
        let outcome = uefi(3).to_boot_server(&mut world.engine(), &world, "10.5.1.3:4011");
        assert_eq!(left(&outcome), Some(Left::BootRequest));
        let reason = &outcome.event.reason;
        assert!(reason.contains(&format!("has dhcp = \"{part}\"")), "{reason}");
    }
}

#[test]
fn unknown_machines_get_their_loader_too() {
    let world = proxy(&[]);
    let unknown = |kind| {
        Packet::new(kind, "52:54:00:00:09:09")
            .option(60, UEFI)
            .option(93, &[0, 7])
    };
    let offer = unknown(1).to(&mut world.engine(), &world);
    assert_eq!(option(&offer, 67).unwrap(), b"snponly.efi\0");
    assert!(!offer.event.known && offer.event.reason.contains("an unknown machine"));
    let ack = unknown(3)
        .ciaddr("10.5.7.7")
        .to_boot_server(&mut world.engine(), &world, "10.5.7.7:4011");
    assert_eq!(option(&ack, 67).unwrap(), b"snponly.efi\0");
}

#[test]
fn a_node_gets_no_answer_at_port_4011_for_another_machine() {
    let world = proxy(&[NODE, ("52:54:00:77:01:02", "r01n04", "10.5.1.4")]);
    let engine = &mut world.engine();
    for hwaddr in [NODE.0, "52:54:00:00:09:09"] {
        let packet = Packet::new(3, hwaddr)
            .option(60, UEFI)
            .option(93, &[0, 7])
            .ciaddr("10.5.1.4");
        let outcome = packet.to_boot_server(engine, &world, "10.5.1.4:4011");
        assert_eq!(left(&outcome), Some(Left::BootRequest));
        let reason = &outcome.event.reason;
        assert!(reason.contains("for another machine"), "{reason}");
    }
}

/// The offer and the answer at port 4011 name the file that the site has for a vendor's machines.
#[test]
fn a_loader_of_the_site_counts_by_its_vendor_class() {
    let world = proxy(&[NODE]);
    let engine = &mut world.engine();
    let own = |kind| {
        let packet = Packet::new(kind, NODE.0).option(93, &[0, 7]);
        packet.option(60, b"PXEClient:Arch:00007:UNDI:009001")
    };
    let offer = own(1).to(engine, &world);
    assert_eq!(option(&offer, 67).unwrap(), b"loader.own/own.efi\0");
    let ack = own(3)
        .ciaddr("10.5.1.3")
        .to_boot_server(engine, &world, "10.5.1.3:4011");
    assert_eq!(option(&ack, 67).unwrap(), b"loader.own/own.efi\0");
}

#[test]
fn firmware_without_a_loader_is_named() {
    let world = proxy(&[NODE]);
    let arm = Packet::new(1, NODE.0).option(60, b"PXEClient:Arch:00010:UNDI:003016");
    let outcome = arm.to(&mut world.engine(), &world);
    assert_eq!(left(&outcome), Some(Left::NoLoader));
    assert_eq!(outcome.event.reason, "no loader for arm-efi (10), ARM 32-bit UEFI");
    let arm = Packet::new(3, NODE.0).option(60, b"PXEClient:Arch:00010:UNDI:003016");
    let outcome = arm
        .ciaddr("10.5.1.3")
        .to_boot_server(&mut world.engine(), &world, "10.5.1.3:4011");
    assert_eq!(left(&outcome), Some(Left::NoLoader));
    assert_eq!(
        outcome.event.reason,
        "no loader for the firmware that asks at port 4011"
    );
}

/// A relay sends the broadcast to both servers, and passes both answers on (RFC 1542 section 4.1.2).
#[test]
fn a_relay_brings_the_offer_to_its_client() {
    let world = proxy(&[("52:54:00:77:01:01", "r01n03", "10.6.1.3")]);
    let packet = Packet::new(1, NODE.0)
        .option(60, UEFI)
        .option(93, &[0, 7])
        .option(82, &[1, 2, b'g', b'7'])
        .giaddr("10.6.0.254");
    let outcome = packet.to(&mut world.engine(), &world);
    gives_no_address(&outcome);
    golden("proxy by a relay", &show(&outcome));
    // Its relay is not in the network that the node's name says.
    let elsewhere = proxy(&[NODE]);
    let outcome = packet.to(&mut elsewhere.engine(), &elsewhere);
    assert!(
        outcome.reply.is_none() && outcome.event.alarm,
        "{}",
        outcome.event.reason
    );
    assert!(outcome.event.reason.contains("not in 10.6.0.0/16"));
}

#[test]
fn a_subnet_that_is_off_gets_nothing_and_asks_nothing() {
    let mut world = World::with(&[NODE]);
    Arc::make_mut(&mut world.network).subnets[1].dhcp = DhcpPart::Off;
    let engine = &mut world.engine();
    for kind in [1, 3] {
        let packet = Packet::new(kind, NODE.0)
            .option(60, UEFI)
            .requested("10.6.1.3")
            .giaddr("10.6.0.254");
        let outcome = packet.to(engine, &world);
        assert_eq!(left(&outcome), Some(Left::Off));
        assert_eq!(
            (outcome.event.reason.as_ref(), outcome.event.part),
            ("dhcp = \"off\" in 10.6.0.0/16", DhcpPart::Off)
        );
    }
    // The others are served as before.
    assert_eq!(given(&Packet::new(1, NODE.0).to(engine, &world)), Some(ip(NODE.2)));
}

#[test]
fn a_machine_that_the_site_is_silent_to_gets_nothing() {
    let mut world = proxy(&[]);
    world.silent = vec![NODE.0.parse().unwrap()];
    let uefi = |kind| Packet::new(kind, NODE.0).option(60, UEFI);
    let outcome = uefi(1).to(&mut world.engine(), &world);
    assert_eq!(
        (left(&outcome), outcome.event.reason.as_ref()),
        (None, "told to be silent")
    );
    let outcome = uefi(3)
        .ciaddr("10.5.1.3")
        .to_boot_server(&mut world.engine(), &world, "10.5.1.3:68");
    assert_eq!(left(&outcome), Some(Left::BootRequest));
}

#[test]
fn boards_beside_another_dhcp_server() {
    let world = World::with(&[("b8:27:eb:86:96:f5", "pi3", "10.5.1.13")]).answering(DhcpPart::Proxy);
    let class = b"PXEClient:Arch:00000:UNDI:002001";
    let pi = Packet::new(1, "b8:27:eb:86:96:f5")
        .option(93, &[0, 0])
        .option(60, class);
    let outcome = pi.to(&mut world.engine(), &world);
    assert_eq!(
        option(&outcome, 43).unwrap(),
        rackstrap_base::firmware::RASPBERRY_PI_MENU
    );
    assert_eq!(
        (option(&outcome, 66).unwrap(), option(&outcome, 67)),
        (b"10.5.0.1".to_vec(), None)
    );
    assert!(outcome.event.completes_boot());
    // U-Boot would take the offer without an address for the whole answer.
    let u_boot = Packet::new(1, "52:54:00:00:01:03")
        .option(93, &[0, 22])
        .option(60, b"U-Boot.armv8");
    let outcome = u_boot.to(&mut world.engine(), &world);
    assert!(outcome.reply.is_none() && outcome.event.reason.contains("next-server"));
    assert_eq!(left(&outcome), Some(Left::UBoot));
    // It is counted on its own.
    let counters = Counters::default();
    assert_eq!((counters.left(Left::NotABoot), counters.left(Left::UBoot)), (1, 1));
}
