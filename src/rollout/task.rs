//! The executor: hears of boots without holding them up, asks the planner each second, and has all that it decides on disk before
//! anything follows from it.

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

/// Boots that may wait for the executor. What does not fit is found when it looks at the boots themselves, every [`TICK`].
const QUEUE: usize = 8192;
/// How often it looks at the time.
const TICK: Duration = Duration::from_secs(1);
/// How soon it looks after something happened: nodes that come back together are resumed together.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a boot script may wait for the executor.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The executor; clones share it.
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
    /// Their keeper is that of rollouts too.
    pub(super) restarts: Restarts,
    /// As it is on disk.
    ledger: ArcSwap<Ledger>,
    news: SyncSender<News>,
}

/// What the executor hears.
enum News {
    /// Something about a boot.
    Boot(Heard),
    /// Requests for restarts are different now, or heartbeats wait for an answer.
    Requests,
    /// Somebody wants to know when all before is noted.
    Asked(oneshot::Sender<()>),
    /// The executor's thread panics.
    #[cfg(test)]
    Panic,
}

/// Something about a boot.
struct Heard {
    what: What,
    boot: Arc<Boot>,
    at: Timestamp,
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
        // A full queue is no loss: it looks each second.
        (shared.restarts).planned_by(move || drop(waker.try_send(News::Requests)));
        let weak = Arc::downgrade(&shared);
        let thread = Thread::spawn("rollouts", move || listen(&heard, &weak));
        Ok(Rollouts { shared, thread })
    }

    /// Waits for the end of the thread. What memory says after a panic may be half of a change, so the daemon ends with it: what was
    /// confirmed is on disk, and the next daemon goes on from there.
    ///
    /// # Errors
    /// It panicked, or could not be started.
    pub fn ended(&self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.thread.ended()
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
        let _ = self.shared.news.try_send(News::Boot(Heard { what, boot, at }));
    }

    /// Has the executor's thread panic.
    #[cfg(test)]
    pub(super) fn panic(&self) {
        self.shared.news.try_send(News::Panic).unwrap();
    }

    #[cfg(test)]
    pub(super) fn look(&self, now: Timestamp) {
        self.shared.look(now);
    }

    /// Waits until everything that was told before is noted, on disk and in the world; not for ever, as a disk may be slow and a
    /// node that boots once more than it had to is no harm.
    pub async fn heard_all(&self) {
        let (told, noted) = oneshot::channel();
        if self.shared.news.try_send(News::Asked(told)).is_ok() {
            let _ = tokio::time::timeout(HEARD_WITHIN, noted).await;
        }
    }
}

impl Shared {
    /// What is assigned, as it is on disk.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        self.ledger.load_full()
    }

    /// Has `change` say what is to be assigned; that is on disk, seen by decisions and told to timelines when this returns. Blocks for a
    /// disk flush.
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

    /// Lets decisions, the log and timelines know what is on disk now.
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

    /// The rest of the world is swapped by others at any time: only the assignments are replaced.
    fn show(&self) {
        let assignments = Arc::new(self.ledger().assignments());
        self.world.rcu(|world| World {
            assignments: assignments.clone(),
            ..World::clone(world)
        });
    }

    /// Orders that an older release gave, and that are not in a request, become part of one.
    fn take_over(&self, now: Timestamp) -> Result<(), StoreError> {
        let draft = |(): &()| {
            let before = self.ledger();
            let mut after = Ledger::clone(&before);
            let mut requests = self.restarts.list();
            for (number, told) in after.take_told() {
                // A node whose boot is forgotten has left it.
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

    /// The nodes that boot whatever version of `images` is given to them.
    pub(super) fn audience(&self, world: &World, images: BTreeSet<&str>, now: Timestamp) -> BTreeMap<String, Node> {
        if images.is_empty() {
            return BTreeMap::new();
        }
        self.recorder.settle(now);
        let nodes = world.inventory.iter();
        let nodes = nodes.filter(|node| setting(world, node).is_some_and(|image| images.contains(image)));
        nodes
            .filter_map(|node| Some((node.name.clone(), self.observer.node(&node.name, now)?)))
            .collect()
    }

    /// Has all that is new on disk, and lets those know who asked. What cannot be written stays in `unwritten`, and is written with what
    /// comes next.
    fn hear(&self, unwritten: &mut Vec<Heard>, news: impl Iterator<Item = News>) {
        let mut asked = Vec::new();
        for news in news {
            match news {
                // Too many are no loss: the boots themselves are looked at.
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
            // Who asked may have gone.
            let _ = whom.send(());
        }
    }

    /// What a node is to have, however it fares on it.
    fn wanted(&self, world: &World, node: &str) -> Option<ImageRef> {
        let setting = setting(world, world.inventory.get(node)?)?;
        let choice = world.assignments.wanted(node, setting, &world.images);
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

    /// Finds boots that were not heard of, asks the planner, has on disk what it decides, and carries it out.
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
    fn catch_up(&self, world: &World, ledger: &mut Ledger, rollout: &Rollout, now: Timestamp) {
        let open = rollout.nodes.iter();
        for (node, member) in open.filter(|(_, member)| matches!(member.state, State::Waiting | State::Booting)) {
            let known = &member.boot;
            let boots = self.boots.of_node(node);
            // The newest first: what came before the boot that is known is no news.
            for boot in boots
                .iter()
                .filter(|boot| boot.is_believed())
                .take_while(|boot| boot.plan.id != *known || boot.ready.is_some())
            {
                let what = match (boot.ready.is_some(), boot.redeemed) {
                    _ if *boot.image() != rollout.image => break,
                    // It failed before it was given the version (once more): its next boot will tell.
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

/// What the disk has of rollouts, and what nodes were well on.
fn load(world: &SharedWorld, store: &Store, boots: &Boots) -> Result<Ledger, StoreError> {
    let mut ledger = stored::load(store)?;
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

/// Hears news and looks at the time until nobody is left who could tell any.
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
        // What happens is looked at soon, and together with what happens then.
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
