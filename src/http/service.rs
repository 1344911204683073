//! What every request handler shares, and who may ask for what.

use super::{
    Heard,
    answer::Problem,
    counters::{Counters, Reason},
    limits::Limits,
    script::Scripts,
};
use crate::{
    boots::{Boot, Boots, Refusal, Windows},
    discovery::Discovery,
    loaders::Loaders,
    overlay::Renderer,
    restart::Restarts,
    rollout::Rollouts,
    timeline::{Event, EventKind, Level, Recorder, Subject},
};
use arc_swap::ArcSwap;
use rackstrap_base::{clock::Timestamp, connection_limit::ClientClass, firmware::Firmwares, text::quoted};
use rackstrap_model::decide::{SharedWorld, World};
use rackstrap_site::Site;
use rackstrap_wire::{FIRST_USER_PORT, HwAddr, ImageRef};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// What is told of a machine that waits at an address.
pub type Waits = Box<dyn Fn(HwAddr, Ipv4Addr) -> bool + Send + Sync>;

/// The HTTP service.
pub struct Service {
    /// What decisions are made from.
    pub world: SharedWorld,
    /// Pinned boots.
    pub boots: Boots,
    /// Who may have a script.
    pub windows: Arc<Windows>,
    /// Timelines.
    pub recorder: Recorder,
    /// The waiting room.
    pub discovery: Discovery,
    /// Told of a machine that waits, and of the temporary address from which it asked: its lease goes on. False if another
    /// machine has that address.
    pub waits: Waits,
    /// Who is told of boots, and knows who is to restart.
    pub rollouts: Rollouts,
    /// Who is to restart.
    pub restarts: Restarts,
    /// What the firmware of nodes said of itself over DHCP.
    pub firmware: Arc<Firmwares>,
    /// Boot loaders.
    pub loaders: Arc<ArcSwap<Loaders>>,
    /// Boot scripts.
    pub scripts: Arc<ArcSwap<Scripts>>,
    /// What nodes get.
    pub overlays: Arc<Renderer>,
    /// What agents said already.
    pub heard: Heard,
    /// What clients may take of us.
    pub limits: Limits,
    /// What was asked and refused.
    pub counters: Arc<Counters>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Peer {
    /// The peer's IPv4 address (0.0.0.0, which nobody has, for anything else).
    pub fn ipv4(&self) -> Ipv4Addr {
        match self.0.ip() {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// True if only root of the peer's machine can have that port.
    pub fn is_root(&self) -> bool {
        self.0.port() < FIRST_USER_PORT
    }
}

/// `http://10.5.0.1:80`, the URL that everything of a node on `server` begins with.
pub fn base_url(site: &Site, server: Ipv4Addr) -> String {
    format!("http://{server}:{}", site.server.http_port)
}

/// How to get an image another agent.
pub(super) fn seal_anew(image: &ImageRef) -> String {
    format!(
        "seal it again with this release: rackstrap image clone {image} && rackstrap image seal {}-work",
        image.name
    )
}

impl Service {
    /// Whose connection it is.
    pub(super) fn class(&self, peer: Peer) -> ClientClass {
        match self.world.load().inventory.by_ipaddr(peer.ipv4()) {
            Some(_) if peer.is_root() => ClientClass::Root,
            Some(_) => ClientClass::Node,
            None => ClientClass::Stranger,
        }
    }

    pub(super) fn snapshot(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// The boot `id`, if `peer` is the node that it belongs to.
    pub(super) fn boot_of(&self, peer: Peer, id: &str) -> Result<Arc<Boot>, Problem> {
        let boot = self.boots.get(id).ok_or_else(|| Refusal::Unknown(quoted(id, 60)))?;
        if boot.plan.net.ipaddr != peer.ipv4() {
            let detail = format!("{} asked for boot {id}, which is {}'s", peer.ipv4(), boot.plan.node);
            match self.world.load().inventory.by_ipaddr(peer.ipv4()) {
                // A user of one node says nothing about another node: it is his own node that did this, and outside of its boot.
                Some(asker) => {
                    let event = Event::new(Timestamp::now(), EventKind::Refused, Level::Error, detail.clone());
                    self.recorder.record(Subject::Node(asker.name.clone()), event);
                }
                // Perhaps the machine itself, which got another address.
                None => self.record(&boot, EventKind::Refused, Level::Error, detail.clone(), None),
            }
            return Err(Problem::forbidden(Reason::ForeignBoot, detail));
        }
        Ok(boot)
    }

    /// Refuses whoever cannot be the agent of `boot`, whose token is all that a request has. Some DHCP relays pass on what users send
    /// (dnsmasq 2.90 does, from any port), so that a user can begin a boot and knows its token. The agent asks from a port that no
    /// user can have; an older one, which asks from any, waits until the system before is silent.
    pub(super) fn expect_agent(&self, peer: Peer, boot: &Boot) -> Result<(), Problem> {
        if !boot.redeemed {
            // One that is up without files is of an agent that nobody has any more.
            if boot.void && boot.ready.is_none() {
                return Err(Refusal::Void(boot.plan.id.clone()).into());
            }
            let heartbeat_secs = self.world.load().site.limits.heartbeat_secs;
            if let Some(seconds) = self.boots.held_for(boot, heartbeat_secs) {
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
        self.recorder.record(Subject::Node(boot.plan.node.clone()), event);
    }
}
