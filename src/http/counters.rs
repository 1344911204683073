//! What was asked, and what was refused, by reason.

use axum::http::StatusCode;
use rackstrap_base::counters::{self, Counted, ReadCounts, counted};
use std::net::IpAddr;

counted! {
    /// Why a request had no answer but a refusal, or a connection ended without one.
    pub enum Reason {
        /// A path or a file that is not there.
        UnknownPath = "refused-unknown-path",
        /// Another method than the path takes.
        WrongMethod = "refused-wrong-method",
        /// A boot that is not known (any more).
        UnknownBoot = "refused-unknown-boot",
        /// Another node's boot.
        ForeignBoot = "refused-foreign-boot",
        /// Not the boot's token.
        WrongToken = "refused-wrong-token",
        /// A boot's token from a port that any user of the node can have.
        UnprivilegedPort = "refused-unprivileged-port",
        /// Asked again for what goes out once a boot.
        Redeemed = "refused-redeemed",
        /// A peer that is in no subnet of the site.
        Stranger = "refused-stranger",
        /// A path or a query that cannot be understood.
        BadRequest = "refused-bad-request",
        /// A range that the file does not have, or several.
        BadRange = "refused-bad-range",
        /// A body that is not what its path takes.
        BadBody = "refused-bad-body",
        /// A body over the limit.
        BodyTooLarge = "refused-body-too-large",
        /// A body that did not arrive within its time.
        BodyTooSlow = "refused-body-too-slow",
        /// What the server cannot do now: a missing file, a full store, a template that fails.
        Unavailable = "unavailable",
        /// Bytes that are no HTTP request.
        Malformed = "refused-malformed",
        /// A head over the limit, in bytes or in fields.
        HeadTooLarge = "refused-head-too-large",
        /// A connection without one whole head of a request within its time.
        NoRequest = "closed-no-request",
        /// A connection that ended in the middle of a request or of its answer, or whose peer took nothing for too long.
        BrokenOff = "closed-broken-off",
        /// More connections of one address than it may have.
        TooManyOfPeer = "refused-too-many-connections-of-peer",
        /// All places were in use: the connection was refused.
        NoPlace = "refused-no-place",
        /// The connection was idle, and its place went to another one.
        Displaced = "closed-for-another-connection",
    }
}

impl Reason {
    /// The reason of an answer that does not come from our own code, if it is a refusal.
    pub fn of_status(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::NOT_FOUND => Some(Reason::UnknownPath),
            StatusCode::METHOD_NOT_ALLOWED => Some(Reason::WrongMethod),
            StatusCode::RANGE_NOT_SATISFIABLE => Some(Reason::BadRange),
            StatusCode::PAYLOAD_TOO_LARGE => Some(Reason::BodyTooLarge),
            status if status.is_client_error() => Some(Reason::BadRequest),
            status if status.is_server_error() => Some(Reason::Unavailable),
            _ => None,
        }
    }
}

counted! {
    /// What is counted besides refusals.
    enum Total {
        /// Connections that were accepted.
        Connections = "connections",
        /// Requests, whatever they were answered.
        Requests = "requests",
    }
}

/// All counts since the start; shared by all listeners.
#[derive(Debug, Default)]
pub struct Counters {
    totals: counters::Counters<Total>,
    refused: counters::Counters<Reason>,
}

impl Counters {
    pub(super) fn connection(&self) {
        self.totals.count(Total::Connections);
    }

    pub(super) fn request(&self) {
        self.totals.count(Total::Requests);
    }

    /// Counts a refusal and logs it. One in the log for the first, the second, the fourth … of a reason: a peer that means
    /// harm must not fill the disk. All of them are there at the level `debug`.
    pub(super) fn refused(&self, reason: Reason, peer: IpAddr, detail: &str) {
        let times = self.refused.add(reason, 1);
        let reason = reason.name();
        if times.is_power_of_two() {
            tracing::info!(%peer, reason, times, "http: {detail}");
        } else {
            tracing::debug!(%peer, reason, times, "http: {detail}");
        }
    }
}

impl ReadCounts for Counters {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.totals.read().chain(self.refused.read()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_refusals_are_counted_by_name() {
        let counters = Counters::default();
        let peer = IpAddr::from([10, 5, 1, 1]);
        counters.request();
        for (reason, times) in [
            (Reason::UnknownPath, 1),
            (Reason::BodyTooSlow, 2),
            (Reason::Malformed, 3),
            (Reason::NoPlace, 4),
        ] {
            (0..times).for_each(|_| counters.refused(reason, peer, "a test"));
        }
        let counted: Vec<_> = counters.counts().into_iter().filter(|(_, n)| *n > 0).collect();
        let expected = [
            ("requests", 1),
            ("refused-unknown-path", 1),
            ("refused-body-too-slow", 2),
            ("refused-malformed", 3),
            ("refused-no-place", 4),
        ];
        assert_eq!(counted, expected);
    }

    #[test]
    fn answers_of_libraries_have_reasons_as_well() {
        let reason = |status: u16| Reason::of_status(StatusCode::from_u16(status).unwrap());
        assert_eq!([200, 204, 206, 304].map(reason), [None; 4]);
        assert_eq!(reason(416), Some(Reason::BadRange));
        assert_eq!(reason(413), Some(Reason::BodyTooLarge));
        assert_eq!(reason(400), Some(Reason::BadRequest));
        assert_eq!(reason(500), Some(Reason::Unavailable));
    }
}
