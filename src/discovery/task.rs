//! The keeper of the waiting room: hears of packets without holding them up, places machines, writes it all down.

use super::{
    floor::Floor,
    load::{load, of_uuid},
    machine::{Machine, Seen, Told},
    placing::{Placing, accepted},
    session::{Placed, Session, Wanted},
};
use crate::{
    boots::Boots,
    nodes::{ChangeError, Nodes},
};
use rackstrap_base::{clock::Timestamp, sync::lock, threads::Thread};
use rackstrap_model::{
    decide::{SharedWorld, World},
    inventory::Change,
};
use rackstrap_store::{Batch, Keeper, Store, StoreError, Table};
use rackstrap_wire::{Hardware, HwAddr};
use std::{
    cell::Cell,
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::sync::watch;
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
    thread: Thread,
}

pub(super) struct Shared {
    pub(super) world: SharedWorld,
    store: Store,
    nodes: Nodes,
    /// Held for moments only: what packets say of machines changes it, and is written behind.
    pub(super) floor: Mutex<Floor>,
    /// Changes of sessions, and of who is a node. What it promises is put on the floor when it is on disk.
    keeper: Keeper,
    /// UUIDs that the firmware of nodes' cards said.
    uuids: Mutex<HashMap<HwAddr, Uuid>>,
    news: SyncSender<News>,
    pub(super) dropped: AtomicU64,
    /// Moves when something was heard of a machine.
    changes: watch::Sender<u64>,
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
        let shared = Arc::new(Shared {
            world,
            keeper: Keeper::new(store.clone(), ()),
            store,
            nodes,
            floor: Mutex::new(floor),
            uuids: Mutex::default(),
            news,
            dropped: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        });
        let weak = Arc::downgrade(&shared);
        let thread = Thread::spawn("racking", move || listen(&heard, &weak));
        Ok(Discovery { shared, thread })
    }

    /// Waits until its thread has ended. The daemon ends with it if that was a panic.
    ///
    /// # Errors
    /// It panicked, or could not be started.
    pub fn ended(&self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.thread.ended()
    }

    /// A counter that moves when something was heard of a machine. What commands change is in the store, which has watches of its own.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
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
        let mut uuids = lock(&self.shared.uuids);
        if uuids.get(&hwaddr) == Some(&uuid) || (uuids.len() >= MOST_UUIDS && !uuids.contains_key(&hwaddr)) {
            return;
        }
        uuids.insert(hwaddr, uuid);
        drop(uuids);
        self.tell(News::Uuid(hwaddr, uuid));
    }

    /// What a node's card said last of its mainboard, since the daemon started.
    pub fn uuid_of(&self, hwaddr: HwAddr) -> Option<Uuid> {
        let uuids = lock(&self.shared.uuids);
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
        let shared = &self.shared;
        let draft = |(): &()| {
            let world = shared.world.load();
            let floor = shared.floor();
            let mut others = floor.sessions.clone();
            others.retain(|_, session| session.is_on(now));
            let session = Session::begin(wanted, &world.site, &others, by, now).map_err(DiscoveryError::Refused)?;
            if session.position(&world.site, &world.inventory).is_none() {
                return Err(DiscoveryError::Refused(format!(
                    "rack {}: no position is free from {} on",
                    session.rack, session.next
                )));
            }
            let batch = session_row(&session, floor.sessions.get(&session.rack));
            Ok((session, batch))
        };
        let session = shared.keeper.change(draft, |(), session| {
            let mut floor = shared.floor();
            floor.sessions.insert(session.rack.clone(), session.clone());
            session
        })?;
        shared.place_due(now);
        Ok(session)
    }

    /// Ends the filling of a rack. Its nodes stay.
    ///
    /// # Errors
    /// It is not being filled.
    pub fn end(&self, rack: &str) -> Result<Session, DiscoveryError> {
        self.shared.end(rack, None)
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
        let choose = |floor: &Floor, world: &World| accepted(floor, world, hwaddr, name, replace, now).map(Some);
        let placed = self.shared.place(choose, |_| by.to_owned(), now)?;
        placed.ok_or_else(|| DiscoveryError::Refused(format!("{hwaddr} is not placed")))
    }

    /// Hides a machine, or shows it again.
    ///
    /// # Errors
    /// It is not there.
    pub fn ignore(&self, hwaddr: HwAddr, ignored: bool) -> Result<(), DiscoveryError> {
        let shared = &self.shared;
        let set = |machine: &mut Machine| {
            machine.ignored = ignored;
            machine.held &= ignored;
        };
        let draft = |(): &()| {
            let Some(mut machine) = shared.floor().machine(hwaddr).cloned() else {
                return Err(DiscoveryError::Refused(format!(
                    "{hwaddr} is not waiting to be racked; to list the machines that are: rackstrap discover list"
                )));
            };
            set(&mut machine);
            let batch = Batch::new().put(Table::Machines, hwaddr.0, &machine);
            Ok((machine, batch))
        };
        shared.keeper.change(draft, |(), written| {
            let mut floor = shared.floor();
            // Forgotten meanwhile, or seen again: what was queued of it knows nothing of this.
            let mut machine = floor.machine(hwaddr).cloned().unwrap_or(written);
            set(&mut machine);
            shared.put(&mut floor, machine);
        })
    }

    /// Takes back the last machine that a session placed: it waits again, sessions leave it alone, and its
    /// position is the next one. Whether it runs already is the caller's to look at.
    ///
    /// # Errors
    /// The session has placed nobody.
    pub fn undo(&self, rack: &str, by: &str, now: Timestamp) -> Result<Placed, DiscoveryError> {
        let shared = &self.shared;
        let draft = |(): &()| {
            let floor = shared.floor();
            let Some(before) = floor.sessions.get(rack) else {
                return Err(not_filling(&floor, rack));
            };
            let mut session = before.clone();
            let Some(last) = session.undo() else {
                return Err(DiscoveryError::Refused(format!(
                    "rack {rack}: no machine has been placed yet"
                )));
            };
            let mut machine = last.machine.clone();
            machine.held = true;
            machine.last_seen = now;
            let batch = session_row(&session, Some(before)).put(Table::Machines, machine.hwaddr.0, &machine);
            Ok(((session, machine, last), batch))
        };
        let commit = |(_, machine, last): &(Session, Machine, Placed), batch: Batch| {
            let world = shared.world.load();
            let node = world.inventory.get(&last.node);
            let ours = node.is_some_and(|node| node.hwaddrs.contains(&machine.hwaddr));
            let delete = Change::Delete {
                name: last.node.clone(),
            };
            let changes = Vec::from_iter(ours.then_some(delete));
            shared.nodes.change_with(&changes, by, now, &batch)?;
            Ok(())
        };
        shared.keeper.change_by(draft, commit, |(), (session, machine, last)| {
            let mut floor = shared.floor();
            shared.put(&mut floor, machine);
            floor.sessions.insert(rack.to_owned(), session);
            last
        })
    }

    /// The last node that a rack's session placed.
    pub fn last_placed(&self, rack: &str) -> Option<String> {
        let floor = self.shared.floor();
        floor
            .sessions
            .get(rack)?
            .placed
            .last()
            .map(|placed| placed.node.clone())
    }
}

impl Shared {
    /// Ends the filling of a rack; if `over_at` is given, only one whose time is over then.
    pub(super) fn end(&self, rack: &str, over_at: Option<Timestamp>) -> Result<Session, DiscoveryError> {
        let draft = |(): &()| {
            let floor = self.floor();
            let session = floor.sessions.get(rack);
            // Somebody may have begun to fill the rack again, while this waited for its turn.
            let session = session.filter(|session| over_at.is_none_or(|now| !session.is_on(now)));
            let Some(session) = session else {
                return Err(not_filling(&floor, rack));
            };
            let key = rack.as_bytes();
            let batch = Batch::new()
                .expect(Table::Sessions, key, session)
                .delete(Table::Sessions, key);
            Ok((session.clone(), batch))
        };
        self.keeper.change(draft, |(), session| {
            self.floor().sessions.remove(rack);
            session
        })
    }

    /// Places whom `choose` names, if anybody, in one batch: the node, the machine that waits no longer, the session that goes on.
    /// Returns the node's name.
    fn place(
        &self,
        choose: impl FnOnce(&Floor, &World) -> Result<Option<Placing>, DiscoveryError>,
        by: impl Fn(&Placing) -> String,
        now: Timestamp,
    ) -> Result<Option<String>, DiscoveryError> {
        let draft = |(): &()| {
            let world = self.world.load();
            let floor = self.floor();
            let Some(placing) = choose(&floor, &world)? else {
                return Ok((None, Batch::new()));
            };
            let mut batch = Batch::new().delete(Table::Machines, placing.machine.hwaddr.0);
            let session = placing.session.as_ref().map(|before| {
                let mut session = before.clone();
                session.place(&world.site.cluster.naming, placing.machine.clone(), &placing.node, now);
                session
            });
            if let Some(session) = &session {
                batch = batch.and(session_row(session, floor.sessions.get(&session.rack)));
            }
            Ok((Some((placing, session)), batch))
        };
        let commit = |drafted: &Option<(Placing, Option<Session>)>, batch| {
            let Some((placing, _)) = drafted else { return Ok(()) };
            self.nodes.change_with(&[placing.change()], &by(placing), now, &batch)?;
            Ok(())
        };
        self.keeper.change_by(draft, commit, |(), drafted| {
            let (placing, session) = drafted?;
            let hwaddr = placing.machine.hwaddr;
            let mut floor = self.floor();
            // A packet of it may have queued its row meanwhile.
            self.store.queue(Batch::new().delete(Table::Machines, hwaddr.0));
            floor.remove(hwaddr);
            floor.kin.learn(hwaddr, &placing.machine.traits());
            if let Some(session) = session {
                floor.sessions.insert(session.rack.clone(), session);
            }
            drop(floor);
            tracing::info!("{hwaddr}: is {}, by {}", placing.node, by(&placing));
            Some(placing.node)
        })
    }

    /// Places everybody whose turn has come.
    fn place_due(&self, now: Timestamp) {
        // The last one that was tried.
        let tried = Cell::new(None);
        loop {
            let choose = |floor: &Floor, world: &World| {
                let mut due = floor
                    .due(&world.inventory, now)
                    .into_iter()
                    .filter_map(|(rack, hwaddr)| {
                        let session = floor.sessions.get(&rack)?;
                        // A full rack says so where it is shown; its machines wait.
                        let node = session.position(&world.site, &world.inventory)?;
                        Some(Placing {
                            machine: floor.machine(hwaddr)?.clone(),
                            node,
                            session: Some(session.clone()),
                            replace: false,
                        })
                    });
                let placing = due.next();
                tried.set(placing.as_ref().map(|placing| placing.machine.hwaddr));
                Ok(placing)
            };
            let by = |placing: &Placing| match &placing.session {
                Some(session) => format!("filling {}, {}", session.rack, session.by),
                None => String::new(),
            };
            match self.place(choose, by, now) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    // It would fail again at once; the next packet or tick tries anew.
                    if let Some(hwaddr) = tried.get() {
                        tracing::warn!("{hwaddr} cannot be placed: {error}");
                    }
                    return;
                }
            }
        }
    }

    /// Puts a machine on the floor and queues its row.
    fn put(&self, floor: &mut Floor, machine: Machine) {
        self.store
            .queue(Batch::new().put(Table::Machines, machine.hwaddr.0, &machine));
        floor.put(machine);
    }

    fn hear(&self, news: News) {
        let mut floor = self.floor();
        let write = match news {
            #[cfg(test)]
            News::Panic => panic!("a test wants it"),
            News::Seen(seen) => {
                if self.world.load().inventory.by_hwaddr(seen.hwaddr).is_some() {
                    return;
                }
                let noted = floor.see(&seen);
                let gone = noted.forgotten.iter();
                let gone = gone.fold(Batch::new(), |batch, hwaddr| batch.delete(Table::Machines, hwaddr.0));
                if !gone.is_empty() {
                    self.store.queue(gone);
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
            self.store.queue(batch);
        }
    }

    /// Limits of the site file, machines that are nodes by now, sessions that are over.
    fn tidy(&self, now: Timestamp) {
        let world = self.world.load();
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
            self.store.queue(gone);
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
            match self.end(&rack, Some(now)) {
                Ok(_) => tracing::info!("rack {rack} is no longer being filled: its time is over"),
                Err(error) => tracing::warn!("rack {rack}: {error}"),
            }
        }
    }

    pub(super) fn floor(&self) -> MutexGuard<'_, Floor> {
        lock(&self.floor)
    }
}

fn not_filling(floor: &Floor, rack: &str) -> DiscoveryError {
    let racks: Vec<&str> = floor.sessions.keys().map(String::as_str).collect();
    DiscoveryError::Refused(match racks.is_empty() {
        true => format!("no rack is being filled, nor is '{rack}'; to start: rackstrap discover start {rack}"),
        false => format!("rack '{rack}' is not being filled; these are: {}", racks.join(", ")),
    })
}

/// Writes a session that was `before`.
fn session_row(session: &Session, before: Option<&Session>) -> Batch {
    let key = session.rack.as_bytes();
    Batch::new()
        .expect_read(Table::Sessions, key, before)
        .put(Table::Sessions, key, session)
}

/// Hears news until nobody is left who could tell any.
fn listen(heard: &Receiver<News>, shared: &Weak<Shared>) {
    let mut tidied = Instant::now();
    loop {
        let news = match heard.recv_timeout(TICK) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        // All that is there, then one look at who is due.
        for news in news.into_iter().chain(heard.try_iter().take(QUEUE)) {
            shared.hear(news);
            shared.changes.send_modify(|number| *number += 1);
        }
        let now = Timestamp::now();
        shared.place_due(now);
        // Also when it is never quiet.
        if tidied.elapsed() >= TICK {
            tidied = Instant::now();
            shared.tidy(now);
        }
    }
}
