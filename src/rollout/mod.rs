//! Which version for whom: the current version of each image, rollouts that give another one to some nodes first, and nodes
//! that go back by themselves.
//!
//! [`Assignments`](crate::decide::Assignments) is what decisions read. [`Rollout`] says what a rollout is and `machine.rs` what becomes of it; `ledger.rs` has
//! all of them, current versions, and boots that count. [`Rollouts`] (`task.rs`, `orders.rs`) keeps that on disk before anybody
//! acts on it.

mod error;
mod holds;
mod ledger;
mod machine;
mod model;
mod orders;
mod task;
#[cfg(test)]
mod tests;

pub use error::RolloutError;
pub use holds::{rename_stored, stored};
pub use model::{Member, Note, Pace, Rollout, Share, Stage, State, Tally, Wish};
pub use task::{Reboot, Rollouts, pause_all};
