//! Nodes: the machines of the cluster, with hardware addresses, names and addresses.

mod change;
mod check;
mod groups;
mod history;
mod node;
mod refusal;
mod settings;
mod summary;

#[cfg(test)]
mod own_address_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vars_tests;

pub use change::{Change, Changed, NewNode, Patch, apply, faults};
pub use check::{address_problem, find};
pub use groups::{groups, rack_of};
pub use history::{Entry, differences};
pub use node::{Inventory, Node};
pub use refusal::{InventoryError, Refusals};
pub use settings::{Hidden, Origin, Setting, Settings};
pub use summary::summary;
