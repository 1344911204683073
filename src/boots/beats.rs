//! When nodes' running systems were heard of last.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The last heartbeats, by node; in memory only.
#[derive(Debug)]
pub(super) struct Beats {
    heard: Mutex<HashMap<String, Instant>>,
    /// Nothing is known of what was before.
    since: Instant,
}

impl Beats {
    pub fn new(since: Instant) -> Self {
        Beats {
            heard: Mutex::default(),
            since,
        }
    }

    /// The system of `node` was heard of.
    pub fn hear(&self, node: &str, now: Instant) {
        self.lock().insert(node.to_owned(), now);
    }

    /// It is no node any more.
    pub fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    /// How long `node` must still be silent until nobody can think that its system runs; none if it was silent for so long.
    pub fn left(&self, node: &str, heartbeat_secs: u32, now: Instant) -> Option<Duration> {
        let heard = self.lock().get(node).copied()?;
        left(heard, heartbeat_secs, now)
    }

    /// The same where a node that was not heard of may have been a moment before these were kept.
    pub fn left_at_most(&self, node: &str, heartbeat_secs: u32, now: Instant) -> Option<Duration> {
        let heard = self.lock().get(node).copied().unwrap_or(self.since);
        left(heard, heartbeat_secs, now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A system that sent nothing for this long does not run: it missed one heartbeat, and the next one may take its time.
fn left(heard: Instant, heartbeat_secs: u32, now: Instant) -> Option<Duration> {
    let silence = Duration::from_secs(2 * u64::from(heartbeat_secs) + 5);
    let left = silence.checked_sub(now.saturating_duration_since(heard))?;
    (!left.is_zero()).then_some(left)
}
