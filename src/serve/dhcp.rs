//! The site's answers for DHCP: which machine it is, which loader it gets, and where leases are stored.

use super::{
    Shared,
    attempts::Attempts,
    infiniband::{self, InfinibandCards},
    own_system,
    rivals::Rivals,
};
use crate::{
    freebsd::FreeBsd,
    http::{base_url, script::first_script_url},
};
use anyhow::Context;
use arc_swap::ArcSwap;
use rackstrap_base::{
    clock::Timestamp,
    firmware::{self, Firmware},
    subnet::DhcpPart,
    sync::lock,
};
use rackstrap_dhcp::{
    Answer, AnswerKind, Ask, Authority, DhcpEvent, Kind, Lease, LeaseStore, Left, Loader, NetRoot, Network, NodeTerms,
    Port,
};
use rackstrap_model::decide::{Decision, LoaderChoice, NodeDecision, Requester, World, decide};
use rackstrap_registries::{
    discovery::{Moved, NoRoom, Observation, Place, Places},
    timeline::{DhcpMessage, Event, EventKind, Level, Sender, Subject},
};
use rackstrap_site::Site;
use rackstrap_store::{Batch, Store, Table};
use rackstrap_wire::HwAddr;
use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

/// DHCP's view of the site.
pub struct DhcpAuthority {
    shared: Shared,
    /// The subnets, made once for each site file.
    network: ArcSwap<(Arc<Site>, Arc<Network>)>,
    /// Where nodes are plugged in.
    places: Mutex<Places>,
    /// Machines that got no loader.
    attempts: Attempts,
    /// Other DHCP servers that were heard.
    pub rivals: Rivals,
    /// InfiniBand cards, which are refused.
    infiniband: InfinibandCards,
    /// The hardware address, of no real machine, with which other DHCP servers are searched.
    pub asker: HwAddr,
}

impl DhcpAuthority {
    pub fn new(shared: Shared) -> Self {
        let site = shared.world.load().site.clone();
        let network = ArcSwap::from_pointee((site.clone(), Arc::new(network_of(&site))));
        let rivals = shared.rivals.clone();
        DhcpAuthority {
            shared,
            network,
            places: Mutex::default(),
            attempts: Attempts::default(),
            rivals,
            infiniband: InfinibandCards::default(),
            asker: rackstrap_dhcp::asker(),
        }
    }
}

impl DhcpAuthority {
    /// Records on a node's timeline, and so in `status`, that the node is not where it was.
    fn find(&self, node: &Subject, event: &DhcpEvent, site: &Site) {
        let mut places = lock(&self.places);
        let moved = places.observe(event.hwaddr, place(event, site), event.at);
        drop(places);
        let (level, detail) = match moved {
            None => return,
            Some(Moved::Carried(text)) => (Level::Ok, text),
            Some(Moved::Flips(text)) => (Level::Error, text),
        };
        let event = Event::new(event.at, EventKind::Place, level, detail);
        self.shared.recorder.record(node.clone(), event);
    }
}

impl DhcpAuthority {
    /// The name by which firmware asks for its loader; none if no loader is made for it.
    fn first_loader(&self, choice: &Result<LoaderChoice, String>) -> Option<String> {
        let choice = choice.as_ref().ok()?;
        self.shared.loaders.load().name_of(choice).map(str::to_owned)
    }

    /// Records that firmware, which was just offered an address, has nothing to load: one event for each of its attempts. With
    /// `dhcp = "proxy"` it gets no offer from here then, as there is nothing else to offer.
    fn tell_unbootable(&self, subject: &Subject, event: &DhcpEvent, world: &World) {
        let asks_for_loader = event.booting && !event.ipxe && !event.freebsd_loader && !event.grub;
        let offered = matches!(event.answer, AnswerKind::Offer | AnswerKind::Ack) || event.left == Some(Left::NoLoader);
        if !asks_for_loader || !offered {
            return;
        }
        let decision = decide(world, &requester(event.hwaddr, event.arch, &event.vendor_class));
        let Err(why) = self.shared.loaders.load().offer(event.arch, decision.loader()) else {
            return;
        };
        let known = matches!(subject, Subject::Node(_));
        if self.attempts.begins(event.hwaddr, event.xid, known, event.at) {
            let told = Event::new(event.at, EventKind::NoLoader, Level::Error, why).sent_by(Sender::Firmware);
            self.shared.recorder.record(subject.clone(), told);
        }
    }

    /// The root path of a node whose image is FreeBSD.
    fn root(&self, decision: &NodeDecision, who: &Ask<'_>) -> Option<NetRoot> {
        let decided = decision.image.as_deref().ok();
        if !who.freebsd_loader && !decided.is_some_and(|version| version.is_freebsd()) {
            return None;
        }
        let export = (self.shared.freebsd()).root_of(&decision.node.name, decided, who.freebsd_loader)?;
        let server = decision.subnet.server;
        Some(NetRoot {
            path: format!("{server}:/{export}"),
            settings: FreeBsd::settings(&base_url(&self.shared.world.load().site, server)),
        })
    }

    /// Records which waiting machine has an address of another DHCP server. Its own request names the address, and users cannot send
    /// such a request.
    fn note_waiting(&self, event: &DhcpEvent, world: &World) {
        let asks = matches!(
            event.message,
            Kind::Selecting { .. } | Kind::InitReboot { .. } | Kind::Extend { .. }
        );
        let Some(address) = event.address.filter(|_| asks && event.left == Some(Left::Address)) else {
            return;
        };
        let waits = event.takes_address() && world.inventory.by_hwaddr(event.hwaddr).is_none();
        self.shared
            .firmware
            .note_waiting(address, waits.then_some(event.hwaddr));
    }

    /// Keeps what the firmware of a node says of itself, and which address it took.
    fn note_firmware(&self, event: &DhcpEvent) {
        // FreeBSD's loader and GRUB do not say what firmware started them.
        if !event.freebsd_loader && !event.grub {
            self.shared.firmware.note(event.hwaddr, said(event));
        }
        if let Some(uuid) = event.uuid {
            self.shared.discovery.record_node_uuid(event.hwaddr, uuid);
        }
        if event.takes_address()
            && let Some(address) = event.address
        {
            self.shared.firmware.note_address(event.hwaddr, address);
        }
    }

    /// The packet as an event of the timeline. Notes from which server a node takes its address.
    fn told(&self, event: &DhcpEvent, site: &Site, subject: &Subject, doubted: bool) -> Event {
        // A running system that asks for its lease again is not a machine that starts.
        let message = message_of(event.message);
        let step = match event.booting {
            _ if doubted => EventKind::DhcpDoubted(message),
            true => EventKind::Dhcp(message),
            false => EventKind::DhcpClient(message),
        };
        let level = match event.answer {
            _ if doubted => Level::Ok,
            _ if event.alarm => Level::Error,
            AnswerKind::Nak => Level::Retry,
            _ => Level::Ok,
        };
        let mut detail = describe(event);
        let other = taken_from(event, site);
        if let Some((server, _)) = other {
            detail = detail.replacen(&server.to_string(), &self.rivals.name_of(server), 1);
        }
        if event.booting && !doubted && subject_is_node(subject) && takes_an_offer(event) {
            let server = other.map(|(server, address)| (self.rivals.name_of(server), address));
            self.shared.firmware.note_server(event.hwaddr, server);
        }
        let sender = if event.ipxe { Sender::Ipxe } else { Sender::Firmware };
        Event::new(event.at, step, level, detail).sent_by(sender)
    }

    /// Records an answer at port 4011 on the timeline of the node that has the sender's address, and nothing else: a user of that
    /// node can ask there, too, and the packet does not say where the machine is plugged in.
    fn observe_boot_server(&self, event: &DhcpEvent, world: &World) {
        let Some(node) = world.inventory.by_hwaddr(event.hwaddr) else {
            return;
        };
        // The node's own address, or the one that another DHCP server gave to it.
        let given = self.shared.firmware.address_of(event.hwaddr);
        let is_own = |address: Ipv4Addr| address == node.ipaddr || Some(address) == given;
        // What was not answered is counted. Firmware without a loader was reported when it asked for its address.
        if event.left.is_some() || !event.address.is_some_and(is_own) {
            return;
        }
        let step = EventKind::DhcpDoubted(message_of(event.message));
        let sender = if event.ipxe { Sender::Ipxe } else { Sender::Firmware };
        let told = Event::new(event.at, step, Level::Ok, describe(event)).sent_by(sender);
        self.shared.recorder.record(Subject::Node(node.name.clone()), told);
    }
}

/// What decides on the loader of a machine.
fn requester(hwaddr: HwAddr, arch: Option<u16>, class: &str) -> Requester {
    Requester {
        hwaddr: Some(hwaddr),
        arch,
        class: class.to_owned(),
        ..Requester::default()
    }
}

fn network_of(site: &Site) -> Network {
    Network {
        subnets: site.subnets.clone(),
        domain: site.cluster.domain.clone(),
    }
}

impl Authority for DhcpAuthority {
    fn ask(&self, who: &Ask<'_>) -> Answer {
        let world = self.shared.world.load();
        // FreeBSD's loader and GRUB do not say what firmware started them.
        let of_loader = who.freebsd_loader || who.grub;
        let known = || self.shared.firmware.of(who.hwaddr).filter(|_| of_loader);
        let arch = who.arch.or_else(known);
        let requester = Requester {
            ipxe: who.ipxe,
            http_client: who.http_client,
            ..requester(who.hwaddr, arch, who.vendor_class)
        };
        let decision = decide(&world, &requester);
        let base = base_url(&world.site, who.link.server);
        let first = || self.first_loader(decision.loader());
        let loader = if who.ipxe && !who.ipxe_without_http {
            Some(Loader::Url(first_script_url(&base, who.hwaddr)))
        } else if who.grub || decision.loader().as_ref().is_ok_and(|choice| choice.files.is_empty()) {
            let server = who.link.server;
            Some(Loader::Own { server })
        } else if who.http_client {
            first().map(|file| Loader::Url(format!("{base}/loader/{file}")))
        } else {
            first().map(|file| Loader::Tftp {
                server: who.link.server,
                file,
            })
        };
        match decision {
            Decision::Node(node) => Answer::Node {
                ipaddr: node.node.ipaddr,
                hostname: node.node.name.clone(),
                root: self.root(&node, who),
                settings: NodeTerms {
                    mtu: node.mtu,
                    options: node.dhcp_options.clone(),
                },
                loader,
            },
            Decision::Unknown { .. } => Answer::Unknown {
                loader,
                further_card: self.shared.discovery.is_further_card(who.hwaddr, who.uuid),
            },
        }
    }

    fn observe(&self, event: &DhcpEvent) {
        if matches!(event.left, Some(Left::Off | Left::BootRequest)) {
            // With "off" the daemon hears another server's network by chance. And users can send to port 4011. Both are counted.
            return;
        }
        let world = self.shared.world.load();
        if event.boot_server {
            self.observe_boot_server(event, &world);
            return;
        }
        self.note_waiting(event, &world);
        // Users can reach a relay. While the node's system runs, a relay's report about the node changes nothing.
        let mut doubted = false;
        let mut confirmed = false;
        let subject = match world.inventory.by_hwaddr(event.hwaddr) {
            Some(node) => {
                let subject = Subject::Node(node.name.clone());
                let heartbeat_secs = world.site.limits.heartbeat_secs;
                doubted = event.relay.is_some() && self.shared.boots.is_alive(&node.name, heartbeat_secs);
                if event.booting && event.relay.is_none() {
                    self.shared.boots.firmware_speaks(&node.name);
                }
                // A running system extends its lease without the relay.
                if event.booting && !doubted {
                    self.note_firmware(event);
                    self.find(&subject, event, &world.site);
                }
                if event.completes_boot() {
                    self.shared.windows.open(&node.name, event.at, doubted);
                }
                subject
            }
            None => {
                let seen = seen(event, &world.site);
                confirmed = seen.confirmed;
                self.shared.discovery.observe(seen);
                Subject::Machine(event.hwaddr)
            }
        };
        let told = self.told(event, &world.site, &subject, doubted);
        tracing::debug!(hwaddr = %event.hwaddr, interface = %event.interface, step = %told.step, detail = %told.detail, "dhcp");
        self.shared.recorder.record(subject.clone(), told);
        if confirmed {
            self.shared.recorder.confirm(event.hwaddr);
        }
        if !doubted {
            self.tell_unbootable(&subject, event, &world);
            if let Subject::Node(node) = &subject {
                own_system::tell(&self.shared, &world, node, event);
            }
        }
    }

    fn boot_server(&self, server: Ipv4Addr, why: Option<&str>) {
        let warnings = &self.shared.warnings;
        let topic = format!("port-4011 {server}");
        let Some(why) = why else {
            warnings.clear(&topic);
            return;
        };
        let help = "if another program has the port, stop it: `ss -ulpn 'sport = 4011'` shows it; the daemon tries again \
                    every few seconds";
        // The DHCP server has logged it.
        warnings.raise_error(Timestamp::now(), &topic, why, help);
    }

    fn infiniband(&self, port: &Port, interface: &str) {
        let node = port.uuid.and_then(|uuid| self.shared.discovery.node_with_uuid(uuid));
        let (warnings, now) = (&self.shared.warnings, Timestamp::now());
        let begins = self.infiniband.asks(port.guid, interface, node.clone(), warnings, now);
        // Any machine on the network can send another one's UUID: the event changes nothing else.
        if let (true, Some(node)) = (begins, node) {
            let event = Event::new(now, EventKind::Infiniband, Level::Retry, infiniband::refusal(port.guid));
            self.shared.recorder.record(Subject::Node(node), event);
        }
    }

    fn network(&self) -> Arc<Network> {
        let site = self.shared.world.load().site.clone();
        let known = self.network.load();
        if Arc::ptr_eq(&known.0, &site) {
            return known.1.clone();
        }
        let network = Arc::new(network_of(&site));
        self.network.store(Arc::new((site, network.clone())));
        network
    }

    fn is_node(&self, hwaddr: HwAddr) -> bool {
        self.shared.world.load().inventory.by_hwaddr(hwaddr).is_some()
    }

    fn asker(&self) -> Option<HwAddr> {
        Some(self.asker)
    }

    fn is_node_address(&self, address: Ipv4Addr) -> bool {
        self.shared.world.load().inventory.by_ipaddr(address).is_some()
    }

    fn is_card_of(&self, hwaddr: HwAddr, address: Ipv4Addr) -> bool {
        let world = self.shared.world.load();
        let node = world.inventory.by_ipaddr(address);
        node.is_some_and(|node| node.hwaddrs.contains(&hwaddr))
    }
}

fn subject_is_node(subject: &Subject) -> bool {
    matches!(subject, Subject::Node(_))
}

/// Whether it chose a server.
fn takes_an_offer(event: &DhcpEvent) -> bool {
    matches!(event.message, Kind::Selecting { .. }) && event.part == DhcpPart::Full
}

/// The other DHCP server whose offer the machine took, where this one gives the addresses, and the address; none if it took this one's.
fn taken_from(event: &DhcpEvent, site: &Site) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let Kind::Selecting { server, address } = event.message else {
        return None;
    };
    let ours = site.subnets.iter().any(|subnet| subnet.server == server);
    // A relay may name itself as the server (RFC 5107): such a request is answered.
    let other = !ours && event.answer == AnswerKind::Silent && event.part == DhcpPart::Full;
    other.then_some((server, address))
}

/// The name of the packet on a timeline.
fn message_of(kind: Kind) -> DhcpMessage {
    match kind {
        Kind::Discover => DhcpMessage::Discover,
        Kind::Selecting { .. } => DhcpMessage::Request,
        Kind::InitReboot { .. } => DhcpMessage::InitReboot,
        Kind::Extend { .. } => DhcpMessage::Renewing,
        Kind::Decline { .. } => DhcpMessage::Decline,
        Kind::Release { .. } => DhcpMessage::Release,
        Kind::Inform => DhcpMessage::Inform,
    }
}

/// The observation for discovery.
fn seen(event: &DhcpEvent, site: &Site) -> Observation {
    Observation {
        at: event.at,
        hwaddr: event.hwaddr,
        uuid: event.uuid,
        arch: event.arch,
        class: said(event).class,
        booting: event.booting,
        // In a proxy subnet the machine takes its address from another server.
        confirmed: event.answer == AnswerKind::Ack || event.takes_address(),
        offered: matches!(event.answer, AnswerKind::Offer | AnswerKind::Ack),
        no_room: event.pool_full.map(|(network, until)| NoRoom {
            network,
            why: event.reason.clone().into_owned(),
            since: event.at,
            until: Some(until),
        }),
        place: place(event, site),
    }
}

/// What the packet says of the machine's firmware. iPXE has a vendor class of its own.
fn said(event: &DhcpEvent) -> Firmware {
    Firmware {
        arch: event.arch,
        class: if event.ipxe {
            String::new()
        } else {
            event.vendor_class.clone()
        },
    }
}

/// Where the machine is plugged in.
fn place(event: &DhcpEvent, site: &Site) -> Place {
    let text = |id: &Option<Vec<u8>>| id.as_deref().map(Place::text).unwrap_or_default();
    Place {
        interface: event.interface.clone(),
        relay: event.relay,
        network: event
            .relay
            .and_then(|relay| site.subnet_of(relay))
            .map(|subnet| subnet.network),
        switch: text(&event.remote_id),
        port: text(&event.circuit_id),
    }
}

/// `ack 10.5.1.1 (BIOS, iPXE, relay 10.6.0.1): its static address`
fn describe(event: &DhcpEvent) -> String {
    let answer = match event.answer {
        AnswerKind::Offer => "offer",
        AnswerKind::Ack => "ack",
        AnswerKind::Nak => "nak",
        AnswerKind::Silent => "no answer",
    };
    let mut traits = Vec::new();
    // At port 4011 anybody can send any number, and each would be a row of its own.
    traits.extend(event.arch.filter(|_| !event.boot_server).map(firmware::name));
    if event.ipxe {
        traits.push("iPXE".to_owned());
    }
    if event.freebsd_loader {
        traits.push("FreeBSD's loader".to_owned());
    }
    if event.grub {
        traits.push("GRUB".to_owned());
    }
    if event.http_client {
        traits.push("HTTP boot".to_owned());
    }
    if let Some(relay) = event.relay {
        traits.push(format!("relay {relay}"));
    }
    let mut text = answer.to_owned();
    if let Some(address) = event.address {
        text += &format!(" {address}");
    }
    if !traits.is_empty() {
        text += &format!(" ({})", traits.join(", "));
    }
    if !event.reason.is_empty() {
        text += &format!(": {}", event.reason);
    }
    text
}

/// Pool leases in the store.
pub struct StoredLeases(pub Store);

impl LeaseStore for StoredLeases {
    fn load(&self) -> anyhow::Result<Vec<Lease>> {
        let rows = self
            .0
            .scan(Table::Leases, b"")
            .context("loading the leases of the temporary pool")?;
        Ok(rows.into_iter().map(|(_, lease)| lease).collect())
    }

    fn commit(&self, leases: &[Lease]) -> anyhow::Result<()> {
        let put = |batch: Batch, lease: &Lease| batch.put(Table::Leases, lease.ipaddr.octets(), lease);
        self.0
            .commit_blocking(leases.iter().fold(Batch::new(), put))
            .context("storing leases")
    }

    fn forget(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
        let delete = |batch: Batch, address: &Ipv4Addr| batch.delete(Table::Leases, address.octets());
        self.0
            .commit_blocking(addresses.iter().fold(Batch::new(), delete))
            .context("forgetting leases")
    }
}

#[cfg(test)]
mod tests;
