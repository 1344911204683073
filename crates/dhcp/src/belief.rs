//! Which senders are believed (pure).
//!
//! A user of a running node can send datagrams, but only from ports of 1024 and above and from the node's own addresses
//! (ip(7), capabilities(7): CAP_NET_BIND_SERVICE). Firmware has no address yet and sends from 0.0.0.0, port 68 (RFC 2131
//! section 4.1). A relay sends from port 67 or 68 (RFC 1542 section 4.1.1). These two differences are the whole test.

use super::{
    authority::Authority,
    reply::{CLIENT_PORT, PXE_PORT, SERVER_PORT},
    request::Request,
};
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

/// Why a well-formed request is dropped without a trace on any timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// The source port is neither 67 nor 68: not a DHCP client and not a relay.
    SourcePort,
    /// A node's address speaks for a hardware address that is not this node's.
    NodeForAnother,
    /// The relay's address is a node's.
    RelayIsNode,
}

impl Disbelief {
    /// Name in counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            Disbelief::SourcePort => "source-port",
            Disbelief::NodeForAnother => "node-for-another",
            Disbelief::RelayIsNode => "relay-is-node",
        }
    }
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Disbelief::SourcePort => "DHCP clients send from port 68 and relays from port 67; this is another program",
            Disbelief::NodeForAnother => "the address of a node says nothing about other machines",
            Disbelief::RelayIsNode => "a node is not a relay",
        })
    }
}

/// True for the ports that DHCP is sent from; programs of unprivileged users cannot use them.
pub fn is_dhcp_port(port: u16) -> bool {
    port == CLIENT_PORT || port == SERVER_PORT
}

/// True for the ports from which clients and relays send to `port`.
pub fn is_client_port(from: u16, port: u16) -> bool {
    // EDK2 sends to port 4011 from its own port 4011, where it then listens (PxeBcDhcp4Discover() in
    // NetworkPkg/UefiPxeBcDxe/PxeBcDhcp4.c). Users can send from there, too, so a request at port 4011 proves nothing: it opens no
    // boot, and its answer has the name of a file only.
    is_dhcp_port(from) || (port == PXE_PORT && from == PXE_PORT)
}

/// Whether the request from `from` to `port` is looked at.
///
/// # Errors
/// Why it is not.
pub fn believed(request: &Request, from: SocketAddrV4, port: u16, authority: &dyn Authority) -> Result<(), Disbelief> {
    if !is_client_port(from.port(), port) {
        return Err(Disbelief::SourcePort);
    }
    if authority.is_node_address(request.giaddr) {
        return Err(Disbelief::RelayIsNode);
    }
    if authority.is_node_address(*from.ip()) && !authority.is_card_of(request.hwaddr, *from.ip()) {
        return Err(Disbelief::NodeForAnother);
    }
    Ok(())
}

/// Whether a packet whose sender has no Ethernet address is looked at: it comes from a machine without an address, or from a relay, and
/// neither is a node.
pub fn may_be_a_machine(relay: Ipv4Addr, from: SocketAddr, authority: &dyn Authority) -> bool {
    let SocketAddr::V4(from) = from else { return false };
    match relay.is_unspecified() {
        true => from.port() == CLIENT_PORT && from.ip().is_unspecified(),
        false => {
            is_dhcp_port(from.port()) && !authority.is_node_address(relay) && !authority.is_node_address(*from.ip())
        }
    }
}

/// True if only firmware, a boot loader or root could have sent it: without an address, or through a relay. For a request
/// that is [`believed`].
pub fn is_from_firmware(request: &Request, from: SocketAddrV4) -> bool {
    match request.giaddr.is_unspecified() {
        true => from.port() == CLIENT_PORT && *from.ip() == Ipv4Addr::UNSPECIFIED,
        false => is_dhcp_port(from.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Packet, World};

    const NODE: &str = "52:54:00:00:01:03";

    fn judge(packet: &Packet, from: &str) -> (Result<(), Disbelief>, bool) {
        let world = World::with(&[
            (NODE, "r01n03", "10.5.1.3"),
            ("52:54:00:00:01:04", "r01n04", "10.5.1.4"),
        ]);
        let request = Request::parse(&packet.0).unwrap();
        let from = from.parse().unwrap();
        (
            believed(&request, from, SERVER_PORT, &world),
            is_from_firmware(&request, from),
        )
    }

    #[test]
    fn uefi_asks_from_port_4011_and_then_proves_nothing() {
        let world = World::with(&[
            (NODE, "r01n03", "10.5.1.3"),
            ("52:54:00:00:01:04", "r01n04", "10.5.1.4"),
        ]);
        let judge = |hwaddr: &str, from: &str, port| {
            let from: SocketAddrV4 = from.parse().unwrap();
            let request = Request::parse(&Packet::new(3, hwaddr).ciaddr(&from.ip().to_string()).0).unwrap();
            assert!(!is_from_firmware(&request, from));
            believed(&request, from, port, &world)
        };
        assert_eq!(judge(NODE, "10.5.1.3:4011", PXE_PORT), Ok(()));
        assert_eq!(judge(NODE, "10.5.1.3:68", PXE_PORT), Ok(()));
        assert_eq!(judge(NODE, "10.5.1.3:4011", SERVER_PORT), Err(Disbelief::SourcePort));
        assert_eq!(judge(NODE, "10.5.1.3:4012", PXE_PORT), Err(Disbelief::SourcePort));
        assert_eq!(judge(NODE, "10.5.1.4:4011", PXE_PORT), Err(Disbelief::NodeForAnother));
    }

    #[test]
    fn without_an_ethernet_address_only_firmware_and_relays_are_believed() {
        let world = World::with(&[(NODE, "r01n03", "10.5.1.3")]);
        let judge = |relay: &str, from: &str| may_be_a_machine(relay.parse().unwrap(), from.parse().unwrap(), &world);
        assert!(judge("0.0.0.0", "0.0.0.0:68") && judge("10.6.0.254", "10.6.0.254:67"));
        for (relay, from) in [
            ("0.0.0.0", "0.0.0.0:40000"),
            ("0.0.0.0", "10.5.1.3:68"),
            ("10.5.1.3", "10.5.1.3:67"),
            ("10.6.0.254", "10.5.1.3:67"),
            ("10.6.0.254", "10.6.0.254:1067"),
        ] {
            assert!(!judge(relay, from), "relay {relay} from {from}");
        }
    }

    #[test]
    fn firmware_and_relays_are_believed_and_users_are_not() {
        let own = Packet::new(3, NODE).requested("10.5.1.3");
        let stranger = Packet::new(1, "52:54:00:00:09:09");
        let relayed = own.clone().giaddr("10.6.0.254");
        for (packet, from, expected) in [
            (&own, "0.0.0.0:68", (Ok(()), true)),
            // An operating system that has its address.
            (&own, "10.5.1.3:68", (Ok(()), false)),
            (&own, "10.5.1.3:40000", (Err(Disbelief::SourcePort), false)),
            (&own, "0.0.0.0:40000", (Err(Disbelief::SourcePort), false)),
            (&own, "10.5.1.3:1068", (Err(Disbelief::SourcePort), false)),
            // Another node, and a machine of the pool.
            (&own, "10.5.1.4:68", (Err(Disbelief::NodeForAnother), false)),
            (&own, "10.5.255.9:68", (Ok(()), false)),
            (&stranger, "0.0.0.0:68", (Ok(()), true)),
            (&stranger, "10.5.1.4:68", (Err(Disbelief::NodeForAnother), false)),
            (&relayed, "10.6.0.254:67", (Ok(()), true)),
            (&relayed, "10.6.0.254:68", (Ok(()), true)),
            (&relayed, "10.6.0.254:1067", (Err(Disbelief::SourcePort), false)),
            (
                &stranger.clone().giaddr("10.5.1.4"),
                "10.5.1.4:67",
                (Err(Disbelief::RelayIsNode), true),
            ),
            (
                &stranger.clone().giaddr("10.6.0.254"),
                "10.5.1.4:67",
                (Err(Disbelief::NodeForAnother), true),
            ),
        ] {
            assert_eq!(judge(packet, from), expected, "from {from}");
        }
    }
}
