//! All requests, on disk before anything follows from them.

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

/// Requests that are not over, at most.
const MOST_OPEN: usize = 64;
/// Requests that are over and still shown.
const MOST_OVER: usize = 8;
/// Bytes of a reason: it is a variable of a program, and on timelines.
const REASON: usize = 200;

/// Requests for restarts; clones share them.
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
    /// One change of rollouts and requests at a time: one planner decides on both, and one batch has what it decides.
    keeper: Keeper,
    /// As they are on disk, the oldest first.
    requests: ArcSwap<Vec<Request>>,
    pub(super) programs: Mutex<ToRun>,
    /// What came with heartbeats and waits for the planner's thread.
    pub(super) asked: Mutex<Vec<Asked>>,
    /// Wakes the task that runs programs.
    pub(super) jobs: Notify,
    /// Wakes the planner.
    planner: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Programs of the site. They end with the daemon, and the next one runs them again.
#[derive(Default)]
pub(super) struct ToRun {
    /// Nodes for which one runs, or is about to.
    pub(super) busy: HashSet<String>,
    /// Those that are about to run.
    pub(super) jobs: VecDeque<Job>,
}

/// What a plan means for rollouts, requests and the store.
pub struct Advance {
    /// Rollouts that are different then.
    pub rollouts: Vec<Changed>,
    /// All requests.
    pub requests: Vec<Request>,
    /// Their rows.
    pub batch: Batch,
    /// What to do once that is on disk.
    pub actions: Vec<Action>,
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

/// What becomes of restarts for a rollout that is paused or has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Nodes that are not restarted; those that were drained are resumed.
    pub cancelled: Vec<String>,
    /// Nodes that have the order already, and are on their way.
    pub told: Vec<String>,
}

impl Withdrawn {
    /// What happened to restarts for rollouts of `image` between two lists of requests.
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
        // In the order of their names.
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

    /// `wake` has the planner look soon: it is called whenever something was changed that it does not know of.
    pub fn planned_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A second planner would be a mistake of the program; the first one stays.
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

    /// The rows of what is different in `after`.
    pub fn changes(&self, after: &[Request]) -> Batch {
        changes(&self.requests(), after)
    }

    /// Shows readers what the keeper has on disk now.
    pub fn publish(&self, requests: Vec<Request>) {
        if **self.shared.requests.load() != requests {
            self.shared.requests.store(Arc::new(requests));
        }
    }

    /// Has `change` make other requests; they are on disk, and published, when this returns. Blocks for a disk flush.
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

    /// Adds the request for a wish about `names` to `requests`.
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

    /// Does not restart nodes, where they were not told yet; on disk when it returns. What was drained is resumed. A node that is
    /// late is no longer waited for.
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

    /// All requests, the oldest first; those that are over for a while.
    pub fn list(&self) -> Vec<Request> {
        Vec::clone(&self.requests())
    }

    /// What requests become with nodes of a rollout of an older release that have its order already, and are not in a request.
    pub fn taken_over(
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

    /// Has the planner decide; to be called in a change of the keeper. `audience` are the nodes that rollouts are about, as far as they
    /// were observed; nodes of requests are observed here.
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

    /// The next program to run. Its nodes are busy until [`Restarts::ran`].
    pub fn next_job(&self) -> Option<Job> {
        lock(&self.shared.programs).jobs.pop_front()
    }

    /// A program has ended; `again` says when it is run once more after so many failures. Blocks for a disk flush.
    ///
    /// # Errors
    /// An error of the store: the program is run again, and is written for that.
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
        });
        let mut programs = lock(&self.shared.programs);
        programs.busy.retain(|name| !job.nodes.contains(name));
        drop(programs);
        for note in notes? {
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

/// The request that is about `name` and not over for it, and its place there.
pub(super) fn open<'a>(requests: &'a mut [Request], name: &str) -> Option<(&'a mut Request, usize)> {
    requests.iter_mut().find_map(|request| {
        let fits = |node: &Member| node.name == name && !node.step.is_over();
        let index = request.nodes.iter().position(fits)?;
        Some((request, index))
    })
}
