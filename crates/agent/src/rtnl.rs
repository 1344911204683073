//! rtnetlink messages: links, addresses, default route (pure bytes; linux/rtnetlink.h, linux/if_link.h).

use std::net::Ipv4Addr;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_MIIMON: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;

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

    /// The message to set something of an interface.
    fn link(flags: u16, sequence: u32, interface: u32) -> Self {
        Message::new(RTM_NEWLINK, flags, sequence, &link_header(interface, 0, 0))
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        attribute(&mut self.0, kind, value);
        self
    }

    fn done(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

/// A `struct ifinfomsg`: family, pad, type, index, flags, change.
fn link_header(interface: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    [interface, flags, change]
        .iter()
        .for_each(|word| header.extend(word.to_ne_bytes()));
    header
}

/// Adds an attribute. It is aligned to 4 bytes; its length is without the padding.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = 4 + value.len();
    to.extend((length as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len() + length.next_multiple_of(4) - length, 0);
}

/// Sets the MTU of an interface, in bytes.
pub fn mtu(sequence: u32, interface: u32, mtu: u32) -> Vec<u8> {
    Message::link(0, sequence, interface)
        .attribute(IFLA_MTU, &mtu.to_ne_bytes())
        .done()
}

/// Makes the interface `name` for a VLAN (IEEE 802.1Q) on an interface. The name is at most 15 bytes (IFNAMSIZ).
pub fn add_vlan(sequence: u32, interface: u32, name: &str, id: u16) -> Vec<u8> {
    let mut data = Vec::new();
    attribute(&mut data, IFLA_VLAN_ID, &id.to_ne_bytes());
    Message::link(NLM_F_CREATE | NLM_F_EXCL, sequence, 0)
        .attribute(IFLA_IFNAME, &with_nul(name))
        .attribute(IFLA_LINK, &interface.to_ne_bytes())
        .attribute(IFLA_LINKINFO, &kind_of_link("vlan", &data))
        .done()
}

/// What makes a link one of `kind`.
fn kind_of_link(kind: &str, data: &[u8]) -> Vec<u8> {
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    attribute(&mut info, IFLA_INFO_DATA, data);
    info
}

fn with_nul(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// Renames an interface, which must be down. The name is at most 15 bytes (IFNAMSIZ).
pub fn rename(sequence: u32, interface: u32, name: &str) -> Vec<u8> {
    Message::link(0, sequence, interface)
        .attribute(IFLA_IFNAME, &with_nul(name))
        .done()
}

/// Makes a bond of that name and mode (a number of linux/if_bonding.h) without members, which looks at the links every `miimon` milliseconds.
pub fn add_bond(sequence: u32, name: &str, mode: u8, miimon: u32, hwaddr: [u8; 6]) -> Vec<u8> {
    let mut data = Vec::new();
    attribute(&mut data, IFLA_BOND_MODE, &[mode]);
    attribute(&mut data, IFLA_BOND_MIIMON, &miimon.to_ne_bytes());
    Message::link(NLM_F_CREATE | NLM_F_EXCL, sequence, 0)
        .attribute(IFLA_IFNAME, &with_nul(name))
        .attribute(IFLA_ADDRESS, &hwaddr)
        .attribute(IFLA_LINKINFO, &kind_of_link("bond", &data))
        .done()
}

/// Makes an interface, which must be down, a member of a bond.
pub fn join(sequence: u32, interface: u32, bond: u32) -> Vec<u8> {
    Message::link(0, sequence, interface)
        .attribute(IFLA_MASTER, &bond.to_ne_bytes())
        .done()
}

/// Removes an interface that is not a card. The members of a bond become free.
pub fn remove_link(sequence: u32, interface: u32) -> Vec<u8> {
    Message::new(RTM_DELLINK, 0, sequence, &link_header(interface, 0, 0)).done()
}

/// Sets an interface up.
pub fn link_up(sequence: u32, interface: u32) -> Vec<u8> {
    Message::new(RTM_NEWLINK, 0, sequence, &link_header(interface, IFF_UP, IFF_UP)).done()
}

/// Sets an interface down. It keeps its addresses, and loses its routes.
pub fn link_down(sequence: u32, interface: u32) -> Vec<u8> {
    Message::new(RTM_NEWLINK, 0, sequence, &link_header(interface, 0, IFF_UP)).done()
}

/// Takes an address from an interface.
pub fn remove_address(sequence: u32, interface: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    Message::new(RTM_DELADDR, 0, sequence, &address_header(interface, prefix))
        .attribute(IFA_LOCAL, &address.octets())
        .done()
}

/// A `struct ifaddrmsg`: family, prefix length, flags, scope, index.
fn address_header(interface: u32, prefix: u8) -> Vec<u8> {
    let mut header = vec![AF_INET, prefix, 0, 0];
    header.extend(interface.to_ne_bytes());
    header
}

/// Gives an interface an address without expiry (lifetimes are infinite without IFA_CACHEINFO). An equal address is replaced.
pub fn add_address(sequence: u32, interface: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let header = address_header(interface, prefix);
    let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sequence, &header)
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets());
    // RFC 3021: a /31 has no broadcast address. The same holds for a /32.
    if prefix >= 31 {
        return message.done();
    }
    let broadcast = u32::from(address) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    message.attribute(IFA_BROADCAST, &broadcast.to_be_bytes()).done()
}

/// Sets the route to a network, with its prefix length (0 for the default route), by a router on that interface. Of two routes, that with the smaller
/// metric counts.
pub fn route(sequence: u32, interface: u32, to: (Ipv4Addr, u8), router: Ipv4Addr, metric: u32) -> Vec<u8> {
    // struct rtmsg: family, dst_len, src_len, tos, table (main), protocol (boot), scope (universe), type (unicast), flags.
    let body = [AF_INET, to.1, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sequence, &body)
        .attribute(RTA_OIF, &interface.to_ne_bytes())
        .attribute(RTA_GATEWAY, &router.octets());
    if to.1 > 0 {
        message = message.attribute(RTA_DST, &to.0.octets());
    }
    if metric > 0 {
        message = message.attribute(RTA_PRIORITY, &metric.to_ne_bytes());
    }
    message.done()
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
        // What `ip link add link 2 name boot type vlan id 5` of iproute2 6.1 sends, without its extended mask.
        let vlan = add_vlan(1, 2, "boot", 5);
        assert_eq!(vlan[..8], [76, 0, 0, 0, 16, 0, 5, 6]);
        assert_eq!(
            vlan[32..],
            *b"\x09\0\x03\0boot\0\0\0\0\x08\0\x05\0\x02\0\0\0\x18\0\x12\0\x08\0\x01\0vlan\x0c\0\x02\0\x06\0\x01\0\x05\0\0\0"
        );
        let bond = add_bond(1, "bond0", 4, 100, [2, 0, 0, 0, 0, 1]);
        assert_eq!(bond[..8], [88, 0, 0, 0, 16, 0, 5, 6]);
        assert_eq!(
            bond[32..],
            *b"\x0a\0\x03\0bond0\0\0\0\x0a\0\x01\0\x02\0\0\0\0\x01\0\0\x20\0\x12\0\x08\0\x01\0bond\x14\0\x02\0\x05\0\x01\0\x04\0\0\0\x08\0\x03\0\x64\0\0\0"
        );
        assert_eq!(join(1, 2, 7)[32..], *b"\x08\0\x0a\0\x07\0\0\0");
        assert_eq!(remove_link(1, 2)[4..6], [17, 0]);
        assert_eq!(link_down(1, 2)[16..], *b"\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0");
        let gone = remove_address(1, 2, [10, 5, 1, 1].into(), 16);
        assert_eq!(gone[16..], *b"\x02\x10\0\0\x02\0\0\0\x08\0\x02\0\x0a\x05\x01\x01");
        let default = route(1, 2, ([0; 4].into(), 0), [10, 5, 0, 1].into(), 0);
        assert_eq!(default.len(), 16 + 12 + 16);
        let further = route(1, 2, ([10, 9, 0, 0].into(), 16), [10, 8, 0, 1].into(), 1024);
        assert_eq!(further[16..18], [2, 16]);
        assert_eq!(further[44..], *b"\x08\0\x01\0\x0a\x09\0\0\x08\0\x06\0\0\x04\0\0");
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
