//! From the program's types to those of the answers, and back where a command works on what it was answered: the one place that knows
//! both. The store's rows can change without any answer changing.

mod boots;
mod discovery;
mod disks;
mod leases;
mod nodes;
mod restarts;
mod rollouts;
mod status;
mod store;
mod timeline;

#[cfg(test)]
mod tests;

pub(super) use boots::checks_of;
pub(super) use status::status;
