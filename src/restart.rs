//! Restarting nodes that run: who wants which ones restarted and why, how many may be down at once, and how far each has come.
//!
//! `request` is the logic, without clocks, files or programs; `keeper` holds all requests in memory and in the store, where a restart of
//! the daemon finds them again; `task` runs the site's `drain` and `resume` programs. A node is told by the answer to its heartbeat,
//! and only in the boot that it was in when the restart was wanted: one that has booted since then has had its restart.

mod keeper;
mod request;
mod rows;
mod task;
#[cfg(test)]
mod tests;

pub use keeper::{Cancelled, RestartError, Restarts, Want, Wanted, Withdrawn};
pub use request::{End, Member, Request, Step};
pub use task::serve;
