//! The registry of unknown machines: records packets without delaying them, places machines, and writes both to the store.

use super::{
    load::{load, of_uuid},
    machine::{LoaderReport, Machine, Observation},
    placing::{Placing, accepted},
    session::{Placed, Session, Wanted},
    state::RackingState,
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

/// At most this many packets wait for the thread; more are dropped and counted. A machine asks again.
const QUEUE: usize = 4096;
/// At most this many UUIDs of nodes' cards are remembered.
const MOST_UUIDS: usize = 65_536;
/// How often the thread looks for machines to place.
const TICK: Duration = Duration::from_millis(500);

/// The registry; clones share it.
#[derive(Clone)]
pub struct Discovery {
    pub(super) shared: Arc<Shared>,
    thread: Thread,
}

pub(super) struct Shared {
    pub(super) world: SharedWorld,
    store: Store,
    nodes: Nodes,
    /// Held for a few lines only: packets change it, and the store is written afterwards.
    pub(super) state: Mutex<RackingState>,
    /// Changes of sessions and of the inventory. They are published when they are on disk.
    keeper: Keeper,
    /// UUIDs that the firmware of nodes' cards reported.
    uuids: Mutex<HashMap<HwAddr, Uuid>>,
    news: SyncSender<News>,
    pub(super) dropped: AtomicU64,
    /// Counts up when something new about a machine was recorded.
    changes: watch::Sender<u64>,
}

enum News {
    Observed(Observation),
    Reported(HwAddr, LoaderReport),
    /// Makes the thread panic.
    #[cfg(test)]
    Panic,
    Uuid(HwAddr, Uuid),
    Hardware(HwAddr, Box<Hardware>),
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The request makes no sense; the text says why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The inventory refuses the change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The store failed.
    #[error("nothing was changed: {0}")]
    Store(#[from] StoreError),
}

impl Discovery {
    /// Loads the stored state, and starts to listen.
    ///
    /// # Errors
    /// Those of the store.
    pub fn start(world: SharedWorld, store: Store, nodes: Nodes, boots: Boots) -> Result<Discovery, StoreError> {
        let state = load(&world, &store, &boots)?;
        let (news, heard) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            world,
            keeper: Keeper::new(store.clone(), ()),
            store,
            nodes,
            state: Mutex::new(state),
            uuids: Mutex::default(),
            news,
            dropped: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        });
        let weak = Arc::downgrade(&shared);
        let thread = Thread::spawn("racking", move || listen(&heard, &weak));
        Ok(Discovery { shared, thread })
    }

    /// Waits until the thread has ended. A panic of the thread ends the daemon.
    ///
    /// # Errors
    /// The thread panicked, or could not be started.
    pub fn ended(&self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.thread.ended()
    }

    /// A counter that moves when something new about a machine was recorded. Changes by commands are in the store, which has
    /// its own watches.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Records a packet of an unknown machine. Never waits.
    pub fn observe(&self, seen: Observation) {
        self.send(News::Observed(seen));
    }

    /// Records the report of an unknown machine's loader. Never waits.
    pub fn report(&self, hwaddr: HwAddr, told: LoaderReport) {
        self.send(News::Reported(hwaddr, told));
    }

    /// Makes the thread panic.
    #[cfg(test)]
    pub(super) fn panic(&self) {
        self.send(News::Panic);
    }

    /// Records the UUID that firmware on a node's card reported. Never waits.
    pub fn record_node_uuid(&self, hwaddr: HwAddr, uuid: Uuid) {
        let mut uuids = lock(&self.shared.uuids);
        if uuids.get(&hwaddr) == Some(&uuid) || (uuids.len() >= MOST_UUIDS && !uuids.contains_key(&hwaddr)) {
            return;
        }
        uuids.insert(hwaddr, uuid);
        drop(uuids);
        self.send(News::Uuid(hwaddr, uuid));
    }

    /// The UUID that a node's card reported last since the daemon started.
    pub fn uuid_of(&self, hwaddr: HwAddr) -> Option<Uuid> {
        let uuids = lock(&self.shared.uuids);
        uuids.get(&hwaddr).copied()
    }

    /// Records the report of the agent of a node that booted from this card. Never waits.
    pub fn node_reported(&self, hwaddr: HwAddr, hardware: &Hardware) {
        self.send(News::Hardware(hwaddr, Box::new(hardware.clone())));
    }

    fn send(&self, news: News) {
        if let Err(TrySendError::Full(_)) = self.shared.news.try_send(news) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to fill a rack.
    ///
    /// # Errors
    /// The problem of the request.
    pub fn begin(&self, wanted: &Wanted, by: &str, now: Timestamp) -> Result<Session, DiscoveryError> {
        let shared = &self.shared;
        let draft = |(): &()| {
            let world = shared.world.load();
            let state = shared.state();
            let mut others = state.sessions.clone();
            others.retain(|_, session| session.is_on(now));
            let session = Session::begin(wanted, &world.site, &others, by, now).map_err(DiscoveryError::Refused)?;
            if session.position(&world.site, &world.inventory).is_none() {
                return Err(DiscoveryError::Refused(format!(
                    "rack {}: no position is free from {} on",
                    session.rack, session.next
                )));
            }
            let batch = session_row(&session, state.sessions.get(&session.rack));
            Ok((session, batch))
        };
        let session = shared.keeper.change(draft, |(), session| {
            let mut state = shared.state();
            state.sessions.insert(session.rack.clone(), session.clone());
            session
        })?;
        shared.place_due(now);
        Ok(session)
    }

    /// Stops filling a rack. Its nodes stay.
    ///
    /// # Errors
    /// The rack is not being filled.
    pub fn end(&self, rack: &str) -> Result<Session, DiscoveryError> {
        self.shared.end(rack, None)
    }

    /// Makes a waiting machine the node `name`: a new node, or with `replace` an existing node that gets this machine.
    /// Without a name, the machine gets the next position of the rack that is being filled.
    ///
    /// # Errors
    /// The machine does not wait, or the inventory refuses the change.
    pub fn accept(
        &self,
        hwaddr: HwAddr,
        name: Option<&str>,
        replace: bool,
        by: &str,
        now: Timestamp,
    ) -> Result<String, DiscoveryError> {
        let choose = |state: &RackingState, world: &World| accepted(state, world, hwaddr, name, replace, now).map(Some);
        let placed = self.shared.place(choose, |_| by.to_owned(), now)?;
        placed.ok_or_else(|| DiscoveryError::Refused(format!("{hwaddr} is not placed")))
    }

    /// Hides a machine, or shows it again.
    ///
    /// # Errors
    /// The machine is unknown.
    pub fn ignore(&self, hwaddr: HwAddr, ignored: bool) -> Result<(), DiscoveryError> {
        let shared = &self.shared;
        let set = |machine: &mut Machine| {
            machine.ignored = ignored;
            machine.held &= ignored;
        };
        let draft = |(): &()| {
            let Some(mut machine) = shared.state().machine(hwaddr).cloned() else {
                return Err(DiscoveryError::Refused(format!(
                    "{hwaddr} is not waiting to be racked; to list the machines that are: rackstrap discover list"
                )));
            };
            set(&mut machine);
            let batch = Batch::new().put(Table::Machines, hwaddr.0, &machine);
            Ok((machine, batch))
        };
        shared.keeper.change(draft, |(), written| {
            let mut state = shared.state();
            // The machine was forgotten or seen meanwhile; rows that were queued do not have this change.
            let mut machine = state.machine(hwaddr).cloned().unwrap_or(written);
            set(&mut machine);
            shared.put(&mut state, machine);
        })
    }

    /// Undoes the last placement of a session: the machine waits again, sessions leave it alone, and its position is the next
    /// one. The caller checks whether the node runs.
    ///
    /// # Errors
    /// The session has placed no machine.
    pub fn undo(&self, rack: &str, by: &str, now: Timestamp) -> Result<Placed, DiscoveryError> {
        let shared = &self.shared;
        let draft = |(): &()| {
            let state = shared.state();
            let Some(before) = state.sessions.get(rack) else {
                return Err(not_filling(&state, rack));
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
            let mut state = shared.state();
            shared.put(&mut state, machine);
            state.sessions.insert(rack.to_owned(), session);
            last
        })
    }

    /// The last node that a rack's session placed.
    pub fn last_placed(&self, rack: &str) -> Option<String> {
        let state = self.shared.state();
        state
            .sessions
            .get(rack)?
            .placed
            .last()
            .map(|placed| placed.node.clone())
    }
}

impl Shared {
    /// Stops filling a rack; with `over_at`, only if its session is over at that time.
    pub(super) fn end(&self, rack: &str, over_at: Option<Timestamp>) -> Result<Session, DiscoveryError> {
        let draft = |(): &()| {
            let state = self.state();
            let session = state.sessions.get(rack);
            // The rack may have been started again while this waited for the lock.
            let session = session.filter(|session| over_at.is_none_or(|now| !session.is_on(now)));
            let Some(session) = session else {
                return Err(not_filling(&state, rack));
            };
            let key = rack.as_bytes();
            let batch = Batch::new()
                .expect(Table::Sessions, key, session)
                .delete(Table::Sessions, key);
            Ok((session.clone(), batch))
        };
        self.keeper.change(draft, |(), session| {
            self.state().sessions.remove(rack);
            session
        })
    }

    /// Places the machine that `choose` returns, if any, in one batch: the node, the machine that no longer waits, and the
    /// session. Returns the node's name.
    fn place(
        &self,
        choose: impl FnOnce(&RackingState, &World) -> Result<Option<Placing>, DiscoveryError>,
        by: impl Fn(&Placing) -> String,
        now: Timestamp,
    ) -> Result<Option<String>, DiscoveryError> {
        let draft = |(): &()| {
            let world = self.world.load();
            let state = self.state();
            let Some(placing) = choose(&state, &world)? else {
                return Ok((None, Batch::new()));
            };
            let mut batch = Batch::new().delete(Table::Machines, placing.machine.hwaddr.0);
            let session = placing.session.as_ref().map(|before| {
                let mut session = before.clone();
                session.place(&world.site.cluster.naming, placing.machine.clone(), &placing.node, now);
                session
            });
            if let Some(session) = &session {
                batch = batch.and(session_row(session, state.sessions.get(&session.rack)));
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
            let mut state = self.state();
            // A packet may have queued the machine's row meanwhile.
            self.store.queue(Batch::new().delete(Table::Machines, hwaddr.0));
            state.remove(hwaddr);
            state.owners.learn(hwaddr, &placing.machine.traits());
            if let Some(session) = session {
                state.sessions.insert(session.rack.clone(), session);
            }
            drop(state);
            tracing::info!("{hwaddr}: is {}, by {}", placing.node, by(&placing));
            Some(placing.node)
        })
    }

    /// Places all machines whose turn has come.
    fn place_due(&self, now: Timestamp) {
        // The last machine that was tried.
        let tried = Cell::new(None);
        loop {
            let choose = |state: &RackingState, world: &World| {
                let mut due = state
                    .due(&world.inventory, now)
                    .into_iter()
                    .filter_map(|(rack, hwaddr)| {
                        let session = state.sessions.get(&rack)?;
                        // If the rack is full, the views show it, and its machines wait.
                        let node = session.position(&world.site, &world.inventory)?;
                        Some(Placing {
                            machine: state.machine(hwaddr)?.clone(),
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
                    // It would fail again at once; the next packet or tick tries again.
                    if let Some(hwaddr) = tried.get() {
                        tracing::warn!("{hwaddr} cannot be placed: {error}");
                    }
                    return;
                }
            }
        }
    }

    /// Puts a machine into the state and queues its row.
    fn put(&self, state: &mut RackingState, machine: Machine) {
        self.store
            .queue(Batch::new().put(Table::Machines, machine.hwaddr.0, &machine));
        state.put(machine);
    }

    fn handle(&self, news: News) {
        let mut state = self.state();
        let write = match news {
            #[cfg(test)]
            News::Panic => panic!("a test wants it"),
            News::Observed(seen) => {
                if self.world.load().inventory.by_hwaddr(seen.hwaddr).is_some() {
                    return;
                }
                let noted = state.observe(&seen);
                let gone = noted.forgotten.iter();
                let gone = gone.fold(Batch::new(), |batch, hwaddr| batch.delete(Table::Machines, hwaddr.0));
                if !gone.is_empty() {
                    self.store.queue(gone);
                }
                noted.write.then_some(seen.hwaddr)
            }
            News::Uuid(hwaddr, uuid) => {
                state.owners.learn(hwaddr, &of_uuid(Some(uuid)));
                None
            }
            News::Hardware(hwaddr, hardware) => {
                state.owners.learn_hardware(hwaddr, &hardware);
                None
            }
            News::Reported(hwaddr, told) => {
                let news = state.take_report(hwaddr, &told, Timestamp::now());
                let kept = state.machine(hwaddr).is_some_and(Machine::is_kept);
                (news && kept).then_some(hwaddr)
            }
        };
        if let Some(machine) = write.and_then(|hwaddr| state.machine(hwaddr)) {
            let batch = Batch::new().put(Table::Machines, machine.hwaddr.0, machine);
            self.store.queue(batch);
        }
    }

    /// Applies limits of the site file, removes machines that are nodes now, and ends sessions that are over.
    fn tidy(&self, now: Timestamp) {
        let world = self.world.load();
        let mut state = self.state();
        state.set_limit(world.site.limits.unknown_machines);
        let known: Vec<HwAddr> = state
            .machines()
            .into_iter()
            .map(|machine| machine.hwaddr)
            .filter(|hwaddr| world.inventory.by_hwaddr(*hwaddr).is_some())
            .collect();
        let gone = known.iter().fold(Batch::new(), |batch, hwaddr| {
            // It became a node by hand.
            if let Some(machine) = state.remove(*hwaddr) {
                state.owners.learn(*hwaddr, &machine.traits());
            }
            batch.delete(Table::Machines, hwaddr.0)
        });
        if !gone.is_empty() {
            self.store.queue(gone);
        }
        state.owners.tidy(&world.inventory);
        let over: Vec<String> = state
            .sessions
            .values()
            .filter(|session| !session.is_on(now))
            .map(|session| session.rack.clone())
            .collect();
        drop(state);
        for rack in over {
            match self.end(&rack, Some(now)) {
                Ok(_) => tracing::info!("rack {rack} is no longer being filled: its time is over"),
                Err(error) => tracing::warn!("rack {rack}: {error}"),
            }
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, RackingState> {
        lock(&self.state)
    }
}

fn not_filling(state: &RackingState, rack: &str) -> DiscoveryError {
    let racks: Vec<&str> = state.sessions.keys().map(String::as_str).collect();
    DiscoveryError::Refused(match racks.is_empty() {
        true => format!(
            "rack '{rack}' is not being filled, and no other rack is; to start: rackstrap discover start {rack}"
        ),
        false => format!("rack '{rack}' is not being filled; these are: {}", racks.join(", ")),
    })
}

/// The batch that writes a session, which was `before`.
fn session_row(session: &Session, before: Option<&Session>) -> Batch {
    let key = session.rack.as_bytes();
    Batch::new()
        .expect_read(Table::Sessions, key, before)
        .put(Table::Sessions, key, session)
}

/// Handles messages until no sender is left.
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
        // All messages that are there, then one search for machines to place.
        for news in news.into_iter().chain(heard.try_iter().take(QUEUE)) {
            shared.handle(news);
            shared.changes.send_modify(|number| *number += 1);
        }
        let now = Timestamp::now();
        shared.place_due(now);
        // Also if messages come without a pause.
        if tidied.elapsed() >= TICK {
            tidied = Instant::now();
            shared.tidy(now);
        }
    }
}
