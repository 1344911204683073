//! Which DHCP packets belong to one attempt of a machine to boot, so that an attempt without a loader is one event.

use rackstrap_base::{clock::Timestamp, sync::lock};
use rackstrap_wire::HwAddr;
use std::{collections::HashMap, sync::Mutex};

/// Firmware repeats its DISCOVER after 4, 8, 16 and 32 s (PXE 2.1 section 2.2.3), so that a longer silence ends the attempt, in
/// milliseconds. Old ROMs make their transaction id of their MAC address: it never changes.
const SILENCE: u64 = 90_000;
/// No firmware begins two attempts within this time, in milliseconds; a flood of other transaction ids does.
const SHORTEST: u64 = 5_000;
/// Unknown machines that are remembered at most. Their addresses may be forged.
const MOST_UNKNOWN: usize = 1024;

/// Whether a packet that comes `now` begins another attempt than the one that came `last`, by the silence between them (pure). A clock that was
/// set back ends the attempt, too.
pub fn is_over(last: Timestamp, now: Timestamp) -> bool {
    !now.is_within(SILENCE, last)
}

/// The last attempt of each machine that got no loader.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<HwAddr, Attempt>>);

#[derive(Clone, Copy, Debug)]
struct Attempt {
    xid: u32,
    began: Timestamp,
    last: Timestamp,
    known: bool,
}

impl Attempts {
    /// Whether this packet begins an attempt. `known` is whether a node sent it. While too many unknown machines ask at once, no attempt of
    /// a further one is noticed.
    pub fn begins(&self, hwaddr: HwAddr, xid: u32, known: bool, now: Timestamp) -> bool {
        let mut all = lock(&self.0);
        if let Some(before) = all.get_mut(&hwaddr) {
            let silent = is_over(before.last, now);
            let other = before.xid != xid && now.since(before.began) >= SHORTEST;
            if !silent && !other {
                before.last = now;
                return false;
            }
        } else if !known {
            let unknown = |all: &HashMap<HwAddr, Attempt>| all.values().filter(|attempt| !attempt.known).count();
            if unknown(&all) >= MOST_UNKNOWN {
                all.retain(|_, attempt| attempt.known || !is_over(attempt.last, now));
            }
            if unknown(&all) >= MOST_UNKNOWN {
                return false;
            }
        }
        let attempt = Attempt {
            xid,
            began: now,
            last: now,
            known,
        };
        all.insert(hwaddr, attempt);
        true
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
    fn the_packets_of_one_attempt_are_one() {
        let attempts = Attempts::default();
        let begins = |xid, secs: u64| attempts.begins(card(1), xid, true, Timestamp(secs * 1000));
        // DISCOVER, repeated, and the REQUEST.
        assert!(begins(7, 100));
        for secs in [104, 112, 128, 160, 161] {
            assert!(!begins(7, secs), "{secs}");
        }
        // The next attempt, by another id or after a silence.
        assert!(begins(8, 170));
        assert!(!begins(8, 174));
        assert!(begins(8, 174 + 90));
        assert!(begins(8, 50), "the clock was set back");
    }

    #[test]
    fn a_flood_is_at_most_one_event_in_five_seconds() {
        let attempts = Attempts::default();
        let noticed = (0..10_000u32).filter(|n| attempts.begins(card(1), *n, true, Timestamp(u64::from(*n) * 2)));
        assert_eq!(noticed.count(), 4, "20 s");
    }

    #[test]
    fn forged_addresses_neither_fill_the_memory_nor_hide_nodes() {
        let attempts = Attempts::default();
        let now = Timestamp(1_000_000);
        let noticed = (0..5000).filter(|n| attempts.begins(card(*n), 1, false, now)).count();
        assert_eq!(noticed, MOST_UNKNOWN);
        assert!(attempts.begins(card(9000), 1, true, now), "a node");
        let later = now.plus_secs(90);
        assert!(attempts.begins(card(6000), 1, false, later));
        assert_eq!(attempts.0.lock().unwrap().len(), 2, "the node and the new one");
    }
}
