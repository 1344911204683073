//! A lease of a temporary pool, as the store keeps it.

use rackstrap_base::clock::Timestamp;
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use uuid::Uuid;

/// A lease of the pool as the store keeps it; its key is the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The leased IP address.
    pub ipaddr: Ipv4Addr,
    /// Hardware address of the client (`chaddr`).
    pub hwaddr: HwAddr,
    /// UUID of the machine, where it said one that can be believed.
    pub uuid: Option<Uuid>,
    /// Bound, released or declined.
    pub state: LeaseState,
    /// When this state began.
    pub since: Timestamp,
    /// When the lease ends.
    pub expires: Timestamp,
    /// When it was last promised: the beginning of the time that ends with `expires`. 0 in stores of before this was kept.
    #[serde(default)]
    pub granted: Timestamp,
}

/// What a stored lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// Promised to the machine until it expires.
    Bound,
    /// Given back; kept so that the machine gets it again, unless another machine needs it first.
    Released,
    /// Another machine uses the address: it is not given out until this expires.
    Declined,
}
