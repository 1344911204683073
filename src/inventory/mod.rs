//! Nodes: what is bolted in, by which hardware address, under which name and address.

pub mod naming;
mod node;

pub use node::{Inventory, Node};
