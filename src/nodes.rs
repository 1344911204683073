//! Changes of the inventory: checked, stored, and then seen by the next packet.

use crate::{
    decide::{SharedWorld, World},
    inventory::{Change, Changed, Inventory, Node, Refusals, apply, remember},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_store::{Store, StoreError, Table, Write, secret_key};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The keeper of the inventory; clones share it.
#[derive(Clone)]
pub struct Nodes {
    store: Store,
    world: SharedWorld,
    // One change at a time: what was checked is what is stored.
    changing: Arc<Mutex<()>>,
    follower: Option<Arc<dyn Follower>>,
}

/// Keeps rows of its own for nodes. They change together with the nodes, or another machine that gets a name later would find what
/// was meant for the one before.
pub trait Follower: Send + Sync {
    /// Writes what `changed` means, in the transaction of the change.
    ///
    /// # Errors
    /// Those of the store; nothing is changed then.
    fn write(&self, tx: &mut Write<'_>, changed: &[Changed]) -> Result<(), StoreError>;

    /// Does the same in memory once the transaction is on disk: one change after the other, in their order.
    fn publish(&self, changed: &[Changed]);
}

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The change is not allowed.
    #[error(transparent)]
    Refused(#[from] Refusals),
    /// The store failed.
    #[error("nothing was changed: {0}")]
    Store(#[from] StoreError),
}

/// Reads all nodes from the store.
pub fn load(store: &Store) -> Result<Vec<Node>, StoreError> {
    let nodes = store.scan::<Node>(Table::Nodes, b"")?;
    Ok(nodes.into_iter().map(|(_, node)| node).collect())
}

impl Nodes {
    /// Keeps the inventory of `world` in `store`.
    pub fn new(store: Store, world: SharedWorld) -> Nodes {
        Nodes {
            store,
            world,
            changing: Arc::new(Mutex::new(())),
            follower: None,
        }
    }

    /// The same, with somebody who follows each change.
    #[must_use]
    pub fn followed_by(self, follower: impl Follower + 'static) -> Nodes {
        Nodes {
            follower: Some(Arc::new(follower)),
            ..self
        }
    }

    /// What `changes` would make now, without making it.
    ///
    /// # Errors
    /// What speaks against them.
    pub fn preview(&self, changes: &[Change]) -> Result<Vec<Changed>, Refusals> {
        let world = self.world.load();
        apply(&world.inventory, &world.site, changes).map(|(_, changed)| changed)
    }

    /// Makes all of `changes`, or none: on disk, with who did it, and in the world when it returns. What changes nothing is left
    /// out of what it returns. Blocks for a disk flush.
    ///
    /// # Errors
    /// What speaks against them, or the store's.
    pub fn change(&self, changes: &[Change], by: &str, now: Timestamp) -> Result<Vec<Changed>, ChangeError> {
        self.change_with(changes, by, now, |_| Ok(()))
    }

    /// The same, with what `more` writes in the same transaction.
    ///
    /// # Errors
    /// As of [`Nodes::change`].
    pub fn change_with(
        &self,
        changes: &[Change],
        by: &str,
        now: Timestamp,
        more: impl FnOnce(&mut Write<'_>) -> Result<(), StoreError>,
    ) -> Result<Vec<Changed>, ChangeError> {
        let _changing = self.lock();
        let world = self.world.load();
        let (inventory, mut changed) = apply(&world.inventory, &world.site, changes)?;
        changed.retain(|changed| !changed.is_nothing());
        self.store.write(|tx| {
            // First what goes, then what comes: a name may be given up by one node and taken by another.
            for node in changed.iter().filter_map(|c| c.before.as_ref()) {
                tx.delete(Table::Nodes, node.name.as_bytes())?;
            }
            for changed in &changed {
                if let Some(node) = &changed.after {
                    tx.put(Table::Nodes, node.name.as_bytes(), node)?;
                }
                settle_secrets(tx, changed)?;
            }
            remember(tx, now, by, &changed)?;
            if let Some(follower) = &self.follower {
                follower.write(tx, &changed)?;
            }
            more(tx)
        })?;
        self.publish(inventory);
        if let Some(follower) = &self.follower {
            follower.publish(&changed);
        }
        Ok(changed)
    }

    /// Does something about nodes while none of them changes. Waits for a change that is under way.
    pub fn while_unchanged<T>(&self, act: impl FnOnce(&Inventory) -> T) -> T {
        let _changing = self.lock();
        let world = self.world.load_full();
        act(&world.inventory)
    }

    /// The site file and the images are swapped by others at any time: only the inventory is replaced.
    fn publish(&self, inventory: Inventory) {
        let inventory = Arc::new(inventory);
        self.world.rcu(|world| World {
            inventory: inventory.clone(),
            ..World::clone(world)
        });
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's secrets (ssh host keys) go with it: under its new name, or away.
fn settle_secrets(tx: &mut Write<'_>, changed: &Changed) -> Result<(), StoreError> {
    let Some(before) = &changed.before else { return Ok(()) };
    let after = changed.after.as_ref().map(|node| node.name.as_str());
    if after == Some(&before.name) {
        return Ok(());
    }
    let old = secret_key(&before.name, "");
    for (key, value) in tx.scan::<serde_json::Value>(Table::Secrets, &old)? {
        tx.delete(Table::Secrets, &key)?;
        if let Some(after) = after {
            let moved = [&secret_key(after, "")[..], &key[old.len()..]].concat();
            tx.put(Table::Secrets, &moved, &value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
