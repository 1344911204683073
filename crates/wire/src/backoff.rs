//! The waits before further attempts: exponential backoff (pure).
//!
//! When a rack gets power, hundreds of nodes send requests at the same time. Without jitter they would repeat them at the same
//! time, again and again: use [`Backoff`]. If only one program waits, [`doubled`] is enough.

use std::time::Duration;

/// The wait after `failures` failures in a row, counted from 0: `first`, doubled for each failure, and at most `most`.
pub fn doubled(first: Duration, most: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(31)).min(most)
}

/// Waits between attempts, with jitter.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Starts at `first` and doubles up to `most`. `seed` should differ between machines.
    pub fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Backoff {
            first,
            most,
            failures: 0,
            random: seed | 1,
        }
    }

    /// The next wait: between half and all of the current step, so that it is never zero and never exceeds `most`.
    pub fn next_wait(&mut self) -> Duration {
        // xorshift64 (Marsaglia 2003) is enough, because no secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let step = doubled(self.first, self.most, self.failures);
        self.failures = self.failures.saturating_add(1);
        let half = step / 2;
        half + half.mul_f64((self.random >> 11) as f64 / (1u64 << 53) as f64)
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

        #[test]
        fn no_number_of_failures_overflows(first: u64, most: u64, failures: u32) {
            prop_assert!(doubled(Duration::from_secs(first), Duration::from_secs(most), failures).as_secs() <= most);
        }
    }

    #[test]
    fn each_failure_doubles_the_wait() {
        let waits = [0, 1, 2, 6, 7, 1000]
            .map(|failures| doubled(Duration::from_secs(10), Duration::from_secs(600), failures).as_secs());
        assert_eq!(waits, [10, 20, 40, 600, 600, 600]);
    }

    #[test]
    fn two_machines_have_different_waits() {
        let waits = |seed| {
            let mut b = Backoff::new(Duration::from_secs(1), Duration::from_secs(15), seed);
            (0..8).map(|_| b.next_wait()).collect::<Vec<_>>()
        };
        assert_ne!(waits(0x5254_0001_0101), waits(0x5254_0001_0102));
    }
}
