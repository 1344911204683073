//! The keeper: hears of boots without holding them up, looks at the time, and has all that is assigned on disk before
//! decisions see it.

use super::{
    health,
    ledger::Ledger,
    machine::Audience,
    model::{Rollout, Seen, State},
};
use crate::{
    boots::{Boot, Boots},
    clock::Timestamp,
    decide::{SharedWorld, World},
    inventory::{Node, Settings},
    store::{Store, StoreError, Table},
    timeline::{Event, Recorder, State as NodeState, Subject},
};
use rackstrap_wire::ImageRef;
use std::{
    collections::{BTreeMap, HashMap},
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
/// Firmware and loaders that say nothing for so long are switched off, or stand at a screen, milliseconds.
const SILENCE_MS: u64 = 300_000;

/// The keeper; clones share it.
#[derive(Clone)]
pub struct Rollouts {
    pub(super) shared: Arc<Shared>,
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
}

impl Heard {
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            up: self.up,
            heard: self.heard,
            trouble: &self.trouble,
        }
    }
}

/// Has no rollout of `store` go on by itself: after a backup was restored, what it says of them is old.
///
/// # Errors
/// Those of the store.
pub fn pause_all(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    store.write(|tx| {
        for (key, mut rollout) in tx.scan::<Rollout>(Table::Rollouts, b"")? {
            if rollout.pause("restoring a backup", now).is_ok() {
                tx.put(Table::Rollouts, &key, &rollout)?;
            }
        }
        Ok(())
    })
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
                boots.iter().find(|boot| health::healthy(boot)),
                ledger.good.contains_key(&node.name),
            ) {
                ledger.good.insert(node.name.clone(), boot.image().clone());
            }
        }
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

    /// True if the agent of `node`, which is up in `boot`, is to restart it now: a rollout with `--reboot` gives the node another
    /// version, and not too many are down. It counts as down from then on. Never waits: asked while something is written, the
    /// answer is no, and yes at the next heartbeat.
    pub fn reboot_wanted(&self, node: &str, boot: &str, now: Timestamp) -> bool {
        let world = self.shared.world.load();
        if world.assignments.restarting.is_empty() {
            return false;
        }
        let Some(running) = self.running(node).filter(|running| running.plan.id == boot) else {
            return false;
        };
        let Ok(mut ledger) = self.shared.ledger.try_lock() else {
            return false;
        };
        let number = leaves(&world, &ledger, &running);
        number.is_some_and(|number| ledger.may_restart(number, node, boot, now))
    }

    /// What a node runs: the newest of its boots that got ready.
    fn running(&self, node: &str) -> Option<Arc<Boot>> {
        let boots = self.shared.boots.of_node(node);
        boots.into_iter().find(|boot| boot.ready.is_some())
    }

    /// Writes what is new, then lets decisions see it, and tells timelines.
    pub(super) fn settle(&self, ledger: &mut Ledger) -> Result<(), StoreError> {
        if ledger.is_unwritten() {
            self.shared.store.write(|tx| ledger.write(tx))?;
            self.publish(ledger);
            ledger.news().iter().for_each(|line| tracing::info!("{line}"));
        }
        let now = Timestamp::now();
        for told in ledger.written() {
            let event = Event::new(now, "rollout", told.level, told.what);
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
        let recorder = &self.shared.recorder;
        let standing = recorder.standing(&Subject::Node(node.to_owned())).unwrap_or_default();
        let heartbeat = world.site.limits.heartbeat_secs;
        let (state, _) = standing.state_at(now, recorder.listening_since(), heartbeat);
        Heard {
            up: match state {
                NodeState::Ready | NodeState::Degraded => true,
                NodeState::Loading | NodeState::Agent | NodeState::Starting => now.since(standing.heard) < SILENCE_MS,
                NodeState::Absent | NodeState::Lost | NodeState::Waiting => false,
            },
            heard: standing.heard,
            trouble: match state {
                NodeState::Degraded => standing.last_error,
                _ => String::new(),
            },
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
        let (node, id, image) = (boot.plan.node.as_str(), boot.plan.id.as_str(), boot.image());
        match what {
            What::Opened => {
                if let Some(wanted) = self.wanted(&world, node) {
                    ledger.opened(node, image, &wanted, at);
                }
            }
            What::Took => ledger.took(node, id, image, at),
            What::Ready => {
                let wanted = self.wanted(&world, node);
                ledger.ready(node, id, image, &health::problem(boot), wanted.as_ref(), at);
            }
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
                .take_while(|boot| boot.plan.id != known || boot.ready.is_some())
            {
                let what = match (boot.ready.is_some(), boot.redeemed) {
                    _ if boot.image() != image => break,
                    // It failed before it was given the version (once more): its next boot will tell.
                    (true, _) if known.is_empty() && !health::healthy(boot) => break,
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

/// The rollout with `--reboot` because of which a node is to leave `boot`, which it runs, for another version.
fn leaves(world: &World, ledger: &Ledger, boot: &Boot) -> Option<u64> {
    let node = world.inventory.get(&boot.plan.node)?;
    let limit = world.site.limits.boots_before_going_back;
    let choice = world
        .assignments
        .choose(&node.name, setting(world, node)?, &world.images, limit);
    let choice = choice.ok().filter(|choice| choice.image != *boot.image())?;
    let last = ledger.last_of(&choice.wanted.name)?;
    // Of a rollout: its nodes that do not run its version, or have to leave it. Of one that was ended: those that run it.
    let concerned = match last.stage.is_taken_back() {
        true => *boot.image() == last.image,
        false => choice.wanted == last.image && last.nodes.contains_key(&node.name),
    };
    (last.reboot && concerned).then_some(last.number)
}

/// Hears news until nobody is left who could tell any.
fn listen(heard: &Receiver<News>, rollouts: impl Fn() -> Option<Rollouts>) {
    let mut looked = Timestamp(0);
    loop {
        let news = match heard.recv_timeout(TICK) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(rollouts) = rollouts() else { return };
        if news.is_some() {
            let mut ledger = rollouts.ledger();
            let mut asked = Vec::new();
            for news in news.into_iter().chain(heard.try_iter().take(QUEUE)) {
                match news {
                    News::Boot(what, boot, at) => rollouts.note(&mut ledger, &what, &boot, at),
                    News::Asked(whom) => asked.push(whom),
                }
            }
            if let Err(error) = rollouts.settle(&mut ledger) {
                // It stays unwritten, and is written with what comes next.
                tracing::error!("rollouts: boots cannot be noted: {error}");
            }
            for whom in asked {
                // Who asked may have gone.
                let _ = whom.send(());
            }
        }
        let now = Timestamp::now();
        if now.since(looked) >= TICK.as_millis() as u64 || now < looked {
            rollouts.look(now);
            looked = now;
        }
    }
}
