//! The command line's way into the daemon: HTTP and JSON over a unix socket that only root may use.
//!
//! `api.rs` and the files below `api/` say what both ends say, `answers/` makes the program's types to answers, `routes.rs`, `nodes.rs`, `overlays.rs`, `discover.rs`, `rollouts.rs`, `restarts.rs`, `disks.rs` and `backup.rs` answer, `refusal.rs` is how
//! they say no, `watched.rs` sends an answer again whenever it changes, `socket.rs` listens, `client.rs` asks, `watch.rs` reads what is sent again.

mod answers;
pub mod api;
mod backup;
mod client;
mod discover;
mod disks;
mod leases;
mod meant;
mod nodes;
mod overlays;
mod refusal;
mod restarts;
mod rollouts;
mod routes;
mod signed;
mod socket;
mod store;
mod unknown;
mod watch;
mod watched;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, DEFAULT_SOCKET, segment};
pub use socket::{bind, serve};
pub use watch::Watch;

use crate::{
    boots::Boots, discovery::Discovery, nodes::Nodes, overlay::Renderer, restart::Restarts, rollout::Rollouts,
    timeline::Recorder,
};
use rackstrap_base::{firmware::Firmwares, warnings::SiteWarnings};
use rackstrap_model::decide::SharedWorld;
use rackstrap_store::Store;
use std::{net::Ipv4Addr, sync::Arc};

/// Something that the daemon does when it is told to; answers what it did, in one line. May block.
pub type Action = Arc<dyn Fn() -> anyhow::Result<String> + Send + Sync>;

/// Takes these addresses back; answers which of them a machine had. May block.
pub type Release = Arc<dyn Fn(&[Ipv4Addr]) -> anyhow::Result<Vec<Ipv4Addr>> + Send + Sync>;

/// Reads the site file again, also if nodes lose data at their next boots where it says true. May block.
pub type Reload = Arc<dyn Fn(bool) -> anyhow::Result<api::Reloaded> + Send + Sync>;

/// Asks for the names and values of all counters.
pub type Counters = Arc<dyn Fn() -> Vec<(String, u64)> + Send + Sync>;

/// What the routes need.
#[derive(Clone)]
pub struct Context {
    /// What decisions are made from.
    pub world: SharedWorld,
    /// The store.
    pub store: Store,
    /// Timelines.
    pub recorder: Recorder,
    /// Pinned boots.
    pub boots: Boots,
    /// The one keeper of the inventory.
    pub nodes: Nodes,
    /// The waiting room.
    pub discovery: Discovery,
    /// The keeper of current versions and rollouts.
    pub rollouts: Rollouts,
    /// Who is to restart.
    pub restarts: Restarts,
    /// What nodes get.
    pub overlays: Arc<Renderer>,
    /// What is wrong with the site as a whole.
    pub warnings: SiteWarnings,
    /// What the firmware of nodes said of itself.
    pub firmware: Arc<Firmwares>,
    /// Reads the site file again.
    pub reload: Reload,
    /// Looks for images again.
    pub rescan: Action,
    /// Takes pool addresses from the machines that have them; answers which had one.
    pub release: Release,
    /// All counters.
    pub counters: Counters,
}
