//! The keeper: hears of boots without holding them up, looks at the time, and has all that is assigned on disk before
//! decisions see it.

use super::{
    ledger::Ledger,
    machine::Audience,
    model::{Rollout, Seen, State},
};
use crate::{
    boots::{Boot, Boots},
    decide::{SharedWorld, World},
    inventory::{Node, Settings},
    timeline::{Event, EventKind, Level, NodeStatus, Recorder, Subject},
};
use rackstrap_base::{clock::Timestamp, panics};
use rackstrap_store::{Batch, Store, StoreError, Table};
use rackstrap_wire::ImageRef;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// Boots that may wait for the keeper. What does not fit is found when it looks at the boots themselves, every [`TICK`].
const QUEUE: usize = 8192;
/// How often it looks at the time.
const TICK: Duration = Duration::from_secs(1);
/// How long a boot script may wait for the keeper.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// The keeper; clones share it.
#[derive(Clone)]
pub struct Rollouts {
    pub(super) shared: Arc<Shared>,
}

/// A node's restart for a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reboot {
    /// Name of the image.
    pub image: String,
    /// How long the node has from its first boot until it has to be ready, seconds: `--ready-within` of the rollout.
    pub ready_within_secs: u64,
}

pub(super) struct Shared {
    pub(super) world: SharedWorld,
    pub(super) store: Store,
    recorder: Recorder,
    pub(super) boots: Boots,
    ledger: Mutex<Ledger>,
    news: SyncSender<News>,
}

/// What the keeper hears.
enum News {
    /// Something about a boot.
    Boot(What, Arc<Boot>, Timestamp),
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

/// Where a node is.
pub(super) struct Heard {
    up: bool,
    heard: Timestamp,
    trouble: String,
    stalled: String,
    image: Option<ImageRef>,
    opened: Timestamp,
}

impl Heard {
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            up: self.up,
            heard: self.heard,
            trouble: &self.trouble,
            stalled: &self.stalled,
            image: self.image.as_ref(),
            opened: self.opened,
        }
    }
}

/// Has no rollout of `store` go on by itself: after a backup was restored, what it says of them is old.
///
/// # Errors
/// Those of the store.
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

/// The image that a node's profiles name: a name, or a version.
pub(super) fn setting<'a>(world: &'a World, node: &Node) -> Option<&'a str> {
    Settings::of(&world.site, &node.profiles, |_| ()).text(|p| &p.image)
}

impl Rollouts {
    /// Loads what is known, lets the world know, and begins to listen.
    ///
    /// # Errors
    /// The store's.
    pub fn start(world: SharedWorld, store: Store, recorder: Recorder, boots: Boots) -> Result<Rollouts, StoreError> {
        let ledger = load(&world, &store, &boots)?;
        let (news, heard) = sync_channel(QUEUE);
        let rollouts = Rollouts {
            shared: Arc::new(Shared {
                world,
                store,
                recorder,
                boots,
                ledger: Mutex::new(ledger),
                news,
            }),
        };
        rollouts.publish(&rollouts.ledger());
        let weak = Arc::downgrade(&rollouts.shared);
        let listener = move || listen(&heard, || weak.upgrade().map(|shared| Rollouts { shared }));
        if let Err(error) = std::thread::Builder::new().name("rollouts".into()).spawn(listener) {
            tracing::error!("rollouts: cannot start their thread, so none goes on: {error}");
        }
        Ok(rollouts)
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

    /// The image because of whose rollout the agent of `node`, which is up in `boot`, is to restart it now: one with `--reboot` that
    /// gives the node another version, while not too many are down. It counts as down from then on. Never waits: asked while
    /// something is written, the answer is none, and the image at the next heartbeat. `untold` is true if it is being drained for
    /// that.
    pub fn reboot_wanted(&self, node: &str, boot: &str, untold: bool, now: Timestamp) -> Option<Reboot> {
        let image = self.leaves(node, boot)?;
        let mut ledger = self.shared.ledger.try_lock().ok()?;
        let rollout = ledger.last_of(&image)?;
        let (number, ready_within_secs) = (rollout.number, rollout.ready_within_secs);
        let may = ledger.may_restart(number, node, boot, untold, now);
        may.then_some(Reboot {
            image,
            ready_within_secs,
        })
    }

    /// The image whose rollout has `node` leave `boot`, in which it is up, for another version, be it its turn or not. Never waits.
    pub fn leaves(&self, node: &str, boot: &str) -> Option<String> {
        let world = self.shared.world.load();
        if world.assignments.restarting.is_empty() {
            return None;
        }
        let running = self.running(node).filter(|running| running.plan.id == boot)?;
        let setting = setting(&world, world.inventory.get(node)?)?;
        let limit = world.site.limits.boots_before_going_back;
        let assignments = &world.assignments;
        assignments.leaves(node, setting, running.image(), &world.images, limit)
    }

    /// True if the rollout of `image` (still) wants `node` to leave what it runs.
    pub fn wants_restarted(&self, image: &str, node: &str) -> bool {
        let running = self.running(node);
        running.is_some_and(|boot| self.leaves(node, &boot.plan.id).as_deref() == Some(image))
    }

    /// Nodes that the rollout of `image` wanted restarted stay up after all, and so count as down no longer. Waits for whoever
    /// writes.
    pub fn not_restarted(&self, image: &str, nodes: &[String]) {
        // Written with what comes next, within a second: a node that counts as down too long is only waited for.
        self.ledger().not_restarted(image, nodes);
    }

    /// What a node runs: the newest of its boots that got ready.
    fn running(&self, node: &str) -> Option<Arc<Boot>> {
        let boots = self.shared.boots.of_node(node);
        boots.into_iter().find(|boot| boot.ready.is_some())
    }

    /// Writes what is new, then lets decisions see it, and tells timelines.
    pub(super) fn settle(&self, ledger: &mut Ledger) -> Result<(), StoreError> {
        if ledger.is_unwritten() {
            // With whatever else waits for the disk just now: boots that begin, mostly.
            self.shared.store.commit_blocking(ledger.unwritten())?;
            self.publish(ledger);
            ledger.news().iter().for_each(|line| tracing::info!("{line}"));
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

    /// Where the nodes are that boot whatever version of `image` is given to them.
    pub(super) fn audience(&self, world: &World, image: &str, now: Timestamp) -> BTreeMap<String, Heard> {
        let nodes = world
            .inventory
            .iter()
            .filter(|node| setting(world, node) == Some(image));
        nodes
            .map(|node| (node.name.clone(), self.heard_of(world, &node.name, now)))
            .collect()
    }

    pub(super) fn heard_of(&self, world: &World, node: &str, now: Timestamp) -> Heard {
        let status = NodeStatus::of(world, &self.shared.recorder, &self.shared.boots, node, now);
        Heard {
            up: status.is_on(now),
            heard: status.heard.unwrap_or_default(),
            image: status.boot.as_ref().map(|boot| boot.image().clone()),
            opened: status.boot.as_ref().map(|boot| boot.opened).unwrap_or_default(),
            stalled: status.stalled().to_owned(),
            trouble: status.lacks().to_owned(),
        }
    }

    /// Notes all that is new, has it on disk, and lets those know who asked.
    fn hear_all(&self, news: impl Iterator<Item = News>) {
        let mut ledger = self.ledger();
        let mut asked = Vec::new();
        for news in news {
            match news {
                News::Boot(what, boot, at) => self.note(&mut ledger, &what, &boot, at),
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

    /// After a panic: what memory says may be half of a change, and the disk has what was confirmed.
    fn mend(&self) {
        match load(&self.shared.world, &self.shared.store, &self.shared.boots) {
            Ok(loaded) => {
                let mut ledger = self.ledger();
                *ledger = loaded;
                self.publish(&ledger);
            }
            Err(error) => tracing::error!("rollouts go on with what memory has of them: {error}"),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
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
                    self.begin_anew(&world, ledger, node, at);
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

    fn begin_anew(&self, world: &World, ledger: &mut Ledger, node: &str, now: Timestamp) {
        let heard = self.heard_of(world, node, now);
        if ledger.forgive(node, heard.seen(), now) {
            ledger.tell(node, Level::Ok, "is other hardware now: tries again what it failed at");
        }
    }

    /// Everything that time brings about, and what was not heard of.
    pub(super) fn look(&self, now: Timestamp) {
        let world = self.shared.world.load_full();
        let mut ledger = self.ledger();
        let on = ledger.rollouts.values().filter(|rollout| rollout.is_on());
        let on: Vec<(u64, ImageRef)> = on.map(|rollout| (rollout.number, rollout.image.clone())).collect();
        for (number, image) in on {
            self.catch_up(&mut ledger, number, &image, now);
            let heard = self.audience(&world, &image.name, now);
            let all: Audience<'_> = heard.iter().map(|(node, heard)| (node.clone(), heard.seen())).collect();
            ledger.tick(number, &all, "the rollout", now);
        }
        let over: Vec<String> = ledger
            .trials
            .iter()
            .filter(|(node, trial)| self.wanted(&world, node).as_ref() != Some(&trial.image))
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
            .filter(|node| self.is_replaced(&world, &ledger, node))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.begin_anew(&world, &mut ledger, &node, now);
        }
        let ledger = &mut *ledger;
        ledger.good.retain(|node, _| world.inventory.get(node).is_some());
        if let Err(error) = self.settle(ledger) {
            tracing::error!("rollouts stand still: {error}");
        }
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
            ledger.good.contains_key(&node.name),
        ) {
            ledger.good.insert(node.name.clone(), boot.image().clone());
        }
    }
    Ok(ledger)
}

/// Hears news until nobody is left who could tell any.
fn listen(heard: &Receiver<News>, rollouts: impl Fn() -> Option<Rollouts>) {
    let mut looked = Timestamp(0);
    let step = || {
        let news = match heard.recv_timeout(TICK) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        };
        let Some(rollouts) = rollouts() else {
            return ControlFlow::Break(());
        };
        if let Some(news) = news {
            rollouts.hear_all(std::iter::once(news).chain(heard.try_iter().take(QUEUE)));
        }
        let now = Timestamp::now();
        if now.since(looked) >= TICK.as_millis() as u64 || now < looked {
            looked = now;
            rollouts.look(now);
        }
        ControlFlow::Continue(())
    };
    panics::keep_at(step, || {
        if let Some(rollouts) = rollouts() {
            rollouts.mend();
        }
    });
}
