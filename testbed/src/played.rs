//! Machines and nodes that the tests play by packets: for tests that need many nodes, or a node that says what no agent says.
//!
//! A [`Machine`] is a card on a [`Wire`]: it asks DHCP, and for its script. A [`Node`] is a machine in the inventory. Its [`Boot`] does the
//! rest: kernel, plan, overlay, `ready`, heartbeats.
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

/// How long a test waits for one answer. Even on a loaded machine no answer takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
