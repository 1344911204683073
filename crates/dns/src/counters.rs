//! How packets ended, counted.

use rackstrap_base::counters::counted;

counted! {
    /// How a packet or a connection ended.
    pub enum Outcome {
        /// Records.
        Answered = "answered",
        /// The name is there, and has no such record.
        NoData = "no-data",
        /// There is no such name.
        NoName = "no-name",
        /// An answer that did not fit into the datagram that the client takes.
        Truncated = "truncated",
        /// Passed on, and answered.
        Forwarded = "forwarded",
        /// Passed on, and no forwarder answered.
        ForwardFailed = "forward-failed",
        /// Not passed on, as too many questions were under way.
        ForwardBusy = "forward-busy",
        /// A name that is not ours, by a client that is not ours.
        RefusedForeign = "refused-foreign",
        /// A name that is not ours, where nothing is passed on: there is no forwarder, the client did not ask for recursion, or wants a zone transfer.
        RefusedName = "refused-name",
        /// Another operation than a query.
        NotImplemented = "not-implemented",
        /// An EDNS version that nobody knows.
        BadVersion = "bad-version",
        /// Bytes that are no query, answered with FORMERR.
        Malformed = "malformed",
        /// Bytes that are no query, with too little of a header to answer.
        DroppedShort = "dropped-short",
        /// A response, which nobody asked for. Answering it could go on for ever.
        DroppedResponse = "dropped-response",
        /// An answer that could not be made.
        Failed = "failed",
        /// A connection was accepted.
        Connection = "connections",
        /// A connection beyond what all of them or one address may have.
        ConnectionRefused = "connections-refused",
        /// A connection that was closed as its client was silent, slow, or sent a query over the limit.
        ConnectionClosed = "connections-closed",
    }
}

/// One count per [`Outcome`], since the start; shared by all sockets.
pub type Counters = rackstrap_base::counters::Counters<Outcome>;
