//! rtnetlink messages: link up, address, default route (pure bytes; linux/rtnetlink.h).

use std::net::Ipv4Addr;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// A message under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        Message(bytes)
    }

    fn attribute(mut self, kind: u16, value: [u8; 4]) -> Self {
        self.0.extend(8u16.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self
    }

    fn done(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

/// Sets the MTU of an interface, in bytes.
pub fn mtu(sequence: u32, interface: u32, mtu: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(interface.to_ne_bytes());
    body.extend([0; 8]);
    Message::new(RTM_NEWLINK, 0, sequence, &body)
        .attribute(IFLA_MTU, mtu.to_ne_bytes())
        .done()
}

/// Renames an interface, which must be down. The name is at most 15 bytes (IFNAMSIZ).
pub fn rename(sequence: u32, interface: u32, name: &str) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(interface.to_ne_bytes());
    body.extend([0; 8]);
    let mut message = Message::new(RTM_NEWLINK, 0, sequence, &body);
    // Attributes are aligned to 4 bytes; the length is without the padding.
    let length = 4 + name.len() as u16 + 1;
    message.0.extend(length.to_ne_bytes());
    message.0.extend(IFLA_IFNAME.to_ne_bytes());
    message.0.extend(name.as_bytes());
    message.0.resize(
        message.0.len() + 1 + usize::from(length.next_multiple_of(4) - length),
        0,
    );
    message.done()
}

/// Sets an interface up.
pub fn link_up(sequence: u32, interface: u32) -> Vec<u8> {
    // struct ifinfomsg: family, pad, type, index, flags, change.
    let mut body = vec![0; 4];
    body.extend(interface.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    Message::new(RTM_NEWLINK, 0, sequence, &body).done()
}

/// Gives an interface an address without expiry (lifetimes are infinite without IFA_CACHEINFO). An equal address is replaced.
pub fn add_address(sequence: u32, interface: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(interface.to_ne_bytes());
    let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sequence, &body)
        .attribute(IFA_LOCAL, address.octets())
        .attribute(IFA_ADDRESS, address.octets());
    // RFC 3021: a /31 has no broadcast address. The same holds for a /32.
    if prefix >= 31 {
        return message.done();
    }
    let broadcast = u32::from(address) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    message.attribute(IFA_BROADCAST, broadcast.to_be_bytes()).done()
}

/// Sets the default route.
pub fn default_route(sequence: u32, interface: u32, router: Ipv4Addr) -> Vec<u8> {
    // struct rtmsg: family, dst_len, src_len, tos, table (main), protocol (boot), scope (universe), type (unicast), flags.
    let body = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sequence, &body)
        .attribute(RTA_OIF, interface.to_ne_bytes())
        .attribute(RTA_GATEWAY, router.octets())
        .done()
}

/// Reads the kernel's acknowledgement of `sequence`: 0 or an errno. None if the message is something else.
pub fn acknowledgement(answer: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let seq = u32::from_ne_bytes(answer.get(8..12)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR && seq == sequence).then_some(code.wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_kernels_shape() {
        let address = add_address(7, 2, [10, 5, 1, 1].into(), 16);
        assert_eq!(address.len(), 16 + 8 + 3 * 8);
        assert_eq!(address[..4], 48u32.to_ne_bytes());
        assert_eq!(address[16..20], [2, 16, 0, 0]);
        assert_eq!(address[address.len() - 4..], [10, 5, 255, 255]);
        assert_eq!(add_address(7, 2, [10, 5, 1, 1].into(), 31).len(), 16 + 8 + 2 * 8);
        assert_eq!(add_address(7, 2, [1, 2, 3, 4].into(), 0)[44..], [255; 4]);
        assert_eq!(link_up(1, 2).len(), 32);
        let rename = rename(1, 2, "left");
        assert_eq!(rename[32..], *b"\x09\0\x03\0left\0\0\0\0");
        assert_eq!(rename[..4], 44u32.to_ne_bytes());
        let mtu = mtu(1, 2, 9000);
        assert_eq!(mtu[32..], [[8, 0, 4, 0], 9000u32.to_ne_bytes()].concat());
        assert_eq!(default_route(1, 2, [10, 5, 0, 1].into()).len(), 16 + 12 + 16);
    }

    #[test]
    fn acknowledgements_are_read() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&2u16.to_ne_bytes());
        answer[8..12].copy_from_slice(&7u32.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-19i32).to_ne_bytes());
        assert_eq!(acknowledgement(&answer, 7), Some(19));
        assert_eq!(acknowledgement(&answer, 8), None);
        assert_eq!(acknowledgement(&answer[..18], 7), None);
    }
}
