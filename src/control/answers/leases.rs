//! Answers about the temporary pools.

use crate::control::api::{LeaseRow, LeaseStateName};
use rackstrap_base::clock::Timestamp;
use rackstrap_dhcp::{Lease, LeaseState};

impl LeaseRow {
    /// A lease as it is at `now`. The store has it as it was granted.
    pub(in crate::control) fn at(lease: &Lease, now: Timestamp) -> Self {
        LeaseRow {
            ipaddr: lease.ipaddr,
            hwaddr: lease.hwaddr,
            uuid: lease.uuid,
            state: match lease.state {
                LeaseState::Released => LeaseStateName::Released,
                _ if lease.expires <= now => LeaseStateName::Expired,
                LeaseState::Bound => LeaseStateName::Bound,
                LeaseState::Declined => LeaseStateName::Declined,
            },
            since: lease.since,
            expires: lease.expires,
            granted: lease.granted,
        }
    }
}
