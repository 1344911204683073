//! What real firmware sent, and what it gets.

use super::golden;
use crate::{NetRoot, testing::*};

const NODE: (&str, &str, &str) = ("52:54:00:77:01:01", "r01n03", "10.5.1.3");

/// Answers all requests of a capture. Those that chose the captured server now choose ours, and the address it offers.
fn replay(name: &str, world: &World, offered: [u8; 4]) -> String {
    let mut engine = world.engine();
    let mut out = String::new();
    for mut bytes in requests(name) {
        // Captured against dnsmasq at 10.77.0.1, which offered 10.77.200.30.
        for (from, to) in [
            ([54, 4, 10, 77, 0, 1], [10, 5, 0, 1]),
            ([50, 4, 10, 77, 200, 30], offered),
            // Against QEMU's own network.
            ([54, 4, 10, 0, 2, 2], [10, 5, 0, 1]),
            ([50, 4, 10, 0, 2, 15], offered),
        ] {
            if let Some(at) = bytes.windows(6).position(|w| w == from) {
                bytes[at + 2..at + 6].copy_from_slice(&to);
            }
        }
        out.push_str(&show(&Packet(bytes).to(&mut engine, world)));
    }
    out
}

#[test]
fn captures_of_a_node() {
    let world = World::with(&[NODE]);
    for name in [
        "bios-undionly.kpxe",
        "bios-pxelinux.0",
        "uefi-snponly.efi",
        "uefi-grubnetx64.efi.signed",
    ] {
        golden(&format!("node {name}"), &replay(name, &world, [10, 5, 1, 3]));
    }
}

/// GRUB on a disk is told where the server is, and no file.
#[test]
fn grub_on_a_disk() {
    let world = World::with(&[("52:54:00:12:34:56", "r01n03", "10.5.1.3")]);
    let text = replay("uefi-grub-on-disk", &world, [10, 5, 1, 3]);
    golden("node uefi-grub-on-disk", &text);
    // What another client asks for differs, or names it.
    let of = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = requests("uefi-grub-on-disk").remove(1);
        change(&mut bytes);
        crate::request::Request::parse(&bytes).unwrap().grub
    };
    assert!(of(&|_| {}));
    let list = |bytes: &[u8]| bytes.windows(2).position(|w| w == [55, 8]).unwrap();
    assert!(!of(&|bytes| {
        let at = list(bytes);
        bytes[at + 2] = 28;
    }));
    assert!(!of(&|bytes| {
        let at = list(bytes) + 10;
        bytes[at..at + 6].copy_from_slice(&[12, 3, b'a', b'b', b'c', 255]);
    }));
    // Without Debian's further option.
    assert!(of(&|bytes| {
        let at = list(bytes);
        bytes[at + 1] = 7;
        bytes[at + 9] = 255;
    }));
}

#[test]
fn captures_of_an_unknown_machine() {
    let world = World::default();
    for name in ["bios-undionly.kpxe", "uefi-snponly.efi"] {
        golden(&format!("unknown {name}"), &replay(name, &world, [10, 5, 255, 1]));
    }
}

/// OVMF by PXE, its iPXE, OVMF by HTTP boot, its iPXE; captured against this engine, so they chose what it offers.
#[test]
fn http_boot() {
    let world = World::default();
    golden("http boot", &replay("uefi-http-boot", &world, [10, 5, 255, 1]));
}

/// Captured against this engine, too: iPXE's ROM under OVMF, under SeaBIOS a ROM that only loads a file, then `undionly.kpxe`, AAVMF by PXE,
/// and Debian's U-Boot for x86, which sends no option 93.
#[test]
fn captures_of_other_firmware() {
    let world = World::with(&[("52:54:00:00:01:01", "r01n01", "10.5.1.1")]);
    for name in ["uefi-ipxe-rom", "bios-plain-rom", "arm64-uefi", "u-boot-x86"] {
        golden(&format!("node {name}"), &replay(name, &world, [10, 5, 1, 1]));
    }
}

/// UEFI that says what it is in its vendor class only (PXE 2.1, table 2-1).
#[test]
fn the_vendor_class_counts_where_option_93_is_missing() {
    let world = World::with(&[NODE]);
    let class = b"PXEClient:Arch:00007:UNDI:003016";
    let packet = Packet::new(1, NODE.0).option(60, class);
    let outcome = packet.to(&mut world.engine(), &world);
    assert_eq!(option(&outcome, 67).unwrap(), b"snponly.efi\0");
    assert_eq!(outcome.event.arch, Some(7));
    // Option 93 says it better.
    let both = packet.option(93, &[0, 0]).to(&mut world.engine(), &world);
    assert_eq!(option(&both, 67).unwrap(), b"undionly.kpxe\0");
}

/// A DISCOVER with the options that PXE 2.1 table 2-1 lists, as firmware of that architecture type sends them.
fn firmware(arch: u16, class: &str) -> Packet {
    Packet::new(1, NODE.0)
        .broadcast()
        .option(
            55,
            &[
                1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97,
                128,
            ],
        )
        .option(57, &1472u16.to_be_bytes())
        .option(97, &[&[0][..], &[0x11; 16]].concat())
        .option(94, &[1, 3, 16])
        .option(93, &arch.to_be_bytes())
        .option(60, format!("{class}:Arch:{arch:05}:UNDI:003016").as_bytes())
}

/// What each kind of firmware is offered, byte by byte: made by hand where no capture exists.
#[test]
fn each_firmware_is_offered_its_loader() {
    let world = World::with(&[NODE]);
    let mut out = String::new();
    let ipxe = |packet: Packet| packet.option(77, b"iPXE").option(175, &[0x15, 1, 1, 0x13, 1, 1]);
    for (name, packet) in [
        ("BIOS", firmware(0, "PXEClient")),
        ("x64 UEFI, 7", firmware(7, "PXEClient")),
        ("x64 UEFI, 9", firmware(9, "PXEClient")),
        ("x64 UEFI by HTTP, 16", firmware(16, "HTTPClient")),
        ("arm64 UEFI, 11", firmware(11, "PXEClient")),
        ("iPXE in the ROM of a card, BIOS", ipxe(firmware(0, "PXEClient"))),
        ("iPXE in the ROM of a card, x64 UEFI", ipxe(firmware(7, "PXEClient"))),
        ("32-bit ARM, for which there is no loader", firmware(10, "PXEClient")),
        (
            "a vendor's own loader",
            Packet::new(1, NODE.0)
                .option(93, &[0, 7])
                .option(60, b"PXEClient:Arch:00007:UNDI:009001"),
        ),
    ] {
        out.push_str(&format!("== {name}\n{}", show(&packet.to(&mut world.engine(), &world))));
    }
    golden("firmware", &out);
}

/// A DISCOVER of a Raspberry Pi, after the captures in github.com/raspberrypi/firmware issues 871 and 941, and rpi-eeprom issue 58: no
/// board was at hand.
fn raspberry_pi(kind: u8, hwaddr: &str, guid: &[u8; 16]) -> Packet {
    Packet::new(kind, hwaddr)
        .option(55, &[43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66, 1, 3])
        .option(93, &[0, 0])
        .option(94, &[1, 2, 1])
        .option(97, &[&[0][..], guid].concat())
        .option(60, b"PXEClient:Arch:00000:UNDI:002001")
}

const PI_3: (&str, &str, &str) = ("b8:27:eb:86:96:f5", "pi3", "10.5.1.13");
const PI_4: (&str, &str, &str) = ("dc:a6:32:01:36:c2", "pi4", "10.5.1.14");
const PI_4_GUID: &[u8; 16] = b"RPi4\x11\x31\xc0\x00\x32\x01\x36\xc2\x0d\xdb\xfe\x9f";

/// Boards ask TFTP by names of their own: they are told where it is, and by what they know an offer for them.
#[test]
fn boards_are_offered_the_tftp_server_and_no_file() {
    let world = World::with(&[PI_3, PI_4, NODE]);
    let serial_four_times: [u8; 16] = [0xf5, 0x96, 0x86, 0x8d].repeat(4).try_into().unwrap();
    let u_boot = |kind| {
        Packet::new(kind, NODE.0)
            .option(57, &576u16.to_be_bytes())
            .option(93, &[0, 0x16])
            .option(94, &[1, 0, 0])
            .option(60, b"U-Boot.armv8")
            .option(55, &[1, 3, 6, 12, 17])
    };
    let mut out = String::new();
    for (name, packet) in [
        ("Raspberry Pi 3", raspberry_pi(1, PI_3.0, &serial_four_times)),
        ("Raspberry Pi 3, first ROM", raspberry_pi(1, PI_3.0, &[0x44; 16])),
        ("Raspberry Pi 4", raspberry_pi(1, PI_4.0, PI_4_GUID)),
        (
            "REQUEST of a Raspberry Pi 4, without a class",
            Packet::new(3, PI_4.0)
                .requested(PI_4.2)
                .server("10.5.0.1")
                .option(55, &[43, 60, 66, 67, 1, 3]),
        ),
        (
            "REQUEST of a Raspberry Pi 4, with its GUID only",
            Packet::new(3, PI_4.0)
                .requested(PI_4.2)
                .server("10.5.0.1")
                .option(97, &[&[0][..], PI_4_GUID].concat()),
        ),
        ("U-Boot", u_boot(1)),
        ("U-Boot, REQUEST", u_boot(3).requested(NODE.2).server("10.5.0.1")),
    ] {
        out.push_str(&format!("== {name}\n{}", show(&packet.to(&mut world.engine(), &world))));
    }
    golden("boards", &out);
}

/// What opens the window for a boot script.
#[test]
fn an_offer_alone_completes_the_boot_of_a_raspberry_pi() {
    let world = World::with(&[PI_3, PI_4, NODE]);
    let completes = |packet: Packet| packet.to(&mut world.engine(), &world).event.completes_boot();
    assert!(completes(raspberry_pi(1, PI_3.0, &[0x44; 16])));
    assert!(completes(raspberry_pi(1, PI_4.0, PI_4_GUID)));
    assert!(!completes(firmware(0, "PXEClient")));
    // A system on such a board: its DHCP client is not firmware.
    let system = Packet::new(1, PI_4.0).option(60, b"dhcpcd-9.4.1:Linux-6.1:aarch64:BCM2835");
    assert!(!completes(system));
    assert!(!completes(Packet::new(1, PI_4.0)));
    assert!(!completes(Packet::new(3, PI_4.0).requested(PI_4.2).server("10.5.0.1")));
    // From a user's port or a node's address it is not firmware either.
    let request = crate::Request::parse(&raspberry_pi(1, PI_4.0, PI_4_GUID).0).unwrap();
    let from = crate::Ingress {
        interface: "eth0",
        source: "10.5.1.14:68".parse().unwrap(),
        port: 67,
    };
    assert!(
        !world
            .engine()
            .handle(&request, from, NOW, &world)
            .event
            .completes_boot()
    );
}

/// Two boards with the ROM's constant in place of a GUID are two machines.
#[test]
fn the_constant_guid_of_raspberry_pis_identifies_none() {
    let world = World::default();
    let mut engine = world.engine();
    let offers: Vec<_> = ["b8:27:eb:00:00:01", "b8:27:eb:00:00:02"]
        .map(|card| given(&raspberry_pi(1, card, &[0x44; 16]).to(&mut engine, &world)))
        .to_vec();
    assert!(offers[0].is_some() && offers[0] != offers[1], "{offers:?}");
}

#[test]
fn an_ipxe_without_http_gets_a_file() {
    let world = World::with(&[NODE]);
    let packet = Packet::new(1, NODE.0).option(93, &[0, 0]).option(77, b"iPXE");
    let without = packet
        .clone()
        .option(175, &[0x15, 1, 1])
        .to(&mut world.engine(), &world);
    assert_eq!(option(&without, 67).unwrap(), b"undionly.kpxe");
    let with = packet
        .option(175, &[0x15, 1, 1, 0x13, 1, 1])
        .to(&mut world.engine(), &world);
    assert_eq!(option(&with, 67).unwrap(), b"http://10.5.0.1/boot/52:54:00:77:01:01");
    for outcome in [without, with] {
        assert_eq!(option(&outcome, 175).unwrap(), [0xb0, 1, 1]);
        assert_eq!(option(&outcome, 60), None);
    }
}

#[test]
fn an_operating_system_gets_no_boot_file() {
    let world = World::with(&[NODE]);
    let outcome = Packet::new(1, NODE.0)
        .option(60, b"udhcp 1.35.0")
        .to(&mut world.engine(), &world);
    assert_eq!((option(&outcome, 67), option(&outcome, 60)), (None, None));
    assert!(!outcome.event.booting && outcome.event.known);
}

#[test]
fn only_what_is_asked_for_and_what_everybody_needs() {
    let world = World::with(&[NODE]);
    let outcome = Packet::new(1, NODE.0)
        .option(55, &[1, 3, 12])
        .to(&mut world.engine(), &world);
    assert_eq!(option(&outcome, 12).unwrap(), b"r01n03");
    for absent in [6, 15, 28, 42] {
        assert_eq!(option(&outcome, absent), None, "option {absent}");
    }
}

/// RFC 2132 section 9.10, with the longest things that a reply can hold.
#[test]
fn replies_fit_the_client() {
    let mut world = World::with(&[NODE]);
    let network = std::sync::Arc::make_mut(&mut world.network);
    network.subnets[0].dns = vec![ip("10.5.0.1"); 60];
    network.subnets[0].ntp = vec![ip("10.5.0.2"); 60];
    let info: Vec<u8> = [&[1, 98][..], &[7; 98], &[2, 98], &[8; 98]].concat();
    let packet = Packet::new(1, NODE.0)
        .option(93, &[0, 0])
        .option(60, b"PXEClient:Arch:00000:UNDI:002001")
        .option(82, &info);
    for (max, want_dns) in [
        (None, false),
        (Some(300u16), false),
        (Some(576), false),
        (Some(1400), true),
    ] {
        let packet = match max {
            None => packet.clone(),
            Some(max) => packet.clone().option(57, &max.to_be_bytes()),
        };
        let outcome = packet.to(&mut world.engine(), &world);
        let bytes = &outcome.reply.as_ref().unwrap().bytes;
        assert!(
            bytes.len() + 28 <= usize::from(max.unwrap_or(576).max(576)),
            "{}",
            bytes.len()
        );
        assert_eq!(option(&outcome, 6).is_some(), want_dns, "{max:?}");
        assert_eq!(option(&outcome, 82).unwrap(), info);
        assert!(option(&outcome, 67).is_some() && option(&outcome, 51).is_some());
    }
}

/// FreeBSD's loader asks for itself, with the options that it writes (`bootp_fill_request` in stand/libsa/bootp.c of its sources): the
/// answer has the root path, and variables in options that only that loader reads.
#[test]
fn the_loader_of_freebsd_gets_its_root_path_and_variables() {
    let root = NetRoot {
        path: "10.5.0.1:/freebsd@3".to_owned(),
        settings: vec![
            "boot.nfsroot.options=nolockd".to_owned(),
            "rackstrap.url=http://10.5.0.1:80".to_owned(),
        ],
    };
    let world = World {
        root: Some(root.clone()),
        ..World::with(&[NODE])
    };
    let libsa = |kind| {
        Packet::new(kind, NODE.0)
            .option(60, b"PXEClient")
            .option(77, b"\x07FreeBSD")
            .option(55, &[17, 12, 16, 3, 1, 26, 54])
    };
    let mut engine = world.engine();
    let offer = libsa(1).to(&mut engine, &world);
    assert!(offer.event.freebsd_loader && offer.event.booting);
    let ack = libsa(3)
        .requested("10.5.1.3")
        .server("10.5.0.1")
        .to(&mut engine, &world);
    for outcome in [&offer, &ack] {
        assert_eq!(option(outcome, 17).unwrap(), root.path.as_bytes());
        assert_eq!(option(outcome, 250).unwrap(), root.settings[0].as_bytes());
        assert_eq!(option(outcome, 251).unwrap(), root.settings[1].as_bytes());
        let reply = outcome.reply.as_ref().unwrap();
        assert_eq!(
            reply.bytes[20..24],
            [10, 5, 0, 1],
            "the loader takes `siaddr` for the server of its root"
        );
        assert!(reply.bytes.len() <= 548, "it reads 576 bytes with their headers");
    }
    // The firmware before it has the root path as well, and other options of that number are its own.
    let firmware = firmware(0, "PXEClient").to(&mut engine, &world);
    assert_eq!(option(&firmware, 17).unwrap(), root.path.as_bytes());
    assert_eq!(option(&firmware, 250), None);
    assert!(!firmware.event.freebsd_loader);
    // Too many settings do not spill into the end option.
    let many = World {
        root: Some(NetRoot {
            settings: vec!["a=b".to_owned(); 9],
            ..root
        }),
        ..World::with(&[NODE])
    };
    let outcome = libsa(1).to(&mut many.engine(), &many);
    assert_eq!(option(&outcome, 254).unwrap(), b"a=b");
}
