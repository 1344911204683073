//! Actions on nodes. Agents restart their nodes; power control would be a second implementation.

use rackstrap_base::sync::lock;
use rackstrap_lifecycle::Order;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

/// A way to act on nodes.
pub trait NodeActions: Send + Sync {
    /// Restarts these nodes, each in the boot that its order names. Earlier orders that are not among these are void. The
    /// same orders are passed again until the nodes have received them.
    fn restart(&self, orders: Vec<Order>);
}

/// Agents receive orders in the answers to their heartbeats.
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
    /// The order for the agent of `node`, which is in `boot`; none if there is no such order.
    pub(super) fn order_for(&self, node: &str, boot: &str) -> Option<Order> {
        self.lock().get(node).filter(|order| order.boot == boot).cloned()
    }

    /// Removes the order of `node`: its agent has received it, or must not receive it any more.
    pub(super) fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Order>> {
        lock(&self.orders)
    }
}
