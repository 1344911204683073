//! The registry of boots: in memory for look-ups, and on disk before anything is answered.
//!
//! Boots do not use [`rackstrap_store::Keeper`], for two reasons. Hundreds of boots a second share a flush, which one change at a time
//! could not. And a row has promises (`redeemed`, `secret`, `ready`) next to what is written behind (health, checks): a promise is
//! marked in memory first, under the lock, so that each later write of the row has it, then committed without the lock, and
//! taken back if that fails. Requests are answered by it only when it is on disk.

use super::{
    Boot,
    beats::{Heartbeats, LONGEST_DOUBT, two_heartbeats},
    disks::Disks,
    kept::State,
    orders::Orders,
};
use rackstrap_base::{
    clock::{Timestamp, monotonic},
    sync::{read, write},
    text,
};
use rackstrap_model::{disks::older_agent, orders::Once};
use rackstrap_store::{Batch, Store, StoreError, Table};
use rackstrap_wire::{CheckResult, DiskState, Hardware, OverlayRequest, Plan};
use std::{
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};
use subtle::ConstantTimeEq;
use thiserror::Error;
use uuid::Uuid;

/// Letters of ids: no upper case, as some firmware converts it in URLs, and no 0, 1, l and o, as people read ids aloud.
const ID_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Letters of an id: 60 random bits.
const ID_LENGTH: usize = 12;

/// All pinned boots; clones share them.
#[derive(Clone)]
pub struct Boots {
    pub(super) store: Store,
    state: Arc<RwLock<State>>,
    pub(super) disks: Disks,
    pub(super) orders: Orders,
    pub(super) heartbeats: Arc<Heartbeats>,
}

/// The origin of a boot.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// UUID of the mainboard, as its firmware reported it.
    pub uuid: Option<Uuid>,
    /// See [`Boot::privileged`].
    pub privileged: bool,
    /// See [`Boot::doubted`].
    pub doubted: bool,
    /// See [`Boot::settings`].
    pub settings: Option<u64>,
    /// See [`Boot::once`].
    pub once: Option<Once>,
}

/// Why a boot cannot be pinned or recorded.
#[derive(Debug, Error)]
#[error("boot {id} of node {node} cannot be kept: {error}")]
pub struct BootsError {
    /// Id of the boot.
    pub id: String,
    /// Name of the node.
    pub node: String,
    /// The error of the store.
    #[source]
    pub error: StoreError,
}

/// Why a request with a boot's id and token is refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The boot does not exist, or was forgotten.
    #[error("boot {0} is unknown or has expired; restart the machine to start a new one")]
    Unknown(String),
    /// The token is not this boot's.
    #[error("boot {0}: wrong token")]
    Token(String),
    /// The secrets of the boot were sent before.
    #[error("boot {0}: its secrets have been sent already; restart the machine to start a new boot")]
    Redeemed(String),
    /// The token was sent where the secret of the running node is needed.
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

/// Makes sure that no boot of `store` gets secrets any more: after a backup was restored, its record of sent secrets is old.
/// Machines in the middle of a boot begin a new one.
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
        let orders = Orders::load(store.clone())?;
        let mut state = State::default();
        for boot in boots {
            state.sequence = state.sequence.max(boot.sequence);
            state.insert(Arc::new(boot));
        }
        // Each node that may be up counts as heard of now: a relay's report about it is not believed until the node was
        // silent for long enough.
        let heartbeats = Heartbeats::default();
        let start = monotonic();
        state.with_files().for_each(|node| heartbeats.hear(node, start));
        Ok(Boots {
            store,
            state: Arc::new(RwLock::new(state)),
            disks,
            orders,
            heartbeats: Arc::new(heartbeats),
        })
    }

    /// The registry of nodes' disks.
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    /// The registry of orders for one boot.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Pins a boot: makes an id and a token, calls `plan` with the id, and keeps the result. It is on disk when this returns,
    /// so that the boot script can be sent. Forgets the node's older boots but for [`KEPT_PER_NODE`](super::kept::KEPT_PER_NODE),
    /// the one that its running system came up with, and the last one whose files were sent.
    pub async fn open(&self, now: Timestamp, plan: impl FnOnce(&str) -> Plan) -> Result<Arc<Boot>, BootsError> {
        self.open_on(now, Origin::default(), plan).await
    }

    /// [`Boots::open`] with more knowledge of where the boot comes from.
    pub async fn open_on(
        &self,
        now: Timestamp,
        origin: Origin,
        plan: impl FnOnce(&str) -> Plan,
    ) -> Result<Arc<Boot>, BootsError> {
        let id = new_id();
        let mut plan = plan(&id);
        plan.id.clone_from(&id);
        // A shell in RAM leaves the disk alone, and an order about the disk to the boot after it.
        let touches_disk = origin.once.as_ref().is_none_or(|once| !once.what.is_shell());
        let ordered = match touches_disk {
            true => self.disks.fill(&plan.node, plan.disk.as_mut()),
            false => None,
        };
        let boot = {
            let mut state = self.write();
            state.sequence += 1;
            Arc::new(Boot {
                plan,
                token: hex::encode(rand::random::<[u8; 16]>()),
                uuid: origin.uuid,
                ordered,
                once: origin.once,
                privileged: origin.privileged,
                doubted: origin.doubted,
                opened: now,
                sequence: state.sequence,
                settings: origin.settings,
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
            // If this write is lost, the boots come back at the next start, and are forgotten with the node's next boot.
            self.store.queue(batch);
        }
        Ok(boot)
    }

    /// The boot with this id.
    pub fn get(&self, id: &str) -> Option<Arc<Boot>> {
        self.read().by_id.get(id).cloned()
    }

    /// The boot with this id, if `token` is its token.
    pub fn authenticate(&self, id: &str, token: &str) -> Result<Arc<Boot>, Refusal> {
        let boot = self.get(id).ok_or_else(|| Refusal::Unknown(text::quoted(id, 40)))?;
        if bool::from(boot.token.as_bytes().ct_eq(token.as_bytes())) {
            Ok(boot)
        } else {
            Err(Refusal::Token(boot.plan.id.clone()))
        }
    }

    /// The boot with this id, if `proof` shows that the request comes from its node: the token until the secrets were sent,
    /// and then the secret, because every user of a running node can read the token on the kernel command line.
    ///
    /// # Errors
    /// The boot is unknown, or `proof` is neither.
    pub fn authenticate_node(&self, id: &str, proof: &str) -> Result<Arc<Boot>, Refusal> {
        let boot = self.get(id).ok_or_else(|| Refusal::Unknown(text::quoted(id, 40)))?;
        match &boot.secret {
            None => self.authenticate(id, proof),
            Some(secret) if secret.as_bytes().ct_eq(proof.as_bytes()).into() => Ok(boot),
            Some(_) => Err(Refusal::Secret(boot.plan.id.clone())),
        }
    }

    /// The boot with this id, if its secrets may be sent to the holder of `token`.
    ///
    /// # Errors
    /// The boot is unknown, the token is wrong, or its secrets were sent already or are never sent.
    pub fn may_redeem(&self, id: &str, token: &str) -> Result<Arc<Boot>, Refusal> {
        let boot = self.authenticate(id, token)?;
        match (boot.redeemed, boot.void) {
            (true, _) => Err(Refusal::Redeemed(boot.plan.id.clone())),
            (_, true) => Err(Refusal::Void(boot.plan.id.clone())),
            _ => Ok(boot),
        }
    }

    /// Records that the holder of that boot's secret was heard of: the agent after the overlay, or the system. A request with
    /// the token only may come from a user, and counts for nothing.
    pub fn hear(&self, boot: &Boot) {
        if boot.secret.is_some() && self.read().is_latest(boot) {
            self.heartbeats.hear(&boot.plan.node, monotonic());
        }
    }

    /// Records that the system of this boot runs. Later boots of its node that have no secrets yet never get any, because no
    /// firmware can have asked for them. The write is not waited for: if it is lost, the next heartbeat repeats it.
    ///
    /// Returns whether the boot has a secret and no later boot has been sent its secrets. Then all other requests since then
    /// in the node's name did not come from the node.
    pub fn runs(&self, id: &str) -> bool {
        let Some(boot) = self.get(id) else {
            return false;
        };
        self.heartbeats.hear(&boot.plan.node, monotonic());
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

    /// Records that firmware of `node` was heard without a relay, which takes root's rights: its system has ended.
    pub fn firmware_speaks(&self, node: &str) {
        self.heartbeats.forget(node);
    }

    /// Whether the running system of `node` was heard of lately, so that requests in its name do not come from its firmware.
    /// `heartbeat_secs` is the site's period; the node's boot may have another one.
    pub fn is_alive(&self, node: &str, heartbeat_secs: u32) -> bool {
        self.heartbeats
            .is_alive(node, self.patience(node, heartbeat_secs), monotonic())
    }

    /// How long `node` may be silent.
    pub(super) fn patience(&self, node: &str, heartbeat_secs: u32) -> Duration {
        let state = self.read();
        let last = state.last_with_files(node);
        let heartbeat = last.map_or(0, |boot| boot.plan.heartbeat_secs).max(heartbeat_secs);
        // Heartbeats begin with `ready`, but users may be on the node before that.
        match last.is_some_and(|boot| boot.ready.is_none()) {
            true => LONGEST_DOUBT,
            false => two_heartbeats(heartbeat).min(LONGEST_DOUBT),
        }
    }

    /// Seconds, rounded up, until `boot` may get its secrets; none if it may have them now. Only a relay reported that its
    /// node boots, and the agent of its image asks from any port, as a user of the running system can. The node's heartbeats
    /// void a boot that a user began. If the node really boots, it sends none, and the wait ends after `LONGEST_DOUBT`.
    pub fn held_for(&self, boot: &Boot, heartbeat_secs: u32) -> Option<u64> {
        if !boot.doubted || boot.privileged {
            return None;
        }
        self.heartbeats.silent_in(
            &boot.plan.node,
            self.patience(&boot.plan.node, heartbeat_secs),
            monotonic(),
        )
    }

    /// The boot as it is sent to its node now, without an order about its disk that was cancelled since it was pinned. From
    /// now on the node counts as having the plan, and [`Boots::has_order`] says so.
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
        // After the mark: a thread that cancels the order and finds no mark knows that this call sees the cancellation.
        self.disks.withdraw(&mut boot);
        Some(boot)
    }

    /// Whether a boot of `node` has this order already and is before its disk phase: then it cannot be cancelled.
    pub fn has_order(&self, node: &str, order: u64) -> bool {
        let boots = self.of_node(node);
        let mut boots = boots.iter().filter(|boot| !boot.redeemed && !boot.void);
        boots.any(|boot| {
            boot.ordered
                .as_ref()
                .is_some_and(|ordered| ordered.sent && ordered.id == order)
        })
    }

    /// The number of the newest boot of all nodes. [`Boot::sequence`] of each later boot is higher.
    pub fn sequence(&self) -> u64 {
        self.read().sequence
    }

    /// Makes later boots have higher numbers than `sequence`: the newest boot may have been forgotten with its node.
    pub(crate) fn count_from(&self, sequence: Option<u64>) {
        let mut state = self.write();
        state.sequence = state.sequence.max(sequence.unwrap_or(0));
    }

    /// The newest boot that `node` is in, as far as is known: see `Boot::is_believed`.
    pub fn current(&self, node: &str) -> Option<Arc<Boot>> {
        self.of_node(node).into_iter().find(|boot| boot.is_believed())
    }

    /// All remembered boots of `node`, newest first.
    pub fn of_node(&self, node: &str) -> Vec<Arc<Boot>> {
        let state = self.read();
        let ids = state.by_node.get(node).map(Vec::as_slice).unwrap_or_default();
        ids.iter().rev().filter_map(|id| state.by_id.get(id).cloned()).collect()
    }

    /// Records that the boot's secrets are about to be sent, and what the agent reports of disk and machine. Succeeds once
    /// per boot, and is on disk when it returns, so that the secrets cannot be asked for again after a crash. From then on
    /// the node proves itself with `secret`, if its agent supports that.
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
            let reported = request.disk.clone().bounded();
            boot.disk = Some(older_agent(boot.plan.disk.as_ref(), reported));
            boot.hardware = Some(request.hardware.clone().bounded());
            slot.clone()
        };
        let mut batch = Batch::new().put(Table::Boots, boot.plan.id.as_bytes(), &*boot);
        // A shell in RAM did not look at the disk.
        let state = boot.disk.as_ref().filter(|_| boot.shell().is_none());
        let row = state.map(|state| self.disks.record(&boot, state));
        if let Some(row) = &row {
            batch = batch.put(Table::Disks, boot.plan.node.as_bytes(), row);
        }
        batch = self.orders.end_with(&boot, batch);
        self.commit(&boot, batch).await.inspect_err(|_| {
            // Nothing was sent: the agent may try again when the store is writable.
            if let Some(slot) = self.write().by_id.get_mut(id) {
                let boot = Arc::make_mut(slot);
                (boot.redeemed, boot.secret) = (false, None);
            }
        })?;
        if let Some(row) = &row {
            self.disks.settle(&boot.plan.node, row);
        }
        self.orders.ended(&boot);
        self.heartbeats.hear(&boot.plan.node, monotonic());
        Ok(boot)
    }

    /// Records that the boot's system is up. A repeated report changes nothing.
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

    /// Records whether the node's checks pass. The write is not waited for: if it is lost, the next heartbeat repeats it.
    pub fn record_health(&self, id: &str, token: &str, healthy: bool) -> Result<(), Refusal> {
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
        // Queued under the lock: later, it could overwrite what another call has on disk by then.
        let key = slot.plan.id.as_bytes();
        self.store.queue(Batch::new().put(Table::Boots, key, &**slot));
        Ok(())
    }

    /// Records the results of the plan's checks; results of other checks are left out. The write is not waited for.
    pub fn record_checks(&self, id: &str, token: &str, results: Vec<CheckResult>) -> Result<(), Refusal> {
        /// Limit of a detail, in bytes, as in the wire protocol.
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

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        read(&self.state)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        write(&self.state)
    }
}

fn new_id() -> String {
    let random: [u8; ID_LENGTH] = rand::random();
    random
        .iter()
        .map(|byte| char::from(ID_LETTERS[usize::from(byte % 32)]))
        .collect()
}
