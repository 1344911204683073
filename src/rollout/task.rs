//! The executor: records boots without delaying them, asks the planner each second, and writes all decisions to disk before
//! anything follows from them.

use super::ledger::Ledger;
use crate::{
    boots::{Boot, Boots},
    decide::{SharedWorld, World},
    observed::{Observer, setting},
    restart::Restarts,
    timeline::{Event, EventKind, Level, Recorder, Subject},
};
use rackstrap_base::{clock::Timestamp, sync::lock, threads::Thread};
use rackstrap_lifecycle::{
    Action, Node,
    rollout::{Rollout, State},
};
use rackstrap_store::{Batch, Store, StoreError, Table};
use rackstrap_wire::ImageRef;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// At most this many notices of boots wait for the thread. Boots whose notice is dropped are found among the boots each
/// [`TICK`].
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
}

pub(super) struct Shared {
    pub(super) world: SharedWorld,
    pub(super) store: Store,
    recorder: Recorder,
    boots: Boots,
    pub(super) observer: Observer,
    pub(super) restarts: Restarts,
    ledger: Mutex<Ledger>,
    news: SyncSender<News>,
    /// Set once the thread has started.
    thread: OnceLock<Thread>,
}

/// Messages to the thread.
enum News {
    /// An event of a boot.
    Boot(What, Arc<Boot>, Timestamp),
    /// Requests for restarts have changed.
    Requests,
    /// Ask for an answer when all earlier messages are recorded.
    Asked(oneshot::Sender<()>),
    /// Makes the thread panic.
    #[cfg(test)]
    Panic,
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
        let mut ledger = load(&world, &store, &boots)?;
        take_over(&mut ledger, &boots, &restarts, Timestamp::now())?;
        let (news, heard) = sync_channel(QUEUE);
        let waker = news.clone();
        let rollouts = Rollouts {
            shared: Arc::new(Shared {
                observer: Observer::new(world.clone(), boots.clone(), recorder.clone()),
                world,
                store,
                recorder,
                boots,
                restarts,
                ledger: Mutex::new(ledger),
                news,
                thread: OnceLock::new(),
            }),
        };
        // If the queue is full, nothing is lost: the thread looks at everything each second.
        rollouts
            .shared
            .restarts
            .planned_by(move || drop(waker.try_send(News::Requests)));
        rollouts.publish(&rollouts.ledger());
        let weak = Arc::downgrade(&rollouts.shared);
        let thread = Thread::spawn("rollouts", move || {
            listen(&heard, || weak.upgrade().map(|shared| Rollouts { shared }));
        });
        let _ = rollouts.shared.thread.set(thread);
        Ok(rollouts)
    }

    /// Waits until the thread has ended. After a panic, memory may contain half of a change, so the daemon ends, too.
    /// Confirmed changes are on disk, and the next daemon continues from there.
    pub fn ended(&self) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        let ended = self.shared.thread.get().map(Thread::ended);
        async move {
            match ended {
                Some(ended) => ended.await,
                // `start` sets it before it returns the registry.
                None => Ok(()),
            }
        }
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
        let _ = self.shared.news.try_send(News::Boot(what, boot, at));
    }

    /// Makes the thread panic.
    #[cfg(test)]
    pub(super) fn panic(&self) {
        self.shared.news.try_send(News::Panic).unwrap();
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Waits until all earlier messages are recorded, on disk and in the world, for a limited time: the disk may be slow, and
    /// one additional boot of a node does no harm.
    pub async fn heard_all(&self) {
        let (told, noted) = oneshot::channel();
        if self.shared.news.try_send(News::Asked(told)).is_ok() {
            let _ = tokio::time::timeout(HEARD_WITHIN, noted).await;
        }
    }

    /// Writes all changes, then publishes them, and records them on timelines.
    pub(super) fn settle(&self, ledger: &mut Ledger) -> Result<(), StoreError> {
        self.settle_with(ledger, Batch::new())
    }

    /// The same, with other rows in the same batch.
    fn settle_with(&self, ledger: &mut Ledger, rows: Batch) -> Result<(), StoreError> {
        if ledger.is_unwritten() {
            // Shares a flush with other batches that wait, mostly of boots that begin.
            self.shared.store.commit_blocking(ledger.unwritten().and(rows))?;
            self.publish(ledger);
            ledger.news().iter().for_each(|line| tracing::info!("{line}"));
        } else if !rows.is_empty() {
            self.shared.store.commit_blocking(rows)?;
        }
        let now = Timestamp::now();
        for told in ledger.written() {
            let event = Event::new(now, EventKind::Rollout, told.level, told.what);
            self.shared.recorder.record(Subject::Node(told.node), event);
        }
        Ok(())
    }

    /// Other parts of the world can be replaced at any time, so only the assignments are replaced.
    fn publish(&self, ledger: &Ledger) {
        let assignments = Arc::new(ledger.assignments());
        self.shared.world.rcu(|world| World {
            assignments: assignments.clone(),
            ..World::clone(world)
        });
    }

    /// The nodes that boot the assigned version of `images`.
    pub(super) fn audience(&self, world: &World, images: BTreeSet<&str>, now: Timestamp) -> BTreeMap<String, Node> {
        if images.is_empty() {
            return BTreeMap::new();
        }
        self.shared.recorder.settle(now);
        let nodes = world.inventory.iter();
        let nodes = nodes.filter(|node| setting(world, node).is_some_and(|image| images.contains(image)));
        nodes
            .filter_map(|node| Some((node.name.clone(), self.shared.observer.node(&node.name, now)?)))
            .collect()
    }

    /// Records all messages, writes the changes, and answers those who asked.
    fn hear_all(&self, news: impl Iterator<Item = News>) {
        let mut ledger = self.ledger();
        let mut asked = Vec::new();
        for news in news {
            match news {
                News::Boot(what, boot, at) => self.note(&mut ledger, &what, &boot, at),
                News::Requests => {}
                News::Asked(whom) => asked.push(whom),
                #[cfg(test)]
                News::Panic => panic!("a test wants it"),
            }
        }
        if let Err(error) = self.settle(&mut ledger) {
            // The changes stay unwritten, and are written with the next ones.
            tracing::error!("rollouts: boots cannot be noted: {error}");
        }
        for whom in asked {
            // The asking task may have ended.
            let _ = whom.send(());
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.shared.ledger)
    }

    /// The version that a node is assigned, whether or not it has rolled back from it.
    fn wanted(&self, world: &World, node: &str) -> Option<ImageRef> {
        let setting = setting(world, world.inventory.get(node)?)?;
        let choice = world.assignments.wanted(node, setting, &world.images);
        choice.ok().map(|choice| choice.wanted)
    }

    fn note(&self, ledger: &mut Ledger, what: &What, boot: &Boot, at: Timestamp) {
        let world = self.shared.world.load();
        let node = boot.plan.node.as_str();
        match what {
            What::Opened => {
                if let Some(wanted) = self.wanted(&world, node) {
                    ledger.opened(node, boot.image(), &wanted, at);
                }
            }
            What::Took => {
                if self.is_replaced(&world, ledger, node) {
                    self.begin_anew(ledger, node, at);
                }
                ledger.took(boot, at);
            }
            What::Ready => {
                let wanted = self.wanted(&world, node);
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
                .find_map(|m| self.shared.boots.get(&m.boot));
            boot.map(|boot| boot.plan.net.hwaddr)
        };
        let hwaddr = tried.or_else(failed);
        hwaddr.is_some_and(|hwaddr| !of_inventory.hwaddrs.contains(&hwaddr))
    }

    fn begin_anew(&self, ledger: &mut Ledger, node: &str, now: Timestamp) {
        let observed = self.shared.observer.observe(node, now).unwrap_or_default();
        if ledger.forgive(node, &observed, now) {
            ledger.tell(node, Level::Ok, "is other hardware now: tries again what it failed at");
        }
    }

    /// Finds boots that no message reported, runs the planner, writes its decisions, and carries them out.
    pub(super) fn look(&self, now: Timestamp) {
        let world = self.shared.world.load_full();
        let mut ledger = self.ledger();
        let on = ledger.rollouts.values().filter(|rollout| rollout.is_on());
        let on: Vec<(u64, ImageRef)> = on.map(|rollout| (rollout.number, rollout.image.clone())).collect();
        for (number, image) in &on {
            self.catch_up(&mut ledger, *number, image, now);
        }
        let concerned = ledger.planned();
        let images = concerned.values().map(|rollout| rollout.image.name.as_str()).collect();
        let audience = self.audience(&world, images, now);
        let advance = self.shared.restarts.advance(&concerned, audience, now);
        for changed in advance.rollouts {
            ledger.take_over(changed);
        }
        for action in &advance.actions {
            if let Action::MakeCurrent(image) = action {
                ledger.make_current(image.clone(), "the rollout", now);
            }
        }
        self.tidy_trials(&world, &mut ledger, now);
        let written = self.settle_with(&mut ledger, advance.batch);
        if let Err(error) = &written {
            tracing::error!("rollouts and restarts stand still: {error}");
        }
        self.shared.restarts.carry_out(advance.actions, written.is_ok(), now);
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
    fn catch_up(&self, ledger: &mut Ledger, number: u64, image: &ImageRef, now: Timestamp) {
        let Some(rollout) = ledger.rollouts.get(&number) else {
            return;
        };
        let open = rollout.nodes.iter();
        let open = open.filter(|(_, member)| matches!(member.state, State::Waiting | State::Booting));
        let open: HashMap<String, String> = open.map(|(node, m)| (node.clone(), m.boot.clone())).collect();
        for (node, known) in open {
            let boots = self.shared.boots.of_node(&node);
            // The newest boot first: boots before the known one are recorded already.
            for boot in boots
                .iter()
                .filter(|boot| boot.is_believed())
                .take_while(|boot| boot.plan.id != known || boot.ready.is_some())
            {
                let what = match (boot.ready.is_some(), boot.redeemed) {
                    _ if boot.image() != image => break,
                    // The node failed before it was given the version again. Its next boot decides.
                    (true, _) if known.is_empty() && !boot.healthy() => break,
                    (true, _) => What::Ready,
                    (false, true) => What::Took,
                    (false, false) => continue,
                };
                self.note(ledger, &what, boot, now);
                break;
            }
        }
    }
}

/// Reads rollouts from the store, and the last known good versions from the boots.
fn load(world: &SharedWorld, store: &Store, boots: &Boots) -> Result<Ledger, StoreError> {
    let current = store.scan(Table::Current, b"")?;
    let rollouts = store.scan(Table::Rollouts, b"")?;
    let mut ledger = Ledger::load(
        current.into_iter().map(|(_, row)| row).collect(),
        rollouts.into_iter().map(|(_, row)| row).collect(),
        store.scan(Table::RolloutNodes, b"")?,
        store.scan(Table::Trials, b"")?,
    );
    for node in world.load().inventory.iter() {
        let boots = boots.of_node(&node.name);
        if let (Some(boot), false) = (
            boots.iter().find(|boot| boot.healthy()),
            ledger.last_known_good.contains_key(&node.name),
        ) {
            ledger.last_known_good.insert(node.name.clone(), boot.image().clone());
        }
    }
    Ok(ledger)
}

/// Turns orders that an older release gave, and that belong to no request, into a request.
fn take_over(ledger: &mut Ledger, boots: &Boots, restarts: &Restarts, now: Timestamp) -> Result<(), StoreError> {
    for (number, told) in ledger.take_told() {
        // A node whose boot is forgotten has left that boot.
        let told = told.into_iter().filter_map(|mut member| {
            member.after = Some(boots.get(member.told_in()?)?.sequence);
            Some(member)
        });
        if let Some(rollout) = ledger.rollouts.get(&number) {
            restarts.take_over(rollout, told.collect(), now)?;
        }
    }
    Ok(())
}

/// Handles messages and runs the planner regularly, until no sender is left.
fn listen(heard: &Receiver<News>, rollouts: impl Fn() -> Option<Rollouts>) {
    let mut looked = Timestamp(0);
    let mut pause = TICK;
    loop {
        let news = match heard.recv_timeout(pause) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(rollouts) = rollouts() else {
            return;
        };
        // The planner runs soon after a message, together with the messages that follow it.
        let soon = news.is_some() || pause != TICK;
        if let Some(news) = news {
            rollouts.hear_all(std::iter::once(news).chain(heard.try_iter().take(QUEUE)));
        }
        let now = Timestamp::now();
        let due = if soon { SETTLE } else { TICK };
        pause = match now.since(looked) >= due.as_millis() as u64 || now < looked {
            true => {
                looked = now;
                rollouts.look(now);
                TICK
            }
            false => SETTLE,
        };
    }
}
