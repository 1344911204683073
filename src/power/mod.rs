//! Power of nodes: what `rackstrap power` has the daemon do.
//!
//! `verbs` decides what is done to a machine whose power is on or off (pure), `driver` is what every way to a BMC can do, with one file for each, such as
//! `ipmi`, and `task` runs a verb for many nodes at a time. The daemon holds the passwords: `password` reads them when they are needed.

mod driver;
mod ipmi;
mod password;
mod task;
mod verbs;

pub use password::fault as password_fault;
pub use task::Power;
