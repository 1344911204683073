//! When nodes' running systems were heard of last.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

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
        let silence = Duration::from_secs(2 * u64::from(heartbeat_secs) + 5);
        let heard = self.lock().get(node).copied();
        heard.is_some_and(|heard| now.saturating_duration_since(heard) < silence)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
}
