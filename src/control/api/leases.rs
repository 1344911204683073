//! Of the temporary pools.

use rackstrap_base::clock::Timestamp;
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use uuid::Uuid;

/// A lease of a temporary pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The address.
    pub ipaddr: Ipv4Addr,
    /// The machine that has it, or had it last.
    pub hwaddr: HwAddr,
    /// UUID of the machine; none if it said none that can be believed.
    pub uuid: Option<Uuid>,
    /// What the lease is now.
    pub state: LeaseStateName,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub expires: Timestamp,
    /// When it was last promised; 0 from an older release.
    pub granted: Timestamp,
}

/// What a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseStateName {
    /// Promised to the machine until it expires.
    Bound,
    /// Given back, or taken back. The machine gets it again if no other one needs it meanwhile.
    Released,
    /// Another machine uses the address; it is given to none until it expires.
    Declined,
    /// Its time is over. The machine gets it again if no other one needs it meanwhile.
    Expired,
}

impl LeaseStateName {
    /// The name that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            LeaseStateName::Bound => "bound",
            LeaseStateName::Released => "released",
            LeaseStateName::Declined => "declined",
            LeaseStateName::Expired => "expired",
        }
    }
}

/// `rackstrap lease release`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReleaseLeases {
    /// Addresses and hardware addresses.
    pub leases: Vec<String>,
    /// Only say which leases would end.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of [`ReleaseLeases`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Released {
    /// Leases that ended, or would.
    pub released: Vec<LeaseRow>,
    /// What no lease was found for, as it was asked.
    pub none: Vec<String>,
}
