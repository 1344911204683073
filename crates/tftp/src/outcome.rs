//! How requests end, and what is told about them.

use super::{name::Refusal, packet::Mode};
use rackstrap_base::text::one_line;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// How a request or a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client acknowledged the last block.
    Complete,
    /// Everything was sent, the last acknowledgement never came: firmware that starts the loader at once.
    Unacknowledged,
    /// The client sent ERROR: its code and the printable part of its text, at most 128 characters.
    ClientError(u16, String),
    /// The client fell silent in the middle.
    TimedOut,
    /// The client's port was closed in the middle (ICMP port unreachable): it was reset or switched off.
    Unreachable,
    /// Answered with an ERROR.
    Refused(Refusal),
    /// The client sent a new request from the same port.
    Replaced,
    /// Not answered, because a limit was reached; firmware asks again by itself.
    Busy(&'static str),
    /// The client broke the protocol.
    Protocol(String),
    /// The server is stopping.
    Cancelled,
    /// A system call failed here.
    Local(String),
}

impl Outcome {
    pub(super) fn client_error(code: u16, text: &[u8]) -> Self {
        Outcome::ClientError(code, one_line(&String::from_utf8_lossy(text), 128))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Complete => f.write_str("complete"),
            Outcome::Unacknowledged => f.write_str("sent, but the last block was not acknowledged"),
            Outcome::ClientError(code, text) if text.is_empty() => write!(f, "ended by the client, error {code}"),
            Outcome::ClientError(code, text) => write!(f, "ended by the client, error {code}: {text}"),
            Outcome::TimedOut => f.write_str("the client fell silent"),
            Outcome::Unreachable => f.write_str("the client closed its port"),
            Outcome::Refused(refusal) => write!(f, "refused: {}", refusal.message),
            Outcome::Replaced => f.write_str("the client sent a new request"),
            Outcome::Busy(limit) => write!(f, "not answered: {limit}"),
            Outcome::Protocol(what) => write!(f, "protocol error: {what}"),
            Outcome::Cancelled => f.write_str("the server stopped"),
            Outcome::Local(what) => write!(f, "failed here: {what}"),
        }
    }
}

/// One request from beginning to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferEnd {
    /// Address and port of the client.
    pub peer: SocketAddr,
    /// Address of ours that it asked.
    pub local: IpAddr,
    /// Normalised file name, or the printable form of one that was refused for itself.
    pub name: String,
    /// Octet or netascii.
    pub mode: Mode,
    /// Length of the file as it travels, bytes; none if it was not opened.
    pub size: Option<u64>,
    /// Bytes of the file that were sent, repetitions included.
    pub bytes_sent: u64,
    /// From the request to the end.
    pub duration: Duration,
    /// Datagrams sent a second time or more.
    pub retransmissions: u64,
    /// How the transfer ended.
    pub outcome: Outcome,
}

impl TransferEnd {
    /// True if the client only wanted to know the size, as every UEFI firmware does first: it ended the transfer by
    /// an ERROR before any block was sent. No failure.
    pub fn only_asked_size(&self) -> bool {
        matches!(self.outcome, Outcome::ClientError(..)) && self.size.is_some() && self.bytes_sent == 0
    }
}
