//! What happens to running nodes: rollouts assign versions, restarts execute, and one planner decides on both.
//!
//! Everything here is pure: no clocks, no files, no programs. [`plan`] takes what is [`Observed`] of nodes, the versions that they are
//! to have, rollouts, requests for restarts, limits and the time. It answers what rollouts and requests become, and what to do about
//! it ([`Action`]). The daemon writes the first down, then carries out the second; an action that is carried out twice does no harm.
//!
//! ```text
//!   Observed ──┐
//!   assigned ──┤                      ┌─ rollouts, requests ──▶ store
//!   rollouts ──┼──▶  plan(...)  ──────┤
//!   requests ──┤                      └─ actions: run drain/resume, order a restart,
//!   limits, now┘                         record on a timeline, make a version current
//! ```
//!
//! How one node gets through its restart is the table in [`restart::TRANSITIONS`].

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
pub struct Note {
    /// The node.
    pub node: String,
    /// Its severity.
    pub level: Level,
    /// For people.
    pub text: String,
}

/// The end of a time of so many seconds that began at `from`: what is not ready after it is late. The one deadline there is.
pub fn deadline(from: Timestamp, within_secs: u64) -> Timestamp {
    from.plus_secs(within_secs)
}

/// `15m`, for people.
fn span(secs: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(secs)).to_string()
}
