//! Tests of what packets tell the rest of the daemon.

use super::*;
use crate::testkit;
use rackstrap_model::testing::card;
use rackstrap_registries::testing::add;

#[test]
fn timelines_call_packets_as_the_dhcp_engine_does() {
    let address = Ipv4Addr::LOCALHOST;
    let kinds = [
        Kind::Discover,
        Kind::Selecting {
            server: address,
            address,
        },
        Kind::InitReboot { address },
        Kind::Extend { address },
        Kind::Decline { address },
        Kind::Release { address },
        Kind::Inform,
    ];
    assert_eq!(kinds.map(message_of), DhcpMessage::ALL);
    for kind in kinds {
        assert_eq!(message_of(kind).to_string(), kind.to_string());
    }
}

/// UEFI asks for its file at port 4011 of the daemon's address, from `address`.
fn at_port_4011(hwaddr: HwAddr, address: Ipv4Addr) -> DhcpEvent {
    DhcpEvent {
        arch: Some(7),
        vendor_class: "PXEClient:Arch:00007:UNDI:003016".to_owned(),
        interface: String::new(),
        reason: "what r01n01 boots, snponly.efi, asked for at port 4011".into(),
        part: DhcpPart::Proxy,
        boot_server: true,
        ..testkit::dhcp_ack(hwaddr, address)
    }
}

#[tokio::test]
async fn port_4011_tells_the_timeline_of_the_node_that_asks_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let shared = testkit::daemon(dir.path(), "");
    shared.nodes.change(&[add("r01n01")], "test", Timestamp::now()).unwrap();
    let authority = DhcpAuthority::new(shared.clone());
    let rows = |subject: Subject| -> Vec<(String, u64)> {
        let events = shared.recorder.of(&subject).into_iter();
        let packets = events.filter(|event| {
            matches!(
                event.step,
                EventKind::DhcpClient(_) | EventKind::Dhcp(_) | EventKind::DhcpDoubted(_)
            )
        });
        packets.map(|event| (event.detail, event.count)).collect()
    };
    let node = || rows(Subject::Node("r01n01".to_owned()));
    let (own, dynamic) = (Ipv4Addr::new(10, 5, 1, 1), Ipv4Addr::new(10, 5, 254, 9));
    let stranger = HwAddr([0x52, 0x54, 0, 0, 9, 9]);
    let refused = DhcpEvent {
        answer: AnswerKind::Silent,
        left: Some(Left::BootRequest),
        ..at_port_4011(card("r01n01"), own)
    };
    authority.observe(&refused);
    // Not the node's address, and not a node.
    authority.observe(&at_port_4011(card("r01n01"), dynamic));
    authority.observe(&at_port_4011(stranger, dynamic));
    assert!(node().is_empty() && rows(Subject::Machine(stranger)).is_empty());

    // Each architecture that a user sends is the same row.
    for arch in [7, 4711, 65_535] {
        let event = DhcpEvent {
            arch: Some(arch),
            ..at_port_4011(card("r01n01"), own)
        };
        authority.observe(&event);
    }
    let told = "ack 10.5.1.1: what r01n01 boots, snponly.efi, asked for at port 4011";
    assert_eq!(node(), [(told.to_owned(), 3_u64)]);
    assert_eq!(shared.firmware.of(card("r01n01")), None);
    // The address that another server gave to it is its own, too.
    shared.firmware.note_address(card("r01n01"), dynamic);
    authority.observe(&at_port_4011(card("r01n01"), dynamic));
    assert_eq!(node().len(), 2);
}

/// Firmware or iPXE of a machine takes `address` from another DHCP server.
fn takes(hwaddr: HwAddr, address: Ipv4Addr) -> DhcpEvent {
    let server = Ipv4Addr::new(10, 5, 0, 9);
    DhcpEvent {
        booting: true,
        message: Kind::Selecting { server, address },
        answer: AnswerKind::Silent,
        part: DhcpPart::Proxy,
        left: Some(Left::Address),
        known: false,
        ..testkit::dhcp_ack(hwaddr, address)
    }
}

#[tokio::test]
async fn a_waiting_machine_has_the_address_that_its_own_request_named() {
    let dir = tempfile::tempdir().unwrap();
    let shared = testkit::daemon(dir.path(), "");
    shared.nodes.change(&[add("r01n01")], "test", Timestamp::now()).unwrap();
    let authority = DhcpAuthority::new(shared.clone());
    let (first, second) = (Ipv4Addr::new(10, 5, 254, 9), Ipv4Addr::new(10, 5, 254, 10));
    let [one, two] = [1, 2].map(|n| HwAddr([0x52, 0x54, 0, 0, 9, n]));
    let at = |address| shared.firmware.waiting_at(address);
    authority.observe(&takes(one, first));
    assert_eq!((at(first), at(second)), (Some(one), None));
    // A DISCOVER and a DECLINE name addresses, too, and take none.
    for message in [Kind::Discover, Kind::Decline { address: second }] {
        authority.observe(&DhcpEvent {
            message,
            ..takes(two, second)
        });
    }
    assert_eq!(at(second), None);
    // At port 4011 a user can ask.
    authority.observe(&DhcpEvent {
        boot_server: true,
        ..takes(two, second)
    });
    assert_eq!(at(second), None);
    authority.observe(&takes(one, second));
    assert_eq!((at(first), at(second)), (None, Some(one)));
    // The address goes to a system that does not boot from here, or to a node.
    for other in [
        DhcpEvent {
            booting: false,
            ..takes(two, second)
        },
        takes(card("r01n01"), second),
    ] {
        authority.observe(&takes(one, second));
        assert_eq!(at(second), Some(one));
        authority.observe(&other);
        assert_eq!(at(second), None);
    }
}
