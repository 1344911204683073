//! Wall-clock time as the store and the timelines keep it.
//!
//! Only tasks, the store and the command line ask what time it is; protocol logic is given `now`.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// The time of a clock that is never set, for times that are not stored.
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// What a clock is corrected by while it runs well, milliseconds. More is a clock that was set.
pub const CORRECTION_MS: u64 = 5_000;

impl Timestamp {
    /// The time now, by the clock of the machine.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(since.as_millis() as u64)
    }

    /// Milliseconds from `earlier` to `self`, 0 if the clock was set back in between.
    pub fn since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// True if `self` is less than `millis` after `earlier`. False where `earlier` lies ahead: the clock was set back, and what was
    /// noted with the old time would otherwise last until that returns. Corrections below [`CORRECTION_MS`] do not count.
    pub fn is_within(self, millis: u64, earlier: Timestamp) -> bool {
        self.0.saturating_add(CORRECTION_MS) >= earlier.0 && self.since(earlier) < millis
    }

    /// `self` plus so many seconds.
    pub fn plus_secs(self, secs: u64) -> Self {
        Timestamp(self.0.saturating_add(secs.saturating_mul(1000)))
    }
}

/// A duration that people read: `4.2 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        _ if millis < 1000 => format!("{millis} ms"),
        // Rounding must not make 60.0 s of 59.96.
        0..60 => format!("{}.{} s", seconds, millis % 1000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_ahead_is_not_recent() {
        let noted = Timestamp(1_000_000);
        assert!(Timestamp(1_000_999).is_within(1_000, noted));
        assert!(!Timestamp(1_001_000).is_within(1_000, noted));
        assert!(Timestamp(1_000_000 - CORRECTION_MS).is_within(1_000, noted));
        assert!(!Timestamp(999_999 - CORRECTION_MS).is_within(1_000, noted));
    }
}
