//! From a router solicitation to its answer: RFC 4861 sections 4.1, 4.2, 6.1.1 and 6.2.6.

use super::Ignored;
use rackstrap_base::inet::{fold, sum};
use rackstrap_wire::HwAddr;
use std::net::Ipv6Addr;

const HEADER: usize = 40;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// What nobody outside of the link can send, as routers count down.
const HOPS: u8 = 255;
/// Bytes of a solicitation without options, and of an advertisement without.
const SOLICITATION_LEN: usize = 8;
const ADVERTISEMENT_LEN: usize = 16;

/// The link-local address that answers come from on an interface with this hardware address. The kernel makes none of this
/// form, so that what is said of a router here is never said of one that this machine is as well.
pub fn own_address(hwaddr: HwAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = hwaddr.0;
    // "rs" in ASCII, where EUI-64 addresses have ff:fe in the middle.
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x72, 0x73, a, b, c, d, e, f])
}

/// The answer to an IPv6 packet, if that is a router solicitation: a packet to its sender alone, from `own`.
///
/// # Errors
/// Why the packet gets no answer.
pub fn answer(packet: &[u8], own: Ipv6Addr) -> Result<Vec<u8>, Ignored> {
    let header = packet.get(..HEADER).ok_or(Ignored::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Ignored::Truncated);
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // Ethernet pads short frames, so there may be more.
    let message = packet.get(HEADER..HEADER + length).ok_or(Ignored::Truncated)?;
    if header[6] != ICMPV6 || message.first() != Some(&SOLICITATION) {
        return Err(Ignored::NotASolicitation);
    }
    if header[7] != HOPS {
        return Err(Ignored::HopLimit);
    }
    if message.len() < SOLICITATION_LEN {
        return Err(Ignored::Truncated);
    }
    if checksum(&header[8..24], &header[24..40], message) != 0 {
        return Err(Ignored::Checksum);
    }
    if message[1] != 0 || !options_are_whole(&message[SOLICITATION_LEN..]) {
        return Err(Ignored::Malformed);
    }
    // fe80::/10, RFC 4291 section 2.5.6.
    if header[8] != 0xfe || header[9] & 0xc0 != 0x80 {
        return Err(Ignored::NoAddress);
    }
    Ok(advertisement(own, &header[8..24]))
}

fn options_are_whole(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        let Some(length) = options
            .get(1)
            .map(|units| usize::from(*units) * 8)
            .filter(|len| *len > 0)
        else {
            return false;
        };
        let Some(rest) = options.get(length..) else {
            return false;
        };
        options = rest;
    }
    true
}

/// No router (lifetime 0), no DHCPv6 (no flags), no prefix (no options), and nothing about hop limits and timers (0).
fn advertisement(own: Ipv6Addr, to: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; HEADER + ADVERTISEMENT_LEN];
    packet[0] = 6 << 4;
    packet[4..6].copy_from_slice(&(ADVERTISEMENT_LEN as u16).to_be_bytes());
    packet[6] = ICMPV6;
    packet[7] = HOPS;
    packet[8..24].copy_from_slice(&own.octets());
    packet[24..40].copy_from_slice(to);
    packet[HEADER] = ADVERTISEMENT;
    let checksum = checksum(&packet[8..24], &packet[24..40], &packet[HEADER..]);
    packet[HEADER + 2..HEADER + 4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Checksum of an ICMPv6 message with its pseudo header (RFC 8200 section 8.1); 0 if the message has the right one in it.
fn checksum(from: &[u8], to: &[u8], message: &[u8]) -> u16 {
    let start = message.len() as u32 + u32::from(ICMPV6);
    fold(sum(sum(sum(start, from), to), message))
}

/// Answers that may still be sent: a cluster that is switched on asks all at once, and no cluster asks more than that.
#[derive(Debug)]
pub struct Bucket {
    left: u64,
    filled_ms: u64,
}

impl Bucket {
    /// Answers a second, and as many at once.
    const RATE: u64 = 2_000;

    /// A full one at `now_ms`, the milliseconds of any clock that does not go back.
    pub fn new(now_ms: u64) -> Self {
        Bucket {
            left: Self::RATE,
            filled_ms: now_ms,
        }
    }

    /// Takes one answer. False if none is left.
    pub fn take(&mut self, now_ms: u64) -> bool {
        let more = now_ms.saturating_sub(self.filled_ms).saturating_mul(Self::RATE) / 1000;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(Self::RATE);
            self.filled_ms = now_ms;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: HwAddr = HwAddr([0x52, 0x54, 0, 0, 0, 1]);
    const FROM: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0, 1, 1];

    /// A solicitation as iPXE sends it: with its link-layer address.
    fn solicitation() -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 16, 58, 255];
        packet.extend(FROM);
        packet.extend([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        packet.extend([133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0, 1, 1]);
        with_checksum(packet)
    }

    fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
        packet[42..44].fill(0);
        let sum = checksum(&packet[8..24], &packet[24..40], &packet[40..]);
        packet[42..44].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn ask(packet: &[u8]) -> Result<Vec<u8>, Ignored> {
        answer(packet, own_address(OWN))
    }

    #[test]
    fn a_solicitation_is_answered_by_no_router_without_a_prefix() {
        let reply = ask(&solicitation()).unwrap();
        assert_eq!(reply.len(), 56);
        assert_eq!(reply[4..8], [0, 16, 58, 255]);
        assert_eq!(reply[8..24], own_address(OWN).octets());
        assert_eq!(reply[24..40], FROM, "to the one who asked, and nobody else");
        assert_eq!(checksum(&reply[8..24], &reply[24..40], &reply[40..]), 0);
        // Type, code; then hop limit, flags (no DHCPv6, no preference), lifetime, timers.
        assert_eq!(reply[40..42], [134, 0]);
        assert_eq!(reply[44..], [0; 12]);
        assert_eq!(own_address(OWN).to_string(), "fe80::7273:5254:0:1");
        // Padding of a short frame changes nothing.
        assert_eq!(ask(&[&solicitation()[..], &[0; 4]].concat()), Ok(reply));
    }

    #[test]
    fn each_defect_has_its_reason() {
        let changed = |at: usize, value: u8| {
            let mut packet = solicitation();
            packet[at] = value;
            packet
        };
        for (packet, why) in [
            (Vec::new(), Ignored::Truncated),
            (solicitation()[..55].to_vec(), Ignored::Truncated),
            (changed(0, 0x45), Ignored::Truncated),
            (changed(5, 17), Ignored::Truncated),
            (changed(5, 0), Ignored::NotASolicitation),
            (changed(5, 7), Ignored::Truncated),
            (changed(6, 17), Ignored::NotASolicitation),
            (changed(40, 134), Ignored::NotASolicitation),
            (changed(7, 254), Ignored::HopLimit),
            (changed(44, 1), Ignored::Checksum),
            (changed(8, 0x20), Ignored::Checksum),
            (with_checksum(changed(41, 1)), Ignored::Malformed),
            (with_checksum(changed(49, 0)), Ignored::Malformed),
            (with_checksum(changed(49, 2)), Ignored::Malformed),
            (with_checksum(changed(8, 0x20)), Ignored::NoAddress),
            (with_checksum(changed(8, 0xff)), Ignored::NoAddress),
            (with_checksum(changed(9, 0xc0)), Ignored::NoAddress),
        ] {
            assert_eq!(ask(&packet), Err(why), "{packet:02x?}");
        }
        let mut nobody = solicitation();
        nobody[8..24].fill(0);
        assert_eq!(ask(&with_checksum(nobody)), Err(Ignored::NoAddress));
    }

    #[test]
    fn a_cluster_may_ask_at_once_and_a_flood_may_not() {
        let mut bucket = Bucket::new(5_000);
        let taken = (0..10_000).filter(|_| bucket.take(5_000)).count();
        assert_eq!(taken, 2_000);
        assert!(!bucket.take(5_000) && bucket.take(5_001) && bucket.take(5_001) && !bucket.take(5_001));
        assert_eq!((0..10_000).filter(|_| bucket.take(60_000)).count(), 2_000);
        assert!(!bucket.take(0), "a clock that goes back");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_every_answer_is_sound(
            at in 0usize..60, value in any::<u8>(), tail in prop::collection::vec(any::<u8>(), 0..80), fix in any::<bool>(),
        ) {
            let mut packet = [solicitation(), tail].concat();
            let at = at.min(packet.len() - 1);
            packet[at] = value;
            let packet = if fix { with_checksum(packet) } else { packet };
            if let Ok(reply) = ask(&packet) {
                prop_assert_eq!(reply.len(), 56);
                prop_assert_eq!(checksum(&reply[8..24], &reply[24..40], &reply[40..]), 0);
                prop_assert_eq!(&reply[24..40], &packet[8..24]);
            }
        }
    }
}
