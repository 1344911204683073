//! What was answered, and why the rest was not.

use rackstrap_base::counters::{self, ReadCounts, counted};

counted! {
    /// Why a packet is not answered.
    pub enum Ignored {
        /// Shorter than its own length fields say, or no IPv6 at all.
        Truncated = "truncated",
        /// Another message than a router solicitation.
        NotASolicitation = "not-a-solicitation",
        /// A hop limit other than 255: it came through a router, so from outside (RFC 4861 section 6.1.1).
        HopLimit = "hop-limit",
        /// A checksum that is wrong.
        Checksum = "checksum",
        /// An option of length 0 or beyond the end, or a code other than 0.
        Malformed = "malformed",
        /// A sender without a link-local address: its answer would have to go to everybody. It asks again when it has one.
        NoAddress = "no-address",
        /// More in a second than a whole cluster asks.
        TooMany = "too-many",
        /// The answer could not be sent.
        SendFailed = "send-failed",
    }
}

counted! {
    /// What is counted besides packets that are not answered.
    enum Total {
        /// Solicitations that were answered.
        Answered = "solicitations-answered",
    }
}

/// Counts since the start; shared by all interfaces.
#[derive(Debug, Default)]
pub struct Counters {
    totals: counters::Counters<Total>,
    ignored: counters::Counters<Ignored>,
}

impl Counters {
    pub(super) fn answered(&self) {
        self.totals.count(Total::Answered);
    }

    pub(super) fn ignored(&self, why: Ignored) {
        self.ignored.count(why);
    }
}

impl ReadCounts for Counters {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.totals.read().chain(self.ignored.read()).collect()
    }
}
