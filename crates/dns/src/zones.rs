//! The names of the zones: the domain, and the reverse names of the site's own subnets and of its nodes' further networks.

use hickory_proto::{ProtoError, rr::Name};
use ipnet::Ipv4Net;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The zones of a site, made once for each site file.
#[derive(Clone, Debug)]
pub struct Zones {
    /// `cluster.example.`
    pub domain: Name,
    /// The server's own label, in lower case.
    pub server: String,
    /// `rackstrap.cluster.example.`
    pub server_name: Name,
    /// `hostmaster.cluster.example.`, the mailbox of a zone in RFC 2142 section 7.
    pub contact: Name,
    /// The servers that other questions are forwarded to.
    pub forward: Vec<SocketAddrV4>,
    /// Subnets with the server's address in each, ordered by address; they do not overlap.
    subnets: Vec<(Ipv4Net, Ipv4Addr)>,
    /// The server's addresses, in order and without duplicates.
    servers: Vec<Ipv4Addr>,
}

/// The place of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'q> {
    /// In none of the zones.
    Elsewhere,
    /// The domain itself.
    Domain,
    /// One label below the domain.
    Host(&'q [u8]),
    /// Deeper below the domain, where no names exist.
    BelowHost,
    /// In a reverse zone.
    Reverse(ReverseZone, ReverseName),
}

/// A reverse zone: as many whole octets as a subnet's prefix fills, three at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReverseZone {
    octets: [u8; 3],
    len: usize,
}

/// A name in a reverse zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReverseName {
    /// The zone itself.
    Apex,
    /// Between the zone and its addresses. Names exist below it, or may exist at the next question. RFC 8020 lets resolvers
    /// conclude from NXDOMAIN that nothing is below a name, so NXDOMAIN is never sent for these.
    Between,
    /// A whole address, in one of the subnets or networks.
    Address(Ipv4Addr),
    /// A name that no address has.
    Nothing,
}

impl Zones {
    /// The zones of a site with this `domain`, in which `server` is the server's own label. Each subnet comes with the server's
    /// address in it. Other questions go to the servers in `forward`.
    ///
    /// # Errors
    /// A name is too long for DNS.
    pub fn new(
        domain: &str,
        server: &str,
        subnets: impl IntoIterator<Item = (Ipv4Net, Ipv4Addr)>,
        forward: &[SocketAddrV4],
    ) -> Result<Self, ProtoError> {
        let domain = Name::from_labels(domain.split('.').map(str::as_bytes))?;
        let mut subnets = Vec::from_iter(subnets);
        subnets.sort();
        let mut servers: Vec<_> = subnets.iter().map(|(_, server)| *server).collect();
        servers.sort();
        servers.dedup();
        Ok(Zones {
            server_name: domain.prepend_label(server.as_bytes())?,
            contact: domain.prepend_label(&b"hostmaster"[..])?,
            server: server.to_owned(),
            domain,
            forward: forward.to_vec(),
            subnets,
            servers,
        })
    }

    /// Whether `address` is in one of the site's subnets.
    pub fn is_ours(&self, address: Ipv4Addr) -> bool {
        self.subnet_of(address).is_some()
    }

    /// Whether `address` is one of the server's.
    pub fn is_server(&self, address: Ipv4Addr) -> bool {
        self.servers.binary_search(&address).is_ok()
    }

    /// The server's addresses in the order in which `client` should try them: first the one in its own subnet, which needs no
    /// router.
    pub fn server_addresses(&self, client: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> {
        let near = self.subnet_of(client).map(|(_, server)| server);
        let others = self.servers.iter().copied().filter(move |s| Some(*s) != near);
        near.into_iter().chain(others)
    }

    /// The place of the name with these labels. `further` is [`super::Nodes::network_in`].
    pub fn place<'q>(&self, labels: &[&'q [u8]], further: impl Fn(Ipv4Net) -> Option<Ipv4Net>) -> Place<'q> {
        let domain = self.domain.iter();
        let above = labels.len().checked_sub(domain.len());
        if let Some(above) = above
            && domain
                .zip(&labels[above..])
                .all(|(ours, asked)| ours.eq_ignore_ascii_case(asked))
        {
            return match labels[..above] {
                [] => Place::Domain,
                [host] => Place::Host(host),
                _ => Place::BelowHost,
            };
        }
        match labels {
            [reversed @ .., in_addr, arpa]
                if in_addr.eq_ignore_ascii_case(b"in-addr") && arpa.eq_ignore_ascii_case(b"arpa") =>
            {
                self.reverse(reversed, further)
            }
            _ => Place::Elsewhere,
        }
    }

    /// `3.1.5.10`, without `in-addr.arpa`.
    fn reverse(&self, labels: &[&[u8]], further: impl Fn(Ipv4Net) -> Option<Ipv4Net>) -> Place<'static> {
        let mut octets = [0; 4];
        let mut known = 0;
        for label in labels.iter().rev().take(4) {
            let Some(octet) = octet(label) else { break };
            octets[known] = octet;
            known += 1;
        }
        let address = Ipv4Addr::from(octets);
        let within = || Ipv4Net::new(address, 8 * known as u8).ok().filter(|_| known > 0);
        let further = || within().and_then(&further);
        let Some(subnet) = self.subnet_around(address, known).or_else(further) else {
            return Place::Elsewhere;
        };
        let len = zone_octets(subnet);
        if known < len {
            return Place::Elsewhere;
        }
        let zone = ReverseZone {
            octets: [octets[0], octets[1], octets[2]],
            len,
        };
        let name = match known {
            _ if known < labels.len() => ReverseName::Nothing,
            4 => ReverseName::Address(address),
            _ if known == len => ReverseName::Apex,
            _ => ReverseName::Between,
        };
        Place::Reverse(zone, name)
    }

    /// The subnet that contains `address`, of which `known` octets were given. A subnet of fewer than 256 addresses has a
    /// part of the zone of its first three octets.
    fn subnet_around(&self, address: Ipv4Addr, known: usize) -> Option<Ipv4Net> {
        if let Some((network, _)) = self.subnet_of(address) {
            return Some(network);
        }
        if known != 3 {
            return None;
        }
        let behind = self.subnets.partition_point(|(net, _)| net.network() < address);
        let (network, _) = self.subnets.get(behind)?;
        (network.network().octets()[..3] == address.octets()[..3]).then_some(*network)
    }

    fn subnet_of(&self, address: Ipv4Addr) -> Option<(Ipv4Net, Ipv4Addr)> {
        let behind = self.subnets.partition_point(|(net, _)| net.network() <= address);
        let (network, server) = *self.subnets.get(behind.checked_sub(1)?)?;
        network.contains(&address).then_some((network, server))
    }
}

impl ReverseZone {
    /// `5.10.in-addr.arpa.`
    ///
    /// # Errors
    /// None that can occur: the name is short.
    pub fn name(&self) -> Result<Name, ProtoError> {
        let octets = self.octets[..self.len].iter().rev().map(u8::to_string);
        Name::from_labels(
            octets
                .map(String::into_bytes)
                .chain([b"in-addr".to_vec(), b"arpa".to_vec()])
                .collect::<Vec<_>>()
                .iter()
                .map(Vec::as_slice),
        )
    }
}

/// Zones end at whole octets: 10.5.0.0/16 is one zone, 10.5.4.0/22 is four zones, and 10.5.1.0/26 has a part of one.
fn zone_octets(network: Ipv4Net) -> usize {
    usize::from(network.prefix_len()).div_ceil(8).min(3)
}

/// 0 to 255 as in RFC 1035 section 3.5, without leading zeros, so that each address has one name.
fn octet(label: &[u8]) -> Option<u8> {
    let plain = !label.is_empty() && label.len() <= 3 && label.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(label)
        .ok()
        .filter(|_| plain && (label.len() == 1 || label[0] != b'0'))?;
    text.parse().ok()
}
