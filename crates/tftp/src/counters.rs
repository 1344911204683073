//! What was dropped, refused or odd, by reason.

use super::packet::Malformed;
use rackstrap_base::counters::counted;

counted! {
    /// Why a datagram led to no transfer, or what went wrong in one.
    pub enum Reason {
        Truncated = "truncated",
        UnknownOpcode = "unknown-opcode",
        RequestTooLong = "request-too-long",
        UnterminatedString = "unterminated-string",
        UnknownMode = "unknown-mode",
        TooManyOptions = "too-many-options",
        WriteRequest = "write-request",
        UnknownTransfer = "unknown-transfer",
        StrayError = "stray-error",
        Broadcast = "broadcast",
        RepeatedRequest = "repeated-request",
        TooManyTransfers = "too-many-transfers",
        TooManyTransfersOfPeer = "too-many-transfers-of-peer",
        SocketFailed = "socket-failed",
        SendFailed = "send-failed",
        StaleAck = "stale-ack",
    }
}

/// One count per [`Reason`], since the start.
pub type Counters = rackstrap_base::counters::Counters<Reason>;

impl From<Malformed> for Reason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated => Reason::Truncated,
            Malformed::UnknownOpcode => Reason::UnknownOpcode,
            Malformed::TooLong => Reason::RequestTooLong,
            Malformed::Unterminated => Reason::UnterminatedString,
            Malformed::UnknownMode => Reason::UnknownMode,
            Malformed::TooManyOptions => Reason::TooManyOptions,
        }
    }
}
