//! Converts the program's types to those of the answers, and back if a command works with an answer. Only this module knows
//! both. The store's rows can change without a change of any answer.

mod boots;
mod discovery;
mod disks;
mod nodes;
mod orders;
mod restarts;
mod rollouts;
mod status;
mod store;
mod timeline;

#[cfg(test)]
mod tests;

pub use boots::checks_of;
pub use status::{describe_boot_order, describe_start, is_stale, status};
