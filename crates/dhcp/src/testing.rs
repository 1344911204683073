//! What the tests of this folder share: captures, a small authority, requests made by hand, replies as text.

use super::{
    authority::{Answer, Ask, Authority, DhcpEvent, Loader, NetRoot, Network, NodeTerms},
    engine::{Engine, Ingress, Outcome},
    options::sub_option,
    pool::Lease,
    reply::{Destination, PXE_PORT, SERVER_PORT},
    request::Request,
};
use rackstrap_base::{
    clock::Timestamp,
    firmware::loads_itself,
    subnet::{DhcpPart, Subnet},
};
use rackstrap_wire::HwAddr;
use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

/// Frames of a capture in tests/captures.
pub fn capture(name: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/../../tests/captures/{name}.pcap", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut reader = pcap_file::pcap::PcapReader::new(file).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.unwrap().data.into_owned());
    }
    frames
}

/// DHCP messages that clients sent in a capture, without their headers.
pub fn requests(name: &str) -> Vec<Vec<u8>> {
    let to_server = |f: &Vec<u8>| f.len() > 282 && f[12..14] == [8, 0] && f[23] == 17 && f[36..38] == [0, 67];
    let mut frames = capture(name);
    frames.retain(to_server);
    frames.into_iter().map(|f| f[42..].to_vec()).collect()
}

pub const NOW: Timestamp = Timestamp(1_800_000_000_000);

pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn subnet(network: &str, interface: Option<&str>, server: &str, pool: Option<(&str, &str)>) -> Subnet {
    Subnet {
        network: network.parse().unwrap(),
        interface: interface.map(str::to_owned),
        server: ip(server),
        vlan: None,
        dhcp: DhcpPart::Full,
        dhcp_servers: vec![],
        next_server: false,
        router: Some(ip(server)),
        dns: vec![ip(server)],
        ntp: vec![ip(server)],
        mtu: None,
        options: vec![],
        pool: pool.map(|(a, b)| (ip(a), ip(b))),
        lease_secs: 3600,
        pool_lease_secs: 600,
    }
}

/// Nodes by hardware address, loaders as a site would choose them.
pub struct World {
    pub network: Arc<Network>,
    pub nodes: HashMap<HwAddr, (String, Ipv4Addr)>,
    pub silent: Vec<HwAddr>,
    /// Further cards of nodes.
    pub further_cards: Vec<HwAddr>,
    /// The root of all nodes.
    pub root: Option<NetRoot>,
    /// What the answers to all nodes say instead of their subnet's.
    pub settings: NodeTerms,
}

impl Default for World {
    /// 10.5/16 on eth0 with a pool, 10.6/16 behind a relay, 10.7/16 on eth1 without a pool.
    fn default() -> Self {
        let subnets = vec![
            subnet(
                "10.5.0.0/16",
                Some("eth0"),
                "10.5.0.1",
                Some(("10.5.255.1", "10.5.255.254")),
            ),
            subnet("10.6.0.0/16", None, "10.6.0.1", Some(("10.6.255.1", "10.6.255.4"))),
            subnet("10.7.0.0/16", Some("eth1"), "10.7.0.1", None),
        ];
        World {
            network: Arc::new(Network {
                subnets,
                domain: "cluster.example".into(),
            }),
            nodes: HashMap::new(),
            silent: Vec::new(),
            further_cards: Vec::new(),
            root: None,
            settings: NodeTerms::default(),
        }
    }
}

impl World {
    pub fn with(nodes: &[(&str, &str, &str)]) -> Self {
        let node = |(mac, name, addr): &(&str, &str, &str)| (mac.parse().unwrap(), (name.to_string(), ip(addr)));
        World {
            nodes: nodes.iter().map(node).collect(),
            ..World::default()
        }
    }

    /// The same networks without pools, in which rackstrap answers this part of DHCP.
    pub fn answering(mut self, part: DhcpPart) -> Self {
        for subnet in &mut Arc::make_mut(&mut self.network).subnets {
            subnet.dhcp = part;
            subnet.pool = None;
        }
        self
    }

    pub fn engine(&self) -> Engine {
        Engine::new(self.network.clone(), &[]).0
    }
}

impl Authority for World {
    fn ask(&self, who: &Ask<'_>) -> Answer {
        if self.silent.contains(&who.hwaddr) {
            return Answer::Silent("told to be silent".into());
        }
        let server = who.link.server;
        let file = |name: &str| Loader::Tftp {
            server,
            file: name.to_owned(),
        };
        let loader = match who.arch {
            _ if who.ipxe && !who.ipxe_without_http => {
                Some(Loader::Url(format!("http://{server}/boot/{}", who.hwaddr)))
            }
            _ if who.grub => Some(Loader::Own { server }),
            _ if loads_itself(who.arch, who.vendor_class).is_some() => Some(Loader::Own { server }),
            _ if who.http_client => Some(Loader::Url(format!("http://{server}/snponly.efi"))),
            // A loader for one vendor's machines only.
            _ if who.vendor_class.starts_with("PXEClient:Arch:00007:UNDI:009") => Some(file("loader.own/own.efi")),
            Some(0) => Some(file("undionly.kpxe")),
            Some(7 | 9) => Some(file("snponly.efi")),
            Some(11) => Some(file("snponly-arm64.efi")),
            _ => None,
        };
        match self.nodes.get(&who.hwaddr) {
            Some((hostname, ipaddr)) => Answer::Node {
                ipaddr: *ipaddr,
                hostname: hostname.clone(),
                loader,
                root: self.root.clone(),
                settings: self.settings.clone(),
            },
            None => Answer::Unknown {
                loader,
                further_card: self.further_cards.contains(&who.hwaddr),
            },
        }
    }

    fn observe(&self, _: &DhcpEvent) {}

    fn network(&self) -> Arc<Network> {
        self.network.clone()
    }

    fn is_node(&self, hwaddr: HwAddr) -> bool {
        self.nodes.contains_key(&hwaddr)
    }

    fn is_node_address(&self, address: Ipv4Addr) -> bool {
        self.nodes.values().any(|(_, a)| *a == address)
    }

    fn is_card_of(&self, hwaddr: HwAddr, address: Ipv4Addr) -> bool {
        self.nodes.get(&hwaddr).is_some_and(|(_, a)| *a == address)
    }
}

/// A request, made by hand.
#[derive(Clone)]
pub struct Packet(pub Vec<u8>);

impl Packet {
    /// A message of this kind (option 53) from this card, broadcast flag clear.
    pub fn new(kind: u8, hwaddr: &str) -> Self {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&[0xca, 0xfe, 0, kind]);
        bytes[28..34].copy_from_slice(&hwaddr.parse::<HwAddr>().unwrap().0);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        Packet(bytes).option(53, &[kind])
    }

    pub fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.0.extend_from_slice(&[code, value.len() as u8]);
        self.0.extend_from_slice(value);
        self
    }

    pub fn requested(self, address: &str) -> Self {
        self.option(50, &ip(address).octets())
    }

    pub fn server(self, address: &str) -> Self {
        self.option(54, &ip(address).octets())
    }

    pub fn ciaddr(mut self, address: &str) -> Self {
        self.0[12..16].copy_from_slice(&ip(address).octets());
        self
    }

    pub fn giaddr(mut self, address: &str) -> Self {
        self.0[24..28].copy_from_slice(&ip(address).octets());
        self
    }

    pub fn broadcast(mut self) -> Self {
        self.0[10] = 0x80;
        self
    }

    /// What the engine does with it on eth0.
    pub fn to(&self, engine: &mut Engine, world: &World) -> Outcome {
        self.to_at(engine, world, "eth0", NOW)
    }

    pub fn to_at(&self, engine: &mut Engine, world: &World, interface: &str, now: Timestamp) -> Outcome {
        let request = Request::parse(&self.0).unwrap();
        let source = match request.giaddr.is_unspecified() {
            true => SocketAddrV4::new(request.ciaddr, 68),
            false => SocketAddrV4::new(request.giaddr, 67),
        };
        let port = SERVER_PORT;
        engine.handle(
            &request,
            Ingress {
                interface,
                source,
                port,
            },
            now,
            world,
        )
    }

    /// What the engine does with it at port 4011, sent from there or from port 68.
    pub fn to_boot_server(&self, engine: &mut Engine, world: &World, source: &str) -> Outcome {
        let request = Request::parse(&self.0).unwrap();
        let from = Ingress {
            interface: "",
            source: source.parse().unwrap(),
            port: PXE_PORT,
        };
        engine.handle(&request, from, NOW, world)
    }
}

/// Addresses of leases to be stored.
pub fn stored(outcome: &Outcome) -> Vec<&Lease> {
    let mut leases = Vec::new();
    for write in &outcome.writes {
        if let super::engine::Write::Put(lease) = write {
            leases.push(lease);
        }
    }
    leases
}

/// Every field and option of a reply, in the order of its bytes, and why it was sent.
pub fn show(outcome: &Outcome) -> String {
    let event = &outcome.event;
    let mut out = format!("{} -> {:?}: {}", event.message, event.answer, event.reason);
    if event.alarm {
        out.push_str(" [alarm]");
    }
    out.push('\n');
    for write in &outcome.writes {
        writeln!(out, "  store {write:?}").unwrap();
    }
    let Some(reply) = &outcome.reply else { return out };
    match reply.destination {
        Destination::Routed(to) => writeln!(out, "  from {} to {to}", reply.source),
        Destination::Broadcast => writeln!(out, "  from {} to broadcast", reply.source),
        Destination::Frame { hwaddr, ipaddr } => writeln!(out, "  from {} to {ipaddr} at {hwaddr}", reply.source),
    }
    .unwrap();
    let b = &reply.bytes;
    let address = |at: usize| Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3]);
    let text = |range: std::ops::Range<usize>| b[range].escape_ascii().to_string().replace("\\x00", "");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    writeln!(
        out,
        "  {} bytes: op {} htype {} hlen {} hops {}",
        b.len(),
        b[0],
        b[1],
        b[2],
        b[3]
    )
    .unwrap();
    writeln!(
        out,
        "  xid {} secs {} flags {}",
        hex(&b[4..8]),
        hex(&b[8..10]),
        hex(&b[10..12])
    )
    .unwrap();
    writeln!(
        out,
        "  ciaddr {} yiaddr {} siaddr {} giaddr {}",
        address(12),
        address(16),
        address(20),
        address(24)
    )
    .unwrap();
    writeln!(out, "  chaddr {}", hex(&b[28..44])).unwrap();
    writeln!(out, "  sname '{}' file '{}'", text(44..108), text(108..236)).unwrap();
    let mut rest = &b[240..];
    while let [code, len, tail @ ..] = rest {
        match code {
            0 => rest = &rest[1..],
            255 => break,
            _ => {
                let (value, tail) = tail.split_at(usize::from(*len));
                let printable = value.len() > 4 && value.iter().all(|c| c.is_ascii_graphic() || *c == b' ' || *c == 0);
                let value = match printable {
                    true => format!("'{}'", value.escape_ascii()),
                    false => hex(value),
                };
                writeln!(out, "  option {code}: {value}").unwrap();
                rest = tail;
            }
        }
    }
    assert_eq!(rest.first(), Some(&255), "no end option");
    assert!(rest[1..].iter().all(|b| *b == 0), "noise behind the end option");
    out
}

/// The value of a reply's option; None if it is not there.
pub fn option(outcome: &Outcome, code: u8) -> Option<Vec<u8>> {
    sub_option(&outcome.reply.as_ref()?.bytes[240..], code).map(<[u8]>::to_vec)
}

/// Address that a reply gives.
pub fn given(outcome: &Outcome) -> Option<Ipv4Addr> {
    let b = &outcome.reply.as_ref()?.bytes;
    Some(Ipv4Addr::new(b[16], b[17], b[18], b[19])).filter(|a| !a.is_unspecified())
}
