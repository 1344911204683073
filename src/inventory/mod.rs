//! Nodes: the machines of the cluster, with hardware addresses, names and addresses.

mod change;
mod check;
pub mod export;
mod groups;
mod history;
pub mod import;
mod node;
mod refusal;
mod settings;
mod summary;

#[cfg(test)]
pub mod tests;

pub use change::{Change, Changed, NewNode, Patch, apply};
pub use check::find;
pub use groups::groups;
pub use history::{Entry, LastEntry, differences, history, remember};
pub use node::{Inventory, Node};
pub use refusal::{InventoryError, Refusals};
pub use settings::{Setting, Settings};
pub use summary::summary;
