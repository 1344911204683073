//! Which version for whom: the current version of each image, rollouts that give another one to some nodes first, and nodes
//! that go back by themselves.
//!
//! [`Assignments`] is what decisions read; [`Rollouts`] (`task.rs`) keeps it, on disk before anybody acts on it.

mod assignments;
mod error;
mod task;
#[cfg(test)]
mod tests;

pub use assignments::{Assignments, Choice, Current, Given, Source, Trial};
pub use error::RolloutError;
pub use task::Rollouts;
