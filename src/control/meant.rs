//! Finds the node that a user means by a node name, a hardware address or an IP address.

use rackstrap_model::{
    decide::World,
    inventory::{InventoryError, Node, find},
};
use rackstrap_wire::HwAddr;
use std::{net::Ipv4Addr, sync::Arc};

/// The thing that was named.
pub(super) enum Meant {
    /// A node, by any of the three.
    Node(Arc<Node>),
    /// A hardware address that belongs to no node.
    Machine(HwAddr),
    /// An IP address that belongs to no node.
    Address(Ipv4Addr),
}

/// What `text` names.
pub(super) fn meant(world: &World, text: &str) -> Result<Meant, InventoryError> {
    if let Ok(hwaddr) = text.parse::<HwAddr>() {
        let node = world.inventory.by_hwaddr(hwaddr);
        return Ok(node.cloned().map_or(Meant::Machine(hwaddr), Meant::Node));
    }
    if let Ok(ipaddr) = text.parse::<Ipv4Addr>() {
        let node = world.inventory.by_ipaddr(ipaddr);
        return Ok(node.cloned().map_or(Meant::Address(ipaddr), Meant::Node));
    }
    find(&world.inventory, text).cloned().map(Meant::Node)
}
