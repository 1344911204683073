//! What all request handlers share, and which client may ask for what.

use super::{
    ReportedEvents, SharedFiles,
    answer::Problem,
    counters::{Counters, Reason},
    limits::Limits,
    script::Scripts,
};
use crate::{freebsd::FreeBsd, pinning::Pinning};
use arc_swap::ArcSwap;
use rackstrap_base::{
    clock::Timestamp,
    connection_limit::ClientClass,
    firmware::Firmwares,
    holding::Holding,
    subnet::{DhcpPart, Subnet},
    text::quoted,
};
use rackstrap_catalog::seal_commands;
use rackstrap_loaders::Loaders;
use rackstrap_model::decide::{NodeDecision, SharedWorld, World};
use rackstrap_model::inventory::Node;
use rackstrap_overlay::Renderer;
use rackstrap_registries::{
    boots::{Boot, LoadingNodes, Refusal},
    restart::Restarts,
    timeline::{Event, EventKind, Level, Subject},
};
use rackstrap_site::Site;
use rackstrap_wire::{FIRST_USER_PORT, HwAddr, ImageRef, NetPlan, neighbour};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// Called with the card that a request names, and the address that the request comes from.
pub type Waits = Box<dyn Fn(HwAddr, Ipv4Addr) -> Holding + Send + Sync>;

/// Called with an address: the waiting machine that has it from the temporary pool; none if no machine has.
pub type Holder = Box<dyn Fn(Ipv4Addr) -> Option<HwAddr> + Send + Sync>;

/// The HTTP service.
pub struct Service {
    /// The world that decisions are made from.
    pub world: SharedWorld,
    /// Boots, boot windows, timelines, rollouts and unknown machines; pins boots.
    pub pinning: Pinning,
    /// The nodes that load now.
    pub loading: LoadingNodes,
    /// Called with a waiting machine and the temporary address from which it asked, so that its lease is renewed. Returns what the
    /// lease says of the sender.
    pub waits: Waits,
    /// Called for a loader that does not know its card.
    pub holder: Holder,
    /// The registry of restarts.
    pub restarts: Restarts,
    /// The architectures of nodes' firmware, from DHCP.
    pub firmware: Arc<Firmwares>,
    /// Boot loaders.
    pub loaders: Arc<ArcSwap<Loaders>>,
    /// Boot scripts.
    pub scripts: Arc<ArcSwap<Scripts>>,
    /// Kernels and initramfs that are being sent by TFTP.
    pub files: SharedFiles,
    /// Renders the files of nodes.
    pub overlays: Arc<Renderer>,
    /// Which events agents have reported already.
    pub reported: ReportedEvents,
    /// Boots of FreeBSD.
    pub freebsd: FreeBsd,
    /// What clients may use.
    pub limits: Limits,
    /// Counts of requests and refusals.
    pub counters: Arc<Counters>,
}

/// The sender of a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Peer {
    /// The peer's IPv4 address; 0.0.0.0, which no node has, for other address families.
    pub fn ipv4(&self) -> Ipv4Addr {
        match self.0.ip() {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// Whether only root of the peer's machine can use that port.
    pub fn is_root(&self) -> bool {
        self.0.port() < FIRST_USER_PORT
    }
}

/// `http://10.5.0.1:80`: the beginning of all URLs for a node on `server`.
pub fn base_url(site: &Site, server: Ipv4Addr) -> String {
    format!("http://{server}:{}", site.server.http_port)
}

/// The command that gives an image a newer agent.
pub(super) fn seal_anew(image: &ImageRef) -> String {
    format!("seal it again with this release: {}", seal_commands(image))
}

impl Service {
    /// The class of client that the connection belongs to, for the connection limit.
    pub(super) fn class(&self, peer: Peer) -> ClientClass {
        match self.node_at(&self.world.load(), peer) {
            Some(_) if peer.is_root() => ClientClass::Root,
            Some(_) => ClientClass::Node,
            None => ClientClass::Stranger,
        }
    }

    /// The node that sends from the peer's address: its own, or the one from which a node of a VLAN loads without its tag.
    pub fn node_at(&self, world: &World, peer: Peer) -> Option<Arc<Node>> {
        let address = peer.ipv4();
        let untagged = || {
            world
                .site
                .subnet_of(address)
                .filter(|subnet| subnet.starts_untagged())?;
            let node = world.inventory.by_hwaddr((self.holder)(address)?)?;
            world.site.subnet_of(node.ipaddr)?.vlan.map(|_| node)
        };
        world.inventory.by_ipaddr(address).or_else(untagged).cloned()
    }

    /// Whether the machine with the card `hwaddr`, which is not a node, sends from the peer's address itself: it has a lease of the
    /// temporary pool, took the address from the other DHCP server in a subnet with `dhcp = "proxy"`, or answers there to ARP in one
    /// with `dhcp = "off"`. All that a request says of a machine counts only then, because any program can name any card. No lease is
    /// extended.
    pub(super) fn is_own_address(&self, hwaddr: HwAddr, peer: Peer) -> bool {
        let has = (self.holder)(peer.ipv4()).or_else(|| self.seen_at(peer));
        has == Some(hwaddr)
    }

    /// The card that has an address which another DHCP server gave.
    fn seen_at(&self, peer: Peer) -> Option<HwAddr> {
        (self.firmware.waiting_at(peer.ipv4())).or_else(|| self.neighbour_at(peer))
    }

    /// The card that answers to ARP at the address. None in subnets whose DHCP is heard, because that says more, and behind a router.
    pub(super) fn neighbour_at(&self, peer: Peer) -> Option<HwAddr> {
        let world = self.world.load();
        let subnet = world.site.subnet_of(peer.ipv4())?;
        if subnet.dhcp != DhcpPart::Off {
            return None;
        }
        neighbour::card_at(&fs::read_to_string(neighbour::TABLE).ok()?, peer.ipv4())
    }

    /// Whether the node with the card `hwaddr`, whose boot network is `vlan`, loads without its tag: it has a lease of the temporary pool
    /// of a subnet without a VLAN, and so asked DHCP there itself.
    pub(super) fn starts_untagged(&self, vlan: Option<u16>, hwaddr: HwAddr, peer: Peer) -> bool {
        let world = self.world.load();
        let subnet = world.site.subnet_of(peer.ipv4());
        vlan.is_some() && subnet.is_some_and(Subnet::starts_untagged) && (self.holder)(peer.ipv4()) == Some(hwaddr)
    }

    /// The beginning of all URLs for the loader of a node: of the server's address in the node's subnet, or in that from which a node of a VLAN
    /// loads without its tag.
    pub(super) fn base_of(&self, world: &World, decision: &NodeDecision, peer: Peer) -> String {
        let own = &decision.subnet;
        let asks_in = own.vlan.and_then(|_| world.site.subnet_of(peer.ipv4()));
        base_url(&world.site, asks_in.unwrap_or(own).server)
    }

    /// What the lease of a waiting machine says of the sender, as [`Service::is_own_address`] does. The lease is extended.
    pub(super) fn holding(&self, hwaddr: HwAddr, peer: Peer) -> Holding {
        match (self.waits)(hwaddr, peer.ipv4()) {
            Holding::Free => match self.seen_at(peer) {
                Some(holder) if holder == hwaddr => Holding::Own,
                Some(_) => Holding::Taken,
                None => Holding::Free,
            },
            known => known,
        }
    }

    pub(super) fn snapshot(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// The boot `id`, if `peer` is the node that it belongs to.
    pub(super) fn boot_of(&self, peer: Peer, id: &str) -> Result<Arc<Boot>, Problem> {
        self.boot_if(peer, id, |net| net.ipaddr == peer.ipv4())
    }

    /// The boot `id`, if `peer` is the node that it belongs to, or its loader, which does not set the tag of the node's VLAN.
    pub(super) fn boot_to_load(&self, peer: Peer, id: &str) -> Result<Arc<Boot>, Problem> {
        self.boot_if(peer, id, |net| self.loads_for(net, peer))
    }

    /// Whether `peer` may load the kernel of a boot with that address.
    pub(super) fn loads_for(&self, net: &NetPlan, peer: Peer) -> bool {
        net.ipaddr == peer.ipv4() || self.starts_untagged(net.vlan, net.hwaddr, peer)
    }

    fn boot_if(&self, peer: Peer, id: &str, is_its: impl Fn(&NetPlan) -> bool) -> Result<Arc<Boot>, Problem> {
        let boot = self
            .pinning
            .boots
            .get(id)
            .ok_or_else(|| Refusal::Unknown(quoted(id, 60)))?;
        if !is_its(&boot.plan.net) {
            let detail = format!("{} asked for boot {id}, which is {}'s", peer.ipv4(), boot.plan.node);
            match self.world.load().inventory.by_ipaddr(peer.ipv4()) {
                // A user of one node says nothing about another node: the event belongs to the user's own node, and to no
                // boot of it.
                Some(asker) => {
                    let event = Event::new(Timestamp::now(), EventKind::Refused, Level::Error, detail.clone());
                    self.pinning.recorder.record(Subject::Node(asker.name.clone()), event);
                }
                // The request may come from the machine itself, which got another address.
                None => self.record(&boot, EventKind::Refused, Level::Error, detail.clone(), None),
            }
            return Err(Problem::forbidden(Reason::ForeignBoot, detail));
        }
        Ok(boot)
    }

    /// Refuses requests that cannot come from the agent of `boot` and prove themselves by its token only. Some DHCP relays
    /// pass on what users send (dnsmasq 2.90 does, from any port), so a user can begin a boot and know its token. The agent
    /// asks from a port that no user can have. An older agent, which asks from any port, waits until the system before has
    /// been silent.
    pub(super) fn expect_agent(&self, peer: Peer, boot: &Boot) -> Result<(), Problem> {
        if !boot.redeemed {
            // A boot that is up and got no files belongs to an agent that is too old to be in use.
            if boot.void && boot.ready.is_none() {
                return Err(Refusal::Void(boot.plan.id.clone()).into());
            }
            let heartbeat_secs = self.world.load().site.limits.heartbeat_secs;
            if let Some(seconds) = self.pinning.boots.held_for(boot, heartbeat_secs) {
                let image = boot.image();
                let detail = format!(
                    "waits until the system before was silent, as image {image} was sealed by an older release; {}",
                    seal_anew(image)
                );
                self.record(boot, EventKind::AgentClient, Level::Retry, detail.clone(), None);
                return Err(Problem::unavailable(format!("{detail} ({seconds} s at most)")));
            }
        }
        if !boot.privileged || peer.is_root() {
            return Ok(());
        }
        let detail = format!(
            "boot {}: asked from port {}; the agent of its image asks from one below {FIRST_USER_PORT}",
            boot.plan.id,
            peer.0.port()
        );
        Err(Problem::forbidden(Reason::UnprivilegedPort, detail))
    }

    /// Records an event on the timeline of the boot's node. `took_ms` is none if nothing was timed.
    pub(super) fn record(&self, boot: &Boot, kind: EventKind, level: Level, detail: String, took_ms: Option<u64>) {
        let mut event = Event::new(Timestamp::now(), kind, level, detail).of_boot(&boot.plan.id);
        event.took_ms = took_ms;
        self.pinning
            .recorder
            .record(Subject::Node(boot.plan.node.clone()), event);
    }
}
