//! Which version for which node: the current version of each image, rollouts that give another one to some nodes first, and nodes
//! that roll back by themselves.
//!
//! [`Assignments`](rackstrap_model::decide::Assignments) is what decisions read. What a rollout is and what becomes of it says
//! [`rackstrap_lifecycle`], whose planner decides; `ledger.rs` has all rollouts, current versions, and boots that count. [`Rollouts`]
//! (`task.rs`, `orders.rs`) is the executor: it asks the planner each second, and keeps everything on disk before anybody acts on it.

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
