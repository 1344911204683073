//! Counts how packets and connections ended.

use rackstrap_base::counters::counted;

counted! {
    /// How a packet or a connection ended.
    pub enum Outcome {
        /// Answered with records.
        Answered = "answered",
        /// The name exists, and has no such record.
        NoData = "no-data",
        /// The name does not exist.
        NoName = "no-name",
        /// The answer was cut, because it did not fit into the datagram that the client accepts.
        Truncated = "truncated",
        /// Forwarded, and answered.
        Forwarded = "forwarded",
        /// Forwarded, and no forwarder answered.
        ForwardFailed = "forward-failed",
        /// Not forwarded, because too many questions were under way.
        ForwardBusy = "forward-busy",
        /// The name is in none of the zones, and the client is in no subnet of the site.
        RefusedForeign = "refused-foreign",
        /// The name is in none of the zones and is not forwarded: there is no forwarder, the client did not ask for
        /// recursion, or it wants a zone transfer.
        RefusedName = "refused-name",
        /// The operation is not a query.
        NotImplemented = "not-implemented",
        /// The EDNS version is unknown.
        BadVersion = "bad-version",
        /// The bytes are not a query; answered with FORMERR.
        Malformed = "malformed",
        /// The bytes are not a query, and too short to be answered.
        DroppedShort = "dropped-short",
        /// A response, which no query asked for. Answering it could cause an endless exchange.
        DroppedResponse = "dropped-response",
        /// The answer could not be made.
        Failed = "failed",
        /// A connection was accepted.
        Connection = "connections",
        /// A connection was refused, because it exceeded the connection limit.
        ConnectionRefused = "connections-refused",
        /// A connection was closed, because its client was silent, slow, or sent a query over the limit.
        ConnectionClosed = "connections-closed",
    }
}

/// One count for each [`Outcome`] since the daemon started; shared by all sockets.
pub type Counters = rackstrap_base::counters::Counters<Outcome>;
