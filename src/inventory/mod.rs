//! Nodes: what is bolted in, by which hardware address, under which name and address.

mod change;
pub mod export;
pub mod hostlist;
mod keeper;
pub mod naming;
mod node;

#[cfg(test)]
mod tests;

pub use change::{HWADDRS_PER_NODE, InventoryError, NewNode, check_add, find};
pub use keeper::{ChangeError, Nodes, load};
pub use node::{Inventory, Node};
