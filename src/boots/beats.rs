//! When nodes' running systems were heard of last.

use rackstrap_base::sync::lock;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// No node is believed to run for longer without a sign of life: it may boot in vain, and what counts its failures, and an older agent
/// in a boot in doubt, wait for that.
pub(super) const LONGEST_DOUBT: Duration = Duration::from_secs(300);

/// The last heartbeats, by node; in memory only.
#[derive(Debug, Default)]
pub(super) struct Beats(Mutex<HashMap<String, Instant>>);

impl Beats {
    /// The system of `node` was heard of.
    pub fn hear(&self, node: &str, now: Instant) {
        self.lock().insert(node.to_owned(), now);
    }

    /// It is no node any more.
    pub fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    /// False if `node` was silent for longer than `patience`, so that its system does not run.
    pub fn is_alive(&self, node: &str, patience: Duration, now: Instant) -> bool {
        self.silent_in(node, patience, now).is_some()
    }

    /// Seconds, rounded up, after which `node` was silent for `patience`; none if it was.
    pub fn silent_in(&self, node: &str, patience: Duration, now: Instant) -> Option<u64> {
        let heard = self.lock().get(node).copied()?;
        let left = patience.checked_sub(now.saturating_duration_since(heard))?;
        (!left.is_zero()).then(|| left.as_millis().div_ceil(1000) as u64)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        lock(&self.0)
    }
}

/// A node that was silent for so long missed one heartbeat, and the next one took its time.
pub(super) fn two_heartbeats(heartbeat_secs: u32) -> Duration {
    Duration::from_secs(2 * u64::from(heartbeat_secs) + 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_heartbeats_and_five_seconds_of_silence_are_no_life() {
        let (beats, start) = (Beats::default(), rackstrap_base::clock::monotonic());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!beats.is_alive("r01n01", two_heartbeats(30), start));
        beats.hear("r01n01", start);
        assert!(beats.is_alive("r01n01", two_heartbeats(30), after(64)));
        assert!(!beats.is_alive("r01n01", two_heartbeats(30), after(65)));
        beats.hear("r01n01", after(70));
        assert!(
            beats.is_alive("r01n01", two_heartbeats(5), after(84))
                && !beats.is_alive("r01n01", two_heartbeats(5), after(85))
        );
    }

    #[test]
    fn nobody_is_held_longer_than_silence_takes() {
        let (beats, start) = (Beats::default(), rackstrap_base::clock::monotonic());
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(beats.silent_in("r01n01", two_heartbeats(30), start), None, "never seen");
        beats.hear("r01n01", start);
        assert_eq!(beats.silent_in("r01n01", two_heartbeats(30), start), Some(65));
        assert_eq!(beats.silent_in("r01n01", two_heartbeats(30), after(64_100)), Some(1));
        assert_eq!(beats.silent_in("r01n01", two_heartbeats(30), after(65_000)), None);
    }
}
