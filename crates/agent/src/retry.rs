//! Whether to try again, and the seed of the waits between attempts ([`rackstrap_wire::backoff`]).

use std::time::Duration;

/// A seed from the kernel's random numbers, through the hash map keys of std. PID 1 has no /dev/urandom yet, which the crates
/// for random numbers use as a fallback in a static binary.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// How often a phase is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Once: another attempt would fail in the same way.
    Once,
    /// Until this time has passed since the first attempt.
    For(Duration),
}

impl Policy {
    /// True if another attempt is due after a failure, `spent` after the first attempt began.
    pub fn again(self, spent: Duration, wait: Duration, permanent: bool) -> bool {
        match self {
            _ if permanent => false,
            Policy::Once => false,
            Policy::For(total) => spent + wait <= total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_ends() {
        let ten = Policy::For(Duration::from_secs(10));
        assert!(ten.again(Duration::from_secs(5), Duration::from_secs(5), false));
        assert!(!ten.again(Duration::from_secs(6), Duration::from_secs(5), false));
        assert!(!ten.again(Duration::ZERO, Duration::ZERO, true));
        assert!(!Policy::Once.again(Duration::ZERO, Duration::ZERO, false));
    }
}
