//! Answers about the firmware of machines.

use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};

/// A card whose firmware was heard of since the daemon started, or that of a waiting machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareRow {
    /// The node; none for an unknown machine.
    pub node: Option<String>,
    /// Hardware address of the card.
    pub hwaddr: HwAddr,
    /// Architecture type (option 93); none if it was not sent.
    pub arch: Option<u16>,
    /// The same for people: `x64 UEFI`; empty if it was not sent.
    pub firmware: String,
    /// Vendor class (option 60); empty if only iPXE was heard of.
    pub vendor_class: String,
    /// NAME of the loader that it gets; none if no loader is made for it, or if it is iPXE in the card's ROM, which needs none.
    pub loader: Option<String>,
    /// The name by which it asks for the loader's file; none if the file does not exist.
    pub file: Option<String>,
    /// Why it gets no loader, with the remedy; none if it gets one.
    pub problem: Option<String>,
}

impl FirmwareRow {
    /// What people read for it: the node, or the hardware address of an unknown machine.
    pub fn name(&self) -> String {
        self.node.clone().unwrap_or_else(|| self.hwaddr.to_string())
    }
}
