//! Packets that nobody should send.

use crate::{testing::*, *};
use dhcproto::{Decodable, Decoder, v4::Message};
use proptest::{collection::vec, prelude::*};
use std::net::SocketAddrV4;

const MAC: &str = "52:54:00:00:01:03";

fn why(packet: &Packet) -> Malformed {
    Request::parse(&packet.0).unwrap_err()
}

#[test]
fn each_is_dropped_with_its_reason() {
    let discover = Packet::new(1, MAC);
    let mut hlen = discover.clone();
    hlen.0[2] = 17;
    assert_eq!(why(&hlen), Malformed::HardwareType);
    assert_eq!(why(&Packet(vec![])), Malformed::TooShort);
    assert_eq!(why(&Packet(vec![1; 65_507])), Malformed::TooLong);
    assert_eq!(why(&Packet(discover.0[..240].to_vec())), Malformed::NoMessageType);
    assert_eq!(why(&discover.clone().option(53, &[1])), Malformed::BadMessageType);
    for kind in [0, 2, 5, 6, 9, 255] {
        assert_eq!(why(&Packet::new(kind, MAC)), Malformed::BadMessageType);
    }
    let mut cut = discover.clone();
    cut.0.extend_from_slice(&[12, 200, 1]);
    assert_eq!(why(&cut), Malformed::OptionTruncated);
    let twice = discover.clone().requested("10.5.1.3").requested("10.5.1.3");
    assert_eq!(why(&twice), Malformed::OptionLength);
    assert_eq!(why(&discover.option(54, &[1, 2, 3])), Malformed::OptionLength);
    for kind in [3, 4, 7] {
        assert_eq!(why(&Packet::new(kind, MAC)), Malformed::NoAddress);
        assert_eq!(why(&Packet::new(kind, MAC).requested("0.0.0.0")), Malformed::NoAddress);
    }
}

#[test]
fn odd_values_are_read_as_far_as_they_make_sense() {
    let packet = Packet::new(1, MAC)
        .option(12, &[0xff; 255])
        .option(97, &[1; 17])
        .option(57, &[1])
        .option(82, &[])
        .option(77, b"\x04iPXE")
        .option(93, &[0, 9, 0, 7]);
    let request = Request::parse(&packet.0).unwrap();
    assert_eq!(request.arch, Some(9));
    assert!(request.ipxe && !request.ipxe_without_http);
    assert_eq!((request.uuid, request.max_size, request.relay_info), (None, None, None));
    assert_eq!(request.host_name.unwrap().chars().count(), 64);
}

/// Firmware that sends option 93 or 97 in another form than RFC 4578 wants still boots.
#[test]
fn odd_architectures_and_uuids_still_get_a_loader() {
    let world = World::with(&[(MAC, "r01n03", "10.5.1.3")]);
    let class = b"PXEClient:Arch:00007:UNDI:003016";
    let guid = [&[0][..], &[0x11; 16]].concat();
    let uuid = uuid::Uuid::from_bytes([0x11; 16]);
    let plain = || Packet::new(1, MAC).option(60, class);
    for (what, packet, arch, id) in [
        (
            "all in order",
            plain().option(93, &[0, 7]).option(97, &guid),
            7,
            Some(uuid),
        ),
        (
            "several values: the first",
            plain().option(93, &[0, 9, 0, 7, 0, 0]).option(97, &guid),
            9,
            Some(uuid),
        ),
        (
            "several values: the first one of the registry",
            plain().option(93, &[0xff, 0xff, 0x10, 1, 0, 7]).option(97, &guid),
            7,
            Some(uuid),
        ),
        (
            "repeated: the first one of the registry",
            plain()
                .option(93, &[0xff, 0xff])
                .option(93, &[0, 9])
                .option(93, &[0, 7]),
            9,
            None,
        ),
        (
            "repeated, the same",
            plain().option(93, &[0, 7]).option(93, &[0, 7]),
            7,
            None,
        ),
        (
            "repeated, another",
            plain().option(93, &[0, 9]).option(93, &[0, 0]),
            9,
            None,
        ),
        // RFC 3396: the pieces of a repeated option are one value.
        (
            "cut into two pieces",
            plain().option(93, &[0]).option(93, &[7]),
            7,
            None,
        ),
        ("odd length", plain().option(93, &[0, 9, 0]), 9, None),
        ("one byte: the class", plain().option(93, &[9]), 7, None),
        ("empty: the class", plain().option(93, &[]), 7, None),
        ("in the class only", plain().option(97, &guid), 7, Some(uuid)),
        (
            "GUID too short",
            plain().option(93, &[0, 7]).option(97, &guid[..16]),
            7,
            None,
        ),
        (
            "GUID too long",
            plain().option(93, &[0, 7]).option(97, &[&guid[..], &[1]].concat()),
            7,
            None,
        ),
        (
            "GUID of another type",
            plain().option(93, &[0, 7]).option(97, &[&[1][..], &guid[1..]].concat()),
            7,
            None,
        ),
        ("GUID empty", plain().option(93, &[0, 7]).option(97, &[]), 7, None),
        ("no GUID", plain().option(93, &[0, 7]), 7, None),
    ] {
        let outcome = packet.to(&mut world.engine(), &world);
        assert_eq!((outcome.event.arch, outcome.event.uuid), (Some(arch), id), "{what}");
        assert!(outcome.event.booting, "{what}");
        assert_eq!(option(&outcome, 67).unwrap(), b"snponly.efi\0", "{what}");
        // RFC 4578 section 2.3: echoed where it was understood.
        assert_eq!(option(&outcome, 97), id.map(|_| guid.clone()), "{what}");
        readable(&outcome);
    }
    // A class of noise is kept in a form that a terminal takes.
    let noise = Packet::new(1, MAC)
        .option(60, &[0x1b; 255])
        .to(&mut world.engine(), &world);
    assert_eq!(noise.event.vendor_class.trim(), "");
}

#[test]
fn options_in_overloaded_fields_count() {
    let mut packet = Packet::new(1, MAC).option(52, &[3]);
    packet.0[108..112].copy_from_slice(&[93, 2, 0, 7]);
    packet.0[112] = 255;
    packet.0[44..55].copy_from_slice(b"\x3c\x09PXEClient");
    packet.0[55] = 255;
    let request = Request::parse(&packet.0).unwrap();
    assert_eq!((request.arch, request.pxe_client), (Some(7), true));
}

/// Every reply must be one that clients can read, whatever was asked.
fn readable(outcome: &Outcome) {
    let Some(reply) = &outcome.reply else {
        assert_eq!(outcome.event.answer, AnswerKind::Silent);
        return;
    };
    show(outcome);
    assert!((300..=1472).contains(&reply.bytes.len()), "{}", reply.bytes.len());
    let message = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
    assert!(message.opts().msg_type().is_some());
    assert_eq!(message.hlen(), 6);
}

fn some_world() -> World {
    World::with(&[(MAC, "r01n03", "10.5.1.3")])
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..700)) {
        let _ = Request::parse(&bytes);
    }

    /// Well-formed headers with any options: the interesting part of the space.
    #[test]
    fn no_options_panic_and_replies_parse(
        header in vec(any::<u8>(), 24),
        known in any::<bool>(),
        kind in prop_oneof![Just(1u8), Just(3), Just(4), Just(7), Just(8)],
        addresses in vec(prop_oneof![Just("10.5.1.3"), Just("10.5.255.1"), Just("10.6.0.9"), Just("0.0.0.0")], 4),
        options in vec((any::<u8>(), vec(any::<u8>(), 0..60)), 0..12),
    ) {
        let world = some_world();
        let mut packet = Packet::new(kind, if known { MAC } else { "52:54:00:00:09:09" })
            .ciaddr(addresses[0])
            .giaddr(addresses[1]);
        packet.0[4..12].copy_from_slice(&header[..8]);
        if addresses[2] != "0.0.0.0" {
            packet = packet.requested(addresses[2]);
        }
        for (code, value) in options {
            packet = packet.option(code, &value);
        }
        if let Ok(request) = Request::parse(&packet.0) {
            let source = SocketAddrV4::new(request.ciaddr, 68);
            let outcome = world.engine().handle(&request, Ingress { interface: "eth0", source, port: 67 }, NOW, &world);
            readable(&outcome);
        }
    }

    /// No reply is larger than its client takes, whatever a relay adds.
    #[test]
    fn replies_fit_their_clients(
        info in vec(any::<u8>(), 0..9000),
        max in any::<u16>(),
        client_id in vec(any::<u8>(), 0..600),
    ) {
        let world = some_world();
        let mut packet = Packet::new(1, MAC).giaddr("10.5.0.254").option(57, &max.to_be_bytes());
        for (code, value) in [(61, &client_id), (82, &info)] {
            for piece in value.chunks(255) {
                packet = packet.option(code, piece);
            }
        }
        if let Ok(request) = Request::parse(&packet.0) {
            let from = Ingress { interface: "eth0", source: SocketAddrV4::new(request.giaddr, 67), port: 67 };
            let outcome = world.engine().handle(&request, from, NOW, &world);
            readable(&outcome);
            let length = outcome.reply.map_or(0, |reply| reply.bytes.len());
            prop_assert!(length <= usize::from(max.clamp(576, 1500)) - 28, "{length} of {max}");
        }
    }

    /// One byte of a captured request changed.
    #[test]
    fn a_damaged_capture_is_answered_readably_or_not_at_all(which in 0usize..4, at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let world = some_world();
        let mut bytes = requests("bios-undionly.kpxe").swap_remove(which);
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(request) = Request::parse(&bytes) {
            let source = SocketAddrV4::new(request.ciaddr, 68);
            readable(&world.engine().handle(&request, Ingress { interface: "eth0", source, port: 67 }, NOW, &world));
        }
    }
}
