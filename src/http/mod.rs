//! HTTP: boot scripts, kernels and initramfs for loaders; plans, overlays and reports for agents.
//!
//! [`script`] renders what loaders get (pure); [`loader`] and [`agent`] answer the two kinds of
//! clients; [`task`] holds the sockets.

mod agent;
mod agent_message;
mod answer;
mod counters;
mod freebsd;
mod limits;
mod loader;
mod reported;
pub mod script;
mod service;
pub mod task;

pub use counters::{Counters, Reason};
pub use limits::Limits;
pub use reported::ReportedEvents;
pub use service::{Service, Waits, base_url};
