//! From a checked request to its answer: RFC 2131 sections 4.3.1 to 4.3.5.
//!
//! Pure: no socket, no file, no clock. What must be on disk before the reply leaves is in [`Outcome::writes`].

use super::{
    authority::{Answer, AnswerKind, Ask, Authority, DhcpEvent, Link, Network},
    belief::is_from_firmware,
    place::{Place, UNTAGGED_SECS, of_untagged, starts_untagged},
    pool::{Heard, Lease, Pool, Refused},
    proxy::{self, Left},
    reply::{self, PXE_PORT, Reply, Terms},
    request::{Kind, Request},
};
use ipnet::Ipv4Net;
use rackstrap_base::{
    clock::Timestamp,
    subnet::{DhcpPart, Subnet},
};
use rackstrap_wire::HwAddr;
use std::{
    borrow::Cow,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

/// A further card of a node keeps an address of the pool this long, in seconds: it loads a loader, asks again as iPXE, and gets a script that
/// ends. A machine that is not a node yet may need the address.
const FURTHER_CARD_SECS: u32 = 120;

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub struct Ingress<'a> {
    /// Name of the interface that received the packet.
    pub interface: &'a str,
    /// Sender; its address is 0.0.0.0 for clients without one.
    pub source: SocketAddrV4,
    /// The port that it was sent to: 67, or 4011 of the server's address.
    pub port: u16,
}

/// What to do about one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer, if any; to be sent only after `writes` are durable.
    pub reply: Option<Reply>,
    /// What to store, in order.
    pub writes: Vec<Write>,
    /// What to tell the rest of the program.
    pub event: DhcpEvent,
}

/// One change of the lease store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Store under its address.
    Put(Lease),
    /// Remove the lease of this address from the store.
    Forget(Ipv4Addr),
}

/// The pools of all subnets, and the decisions.
#[derive(Debug)]
pub struct Engine {
    network: Arc<Network>,
    /// One a subnet, in the same order.
    pools: Vec<Option<Pool>>,
    /// The latest time that it was told. Before the first, leases of a clock that was set back meanwhile may lie ahead.
    latest: Timestamp,
}

/// How one request is to end, before it has become a reply.
pub(super) struct Verdict {
    pub answer: AnswerKind,
    pub reason: Cow<'static, str>,
    pub address: Option<Ipv4Addr>,
    pub lease_secs: u32,
    pub alarm: bool,
    pub pool_full: Option<(Ipv4Net, Timestamp)>,
    pub writes: Vec<Write>,
    pub part: DhcpPart,
    pub left: Option<Left>,
}

impl Verdict {
    pub fn new(answer: AnswerKind, address: Option<Ipv4Addr>, reason: impl Into<Cow<'static, str>>) -> Self {
        Verdict {
            answer,
            reason: reason.into(),
            address,
            lease_secs: 0,
            alarm: false,
            pool_full: None,
            writes: Vec::new(),
            part: DhcpPart::Full,
            left: None,
        }
    }

    pub fn silent(reason: impl Into<Cow<'static, str>>) -> Self {
        Verdict::new(AnswerKind::Silent, None, reason)
    }

    pub fn alarm(mut self) -> Self {
        self.alarm = true;
        self
    }
}

impl Engine {
    /// An engine with the stored leases. Also returns the addresses whose stored leases are of no use any more.
    pub fn new(network: Arc<Network>, leases: &[Lease]) -> (Self, Vec<Ipv4Addr>) {
        let mut engine = Engine {
            pools: pools(&network),
            network,
            latest: Timestamp(u64::MAX),
        };
        let unused = leases.iter().filter(|l| !engine.restore(l)).map(|l| l.ipaddr).collect();
        (engine, unused)
    }

    /// Takes in what time it is, and whether the clock was set back.
    pub fn at(&mut self, now: Timestamp) {
        if now < self.latest {
            self.pools.iter_mut().flatten().for_each(|pool| pool.settle(now));
        }
        self.latest = now;
    }

    fn restore(&mut self, lease: &Lease) -> bool {
        self.pools.iter_mut().flatten().any(|pool| pool.restore(lease))
    }

    /// Takes over a changed site; leases whose address is still in a pool stay.
    pub fn set_network(&mut self, network: &Arc<Network>) {
        if Arc::ptr_eq(&self.network, network) {
            return;
        }
        let leases: Vec<Lease> = self.pools.iter().flatten().flat_map(Pool::leases).collect();
        self.network = network.clone();
        self.pools = pools(network);
        for lease in &leases {
            self.restore(lease);
        }
    }

    /// The machine that has a pool address.
    pub fn holder(&self, address: Ipv4Addr, now: Timestamp) -> Option<Lease> {
        self.pools.iter().flatten().find_map(|pool| pool.holder(address, now))
    }

    /// A waiting machine sent a request from an address that may belong to a pool.
    pub fn heard(&mut self, hwaddr: HwAddr, address: Ipv4Addr, now: Timestamp) -> Heard {
        self.at(now);
        let mut subnets = self.network.subnets.iter().zip(&mut self.pools);
        match subnets.find(|(subnet, _)| subnet.network.contains(&address)) {
            Some((subnet, Some(pool))) => pool.heard(hwaddr, address, subnet.pool_lease_secs, now),
            _ => Heard::Free,
        }
    }

    /// Takes an address from the machine that has it; false if no machine has it, by lease, by an offer or in quarantine.
    pub fn vacate(&mut self, address: Ipv4Addr, now: Timestamp) -> bool {
        self.pools.iter_mut().flatten().any(|pool| pool.take_back(address, now))
    }

    /// All leases of all pools that the store keeps.
    pub fn leases(&self) -> Vec<Lease> {
        self.pools.iter().flatten().flat_map(Pool::leases).collect()
    }

    /// Answers one request.
    pub fn handle(
        &mut self,
        request: &Request,
        from: Ingress<'_>,
        now: Timestamp,
        authority: &dyn Authority,
    ) -> Outcome {
        self.at(now);
        let network = self.network.clone();
        if from.port == PXE_PORT {
            let (verdict, reply, known) = proxy::boot_server(request, from, &network, authority);
            return outcome(request, from, now, verdict, reply, known);
        }
        let candidates = match candidates(&network, request, from) {
            Ok(candidates) => candidates,
            Err(reason) => return outcome(request, from, now, Verdict::silent(reason), None, false),
        };
        let link_subnet = &network.subnets[candidates[0]];
        if link_subnet.dhcp.is_of_another_server() {
            let subnets: Vec<&Subnet> = candidates.iter().map(|i| &network.subnets[*i]).collect();
            let (verdict, reply, known) = proxy::proxy(request, from, &subnets, authority);
            return outcome(request, from, now, verdict, reply, known);
        }
        let mut answer = authority.ask(&ask(request, from, link_subnet));
        let place = self.place(&answer, &candidates);
        let subnet = place.subnet().map_or(link_subnet, |i| &network.subnets[i]);
        let known = matches!(answer, Answer::Node { .. });
        let mut verdict = self.verdict(request, &answer, place, &candidates, now, authority);
        let untagged = matches!(place, Place::Untagged { .. });
        if known && !untagged && verdict.answer == AnswerKind::Ack {
            self.leave_pools(request.hwaddr, now, &mut verdict);
        }
        if let (true, Answer::Node { root, settings, .. }) = (untagged, &mut answer) {
            // They are those of its VLAN.
            (*root, *settings) = Default::default();
        }
        let reply = make_reply(request, &verdict, subnet, &network.domain, &answer);
        if let Some(bytes) = reply.as_ref().and_then(|reply| reply.left_out) {
            verdict.alarm = true;
            verdict.reason = format!(
                "{}; the relay's option 82 of {bytes} bytes is left out of the reply, as the client takes {} bytes in all: \
                 shorten what the relay or switch adds",
                verdict.reason,
                reply::largest(request)
            )
            .into();
        }
        outcome(request, from, now, verdict, reply, known)
    }

    /// Where the machine belongs, of the subnets `candidates`. Several subnets can share an interface: a node belongs to that of its address, a
    /// pool to the first that has one.
    fn place(&self, answer: &Answer, candidates: &[usize]) -> Place {
        let belongs = |i: &&usize| match answer {
            Answer::Node { ipaddr, .. } => self.network.subnets[**i].network.contains(ipaddr),
            _ => self.pools[**i].is_some(),
        };
        match (candidates.iter().find(belongs), answer) {
            (Some(index), _) => Place::Here(*index),
            (None, Answer::Node { ipaddr, .. }) => starts_untagged(&self.network, *ipaddr, candidates),
            (None, _) => Place::Nowhere,
        }
    }

    /// What becomes of the request of a machine that belongs to `place`. The first of the `candidates` is the subnet of the link.
    fn verdict(
        &mut self,
        request: &Request,
        answer: &Answer,
        place: Place,
        candidates: &[usize],
        now: Timestamp,
        authority: &dyn Authority,
    ) -> Verdict {
        let network = self.network.clone();
        let link_subnet = &network.subnets[candidates[0]];
        let index = place.subnet();
        let subnet = index.map_or(link_subnet, |i| &network.subnets[i]);
        let ours = |server: Ipv4Addr| {
            request.server_id_override() == Some(server) || network.subnets.iter().any(|s| s.server == server)
        };
        let elsewhere = match request.kind {
            Kind::Decline { .. } | Kind::Release { .. } => request.server_id.filter(|server| !ours(*server)),
            _ => None,
        };
        match answer {
            _ if elsewhere.is_some() => Verdict::silent("meant for another DHCP server"),
            Answer::Silent(reason) => Verdict::silent(reason.clone()),
            Answer::Node { ipaddr, hostname, .. } => match place {
                Place::Here(_) => node(request, *ipaddr, hostname, subnet, ours),
                Place::Untagged { subnet: index, vlan } => match self.pools[index].as_mut() {
                    Some(pool) => {
                        let terms = (subnet, subnet.pool_lease_secs.max(UNTAGGED_SECS));
                        let on_link = |address| subnet.network.contains(&address);
                        let verdict = unknown(request, pool, terms, now, authority, ours, on_link);
                        let verdict = of_untagged(verdict, hostname, *ipaddr, vlan);
                        match request.kind {
                            // As for any other node: two servers on one network break clusters at random.
                            Kind::Selecting { server, .. } if !ours(server) => verdict.alarm(),
                            _ => verdict,
                        }
                    }
                    None => node_elsewhere(request, *ipaddr, hostname, link_subnet),
                },
                Place::Nowhere => node_elsewhere(request, *ipaddr, hostname, link_subnet),
            },
            Answer::Unknown { further_card, .. } => {
                let lease_secs = match further_card {
                    true => FURTHER_CARD_SECS.min(subnet.pool_lease_secs),
                    false => subnet.pool_lease_secs,
                };
                let on_link = |address| {
                    candidates
                        .iter()
                        .any(|i| network.subnets[*i].network.contains(&address))
                };
                match index.and_then(|i| self.pools[i].as_mut()) {
                    Some(pool) => {
                        let terms = (subnet, lease_secs);
                        unknown(request, pool, terms, now, authority, ours, on_link)
                    }
                    None if request.kind == Kind::Inform => inform(request, subnet),
                    None => Verdict::silent(format!("an unknown machine, and {} has no pool", subnet.network)),
                }
            }
        }
    }

    /// Takes away the pool addresses of a node: it may have waited in a pool before it became one.
    fn leave_pools(&mut self, hwaddr: HwAddr, now: Timestamp, verdict: &mut Verdict) {
        let vacated = self
            .pools
            .iter_mut()
            .flatten()
            .filter_map(|pool| pool.forget(hwaddr, now));
        verdict.writes.extend(vacated.map(Write::Forget));
    }
}

fn pools(network: &Network) -> Vec<Option<Pool>> {
    let pool = |subnet: &Subnet| {
        let (first, last) = subnet.pool?;
        let mut excluded = vec![subnet.server, subnet.network.network(), subnet.network.broadcast()];
        excluded.extend(subnet.router);
        Some(Pool::new(first, last, excluded))
    };
    network.subnets.iter().map(pool).collect()
}

/// Indexes of the subnets that the client can be on; at least one.
fn candidates(network: &Network, request: &Request, from: Ingress<'_>) -> Result<Vec<usize>, String> {
    let holding = |address: Ipv4Addr| network.subnets.iter().position(|s| s.network.contains(&address));
    if !request.giaddr.is_unspecified() {
        let link = request.link_selection().unwrap_or(request.giaddr);
        return match holding(link) {
            Some(index) => Ok(vec![index]),
            None => Err(format!("relayed from {link}, which is in no subnet of the site file")),
        };
    }
    // A client with an address talks to us directly, through routers: its subnet need not be that of the interface.
    if !request.ciaddr.is_unspecified()
        && request.ciaddr == *from.source.ip()
        && let Some(index) = holding(request.ciaddr)
        && network.subnets[index]
            .interface
            .as_deref()
            .is_none_or(|i| i == from.interface)
    {
        return Ok(vec![index]);
    }
    let attached = |(_, s): &(usize, &Subnet)| s.interface.as_deref() == Some(from.interface);
    let found: Vec<usize> = network
        .subnets
        .iter()
        .enumerate()
        .filter(attached)
        .map(|(i, _)| i)
        .collect();
    if found.is_empty() {
        return Err(format!("no subnet of the site file is on {}", from.interface));
    }
    Ok(found)
}

pub(super) fn ask<'a>(request: &'a Request, from: Ingress<'a>, subnet: &Subnet) -> Ask<'a> {
    Ask {
        hwaddr: request.hwaddr,
        arch: request.arch,
        vendor_class: &request.vendor_class,
        ipxe: request.ipxe,
        ipxe_without_http: request.ipxe_without_http,
        freebsd_loader: request.freebsd_loader,
        grub: request.grub,
        http_client: request.http_client,
        uuid: request.uuid,
        circuit_id: request.circuit_id(),
        remote_id: request.remote_id(),
        link: Link {
            interface: from.interface,
            relay: Some(request.giaddr).filter(|g| !g.is_unspecified()),
            network: subnet.network,
            server: subnet.server,
        },
    }
}

/// A node asks in the subnet of its address.
fn node(request: &Request, ipaddr: Ipv4Addr, name: &str, subnet: &Subnet, ours: impl Fn(Ipv4Addr) -> bool) -> Verdict {
    let grant = |answer, what: &str| Verdict {
        lease_secs: subnet.lease_secs,
        ..Verdict::new(answer, Some(ipaddr), format!("{what} {name} at {ipaddr}"))
    };
    match request.kind {
        Kind::Discover => grant(AnswerKind::Offer, "the address of"),
        Kind::Selecting { server, .. } if !ours(server) => {
            // Two servers on one network is what breaks clusters at random.
            Verdict::silent(format!("{name} took the offer of another DHCP server, {server}")).alarm()
        }
        Kind::Selecting { address, .. } | Kind::InitReboot { address } | Kind::Extend { address } => {
            if address == ipaddr {
                return grant(AnswerKind::Ack, "the address of");
            }
            let reason = format!("asked for {address}, but the address of {name} is {ipaddr}");
            Verdict::new(AnswerKind::Nak, Some(address), reason)
        }
        Kind::Decline { address } if address == ipaddr => {
            let reason = format!("{name} found its address {address} in use by another machine; find that machine");
            Verdict::new(AnswerKind::Silent, Some(address), reason).alarm()
        }
        Kind::Decline { address } => {
            let reason = format!("declined {address}, which is not the address of {name}");
            Verdict::new(AnswerKind::Silent, Some(address), reason)
        }
        Kind::Release { address } => {
            let reason = format!("{name} gave {address} back; it stays reserved for the node");
            Verdict::new(AnswerKind::Silent, Some(address), reason)
        }
        Kind::Inform => inform(request, subnet),
    }
}

/// A node asks in a subnet that its address is not in.
fn node_elsewhere(request: &Request, ipaddr: Ipv4Addr, name: &str, subnet: &Subnet) -> Verdict {
    let here = subnet.network;
    match request.kind {
        Kind::InitReboot { address } | Kind::Extend { address } if address != ipaddr || !here.contains(&address) => {
            let reason = format!("wrong network: {address} is not usable in {here}");
            Verdict::new(AnswerKind::Nak, Some(address), reason)
        }
        Kind::Inform => inform(request, subnet),
        _ => wrong_network(ipaddr, name, subnet),
    }
}

/// A node must not boot in a subnet that its address is not in.
pub(super) fn wrong_network(ipaddr: Ipv4Addr, name: &str, subnet: &Subnet) -> Verdict {
    let here = subnet.network;
    Verdict::silent(format!(
        "{name} has {ipaddr}, which is not in {here}, where it asks; cabled to the wrong network, or the wrong name"
    ))
    .alarm()
}

fn inform(request: &Request, subnet: &Subnet) -> Verdict {
    if !subnet.network.contains(&request.ciaddr) {
        // The answer goes to ciaddr, which any sender can forge: the server must not send packets to addresses outside on request.
        return Verdict::silent(format!(
            "INFORM from {}, which is not in {}",
            request.ciaddr, subnet.network
        ));
    }
    Verdict::new(
        AnswerKind::Ack,
        Some(request.ciaddr),
        "options for a machine that has its address",
    )
}

/// Anybody else asks, in a subnet with a pool.
fn unknown(
    request: &Request,
    pool: &mut Pool,
    (subnet, lease_secs): (&Subnet, u32),
    now: Timestamp,
    authority: &dyn Authority,
    ours: impl Fn(Ipv4Addr) -> bool,
    on_link: impl Fn(Ipv4Addr) -> bool,
) -> Verdict {
    let (hwaddr, uuid) = (request.hwaddr, request.uuid);
    let mut bind = |address, offered| match pool.bind(hwaddr, uuid, address, lease_secs, offered, now) {
        Ok(granted) => {
            let reason = match granted.moved {
                true => "unknown machine, the pool address of its other card (same UUID)",
                false => "unknown machine, pool address",
            };
            let mut writes = vec![Write::Put(granted.lease)];
            writes.extend(granted.instead_of.map(Write::Forget));
            Verdict {
                lease_secs,
                writes,
                ..Verdict::new(AnswerKind::Ack, Some(address), reason)
            }
        }
        // RFC 2131 section 4.3.2: no record of this client, so silence; another server may know it.
        Err(refused @ (Refused::NoRecord | Refused::Full { .. })) => {
            Verdict::new(AnswerKind::Silent, Some(address), refused.to_string())
        }
        Err(refused) => Verdict::new(AnswerKind::Nak, Some(address), format!("{address}: {refused}")),
    };
    match request.kind {
        Kind::Discover => match pool.offer(hwaddr, uuid, request.requested, now, |a| authority.is_node_address(a)) {
            Ok(address) => Verdict {
                lease_secs,
                ..Verdict::new(AnswerKind::Offer, Some(address), "unknown machine, pool address")
            },
            Err(refused) => Verdict {
                pool_full: match refused {
                    Refused::Full { until, .. } => Some((subnet.network, until)),
                    _ => None,
                },
                ..Verdict::silent(refused.to_string()).alarm()
            },
        },
        Kind::Selecting { server, .. } if !ours(server) => {
            pool.forget_offer(hwaddr, now);
            Verdict::silent(format!("took the offer of another DHCP server, {server}"))
        }
        Kind::Selecting { address, .. } => bind(address, true),
        Kind::InitReboot { address } if !on_link(address) => {
            let reason = format!("wrong network: {address} is not in {}", subnet.network);
            Verdict::new(AnswerKind::Nak, Some(address), reason)
        }
        Kind::InitReboot { address } | Kind::Extend { address } => bind(address, false),
        Kind::Decline { address } => match pool.decline(hwaddr, address, now) {
            Some(lease) => Verdict {
                writes: vec![Write::Put(lease)],
                ..Verdict::new(
                    AnswerKind::Silent,
                    Some(address),
                    "in use by another machine: in quarantine",
                )
            }
            .alarm(),
            None => Verdict::new(AnswerKind::Silent, Some(address), "declined what it was not given"),
        },
        Kind::Release { address } => match pool.release(hwaddr, address, now) {
            Some(lease) => Verdict {
                writes: vec![Write::Put(lease)],
                ..Verdict::new(AnswerKind::Silent, Some(address), "gave its pool address back")
            },
            None => Verdict::new(AnswerKind::Silent, Some(address), "released what it did not have"),
        },
        Kind::Inform => inform(request, subnet),
    }
}

fn make_reply(request: &Request, verdict: &Verdict, subnet: &Subnet, domain: &str, answer: &Answer) -> Option<Reply> {
    let (hostname, loader, root, settings) = match answer {
        Answer::Node {
            hostname,
            loader,
            root,
            settings,
            ..
        } => (Some(hostname.as_str()), loader.as_ref(), root.as_ref(), Some(settings)),
        Answer::Unknown { loader, .. } => (None, loader.as_ref(), None, None),
        Answer::Silent(_) => (None, None, None, None),
    };
    let lease = verdict.address.filter(|_| request.kind != Kind::Inform);
    match verdict.answer {
        AnswerKind::Silent => None,
        AnswerKind::Nak => Some(reply::nak(request, subnet, &verdict.reason)),
        AnswerKind::Offer | AnswerKind::Ack => Some(reply::offer_or_ack(
            request,
            &Terms {
                subnet,
                domain,
                lease: lease.map(|address| (address, verdict.lease_secs)),
                hostname,
                loader,
                root,
                settings,
            },
        )),
    }
}

fn outcome(
    request: &Request,
    from: Ingress<'_>,
    now: Timestamp,
    verdict: Verdict,
    reply: Option<Reply>,
    known: bool,
) -> Outcome {
    Outcome {
        reply,
        writes: verdict.writes,
        event: DhcpEvent {
            at: now,
            hwaddr: request.hwaddr,
            uuid: request.uuid,
            arch: request.arch,
            vendor_class: request.vendor_class.clone(),
            xid: request.xid,
            ipxe: request.ipxe,
            freebsd_loader: request.freebsd_loader,
            grub: request.grub,
            http_client: request.http_client,
            // At port 4011 a user of the machine can ask, too: see `belief::is_client_port`.
            booting: request.is_network_boot() && is_from_firmware(request, from.source) && from.port != PXE_PORT,
            host_name: request.host_name.clone(),
            interface: from.interface.to_owned(),
            relay: Some(request.giaddr).filter(|g| !g.is_unspecified()),
            circuit_id: request.circuit_id().map(<[u8]>::to_vec),
            remote_id: request.remote_id().map(<[u8]>::to_vec),
            message: request.kind,
            answer: verdict.answer,
            reason: verdict.reason,
            address: verdict.address,
            known,
            alarm: verdict.alarm,
            pool_full: verdict.pool_full,
            part: verdict.part,
            boot_server: from.port == PXE_PORT,
            left: verdict.left,
        },
    }
}
