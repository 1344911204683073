//! The executor: records boots without delaying them, asks the planner each second, and writes all decisions to disk before
//! anything follows from them.

use super::{
    ledger::{Ledger, changes},
    stored,
};
use crate::{
    boots::{Boot, Boots},
    observed::{Observer, setting},
    restart::Restarts,
    timeline::{Event, EventKind, Recorder, Subject},
};
use arc_swap::ArcSwap;
use rackstrap_base::{clock::Timestamp, threads::Thread};
use rackstrap_lifecycle::{
    Action, Level, Node,
    rollout::{Rollout, State},
};
use rackstrap_model::decide::{SharedWorld, World};
use rackstrap_store::{Batch, Store, StoreError, Table};
use rackstrap_wire::ImageRef;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Weak,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// At most this many notices of boots wait for the thread. Boots of an active rollout whose notice is dropped are found among the boots
/// each [`TICK`].
const QUEUE: usize = 8192;
/// Time between two runs of the planner.
const TICK: Duration = Duration::from_secs(1);
/// How soon the planner runs after something happened: nodes that come back at the same time are resumed together.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a boot script may wait for the thread.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The registry of rollouts; clones share it.
#[derive(Clone)]
pub struct Rollouts {
    pub(super) shared: Arc<Shared>,
    thread: Thread,
}

pub(super) struct Shared {
    pub(super) world: SharedWorld,
    recorder: Recorder,
    boots: Boots,
    pub(super) observer: Observer,
    /// Their keeper is also that of rollouts.
    pub(super) restarts: Restarts,
    /// The ledger on disk.
    ledger: ArcSwap<Ledger>,
    news: SyncSender<News>,
}

/// Messages to the thread.
enum News {
    /// An event of a boot.
    Boot(Heard),
    /// Requests for restarts have changed, or heartbeats wait for an answer.
    Requests,
    /// Ask for an answer when all earlier messages are recorded.
    Asked(oneshot::Sender<()>),
    /// Makes the thread panic.
    #[cfg(test)]
    Panic,
}

/// An event of a boot.
struct Heard {
    what: What,
    boot: Arc<Boot>,
    at: Timestamp,
}

enum What {
    /// Its script was sent.
    Opened,
    /// Its kernel was fetched.
    Took,
    /// Its system is up.
    Ready,
}

/// Pauses all rollouts of `store`: after a backup was restored, their state is old.
///
/// # Errors
/// An error of the store.
pub fn pause_all(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for (key, mut rollout) in store.scan::<Rollout>(Table::Rollouts, b"")? {
        batch = batch.expect(Table::Rollouts, key.clone(), &rollout);
        if rollout.pause("restoring a backup", now).is_ok() {
            batch = batch.put(Table::Rollouts, key, &rollout);
        }
    }
    store.commit_blocking(batch)
}

impl Rollouts {
    /// Loads everything from disk, publishes the assignments, and starts the thread. `restarts` executes the restarts of
    /// rollouts.
    ///
    /// # Errors
    /// Those of the store.
    pub fn start(
        world: SharedWorld,
        store: Store,
        recorder: Recorder,
        boots: Boots,
        restarts: Restarts,
    ) -> Result<Rollouts, StoreError> {
        let ledger = load(&world, &store, &boots)?;
        let (news, heard) = sync_channel(QUEUE);
        let waker = news.clone();
        let shared = Arc::new(Shared {
            observer: Observer::new(world.clone(), boots.clone(), recorder.clone()),
            world,
            recorder,
            boots,
            restarts,
            ledger: ArcSwap::from_pointee(ledger),
            news,
        });
        shared.take_over(Timestamp::now())?;
        shared.show();
        // If the queue is full, nothing is lost: the thread looks at everything each second.
        (shared.restarts).planned_by(move || drop(waker.try_send(News::Requests)));
        let weak = Arc::downgrade(&shared);
        let thread = Thread::spawn("rollouts", move || listen(&heard, &weak));
        Ok(Rollouts { shared, thread })
    }

    /// Waits until the thread has ended. After a panic, memory may contain half of a change, so the daemon ends, too.
    /// Confirmed changes are on disk, and the next daemon continues from there.
    ///
    /// # Errors
    /// The thread panicked, or could not be started.
    pub fn ended(&self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.thread.ended()
    }

    /// Records that the script of that boot was sent. Never waits.
    pub fn opened(&self, boot: &Arc<Boot>, now: Timestamp) {
        self.hear(What::Opened, boot, now);
    }

    /// Records that the kernel of that boot was fetched. Never waits.
    pub fn took(&self, boot: &Arc<Boot>, now: Timestamp) {
        self.hear(What::Took, boot, now);
    }

    /// Records that the system of that boot is up. Never waits.
    pub fn ready(&self, boot: &Arc<Boot>, now: Timestamp) {
        self.hear(What::Ready, boot, now);
    }

    fn hear(&self, what: What, boot: &Arc<Boot>, at: Timestamp) {
        let boot = boot.clone();
        // If the queue is full, nothing is lost: the boots are looked at each second.
        let _ = self.shared.news.try_send(News::Boot(Heard { what, boot, at }));
    }

    /// Makes the thread panic.
    #[cfg(test)]
    pub(super) fn panic(&self) {
        self.shared.news.try_send(News::Panic).unwrap();
    }

    #[cfg(test)]
    pub(super) fn look(&self, now: Timestamp) {
        self.shared.look(now);
    }

    /// Waits until all earlier messages are recorded, on disk and in the world, for a limited time: the disk may be slow, and
    /// one additional boot of a node does no harm.
    pub async fn heard_all(&self) {
        let (told, noted) = oneshot::channel();
        if self.shared.news.try_send(News::Asked(told)).is_ok() {
            let _ = tokio::time::timeout(HEARD_WITHIN, noted).await;
        }
    }
}

impl Shared {
    /// The ledger on disk.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        self.ledger.load_full()
    }

    /// Changes the ledger. The changes are on disk, visible to decisions and recorded on timelines when this returns. Blocks
    /// for a disk flush.
    pub(super) fn change<A, E: From<StoreError>>(
        &self,
        change: impl Fn(&mut Ledger, &World) -> Result<A, E>,
    ) -> Result<A, E> {
        let draft = |(): &()| {
            let before = self.ledger();
            let mut after = Ledger::clone(&before);
            let answer = change(&mut after, &self.world.load_full())?;
            let batch = changes(&before, &after);
            Ok(((after, answer), batch))
        };
        self.restarts.keeper().change(draft, |(), (after, answer)| {
            self.publish(after);
            answer
        })
    }

    /// Publishes a ledger that is on disk, logs its changes, and records them on timelines.
    fn publish(&self, mut after: Ledger) {
        let told = std::mem::take(&mut after.told);
        let before = self.ledger();
        if *before != after {
            after.news(&before).iter().for_each(|line| tracing::info!("{line}"));
            self.ledger.store(Arc::new(after));
            self.show();
        }
        let now = Timestamp::now();
        for note in told {
            let event = Event::new(now, EventKind::Rollout, note.level, note.text);
            self.recorder.record(Subject::Node(note.node), event);
        }
    }

    /// Publishes the assignments. Other parts of the world can be replaced at any time, so only the assignments are replaced.
    fn show(&self) {
        let assignments = Arc::new(self.ledger().assignments());
        self.world.rcu(|world| World {
            assignments: assignments.clone(),
            ..World::clone(world)
        });
    }

    /// Turns orders that an older release gave, and that belong to no request, into a request.
    fn take_over(&self, now: Timestamp) -> Result<(), StoreError> {
        let draft = |(): &()| {
            let before = self.ledger();
            let mut after = Ledger::clone(&before);
            let mut requests = self.restarts.list();
            for (number, told) in after.take_told() {
                // A node whose boot is forgotten has left that boot.
                let told = told.into_iter().filter_map(|mut member| {
                    member.after = Some(self.boots.get(member.ordered_in()?)?.sequence);
                    Some(member)
                });
                if let Some(rollout) = after.rollouts.get(&number) {
                    requests = self.restarts.taken_over(rollout, told.collect(), requests, now);
                }
            }
            let batch = changes(&before, &after).and(self.restarts.changes(&requests));
            Ok::<_, StoreError>(((after, requests), batch))
        };
        self.restarts.keeper().change(draft, |(), (after, requests)| {
            self.publish(after);
            self.restarts.publish(requests);
        })
    }

    /// The nodes that boot the assigned version of `images`.
    pub(super) fn audience(&self, world: &World, images: BTreeSet<&str>, now: Timestamp) -> BTreeMap<String, Node> {
        if images.is_empty() {
            return BTreeMap::new();
        }
        self.recorder.settle(now);
        let nodes = world.inventory.iter();
        let nodes = nodes.filter(|node| setting(world, node).is_some_and(|image| images.contains(image.as_str())));
        nodes
            .filter_map(|node| Some((node.name.clone(), self.observer.node(&node.name, now)?)))
            .collect()
    }

    /// Records all messages, writes the changes, and answers those who asked. Events that cannot be written stay in `unwritten`,
    /// and are written with the next ones.
    fn hear(&self, unwritten: &mut Vec<Heard>, news: impl Iterator<Item = News>) {
        let mut asked = Vec::new();
        for news in news {
            match news {
                // Too many wait. Those of active rollouts are not lost: the boots are looked at each second.
                News::Boot(_) if unwritten.len() >= 2 * QUEUE => {}
                News::Boot(heard) => unwritten.push(heard),
                News::Requests => {}
                News::Asked(whom) => asked.push(whom),
                #[cfg(test)]
                News::Panic => panic!("a test wants it"),
            }
        }
        if !unwritten.is_empty() {
            let noted = self.change(|ledger, world| {
                for heard in unwritten.iter() {
                    self.note(world, ledger, heard);
                }
                Ok::<_, StoreError>(())
            });
            match noted {
                Ok(()) => unwritten.clear(),
                Err(error) => tracing::error!("rollouts: boots cannot be noted: {error}"),
            }
        }
        for whom in asked {
            // The asking task may have ended.
            let _ = whom.send(());
        }
    }

    /// The version that a node is assigned, whether or not it has rolled back from it.
    fn wanted(&self, world: &World, node: &str) -> Option<ImageRef> {
        let setting = setting(world, world.inventory.get(node)?)?;
        let choice = world.assignments.wanted(node, &setting, &world.images);
        choice.ok().map(|choice| choice.wanted)
    }

    fn note(&self, world: &World, ledger: &mut Ledger, heard: &Heard) {
        let Heard { what, boot, at } = heard;
        let (node, at) = (boot.plan.node.as_str(), *at);
        match what {
            What::Opened => {
                if let Some(wanted) = self.wanted(world, node) {
                    ledger.opened(node, boot.image(), &wanted, at);
                }
            }
            What::Took => {
                if self.is_replaced(world, ledger, node) {
                    self.begin_anew(ledger, node, at);
                }
                ledger.took(boot, at);
            }
            What::Ready => {
                let wanted = self.wanted(world, node);
                ledger.ready(boot, &boot.problem(), wanted.as_ref(), at);
            }
        }
    }

    /// Whether the recorded trial of `node` concerns a machine that is not that node any more.
    fn is_replaced(&self, world: &World, ledger: &Ledger, node: &str) -> bool {
        let Some(of_inventory) = world.inventory.get(node) else {
            return false;
        };
        let tried = ledger.trials.get(node).and_then(|trial| trial.hwaddr);
        let failed = || {
            let members = ledger
                .rollouts
                .values()
                .filter(|r| r.is_on())
                .filter_map(|r| r.nodes.get(node));
            let boot = members
                .filter(|m| m.state.is_failure())
                .find_map(|m| self.boots.get(&m.boot));
            boot.map(|boot| boot.plan.net.hwaddr)
        };
        let hwaddr = tried.or_else(failed);
        hwaddr.is_some_and(|hwaddr| !of_inventory.hwaddrs.contains(&hwaddr))
    }

    fn begin_anew(&self, ledger: &mut Ledger, node: &str, now: Timestamp) {
        let observed = self.observer.observe(node, now).unwrap_or_default();
        if ledger.forgive(node, &observed, now) {
            ledger.tell(node, Level::Ok, "is other hardware now: tries again what it failed at");
        }
    }

    /// Finds boots that no message reported, runs the planner, writes its decisions, and carries them out.
    pub(super) fn look(&self, now: Timestamp) {
        let draft = |(): &()| {
            let world = self.world.load_full();
            let before = self.ledger();
            let mut after = Ledger::clone(&before);
            for rollout in before.rollouts.values().filter(|rollout| rollout.is_on()) {
                self.catch_up(&world, &mut after, rollout, now);
            }
            let concerned = after.planned();
            let images = concerned.values().map(|rollout| rollout.image.name.as_str()).collect();
            let audience = self.audience(&world, images, now);
            let leaving: BTreeSet<String> = audience.values().filter_map(|node| node.leaves.clone()).collect();
            let advance = self.restarts.advance(&concerned, audience, now);
            for changed in advance.rollouts {
                after.take_over(changed);
            }
            for action in &advance.actions {
                if let Action::MakeCurrent(image) = action {
                    after.make_current(image.clone(), "the rollout", now);
                }
            }
            self.tidy_trials(&world, &mut after, now);
            let restarts = |image: &str| advance.requests.iter().any(|r| r.rollout == image && !r.is_over());
            after.finish(&concerned, |image| leaving.contains(image) || restarts(image), now);
            let batch = changes(&before, &after).and(advance.batch);
            Ok::<_, StoreError>(((after, advance.requests, advance.actions), batch))
        };
        let looked = self.restarts.keeper().change(draft, |(), (after, requests, actions)| {
            self.publish(after);
            self.restarts.publish(requests);
            self.restarts.carry_out(actions, now);
        });
        if let Err(error) = looked {
            tracing::error!("rollouts and restarts stand still: {error}");
        }
    }

    /// Ends trials without a purpose: another version is assigned, the machine was exchanged, or the node does not exist any
    /// more.
    fn tidy_trials(&self, world: &World, ledger: &mut Ledger, now: Timestamp) {
        let over: Vec<String> = ledger
            .trials
            .iter()
            .filter(|(node, trial)| self.wanted(world, node).as_ref() != Some(&trial.image))
            .map(|(node, _)| node.clone())
            .collect();
        for node in over {
            ledger.set_trial(&node, None);
        }
        let failed = ledger.rollouts.values().filter(|rollout| rollout.is_on());
        let failed = failed.flat_map(|r| {
            r.nodes
                .iter()
                .filter(|(_, m)| m.state.is_failure())
                .map(|(node, _)| node)
        });
        let tried: BTreeSet<String> = ledger.trials.keys().chain(failed).cloned().collect();
        for node in tried
            .iter()
            .filter(|node| self.is_replaced(world, ledger, node))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.begin_anew(ledger, &node, now);
        }
        ledger
            .last_known_good
            .retain(|node, _| world.inventory.get(node).is_some());
    }

    /// Finds boots that no message reported, because the daemon was restarted or too busy.
    fn catch_up(&self, world: &World, ledger: &mut Ledger, rollout: &Rollout, now: Timestamp) {
        let open = rollout.nodes.iter();
        for (node, member) in open.filter(|(_, member)| matches!(member.state, State::Waiting | State::Booting)) {
            let known = &member.boot;
            let boots = self.boots.of_node(node);
            // The newest boot first: boots before the known one are recorded already.
            for boot in boots
                .iter()
                .filter(|boot| boot.is_believed() && boot.is_usual())
                .take_while(|boot| boot.plan.id != *known || boot.ready.is_some())
            {
                let what = match (boot.ready.is_some(), boot.redeemed) {
                    _ if *boot.image() != rollout.image => break,
                    // The node failed before it was given the version again. Its next boot decides.
                    (true, _) if known.is_empty() && !boot.healthy() => break,
                    (true, _) => What::Ready,
                    (false, true) => What::Took,
                    (false, false) => continue,
                };
                let (boot, at) = (boot.clone(), now);
                self.note(world, ledger, &Heard { what, boot, at });
                break;
            }
        }
    }
}

/// Reads rollouts from the store, and the last known good versions from the boots.
fn load(world: &SharedWorld, store: &Store, boots: &Boots) -> Result<Ledger, StoreError> {
    let mut ledger = stored::load(store)?;
    for node in world.load().inventory.iter() {
        let boots = boots.of_node(&node.name);
        if let (Some(boot), false) = (
            boots.iter().find(|boot| boot.healthy() && boot.is_usual()),
            ledger.last_known_good.contains_key(&node.name),
        ) {
            ledger.last_known_good.insert(node.name.clone(), boot.image().clone());
        }
    }
    Ok(ledger)
}

/// Handles messages and runs the planner regularly, until no sender is left.
fn listen(heard: &Receiver<News>, shared: &Weak<Shared>) {
    let mut looked = Timestamp(0);
    let mut pause = TICK;
    let mut unwritten = Vec::new();
    loop {
        let news = match heard.recv_timeout(pause) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        // The planner runs soon after a message, together with the messages that follow it.
        let soon = news.is_some() || pause != TICK;
        shared.hear(&mut unwritten, news.into_iter().chain(heard.try_iter().take(QUEUE)));
        shared.restarts.answer();
        let now = Timestamp::now();
        let due = if soon { SETTLE } else { TICK };
        pause = match now.since(looked) >= due.as_millis() as u64 || now < looked {
            true => {
                looked = now;
                shared.look(now);
                TICK
            }
            false => SETTLE,
        };
    }
}
