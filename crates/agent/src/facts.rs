//! The facts that the agent leaves for the reporter, which runs after the hand-over.

use crate::{
    fail::{Doing, Res},
    http::Server,
};
use rackstrap_wire::{Health, MountedPartition};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The path on the /run that systemd keeps.
pub const RUN: &str = "/run/rackstrap/boot.json";
/// The path in the writable layer, for inits that mount their own /run.
pub const LIB: &str = "/usr/lib/rackstrap/boot.json";
/// The agent's program in the new root.
pub const AGENT: &str = "/usr/lib/rackstrap/agent";

/// The content of `boot.json`, mode 0600, because it contains the boot's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFacts {
    /// Base of the server's URLs, `http://10.5.0.1:80`.
    pub server: String,
    /// Id of the boot.
    pub plan: String,
    /// The node's secret, with which it authenticates; the boot's token if the server does not know secrets.
    pub token: String,
    /// Node name.
    pub node: String,
    /// Seconds between two heartbeats.
    pub heartbeat_secs: u32,
    /// The disk's file systems and swap.
    pub mounts: Vec<MountedPartition>,
    /// File systems of the disk that this boot left out, and why, for people; empty if it left out none.
    #[serde(default)]
    pub left_out: String,
    /// The checks of the running node.
    #[serde(default)]
    pub health: Health,
    /// The secret for users; none if the server gave none.
    #[serde(default)]
    pub secret: Option<String>,
    /// The node's address; none from an older agent.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// The networks besides the boot network, each a line of [`crate::networks::watch::WatchedNetwork`]; empty from an older agent.
    #[serde(default)]
    pub networks: Vec<String>,
}

impl BootFacts {
    /// Reads the facts that this boot left.
    pub fn read() -> Res<Self> {
        let bytes = std::fs::read(RUN)
            .or_else(|_| std::fs::read(LIB))
            .doing(|| format!("reading {RUN} or {LIB}"))?;
        serde_json::from_slice(&bytes).doing(|| "reading boot.json".into())
    }

    /// The server, with the token of this boot.
    pub fn server(&self) -> Server {
        Server {
            base: self.server.clone(),
            plan: self.plan.clone(),
            token: self.token.clone(),
        }
    }
}
