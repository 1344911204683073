//! All boots that are remembered: in memory for look-ups, on disk before anybody hears of them.
//!
//! Boots do not use [`rackstrap_store::Keeper`], for two reasons. Hundreds of boots a second share a flush, which one change at a time
//! could not. And a row has promises (`redeemed`, `secret`, `ready`) next to what is written behind (health, checks): a promise is
//! marked in memory first, under the lock, so that each later write of the row has it, then committed without the lock, and taken back
//! if that fails. Until it is on disk nobody is answered by it.

use super::{
    Boot,
    beats::{Beats, LONGEST_DOUBT, two_heartbeats},
    disks::Disks,
    kept::State,
};
use rackstrap_base::{
    clock::{Timestamp, monotonic},
    sync::{read, write},
    text,
};
use rackstrap_model::inventory::Changed;
use rackstrap_store::{Batch, Store, StoreError, Table};
use rackstrap_wire::{CheckResult, DiskState, Hardware, ImageRef, OverlayRequest, Plan};
use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};
use subtle::ConstantTimeEq;
use thiserror::Error;
use uuid::Uuid;

/// Letters of ids: no upper case (some firmware folds it in URLs), no 0, 1, l, o (people read ids aloud).
const ID_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Letters of an id: 60 random bits.
const ID_LENGTH: usize = 12;

/// All pinned boots; clones share them.
#[derive(Clone)]
pub struct Boots {
    store: Store,
    state: Arc<RwLock<State>>,
    disks: Disks,
    beats: Arc<Beats>,
}

/// What is known of where a boot comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// UUID of the mainboard, as its firmware said it.
    pub uuid: Option<Uuid>,
    /// See [`Boot::privileged`].
    pub privileged: bool,
    /// See [`Boot::doubted`].
    pub doubted: bool,
}

/// Why a boot cannot be pinned or noted.
#[derive(Debug, Error)]
#[error("boot {id} of node {node} cannot be kept: {error}")]
pub struct BootsError {
    /// The boot.
    pub id: String,
    /// The node.
    pub node: String,
    /// What the store said.
    #[source]
    pub error: StoreError,
}

/// Why a request with a boot's id and token is refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// No such boot, or it is forgotten.
    #[error("boot {0} is unknown or has expired; restart the machine to start a new one")]
    Unknown(String),
    /// The token is not this boot's.
    #[error("boot {0}: wrong token")]
    Token(String),
    /// Its secrets went out before.
    #[error("boot {0}: its secrets have been sent already; restart the machine to start a new boot")]
    Redeemed(String),
    /// The token came where the secret of the running node is needed.
    #[error("boot {0}: wrong secret; after the node has its files, only the node's root can report for it")]
    Secret(String),
    /// The node's system was running when the boot was asked for.
    #[error(
        "boot {0}: the node's running system has sent a heartbeat since this boot started; restart the machine to start a new boot"
    )]
    Void(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] BootsError),
}

/// Has no boot of `store` get secrets any more: after a backup was restored, what it says of them is old. Machines that are in the
/// middle of a boot begin a new one.
///
/// # Errors
/// An error of the store.
pub fn redeem_all(store: &Store) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for (key, mut boot) in store.scan::<Boot>(Table::Boots, b"")? {
        batch = batch.expect(Table::Boots, key.clone(), &boot);
        let was_believed = boot.is_believed();
        boot.redeemed = true;
        batch = match was_believed {
            true => batch.put(Table::Boots, key, &boot),
            false => batch.delete(Table::Boots, key),
        };
    }
    store.commit_blocking(batch)
}

impl Boots {
    /// Loads all boots from the store.
    pub fn load(store: Store) -> Result<Boots, StoreError> {
        let mut boots: Vec<Boot> = store
            .scan(Table::Boots, b"")?
            .into_iter()
            .map(|(_, boot)| boot)
            .collect();
        for boot in &mut boots {
            boot.disk = boot.disk.take().map(DiskState::bounded);
            boot.hardware = boot.hardware.take().map(Hardware::bounded);
        }
        boots.sort_by_key(|boot| (boot.opened, boot.sequence));
        let disks = Disks::load(store.clone(), boots.iter())?;
        let mut state = State::default();
        for boot in boots {
            state.sequence = state.sequence.max(boot.sequence);
            state.insert(Arc::new(boot));
        }
        // Whoever may be up counts as heard of now: what only a relay says of it is not believed before it was silent for long enough.
        let beats = Beats::default();
        let start = monotonic();
        state.with_files().for_each(|node| beats.hear(node, start));
        Ok(Boots {
            store,
            state: Arc::new(RwLock::new(state)),
            disks,
            beats: Arc::new(beats),
        })
    }

    /// What is known of nodes' disks.
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Pins a boot: makes an id and a token, has `plan` written for that id, and keeps both; on disk when it returns,
    /// so that the boot script that names it can be answered. Older boots of the node are forgotten, but for the last
    /// [`KEPT_PER_NODE`](super::kept::KEPT_PER_NODE), the one that its running system came up with, and the last one whose files went out.
    pub async fn open(&self, now: Timestamp, plan: impl FnOnce(&str) -> Plan) -> Result<Arc<Boot>, BootsError> {
        self.open_on(now, Origin::default(), plan).await
    }

    /// [`Boots::open`], where more is known of where it comes from.
    pub async fn open_on(
        &self,
        now: Timestamp,
        origin: Origin,
        plan: impl FnOnce(&str) -> Plan,
    ) -> Result<Arc<Boot>, BootsError> {
        let id = new_id();
        let mut plan = plan(&id);
        plan.id.clone_from(&id);
        let ordered = self.disks.fill(&plan.node, plan.disk.as_mut());
        let boot = {
            let mut state = self.write();
            state.sequence += 1;
            Arc::new(Boot {
                plan,
                token: hex::encode(rand::random::<[u8; 16]>()),
                uuid: origin.uuid,
                ordered,
                privileged: origin.privileged,
                doubted: origin.doubted,
                opened: now,
                sequence: state.sequence,
                redeemed: false,
                secret: None,
                void: false,
                ready: None,
                healthy: None,
                checks: Vec::new(),
                disk: None,
                hardware: None,
            })
        };
        let batch = Batch::new()
            .put(Table::Boots, id.as_bytes(), &*boot)
            .expect_absent(Table::Boots, id.as_bytes());
        self.commit(&boot, batch).await?;
        let forgotten = {
            let mut state = self.write();
            state.insert(boot.clone());
            state.forget_old(&boot.plan.node)
        };
        if !forgotten.is_empty() {
            let batch = forgotten
                .iter()
                .fold(Batch::new(), |batch, id| batch.delete(Table::Boots, id.as_bytes()));
            // Should this be lost, the boots come back at the next start and are forgotten again with the next boot.
            self.store.queue(batch);
        }
        Ok(boot)
    }

    /// The boot with that id.
    pub fn get(&self, id: &str) -> Option<Arc<Boot>> {
        self.read().by_id.get(id).cloned()
    }

    /// The boot with that id, for the holder of its token.
    pub fn authenticate(&self, id: &str, token: &str) -> Result<Arc<Boot>, Refusal> {
        let boot = self.get(id).ok_or_else(|| Refusal::Unknown(text::quoted(id, 40)))?;
        if bool::from(boot.token.as_bytes().ct_eq(token.as_bytes())) {
            Ok(boot)
        } else {
            Err(Refusal::Token(boot.plan.id.clone()))
        }
    }

    /// The boot with that id, for whoever reports for its node: the holder of its token until its secrets went out, and then
    /// the holder of its secret, as every user of a running node can read the token on the kernel's command line.
    ///
    /// # Errors
    /// It is not known, or `proof` is neither.
    pub fn authenticate_node(&self, id: &str, proof: &str) -> Result<Arc<Boot>, Refusal> {
        let boot = self.get(id).ok_or_else(|| Refusal::Unknown(text::quoted(id, 40)))?;
        match &boot.secret {
            None => self.authenticate(id, proof),
            Some(secret) if secret.as_bytes().ct_eq(proof.as_bytes()).into() => Ok(boot),
            Some(_) => Err(Refusal::Secret(boot.plan.id.clone())),
        }
    }

    /// The boot with that id, if its secrets may go out to the holder of `token`.
    ///
    /// # Errors
    /// It is not known, the token is not its own, or its secrets went out already or never will.
    pub fn may_redeem(&self, id: &str, token: &str) -> Result<Arc<Boot>, Refusal> {
        let boot = self.authenticate(id, token)?;
        match (boot.redeemed, boot.void) {
            (true, _) => Err(Refusal::Redeemed(boot.plan.id.clone())),
            (_, true) => Err(Refusal::Void(boot.plan.id.clone())),
            _ => Ok(boot),
        }
    }

    /// The holder of that boot's secret was heard of: the agent after the overlay, or the system. Who has only its token may be a
    /// user, and says nothing.
    pub fn hear(&self, boot: &Boot) {
        if boot.secret.is_some() && self.read().is_latest(boot) {
            self.beats.hear(&boot.plan.node, monotonic());
        }
    }

    /// The system of that boot runs: boots of its node that began later and have no secrets yet never get any, as no firmware
    /// can have asked for them. Written behind: should it be lost, the next heartbeat says it again.
    ///
    /// True if its secret proves that, and no later boot has got secrets: whatever else was said of the node since was not the node.
    pub fn runs(&self, id: &str) -> bool {
        let Some(boot) = self.get(id) else {
            return false;
        };
        self.beats.hear(&boot.plan.node, monotonic());
        self.void_later(id);
        boot.secret.is_some() && self.read().is_latest(&boot)
    }

    fn void_later(&self, id: &str) {
        let newer = |state: &State| -> Vec<String> {
            let Some(boot) = state.by_id.get(id) else {
                return Vec::new();
            };
            let ids = state
                .by_node
                .get(&boot.plan.node)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let newer = ids.iter().filter(|other| {
                let other = state.by_id.get(*other);
                other.is_some_and(|other| other.sequence > boot.sequence && !other.redeemed && !other.void)
            });
            newer.cloned().collect()
        };
        if newer(&self.read()).is_empty() {
            return;
        }
        let mut state = self.write();
        for id in newer(&state) {
            if let Some(slot) = state.by_id.get_mut(&id) {
                Arc::make_mut(slot).void = true;
                self.store.queue(Batch::new().put(Table::Boots, id.as_bytes(), &**slot));
            }
        }
    }

    /// Firmware of `node` was heard without a relay between, which takes root's rights: its system does not run any more.
    pub fn firmware_speaks(&self, node: &str) {
        self.beats.forget(node);
    }

    /// True if the running system of `node` was heard of lately: it is not its firmware that speaks now. `heartbeat_secs` is the
    /// site's; the node may be in a boot that has another one.
    pub fn is_alive(&self, node: &str, heartbeat_secs: u32) -> bool {
        self.beats
            .is_alive(node, self.patience(node, heartbeat_secs), monotonic())
    }

    /// How long `node` may be silent.
    pub(super) fn patience(&self, node: &str, heartbeat_secs: u32) -> Duration {
        let state = self.read();
        let last = state.last_with_files(node);
        let heartbeat = last.map_or(0, |boot| boot.plan.heartbeat_secs).max(heartbeat_secs);
        // Heartbeats begin with `ready`, and users may be on the node before.
        match last.is_some_and(|boot| boot.ready.is_none()) {
            true => LONGEST_DOUBT,
            false => two_heartbeats(heartbeat).min(LONGEST_DOUBT),
        }
    }

    /// Seconds, rounded up, for which `boot` gets no secrets yet; none if it may have them. Only a relay said that its node boots, and the agent of
    /// its image asks from any port, as a user of the running system can. The node's heartbeats void what a user began; if it
    /// boots, they are missing soon, and it waits for that no longer than [`LONGEST_DOUBT`].
    pub fn held_for(&self, boot: &Boot, heartbeat_secs: u32) -> Option<u64> {
        if !boot.doubted || boot.privileged {
            return None;
        }
        self.beats.silent_in(
            &boot.plan.node,
            self.patience(&boot.plan.node, heartbeat_secs),
            monotonic(),
        )
    }

    /// That boot as its node is told it now: an order about its disk that was withdrawn since it was pinned is in it no more. From
    /// here on the node counts as told, and [`Boots::has_order`] says so.
    pub fn send_plan(&self, id: &str) -> Option<Boot> {
        let mut boot = {
            let mut state = self.write();
            let slot = state.by_id.get_mut(id)?;
            if slot.ordered.as_ref().is_some_and(|ordered| !ordered.sent) {
                let boot = Arc::make_mut(slot);
                if let Some(ordered) = &mut boot.ordered {
                    ordered.sent = true;
                }
                self.store.queue(Batch::new().put(Table::Boots, id.as_bytes(), &*boot));
            }
            Boot::clone(slot)
        };
        // After the mark: whoever withdraws the order, and finds no mark then, knows that it is seen here.
        self.disks.withdraw(&mut boot);
        Some(boot)
    }

    /// True if a boot of `node` has that order about the disk already and has not got over the disk yet: the order cannot be
    /// withdrawn any more.
    pub fn has_order(&self, node: &str, order: u64) -> bool {
        let boots = self.of_node(node);
        let mut boots = boots.iter().filter(|boot| !boot.redeemed && !boot.void);
        boots.any(|boot| {
            boot.ordered
                .as_ref()
                .is_some_and(|ordered| ordered.sent && ordered.id == order)
        })
    }

    /// The number of the newest boot of all: [`Boot::sequence`] of whatever begins later is higher.
    pub fn sequence(&self) -> u64 {
        self.read().sequence
    }

    /// Gives boots that begin from now on higher numbers than that: the newest of all may have been forgotten with its node.
    pub fn count_from(&self, sequence: Option<u64>) {
        let mut state = self.write();
        state.sequence = state.sequence.max(sequence.unwrap_or(0));
    }

    /// The newest boot of `node` that it is in, as far as is known: see [`Boot::is_believed`].
    pub fn current(&self, node: &str) -> Option<Arc<Boot>> {
        self.of_node(node).into_iter().find(|boot| boot.is_believed())
    }

    /// All remembered boots of `node`, newest first.
    pub fn of_node(&self, node: &str) -> Vec<Arc<Boot>> {
        let state = self.read();
        let ids = state.by_node.get(node).map(Vec::as_slice).unwrap_or_default();
        ids.iter().rev().filter_map(|id| state.by_id.get(id).cloned()).collect()
    }

    /// True if `node` may hold `image` as its root: it is the image of its running system or of a boot since then.
    pub fn may_mount(&self, node: &str, image: &ImageRef) -> bool {
        let state = self.read();
        state.live(node).any(|boot| boot.image() == image)
    }

    /// Images that nodes run from or are booting into; these cannot be deleted.
    pub fn images_in_use(&self) -> BTreeSet<ImageRef> {
        let state = self.read();
        let nodes = state.by_node.keys();
        nodes
            .flat_map(|node| state.live(node).map(|boot| boot.image().clone()))
            .collect()
    }

    /// Notes that the boot's secrets are about to go out, and what the agent says of disk and machine. Succeeds once
    /// per boot, and is on disk when it returns: also a crash between here and the answer lets nobody ask again. From then on
    /// the node proves itself with `secret`, if its agent knows how.
    pub async fn redeem(
        &self,
        id: &str,
        request: &OverlayRequest,
        secret: Option<String>,
    ) -> Result<Arc<Boot>, Refusal> {
        self.may_redeem(id, &request.token)?;
        let boot = {
            let mut state = self.write();
            let slot = state
                .by_id
                .get_mut(id)
                .ok_or_else(|| Refusal::Unknown(text::quoted(id, 40)))?;
            if slot.redeemed {
                return Err(Refusal::Redeemed(slot.plan.id.clone()));
            }
            let boot = Arc::make_mut(slot);
            boot.redeemed = true;
            boot.secret = secret;
            boot.disk = Some(request.disk.clone().bounded());
            boot.hardware = Some(request.hardware.clone().bounded());
            slot.clone()
        };
        let mut batch = Batch::new().put(Table::Boots, boot.plan.id.as_bytes(), &*boot);
        let row = boot.disk.as_ref().map(|state| self.disks.note(&boot, state));
        if let Some(row) = &row {
            batch = batch.put(Table::Disks, boot.plan.node.as_bytes(), row);
        }
        self.commit(&boot, batch).await.inspect_err(|_| {
            // Nothing went out: the agent may try again when the store is writable.
            if let Some(slot) = self.write().by_id.get_mut(id) {
                let boot = Arc::make_mut(slot);
                (boot.redeemed, boot.secret) = (false, None);
            }
        })?;
        if let Some(row) = &row {
            self.disks.settle(&boot.plan.node, row);
        }
        self.beats.hear(&boot.plan.node, monotonic());
        Ok(boot)
    }

    /// Notes that the boot's system is up. Said again, nothing changes.
    pub async fn mark_ready(&self, id: &str, token: &str, now: Timestamp) -> Result<Arc<Boot>, Refusal> {
        let before = self.authenticate_node(id, token)?;
        if before.ready.is_some() {
            return Ok(before);
        }
        let boot = {
            let mut state = self.write();
            let slot = state
                .by_id
                .get_mut(id)
                .ok_or_else(|| Refusal::Unknown(text::quoted(id, 40)))?;
            Arc::make_mut(slot).ready = Some(now);
            slot.clone()
        };
        self.keep(&boot).await.inspect_err(|_| {
            if let Some(slot) = self.write().by_id.get_mut(id) {
                Arc::make_mut(slot).ready = None;
            }
        })?;
        Ok(boot)
    }

    /// Notes whether the node's checks hold. Written behind: should that be lost, the next heartbeat says it again.
    pub fn note_health(&self, id: &str, token: &str, healthy: bool) -> Result<(), Refusal> {
        let before = self.authenticate_node(id, token)?;
        if before.healthy == Some(healthy) {
            return Ok(());
        }
        let mut state = self.write();
        let slot = state
            .by_id
            .get_mut(id)
            .ok_or_else(|| Refusal::Unknown(text::quoted(id, 40)))?;
        Arc::make_mut(slot).healthy = Some(healthy);
        // With the lock held: queued later, it could overwrite what somebody else has on disk by then.
        let key = slot.plan.id.as_bytes();
        self.store.queue(Batch::new().put(Table::Boots, key, &**slot));
        Ok(())
    }

    /// Notes what came of the checks of the boot's plan; what is not among these is left out. Written behind, as [`Boots::note_health`].
    pub fn note_checks(&self, id: &str, token: &str, results: Vec<CheckResult>) -> Result<(), Refusal> {
        /// Of a detail, bytes (the wire's limit).
        const DETAIL: usize = 200;
        let before = self.authenticate_node(id, token)?;
        let known = &before.plan.health;
        let mut checks: Vec<CheckResult> = Vec::new();
        for mut result in results {
            if known.has(&result.check) && checks.iter().all(|other| other.check != result.check) {
                result.detail = text::one_line(&result.detail, DETAIL);
                checks.push(result);
            }
        }
        if before.checks == checks {
            return Ok(());
        }
        let mut state = self.write();
        let slot = state
            .by_id
            .get_mut(id)
            .ok_or_else(|| Refusal::Unknown(text::quoted(id, 40)))?;
        Arc::make_mut(slot).checks = checks;
        let key = slot.plan.id.as_bytes();
        self.store.queue(Batch::new().put(Table::Boots, key, &**slot));
        Ok(())
    }

    /// Forgets boots and disks of what `is_node` does not know: a release before this one may have left some behind when it was
    /// stopped in the middle of a change.
    pub fn retain_nodes(&self, is_node: impl Fn(&str) -> bool) {
        self.disks.retain(&is_node);
        let known: Vec<String> = self.read().by_node.keys().cloned().collect();
        self.forget(known.iter().map(String::as_str).filter(|node| !is_node(node)));
    }

    /// What a change of the inventory means for the rows of boots and disks, to be written with it: boots of a name that is given up
    /// are forgotten, as no machine may go on with those of another one.
    pub fn followed_rows(&self, changed: &[Changed]) -> Batch {
        let boots = {
            let state = self.read();
            let known = given_up(changed).filter_map(|node| state.by_node.get(node));
            let ids = known.flatten();
            ids.fold(Batch::new(), |batch, id| batch.delete(Table::Boots, id.as_bytes()))
        };
        boots.and(self.disks.followed_rows(changed))
    }

    /// Does the same in memory, once that is on disk.
    pub fn publish_followed(&self, changed: &[Changed]) {
        self.forget(given_up(changed));
        self.disks.publish_followed(changed);
    }

    fn forget<'a>(&self, nodes: impl Iterator<Item = &'a str>) {
        let mut batch = Batch::new();
        let mut state = self.write();
        for node in nodes {
            self.beats.forget(node);
            for id in state.by_node.remove(node).unwrap_or_default() {
                state.by_id.remove(&id);
                batch = batch.delete(Table::Boots, id.as_bytes());
            }
        }
        if !batch.is_empty() {
            self.store.queue(batch);
        }
    }

    async fn keep(&self, boot: &Boot) -> Result<(), BootsError> {
        let batch = Batch::new().put(Table::Boots, boot.plan.id.as_bytes(), boot);
        self.commit(boot, batch).await
    }

    async fn commit(&self, boot: &Boot, batch: Batch) -> Result<(), BootsError> {
        self.store.commit(batch).await.map_err(|error| BootsError {
            id: boot.plan.id.clone(),
            node: boot.plan.node.clone(),
            error,
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        read(&self.state)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        write(&self.state)
    }
}

/// Names that nodes have no more.
fn given_up(changed: &[Changed]) -> impl Iterator<Item = &str> {
    changed.iter().filter_map(|changed| {
        let before = &changed.before.as_ref()?.name;
        let kept = changed.after.as_ref().is_some_and(|after| after.name == *before);
        (!kept).then_some(before.as_str())
    })
}

fn new_id() -> String {
    let random: [u8; ID_LENGTH] = rand::random();
    random
        .iter()
        .map(|byte| char::from(ID_LETTERS[usize::from(byte % 32)]))
        .collect()
}
