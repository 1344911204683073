//! What was asked, and what was refused, by reason.

use axum::http::StatusCode;
use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Why a request had no answer but a refusal, or a connection ended without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A path or a file that is not there.
    UnknownPath,
    /// Another method than the path takes.
    WrongMethod,
    /// A boot that is not known (any more).
    UnknownBoot,
    /// Another node's boot.
    ForeignBoot,
    /// Not the boot's token.
    WrongToken,
    /// A boot's token from a port that any user of the node can have.
    UnprivilegedPort,
    /// Asked again for what goes out once a boot.
    Redeemed,
    /// A peer that is in no subnet of the site.
    Stranger,
    /// A path or a query that cannot be understood.
    BadRequest,
    /// A range that the file does not have, or several.
    BadRange,
    /// A body that is not what its path takes.
    BadBody,
    /// A body over the limit.
    BodyTooLarge,
    /// A body that did not arrive within its time.
    BodyTooSlow,
    /// What the server cannot do now: a missing file, a full store, a template that fails.
    Unavailable,
    /// Bytes that are no HTTP request.
    Malformed,
    /// A head over the limit, in bytes or in fields.
    HeadTooLarge,
    /// A connection without one whole head of a request within its time.
    NoRequest,
    /// A connection that ended in the middle of a request or of its answer, or whose peer took nothing for too long.
    BrokenOff,
    /// More connections of one address than it may have.
    TooManyOfPeer,
    /// All places were in use: the connection was refused.
    NoPlace,
    /// The connection was idle, and its place went to another one.
    Displaced,
}

/// In the order of the reasons.
const NAMES: [&str; Reason::Displaced as usize + 1] = [
    "refused-unknown-path",
    "refused-wrong-method",
    "refused-unknown-boot",
    "refused-foreign-boot",
    "refused-wrong-token",
    "refused-unprivileged-port",
    "refused-redeemed",
    "refused-stranger",
    "refused-bad-request",
    "refused-bad-range",
    "refused-bad-body",
    "refused-body-too-large",
    "refused-body-too-slow",
    "unavailable",
    "refused-malformed",
    "refused-head-too-large",
    "closed-no-request",
    "closed-broken-off",
    "refused-too-many-connections-of-peer",
    "refused-no-place",
    "closed-for-another-connection",
];

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

    /// Its name among the counters.
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// All counts since the start; shared by all listeners.
#[derive(Debug, Default)]
pub struct Counters {
    connections: AtomicU64,
    requests: AtomicU64,
    refused: [AtomicU64; NAMES.len()],
}

impl Counters {
    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Counts a refusal and logs it. One in the log for the first, the second, the fourth … of a reason: a peer that means
    /// harm must not fill the disk. All of them are there at the level `debug`.
    pub(super) fn refused(&self, reason: Reason, peer: IpAddr, detail: &str) {
        let times = self.refused[reason as usize].fetch_add(1, Relaxed) + 1;
        let reason = reason.name();
        if times.is_power_of_two() {
            tracing::info!(%peer, reason, times, "http: {detail}");
        } else {
            tracing::debug!(%peer, reason, times, "http: {detail}");
        }
    }

    /// All of them, with their names.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [("connections", &self.connections), ("requests", &self.requests)];
        let all = all.into_iter().chain(NAMES.into_iter().zip(&self.refused));
        all.map(|(name, count)| (name, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_reasons() {
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
        let counted: Vec<_> = counters.read().filter(|(_, n)| *n > 0).collect();
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
