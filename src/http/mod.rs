//! HTTP: boot scripts, kernels and initramfs for loaders; plans, overlays and reports for agents.
//!
//! [`script`] renders what loaders get (pure); `ask` decides which script a loader gets, also by TFTP; [`loader`] and [`agent`] answer
//! the two kinds of clients; [`task`] holds the sockets.

mod agent;
mod agent_message;
mod answer;
mod ask;
mod boards;
mod counters;
mod failed;
mod files;
mod freebsd;
mod limits;
mod loader;
mod once;
mod pieces;
mod reported;
pub mod script;
mod service;
pub mod task;
mod trees;
mod waiting;

pub use counters::{Counters, Reason};
pub use files::SharedFiles;
pub use limits::Limits;
pub use once::server_lacks;
pub use reported::ReportedEvents;
pub use service::{Holder, Peer, Service, Waits, base_url};
