//! Decides what happens to running nodes: rollouts assign versions, restarts execute, and one planner decides both.
//!
//! Everything here is pure: no clocks, no files, no programs. [`plan`] gets what is [`Observed`] of nodes, the versions assigned to
//! them, rollouts, requests for restarts, limits and the time. It returns the changed rollouts and requests, and the actions
//! ([`Action`]). The daemon first writes the changes and then carries out the actions; an action may be carried out twice.
//!
//! ```text
//!   Observed ──┐
//!   assigned ──┤                      ┌─ rollouts, requests ──▶ store
//!   rollouts ──┼──▶  plan(...)  ──────┤
//!   requests ──┤                      └─ actions: run drain/resume, order a restart,
//!   limits, now┘                         record on a timeline, make a version current
//! ```
//!
//! The steps of a node's restart are the table in [`restart::TRANSITIONS`].

mod observed;
mod plan;
pub mod restart;
pub mod rollout;
mod share;

pub use observed::Observed;
pub use plan::{Action, Changed, Job, Node, Order, Plan, Situation, begin, plan};
pub use rackstrap_base::level::Level;
pub use share::Share;

use rackstrap_base::clock::Timestamp;

/// A record for a node's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The node.
    pub node: String,
    /// Its severity.
    pub level: Level,
    /// The text for people.
    pub text: String,
}

/// The end of the time of `within_secs` seconds that began at `from`. A node that is not ready by then is late. All deadlines use this.
pub fn deadline(from: Timestamp, within_secs: u64) -> Timestamp {
    from.plus_secs(within_secs)
}

/// `15m`, for people.
fn span(secs: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(secs)).to_string()
}
