//! What can be done to a node. Agents restart their nodes; power control would be a second implementation.

use rackstrap_base::sync::lock;
use rackstrap_lifecycle::Order;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

/// A way to act on nodes.
pub trait NodeActions: Send + Sync {
    /// Has these nodes restart, each in the boot that its order names, and no other ones: orders of before that are not among these
    /// are void. Called with the same orders until the nodes have got them.
    fn restart(&self, orders: Vec<Order>);
}

/// Agents are told in the answers to their heartbeats.
#[derive(Debug, Default)]
pub struct Agents {
    orders: Mutex<HashMap<String, Order>>,
}

impl NodeActions for Agents {
    fn restart(&self, orders: Vec<Order>) {
        *self.lock() = orders.into_iter().map(|order| (order.node.clone(), order)).collect();
    }
}

impl Agents {
    /// The order for the agent of `node`, which is in `boot`.
    pub(super) fn order_for(&self, node: &str, boot: &str) -> Option<Order> {
        self.lock().get(node).filter(|order| order.boot == boot).cloned()
    }

    /// The agent of `node` has got its order, or must not get it any more.
    pub(super) fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Order>> {
        lock(&self.orders)
    }
}
