//! Changes of the inventory: checked, stored, and then seen by the next packet.

mod history;

pub use history::history;

use history::{LastEntry, remember};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{
    decide::{SharedWorld, World},
    inventory::{Change, Changed, Inventory, Node, Refusals, apply},
};
use rackstrap_store::{Batch, Keeper, Read, Store, StoreError, Table, secret_key};
use std::sync::Arc;
use thiserror::Error;

/// The keeper of the inventory; clones share it.
#[derive(Clone)]
pub struct Nodes {
    store: Store,
    world: SharedWorld,
    /// One change at a time: what was checked is what is stored. The state is the last change that the inventory of the world has;
    /// each change expects it, so that nobody else can have changed what was checked.
    keeper: Arc<Keeper<LastEntry>>,
    follower: Option<Arc<dyn Follower>>,
}

/// Keeps rows of its own for nodes. They change together with the nodes, or another machine that gets a name later would find what
/// was meant for the one before.
pub trait Follower: Send + Sync {
    /// What `changed` means for these rows, which is written with the change.
    fn rows(&self, changed: &[Changed]) -> Batch;

    /// Does the same in memory once that is on disk: one change after the other, in their order.
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
        // What cannot be read is not what the first change expects: it is refused then.
        let last = LastEntry::read(&store).unwrap_or_default();
        Nodes {
            keeper: Arc::new(Keeper::new(store.clone(), last)),
            store,
            world,
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
        self.change_with(changes, by, now, &Batch::new())
    }

    /// The same, with what `more` writes, all or nothing.
    ///
    /// # Errors
    /// As of [`Nodes::change`].
    pub fn change_with(
        &self,
        changes: &[Change],
        by: &str,
        now: Timestamp,
        more: &Batch,
    ) -> Result<Vec<Changed>, ChangeError> {
        let draft = |last: &LastEntry| {
            let world = self.world.load();
            let (inventory, mut changed) = apply(&world.inventory, &world.site, changes)?;
            changed.retain(|changed| !changed.is_nothing());
            let (batch, last) = self.store.read(|rows| {
                let secrets = settle_secrets(rows, &changed)?;
                let (entries, last) = remember(rows, *last, now, by, &changed)?;
                Ok::<_, StoreError>((node_rows(&changed).and(secrets).and(entries), last))
            })?;
            let batch = match &self.follower {
                Some(follower) => batch.and(follower.rows(&changed)),
                None => batch,
            };
            Ok::<_, ChangeError>(((inventory, changed, last), batch.and(more.clone())))
        };
        self.keeper.change(draft, |state, (inventory, changed, last)| {
            *state = last;
            self.publish(inventory);
            if let Some(follower) = &self.follower {
                follower.publish(&changed);
            }
            changed
        })
    }

    /// Does something about nodes while none of them changes. Waits for a change that is under way.
    pub fn while_unchanged<T>(&self, act: impl FnOnce(&Inventory) -> T) -> T {
        self.keeper.while_unchanged(|_| act(&self.world.load_full().inventory))
    }

    /// The site file and the images are swapped by others at any time: only the inventory is replaced.
    fn publish(&self, inventory: Inventory) {
        let inventory = Arc::new(inventory);
        self.world.rcu(|world| World {
            inventory: inventory.clone(),
            ..World::clone(world)
        });
    }
}

/// The nodes' own rows. First what goes, then what comes: a name may be given up by one node and taken by another.
fn node_rows(changed: &[Changed]) -> Batch {
    let mut batch = Batch::new();
    for before in changed.iter().filter_map(|changed| changed.before.as_ref()) {
        let key = before.name.as_bytes();
        batch = batch.expect(Table::Nodes, key, before).delete(Table::Nodes, key);
    }
    for after in changed.iter().filter_map(|changed| changed.after.as_ref()) {
        let given_up = |changed: &Changed| changed.before.as_ref().is_some_and(|before| before.name == after.name);
        let key = after.name.as_bytes();
        if !changed.iter().any(given_up) {
            batch = batch.expect_absent(Table::Nodes, key);
        }
        batch = batch.put(Table::Nodes, key, after);
    }
    batch
}

/// A node's secrets (ssh host keys) go with it: under its new name, or away.
fn settle_secrets(rows: &Read<'_>, changed: &[Changed]) -> Result<Batch, StoreError> {
    let (mut gone, mut moved) = (Batch::new(), Batch::new());
    for changed in changed {
        let Some(before) = &changed.before else { continue };
        let after = changed.after.as_ref().map(|node| node.name.as_str());
        if after == Some(&before.name) {
            continue;
        }
        let old = secret_key(&before.name, "");
        for (key, value) in rows.scan::<serde_json::Value>(Table::Secrets, &old)? {
            gone = gone
                .expect(Table::Secrets, key.clone(), &value)
                .delete(Table::Secrets, key.clone());
            if let Some(after) = after {
                let new = [&secret_key(after, "")[..], &key[old.len()..]].concat();
                moved = moved.put(Table::Secrets, new, &value);
            }
        }
    }
    // Also of nodes that change their names with each other none loses any.
    Ok(gone.and(moved))
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
