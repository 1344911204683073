//! Restarts running nodes: the executor of the planner's ([`rackstrap_lifecycle`]) decisions about requests.
//!
//! `keeper` holds all requests in memory and in the store, where a restart of the daemon finds them again (`load`); `task` runs the
//! site's `drain` and `resume` programs; `actions` makes nodes restart. A node gets the order in the answer to its heartbeat, and
//! only in the boot that it was in when the restart was requested: a node that has booted since then has restarted already.

mod actions;
mod keeper;
mod load;
mod order;
mod rows;
mod task;
#[cfg(test)]
mod tests;

pub use keeper::{Cancelled, RestartError, Restarts, Want, Wanted, Withdrawn};
pub use rackstrap_lifecycle::restart::{End, Member, Request, Step};
pub use task::serve;
