//! Boots: one decision, pinned, under one id and one token, from its boot script to the running node.

mod beats;
mod confirmed;
mod disks;
mod kept;
mod registry;
mod window;

#[cfg(test)]
mod tests;

pub use confirmed::trust_site_file;
pub use disks::Disks;
pub use kept::KEPT_PER_NODE;
pub use registry::{Boots, Origin, Refusal, redeem_all};
pub use window::Windows;

use rackstrap_base::clock::Timestamp;
use rackstrap_model::disks::Ordered;
use rackstrap_wire::{CheckResult, DiskState, Hardware, ImageRef, Plan, failures};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A pinned boot, as the store keeps it: a restart of the daemon changes nothing for a node in the middle of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// What the node was told to do.
    pub plan: Plan,
    /// Secret of this boot, 32 hex digits.
    pub token: String,
    /// UUID of the mainboard, as the firmware said it before the script was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// The order about the node's disk that stood when its script was handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Ordered>,
    /// True if its agent asks from ports below [`rackstrap_wire::FIRST_USER_PORT`], so that requests from other ports are a user's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// True if only a DHCP relay said that the node boots, at a time when its running system has sent a heartbeat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
    /// When its script was handed out.
    pub opened: Timestamp,
    /// Numbers boots in the order in which they began, whatever the clock said.
    #[serde(default)]
    pub sequence: u64,
    /// True once the overlay (with its secrets) went out.
    pub redeemed: bool,
    /// What the running node proves itself with, once the overlay went out: only its root can read it. None for an agent of a
    /// wire version before [`rackstrap_wire::SECRET_AUTHENTICATES`], which goes on with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// True if the node's running system has sent a heartbeat after this boot began: no firmware asked for it, and it gets no secrets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub void: bool,
    /// When it reported ready.
    pub ready: Option<Timestamp>,
    /// Whether the checks of its plan held when the node last said so; none before that, or of a node that makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// What came of the checks of its plan, as the node said last; empty before that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckResult>,
    /// The disk as the agent left it, known once the overlay was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskState>,
    /// The machine, known once the overlay was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
}

impl Boot {
    /// Whether its system is up and all its checks hold, as far as the node reported.
    pub fn healthy(&self) -> bool {
        self.ready.is_some() && self.healthy != Some(false)
    }

    /// What is wrong with a boot whose system reported that it is up, for people; empty if nothing.
    pub fn problem(&self) -> String {
        let failed = failures(&self.checks);
        match self.healthy() {
            true => String::new(),
            // A node whose agent is older does not report which.
            false if failed.is_empty() => "its checks failed".to_owned(),
            false => failed,
        }
    }

    /// True if it is not in doubt that its node boots or booted it: see [`Boot::doubted`]. Its files go out to the node's agent only.
    pub fn is_believed(&self) -> bool {
        !self.doubted || self.redeemed
    }

    /// The pinned image version.
    pub fn image(&self) -> &ImageRef {
        &self.plan.image
    }
}
