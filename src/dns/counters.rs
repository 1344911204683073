//! How packets ended, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a packet or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Records.
    Answered,
    /// The name is there, and has no such record.
    NoData,
    /// There is no such name.
    NoName,
    /// An answer that did not fit into the datagram that the client takes.
    Truncated,
    /// Passed on, and answered.
    Forwarded,
    /// Passed on, and no forwarder answered.
    ForwardFailed,
    /// Not passed on, as too many questions were under way.
    ForwardBusy,
    /// A name that is not ours, by a client that is not ours.
    RefusedForeign,
    /// A name that is not ours, where nothing is passed on: there is no forwarder, the client did not ask for recursion, or wants a zone transfer.
    RefusedName,
    /// Another operation than a query.
    NotImplemented,
    /// An EDNS version that nobody knows.
    BadVersion,
    /// Bytes that are no query, answered with FORMERR.
    Malformed,
    /// Bytes that are no query, with too little of a header to answer.
    DroppedShort,
    /// A response, which nobody asked for. Answering it could go on for ever.
    DroppedResponse,
    /// An answer that could not be made.
    Failed,
    /// A connection was accepted.
    Connection,
    /// A connection beyond what all of them or one address may have.
    ConnectionRefused,
    /// A connection that was closed as its client was silent, slow, or sent a query over the limit.
    ConnectionClosed,
}

/// In the order of the outcomes.
const NAMES: [&str; Outcome::ConnectionClosed as usize + 1] = [
    "answered",
    "no-data",
    "no-name",
    "truncated",
    "forwarded",
    "forward-failed",
    "forward-busy",
    "refused-foreign",
    "refused-name",
    "not-implemented",
    "bad-version",
    "malformed",
    "dropped-short",
    "dropped-response",
    "failed",
    "connections",
    "connections-refused",
    "connections-closed",
];

/// All counts since the start; shared by all sockets.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; NAMES.len()]);

impl Counters {
    /// Counts one, and returns how many there are now.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].fetch_add(1, Relaxed) + 1
    }

    /// All of them, with their names.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES
            .into_iter()
            .zip(&self.0)
            .map(|(name, count)| (name, count.load(Relaxed)))
    }
}
