//! When the running system of each node was last heard of.

use rackstrap_base::sync::lock;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// After this silence a node's system counts as not running. Counting failed boots waits for that, and so does an older agent
/// in a doubted boot.
pub(super) const LONGEST_DOUBT: Duration = Duration::from_secs(300);

/// The time of the last heartbeat of each node, in memory only.
#[derive(Debug, Default)]
pub(super) struct Heartbeats(Mutex<HashMap<String, Instant>>);

impl Heartbeats {
    /// Records that the system of `node` was heard of.
    pub fn hear(&self, node: &str, now: Instant) {
        self.lock().insert(node.to_owned(), now);
    }

    /// Removes a name that is no longer a node's.
    pub fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    /// Whether `node` was heard of within `patience`. If not, its system does not run.
    pub fn is_alive(&self, node: &str, patience: Duration, now: Instant) -> bool {
        self.silent_in(node, patience, now).is_some()
    }

    /// Seconds, rounded up, until `node` has been silent for `patience`; none if it has been already.
    pub fn silent_in(&self, node: &str, patience: Duration, now: Instant) -> Option<u64> {
        let heard = self.lock().get(node).copied()?;
        let left = patience.checked_sub(now.saturating_duration_since(heard))?;
        (!left.is_zero()).then(|| left.as_millis().div_ceil(1000) as u64)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        lock(&self.0)
    }
}

/// How long a node may be silent: two heartbeat periods, because one heartbeat may be lost, and 5 s for the second one to
/// arrive.
pub(super) fn two_heartbeats(heartbeat_secs: u32) -> Duration {
    Duration::from_secs(2 * u64::from(heartbeat_secs) + 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_dead_after_two_heartbeats_and_five_seconds_of_silence() {
        let (heartbeats, start) = (Heartbeats::default(), rackstrap_base::clock::monotonic());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!heartbeats.is_alive("r01n01", two_heartbeats(30), start));
        heartbeats.hear("r01n01", start);
        assert!(heartbeats.is_alive("r01n01", two_heartbeats(30), after(64)));
        assert!(!heartbeats.is_alive("r01n01", two_heartbeats(30), after(65)));
        heartbeats.hear("r01n01", after(70));
        assert!(
            heartbeats.is_alive("r01n01", two_heartbeats(5), after(84))
                && !heartbeats.is_alive("r01n01", two_heartbeats(5), after(85))
        );
    }

    #[test]
    fn the_longest_wait_is_the_silence_that_ends_it() {
        let (heartbeats, start) = (Heartbeats::default(), rackstrap_base::clock::monotonic());
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(
            heartbeats.silent_in("r01n01", two_heartbeats(30), start),
            None,
            "never seen"
        );
        heartbeats.hear("r01n01", start);
        assert_eq!(heartbeats.silent_in("r01n01", two_heartbeats(30), start), Some(65));
        assert_eq!(
            heartbeats.silent_in("r01n01", two_heartbeats(30), after(64_100)),
            Some(1)
        );
        assert_eq!(heartbeats.silent_in("r01n01", two_heartbeats(30), after(65_000)), None);
    }
}
