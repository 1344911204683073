//! The command line's way into the daemon: HTTP and JSON over a unix socket that only root may use.
//!
//! `api.rs` says what both ends say, `routes.rs` answers, `socket.rs` listens, `client.rs` asks.

pub mod api;
mod client;
mod routes;
mod socket;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, DEFAULT_SOCKET, segment};
pub use routes::router;
pub use socket::{Socket, SocketError};

use crate::{boots::Boots, config::Site, decide::SharedWorld, inventory::Nodes, store::Store, timeline::Recorder};
use std::{net::Ipv4Addr, sync::Arc};

/// Something that the daemon does when it is told to; answers what it did, in one line.
pub type Action = Arc<dyn Fn() -> anyhow::Result<String> + Send + Sync>;

/// What the routes need.
#[derive(Clone)]
pub struct Context {
    /// What decisions are made from.
    pub world: SharedWorld,
    /// The store.
    pub store: Store,
    /// The inventory.
    pub nodes: Nodes,
    /// Timelines.
    pub recorder: Recorder,
    /// Pinned boots.
    pub boots: Boots,
    /// Reads the site file again.
    pub reload: Action,
    /// Looks for images again.
    pub rescan: Action,
    /// Names and values of all counters.
    pub counters: Arc<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
    /// The site's naming pattern: the address of a name, or why it is none.
    pub address_of: fn(&Site, &str) -> Result<Ipv4Addr, String>,
}
