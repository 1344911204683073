//! How long to wait before the next attempt: exponential backoff with jitter, pure.
//!
//! A rack that gets its power back has hundreds of nodes asking at once; without jitter they would ask
//! at once again, and again.

use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    most: Duration,
    random: u64,
}

impl Backoff {
    /// Begins at `first` and doubles up to `most`; `seed` should differ between machines.
    pub fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Backoff {
            next: first.min(most),
            most,
            random: seed | 1,
        }
    }

    /// The next wait: between half and all of the current step, so that the wait never vanishes
    /// and never exceeds `most`.
    pub fn next_wait(&mut self) -> Duration {
        // xorshift64 (Marsaglia 2003): no secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let step = self.next;
        self.next = (step * 2).min(self.most);
        let half = step / 2;
        half + half.mul_f64((self.random >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// A seed from the kernel's random numbers, by std's hash map keys: as PID 1 there is no /dev/urandom yet, which
/// the crates for random numbers fall back to in a static binary.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// How often a phase is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Once: a repetition would find the same.
    Once,
    /// Until that much time has passed since the first attempt.
    For(Duration),
}

impl Policy {
    /// True if another attempt is due after a failure, `spent` after the first attempt began.
    pub fn again(self, spent: Duration, wait: Duration, hopeless: bool) -> bool {
        match self {
            _ if hopeless => false,
            Policy::Once => false,
            Policy::For(total) => spent + wait <= total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_grow_within_their_bounds(seed: u64, first in 1u64..5_000, most in 1u64..60_000) {
            let mut backoff = Backoff::new(Duration::from_millis(first), Duration::from_millis(most), seed);
            let mut step = Duration::from_millis(first.min(most));
            for _ in 0..40 {
                let wait = backoff.next_wait();
                prop_assert!(wait >= step / 2 && wait <= step, "{wait:?} outside of {step:?}");
                step = (step * 2).min(Duration::from_millis(most));
            }
        }
    }

    #[test]
    fn two_machines_do_not_march_in_step() {
        let waits = |seed| {
            let mut b = Backoff::new(Duration::from_secs(1), Duration::from_secs(15), seed);
            (0..8).map(|_| b.next_wait()).collect::<Vec<_>>()
        };
        assert_ne!(waits(0x5254_0001_0101), waits(0x5254_0001_0102));
    }

    #[test]
    fn a_policy_ends() {
        let ten = Policy::For(Duration::from_secs(10));
        assert!(ten.again(Duration::from_secs(5), Duration::from_secs(5), false));
        assert!(!ten.again(Duration::from_secs(6), Duration::from_secs(5), false));
        assert!(!ten.again(Duration::ZERO, Duration::ZERO, true));
        assert!(!Policy::Once.again(Duration::ZERO, Duration::ZERO, false));
    }
}
