//! The registry of requests: on disk before anything follows from them.

use super::{actions::Agents, load, order::Asked, rows::changes};
use crate::{
    boots::Boots,
    observed::Observer,
    timeline::{Event, EventKind, Level, Recorder, Subject},
};
use arc_swap::ArcSwap;
use rackstrap_base::{clock::Timestamp, sync::lock};
use rackstrap_hostlist::NodeSet;
use rackstrap_lifecycle::{
    self as lifecycle, Action, Changed, Job, Record, Situation,
    restart::{Cause, End, Member, Programs, Request, Step},
    rollout::Rollout,
};
use rackstrap_model::{decide::SharedWorld, inventory::find};
use rackstrap_store::{Batch, Keeper, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, OnceLock},
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
    pub(super) world: SharedWorld,
    boots: Boots,
    recorder: Recorder,
    pub(super) observer: Observer,
    pub(super) agents: Agents,
    /// One change of rollouts and requests at a time: one planner decides about both, and one batch contains its decisions.
    keeper: Keeper,
    /// The requests on disk, the oldest first.
    requests: ArcSwap<Vec<Request>>,
    pub(super) programs: Mutex<ToRun>,
    /// Questions and reports of heartbeats that wait for the planner's thread.
    pub(super) asked: Mutex<Vec<Asked>>,
    /// Wakes the task that runs programs.
    pub(super) jobs: Notify,
    /// Wakes the planner.
    planner: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Programs of the site. They end with the daemon, and the next one runs them again.
#[derive(Default)]
pub(super) struct ToRun {
    /// Nodes for which a program runs or is about to run.
    pub(super) busy: HashSet<String>,
    /// Programs to run next.
    pub(super) jobs: VecDeque<Job>,
}

/// The result of a plan for rollouts, requests and the store.
pub struct Advance {
    /// Rollouts that have changed.
    pub rollouts: Vec<Changed>,
    /// All requests.
    pub requests: Vec<Request>,
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
        let was_untold = |key: &Key| before.get(key).is_some_and(Step::awaits_order);
        Withdrawn {
            cancelled: names(&|key, step| was_untold(key) && is_cancelled(step)),
            told: names(&|_, step| matches!(step, Step::Ordered { .. })),
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
                keeper: Keeper::new(store, ()),
                world,
                boots,
                recorder,
                agents: Agents::default(),
                requests: ArcSwap::from_pointee(requests),
                programs: Mutex::default(),
                asked: Mutex::default(),
                jobs: Notify::new(),
                planner: OnceLock::new(),
            }),
        })
    }

    /// Registers `wake`, which makes the planner run soon. It is called after each change that the planner does not know of.
    pub(crate) fn planned_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A second planner would be a defect of the program; the first one stays.
        let _ = self.shared.planner.set(Box::new(wake));
    }

    pub(super) fn wake_planner(&self) {
        if let Some(wake) = self.shared.planner.get() {
            wake();
        }
    }

    /// The keeper of requests, and of the rollouts that are planned with them.
    pub fn keeper(&self) -> &Keeper {
        &self.shared.keeper
    }

    pub(super) fn requests(&self) -> Arc<Vec<Request>> {
        self.shared.requests.load_full()
    }

    /// The rows that differ in `after`.
    pub fn changes(&self, after: &[Request]) -> Batch {
        changes(&self.requests(), after)
    }

    /// Publishes requests that the keeper has written.
    pub fn publish(&self, requests: Vec<Request>) {
        if **self.shared.requests.load() != requests {
            self.shared.requests.store(Arc::new(requests));
        }
    }

    /// Changes the requests. The changes are on disk and published when this returns. Blocks for a disk flush.
    fn change<A, E: From<StoreError>>(&self, change: impl Fn(&mut Vec<Request>) -> Result<A, E>) -> Result<A, E> {
        let draft = |(): &()| {
            let before = self.requests();
            let mut after = Vec::clone(&before);
            let answer = change(&mut after)?;
            let batch = changes(&before, &after);
            Ok(((after, answer), batch))
        };
        self.shared.keeper.change(draft, |(), (after, answer)| {
            self.publish(after);
            answer
        })
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
        let id = hex::encode(rand::random::<[u8; 8]>());
        let wanted = self.change(|requests| self.draft(requests, want, &names, &id, now, dry_run))?;
        if wanted.id.is_empty() {
            return Ok(wanted);
        }
        self.wake_planner();
        tracing::info!(
            "restart of {} wanted by {}: {}",
            wanted.nodes.iter().map(String::as_str).collect::<NodeSet>().fold(),
            want.by,
            want.reason
        );
        Ok(wanted)
    }

    /// Adds the request for `names` to `requests`.
    fn draft(
        &self,
        requests: &mut Vec<Request>,
        want: &Want,
        names: &[String],
        id: &str,
        now: Timestamp,
        dry_run: bool,
    ) -> Result<Wanted, RestartError> {
        let observe = |name: &str| self.shared.observer.observe(name, now);
        let known: HashSet<&str> = names.iter().map(String::as_str).collect();
        let taken: HashMap<&str, bool> = requests
            .iter()
            .flat_map(|request| request.nodes.iter().map(move |node| (request, node)))
            .filter(|(_, node)| known.contains(node.name.as_str()) && !node.step.is_over())
            .map(|(request, node)| {
                let unwell = observe(&node.name).is_some_and(|observed| request.is_back_unwell(node, &observed));
                (node.name.as_str(), (want.drain || !request.drain) && unwell)
            })
            .collect();
        let (already, nodes): (Vec<_>, Vec<_>) =
            (names.iter().cloned()).partition(|name| taken.get(name.as_str()) == Some(&false));
        let open_now = requests.iter().filter(|request| !request.is_over());
        if open_now.filter(|request| !request.is_of_rollout()).count() >= MOST_OPEN && !nodes.is_empty() {
            return Err(RestartError::Refused(format!(
                "{MOST_OPEN} requests are not over yet; see rackstrap node restart --list, and --cancel what is not needed"
            )));
        }
        let not_up = nodes
            .iter()
            .filter(|name| !observe(name).is_some_and(|observed| observed.up));
        let mut wanted = Wanted {
            id: String::new(),
            not_up: not_up.cloned().collect(),
            nodes,
            already,
            drained: want.drain && self.programs().drain,
        };
        if dry_run || wanted.nodes.is_empty() {
            return Ok(wanted);
        }
        let mut request = Request {
            id: id.to_owned(),
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
        for member in &mut request.nodes {
            if let Some((older, place)) = open(requests, &member.name) {
                older.hand_over(place, member, now);
            }
        }
        requests.push(request);
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
        let (cancelled, notes) = self.change(|requests| {
            let (mut cancelled, mut notes) = (Cancelled::default(), Vec::new());
            for name in nodes {
                let Some((request, index)) = open(requests, name) else {
                    cancelled.none.push(name.clone());
                    continue;
                };
                let stays = request.nodes[index].follow(Cause::NotAwaited, false, now)
                    || request.give_up(|other| other == name, &why, now, programs, &mut notes);
                let list = if stays {
                    &mut cancelled.cancelled
                } else {
                    &mut cancelled.told
                };
                list.push(name.clone());
            }
            Ok::<_, StoreError>((cancelled, notes))
        })?;
        for note in &notes {
            self.say(note, now);
        }
        self.wake_planner();
        Ok(cancelled)
    }

    /// All requests, the oldest first; ended ones for some time.
    pub fn list(&self) -> Vec<Request> {
        Vec::clone(&self.requests())
    }

    /// Takes over nodes of a rollout of an older release that have received their order already and belong to no request.
    /// Returns all requests.
    pub(crate) fn taken_over(
        &self,
        rollout: &Rollout,
        told: Vec<Member>,
        mut requests: Vec<Request>,
        now: Timestamp,
    ) -> Vec<Request> {
        let told: Vec<Member> = told
            .into_iter()
            .filter(|member| open(&mut requests, &member.name).is_none())
            .collect();
        if !told.is_empty() {
            let mut request = lifecycle::begin(rollout, self.shared.boots.sequence(), now);
            request.nodes = told;
            requests.push(request);
        }
        requests
    }

    /// Runs the planner, within a change of the keeper. `audience` are the observed nodes of rollouts; nodes of requests are
    /// observed here.
    pub fn advance(
        &self,
        rollouts: &BTreeMap<u64, Rollout>,
        mut audience: BTreeMap<String, lifecycle::Node>,
        now: Timestamp,
    ) -> Advance {
        let before = self.requests();
        let open = before.iter().flat_map(|request| &request.nodes);
        for member in open.filter(|member| !member.step.is_over()) {
            if !audience.contains_key(&member.name)
                && let Some(node) = self.shared.observer.node(&member.name, now)
            {
                audience.insert(member.name.clone(), node);
            }
        }
        let busy = lock(&self.shared.programs).busy.clone();
        let situation = Situation {
            now,
            programs: self.programs(),
            nodes: &audience,
            busy: &busy,
            sequence: self.shared.boots.sequence(),
        };
        let plan = lifecycle::plan(&situation, rollouts, &before);
        let mut requests = Vec::clone(&before);
        for request in plan.requests {
            match requests.iter_mut().find(|before| before.id == request.id) {
                Some(before) => *before = request,
                None => requests.push(request),
            }
        }
        let over = requests.iter().filter(|request| request.is_over()).count();
        let mut surplus = over.saturating_sub(MOST_OVER);
        requests.retain(|request| {
            let goes = surplus > 0 && request.is_over();
            surplus -= usize::from(goes);
            !goes
        });
        Advance {
            rollouts: plan.rollouts,
            batch: self.changes(&requests),
            requests,
            actions: plan.actions,
        }
    }

    /// The next program to run. Its nodes are busy until [`Restarts::ran`] is called.
    pub(crate) fn next_job(&self) -> Option<Job> {
        lock(&self.shared.programs).jobs.pop_front()
    }

    /// Records that a program has ended; `again` returns when to run it again after so many failures. Blocks for a disk flush.
    ///
    /// # Errors
    /// An error of the store. The nodes then stay busy until this is called again, so that the program does not run again meanwhile.
    pub fn ran(
        &self,
        job: &Job,
        outcome: &Result<(), String>,
        now: Timestamp,
        again: impl Fn(u32) -> Timestamp,
    ) -> Result<(), StoreError> {
        let notes = self.change(|requests| {
            let mut notes = Vec::new();
            let request = requests.iter_mut().find(|request| request.id == job.request);
            if let Some(request) = request {
                for name in &job.nodes {
                    let Some(index) = request.nodes.iter().position(|node| node.name == *name) else {
                        continue;
                    };
                    let again = again(request.nodes[index].failures + 1);
                    notes.extend(request.ran(job.program, name, outcome, again, now));
                }
            }
            Ok(notes)
        })?;
        let mut programs = lock(&self.shared.programs);
        programs.busy.retain(|name| !job.nodes.contains(name));
        drop(programs);
        for note in notes {
            self.say(&note, now);
        }
        Ok(())
    }

    fn programs(&self) -> Programs {
        let world = self.shared.world.load();
        Programs {
            drain: !world.site.hooks.drain.is_empty(),
            resume: !world.site.hooks.resume.is_empty(),
            heartbeat_secs: world.site.limits.heartbeat_secs,
        }
    }

    pub(super) fn say(&self, record: &Record, now: Timestamp) {
        let event = Event::new(now, EventKind::Restart, record.level, record.text.clone());
        self.shared.recorder.record(Subject::Node(record.node.clone()), event);
        match record.level {
            Level::Ok => tracing::info!("restart of {}: {}", record.node, record.text),
            _ => tracing::warn!("restart of {}: {}", record.node, record.text),
        }
    }
}

/// The request that is open for `name`, and the index of the node in it.
pub(super) fn open<'a>(requests: &'a mut [Request], name: &str) -> Option<(&'a mut Request, usize)> {
    requests.iter_mut().find_map(|request| {
        let index = request.open_member(name)?;
        Some((request, index))
    })
}
