//! Counts of requests, and of refusals by reason.

use axum::http::StatusCode;
use rackstrap_base::counters::{self, Counted, ReadCounts, counted};
use std::net::IpAddr;

counted! {
    /// Why a request was refused, or why a connection ended without an answer.
    pub enum Reason {
        /// The path or the file does not exist.
        UnknownPath = "refused-unknown-path",
        /// The path does not take this method.
        WrongMethod = "refused-wrong-method",
        /// The boot is unknown or forgotten.
        UnknownBoot = "refused-unknown-boot",
        /// The boot is another node's.
        ForeignBoot = "refused-foreign-boot",
        /// The token is not the boot's.
        WrongToken = "refused-wrong-token",
        /// The boot's token came from a port that any user of the node can use.
        UnprivilegedPort = "refused-unprivileged-port",
        /// The request repeats a fetch that is allowed once for each boot.
        Redeemed = "refused-redeemed",
        /// The peer is in no subnet of the site.
        Stranger = "refused-stranger",
        /// The path or the query cannot be understood.
        BadRequest = "refused-bad-request",
        /// The file does not have this range, or the request has several ranges.
        BadRange = "refused-bad-range",
        /// The body is not valid for the path.
        BadBody = "refused-bad-body",
        /// The body is over the limit.
        BodyTooLarge = "refused-body-too-large",
        /// The body did not arrive in time.
        BodyTooSlow = "refused-body-too-slow",
        /// The server cannot answer now: a missing file, a full store, a template that fails.
        Unavailable = "unavailable",
        /// The bytes are not an HTTP request.
        Malformed = "refused-malformed",
        /// The head is over the limit, in bytes or in fields.
        HeadTooLarge = "refused-head-too-large",
        /// No whole head of a request arrived on a connection in time.
        NoRequest = "closed-no-request",
        /// The connection ended in the middle of a request or of its answer, or the peer accepted no data for too long.
        BrokenOff = "closed-broken-off",
        /// The address has more connections than it may have.
        TooManyOfPeer = "refused-too-many-connections-of-peer",
        /// The connection was refused, because the connection limit was reached.
        NoPlace = "refused-no-place",
        /// The connection was idle, and was closed for a new one.
        Displaced = "closed-for-another-connection",
    }
}

impl Reason {
    /// The reason for an answer that a library made, if it is a refusal.
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
    /// Totals, in addition to refusals.
    pub enum Total {
        /// Accepted connections.
        Connections = "connections",
        /// Requests, whatever the answer.
        Requests = "requests",
        /// Scripts that have a node wait for its turn, because many nodes load.
        Paced = "paced-scripts",
    }
}

/// All counts since the daemon started; shared by all listeners.
#[derive(Debug, Default)]
pub struct Counters {
    totals: counters::Counters<Total>,
    refused: counters::Counters<Reason>,
}

impl Counters {
    pub(super) fn connection(&self) {
        self.totals.count(Total::Connections);
    }

    pub(super) fn total(&self, total: Total) {
        self.totals.count(total);
    }

    pub(super) fn request(&self) {
        self.totals.count(Total::Requests);
    }

    /// Counts a refusal and logs it. Only the first, second, fourth, eighth and so on of a reason are logged, so that a
    /// malicious peer cannot fill the disk. The level `debug` logs all of them.
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
    fn answers_of_libraries_have_reasons_too() {
        let reason = |status: u16| Reason::of_status(StatusCode::from_u16(status).unwrap());
        assert_eq!([200, 204, 206, 304].map(reason), [None; 4]);
        assert_eq!(reason(416), Some(Reason::BadRange));
        assert_eq!(reason(413), Some(Reason::BodyTooLarge));
        assert_eq!(reason(400), Some(Reason::BadRequest));
        assert_eq!(reason(500), Some(Reason::Unavailable));
    }
}
