//! The executor: hears of boots without holding them up, asks the planner each second, and has all that it decides on disk before
//! anything follows from it.

use super::ledger::Ledger;
use crate::{
    boots::{Boot, Boots},
    observed::{Observer, setting},
    restart::Restarts,
    timeline::{Event, EventKind, Level, Recorder, Subject},
};
use rackstrap_base::{clock::Timestamp, sync::lock, threads::Thread};
use rackstrap_lifecycle::{
    Action, Node,
    rollout::{Rollout, State},
};
use rackstrap_model::decide::{SharedWorld, World};
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

/// Boots that may wait for the keeper. What does not fit is found when it looks at the boots themselves, every [`TICK`].
const QUEUE: usize = 8192;
/// How often it looks at the time.
const TICK: Duration = Duration::from_secs(1);
/// How soon it looks after something happened: nodes that come back together are resumed together.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a boot script may wait for the keeper.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// The keeper; clones share it.
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
    /// Set once it has started.
    thread: OnceLock<Thread>,
}

/// What the keeper hears.
enum News {
    /// Something about a boot.
    Boot(What, Arc<Boot>, Timestamp),
    /// Requests for restarts are different now.
    Requests,
    /// Somebody wants to know when all before is noted.
    Asked(oneshot::Sender<()>),
    /// The keeper's thread panics.
    #[cfg(test)]
    Panic,
}

enum What {
    /// Its script was answered.
    Opened,
    /// Its kernel was fetched.
    Took,
    /// Its system is up.
    Ready,
}

/// Has no rollout of `store` go on by itself: after a backup was restored, what it says of them is old.
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
    /// Loads what is known, lets the world know, and begins to listen. `restarts` executes what rollouts want restarted.
    ///
    /// # Errors
    /// The store's.
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
        // A full queue is no loss: it looks each second.
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

    /// Waits for the end of the thread. What memory says after a panic may be half of a change, so the daemon ends with it: what was
    /// confirmed is on disk, and the next daemon goes on from there.
    pub fn ended(&self) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        let ended = self.shared.thread.get().map(Thread::ended);
        async move {
            match ended {
                Some(ended) => ended.await,
                // `start` sets it before anybody has this.
                None => Ok(()),
            }
        }
    }

    /// The script of that boot is answered. Never waits.
    pub fn opened(&self, boot: &Arc<Boot>, now: Timestamp) {
        self.hear(What::Opened, boot, now);
    }

    /// The kernel of that boot was fetched. Never waits.
    pub fn took(&self, boot: &Arc<Boot>, now: Timestamp) {
        self.hear(What::Took, boot, now);
    }

    /// The system of that boot is up. Never waits.
    pub fn ready(&self, boot: &Arc<Boot>, now: Timestamp) {
        self.hear(What::Ready, boot, now);
    }

    fn hear(&self, what: What, boot: &Arc<Boot>, at: Timestamp) {
        let boot = boot.clone();
        // A full queue is no loss: the boots themselves are looked at.
        let _ = self.shared.news.try_send(News::Boot(what, boot, at));
    }

    /// Has the keeper's thread panic.
    #[cfg(test)]
    pub(super) fn panic(&self) {
        self.shared.news.try_send(News::Panic).unwrap();
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Waits until everything that was told before is noted, on disk and in the world; not for ever, as a disk may be slow and a
    /// node that boots once more than it had to is no harm.
    pub async fn heard_all(&self) {
        let (told, noted) = oneshot::channel();
        if self.shared.news.try_send(News::Asked(told)).is_ok() {
            let _ = tokio::time::timeout(HEARD_WITHIN, noted).await;
        }
    }

    /// Writes what is new, then lets decisions see it, and tells timelines.
    pub(super) fn settle(&self, ledger: &mut Ledger) -> Result<(), StoreError> {
        self.settle_with(ledger, Batch::new())
    }

    /// The same, with other rows in the same transaction.
    fn settle_with(&self, ledger: &mut Ledger, rows: Batch) -> Result<(), StoreError> {
        if ledger.is_unwritten() {
            // With whatever else waits for the disk just now: boots that begin, mostly.
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

    /// Others swap the rest of the world at any time: only the assignments are replaced.
    fn publish(&self, ledger: &Ledger) {
        let assignments = Arc::new(ledger.assignments());
        self.shared.world.rcu(|world| World {
            assignments: assignments.clone(),
            ..World::clone(world)
        });
    }

    /// The nodes that boot whatever version of `images` is given to them.
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

    /// Notes all that is new, has it on disk, and lets those know who asked.
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
            // It stays unwritten, and is written with what comes next.
            tracing::error!("rollouts: boots cannot be noted: {error}");
        }
        for whom in asked {
            // Who asked may have gone.
            let _ = whom.send(());
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.shared.ledger)
    }

    /// What a node is to have, however it fares on it.
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

    /// True if what is known of tries of `node` is of hardware that is not that node any more.
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

    /// Finds boots that were not heard of, asks the planner, writes down what it decides, and carries it out.
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

    /// Boots on trial end with what they were about: another version is wanted, other hardware, no such node any more.
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

    /// Boots that the daemon did not hear of, as it was being restarted or too busy.
    fn catch_up(&self, ledger: &mut Ledger, number: u64, image: &ImageRef, now: Timestamp) {
        let Some(rollout) = ledger.rollouts.get(&number) else {
            return;
        };
        let open = rollout.nodes.iter();
        let open = open.filter(|(_, member)| matches!(member.state, State::Waiting | State::Booting));
        let open: HashMap<String, String> = open.map(|(node, m)| (node.clone(), m.boot.clone())).collect();
        for (node, known) in open {
            let boots = self.shared.boots.of_node(&node);
            // The newest first: what came before the boot that is known is no news.
            for boot in boots
                .iter()
                .filter(|boot| boot.is_believed())
                .take_while(|boot| boot.plan.id != known || boot.ready.is_some())
            {
                let what = match (boot.ready.is_some(), boot.redeemed) {
                    _ if boot.image() != image => break,
                    // It failed before it was given the version (once more): its next boot will tell.
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

/// What the disk has of rollouts, and what nodes were well on.
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

/// Orders that an older release gave, and that are not in a request, become part of one.
fn take_over(ledger: &mut Ledger, boots: &Boots, restarts: &Restarts, now: Timestamp) -> Result<(), StoreError> {
    for (number, told) in ledger.take_told() {
        // A node whose boot is forgotten has left it.
        let told = told.into_iter().filter_map(|mut member| {
            member.after = Some(boots.get(member.ordered_in()?)?.sequence);
            Some(member)
        });
        if let Some(rollout) = ledger.rollouts.get(&number) {
            restarts.take_over(rollout, told.collect(), now)?;
        }
    }
    Ok(())
}

/// Hears news and looks at the time until nobody is left who could tell any.
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
        // What happens is looked at soon, and together with what happens then.
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
