//! NFS and MOUNT by UDP: FreeBSD's boot loader speaks nothing else (stand/libsa/nfs.c and rpc.c in its sources).
//!
//! A sender's address may be forged. So only nodes get replies ([`Engine::answer_datagram`]), and each address gets a limited number of
//! bytes per second: a host that knows a handle could otherwise have a node flooded with file data. What is above a limit is dropped, and
//! the client repeats its call. All exports are read-only, so a repeated call is executed again.

//!
//! This file has the limits, and `task` the socket.

mod task;

pub use task::serve_datagrams;

use std::{collections::HashMap, net::IpAddr, time::Instant};

/// The bytes per second that each address may get.
#[derive(Debug)]
struct Allowances {
    rate: u64,
    by_address: HashMap<IpAddr, (u64, Instant)>,
}

impl Allowances {
    /// Most addresses: more nodes than one server has.
    const MOST: usize = 16_384;

    fn new(rate: u64) -> Self {
        Allowances {
            rate,
            by_address: HashMap::new(),
        }
    }

    /// Takes `bytes` from what `address` may get; false if it may not get that many now. At most one second's bytes are saved up.
    fn take(&mut self, address: IpAddr, bytes: usize, now: Instant) -> bool {
        let rate = self.rate;
        let left = |saved: u64, at: Instant| {
            let grown = u128::from(rate) * now.saturating_duration_since(at).as_nanos() / 1_000_000_000;
            u64::try_from(u128::from(saved) + grown).unwrap_or(rate).min(rate)
        };
        if self.by_address.len() >= Self::MOST && !self.by_address.contains_key(&address) {
            self.by_address.retain(|_, (saved, at)| left(*saved, *at) < rate);
            if self.by_address.len() >= Self::MOST {
                return false;
            }
        }
        let entry = self.by_address.entry(address).or_insert((rate, now));
        let saved = left(entry.0, entry.1);
        let rest = saved.checked_sub(bytes as u64);
        *entry = (rest.unwrap_or(saved), now);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_address_gets_its_bytes_per_second_and_delays_no_other_address() {
        let mut allowances = Allowances::new(1000);
        let (one, other) = (IpAddr::from([10, 5, 1, 1]), IpAddr::from([10, 5, 1, 2]));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(allowances.take(one, 900, at(0)));
        assert!(!allowances.take(one, 200, at(0)));
        assert!(allowances.take(one, 100, at(0)), "what was refused costs nothing");
        assert!(allowances.take(other, 1000, at(0)));
        assert!(!allowances.take(one, 300, at(200)));
        assert!(allowances.take(one, 300, at(300)));
        assert!(
            !allowances.take(one, 1001, at(3_600_000)),
            "an hour saves up one second"
        );
        assert!(allowances.take(one, 1000, at(3_600_000)));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let mut allowances = Allowances::new(1000);
        let start = Instant::now();
        for number in 0..Allowances::MOST as u32 {
            assert!(allowances.take(IpAddr::from(number.to_be_bytes()), 500, start));
        }
        let further = IpAddr::from([192, 168, 0, 1]);
        assert!(!allowances.take(further, 1, start));
        assert!(allowances.take(further, 1, start + Duration::from_secs(1)));
        assert_eq!(allowances.by_address.len(), 1);
    }
}
