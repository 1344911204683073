//! The kernel's table of neighbours (ARP), as text (pure): which card has an address on a network that this machine is attached to.

use crate::HwAddr;
use std::net::Ipv4Addr;

/// The file with the table.
pub const TABLE: &str = "/proc/net/arp";

/// The card at which this machine reaches `address`, in the text of [`TABLE`]; none if the kernel does not know it, as behind a router.
///
/// Only root of another machine can change what its machine answers to ARP.
pub fn card_at(table: &str, address: Ipv4Addr) -> Option<HwAddr> {
    let address = address.to_string();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [found, _, flags, hwaddr, ..] = fields.as_slice() else {
            return None;
        };
        // 0x2 is ATF_COM (linux/if_arp.h): the entry is complete.
        let complete = u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 2 != 0);
        (*found == address && complete).then(|| hwaddr.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_entries_are_found() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.5.0.9         0x1         0x0         00:00:00:00:00:00     *        eth0\n\
                     10.5.0.1         0x1         0x2         52:54:00:05:00:01     *        eth0\n";
        let of = |last| card_at(table, Ipv4Addr::new(10, 5, 0, last)).map(|a| a.to_string());
        assert_eq!(of(1).as_deref(), Some("52:54:00:05:00:01"));
        assert_eq!((of(9), of(2)), (None, None));
        assert_eq!(card_at("garbage\n1 2\n", Ipv4Addr::new(10, 5, 0, 1)), None);
    }
}
