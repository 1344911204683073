//! The keeper of the waiting room: hears of packets without holding them up, places machines, writes it all down.

use super::{
    floor::Floor,
    load::{load, of_uuid},
    machine::{Machine, Seen, Told},
    session::{Placed, Session, Wanted},
};
use crate::{
    boots::Boots,
    decide::SharedWorld,
    inventory::{Change, NewNode, Patch},
    nodes::{ChangeError, Nodes},
};
use rackstrap_base::{clock::Timestamp, panics};
use rackstrap_store::{Batch, Store, StoreError, Table, Write};
use rackstrap_wire::{Hardware, HwAddr};
use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};
use thiserror::Error;
use uuid::Uuid;

/// Packets that may wait for the keeper; more are dropped and counted. A machine asks again.
const QUEUE: usize = 4096;
/// Cards of nodes whose UUIDs are remembered at most.
const MOST_UUIDS: usize = 65_536;
/// How often it looks whether somebody's turn has come.
const TICK: Duration = Duration::from_millis(500);

/// The keeper; clones share it.
#[derive(Clone)]
pub struct Discovery {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) world: SharedWorld,
    store: Store,
    nodes: Nodes,
    boots: Boots,
    pub(super) floor: Mutex<Floor>,
    /// UUIDs that the firmware of nodes' cards said.
    uuids: Mutex<HashMap<HwAddr, Uuid>>,
    news: SyncSender<News>,
    pub(super) dropped: AtomicU64,
}

/// Who is placed where.
struct Placing {
    machine: Machine,
    node: String,
    /// The rack that it fills.
    session: Option<Session>,
    /// The node exists, and gets this machine.
    replace: bool,
}

enum News {
    Seen(Seen),
    Told(HwAddr, Told),
    /// The keeper's thread panics.
    #[cfg(test)]
    Panic,
    Uuid(HwAddr, Uuid),
    Hardware(HwAddr, Box<Hardware>),
}

/// Why something was not done.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// It makes no sense; says why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The inventory does not take it.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The store failed.
    #[error("nothing was changed: {0}")]
    Store(#[from] StoreError),
}

impl Discovery {
    /// Loads what is known, and begins to listen.
    ///
    /// # Errors
    /// The store's.
    pub fn start(world: SharedWorld, store: Store, nodes: Nodes, boots: Boots) -> Result<Discovery, StoreError> {
        let floor = load(&world, &store, &boots)?;
        let (news, heard) = sync_channel(QUEUE);
        let discovery = Discovery {
            shared: Arc::new(Shared {
                world,
                store,
                nodes,
                boots,
                floor: Mutex::new(floor),
                uuids: Mutex::default(),
                news,
                dropped: AtomicU64::new(0),
            }),
        };
        let weak = Arc::downgrade(&discovery.shared);
        let listener = move || listen(&heard, || weak.upgrade().map(|shared| Discovery { shared }));
        if let Err(error) = std::thread::Builder::new().name("discovery".into()).spawn(listener) {
            tracing::error!("discovery: cannot start its thread, so no machine is racked by itself: {error}");
        }
        Ok(discovery)
    }

    /// A packet of an unknown machine. Never waits.
    pub fn seen(&self, seen: Seen) {
        self.tell(News::Seen(seen));
    }

    /// What an unknown machine's loader told. Never waits.
    pub fn told(&self, hwaddr: HwAddr, told: Told) {
        self.tell(News::Told(hwaddr, told));
    }

    /// Has the keeper's thread panic.
    #[cfg(test)]
    pub(super) fn panic(&self) {
        self.tell(News::Panic);
    }

    /// Firmware on a node's card said this of its mainboard. Never waits.
    pub fn node_said(&self, hwaddr: HwAddr, uuid: Uuid) {
        let mut uuids = self.shared.uuids.lock().unwrap_or_else(PoisonError::into_inner);
        if uuids.get(&hwaddr) == Some(&uuid) || (uuids.len() >= MOST_UUIDS && !uuids.contains_key(&hwaddr)) {
            return;
        }
        uuids.insert(hwaddr, uuid);
        drop(uuids);
        self.tell(News::Uuid(hwaddr, uuid));
    }

    /// What a node's card said last of its mainboard, since the daemon started.
    pub fn uuid_of(&self, hwaddr: HwAddr) -> Option<Uuid> {
        let uuids = self.shared.uuids.lock().unwrap_or_else(PoisonError::into_inner);
        uuids.get(&hwaddr).copied()
    }

    /// What the agent of a node reported that booted from this card. Never waits.
    pub fn node_reported(&self, hwaddr: HwAddr, hardware: &Hardware) {
        self.tell(News::Hardware(hwaddr, Box::new(hardware.clone())));
    }

    fn tell(&self, news: News) {
        if let Err(TrySendError::Full(_)) = self.shared.news.try_send(news) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to fill a rack.
    ///
    /// # Errors
    /// What is wrong with the wish.
    pub fn begin(&self, wanted: &Wanted, by: &str, now: Timestamp) -> Result<Session, DiscoveryError> {
        let world = self.shared.world.load();
        let mut floor = self.floor();
        floor.sessions.retain(|_, session| session.is_on(now));
        let session = Session::begin(wanted, &world.site, &floor.sessions, by, now).map_err(DiscoveryError::Refused)?;
        if session.position(&world.site, &world.inventory).is_none() {
            return Err(DiscoveryError::Refused(format!(
                "rack {}: no position is free from {} on",
                session.rack, session.next
            )));
        }
        self.shared.store.write(|tx| put_session(tx, &session))?;
        floor.sessions.insert(session.rack.clone(), session.clone());
        drop(floor);
        self.place_due(now);
        Ok(session)
    }

    /// Ends the filling of a rack. Its nodes stay.
    ///
    /// # Errors
    /// It is not being filled.
    pub fn end(&self, rack: &str) -> Result<Session, DiscoveryError> {
        let mut floor = self.floor();
        let Some(session) = floor.sessions.get(rack).cloned() else {
            return Err(not_filling(&floor, rack));
        };
        self.shared
            .store
            .write(|tx| tx.delete(Table::Sessions, rack.as_bytes()))?;
        floor.sessions.remove(rack);
        drop(floor);
        Ok(session)
    }

    /// Makes a waiting machine the node `name`, which is new, or with `replace` gets this machine as its hardware.
    /// With no name, it gets the next position of the rack that is being filled.
    ///
    /// # Errors
    /// It does not wait, or the inventory does not take it.
    pub fn accept(
        &self,
        hwaddr: HwAddr,
        name: Option<&str>,
        replace: bool,
        by: &str,
        now: Timestamp,
    ) -> Result<String, DiscoveryError> {
        let world = self.shared.world.load();
        let floor = self.floor();
        let Some(machine) = floor.machine(hwaddr).cloned() else {
            return Err(DiscoveryError::Refused(match world.inventory.by_hwaddr(hwaddr) {
                Some(node) => format!("{hwaddr} is {} already", node.name),
                None => format!(
                    "no machine {hwaddr} waits; who does: rackstrap discover list; to add a node that was never seen: rackstrap \
                     node add NAME --hwaddr {hwaddr}"
                ),
            }));
        };
        if let (Some(node), false) = (name.and_then(|name| world.inventory.get(name)), replace) {
            let cards: Vec<String> = node.hwaddrs.iter().map(|card| format!("--hwaddr {card}")).collect();
            return Err(DiscoveryError::Refused(format!(
                "node {0} exists already; to give it this machine in place of its own: rackstrap discover accept {hwaddr} {0} \
                 --replace; if this is a further card of it: rackstrap node set {0} {1} --hwaddr {hwaddr}",
                node.name,
                cards.join(" ")
            )));
        }
        if let (None, Some(owner)) = (name, floor.owner(&machine, &world.inventory)) {
            return Err(DiscoveryError::Refused(format!(
                "{hwaddr} is {owner}: {}; if it is another machine, name its node: rackstrap discover accept {hwaddr} NAME",
                owner.remedy()
            )));
        }
        let session = floor.session_of(&machine, now).or_else(|| {
            // One that waited before the filling began is not taken by itself; here somebody says that it shall be.
            let covers = |session: &&Session| session.is_on(now) && session.covers(&machine.place);
            floor.sessions.values().find(covers).filter(|_| name.is_none())
        });
        let session = session.cloned();
        let (node, session) = match (name, session) {
            (Some(name), session) => {
                let next = session.as_ref().and_then(|s| s.position(&world.site, &world.inventory));
                // By hand, but just where the session goes on: it goes on behind it.
                let session = session.filter(|_| next.as_deref() == Some(name));
                (name.to_owned(), session)
            }
            (None, Some(session)) => match session.position(&world.site, &world.inventory) {
                Some(next) => (next, Some(session)),
                None => return Err(DiscoveryError::Refused(format!("rack {} is full", session.rack))),
            },
            (None, None) => {
                return Err(DiscoveryError::Refused(format!(
                    "{hwaddr}: no rack is being filled that it belongs to; name a node: rackstrap discover accept {hwaddr} NAME"
                )));
            }
        };
        let placing = Placing {
            machine,
            node,
            session,
            replace,
        };
        self.place(floor, placing, by, now)
    }

    /// Hides a machine, or shows it again.
    ///
    /// # Errors
    /// It is not there.
    pub fn ignore(&self, hwaddr: HwAddr, ignored: bool) -> Result<(), DiscoveryError> {
        let mut floor = self.floor();
        let Some(mut machine) = floor.machine(hwaddr).cloned() else {
            return Err(DiscoveryError::Refused(format!(
                "no machine {hwaddr} waits; who does: rackstrap discover list"
            )));
        };
        machine.ignored = ignored;
        machine.held &= ignored;
        self.shared
            .store
            .write(|tx| tx.put(Table::Machines, &hwaddr.0, &machine))?;
        floor.put(machine);
        drop(floor);
        Ok(())
    }

    /// Takes back the last machine that a session placed: it waits again, sessions leave it alone, and its
    /// position is the next one. Whether it runs already is the caller's to look at.
    ///
    /// # Errors
    /// The session has placed nobody.
    pub fn undo(&self, rack: &str, by: &str, now: Timestamp) -> Result<Placed, DiscoveryError> {
        let mut floor = self.floor();
        let Some(mut session) = floor.sessions.get(rack).cloned() else {
            return Err(not_filling(&floor, rack));
        };
        let Some(last) = session.undo() else {
            return Err(DiscoveryError::Refused(format!(
                "rack {rack}: nobody was placed since it is being filled"
            )));
        };
        let mut machine = last.machine.clone();
        machine.held = true;
        machine.last_seen = now;
        let delete = Change::Delete {
            name: last.node.clone(),
        };
        let world = self.shared.world.load();
        let ours = world
            .inventory
            .get(&last.node)
            .is_some_and(|node| node.hwaddrs.contains(&machine.hwaddr));
        let changes = Vec::from_iter(ours.then_some(delete));
        self.shared.nodes.change_with(&changes, by, now, |tx| {
            tx.put(Table::Machines, &machine.hwaddr.0, &machine)?;
            put_session(tx, &session)
        })?;
        floor.put(machine);
        floor.sessions.insert(rack.to_owned(), session);
        drop(floor);
        Ok(last)
    }

    /// The last node that a rack's session placed.
    pub fn last_placed(&self, rack: &str) -> Option<String> {
        let floor = self.floor();
        floor
            .sessions
            .get(rack)?
            .placed
            .last()
            .map(|placed| placed.node.clone())
    }

    /// One transaction: the node, the machine that waits no longer, the session that goes on.
    fn place(
        &self,
        mut floor: MutexGuard<'_, Floor>,
        placing: Placing,
        by: &str,
        now: Timestamp,
    ) -> Result<String, DiscoveryError> {
        let Placing {
            machine,
            node,
            session,
            replace,
        } = placing;
        let world = self.shared.world.load();
        let change = match replace {
            true => Change::Set {
                name: node.clone(),
                patch: Patch {
                    hwaddrs: Some(vec![machine.hwaddr]),
                    ..Patch::default()
                },
            },
            false => Change::Add(NewNode {
                name: node.clone(),
                hwaddrs: vec![machine.hwaddr],
                profiles: session.as_ref().map(|s| s.profiles.clone()).unwrap_or_default(),
                groups: session.as_ref().map(|s| s.groups.clone()).unwrap_or_default(),
                attributes: Default::default(),
            }),
        };
        let session = session.map(|mut session| {
            session.place(&world.site.cluster.naming, machine.clone(), &node, now);
            session
        });
        self.shared.nodes.change_with(&[change], by, now, |tx| {
            tx.delete(Table::Machines, &machine.hwaddr.0)?;
            session.as_ref().map_or(Ok(()), |session| put_session(tx, session))
        })?;
        floor.remove(machine.hwaddr);
        floor.kin.learn(machine.hwaddr, &machine.traits());
        if let Some(session) = session {
            floor.sessions.insert(session.rack.clone(), session);
        }
        drop(floor);
        tracing::info!("{}: is {node}, by {by}", machine.hwaddr);
        Ok(node)
    }

    /// Places everybody whose turn has come.
    fn place_due(&self, now: Timestamp) {
        loop {
            let world = self.shared.world.load();
            let floor = self.floor();
            let mut due = floor
                .due(&world.inventory, now)
                .into_iter()
                .filter_map(|(rack, hwaddr)| {
                    let session = floor.sessions.get(&rack)?;
                    // A full rack says so where it is shown; its machines wait.
                    let node = session.position(&world.site, &world.inventory)?;
                    Some((session.clone(), floor.machine(hwaddr)?.clone(), node))
                });
            let Some((session, machine, node)) = due.next() else {
                return;
            };
            drop(due);
            let (hwaddr, by) = (machine.hwaddr, format!("filling {}, {}", session.rack, session.by));
            let placing = Placing {
                machine,
                node,
                session: Some(session),
                replace: false,
            };
            if let Err(error) = self.place(floor, placing, &by, now) {
                // It would fail again at once; the next packet or tick tries anew.
                tracing::warn!("{hwaddr} cannot be placed: {error}");
                return;
            }
        }
    }

    /// After a panic: what memory says may be half of a change, and the disk has what was confirmed. Machines that are in memory
    /// only ask again.
    fn mend(&self) {
        match load(&self.shared.world, &self.shared.store, &self.shared.boots) {
            Ok(floor) => {
                *self.floor() = floor;
                // Each is told again with the node's next packet.
                self.shared.uuids.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            Err(error) => tracing::error!("discovery goes on with what memory has of machines: {error}"),
        }
    }

    fn hear(&self, news: News) {
        let mut floor = self.floor();
        let write = match news {
            #[cfg(test)]
            News::Panic => panic!("a test wants it"),
            News::Seen(seen) => {
                if self.shared.world.load().inventory.by_hwaddr(seen.hwaddr).is_some() {
                    return;
                }
                let noted = floor.see(&seen);
                let gone = noted.forgotten.iter();
                let gone = gone.fold(Batch::new(), |batch, hwaddr| batch.delete(Table::Machines, hwaddr.0));
                if !gone.is_empty() {
                    self.shared.store.queue(gone);
                }
                noted.write.then_some(seen.hwaddr)
            }
            News::Uuid(hwaddr, uuid) => {
                floor.kin.learn(hwaddr, &of_uuid(Some(uuid)));
                None
            }
            News::Hardware(hwaddr, hardware) => {
                floor.kin.learn_hardware(hwaddr, &hardware);
                None
            }
            News::Told(hwaddr, told) => {
                let news = floor.hear(hwaddr, &told, Timestamp::now());
                let kept = floor.machine(hwaddr).is_some_and(Machine::is_kept);
                (news && kept).then_some(hwaddr)
            }
        };
        if let Some(machine) = write.and_then(|hwaddr| floor.machine(hwaddr)) {
            let batch = Batch::new().put(Table::Machines, machine.hwaddr.0, machine);
            self.shared.store.queue(batch);
        }
    }

    /// Limits of the site file, machines that are nodes by now, sessions that are over.
    fn tidy(&self, now: Timestamp) {
        let world = self.shared.world.load();
        let mut floor = self.floor();
        floor.set_limit(world.site.limits.unknown_machines);
        let known: Vec<HwAddr> = floor
            .machines()
            .into_iter()
            .map(|machine| machine.hwaddr)
            .filter(|hwaddr| world.inventory.by_hwaddr(*hwaddr).is_some())
            .collect();
        let gone = known.iter().fold(Batch::new(), |batch, hwaddr| {
            // It became a node by hand.
            if let Some(machine) = floor.remove(*hwaddr) {
                floor.kin.learn(*hwaddr, &machine.traits());
            }
            batch.delete(Table::Machines, hwaddr.0)
        });
        if !gone.is_empty() {
            self.shared.store.queue(gone);
        }
        floor.kin.tidy(&world.inventory);
        let over: Vec<String> = floor
            .sessions
            .values()
            .filter(|session| !session.is_on(now))
            .map(|session| session.rack.clone())
            .collect();
        drop(floor);
        for rack in over {
            match self.end(&rack) {
                Ok(_) => tracing::info!("rack {rack} is not being filled any more: its time is over"),
                Err(error) => tracing::warn!("rack {rack}: {error}"),
            }
        }
    }

    pub(super) fn floor(&self) -> MutexGuard<'_, Floor> {
        self.shared.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_filling(floor: &Floor, rack: &str) -> DiscoveryError {
    let racks: Vec<&str> = floor.sessions.keys().map(String::as_str).collect();
    DiscoveryError::Refused(match racks.is_empty() {
        true => format!("rack '{rack}' is not being filled, nor is any other; begin: rackstrap discover start {rack}"),
        false => format!("rack '{rack}' is not being filled; these are: {}", racks.join(", ")),
    })
}

fn put_session(tx: &mut Write<'_>, session: &Session) -> Result<(), StoreError> {
    tx.put(Table::Sessions, session.rack.as_bytes(), session)
}

/// Hears news until nobody is left who could tell any.
fn listen(heard: &Receiver<News>, discovery: impl Fn() -> Option<Discovery>) {
    let mut tidied = Instant::now();
    let step = || {
        let news = match heard.recv_timeout(TICK) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        };
        let Some(discovery) = discovery() else {
            return ControlFlow::Break(());
        };
        // All that is there, then one look at who is due.
        for news in news.into_iter().chain(heard.try_iter().take(QUEUE)) {
            discovery.hear(news);
        }
        let now = Timestamp::now();
        discovery.place_due(now);
        // Also when it is never quiet.
        if tidied.elapsed() >= TICK {
            tidied = Instant::now();
            discovery.tidy(now);
        }
        ControlFlow::Continue(())
    };
    panics::keep_at(step, || {
        if let Some(discovery) = discovery() {
            discovery.mend();
        }
    });
}
