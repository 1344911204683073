//! The running server: packets go from its sockets through the engine and back.

use super::{
    authority::{AnswerKind, Authority, DhcpEvent, LeaseStore},
    belief::{believed, may_be_a_machine},
    crowd::Crowd,
    engine::{Engine, Ingress, Outcome, Write},
    guard::{Counters, MAX_LEN, Malformed, Tally},
    infiniband::Port,
    leases::LeaseWriter,
    pool::{Heard, Lease},
    reply::Reply,
    request::Request,
    socket::{Door, Place, hears_interfaces, wanted},
};
use anyhow::{Context, bail};
use rackstrap_base::{
    clock::Timestamp, counters::Counted, holding::Holding, subnet::DhcpPart, sync::lock, threads::Thread,
};
use rackstrap_wire::HwAddr;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Requests taken from a socket before other tasks get a turn.
const BATCH: usize = 64;
/// Requests of machines that are no nodes that are answered between two batches: much less than come in at most, so that
/// they wait here, where nodes overtake them, and not in the socket.
const TURN: usize = 8;
/// How often the site is looked at for interfaces that came or went.
const WATCH: Duration = Duration::from_secs(2);

/// The DHCP server with its sockets open, ready to run.
pub struct Dhcp {
    shared: Arc<Shared>,
    sockets: BTreeMap<Place, Arc<Door>>,
    /// Ports 4011 that could not be opened yet.
    closed: BTreeSet<Place>,
    lease_thread: Thread,
}

struct Shared {
    engine: Arc<Mutex<Engine>>,
    authority: Arc<dyn Authority>,
    counters: Arc<Counters>,
    leases: LeaseWriter,
}

/// Read access to the pool leases of a running server.
#[derive(Clone, Debug)]
pub struct LeaseView(Arc<Mutex<Engine>>);

impl LeaseView {
    /// The machine that has a pool address now.
    pub fn holder(&self, address: Ipv4Addr) -> Option<Lease> {
        lock(&self.0).holder(address, Timestamp::now())
    }

    /// All pool leases, also those that have ended but are remembered.
    pub fn all(&self) -> Vec<Lease> {
        lock(&self.0).leases()
    }
}

/// Keeps the leases of machines that wait without asking DHCP, as long as the server runs.
#[derive(Clone)]
pub struct LeaseKeeper(Weak<Shared>);

impl LeaseKeeper {
    /// `hwaddr` was heard of at `address`: if it has a lease of it, the lease is extended.
    pub fn heard(&self, hwaddr: HwAddr, address: Ipv4Addr) -> Holding {
        let Some(shared) = self.0.upgrade() else {
            return Holding::Free;
        };
        let heard = lock(&shared.engine).heard(hwaddr, address, Timestamp::now());
        match heard {
            Heard::Own => Holding::Own,
            Heard::Extended(lease) => {
                // Not stored, it is kept all the same until a restart.
                shared.leases.submit(vec![Write::Put(lease)], Box::new(|_| {}));
                Holding::Own
            }
            Heard::Free => Holding::Free,
            Heard::Taken => Holding::Taken,
        }
    }

    /// Takes these pool addresses from the machines that have them; those that are free are left out of the answer. Returns
    /// when the store has forgotten the leases. Blocks for the disk.
    ///
    /// # Errors
    /// The server is stopping, or the leases could not be removed from the store.
    pub fn release(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<Vec<Ipv4Addr>> {
        let shared = self.0.upgrade().context("the DHCP server is stopping")?;
        let now = Timestamp::now();
        let released: Vec<Ipv4Addr> = {
            let mut engine = lock(&shared.engine);
            addresses
                .iter()
                .copied()
                .filter(|address| engine.vacate(*address, now))
                .collect()
        };
        if released.is_empty() {
            return Ok(released);
        }
        let (told, stored) = std::sync::mpsc::channel();
        let writes = released.iter().copied().map(Write::Forget).collect();
        // The receiver waits below; if it is gone, the answer is not needed.
        let accepted = shared.leases.submit(
            writes,
            Box::new(move |done| {
                let _ = told.send(done);
            }),
        );
        if !accepted || !stored.recv().unwrap_or(false) {
            bail!(
                "the leases ended, but could not be removed from the store and come back with the next start of the daemon; \
                 see its log, and release them again"
            );
        }
        Ok(released)
    }
}

impl Dhcp {
    /// Loads the leases and opens a socket on every interface that the site names. Must be called in a tokio
    /// runtime, with the rights to bind port 67 and to open packet sockets, which are not needed afterwards unless interfaces come and go.
    ///
    /// # Errors
    /// A missing interface, port 67 in use, missing rights, an unreadable lease store: each says what to do.
    pub fn bind(
        authority: Arc<dyn Authority>,
        store: Arc<dyn LeaseStore>,
        counters: Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let network = authority.network();
        let stored = store.load().context("reading the stored DHCP leases")?;
        let (mut engine, unused) = Engine::new(network.clone(), &stored);
        engine.at(Timestamp::now());
        if !unused.is_empty() {
            store
                .forget(&unused)
                .context("removing DHCP leases that are in no pool any more")?;
        }
        let places = wanted(&network);
        let answers = network.subnets.iter().any(|subnet| subnet.dhcp != DhcpPart::Off);
        // Port 4011 alone is of no use: a machine asks there after its broadcast was answered.
        if answers && !hears_interfaces(&places) {
            bail!(
                "no [[subnet]] of the site file names an interface, so DHCP requests cannot arrive; add `interface = \"…\"` to the subnet that this machine is attached to"
            );
        }
        let mut sockets = BTreeMap::new();
        let mut closed = BTreeSet::new();
        for place in places {
            match Door::open(&place) {
                Ok(door) => {
                    sockets.insert(place, Arc::new(door));
                }
                // Only UEFI asks there. All else works without, so that it is no reason not to start.
                Err(error) if matches!(place, Place::BootServer(_)) => {
                    complain(&*authority, &place, &error);
                    closed.insert(place);
                }
                Err(error) => return Err(error),
            }
        }
        let (leases, lease_thread) = LeaseWriter::start(store);
        let shared = Shared {
            engine: Arc::new(Mutex::new(engine)),
            authority,
            counters,
            leases,
        };
        Ok(Dhcp {
            shared: Arc::new(shared),
            sockets,
            closed,
            lease_thread,
        })
    }

    /// Read access to the leases, for as long as it is held.
    pub fn leases(&self) -> LeaseView {
        LeaseView(self.shared.engine.clone())
    }

    /// Keeps the leases of machines that wait.
    pub fn keeper(&self) -> LeaseKeeper {
        LeaseKeeper(Arc::downgrade(&self.shared))
    }

    /// Answers until cancelled; then finishes what waits for the disk.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let mut open: BTreeMap<Place, (Arc<Door>, CancellationToken)> = BTreeMap::new();
        for (place, door) in self.sockets {
            let stop = cancel.child_token();
            open.insert(place, (door.clone(), stop.clone()));
            tasks.spawn(listen(self.shared.clone(), door, stop));
        }
        let mut complained = self.closed;
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let lease_thread = self.lease_thread;
        let mut leases_ended = std::pin::pin!(lease_thread.ended());
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                // While it runs it has a sender, so it ends by a panic only.
                ended = &mut leases_ended => return ended.context("DHCP stopped"),
                _ = watch.tick() => {}
                Some(ended) = tasks.join_next() => {
                    ended.context("a DHCP socket task ended")?;
                    continue;
                }
            }
            let network = self.shared.authority.network();
            lock(&self.shared.engine).set_network(&network);
            let wanted = wanted(&network);
            open.retain(|place, (door, stop)| {
                let keep = wanted.contains(place) && door.is_usable();
                if !keep {
                    tracing::warn!("no longer answering DHCP {place}");
                    stop.cancel();
                }
                keep
            });
            complained.retain(|place| {
                let keep = wanted.contains(place);
                if !keep {
                    end_complaint(&*self.shared.authority, place);
                }
                keep
            });
            for place in wanted {
                if open.contains_key(&place) {
                    continue;
                }
                match Door::open(&place) {
                    Ok(door) => {
                        tracing::info!("answering DHCP {place} from now on");
                        if complained.remove(&place) {
                            end_complaint(&*self.shared.authority, &place);
                        }
                        let (door, stop) = (Arc::new(door), cancel.child_token());
                        tasks.spawn(listen(self.shared.clone(), door.clone(), stop.clone()));
                        open.insert(place, (door, stop));
                    }
                    Err(error) => {
                        if !complained.contains(&place) {
                            complain(&*self.shared.authority, &place, &error);
                            complained.insert(place);
                        }
                    }
                }
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a DHCP socket task ended")?;
        }
        drop(self.shared);
        leases_ended.await.context("DHCP stopped")
    }
}

/// Reports that a socket could not be opened and is tried again.
fn complain(authority: &dyn Authority, place: &Place, error: &anyhow::Error) {
    tracing::error!("{error:#}; trying again");
    if let Place::BootServer(server) = place {
        authority.boot_server(*server, Some(&format!("{error:#}")));
    }
}

/// Takes the report of [`complain`] back.
fn end_complaint(authority: &dyn Authority, place: &Place) {
    if let Place::BootServer(server) = place {
        authority.boot_server(*server, None);
    }
}

async fn listen(shared: Arc<Shared>, door: Arc<Door>, stop: CancellationToken) {
    let mut buffer = vec![0; MAX_LEN + 1];
    let mut crowd = Crowd::default();
    loop {
        let mut result = tokio::select! {
            () = stop.cancelled() => return,
            ready = door.udp.readable() => ready,
            () = std::future::ready(()), if !crowd.is_empty() => Ok(()),
        };
        for _ in 0..BATCH {
            match door.udp.try_recv_from(&mut buffer) {
                Ok((len, from)) if shared.is_of_a_node(&buffer[..len]) => {
                    shared.packet(&door, &buffer[..len], from);
                }
                // No room for what is dropped anyway.
                Ok((len, from)) if !door.place.is_client_port(from.port()) => {
                    shared.packet(&door, &buffer[..len], from)
                }
                Ok((len, from)) => {
                    if !crowd.push(&buffer[..len], from) {
                        shared.counters.tally(Tally::Crowded);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = result {
            // The link went down, for example; it may come back.
            tracing::warn!(%error, "receiving DHCP requests {}", door.place);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut left = TURN;
        while left > 0 && crowd.next(|bytes, from| shared.packet(&door, bytes, from)) {
            left -= 1;
        }
        tokio::task::yield_now().await;
    }
}

impl Shared {
    fn is_of_a_node(&self, bytes: &[u8]) -> bool {
        // `chaddr`, RFC 2131 section 2. Bytes that are not a request are refused later.
        let hwaddr = bytes.get(28..34).and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        hwaddr.is_some_and(|hwaddr| self.authority.is_node(HwAddr(hwaddr)))
    }

    fn packet(self: &Arc<Self>, door: &Arc<Door>, bytes: &[u8], from: SocketAddr) {
        let request = match Request::parse(bytes) {
            Ok(request) => request,
            Err(why) => {
                let count = self.counters.malformed(why);
                if why == Malformed::InfiniBand
                    && let Some(port) = Port::parse(bytes)
                    && may_be_a_machine(port.relay, from, &*self.authority)
                {
                    self.authority.infiniband(&port, door.place.interface());
                    return;
                }
                if count.is_power_of_two() {
                    let reason = why.name();
                    tracing::warn!(place = %door.place, %from, len = bytes.len(), reason, count, "malformed DHCP packet dropped");
                }
                return;
            }
        };
        let SocketAddr::V4(source) = from else { return };
        if self.authority.asker() == Some(request.hwaddr) {
            return;
        }
        if let Err(why) = believed(&request, source, door.place.port(), &*self.authority) {
            let (count, reason) = (self.counters.disbelieved(why), why.name());
            if count.is_power_of_two() {
                tracing::warn!(place = %door.place, %from, hwaddr = %request.hwaddr, reason, count, "DHCP request ignored: {why}");
            }
            return;
        }
        let ingress = Ingress {
            interface: door.place.interface(),
            source,
            port: door.place.port(),
        };
        let outcome = {
            let network = self.authority.network();
            let mut engine = lock(&self.engine);
            engine.set_network(&network);
            engine.handle(&request, ingress, Timestamp::now(), &*self.authority)
        };
        let Outcome { reply, writes, event } = outcome;
        if writes.is_empty() {
            self.finish(door, reply.as_ref(), event);
            return;
        }
        // The reply leaves when its lease is on disk. The closure must not keep the lease thread's own queue alive.
        let (counters, authority) = (self.counters.clone(), self.authority.clone());
        let (socket, given_up) = (door.clone(), event.clone());
        let accepted = self.leases.submit(
            writes,
            Box::new(move |stored| {
                if stored {
                    finish(&counters, &*authority, &socket, reply.as_ref(), event);
                } else {
                    let reason = "the lease could not be stored";
                    give_up(&counters, &*authority, Tally::NotStored, event, reason);
                }
            }),
        );
        if !accepted {
            let reason = "too many leases wait for the disk";
            give_up(&self.counters, &*self.authority, Tally::Busy, given_up, reason);
        }
    }

    fn finish(&self, door: &Door, reply: Option<&Reply>, event: DhcpEvent) {
        finish(&self.counters, &*self.authority, door, reply, event);
    }
}

fn finish(counters: &Counters, authority: &dyn Authority, door: &Door, reply: Option<&Reply>, event: DhcpEvent) {
    if let Some(reply) = reply
        && let Err(error) = door.send(reply)
    {
        let reason = format!("the reply could not be sent {}: {error}", door.place);
        give_up(counters, authority, Tally::SendFailed, event, reason);
        return;
    }
    if reply.is_some_and(|reply| reply.left_out.is_some()) {
        let times = counters.tally(Tally::RelayInfoLeftOut);
        if times.is_power_of_two() {
            tracing::warn!(hwaddr = %event.hwaddr, times, "dhcp: {}", event.reason);
        }
    }
    let proxy = event.part == DhcpPart::Proxy;
    match (event.answer, event.left) {
        (_, Some(why)) => counters.left(why),
        (AnswerKind::Offer, _) if proxy => counters.tally(Tally::BootOffer),
        (AnswerKind::Ack, _) if proxy => counters.tally(Tally::BootAck),
        (AnswerKind::Offer, _) => counters.tally(Tally::Offer),
        (AnswerKind::Ack, _) => counters.tally(Tally::Ack),
        (AnswerKind::Nak, _) => counters.tally(Tally::Nak),
        (AnswerKind::Silent, _) => counters.tally(Tally::Silent),
    };
    tracing::debug!(hwaddr = %event.hwaddr, message = %event.message, answer = ?event.answer, reason = %event.reason, "dhcp");
    authority.observe(&event);
}

fn give_up(
    counters: &Counters,
    authority: &dyn Authority,
    why: Tally,
    event: DhcpEvent,
    reason: impl Into<Cow<'static, str>>,
) {
    counters.tally(why);
    let event = DhcpEvent {
        answer: AnswerKind::Silent,
        reason: reason.into(),
        alarm: true,
        ..event
    };
    authority.observe(&event);
}
