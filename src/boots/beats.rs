//! When nodes' running systems were heard of last.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A boot in doubt waits no longer for its node to be silent: what waits is an agent, perhaps of a node that boots.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(300);

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

    /// False if `node` was silent for so long that its system does not run: it missed one heartbeat, and the next one may take its time.
    pub fn is_alive(&self, node: &str, heartbeat_secs: u32, now: Instant) -> bool {
        self.silence(node, now)
            .is_some_and(|silence| silence < limit(heartbeat_secs))
    }

    /// Seconds, rounded up, after which `node` was silent for long enough, [`LONGEST_HOLD`] at most; none if it is by now.
    pub fn silent_in(&self, node: &str, heartbeat_secs: u32, now: Instant) -> Option<u64> {
        let left = limit(heartbeat_secs)
            .min(LONGEST_HOLD)
            .checked_sub(self.silence(node, now)?)?;
        (!left.is_zero()).then(|| left.as_millis().div_ceil(1000) as u64)
    }

    /// Time since `node` was heard of; none if it never was.
    fn silence(&self, node: &str, now: Instant) -> Option<Duration> {
        let heard = self.lock().get(node).copied()?;
        Some(now.saturating_duration_since(heard))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limit(heartbeat_secs: u32) -> Duration {
    Duration::from_secs(2 * u64::from(heartbeat_secs) + 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_heartbeats_and_five_seconds_of_silence_are_no_life() {
        let (beats, start) = (Beats::default(), rackstrap_base::clock::monotonic());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!beats.is_alive("r01n01", 30, start));
        beats.hear("r01n01", start);
        assert!(beats.is_alive("r01n01", 30, after(64)));
        assert!(!beats.is_alive("r01n01", 30, after(65)));
        beats.hear("r01n01", after(70));
        assert!(beats.is_alive("r01n01", 5, after(84)) && !beats.is_alive("r01n01", 5, after(85)));
    }

    #[test]
    fn nobody_is_held_longer_than_silence_takes_or_than_five_minutes() {
        let (beats, start) = (Beats::default(), rackstrap_base::clock::monotonic());
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(beats.silent_in("r01n01", 30, start), None, "never heard of");
        beats.hear("r01n01", start);
        assert_eq!(beats.silent_in("r01n01", 30, start), Some(65));
        assert_eq!(beats.silent_in("r01n01", 30, after(64_100)), Some(1));
        assert_eq!(beats.silent_in("r01n01", 30, after(65_000)), None);
        assert_eq!(beats.silent_in("r01n01", 3600, after(1)), Some(300));
        assert_eq!(beats.silent_in("r01n01", 3600, after(300_000)), None);
    }
}
