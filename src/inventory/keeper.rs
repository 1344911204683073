//! Changes of the inventory: checked, stored, and then seen by the next packet.

use super::{Inventory, InventoryError, NewNode, Node, check_add, find};
use crate::{
    decide::{SharedWorld, World},
    store::{Store, StoreError, Table},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The keeper of the inventory; clones share it.
#[derive(Clone)]
pub struct Nodes {
    store: Store,
    world: SharedWorld,
    // One change at a time: what was checked is what is stored.
    changing: Arc<Mutex<()>>,
}

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The change is not allowed.
    #[error(transparent)]
    Refused(#[from] InventoryError),
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
        }
    }

    /// Adds a node: on disk and in the world when it returns. Blocks for a disk flush.
    pub fn add(&self, new: &NewNode) -> Result<Node, ChangeError> {
        let _changing = self.lock();
        let world = self.world.load();
        let node = check_add(&world.inventory, &world.site, new)?;
        self.store
            .write(|tx| tx.put(Table::Nodes, node.name.as_bytes(), &node))?;
        let nodes = world.inventory.iter().map(|node| Node::clone(node));
        self.publish(Inventory::new(nodes.chain([node.clone()])));
        Ok(node)
    }

    /// Deletes a node with its secrets (ssh host keys): on disk and in the world when it returns. Blocks for a disk flush.
    pub fn delete(&self, name: &str) -> Result<Node, ChangeError> {
        let _changing = self.lock();
        let world = self.world.load();
        let node = Node::clone(find(&world.inventory, name)?);
        self.store.write(|tx| {
            for (key, _) in tx.scan::<serde_json::Value>(Table::Secrets, &crate::store::secret_key(name, ""))? {
                tx.delete(Table::Secrets, &key)?;
            }
            tx.delete(Table::Nodes, name.as_bytes())
        })?;
        let rest = world.inventory.iter().filter(|node| node.name != name);
        self.publish(Inventory::new(rest.map(|node| Node::clone(node))));
        Ok(node)
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
