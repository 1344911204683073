//! Records events, keeps the last ones of each machine in memory, and writes them to the store.

use super::{BootPace, Event, EventKind, Level, NodeState, Retries, Standing, Subject, machines::MachineOrder, rows};
use rackstrap_base::{
    clock::{CORRECTION_MS, Timestamp, duration},
    sync::lock,
};
use rackstrap_site::Limits;
use rackstrap_store::{ALIVE, Batch, Store, StoreError, Table};
use rackstrap_wire::HwAddr;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// A repetition is written again only after this many milliseconds: some machines send a DISCOVER each second for hours.
const REPEAT_WRITE_MS: u64 = 10_000;

/// The number of rows in which no [`Source`](super::kind::Source) may have more than its share. A boot has about 25.
const WINDOW: usize = 96;

/// Key in [`Table::Meta`] of the site's [`BootPace`].
const PACE: &[u8] = b"pace";

/// If the daemon was away for more than this many milliseconds, timelines show it. A shorter restart delays no node.
const AWAY_MS: u64 = 20_000;

/// The timelines of all machines; clones share them. All methods are short and use memory only.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    /// Milliseconds since 1970: the time from which heartbeats can be expected.
    listening: AtomicU64,
    state: Mutex<State>,
    /// Changes when a node becomes lost or stalled, or recovers.
    overdue: watch::Sender<u64>,
    recorded: AtomicU64,
}

struct State {
    limits: Limits,
    pace: BootPace,
    /// The latest time that `settle` was called with. Before the first call, stored times may lie in the future.
    latest: Timestamp,
    lines: HashMap<Subject, Line>,
    /// How often a node became lost or stalled, or recovered.
    overdue_turns: u64,
    /// Unknown machines that have timelines.
    machines: MachineOrder,
}

#[derive(Default)]
struct Line {
    /// The last events: those since the start of the daemon, and a few from before.
    events: VecDeque<(u64, Event)>,
    /// Number of the first event. Events before those in memory are on disk.
    first: u64,
    next: u64,
    standing: Standing,
    retries: Retries,
    /// Numbers of rows whose counts are higher than on disk.
    unwritten: BTreeSet<u64>,
    written: Timestamp,
}

impl Line {
    /// Its state if it is lost or stalled.
    fn overdue(&self) -> Option<NodeState> {
        Some(self.standing.state).filter(|state| state.is_overdue())
    }

    /// Numbers of the events that are on disk only.
    fn on_disk(&self) -> (u64, u64) {
        (self.first, self.events.front().map_or(self.next, |(number, _)| *number))
    }

    /// Counts `event` in an existing row, if it repeats the last one, or if the rows of its [`Source`](super::kind::Source)
    /// have used their share of the last `window` rows. Returns the row's number, and whether its level changed.
    fn again(&mut self, event: &Event, window: Option<usize>) -> Option<(u64, bool)> {
        let repeated = self.events.back().is_some_and(|(_, last)| last.repeats_as(event));
        let crowded = || {
            let (source, window) = (event.step.row().source?, window?);
            let recent = self.events.iter().rev().take(window);
            let same = recent.filter(|(_, row)| row.step.row().source == Some(source)).count();
            (same >= source.share(window)).then_some(())?;
            self.events.iter().rposition(|(_, row)| row.step == event.step)
        };
        let index = if repeated { self.events.len() - 1 } else { crowded()? };
        let (number, row) = self.events.get_mut(index)?;
        let other_level = std::mem::replace(&mut row.level, event.level) != event.level;
        row.detail.clone_from(&event.detail);
        row.count = row.count.saturating_add(event.count);
        row.last = Some(event.latest());
        row.took_ms = event.took_ms.or(row.took_ms);
        Some((*number, other_level))
    }

    /// Writes the rows whose counts are not on disk yet.
    fn write_again(&mut self, subject: &Subject, batch: Batch) -> Batch {
        let rows = self.events.iter().filter(|(number, _)| self.unwritten.contains(number));
        let last = self.next.saturating_sub(1);
        let batch = rows.fold(batch, |batch, (number, row)| {
            rows::put_again(batch, subject, (*number, row), last, (&self.standing, &self.retries))
        });
        self.unwritten.clear();
        batch
    }

    /// Forgets the oldest events beyond `kept`.
    fn shorten(&mut self, subject: &Subject, kept: usize, mut batch: Batch) -> Batch {
        while self.next - self.first > kept as u64 {
            batch = rows::delete(batch, subject, self.first);
            if self.events.front().is_some_and(|(number, _)| *number == self.first) {
                self.events.pop_front();
            }
            self.first += 1;
        }
        batch
    }
}

impl Recorder {
    /// Loads the ends of all timelines from the store; earlier events stay on disk until they are needed. `now` is the time
    /// from which heartbeats can be expected.
    pub fn load(store: Store, limits: Limits, now: Timestamp) -> Result<Recorder, StoreError> {
        let mut state = State {
            limits,
            pace: store.get(Table::Meta, PACE)?.unwrap_or_default(),
            latest: Timestamp(u64::MAX),
            lines: HashMap::new(),
            overdue_turns: 0,
            machines: MachineOrder::default(),
        };
        let alive: Option<Timestamp> = store.get(Table::Meta, ALIVE)?;
        let mut machines: Vec<(Timestamp, HwAddr)> = Vec::new();
        let (tails, mut gone) = rows::tails(&store)?;
        for tail in tails {
            if let (Subject::Machine(hwaddr), Some(began)) = (&tail.subject, tail.began) {
                machines.push((began.at, *hwaddr));
            }
            let last = tail.events.last();
            let line = Line {
                first: tail.first,
                next: last.map_or(tail.first, |(number, _)| number + 1),
                standing: match alive {
                    Some(alive) => {
                        let mut standing = tail.standing;
                        standing.was_alive(alive);
                        standing
                    }
                    None => tail.standing,
                },
                retries: tail.retries,
                written: last.map(|(_, event)| event.latest()).unwrap_or_default(),
                unwritten: BTreeSet::new(),
                events: tail.events.into(),
            };
            state.lines.insert(tail.subject, line);
        }
        state.machines = MachineOrder::load(&store, machines)?;
        gone = state.shrink(gone);
        if !gone.is_empty() {
            store.queue(gone);
        }
        Ok(Recorder {
            shared: Arc::new(Shared {
                store,
                listening: AtomicU64::new(now.0),
                state: Mutex::new(state),
                overdue: watch::Sender::new(0),
                recorded: AtomicU64::new(0),
            }),
        })
    }

    /// Adds `event` to the timeline of `subject`. Never waits for the disk: the event is written later.
    ///
    /// A repetition only raises the count of the last row. A heartbeat without news only changes the time at which the node
    /// was last heard of.
    pub fn record(&self, subject: Subject, mut event: Event) {
        event.bound();
        self.shared.recorded.fetch_add(1, Ordering::Relaxed);
        let (batch, turns) = {
            let mut state = self.lock();
            (state.add(subject, event), state.overdue_turns)
        };
        if !batch.is_empty() {
            self.shared.store.queue(batch);
        }
        self.tell_overdue(turns);
    }

    /// Records that an unknown machine accepted an address, which a forged sender cannot: its timeline is forgotten after those of machines
    /// that did not. Nothing changes if it has no timeline.
    pub fn confirm(&self, hwaddr: HwAddr) {
        self.lock().machines.confirm(hwaddr);
    }

    /// Two threads may arrive here in another order than that of their changes.
    fn tell_overdue(&self, turns: u64) {
        self.shared.overdue.send_if_modified(|known| {
            let news = *known < turns;
            *known = turns.max(*known);
            news
        });
    }

    /// Records a heartbeat of the node's system in `boot`. `trouble` says what is missing since it booted; empty if nothing.
    pub fn heartbeat(&self, subject: Subject, now: Timestamp, boot: &str, trouble: &str) {
        let level = if trouble.is_empty() { Level::Ok } else { Level::Degraded };
        self.record(
            subject,
            Event::new(now, EventKind::Heartbeat, level, trouble).of_boot(boot),
        );
    }

    /// Records that the system of `boot` runs, as the node proved by a secret: its firmware asked for no later boot. Records
    /// nothing if there is no later boot.
    pub fn record_running(&self, subject: &Subject, now: Timestamp, boot: &str) {
        let other = {
            let state = self.lock();
            let standing = state.lines.get(subject).map(|line| &line.standing);
            standing
                .filter(|standing| standing.left(boot))
                .map(|standing| standing.boot.clone())
        };
        if let Some(other) = other {
            let detail = format!("still runs; boot {other} was not asked for by its firmware");
            self.record(
                subject.clone(),
                Event::new(now, EventKind::Running, Level::Ok, detail).of_boot(boot),
            );
        }
    }

    /// The timeline of `subject`, oldest first. Reads events from before the start of the daemon from disk, in about a
    /// millisecond.
    pub fn of(&self, subject: &Subject) -> Vec<Event> {
        let (on_disk, events) = {
            let state = self.lock();
            let Some(line) = state.lines.get(subject) else {
                return Vec::new();
            };
            let events: Vec<Event> = line.events.iter().map(|(_, event)| event.clone()).collect();
            (line.on_disk(), events)
        };
        self.with_older(subject, on_disk, events)
    }

    fn with_older(&self, subject: &Subject, (from, until): (u64, u64), events: Vec<Event>) -> Vec<Event> {
        if from == until {
            return events;
        }
        match rows::between(&self.shared.store, subject, from, until) {
            Ok(older) => older.into_iter().chain(events).collect(),
            Err(error) => {
                tracing::error!("the beginning of the timeline of {subject} cannot be read: {error}");
                events
            }
        }
    }

    /// Handles a clock that was set back: no node was heard of after `now`. Cheap otherwise.
    pub fn settle(&self, now: Timestamp) {
        let mut state = self.lock();
        self.shared.listening.fetch_min(now.0, Ordering::Relaxed);
        if now.0.saturating_add(CORRECTION_MS) < state.latest.0 {
            state.lines.values_mut().for_each(|line| {
                line.standing.settle(now);
                line.written = line.written.min(now);
            });
        }
        state.latest = now;
    }

    /// Where `subject` is at `now`: lost or stalled also before [`Recorder::record_overdue`] has recorded it. `heartbeats`
    /// returns the seconds between two heartbeats of a boot. None if the subject was never heard of.
    pub(crate) fn standing_at(
        &self,
        subject: &Subject,
        now: Timestamp,
        heartbeats: impl Fn(&str) -> u32,
    ) -> Option<Standing> {
        // Called without the lock: boots have their own lock, which is taken first.
        let boot = self.lock().lines.get(subject)?.standing.boot.clone();
        let heartbeat_secs = heartbeats(&boot);
        let listening = Timestamp(self.shared.listening.load(Ordering::Relaxed));
        let state = self.lock();
        let mut standing = state.lines.get(subject)?.standing.clone();
        if let Some(event) = standing.overdue(now, listening, heartbeat_secs, &state.pace) {
            standing.apply(&event);
        }
        Some(standing)
    }

    /// Where `subject` is by its recorded events; none if it was never heard of.
    pub fn standing(&self, subject: &Subject) -> Option<Standing> {
        self.lock().lines.get(subject).map(|line| line.standing.clone())
    }

    /// The retries of `subject`; empty if nothing failed.
    pub fn retries(&self, subject: &Subject) -> Retries {
        let state = self.lock();
        state
            .lines
            .get(subject)
            .map(|line| line.retries.clone())
            .unwrap_or_default()
    }

    /// The last event of `subject`; none if it was never heard of.
    pub fn last(&self, subject: &Subject) -> Option<Event> {
        let state = self.lock();
        state.lines.get(subject)?.events.back().map(|(_, event)| event.clone())
    }

    /// Events of `subject` that are in memory.
    #[cfg(test)]
    pub(super) fn in_memory(&self, subject: &Subject) -> usize {
        self.lock().lines.get(subject).map_or(0, |line| line.events.len())
    }

    /// The unknown machines that have timelines, in the order in which they were first heard of.
    #[cfg(test)]
    pub(super) fn machines(&self) -> Vec<HwAddr> {
        self.lock().machines.all()
    }

    /// Records which nodes are lost or stalled at `now`. These facts are events, so that they survive a restart of the
    /// daemon. `heartbeats` returns the seconds between two heartbeats of a boot.
    pub fn record_overdue(&self, now: Timestamp, heartbeats: impl Fn(&str) -> u32) {
        self.settle(now);
        // Called without the lock, as in `standing_at`.
        let up: Vec<String> = {
            let state = self.lock();
            let up = state.lines.values().filter(|line| line.standing.state.is_up());
            up.map(|line| line.standing.boot.clone()).collect()
        };
        let periods: HashMap<String, u32> = up
            .into_iter()
            .map(|boot| {
                let secs = heartbeats(&boot);
                (boot, secs)
            })
            .collect();
        let listening = Timestamp(self.shared.listening.load(Ordering::Relaxed));
        let overdue: Vec<(Subject, Event)> = {
            let state = self.lock();
            let nodes = state
                .lines
                .iter()
                .filter(|(subject, _)| matches!(subject, Subject::Node(_)));
            nodes
                .filter_map(|(subject, line)| {
                    let standing = &line.standing;
                    // A node that came up in this moment is looked at the next time.
                    let secs = periods.get(&standing.boot).copied().unwrap_or(u32::MAX);
                    let event = standing.overdue(now, listening, secs, &state.pace)?;
                    Some((subject.clone(), event))
                })
                .collect()
        };
        for (subject, event) in overdue {
            tracing::warn!("{subject} is {}: {}", event.step, event.detail);
            self.record(subject, event);
        }
    }

    /// When a daemon was last known to run, as [`Recorder::record_alive`] wrote it.
    ///
    /// # Errors
    /// An error of the store.
    pub(crate) fn last_alive(&self) -> Result<Option<Timestamp>, StoreError> {
        self.shared.store.get(Table::Meta, ALIVE)
    }

    /// Records that this daemon runs at `now`, and how long stages of boots take at this site. The write is not waited for.
    pub(crate) fn record_alive(&self, now: Timestamp) {
        let pace = self.lock().pace.clone();
        let batch = Batch::new().put(Table::Meta, ALIVE, &now).put(Table::Meta, PACE, &pace);
        self.shared.store.queue(batch);
    }

    /// Records that this daemon heard nothing from `from` until `now`, on the timelines of nodes that were up or booting, and
    /// gives them time to be heard of again. Records nothing if that was less than 20 s.
    pub(crate) fn record_absence(&self, from: Timestamp, now: Timestamp) {
        let away = now.since(from);
        if away < AWAY_MS {
            return;
        }
        self.shared.listening.fetch_max(now.0, Ordering::Relaxed);
        let stood: Vec<Subject> = {
            let state = self.lock();
            let nodes = state.lines.iter().filter(|(subject, line)| {
                matches!(subject, Subject::Node(_))
                    && (line.standing.state.has_root() || line.standing.state == NodeState::Loading)
            });
            nodes.map(|(subject, _)| subject.clone()).collect()
        };
        let detail = format!(
            "the server was down for {}; the node's reads from its root waited",
            duration(away)
        );
        for subject in stood {
            self.record(
                subject,
                Event::new(now, EventKind::Server, Level::Ok, detail.clone()).took(away),
            );
        }
    }

    /// Events recorded since the start, repetitions included.
    pub fn recorded(&self) -> u64 {
        self.shared.recorded.load(Ordering::Relaxed)
    }

    /// A counter that changes when a node becomes lost or stalled, or recovers.
    pub fn watch_overdue(&self) -> watch::Receiver<u64> {
        self.shared.overdue.subscribe()
    }

    /// Applies the limits of a site file that was read again.
    pub fn set_limits(&self, limits: Limits) {
        let batch = {
            let mut state = self.lock();
            state.limits = limits;
            state.shrink(Batch::new())
        };
        if !batch.is_empty() {
            self.shared.store.queue(batch);
        }
    }

    /// Moves timelines to other subjects, all at the same moment, so that two nodes can exchange their names: of a machine
    /// that became a node, and of a node that was renamed. Without a new subject, the timeline is deleted, as for a deleted
    /// node. No subject may be moved twice.
    pub(crate) fn move_all(&self, moves: &[(Subject, Option<Subject>)]) {
        // Read without the lock: events that are on disk only change in one way, by deletion of the oldest.
        let older: Vec<Vec<Event>> = moves
            .iter()
            .map(|(from, to)| {
                let on_disk = self.lock().lines.get(from).map(Line::on_disk);
                let on_disk = on_disk.filter(|_| to.is_some());
                on_disk.map_or_else(Vec::new, |on_disk| self.with_older(from, on_disk, Vec::new()))
            })
            .collect();
        let (batch, turns) = {
            let mut state = self.lock();
            (state.move_all(moves, older), state.overdue_turns)
        };
        if !batch.is_empty() {
            self.shared.store.queue(batch);
        }
        self.tell_overdue(turns);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

impl State {
    /// Adds an event; returns what has to be written.
    fn add(&mut self, subject: Subject, event: Event) -> Batch {
        let window = self.limits.timeline_events.clamp(1, WINDOW);
        self.insert(&subject, event, Some(window))
    }

    /// Without `window`, each event that does not repeat the last one gets its own row.
    fn insert(&mut self, subject: &Subject, event: Event, window: Option<usize>) -> Batch {
        let overdue = |state: &State| state.lines.get(subject).and_then(Line::overdue);
        let before = overdue(self);
        let batch = self.insert_row(subject, event, window);
        if overdue(self) != before {
            self.overdue_turns += 1;
        }
        batch
    }

    fn insert_row(&mut self, subject: &Subject, mut event: Event, window: Option<usize>) -> Batch {
        let mut batch = Batch::new();
        if let Subject::Machine(hwaddr) = subject
            && !self.lines.contains_key(subject)
        {
            self.machines.add(*hwaddr, false);
            batch = self.drop_machines(Some(*hwaddr), batch);
        }
        let kept = self.limits.timeline_events.max(1);
        let line = self.lines.entry(subject.clone()).or_default();
        if event.step == EventKind::Heartbeat {
            let trouble = if event.level == Level::Ok { "" } else { &event.detail };
            if line.standing.expects(&event.boot, trouble) {
                line.standing.heartbeat(event.latest());
                return batch;
            }
            if line.standing.state == NodeState::Lost && event.detail.is_empty() {
                let silent = event.at.since(line.standing.since);
                event.detail = format!("heartbeats again after {}", duration(silent));
            }
        }
        if window.is_some()
            && let Some(silent) = line.standing.silent_kernel(&event)
        {
            batch = batch.and(self.insert_row(subject, silent, window));
        }
        let line = self.lines.entry(subject.clone()).or_default();
        line.retries.count(&event);
        if let Some((number, other_level)) = line.again(&event, window) {
            let before = line.standing.clone();
            if let Some((stage, millis)) = line.standing.apply(&event) {
                self.pace.record(stage, millis);
            }
            line.unwritten.insert(number);
            let news = other_level || !before.says_the_same_as(&line.standing);
            if news || event.latest().since(line.written) >= REPEAT_WRITE_MS {
                line.written = event.latest();
                batch = line.write_again(subject, batch);
            }
            return batch;
        }
        batch = line.write_again(subject, batch);
        if let Some((stage, millis)) = line.standing.apply(&event) {
            self.pace.record(stage, millis);
        }
        line.written = event.latest();
        batch = rows::put(batch, subject, line.next, &event, (&line.standing, &line.retries));
        line.events.push_back((line.next, event));
        line.next += 1;
        line.shorten(subject, kept, batch)
    }

    /// Deletes what exceeds the limits.
    fn shrink(&mut self, mut batch: Batch) -> Batch {
        batch = self.drop_machines(None, batch);
        let kept = self.limits.timeline_events.max(1);
        for (subject, line) in &mut self.lines {
            batch = line.shorten(subject, kept, batch);
        }
        batch
    }

    /// Deletes the timelines of machines beyond the limit, and not that of `kept`.
    fn drop_machines(&mut self, kept: Option<HwAddr>, mut batch: Batch) -> Batch {
        while let Some(oldest) = self.machines.pop_beyond(self.limits.unknown_machines, kept) {
            batch = self.drop_line(&Subject::Machine(oldest), batch);
        }
        batch
    }

    fn forget(&mut self, subject: &Subject, batch: Batch) -> Batch {
        if let Subject::Machine(hwaddr) = subject {
            self.machines.remove(*hwaddr);
        }
        self.drop_line(subject, batch)
    }

    /// `older` are the events of each moved timeline that are on disk only. All timelines are removed before the first one is
    /// inserted at its new place.
    fn move_all(&mut self, moves: &[(Subject, Option<Subject>)], older: Vec<Vec<Event>>) -> Batch {
        let mut batch = Batch::new();
        let mut taken: Vec<(&Subject, Vec<Event>, Retries)> = Vec::new();
        for ((from, to), mut events) in moves.iter().zip(older) {
            let line = self.lines.get(from);
            let line = line.map(|line| (line.events.clone(), line.retries.clone()));
            let (recent, retries) = line.unwrap_or_default();
            batch = self.forget(from, batch);
            events.extend(recent.into_iter().map(|(_, event)| event));
            if let Some(to) = to {
                taken.push((to, events, retries));
            }
        }
        for (to, events, retries) in taken {
            batch = events
                .into_iter()
                .fold(batch, |batch, event| batch.and(self.insert(to, event, None)));
            // They include those of events that are forgotten.
            if let Some(line) = self.lines.get_mut(to) {
                line.retries = retries;
            }
        }
        batch
    }

    fn drop_line(&mut self, subject: &Subject, batch: Batch) -> Batch {
        let line = self.lines.remove(subject).unwrap_or_default();
        rows::drop_all(batch, subject, line.first, line.next)
    }
}
