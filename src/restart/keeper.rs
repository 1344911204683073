//! All requests: in memory for heartbeats, on disk before anything follows from them.

use super::{
    request::{End, Kind, Member, Note, Programs, Request, Seen, Step},
    rows::{differences, forget, row, whole},
};
use crate::{
    boots::{Boot, Boots},
    decide::SharedWorld,
    inventory::find,
    timeline::{Event, EventKind, Level, NodeStatus, Recorder, Subject},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::NodeSet;
use rackstrap_store::{Batch, Store, StoreError, Table};
use rackstrap_wire::{Restart, RestartNote};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use thiserror::Error;
use tokio::sync::Notify;

/// Requests that are not over, at most.
const MOST_OPEN: usize = 64;
/// Requests that are over and still shown.
const MOST_OVER: usize = 8;
/// Bytes of a reason: it is a variable of a program, and on timelines.
const REASON: usize = 200;

/// Requests for restarts; clones share them.
#[derive(Clone)]
pub struct Restarts {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    world: SharedWorld,
    boots: Boots,
    recorder: Recorder,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// The oldest first.
    requests: Vec<Request>,
    /// Nodes for which a program runs.
    busy: HashSet<String>,
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The nodes, in the order in which they are to have their turns.
    pub nodes: Vec<String>,
    /// Why, for the drain program, the node and its timeline.
    pub reason: String,
    /// How many of them may be out of service at once.
    pub max_down: u32,
    /// Run the site's `drain` and `resume`.
    pub drain: bool,
    /// Seconds within which a node has to be ready again.
    pub within_secs: u32,
    /// Who wants it: a request of the command line is signed by the daemon.
    #[serde(skip)]
    pub by: String,
    /// The image whose rollout wants it; empty if a person does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout: String,
}

/// What becomes of a [`Want`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The request's id; empty if it has no nodes, or would be made only.
    pub id: String,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// Those that another request restarts already.
    pub already: Vec<String>,
    /// Those of `nodes` that are not up: they are restarted only if they were up all the time and could not be heard.
    pub not_up: Vec<String>,
    /// True if the site's drain program is run before.
    pub drained: bool,
}

/// What becomes of a cancellation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Nodes that are not restarted.
    pub cancelled: Vec<String>,
    /// Those that were told already.
    pub told: Vec<String>,
    /// Those that no request restarts.
    pub none: Vec<String>,
}

/// What becomes of restarts that a rollout wanted, and wants no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Nodes that are not restarted; what was drained of them is resumed.
    pub cancelled: Vec<String>,
    /// Those that were told already, and are on their way.
    pub told: Vec<String>,
}

/// Why nothing is restarted.
#[derive(Debug, Error)]
pub enum RestartError {
    /// It makes no sense.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Work for the task.
pub(super) struct Job {
    pub request: String,
    pub kind: Kind,
    pub nodes: Vec<String>,
    pub reason: String,
}

impl Restarts {
    /// Loads all requests.
    ///
    /// # Errors
    /// Those of the store.
    pub fn load(store: Store, world: SharedWorld, boots: Boots, recorder: Recorder) -> Result<Self, StoreError> {
        let mut requests: BTreeMap<String, Request> = BTreeMap::new();
        let mut members: Vec<(String, u64, Member)> = Vec::new();
        for (key, value) in store.scan::<serde_json::Value>(Table::Restarts, b"")? {
            let broken = |error: String| StoreError::Value {
                table: Table::Restarts.name(),
                key: String::from_utf8_lossy(&key).into_owned(),
                error,
            };
            let text = std::str::from_utf8(&key).map_err(|e| broken(e.to_string()))?;
            match text.split_once('/') {
                None => {
                    let request: Request = serde_json::from_value(value).map_err(|e| broken(e.to_string()))?;
                    requests.insert(text.to_owned(), request);
                }
                Some((id, number)) => {
                    let member = serde_json::from_value(value).map_err(|e| broken(e.to_string()))?;
                    let number = number.parse().map_err(|_| broken("not a number".to_owned()))?;
                    members.push((id.to_owned(), number, member));
                }
            }
        }
        members.sort_by_key(|(_, number, _)| *number);
        for (id, _, member) in members {
            if let Some(request) = requests.get_mut(&id) {
                request.nodes.push(member);
            }
        }
        let mut requests: Vec<Request> = requests.into_values().collect();
        requests.sort_by_key(|request| request.wanted);
        boots.count_from(requests.iter().filter_map(|request| request.after).max());
        Ok(Restarts {
            shared: Arc::new(Shared {
                store,
                world,
                boots,
                recorder,
                state: Mutex::new(State {
                    requests,
                    busy: HashSet::new(),
                }),
                wake: Notify::new(),
            }),
        })
    }

    /// Wants nodes restarted; on disk when it returns. Nodes that another request is about stay with that one, unless they have
    /// restarted for it and are not well: those are taken over, as they are, drained. (Not by who drains nobody: he would not
    /// resume them either.)
    ///
    /// # Errors
    /// There is no such node, a number or the reason is out of bounds, or the store failed.
    pub fn want(&self, want: &Want, now: Timestamp, dry_run: bool) -> Result<Wanted, RestartError> {
        let refused = |text: String| Err(RestartError::Refused(text));
        let world = self.shared.world.load_full();
        for name in &want.nodes {
            find(&world.inventory, name).map_err(|error| RestartError::Refused(error.to_string()))?;
        }
        if want.max_down == 0 {
            return refused("with no node down nothing is restarted; write --max-down 1 or more".to_owned());
        }
        if !(10..=86_400).contains(&want.within_secs) {
            return refused(format!(
                "a node has 10 s to 24 h to be ready again, and not {} s",
                want.within_secs
            ));
        }
        if want.reason.len() > REASON || want.reason.chars().any(char::is_control) {
            return refused(format!("a reason is one line of at most {REASON} bytes"));
        }
        let mut names: Vec<String> = Vec::new();
        let mut known = HashSet::new();
        names.extend(want.nodes.iter().filter(|name| known.insert(name.as_str())).cloned());
        let mut state = self.lock();
        let taken: HashMap<String, bool> = state
            .requests
            .iter()
            .flat_map(|request| request.nodes.iter().map(move |node| (request, node)))
            .filter(|(_, node)| known.contains(node.name.as_str()) && !matches!(node.step, Step::Ended { .. }))
            .map(|(request, node)| {
                let seen = self.see(&node.name, now);
                (
                    node.name.clone(),
                    seen.is_some_and(|seen| (want.drain || !request.drain) && request.is_back_unwell(node, &seen)),
                )
            })
            .collect();
        let (already, nodes): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|name| taken.get(name) == Some(&false));
        // A rollout makes one a node, and has its own limit on how many are down.
        let open = state.requests.iter().filter(|request| !request.is_over());
        let by_people = open.filter(|request| request.rollout.is_empty()).count();
        if want.rollout.is_empty() && by_people >= MOST_OPEN && !nodes.is_empty() {
            return refused(format!(
                "{MOST_OPEN} requests are not over yet; see rackstrap node restart --list, and --cancel what is not needed"
            ));
        }
        let not_up = nodes
            .iter()
            .filter(|name| !self.see(name, now).is_some_and(|seen| seen.up));
        let mut wanted = Wanted {
            id: String::new(),
            not_up: not_up.cloned().collect(),
            nodes,
            already,
            drained: want.drain && !world.site.hooks.drain.is_empty(),
        };
        if dry_run || wanted.nodes.is_empty() {
            return Ok(wanted);
        }
        let mut request = Request {
            id: hex::encode(rand::random::<[u8; 8]>()),
            wanted: now,
            after: Some(self.shared.boots.sequence()),
            by: want.by.clone(),
            rollout: want.rollout.clone(),
            reason: want.reason.clone(),
            max_down: want.max_down,
            drain: want.drain,
            within_secs: want.within_secs,
            stopped: String::new(),
            nodes: wanted.nodes.iter().map(|name| Member::waiting(name, now)).collect(),
        };
        wanted.id.clone_from(&request.id);
        let mut batch = Batch::new();
        let mut before = Vec::new();
        for (index, name) in wanted.nodes.iter().enumerate() {
            if let Some((older, place)) = state.open(name) {
                before.push((name.clone(), older.id.clone(), older.nodes[place].clone()));
                older.hand_over(place, &mut request.nodes[index], now);
                batch = row(batch, older, place);
            }
        }
        // With the lock held, so that nobody else takes the same nodes; commands are few.
        if let Err(error) = self.shared.store.commit_blocking(batch.and(whole(&request))) {
            for (name, id, member) in before {
                let older = state.requests.iter_mut().find(|request| request.id == id);
                let place = older.and_then(|older| older.nodes.iter_mut().find(|node| node.name == name));
                if let Some(place) = place {
                    *place = member;
                }
            }
            return Err(error.into());
        }
        state.requests.push(request);
        drop(state);
        self.shared.wake.notify_one();
        tracing::info!(
            "restart of {} wanted by {}: {}",
            wanted.nodes.iter().map(String::as_str).collect::<NodeSet>().fold(),
            want.by,
            want.reason
        );
        Ok(wanted)
    }

    /// Does not restart nodes, where they were not told yet; on disk when it returns. What was drained is resumed. A node that is
    /// late is no longer waited for.
    ///
    /// # Errors
    /// Those of the store.
    pub fn cancel(&self, nodes: &[String], by: &str, now: Timestamp) -> Result<Cancelled, StoreError> {
        let programs = self.programs();
        let why = format!("cancelled by {by}");
        let mut notes = Vec::new();
        let mut cancelled = Cancelled::default();
        let mut batch = Batch::new();
        {
            let mut state = self.lock();
            for name in nodes {
                let Some((request, index)) = state.open(name) else {
                    cancelled.none.push(name.clone());
                    continue;
                };
                if matches!(request.nodes[index].step, Step::Late { .. }) {
                    request.nodes[index].step = Step::Ended { how: End::GivenUp };
                    cancelled.cancelled.push(name.clone());
                } else if request.give_up(|other| other == name, &why, now, programs, &mut notes) {
                    cancelled.cancelled.push(name.clone());
                } else {
                    cancelled.told.push(name.clone());
                }
                batch = row(batch, request, index);
            }
        }
        self.shared.store.commit_blocking(batch)?;
        for note in &notes {
            self.say(note, now);
        }
        self.shared.wake.notify_one();
        Ok(cancelled)
    }

    /// Does not restart nodes that the rollout of `image` wanted restarted, where they were not told yet and `wanted` is not true of
    /// them (any more); of all its nodes, or of `node` only. What was drained is resumed. On disk when it returns.
    ///
    /// # Errors
    /// Those of the store; also then nobody is restarted until the daemon is.
    pub fn withdraw(
        &self,
        image: &str,
        node: Option<&str>,
        wanted: impl Fn(&str) -> bool,
        why: &str,
        now: Timestamp,
    ) -> Result<Withdrawn, StoreError> {
        let programs = self.programs();
        let mut notes = Vec::new();
        let mut withdrawn = Withdrawn::default();
        let mut batch = Batch::new();
        {
            let mut state = self.lock();
            for request in state.requests.iter_mut().filter(|request| request.rollout == image) {
                for index in 0..request.nodes.len() {
                    let member = &request.nodes[index];
                    let name = member.name.clone();
                    if node.is_some_and(|node| node != name) {
                        continue;
                    }
                    if matches!(member.step, Step::Told { .. }) {
                        withdrawn.told.push(name);
                    } else if member.step.is_untold()
                        && !wanted(&name)
                        && request.give_up(|other| other == name, why, now, programs, &mut notes)
                    {
                        withdrawn.cancelled.push(name);
                        batch = row(batch, request, index);
                    }
                }
            }
        }
        withdrawn.cancelled.sort();
        withdrawn.told.sort();
        if batch.is_empty() {
            return Ok(withdrawn);
        }
        for note in &notes {
            self.say(note, now);
        }
        self.shared.wake.notify_one();
        self.shared.store.commit_blocking(batch)?;
        Ok(withdrawn)
    }

    /// The image whose rollout wants `node` restarted, which was not told yet.
    pub fn awaited_by_rollout(&self, node: &str) -> Option<String> {
        let mut state = self.lock();
        let (request, index) = state.open(node)?;
        (!request.rollout.is_empty() && request.nodes[index].step.is_untold()).then(|| request.rollout.clone())
    }

    /// All requests, the oldest first; those that are over for a while.
    pub fn list(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// The order for a node whose heartbeat of `boot`, with that boot's token, has just come; on disk before it is given.
    pub async fn order(&self, boot: &Boot, now: Timestamp) -> Option<Restart> {
        let name = &boot.plan.node;
        let (order, before, batch) = {
            let mut state = self.lock();
            let (request, index) = state.open(name)?;
            let seen = self.see(name, now)?;
            // A token of a boot that is over is worth nothing here.
            if seen.boot != boot.plan.id {
                return None;
            }
            let before = request.nodes[index].clone();
            if !request.tell(name, &seen, now) {
                return None;
            }
            let order = Restart {
                id: request.id.clone(),
                reason: request.reason.clone(),
            };
            (order, before, row(Batch::new(), request, index))
        };
        if let Err(error) = self.shared.store.commit(batch).await {
            tracing::error!("{name} is not told to restart: {error}");
            if let Some((request, index)) = self.lock().open(name) {
                request.nodes[index] = before;
            }
            return None;
        }
        self.say(
            &Note {
                node: name.clone(),
                level: Level::Ok,
                text: format!("told to restart: {}", order.reason),
            },
            now,
        );
        Some(order)
    }

    /// The node in `boot` says what it does about its order.
    pub fn noted(&self, boot: &Boot, note: &RestartNote, now: Timestamp) {
        let name = &boot.plan.node;
        let batch = {
            let mut state = self.lock();
            let Some((request, index)) = state.open(name).filter(|(request, _)| request.id == note.id) else {
                return;
            };
            match request.noted(name, &boot.plan.id) {
                true => row(Batch::new(), request, index),
                false => Batch::new(),
            }
        };
        if !batch.is_empty() {
            // Should this be lost, the node is told once more in the same boot, and does nothing about it.
            self.shared.store.queue(batch);
        }
        let note = Note {
            node: name.clone(),
            level: Level::Ok,
            text: note.detail.clone(),
        };
        self.say(&note, now);
    }

    /// Goes on with all requests: what to write, and which programs to run. Their nodes are busy until [`Restarts::ran`].
    pub(super) fn advance(&self, now: Timestamp) -> (Batch, Vec<Job>) {
        let programs = self.programs();
        let mut batch = Batch::new();
        let mut jobs = Vec::new();
        let mut notes = Vec::new();
        {
            let mut state = self.lock();
            let State { requests, busy } = &mut *state;
            for request in requests.iter_mut().filter(|request| !request.is_over()) {
                let before = request.clone();
                notes.extend(request.advance(now, programs, |name| self.see(name, now)));
                batch = batch.and(differences(&before, request));
                for (kind, nodes) in request.due(now, |name| busy.contains(name)) {
                    busy.extend(nodes.iter().cloned());
                    jobs.push(Job {
                        request: request.id.clone(),
                        kind,
                        nodes,
                        reason: request.reason.clone(),
                    });
                }
            }
            let over = requests.iter().filter(|request| request.is_over()).count();
            let mut surplus = over.saturating_sub(MOST_OVER);
            requests.retain(|request| {
                let goes = surplus > 0 && request.is_over();
                if goes {
                    surplus -= 1;
                    batch = forget(std::mem::take(&mut batch), request);
                }
                !goes
            });
        }
        for note in notes {
            self.say(&note, now);
        }
        (batch, jobs)
    }

    /// A program has ended; `again` says when it is run once more after so many failures.
    pub(super) fn ran(
        &self,
        job: &Job,
        outcome: &Result<(), String>,
        now: Timestamp,
        again: impl Fn(u32) -> Timestamp,
    ) -> Batch {
        let mut batch = Batch::new();
        let mut notes = Vec::new();
        {
            let mut state = self.lock();
            for name in &job.nodes {
                state.busy.remove(name);
                let Some(request) = state.requests.iter_mut().find(|request| request.id == job.request) else {
                    continue;
                };
                let Some(index) = request.nodes.iter().position(|node| node.name == *name) else {
                    continue;
                };
                let again = again(request.nodes[index].failures + 1);
                notes.extend(request.ran(job.kind, name, outcome, again, now));
                batch = row(batch, request, index);
            }
        }
        for note in notes {
            self.say(&note, now);
        }
        batch
    }

    /// True if there is anything to be done, now or later.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().requests.iter().any(|request| !request.is_over())
    }

    /// Waits until somebody wants something else.
    pub(super) async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    pub(super) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(super) fn world(&self) -> &SharedWorld {
        &self.shared.world
    }

    fn programs(&self) -> Programs {
        let world = self.shared.world.load();
        Programs {
            drain: !world.site.hooks.drain.is_empty(),
            resume: !world.site.hooks.resume.is_empty(),
            heartbeat_secs: world.site.limits.heartbeat_secs,
        }
    }

    fn see(&self, name: &str, now: Timestamp) -> Option<Seen> {
        let world = self.shared.world.load();
        world.inventory.get(name)?;
        let status = NodeStatus::of(&world, &self.shared.recorder, &self.shared.boots, name, now);
        let running = status.running.as_ref();
        Some(Seen {
            up: status.state.is_up(),
            boot: running.map(|boot| boot.plan.id.clone()).unwrap_or_default(),
            opened: running.map_or(Timestamp(0), |boot| boot.opened),
            sequence: running.map_or(0, |boot| boot.sequence),
            healthy: status.healthy,
            begun: status.begun().collect(),
        })
    }

    fn say(&self, note: &Note, now: Timestamp) {
        let event = Event::new(now, EventKind::Restart, note.level, note.text.clone());
        self.shared.recorder.record(Subject::Node(note.node.clone()), event);
        match note.level {
            Level::Ok => tracing::info!("restart of {}: {}", note.node, note.text),
            _ => tracing::warn!("restart of {}: {}", note.node, note.text),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The request that is about `name` and not over for it, and its place there.
    fn open(&mut self, name: &str) -> Option<(&mut Request, usize)> {
        self.requests.iter_mut().find_map(|request| {
            let found = request.nodes.iter();
            let index = found.enumerate().find_map(|(index, node)| {
                (node.name == name && !matches!(node.step, Step::Ended { .. })).then_some(index)
            })?;
            Some((request, index))
        })
    }
}
