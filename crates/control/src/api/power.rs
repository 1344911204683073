//! `rackstrap power`.

use super::{Level, Watchable};
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr};

/// What is done to the power of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerVerb {
    /// Read whether the power is on.
    Status,
    /// Power on.
    On,
    /// Power off at once.
    Off,
    /// Ask the operating system to shut down.
    Soft,
    /// Power off and on again.
    Cycle,
    /// Hard reset.
    Reset,
    /// Let the identify light blink.
    Identify,
    /// Set where the next boot is from.
    Boot,
}

/// Where a machine boots from, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootFrom {
    /// The network.
    Network,
    /// The first disk.
    Disk,
    /// The setup of the firmware.
    Setup,
    /// As the firmware's own boot order says: takes an earlier order back.
    Firmware,
}

impl fmt::Display for PowerVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PowerVerb::Status => "status",
            PowerVerb::On => "on",
            PowerVerb::Off => "off",
            PowerVerb::Soft => "soft",
            PowerVerb::Cycle => "cycle",
            PowerVerb::Reset => "reset",
            PowerVerb::Identify => "identify",
            PowerVerb::Boot => "boot",
        })
    }
}

/// Begins a task: the verb for each of these nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SwitchPower {
    /// What to do.
    pub verb: PowerVerb,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// Seconds within which each node must have reached its state.
    pub within_secs: u32,
    /// Seconds that the identify light blinks; 0 = it goes off.
    #[serde(default)]
    pub identify_secs: u8,
    /// Where the next boot is from, for [`PowerVerb::Boot`]; none for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_from: Option<BootFrom>,
    /// Whether the firmware boots as UEFI does then.
    #[serde(default)]
    pub efi: bool,
}

/// The task that was begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PowerBegun {
    /// Its number, for [`super::paths::POWER`].
    pub id: u64,
}

/// A task and its results so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerAnswer {
    /// When the answer was made.
    pub now: Timestamp,
    /// The number of the task.
    pub id: u64,
    /// What is done.
    pub verb: PowerVerb,
    /// Who asked.
    pub by: String,
    /// When the task began.
    pub began: Timestamp,
    /// Whether each node has its result.
    pub done: bool,
    /// One row for each node, in the order in which they were named.
    pub nodes: Vec<PowerRow>,
}

/// The result of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerRow {
    /// The node.
    pub node: String,
    /// Address of its BMC; none if it has none.
    pub bmc: Option<Ipv4Addr>,
    /// How it ended; none while it is under way or waits for its turn.
    pub level: Option<Level>,
    /// Whether the power was on before; none if that is not known.
    pub before: Option<bool>,
    /// Whether it is on now; none if that is not known.
    pub after: Option<bool>,
    /// What was done, or what failed, in words. Empty while nothing is known.
    pub detail: String,
    /// What an administrator can do about a failure; empty if nothing failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl Watchable for PowerAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// Whether the power is on: `on`, `off`, or `-` if it is not known.
pub fn on_or_off(on: Option<bool>) -> &'static str {
    match on {
        Some(true) => "on",
        Some(false) => "off",
        None => "-",
    }
}
