//! How long to wait for an acknowledgement: measured, not guessed (after RFC 6298).
//!
//! Fixed times of 1 to 5 s are why 1 MB takes other servers 11 to 30 s on a link that loses one packet in a hundred.

use rackstrap_base::backoff::doubled;
use std::time::Duration;

/// Before anything was measured. RFC 6298 says 1 s for the Internet; a boot network is one switch away, and a second
/// OACK costs nothing.
const INITIAL: Duration = Duration::from_millis(500);
/// Never sooner: firmware polls its card from a timer tick and may be writing a flash or a screen in between.
const MIN: Duration = Duration::from_millis(200);
/// Backoff stops here, so that a node comes back quickly when its switch port does.
const MAX: Duration = Duration::from_secs(2);

/// A probe never comes sooner, so that a client which is only busy is not disturbed.
const MIN_PROBE: Duration = Duration::from_millis(10);

/// Retransmission timer of one session.
#[derive(Clone, Debug)]
pub struct Rto {
    /// Interval that the client asked for (RFC 2349); nothing is measured or backed off then.
    fixed: Option<Duration>,
    smoothed: Option<Duration>,
    variation: Duration,
    least: Duration,
    backoff: u32,
}

impl Rto {
    /// A timer that measures, or one of a `fixed` interval.
    pub fn new(fixed: Option<Duration>) -> Self {
        Rto {
            fixed,
            smoothed: None,
            variation: Duration::ZERO,
            least: Duration::MAX,
            backoff: 0,
        }
    }

    /// Takes an unambiguous round trip (Karn: of something that was sent once) and ends the backoff.
    pub fn sample(&mut self, rtt: Duration) {
        self.backoff = 0;
        self.least = self.least.min(rtt);
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// An answer that may belong to either of two transmissions: one step back down, because on a lossy link most
    /// repetitions were needed, and on one that became slow the next step up follows at once.
    pub fn ambiguous(&mut self) {
        self.backoff = self.backoff.saturating_sub(1);
    }

    /// A timeout doubles the next one.
    pub fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(16);
    }

    /// The timeout before any doubling.
    pub fn base(&self) -> Duration {
        match (self.fixed, self.smoothed) {
            (Some(fixed), _) => fixed,
            (None, None) => INITIAL,
            (None, Some(smoothed)) => (smoothed + self.variation * 4).max(MIN),
        }
    }

    /// The timeout that holds now, with its doublings.
    pub fn current(&self) -> Duration {
        let base = self.base();
        match self.fixed {
            Some(fixed) => fixed,
            None => doubled(base, base.max(MAX), self.backoff),
        }
    }

    /// When to send the last block of a silent window once more. A client whose receive buffer is smaller than the
    /// window loses the end of each, and so has no gap to tell of; the probe makes one, where only the timeout would
    /// follow. atftp with 16 blocks of 8 KiB is such a client. None while nothing was measured, and if the client chose
    /// the interval.
    pub fn probe(&self) -> Option<Duration> {
        let after = (self.smoothed? + self.variation * 4).max(MIN_PROBE);
        (self.fixed.is_none() && after < self.current()).then_some(after)
    }

    /// Mean round trip, if one was measured.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Shortest round trip, if one was measured.
    pub fn least(&self) -> Option<Duration> {
        self.smoothed.map(|_| self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_the_round_trip() {
        let mut rto = Rto::new(None);
        assert_eq!(rto.current(), INITIAL);
        rto.sample(Duration::from_millis(100));
        assert_eq!(rto.current(), Duration::from_millis(300));
        for _ in 0..50 {
            rto.sample(Duration::from_micros(300));
        }
        assert_eq!(rto.current(), MIN);
        rto.back_off();
        rto.back_off();
        assert_eq!(rto.current(), MIN * 4);
        rto.ambiguous();
        assert_eq!(rto.current(), MIN * 2);
        for _ in 0..40 {
            rto.back_off();
        }
        assert_eq!(rto.current(), MAX);
        rto.sample(Duration::from_micros(300));
        assert_eq!(rto.current(), MIN);
    }

    #[test]
    fn a_slow_link_is_not_cut_at_the_cap() {
        let mut rto = Rto::new(None);
        rto.sample(Duration::from_secs(3));
        assert_eq!(rto.base(), Duration::from_secs(9));
        rto.back_off();
        assert_eq!(rto.current(), Duration::from_secs(9));
    }

    #[test]
    fn a_negotiated_interval_stays() {
        let mut rto = Rto::new(Some(Duration::from_secs(4)));
        rto.sample(Duration::from_millis(1));
        rto.back_off();
        assert_eq!(rto.current(), Duration::from_secs(4));
    }
}
