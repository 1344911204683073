//! What the agent leaves for its later self, the voice.

use crate::{
    fail::{Doing, Res},
    http::Server,
};
use rackstrap_wire::{Health, MountedPartition};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// On the /run that survives the hand-over, for systemd.
pub const RUN: &str = "/run/rackstrap/boot.json";
/// In the writable layer, for inits that mount a /run of their own.
pub const LIB: &str = "/usr/lib/rackstrap/boot.json";
/// The agent itself in the new root.
pub const AGENT: &str = "/usr/lib/rackstrap/agent";

/// `boot.json`, mode 0600: it holds the boot's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFacts {
    /// Server, `http://10.5.0.1:80`.
    pub server: String,
    /// Id of the boot.
    pub plan: String,
    /// What the node proves itself with: its secret, or the boot's token where the server knows no secret.
    pub token: String,
    /// Node name.
    pub node: String,
    /// Seconds between two heartbeats.
    pub heartbeat_secs: u32,
    /// The disk's file systems and swap.
    pub mounts: Vec<MountedPartition>,
    /// File systems of the disk that this boot does without, and why, for people; empty if it has all.
    #[serde(default)]
    pub left_out: String,
    /// What must be true of the running node.
    #[serde(default)]
    pub health: Health,
    /// The secret, for users; none if the server gave none.
    #[serde(default)]
    pub secret: Option<String>,
    /// The node's address.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
}

impl BootFacts {
    /// Reads what this boot left.
    pub fn read() -> Res<Self> {
        let bytes = std::fs::read(RUN)
            .or_else(|_| std::fs::read(LIB))
            .doing(|| format!("reading {RUN} or {LIB}"))?;
        serde_json::from_slice(&bytes).doing(|| "reading boot.json".into())
    }

    /// The server, as this boot sees it.
    pub fn server(&self) -> Server {
        Server {
            base: self.server.clone(),
            plan: self.plan.clone(),
            token: self.token.clone(),
        }
    }
}
