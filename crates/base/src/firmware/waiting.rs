//! Addresses that waiting machines took from another DHCP server, by their own requests (pure).

use rackstrap_wire::HwAddr;
use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

/// Waiting machines that are remembered at most. The oldest are forgotten first, so that a flood of machines replaces itself; a machine
/// that was forgotten asks DHCP again.
const MOST_WAITING: usize = 8192;

/// Which waiting machine has which address: at most one machine for each address, and one address for each machine.
#[derive(Debug, Default)]
pub(super) struct WaitingAddresses {
    by_card: HashMap<HwAddr, (u64, Ipv4Addr)>,
    by_address: HashMap<Ipv4Addr, HwAddr>,
    /// Cards in the order of their last requests.
    order: BTreeMap<u64, HwAddr>,
    next: u64,
}

impl WaitingAddresses {
    /// `address` was taken by the waiting machine `hwaddr`, or by a client that does not wait.
    pub fn took(&mut self, address: Ipv4Addr, hwaddr: Option<HwAddr>) {
        if let Some(before) = self.by_address.get(&address).copied() {
            self.forget(before);
        }
        let Some(hwaddr) = hwaddr else { return };
        self.forget(hwaddr);
        while self.by_card.len() >= MOST_WAITING {
            let Some((_, oldest)) = self.order.first_key_value() else {
                break;
            };
            self.forget(*oldest);
        }
        self.by_card.insert(hwaddr, (self.next, address));
        self.by_address.insert(address, hwaddr);
        self.order.insert(self.next, hwaddr);
        self.next += 1;
    }

    /// The waiting machine that has `address`.
    pub fn holder(&self, address: Ipv4Addr) -> Option<HwAddr> {
        self.by_address.get(&address).copied()
    }

    fn forget(&mut self, hwaddr: HwAddr) {
        if let Some((number, address)) = self.by_card.remove(&hwaddr) {
            self.by_address.remove(&address);
            self.order.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(n: u32) -> HwAddr {
        let [a, b, c, d] = n.to_be_bytes();
        HwAddr([0x52, 0x54, a, b, c, d])
    }

    #[test]
    fn an_address_has_one_machine_and_a_machine_one_address() {
        let (first, second) = (Ipv4Addr::new(10, 5, 254, 1), Ipv4Addr::new(10, 5, 254, 2));
        let mut waiting = WaitingAddresses::default();
        waiting.took(first, Some(card(1)));
        assert_eq!((waiting.holder(first), waiting.holder(second)), (Some(card(1)), None));
        waiting.took(second, Some(card(1)));
        assert_eq!((waiting.holder(first), waiting.holder(second)), (None, Some(card(1))));
        waiting.took(second, Some(card(2)));
        assert_eq!(waiting.holder(second), Some(card(2)));
        // The system of a machine that does not wait.
        waiting.took(second, None);
        assert_eq!(waiting.holder(second), None);
        assert!(waiting.by_card.is_empty() && waiting.order.is_empty());
    }

    #[test]
    fn a_flood_of_machines_replaces_itself() {
        let mut waiting = WaitingAddresses::default();
        let most = MOST_WAITING as u32;
        for n in 0..2 * most {
            waiting.took(Ipv4Addr::from(n), Some(card(n)));
        }
        let sizes = [waiting.by_card.len(), waiting.by_address.len(), waiting.order.len()];
        assert_eq!(sizes, [MOST_WAITING; 3]);
        assert_eq!(waiting.holder(Ipv4Addr::from(most - 1)), None);
        assert_eq!(waiting.holder(Ipv4Addr::from(most)), Some(card(most)));
    }
}
