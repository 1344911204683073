//! IPv4 and UDP headers for replies that go out as frames (RFC 791, RFC 768).

use rackstrap_base::inet::{fold, sum};
use std::net::SocketAddrV4;

/// Bytes that [`datagram`] puts before its payload.
pub const HEADERS: usize = 28;

/// One IPv4 UDP datagram with its checksums. `payload` is at most [`super::guard::MAX_LEN`] bytes.
pub fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    const UDP: u8 = 17;
    let udp_len = (payload.len() + 8) as u16;
    let mut out = Vec::with_capacity(HEADERS + payload.len());
    out.extend_from_slice(&[0x45, 0xc0]); // precedence "internetwork control", as dhcpd and dnsmasq do
    out.extend_from_slice(&(udp_len + 20).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0x40, 0, 64, UDP, 0, 0]); // never fragmented, 64 hops
    out.extend_from_slice(&from.ip().octets());
    out.extend_from_slice(&to.ip().octets());
    let checksum = fold(sum(0, &out));
    out[10..12].copy_from_slice(&checksum.to_be_bytes());
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&udp_len.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    let pseudo = sum(u32::from(UDP) + u32::from(udp_len), &out[12..20]);
    let checksum = match fold(sum(pseudo, &out[20..])) {
        0 => 0xffff, // 0 would mean "no checksum"
        other => other,
    };
    out[26..28].copy_from_slice(&checksum.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_checksums_verify() {
        for payload in [&b""[..], b"a", b"odd", b"even"] {
            let from = "10.5.0.1:67".parse().unwrap();
            let to = "10.5.1.3:68".parse().unwrap();
            let bytes = datagram(from, to, payload);
            assert_eq!(bytes.len(), HEADERS + payload.len());
            assert_eq!(fold(sum(0, &bytes[..20])), 0);
            let pseudo = sum(17 + payload.len() as u32 + 8, &bytes[12..20]);
            assert_eq!(fold(sum(pseudo, &bytes[20..])), 0);
        }
    }

    /// The UDP checksum of a captured dnsmasq OFFER (captures/bios-pxelinux.0.pcap, frame 2).
    #[test]
    fn agrees_with_a_captured_reply() {
        let frames = crate::testing::capture("bios-pxelinux.0");
        let frame = &frames[1];
        let ours = datagram(
            "10.77.0.1:67".parse().unwrap(),
            "10.77.200.30:68".parse().unwrap(),
            &frame[42..],
        );
        assert_eq!(ours[20..26], frame[34..40]);
        assert_eq!(ours[8..10], frame[22..24]);
        assert_eq!(ours.len(), frame.len() - 14);
    }
}
