//! The registry of requests: in memory for heartbeats, and on disk before anything follows from them.

use super::{
    actions::Agents,
    load,
    rows::{differences, forget, row, whole},
};
use crate::{
    boots::Boots,
    decide::SharedWorld,
    inventory::find,
    observed::Observer,
    timeline::{Event, EventKind, Level, Recorder, Subject},
};
use rackstrap_base::{clock::Timestamp, sync::lock};
use rackstrap_hostlist::NodeSet;
use rackstrap_lifecycle::{
    self as lifecycle, Action, Changed, Job, Note, Situation,
    restart::{Cause, End, Member, Programs, Request, Step},
    rollout::Rollout,
};
use rackstrap_store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};
use thiserror::Error;
use tokio::sync::Notify;

/// At most this many requests have not ended.
const MOST_OPEN: usize = 64;
/// At most this many ended requests are shown.
const MOST_OVER: usize = 8;
/// Limit of a reason in bytes: it is an environment variable of a program, and is shown on timelines.
const REASON: usize = 200;

/// The registry of requests for restarts; clones share it.
#[derive(Clone)]
pub struct Restarts {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) world: SharedWorld,
    boots: Boots,
    recorder: Recorder,
    pub(super) observer: Observer,
    pub(super) agents: Agents,
    state: Mutex<State>,
    /// Wakes the task that runs programs.
    pub(super) jobs: Notify,
    /// Wakes the planner.
    planner: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
pub(super) struct State {
    /// The oldest request first.
    pub(super) requests: Vec<Request>,
    /// Ids of requests that are not on disk yet. No action follows from them.
    unconfirmed: HashSet<String>,
    /// Nodes for which a program runs or is about to run.
    pub(super) busy: HashSet<String>,
    /// Programs that are about to run.
    pub(super) jobs: VecDeque<Job>,
    /// Whether a write has failed: the next write then contains all rows.
    pub(super) incomplete: bool,
}

/// The result of a plan for rollouts and for the store.
pub struct Advance {
    /// Rollouts that have changed.
    pub rollouts: Vec<Changed>,
    /// Changed rows of requests.
    pub batch: Batch,
    /// What to do after the batch is on disk.
    pub actions: Vec<Action>,
}

/// A request for restarts, as a command or a rollout makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The nodes, in the order of their turns.
    pub nodes: Vec<String>,
    /// The reason, for the drain program, the node and its timeline.
    pub reason: String,
    /// How many of them may be out of service at the same time.
    pub max_down: u32,
    /// Whether the site's `drain` and `resume` programs are run.
    pub drain: bool,
    /// Seconds within which a node must be ready again.
    pub within_secs: u32,
    /// The user who requests it. For requests of the command line, the daemon fills it in.
    #[serde(skip)]
    pub by: String,
}

/// The result of a [`Want`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Id of the request; empty if it has no nodes, or after a dry run.
    pub id: String,
    /// The nodes of the request.
    pub nodes: Vec<String>,
    /// Nodes that another request restarts already.
    pub already: Vec<String>,
    /// Nodes of `nodes` that are not up. They restart only if they were up all the time and could not be heard.
    pub not_up: Vec<String>,
    /// Whether the site's drain program is run first.
    pub drained: bool,
}

/// The result of a cancellation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Nodes whose restart was cancelled.
    pub cancelled: Vec<String>,
    /// Nodes that have received the order already.
    pub told: Vec<String>,
    /// Nodes without a request.
    pub none: Vec<String>,
}

/// What happens to the restarts of a rollout that is paused or has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Nodes whose restart was cancelled. Nodes that were drained are resumed.
    pub cancelled: Vec<String>,
    /// Nodes that have received the order already, and restart.
    pub told: Vec<String>,
}

impl Withdrawn {
    /// What happened to the restarts for rollouts of `image` between two lists of requests.
    pub fn between(image: &str, before: &[Request], after: &[Request]) -> Withdrawn {
        type Key = (String, String);
        let members = |requests: &[Request]| -> BTreeMap<Key, Step> {
            let ours = requests.iter().filter(|request| request.rollout == image);
            let members = ours.flat_map(|request| request.nodes.iter().map(|node| (request.id.clone(), node)));
            members
                .map(|(id, node)| ((node.name.clone(), id), node.step.clone()))
                .collect()
        };
        let (before, after) = (members(before), members(after));
        let is_cancelled = |step: &Step| {
            matches!(
                step,
                Step::Ended { how: End::GivenUp } | Step::Resuming { then: End::GivenUp }
            )
        };
        // Sorted by name.
        let names = |fits: &dyn Fn(&Key, &Step) -> bool| -> Vec<String> {
            let fitting = after.iter().filter(|(key, step)| fits(key, step));
            fitting.map(|((name, _), _)| name.clone()).collect()
        };
        let was_untold = |key: &Key| before.get(key).is_some_and(Step::is_untold);
        Withdrawn {
            cancelled: names(&|key, step| was_untold(key) && is_cancelled(step)),
            told: names(&|_, step| matches!(step, Step::Told { .. })),
        }
    }
}

/// Why a request was refused or failed.
#[derive(Debug, Error)]
pub enum RestartError {
    /// The request makes no sense; the text says why.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Restarts {
    /// Loads all requests.
    ///
    /// # Errors
    /// An error of the store.
    pub fn load(store: Store, world: SharedWorld, boots: Boots, recorder: Recorder) -> Result<Self, StoreError> {
        let requests = load::load(&store, &boots)?;
        let after = requests
            .iter()
            .flat_map(|request| request.nodes.iter().map(|node| node.after.or(request.after)));
        boots.count_from(after.flatten().max());
        Ok(Restarts {
            shared: Arc::new(Shared {
                observer: Observer::new(world.clone(), boots.clone(), recorder.clone()),
                store,
                world,
                boots,
                recorder,
                agents: Agents::default(),
                state: Mutex::new(State {
                    requests,
                    ..State::default()
                }),
                jobs: Notify::new(),
                planner: OnceLock::new(),
            }),
        })
    }

    /// Registers `wake`, which makes the planner run soon. It is called after each change that the planner does not know of.
    pub fn planned_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A second planner would be a defect of the program; the first one stays.
        let _ = self.shared.planner.set(Box::new(wake));
    }

    pub(super) fn wake_planner(&self) {
        if let Some(wake) = self.shared.planner.get() {
            wake();
        }
    }

    /// Requests that nodes restart; on disk when it returns. Nodes that belong to another request stay with it, unless they
    /// have restarted for it and are not healthy: such nodes are taken over in their drained state. A request without
    /// draining takes no nodes over, because it would not resume them.
    ///
    /// # Errors
    /// A node does not exist, a number or the reason is out of bounds, or the store failed.
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
            .filter(|(_, node)| known.contains(node.name.as_str()) && !node.step.is_over())
            .map(|(request, node)| {
                let observed = self.shared.observer.observe(&node.name, now);
                let unwell = observed.is_some_and(|observed| request.is_back_unwell(node, &observed));
                (node.name.clone(), (want.drain || !request.drain) && unwell)
            })
            .collect();
        let (already, nodes): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|name| taken.get(name) == Some(&false));
        let open = state.requests.iter().filter(|request| !request.is_over());
        if open.filter(|request| !request.is_of_rollout()).count() >= MOST_OPEN && !nodes.is_empty() {
            return refused(format!(
                "{MOST_OPEN} requests are not over yet; see rackstrap node restart --list, and --cancel what is not needed"
            ));
        }
        let not_up = nodes
            .iter()
            .filter(|name| !(self.shared.observer.observe(name, now)).is_some_and(|observed| observed.up));
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
            rollout: String::new(),
            number: 0,
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
        batch = whole(batch, &request);
        // Its nodes belong to it from now on. The planner waits until it is on disk; heartbeats do not wait.
        state.unconfirmed.insert(request.id.clone());
        state.requests.push(request);
        drop(state);
        let written = self.shared.store.commit_blocking(batch);
        let mut state = self.lock();
        state.unconfirmed.remove(&wanted.id);
        if let Err(error) = written {
            state.requests.retain(|request| request.id != wanted.id);
            for (name, id, member) in before {
                let older = state.requests.iter_mut().find(|request| request.id == id);
                let place = older.and_then(|older| older.nodes.iter_mut().find(|node| node.name == name));
                if let Some(place) = place {
                    *place = member;
                }
            }
            return Err(error.into());
        }
        drop(state);
        self.wake_planner();
        tracing::info!(
            "restart of {} wanted by {}: {}",
            wanted.nodes.iter().map(String::as_str).collect::<NodeSet>().fold(),
            want.by,
            want.reason
        );
        Ok(wanted)
    }

    /// Cancels restarts that nodes have not received yet; on disk when it returns. Drained nodes are resumed. Nodes that are
    /// late are no longer waited for.
    ///
    /// # Errors
    /// An error of the store.
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
                let stays = request.nodes[index].go(Cause::NotAwaited, false, now)
                    || request.give_up(|other| other == name, &why, now, programs, &mut notes);
                let list = if stays {
                    &mut cancelled.cancelled
                } else {
                    &mut cancelled.told
                };
                list.push(name.clone());
                batch = row(batch, request, index);
            }
            // An earlier plan may be written after this, so the next plan writes all rows from memory.
            state.incomplete = true;
        }
        self.shared.store.commit_blocking(batch)?;
        for note in &notes {
            self.say(note, now);
        }
        self.wake_planner();
        Ok(cancelled)
    }

    /// All requests, the oldest first; ended ones for some time.
    pub fn list(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// Takes over nodes of a rollout of an older release that have received their order already and belong to no request.
    pub fn take_over(&self, rollout: &Rollout, told: Vec<Member>, now: Timestamp) -> Result<(), StoreError> {
        let batch = {
            let mut state = self.lock();
            let told: Vec<Member> = told
                .into_iter()
                .filter(|member| state.open(&member.name).is_none())
                .collect();
            if told.is_empty() {
                return Ok(());
            }
            let mut request = lifecycle::begin(rollout, self.shared.boots.sequence(), now);
            request.nodes = told;
            let batch = whole(Batch::new(), &request);
            state.requests.push(request);
            batch
        };
        self.shared.store.commit_blocking(batch)
    }

    /// Runs the planner, and accepts its decisions about requests. `audience` are the observed nodes of rollouts; nodes of
    /// requests are observed here.
    pub fn advance(
        &self,
        rollouts: &BTreeMap<u64, Rollout>,
        mut audience: BTreeMap<String, lifecycle::Node>,
        now: Timestamp,
    ) -> Advance {
        let programs = self.programs();
        let mut batch = Batch::new();
        let mut state = self.lock();
        let state = &mut *state;
        let open = state.requests.iter().flat_map(|request| &request.nodes);
        for member in open.filter(|member| !member.step.is_over()) {
            if !audience.contains_key(&member.name)
                && let Some(node) = self.shared.observer.node(&member.name, now)
            {
                audience.insert(member.name.clone(), node);
            }
        }
        // Nodes of a request that is not on disk yet must not be taken by another request meanwhile.
        let asked = state
            .requests
            .iter()
            .filter(|request| state.unconfirmed.contains(&request.id));
        for member in asked.flat_map(|request| &request.nodes) {
            if let Some(node) = audience.get_mut(&member.name) {
                node.leaves = None;
            }
        }
        let situation = Situation {
            now,
            programs,
            nodes: &audience,
            busy: &state.busy,
            sequence: self.shared.boots.sequence(),
        };
        let unconfirmed = &state.unconfirmed;
        let (waiting, requests): (Vec<Request>, Vec<Request>) =
            (std::mem::take(&mut state.requests).into_iter()).partition(|request| unconfirmed.contains(&request.id));
        let plan = lifecycle::plan(&situation, rollouts, &requests);
        state.requests = requests;
        for request in plan.requests {
            match state.requests.iter_mut().find(|before| before.id == request.id) {
                Some(before) => {
                    batch = differences(batch, before, &request);
                    *before = request;
                }
                None => {
                    batch = whole(batch, &request);
                    state.requests.push(request);
                }
            }
        }
        if std::mem::take(&mut state.incomplete) {
            batch = state.requests.iter().fold(batch, whole);
        }
        let over = state.requests.iter().filter(|request| request.is_over()).count();
        let mut surplus = over.saturating_sub(MOST_OVER);
        state.requests.retain(|request| {
            let goes = surplus > 0 && request.is_over();
            if goes {
                surplus -= 1;
                batch = forget(std::mem::take(&mut batch), request);
            }
            !goes
        });
        state.requests.extend(waiting);
        Advance {
            rollouts: plan.rollouts,
            batch,
            actions: plan.actions,
        }
    }

    /// The next program to run. Its nodes are busy until [`Restarts::ran`] is called.
    pub fn next_job(&self) -> Option<Job> {
        self.lock().jobs.pop_front()
    }

    /// Records that a program has ended; `again` returns when to run it again after so many failures.
    pub fn ran(
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
                notes.extend(request.ran(job.program, name, outcome, again, now));
                batch = row(batch, request, index);
            }
        }
        for note in notes {
            self.say(&note, now);
        }
        batch
    }

    fn programs(&self) -> Programs {
        let world = self.shared.world.load();
        Programs {
            drain: !world.site.hooks.drain.is_empty(),
            resume: !world.site.hooks.resume.is_empty(),
            heartbeat_secs: world.site.limits.heartbeat_secs,
        }
    }

    pub(super) fn say(&self, note: &Note, now: Timestamp) {
        let level = match note.level {
            lifecycle::Level::Ok => Level::Ok,
            lifecycle::Level::Retry => Level::Retry,
            lifecycle::Level::Error => Level::Error,
        };
        let event = Event::new(now, EventKind::Restart, level, note.text.clone());
        self.shared.recorder.record(Subject::Node(note.node.clone()), event);
        match note.level {
            lifecycle::Level::Ok => tracing::info!("restart of {}: {}", note.node, note.text),
            _ => tracing::warn!("restart of {}: {}", note.node, note.text),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

impl State {
    /// The request that is open for `name`, and the index of the node in it.
    pub(super) fn open(&mut self, name: &str) -> Option<(&mut Request, usize)> {
        self.requests.iter_mut().find_map(|request| {
            let found = request.nodes.iter();
            let index = found
                .enumerate()
                .find_map(|(index, node)| (node.name == name && !node.step.is_over()).then_some(index))?;
            Some((request, index))
        })
    }
}
