//! The command line's access to the daemon: HTTP and JSON over a unix socket that only root may use.
//!
//! The package `rackstrap-control` defines requests and answers, and has the client. `routes.rs`, `nodes.rs`, `firmware.rs`, `overlays.rs`, `discover.rs`, `rollouts.rs`, `restarts.rs`, `disks.rs`, `orders.rs`, `power.rs` and `backup.rs` have the
//! routes, and `refusal.rs` their refusals. `watched.rs` sends an answer again whenever it changes. `socket.rs` listens.

mod backup;
mod discover;
mod disks;
mod firmware;
mod leases;
mod meant;
mod nodes;
mod orders;
mod overlays;
mod power;
mod refusal;
mod restarts;
mod rollouts;
mod routes;
mod signed;
mod socket;
mod store;
mod unknown;
mod watched;

#[cfg(test)]
mod tests;

pub use socket::{bind, serve};

use crate::{http::script::Scripts, power::Power};
use arc_swap::ArcSwap;
use rackstrap_base::{firmware::Firmwares, warnings::SiteWarnings};
use rackstrap_control::api;
use rackstrap_loaders::Loaders;
use rackstrap_model::decide::SharedWorld;
use rackstrap_overlay::Renderer;
use rackstrap_registries::{
    boots::Boots, discovery::Discovery, nodes::Nodes, restart::Restarts, rollout::Rollouts, timeline::Recorder,
};
use rackstrap_store::Store;
use std::{net::Ipv4Addr, sync::Arc};

/// An action that the daemon carries out on request. Returns what it did, in one line. May block.
pub type Action = Arc<dyn Fn() -> anyhow::Result<String> + Send + Sync>;

/// Releases these addresses. Returns those that a machine had. May block.
pub type Release = Arc<dyn Fn(&[Ipv4Addr]) -> anyhow::Result<Vec<Ipv4Addr>> + Send + Sync>;

/// Reads the site file again; with true, even if nodes lose data at their next boots. May block.
pub type Reload = Arc<dyn Fn(bool) -> anyhow::Result<api::Reloaded> + Send + Sync>;

/// Returns the names and values of all counters.
pub type Counters = Arc<dyn Fn() -> Vec<(String, u64)> + Send + Sync>;

/// The state that the routes use.
#[derive(Clone)]
pub struct Context {
    /// The world that decisions are made from.
    pub world: SharedWorld,
    /// The store.
    pub store: Store,
    /// The registry of timelines.
    pub recorder: Recorder,
    /// Pinned boots.
    pub boots: Boots,
    /// The registry of nodes.
    pub nodes: Nodes,
    /// The registry of unknown machines.
    pub discovery: Discovery,
    /// The registry of current versions and rollouts.
    pub rollouts: Rollouts,
    /// The registry of restarts.
    pub restarts: Restarts,
    /// Power commands that run, and the results of the last ones.
    pub power: Power,
    /// Renders the files of nodes.
    pub overlays: Arc<Renderer>,
    /// Warnings of the site as a whole.
    pub warnings: SiteWarnings,
    /// The architectures of nodes' firmware.
    pub firmware: Arc<Firmwares>,
    /// Boot loaders.
    pub loaders: Arc<ArcSwap<Loaders>>,
    /// Boot scripts.
    pub scripts: Arc<ArcSwap<Scripts>>,
    /// Reads the site file again.
    pub reload: Reload,
    /// Reads the images again.
    pub rescan: Action,
    /// Releases addresses of the pools. Returns those that a machine had.
    pub release: Release,
    /// All counters.
    pub counters: Counters,
}
