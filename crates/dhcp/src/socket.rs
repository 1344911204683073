//! The sockets: port 67 of each interface, bound to it, so that nothing is heard or said elsewhere, and port 4011 of each server
//! address in a subnet with `dhcp = "proxy"`.

use super::{
    authority::Network,
    belief,
    datagram::datagram,
    reply::{CLIENT_PORT, Destination, PXE_PORT, Reply, SERVER_PORT},
};
use rackstrap_base::{
    link::{IPV4, LinkSocket, each::interface_index, interfaces},
    subnet::DhcpPart,
};
use rackstrap_wire::HwAddr;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    collections::BTreeSet,
    fmt, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};
use tokio::net::UdpSocket;

/// Receive buffer, bytes: thousands of requests of a cluster that is switched on at once. With the kernel's default of 208 KiB
/// other servers lost packets at 200 a burst.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Port 67 of an interface: requests of machines without an address, and of relays.
    Interface(String),
    /// Port 4011 of one of this machine's addresses, so that answers come from that address.
    BootServer(Ipv4Addr),
}

impl Place {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Place::Interface(_) => SERVER_PORT,
            Place::BootServer(_) => PXE_PORT,
        }
    }

    /// The interface; empty for a port 4011, whose packets are routed.
    pub fn interface(&self) -> &str {
        match self {
            Place::Interface(name) => name,
            Place::BootServer(_) => "",
        }
    }

    /// True for the ports that clients and relays send from.
    pub fn is_client_port(&self, from: u16) -> bool {
        belief::is_client_port(from, self.port())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Interface(name) => write!(f, "on '{name}'"),
            Place::BootServer(server) => write!(f, "at port {PXE_PORT} of {server}"),
        }
    }
}

/// The sockets that the subnets need. Relays are heard on every interface, as the site file does not say which one they use.
pub fn wanted(network: &Network) -> BTreeSet<Place> {
    let answered = |subnet: &&rackstrap_base::subnet::Subnet| subnet.dhcp != DhcpPart::Off;
    let relayed = network
        .subnets
        .iter()
        .filter(answered)
        .any(|subnet| subnet.interface.is_none());
    let heard = network.subnets.iter().filter(|subnet| relayed || answered(subnet));
    let interfaces = heard.filter_map(|subnet| subnet.interface.clone());
    let proxies = network.subnets.iter().filter(|subnet| subnet.dhcp == DhcpPart::Proxy);
    interfaces
        .map(Place::Interface)
        .chain(proxies.map(|subnet| Place::BootServer(subnet.server)))
        .collect()
}

/// True if requests of machines without an address can come in, directly or through a relay.
pub fn hears_interfaces(places: &BTreeSet<Place>) -> bool {
    places.iter().any(|place| matches!(place, Place::Interface(_)))
}

/// An open socket, with what its answers need.
pub struct Door {
    pub place: Place,
    pub udp: UdpSocket,
    /// The interface's index, and a socket for frames to clients without an address; none at port 4011.
    link: Option<(u32, LinkSocket)>,
}

impl Door {
    /// Opens the socket.
    ///
    /// # Errors
    /// A missing interface or address, a port in use, missing rights: each says what to do.
    pub fn open(place: &Place) -> anyhow::Result<Self> {
        let link = match place {
            Place::Interface(name) => Some(interface(name)?),
            Place::BootServer(_) => None,
        };
        let port = place.port();
        let udp = bind(place).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) if matches!(place, Place::BootServer(_)) => anyhow::anyhow!(
                "DHCP {place}: another program has this UDP port, so UEFI machines cannot fetch their loader until that \
                 program is stopped; `ss -ulpn 'sport = {port}'` shows it"
            ),
            Some(libc::EADDRINUSE) => anyhow::anyhow!(
                "DHCP: UDP port {port} {place} is in use by another program; stop that DHCP server (see `ss -ulpn sport = :{port}`), as two on one network hand out conflicting answers"
            ),
            Some(libc::EADDRNOTAVAIL) => anyhow::anyhow!(
                "DHCP {place}: this machine does not have that address; add it to the interface (`ip address`), or correct \
                 'server' in [[subnet]]"
            ),
            _ => rights(error, &format!("opening UDP port {port} {place}")),
        })?;
        let link = match link {
            None => None,
            Some(index) => {
                let frames = LinkSocket::sender(index)
                    .map_err(|error| rights(error, &format!("opening a packet socket {place}")))?;
                Some((index, frames))
            }
        };
        Ok(Door {
            place: place.clone(),
            udp,
            link,
        })
    }

    /// Whether packets can still come in: an interface that was made again under its old name has another index, and the old
    /// socket is deaf.
    pub fn is_usable(&self) -> bool {
        let Some((index, _)) = &self.link else { return true };
        interface_index(self.place.interface()).is_ok_and(|now| now == *index)
    }

    /// Sends a reply.
    ///
    /// # Errors
    /// That of the kernel.
    pub fn send(&self, reply: &Reply) -> io::Result<()> {
        let from = SocketAddrV4::new(reply.source, self.place.port());
        let frame = |hwaddr, ipaddr| {
            let packet = datagram(from, SocketAddrV4::new(ipaddr, CLIENT_PORT), &reply.bytes);
            let (_, frames) = self.link.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            frames.send(hwaddr, IPV4, &packet)
        };
        match reply.destination {
            Destination::Broadcast => frame(HwAddr([0xff; 6]), Ipv4Addr::BROADCAST),
            Destination::Frame { hwaddr, ipaddr } => frame(hwaddr, ipaddr),
            Destination::Routed(to) => SockRef::from(&self.udp)
                .send_to(&reply.bytes, &SocketAddr::V4(to).into())
                .map(drop),
        }
    }
}

fn interface(name: &str) -> anyhow::Result<u32> {
    interface_index(name).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => anyhow::anyhow!(
            "DHCP: there is no interface '{name}' (this machine has: {}); correct `interface` in [[subnet]]",
            interfaces().join(", ")
        ),
        _ => anyhow::Error::new(error).context(format!("DHCP: looking up interface '{name}'")),
    })
}

fn bind(place: &Place) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    let address = match place {
        Place::Interface(name) => {
            // Before bind: then sockets of several interfaces do not collide, and one without an interface does, as it should.
            socket.bind_device(Some(name.as_bytes()))?;
            socket.set_broadcast(true)?;
            Ipv4Addr::UNSPECIFIED
        }
        Place::BootServer(server) => *server,
    };
    // Above net.core.rmem_max where we may; the plain call takes what is allowed.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.bind(&SocketAddr::from((address, place.port())).into())?;
    UdpSocket::from_std(socket.into())
}

fn rights(error: io::Error, doing: &str) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => anyhow::anyhow!(
            "DHCP: {doing}: not permitted; run rackstrap as root, or give it CAP_NET_BIND_SERVICE and CAP_NET_RAW"
        ),
        _ => anyhow::Error::new(error).context(format!("DHCP: {doing}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use std::sync::Arc;

    fn places(parts: [DhcpPart; 3]) -> Vec<String> {
        let mut network = World::default().network;
        let subnets = &mut Arc::make_mut(&mut network).subnets;
        for (subnet, part) in subnets.iter_mut().zip(parts) {
            subnet.dhcp = part;
        }
        wanted(&network).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn relayed_subnets_alone_are_not_heard() {
        let mut network = World::default().network;
        let subnets = &mut Arc::make_mut(&mut network).subnets;
        subnets.retain(|subnet| subnet.interface.is_none());
        for part in [DhcpPart::Full, DhcpPart::Proxy] {
            Arc::make_mut(&mut network).subnets[0].dhcp = part;
            assert!(!hears_interfaces(&wanted(&network)), "{part}");
        }
        assert!(hears_interfaces(&wanted(&World::default().network)));
    }

    #[tokio::test]
    async fn a_port_4011_in_use_is_named_with_what_is_missing_and_how_to_find_the_program() {
        let place = Place::BootServer(Ipv4Addr::new(127, 83, 40, 11));
        let _first = Door::open(&place).unwrap();
        let Err(error) = Door::open(&place) else {
            panic!("opened twice");
        };
        let told = error.to_string();
        for part in [
            "port 4011 of 127.83.40.11",
            "UEFI machines cannot",
            "ss -ulpn 'sport = 4011'",
        ] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("DHCP server"), "{told}");
    }

    /// The networks of these tests: eth0, one behind a relay, eth1.
    #[test]
    fn only_ports_are_opened_at_which_something_is_answered() {
        use DhcpPart::{Full, Off, Proxy};
        assert_eq!(places([Full, Full, Full]), ["on 'eth0'", "on 'eth1'"]);
        assert_eq!(places([Off, Off, Off]), [""; 0]);
        assert_eq!(places([Off, Off, Full]), ["on 'eth1'"]);
        assert_eq!(places([Off, Off, Proxy]), ["on 'eth1'", "at port 4011 of 10.7.0.1"]);
        // Relays may come in by both.
        let relayed = ["on 'eth0'", "on 'eth1'", "at port 4011 of 10.6.0.1"];
        assert_eq!(places([Off, Proxy, Off]), relayed);
    }
}
