//! Which version each node gets: the current version of each image, rollouts that give another version to some nodes first,
//! and nodes that roll back to their last known good version.
//!
//! Decisions read [`Assignments`](rackstrap_model::decide::Assignments). [`rackstrap_lifecycle`] defines what a rollout is, and
//! its planner decides what happens to it; `ledger.rs` has all rollouts, current versions, and boots that count. [`Rollouts`]
//! (`task.rs`, `orders.rs`) is the executor: it asks the planner each second, and writes all decisions to disk before it carries
//! them out.

mod error;
mod ledger;
mod orders;
mod stored;
mod task;
#[cfg(test)]
mod tests;

pub use error::RolloutError;
pub use rackstrap_lifecycle::{
    Share,
    rollout::{Member, Pace, Rollout, Stage, State, Wish},
};
pub use stored::{rename_stored, stored};
pub use task::{Rollouts, pause_all};
