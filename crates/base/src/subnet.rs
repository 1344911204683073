//! A network of nodes, as the site file has it.

use crate::dhcp_option::DhcpOption;
use ipnet::Ipv4Net;
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// `dhcp` of `[[subnet]]`: which part of DHCP the daemon answers there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DhcpPart {
    /// Addresses and boot files: the daemon is the network's DHCP server.
    #[default]
    Full,
    /// Boot files only (PXE 2.1, ProxyDHCP): another server gives the addresses.
    Proxy,
    /// Nothing: another server gives the addresses and names the boot files.
    Off,
}

impl DhcpPart {
    /// All values, as the documentation lists them.
    pub const ALL: [DhcpPart; 3] = [DhcpPart::Full, DhcpPart::Proxy, DhcpPart::Off];

    /// The word in the site file.
    pub fn as_str(self) -> &'static str {
        match self {
            DhcpPart::Full => "full",
            DhcpPart::Proxy => "proxy",
            DhcpPart::Off => "off",
        }
    }

    /// Whether another DHCP server gives the addresses.
    pub fn is_of_another_server(self) -> bool {
        self != DhcpPart::Full
    }
}

impl fmt::Display for DhcpPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DhcpPart {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        DhcpPart::ALL.into_iter().find(|part| part.as_str() == text).ok_or(())
    }
}

/// Why a node cannot boot to which another DHCP server gave the address `has`, and what to do about it.
pub fn wrong_address(node: &str, has: Ipv4Addr, named: Ipv4Addr) -> String {
    format!(
        "{node} has {has}, its name says {named}: add a host reservation to your DHCP server (`rackstrap export kea`, `dhcpd` \
         or `dnsmasq`)"
    )
}

/// `[[subnet]]`: one network that the daemon answers on.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// Network address and prefix length.
    pub network: Ipv4Net,
    /// The interface that it is attached to; none = only reached by relays (giaddr).
    pub interface: Option<String>,
    /// The daemon's own address that nodes of this subnet talk to.
    pub server: Ipv4Addr,
    /// The VLAN of its nodes (IEEE 802.1Q), 1 to 4094, whose tag they set themselves; none = their packets have no tag. The agent sets the
    /// tag. Firmware without a VLAN of its own starts in a subnet that [`Subnet::starts_untagged`].
    pub vlan: Option<u16>,
    /// Which part of DHCP the daemon answers.
    pub dhcp: DhcpPart,
    /// The DHCP servers that give the addresses where the daemon does not; empty if the site file names none.
    pub dhcp_servers: Vec<Ipv4Addr>,
    /// Whether the site file says that these servers give the daemon's address as `next-server`, which GRUB and U-Boot read.
    pub next_server: bool,
    /// Default router, if any.
    pub router: Option<Ipv4Addr>,
    /// Name servers: with `[dns]`, the daemon itself where the site file names none.
    pub dns: Vec<Ipv4Addr>,
    /// Addresses of NTP servers (option 42); empty if the site names none.
    pub ntp: Vec<Ipv4Addr>,
    /// MTU of the nodes' cards in bytes (option 26); none = as the card has it, 1,500 with Ethernet.
    pub mtu: Option<u16>,
    /// Further options of DHCP answers, each code once.
    pub options: Vec<DhcpOption>,
    /// First and last address of the temporary pool for unknown machines; none = unknown machines get no answer.
    pub pool: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Lease time of nodes, seconds.
    pub lease_secs: u32,
    /// Lease time of the temporary pool, seconds.
    pub pool_lease_secs: u32,
}

impl Subnet {
    /// Whether firmware of nodes that belong to a VLAN can get an address and its loader here: packets have no tag, and a pool is leased.
    pub fn starts_untagged(&self) -> bool {
        self.vlan.is_none() && self.dhcp == DhcpPart::Full && self.pool.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_dhcp_has_its_word() {
        for part in DhcpPart::ALL {
            assert_eq!(part.as_str().parse(), Ok(part));
        }
        assert_eq!("Proxy".parse::<DhcpPart>(), Err(()));
        assert_eq!(DhcpPart::default(), DhcpPart::Full);
    }
}
