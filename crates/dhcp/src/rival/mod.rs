//! Another DHCP server on one of our networks: what its replies say, and the question that it answers (pure).
//!
//! The question is a DISCOVER of a machine that does not exist. Whoever makes an offer is named; none is taken.

pub(super) mod task;

use super::{
    guard::{HEADER_LEN, MAGIC_COOKIE},
    options::{Options, code},
};
use rackstrap_wire::HwAddr;
use std::net::Ipv4Addr;

/// Bytes of an IPv4 header without options, and of a UDP header.
const IPV4: usize = 20;
const UDP: usize = 8;
/// Client identifier of the question (option 61), for the log of the server that is asked: type 0 is not a hardware address.
const CLIENT_ID: &[u8] = b"\0rackstrap looks for DHCP servers";

/// The machine that does not exist: a locally administered address, whose last four bytes are `random`.
pub fn nobody(random: [u8; 4]) -> HwAddr {
    let [a, b, c, d] = random;
    HwAddr([0x02, 0x72, a, b, c, d])
}

/// The DHCPDISCOVER of the machine `hwaddr`, answered by broadcast.
pub fn question(hwaddr: HwAddr, xid: u32) -> Vec<u8> {
    let mut message = vec![0; HEADER_LEN];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[10] = 0x80;
    message[28..34].copy_from_slice(&hwaddr.0);
    message[236..240].copy_from_slice(&MAGIC_COOKIE);
    message.extend([code::MESSAGE_TYPE, 1, 1]);
    message.extend([code::CLIENT_ID, CLIENT_ID.len() as u8]);
    message.extend(CLIENT_ID);
    message.extend([code::PARAMETERS, 2, 1, 3, 255]);
    // Relays may drop what is shorter than BOOTP was (RFC 1542 section 2.1).
    message.resize(message.len().max(300), 0);
    message
}

/// The server that sent an IPv4 packet, if that is an OFFER, ACK or NAK. A reply in which a relay has put itself in the
/// server's place (RFC 5107) names no server.
pub fn server_of(packet: &[u8]) -> Option<Ipv4Addr> {
    let message = packet.get(IPV4 + UDP..)?;
    let is_reply = packet[0] == 0x45 && packet[9] == 17 && packet[20..24] == [0, 67, 0, 68];
    if !is_reply || message.len() < HEADER_LEN || message[0] != 2 || message[236..240] != MAGIC_COOKIE {
        return None;
    }
    let options = Options::scan(message).ok()?;
    if !matches!(options.get(code::MESSAGE_TYPE).as_deref(), Some([2 | 5 | 6])) {
        return None;
    }
    let server = options.fixed(code::SERVER_ID).ok()?.map(Ipv4Addr::from)?;
    let relay = <[u8; 4]>::try_from(&message[24..28]).ok().map(Ipv4Addr::from)?;
    let names_one = !server.is_unspecified() && !server.is_broadcast() && !server.is_multicast();
    (names_one && server != relay).then_some(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, datagram::datagram};
    use proptest::prelude::*;

    fn reply(kind: u8) -> Vec<u8> {
        let mut message = question(nobody([1, 2, 3, 4]), 7);
        message[0] = 2;
        message.truncate(HEADER_LEN);
        message.extend([53, 1, kind, 54, 4, 10, 5, 0, 9, 255]);
        datagram(
            "10.5.0.9:67".parse().unwrap(),
            "255.255.255.255:68".parse().unwrap(),
            &message,
        )
    }

    #[test]
    fn a_reply_names_its_server() {
        for kind in [2, 5, 6] {
            assert_eq!(server_of(&reply(kind)), Some(Ipv4Addr::new(10, 5, 0, 9)));
        }
        assert_eq!(server_of(&reply(1)), None);
        let changed = |at: usize, value: u8| {
            let mut packet = reply(2);
            packet[at] = value;
            packet
        };
        // A header with options, TCP, another port, a request, no cookie.
        for (at, value) in [(0, 0x46), (9, 6), (21, 68), (28, 1), (264, 0)] {
            assert_eq!(server_of(&changed(at, value)), None, "{at}");
        }
        let mut relayed = reply(2);
        relayed[52..56].copy_from_slice(&[10, 5, 0, 9]);
        assert_eq!(server_of(&relayed), None);
        for length in 0..reply(2).len() - 1 {
            server_of(&reply(2)[..length]);
        }
    }

    #[test]
    fn the_question_is_a_sound_discover() {
        let hwaddr = nobody([9, 8, 7, 6]);
        let request = Request::parse(&question(hwaddr, 0x0102_0304)).unwrap();
        assert_eq!(request.kind, crate::Kind::Discover);
        assert_eq!((request.hwaddr, request.xid), (hwaddr, 0x0102_0304));
        assert!(request.wants_broadcast() && !request.pxe_client);
        assert_eq!(hwaddr.to_string(), "02:72:09:08:07:06");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0usize..300, value in any::<u8>(), tail in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut packet = [reply(5), tail].concat();
            let at = at % packet.len();
            packet[at] = value;
            server_of(&packet);
            server_of(&packet[at..]);
        }
    }
}
