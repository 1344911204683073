//! HTTP: boot scripts, kernels and initramfs for loaders; plans, overlays and reports for agents.
//!
//! [`script`] renders what loaders get (pure); [`loader`] and [`agent`] answer the two kinds of
//! clients; [`task`] holds the sockets.

mod agent;
mod answer;
mod counters;
mod heard;
mod limits;
mod loader;
pub mod script;
mod service;
pub mod task;
mod told;

pub use counters::{Counters, Reason};
pub use heard::Heard;
pub use limits::Limits;
pub use service::{Service, Waits, base_url};
