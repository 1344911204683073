//! A boot is one decision, pinned under an id and a token, from its boot script to the running node.

mod beats;
mod confirmed;
mod disks;
mod followed;
mod kept;
mod loading;
mod orders;
mod registry;
mod roots;
mod window;

#[cfg(test)]
mod tests;

pub use confirmed::trust_site_file;
pub use disks::{Disks, Parts};
pub use kept::KEPT_PER_NODE;
pub use loading::{LoadingNodes, Turn};
pub use orders::{Orders, Taken};
pub use registry::{Boots, Origin, Refusal, redeem_all};
pub use window::BootWindows;

use rackstrap_base::clock::Timestamp;
use rackstrap_model::{disks::Ordered, orders::Once};
use rackstrap_wire::{CheckResult, DiskState, Hardware, ImageRef, Plan, failures};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A pinned boot, as the store keeps it. A node in the middle of a boot is not disturbed by a restart of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The node's plan.
    pub plan: Plan,
    /// Secret of this boot, 32 hex digits.
    pub token: String,
    /// UUID of the mainboard, as the firmware reported it before it asked for the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// The order about the node's disk that was in force when the boot script was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Ordered>,
    /// The order that this boot carries out instead of the node's usual boot; none in a usual boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
    /// Whether the agent of this boot asks from ports below [`rackstrap_wire::FIRST_USER_PORT`]: requests from other ports
    /// come from a user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Whether only a DHCP relay reported that the node boots, while the node's running system sent heartbeats.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
    /// When the boot script was sent.
    pub opened: Timestamp,
    /// Numbers the boots in the order in which they began. The clock cannot order them, because it can be set back.
    #[serde(default)]
    pub sequence: u64,
    /// [`Settings::digest`](rackstrap_model::inventory::Settings::digest) of the node at that time; none for boots of older
    /// releases, and where it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<u64>,
    /// Whether the overlay and its secrets have been sent.
    pub redeemed: bool,
    /// The secret by which the running node proves itself after the overlay was sent. Only root can read it on the node.
    /// None for agents with a wire version before [`rackstrap_wire::SECRET_AUTHENTICATES`], which continue to use the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whether the node's running system sent a heartbeat after this boot began. Then no firmware asked for the boot, and it
    /// gets no secrets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub void: bool,
    /// When the node reported ready.
    pub ready: Option<Timestamp>,
    /// Whether all checks of the plan passed in the last report; none before the first report, and for nodes without checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// The results of the plan's checks in the last report; empty before the first report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckResult>,
    /// The disk as the agent left it; none until the agent asks for the overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskState>,
    /// The machine's hardware; none until the agent asks for the overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
}

impl Boot {
    /// `debian@3`, and `debian@3/arm64` for a further variant: also the name of its export.
    pub fn export_name(&self) -> String {
        rackstrap_catalog::export_name(&self.plan.image, &self.plan.variant)
    }

    /// Whether the node reported that its system is up and all its checks pass.
    pub fn healthy(&self) -> bool {
        self.ready.is_some() && self.healthy != Some(false) && self.shell().is_none()
    }

    /// The order of a boot that runs a shell in RAM instead of the node's system; none in any other boot.
    pub fn shell(&self) -> Option<&Once> {
        self.once.as_ref().filter(|once| once.what.is_shell())
    }

    /// Whether the boot says something about its image version and the node: one by an order may run another version, or no system.
    pub fn is_usual(&self) -> bool {
        self.once.is_none()
    }

    /// The problem of a boot whose system is up, as text; empty if there is none.
    pub fn problem(&self) -> String {
        let failed = failures(&self.checks);
        match (self.healthy(), self.shell()) {
            (true, _) => String::new(),
            (false, Some(once)) if self.ready.is_some() => format!("runs {}, by the order of {}", once.what, once.by),
            // Older agents do not report which checks failed.
            (false, _) if failed.is_empty() => "its checks failed".to_owned(),
            (false, _) => failed,
        }
    }

    /// Whether the node itself asked for this boot, as far as the server can know: see [`Boot::doubted`]. The files go out to
    /// the node's agent only.
    pub(crate) fn is_believed(&self) -> bool {
        !self.doubted || self.redeemed
    }

    /// The pinned image version.
    pub fn image(&self) -> &ImageRef {
        &self.plan.image
    }
}
