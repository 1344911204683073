//! Packets: RMCP, RMCP+ sessions and IPMI messages, to bytes and back (pure).
//!
//! Section numbers are those of "IPMI Specification, v2.0, rev. 1.1".

use crate::crypto::{BLOCK, Keys, equal};

/// UDP port of a BMC (13.1.1: the primary RMCP port).
pub const PORT: u16 = 623;

/// Largest packet that is read, in bytes. BMCs answer with 300 bytes at most.
pub(crate) const MOST_BYTES: usize = 1024;

/// RMCP version 1.0, no sequence number and so no acknowledgement, class IPMI (13.1.3).
const RMCP_IPMI: [u8; 4] = [0x06, 0x00, 0xff, 0x07];
/// Format of sessions: RMCP+ (13.6).
const RMCP_PLUS: u8 = 0x06;
/// Flags of the payload's type (13.6).
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;
/// Bytes before the payload, after RMCP's header.
const HEADER: usize = 12;
/// The "next header" behind the padding: reserved, always this (13.6).
const NEXT_HEADER: u8 = 0x07;
/// The addresses of BMC and remote console in messages (5.5, 13.8).
const BMC: u8 = 0x20;
const CONSOLE: u8 = 0x81;

/// The type of a payload (13.27.3, table 13-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// An IPMI message.
    Ipmi,
    /// Open Session Response.
    OpenResponse,
    /// RAKP message 2.
    Rakp2,
    /// RAKP message 4.
    Rakp4,
    /// Open Session Request.
    OpenRequest,
    /// RAKP message 1.
    Rakp1,
    /// RAKP message 3.
    Rakp3,
}

impl Payload {
    const ALL: [(Payload, u8); 7] = [
        (Payload::Ipmi, 0x00),
        (Payload::OpenRequest, 0x10),
        (Payload::OpenResponse, 0x11),
        (Payload::Rakp1, 0x12),
        (Payload::Rakp2, 0x13),
        (Payload::Rakp3, 0x14),
        (Payload::Rakp4, 0x15),
    ];

    fn number(self) -> u8 {
        Payload::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or(0, |(_, number)| *number)
    }

    fn of(number: u8) -> Option<Payload> {
        Payload::ALL
            .iter()
            .find(|(_, known)| *known == number)
            .map(|(kind, _)| *kind)
    }
}

/// A packet that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// The type of its payload.
    pub(crate) kind: Payload,
    /// The session that it belongs to, by the receiver's number; 0 before a session.
    pub(crate) session: u32,
    /// Its number in the session; 0 before a session.
    pub(crate) sequence: u32,
    /// The payload, decrypted.
    pub(crate) payload: Vec<u8>,
}

/// Four bytes from `at` on, least significant byte first.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let (four, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u32::from_le_bytes(*four))
}

/// Two bytes from `at` on, least significant byte first.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let (two, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u16::from_le_bytes(*two))
}

/// A packet outside of a session. `payload` has less than 64 KiB.
pub(crate) fn plain(kind: Payload, payload: &[u8]) -> Vec<u8> {
    let mut packet = RMCP_IPMI.to_vec();
    header(&mut packet, kind.number(), 0, 0, payload);
    packet
}

fn header(packet: &mut Vec<u8>, kind: u8, session: u32, sequence: u32, payload: &[u8]) {
    packet.extend([RMCP_PLUS, kind]);
    packet.extend(session.to_le_bytes());
    packet.extend(sequence.to_le_bytes());
    packet.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes());
    packet.extend(payload);
}

/// An encrypted and authenticated packet of a session. `session` is the receiver's number.
pub(crate) fn sealed(
    keys: &Keys,
    kind: Payload,
    session: u32,
    sequence: u32,
    payload: &[u8],
    iv: [u8; BLOCK],
) -> Vec<u8> {
    let payload = keys.encrypt(payload, iv);
    let mut packet = RMCP_IPMI.to_vec();
    header(
        &mut packet,
        kind.number() | ENCRYPTED | AUTHENTICATED,
        session,
        sequence,
        &payload,
    );
    // From the format of the session to the next header, a multiple of four bytes.
    let pad = (4 - (packet.len() - RMCP_IPMI.len() + 2) % 4) % 4;
    packet.extend([0xff; 4].iter().take(pad));
    packet.extend([pad.to_le_bytes()[0], NEXT_HEADER]);
    let code = keys.packet_code(&packet[RMCP_IPMI.len()..]);
    packet.extend(code);
    packet
}

/// Reads a packet. With `keys` only packets of a session are accepted, and without them only packets outside of one. None for everything else:
/// packets that are cut off, not authenticated, or no RMCP+.
pub(crate) fn read(bytes: &[u8], keys: Option<&Keys>) -> Option<Packet> {
    if bytes.len() > MOST_BYTES {
        return None;
    }
    // The sequence number of RMCP is not that of the session: some BMCs count there.
    let (rmcp, rest) = bytes.split_first_chunk::<4>()?;
    if rmcp[0] != RMCP_IPMI[0] || rmcp[3] != RMCP_IPMI[3] {
        return None;
    }
    let (format, kind) = (*rest.first()?, *rest.get(1)?);
    if format != RMCP_PLUS {
        return None;
    }
    let (session, sequence) = (u32_at(rest, 2)?, u32_at(rest, 6)?);
    let length = usize::from(u16_at(rest, 10)?);
    let payload = rest.get(HEADER..HEADER + length)?;
    let flags = kind & (ENCRYPTED | AUTHENTICATED);
    let kind = Payload::of(kind & !(ENCRYPTED | AUTHENTICATED))?;
    let payload = match keys {
        None if flags == 0 => payload.to_vec(),
        Some(keys) if flags == ENCRYPTED | AUTHENTICATED => {
            let covered = rest.len().checked_sub(keys.packet_code_length())?;
            let (covered, code) = rest.split_at_checked(covered)?;
            if covered.len() < HEADER + length + 2 || !equal(code, &keys.packet_code(covered)) {
                return None;
            }
            keys.decrypt(payload)?
        }
        _ => return None,
    };
    Some(Packet {
        kind,
        session,
        sequence,
        payload,
    })
}

/// The byte that makes the sum of all bytes 0 (13.8).
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg()
}

/// A request to the BMC as an IPMI message (13.8). `number` is below 64.
pub(crate) fn request(netfn: u8, number: u8, command: u8, data: &[u8]) -> Vec<u8> {
    let mut message = vec![BMC, netfn << 2];
    message.push(checksum(&message));
    let start = message.len();
    message.extend([CONSOLE, number << 2, command]);
    message.extend(data);
    message.push(checksum(&message[start..]));
    message
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) netfn: u8,
    pub(crate) number: u8,
    pub(crate) command: u8,
    /// 0 = done.
    pub(crate) completion: u8,
    pub(crate) data: Vec<u8>,
}

/// Reads an answer as an IPMI message; none if it is cut off or its checksums are wrong.
pub(crate) fn read_response(message: &[u8]) -> Option<Response> {
    let (head, body) = message.split_at_checked(3)?;
    let (last, inner) = body.split_last()?;
    if checksum(&head[..2]) != head[2] || checksum(inner) != *last {
        return None;
    }
    let [_, number, command, completion, data @ ..] = inner else {
        return None;
    };
    Some(Response {
        netfn: head[1] >> 2,
        number: number >> 2,
        command: *command,
        completion: *completion,
        data: data.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Suite;
    use proptest::prelude::*;

    #[test]
    fn a_request_has_both_checksums() {
        // Get Chassis Status as ipmitool 1.8.19 sends it, with its seventh request.
        assert_eq!(hex::encode(request(0x00, 7, 0x01, &[])), "2000e0811c0162");
    }

    fn keys(suite: Suite) -> Keys {
        Keys::new(suite, vec![0x55; suite.code_length()])
    }

    #[test]
    fn each_changed_byte_of_a_session_is_noticed() {
        for suite in [Suite::Sha1, Suite::Sha256] {
            let keys = keys(suite);
            let good = sealed(&keys, Payload::Ipmi, 0x01020304, 9, b"\x20\x00\xe0", [3; BLOCK]);
            let read_back = read(&good, Some(&keys)).unwrap();
            assert_eq!((read_back.session, read_back.sequence), (0x01020304, 9));
            assert_eq!(read_back.payload, b"\x20\x00\xe0");
            for at in RMCP_IPMI.len()..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                assert_eq!(read(&bad, Some(&keys)), None, "byte {at}");
                assert_eq!(read(&good[..at], Some(&keys)), None, "{at} bytes");
            }
            // A session's packets are not accepted without its keys, nor other packets with them.
            assert_eq!(read(&good, None), None);
            assert_eq!(read(&plain(Payload::Ipmi, b"x"), Some(&keys)), None);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let keys = keys(Suite::Sha1);
            let framed = [&RMCP_IPMI[..], &bytes].concat();
            for bytes in [&bytes, &framed] {
                let _ = (read(bytes, None), read_response(bytes));
                prop_assert_eq!(read(bytes, Some(&keys)), None);
            }
        }

        #[test]
        fn packets_come_back(payload in proptest::collection::vec(any::<u8>(), 0..200), session: u32, sequence: u32) {
            let keys = keys(Suite::Sha256);
            let packet = read(&sealed(&keys, Payload::Ipmi, session, sequence, &payload, [1; BLOCK]), Some(&keys));
            prop_assert_eq!(packet, Some(Packet { kind: Payload::Ipmi, session, sequence, payload: payload.clone() }));
            prop_assert_eq!(read(&plain(Payload::Rakp2, &payload), None).unwrap().payload, payload);
        }
    }
}
