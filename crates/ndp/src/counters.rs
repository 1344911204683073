//! What was answered, and why the rest was not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a packet is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Shorter than its own length fields say, or no IPv6 at all.
    Truncated,
    /// Another message than a router solicitation.
    NotASolicitation,
    /// A hop limit other than 255: it came through a router, so from outside (RFC 4861 section 6.1.1).
    HopLimit,
    /// A checksum that is wrong.
    Checksum,
    /// An option of length 0 or beyond the end, or a code other than 0.
    Malformed,
    /// A sender without a link-local address: its answer would have to go to everybody. It asks again when it has one.
    NoAddress,
    /// More in a second than a whole cluster asks.
    TooMany,
    /// The answer could not be sent.
    SendFailed,
}

const NAMES: [&str; Ignored::SendFailed as usize + 1] = [
    "truncated",
    "not-a-solicitation",
    "hop-limit",
    "checksum",
    "malformed",
    "no-address",
    "too-many",
    "send-failed",
];

/// Counts since the start; shared by all interfaces.
#[derive(Debug, Default)]
pub struct Counters {
    answered: AtomicU64,
    ignored: [AtomicU64; NAMES.len()],
}

impl Counters {
    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    pub(super) fn ignored(&self, why: Ignored) {
        self.ignored[why as usize].fetch_add(1, Relaxed);
    }

    /// All of them, with their names.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [("solicitations-answered", &self.answered)].into_iter();
        let all = all.chain(NAMES.into_iter().zip(&self.ignored));
        all.map(|(name, count)| (name, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_reasons() {
        let counters = Counters::default();
        counters.answered();
        (0..2).for_each(|_| counters.ignored(Ignored::Truncated));
        (0..3).for_each(|_| counters.ignored(Ignored::SendFailed));
        let counted: Vec<_> = counters.read().filter(|(_, n)| *n > 0).collect();
        assert_eq!(
            counted,
            [("solicitations-answered", 1), ("truncated", 2), ("send-failed", 3)]
        );
    }
}
