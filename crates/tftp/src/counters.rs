//! What was dropped, refused or odd, by reason.

use super::packet::Malformed;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a datagram led to no transfer, or what went wrong in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// The names below say what they mean.
pub enum Reason {
    Truncated,
    UnknownOpcode,
    RequestTooLong,
    UnterminatedString,
    UnknownMode,
    TooManyOptions,
    WriteRequest,
    UnknownTransfer,
    StrayError,
    Broadcast,
    RepeatedRequest,
    TooManyTransfers,
    TooManyTransfersOfPeer,
    SocketFailed,
    SendFailed,
    StaleAck,
}

const NAMES: [&str; 16] = [
    "truncated",
    "unknown-opcode",
    "request-too-long",
    "unterminated-string",
    "unknown-mode",
    "too-many-options",
    "write-request",
    "unknown-transfer",
    "stray-error",
    "broadcast",
    "repeated-request",
    "too-many-transfers",
    "too-many-transfers-of-peer",
    "socket-failed",
    "send-failed",
    "stale-ack",
];

/// One count per [`Reason`], since the start.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; NAMES.len()]);

impl Counters {
    /// Counts one.
    pub fn count(&self, reason: Reason) {
        self.add(reason, 1);
    }

    /// Counts several.
    pub fn add(&self, reason: Reason, number: u64) {
        self.0[reason as usize].fetch_add(number, Relaxed);
    }

    /// All of them, with their names.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0.iter().map(|n| n.load(Relaxed)))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_reasons() {
        let counters = Counters::default();
        counters.count(Reason::Truncated);
        counters.add(Reason::WriteRequest, 2);
        counters.add(Reason::StaleAck, 3);
        let counted: Vec<_> = counters.read().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("truncated", 1), ("write-request", 2), ("stale-ack", 3)]);
    }
}
