//! Boots: one decision, pinned, under one id and one token, from its boot script to the running node.

use crate::clock::Timestamp;
use rackstrap_wire::{ImageRef, Plan};
use serde::{Deserialize, Serialize};

/// A pinned boot, as the store keeps it: a restart of the daemon changes nothing for a node in the middle of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// What the node was told to do.
    pub plan: Plan,
    /// Secret of this boot, 32 hex digits.
    pub token: String,
    /// When its script was handed out.
    pub opened: Timestamp,
    /// True once the overlay (with its secrets) went out.
    pub redeemed: bool,
    /// When it reported ready.
    pub ready: Option<Timestamp>,
}

impl Boot {
    /// The pinned image version.
    pub fn image(&self) -> &ImageRef {
        &self.plan.image
    }
}
