//! Any bytes at port 67: no panic, a bounded pool, replies that are well-formed and fit a frame.

use dhcproto::{
    Decodable, Decoder,
    v4::{HType, Message},
};
use rackstrap_base::{
    clock::Timestamp,
    subnet::{DhcpPart, Subnet},
};
use rackstrap_dhcp::*;
use std::{
    cell::RefCell,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

struct World(Arc<Network>);

impl Authority for World {
    fn ask(&self, who: &Ask<'_>) -> Answer {
        let loader = match who.ipxe {
            true => Some(Loader::Url("http://10.5.0.1/boot".into())),
            false => who.arch.map(|_| Loader::Tftp {
                server: who.link.server,
                file: "snponly.efi".into(),
            }),
        };
        match who.hwaddr.0[5] {
            last @ 0..=99 => Answer::Unknown {
                loader,
                further_card: last < 20,
            },
            100..=199 => Answer::Node {
                ipaddr: Ipv4Addr::new(10, 5, 1, who.hwaddr.0[5]),
                hostname: "r01n03".into(),
                settings: Default::default(),
                root: who.freebsd_loader.then(|| NetRoot {
                    path: "10.5.0.1:/freebsd@1".into(),
                    settings: vec!["boot.nfsroot.options=nolockd".into()],
                }),
                loader,
            },
            _ => Answer::Silent("silent".into()),
        }
    }

    fn observe(&self, _: &DhcpEvent) {}

    fn network(&self) -> Arc<Network> {
        self.0.clone()
    }

    fn is_node(&self, hwaddr: rackstrap_wire::HwAddr) -> bool {
        (100..=199).contains(&hwaddr.0[5])
    }

    fn is_node_address(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn is_card_of(&self, _: rackstrap_wire::HwAddr, _: Ipv4Addr) -> bool {
        false
    }
}

fn world() -> World {
    let server = Ipv4Addr::new(10, 5, 0, 1);
    World(Arc::new(Network {
        subnets: vec![
            Subnet {
                network: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 5, 0, 0), 16),
                interface: Some("eth0".into()),
                server,
                vlan: None,
                dhcp: DhcpPart::Full,
                dhcp_servers: vec![],
                next_server: false,
                router: None,
                dns: vec![server],
                ntp: vec![],
                mtu: None,
                options: vec![],
                pool: Some((Ipv4Addr::new(10, 5, 255, 1), Ipv4Addr::new(10, 5, 255, 8))),
                lease_secs: 3600,
                pool_lease_secs: 600,
            },
            Subnet {
                network: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 6, 0, 0), 16),
                interface: Some("eth1".into()),
                server: Ipv4Addr::new(10, 6, 0, 1),
                vlan: None,
                dhcp: DhcpPart::Proxy,
                dhcp_servers: vec![],
                next_server: false,
                router: None,
                dns: vec![],
                ntp: vec![],
                mtu: None,
                options: vec![],
                pool: None,
                lease_secs: 3600,
                pool_lease_secs: 600,
            },
        ],
        domain: "example".into(),
    }))
}

thread_local! {
    // Kept from input to input, so that the pool fills and empties.
    static STATE: RefCell<(World, Engine, u64)> = RefCell::new({
        let world = world();
        let engine = Engine::new(world.network(), &[]).0;
        (world, engine, 1_800_000_000_000)
    });
}

/// One run; true if the message was one.
pub fn run(bytes: &[u8]) -> bool {
    let port = Port::parse(bytes);
    let Ok(request) = Request::parse(bytes) else {
        return port.is_some();
    };
    assert_eq!(port, None, "a request of an InfiniBand card is not answered");
    STATE.with_borrow_mut(|(world, engine, now)| {
        *now += 10_000;
        let source = SocketAddrV4::new(request.ciaddr, 68);
        let asker = SocketAddrV4::new(Ipv4Addr::new(10, 6, 1, 1), 4011);
        for (interface, source, port) in [("eth0", source, 67), ("eth1", source, 67), ("", asker, 4011)] {
            let from = Ingress {
                interface,
                source,
                port,
            };
            let outcome = engine.handle(&request, from, Timestamp(*now), &*world);
            assert_eq!(outcome.reply.is_none(), outcome.event.answer == AnswerKind::Silent);
            let Some(reply) = outcome.reply else { continue };
            assert!((300..=1472).contains(&reply.bytes.len()));
            let message = Message::decode(&mut Decoder::new(&reply.bytes)).expect("a reply that clients can read");
            assert_eq!(reply.bytes[0], 2);
            assert!(message.opts().msg_type().is_some());
            assert_eq!((message.htype(), message.hlen()), (HType::Eth, 6));
            if outcome.event.part == DhcpPart::Proxy {
                assert!(message.yiaddr().is_unspecified() && outcome.writes.is_empty());
            }
        }
        assert!(engine.leases().len() <= 8);
    });
    true
}
