//! Simulated machines and nodes, for tests that need many of them, or one that sends what no agent sends.
//!
//! A [`Machine`] is a network card on a [`Wire`]: it sends DHCP and fetches its script. A [`Node`] is a machine of the
//! inventory. Its [`Boot`] continues after the script: kernel, plan, overlay, `ready`, heartbeats.
//!
//! ```no_run
//! # fn main() -> testbed::Result {
//! let cluster = testbed::Cluster::start(testbed::Site::demo())?;
//! let boot = cluster.played("r01n01")?.boot()?;
//! boot.ready(&serde_json::json!([]))?;
//! assert_eq!(boot.heartbeat()?, None, "no order to restart");
//! # Ok(())
//! # }
//! ```

pub mod freebsd;
mod http;
mod machine;
mod message;
mod node;
pub mod rpc;
mod wire;

pub use http::ask;
pub use machine::{Booted, Machine, Reply, Stage};
pub use message::{Message, TO_ALL, next_xid, option};
pub use node::{Boot, Node, argument, no_disk, no_hardware};
pub use wire::{Wire, client_socket};

use std::time::Duration;

/// The limit of the wait for one answer. Nothing here takes that long, however loaded the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);
