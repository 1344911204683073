//! Changes of the inventory: checked, stored, and then visible to the next packet.

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

/// The registry of nodes; clones share it.
#[derive(Clone)]
pub struct Nodes {
    store: Store,
    world: SharedWorld,
    /// Allows one change at a time, so that the checked change is the stored one. Its state is the last change in the world's
    /// inventory; each change expects it in the store, so that no other writer can have changed what was checked.
    keeper: Arc<Keeper<LastEntry>>,
    follower: Option<Arc<dyn Follower>>,
}

/// Keeps its own rows for nodes. They change together with the nodes; otherwise a machine that gets a name later would find
/// the rows of the machine before.
pub(crate) trait Follower: Send + Sync {
    /// The changes of these rows that follow from `changed`; they are written with the change.
    fn rows(&self, changed: &[Changed]) -> Batch;

    /// Makes the same changes in memory after they are on disk, in the order of the changes.
    fn publish(&self, changed: &[Changed]);
}

/// Why a change failed.
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
        // If the entry cannot be read, the first change does not find what it expects, and is refused.
        let last = LastEntry::read(&store).unwrap_or_default();
        Nodes {
            keeper: Arc::new(Keeper::new(store.clone(), last)),
            store,
            world,
            follower: None,
        }
    }

    /// The same, with a follower of each change.
    #[must_use]
    pub(crate) fn followed_by(self, follower: impl Follower + 'static) -> Nodes {
        Nodes {
            follower: Some(Arc::new(follower)),
            ..self
        }
    }

    /// The result of `changes`, without making them.
    ///
    /// # Errors
    /// The reasons against the changes.
    pub fn preview(&self, changes: &[Change]) -> Result<Vec<Changed>, Refusals> {
        let world = self.world.load();
        apply(&world.inventory, &world.site, changes).map(|(_, changed)| changed)
    }

    /// Makes all of `changes` or none. They are on disk, with the author, and in the world when this returns. The result
    /// leaves out changes without an effect. Blocks for a disk flush.
    ///
    /// # Errors
    /// The reasons against the changes, or an error of the store.
    pub fn change(&self, changes: &[Change], by: &str, now: Timestamp) -> Result<Vec<Changed>, ChangeError> {
        self.change_with(changes, by, now, &Batch::new())
    }

    /// The same, together with what `more` writes, all or nothing.
    ///
    /// # Errors
    /// Those of [`Nodes::change`].
    pub(crate) fn change_with(
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
                let secrets = move_secrets(rows, &changed)?;
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

    /// Calls `act` while no node changes. Waits for a change that is under way.
    pub fn while_unchanged<T>(&self, act: impl FnOnce(&Inventory) -> T) -> T {
        self.keeper.while_unchanged(|_| act(&self.world.load_full().inventory))
    }

    /// The site file and the images can be replaced at any time, so only the inventory is replaced here.
    fn publish(&self, inventory: Inventory) {
        let inventory = Arc::new(inventory);
        self.world.rcu(|world| World {
            inventory: inventory.clone(),
            ..World::clone(world)
        });
    }
}

/// The nodes' own rows. Rows are deleted before others are added, because a name may be given up by one node and taken by
/// another.
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

/// A renamed node keeps its secrets (ssh host keys); those of a deleted node are deleted.
fn move_secrets(rows: &Read<'_>, changed: &[Changed]) -> Result<Batch, StoreError> {
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
    // If nodes exchange their names, no secret is lost.
    Ok(gone.and(moved))
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
