//! Requests and answers about the temporary pools.

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
    /// The machine that has the address, or had it last.
    pub hwaddr: HwAddr,
    /// UUID of the machine; none if it reported none that can be believed.
    pub uuid: Option<Uuid>,
    /// The present state of the lease.
    pub state: LeaseStateName,
    /// Since when the machine has the address.
    pub since: Timestamp,
    /// When the lease ends.
    pub expires: Timestamp,
    /// When it was last promised; 0 from an older release.
    pub granted: Timestamp,
}

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseStateName {
    /// Promised to the machine until it expires.
    Bound,
    /// Released by the machine or by an administrator. The machine gets the address again if no other machine needed it
    /// meanwhile.
    Released,
    /// Another machine uses the address. It is given to no machine until the lease expires.
    Declined,
    /// The lease has ended. The machine gets the address again if no other machine needed it meanwhile.
    Expired,
}

impl LeaseStateName {
    /// The name for people.
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
    /// Whether to only report which leases would end.
    #[serde(default)]
    pub dry_run: bool,
}

/// The result of [`ReleaseLeases`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Released {
    /// Leases that ended, or would end.
    pub released: Vec<LeaseRow>,
    /// Addresses without a lease, as they were requested.
    pub none: Vec<String>,
}
