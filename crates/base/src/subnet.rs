//! A network of nodes, as the site file has it.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// `[[subnet]]`: one network that the daemon answers on.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// Network address and prefix length.
    pub network: Ipv4Net,
    /// The interface that it is attached to; none = only reached by relays (giaddr).
    pub interface: Option<String>,
    /// The daemon's own address that nodes of this subnet talk to.
    pub server: Ipv4Addr,
    /// Default router, if any.
    pub router: Option<Ipv4Addr>,
    /// Name servers: with `[dns]`, the daemon itself where the site file names none.
    pub dns: Vec<Ipv4Addr>,
    /// Addresses of NTP servers (option 42); empty if the site names none.
    pub ntp: Vec<Ipv4Addr>,
    /// First and last address of the temporary pool for unknown machines; none = unknown machines get no answer.
    pub pool: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Lease time of nodes, seconds.
    pub lease_secs: u32,
    /// Lease time of the temporary pool, seconds.
    pub pool_lease_secs: u32,
}
