//! TFTP, read only: RFC 1350 with options (2347), block size (2348), timeout and size (2349) and windows (7440).
//!
//! [`packet`] reads and writes packets, [`options`] negotiates, [`netascii`] converts, [`name`] normalises, [`rtt`]
//! times, [`session`] is the state machine of a transfer. None of them knows sockets or clocks; [`task`] does, with one
//! UDP socket per transfer: its port is the transfer id that RFC 1350 wants from the server, the kernel sorts the
//! clients' packets, and a client that vanished shows itself by ICMP. All transfers of a file share one buffer, and
//! its bytes go from there to the kernel.
//!
//! What is served to whom is decided behind [`Files`].

mod counters;
pub mod name;
mod netascii;
pub mod options;
mod outcome;
pub mod packet;
mod pktinfo;
mod rtt;
pub mod session;
mod table;
mod task;

pub use counters::Counters;
pub use name::Refusal;
pub use outcome::{Outcome, TransferEnd};
pub use packet::{ErrorCode, Mode};
pub use task::serve;

use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

/// Where the engine gets its files from, and whom it tells.
pub trait Files: Send + Sync + 'static {
    /// True if it is the address of a node: transfers with nodes have places of their own. From memory.
    fn is_node(&self, peer: IpAddr) -> bool;

    /// The file for one request; its bytes are shared by all transfers of it. `name` is normalised: components joined
    /// by `/`, none in front, no `..`, no control characters. Called where blocking is allowed, for at most 16 requests
    /// at a time, so it must come to an end: open regular files only, a FIFO would wait for ever. While it runs, the
    /// client's repetitions of the request are passed over.
    fn open(&self, peer: SocketAddr, local: IpAddr, name: &str) -> Result<Bytes, Refusal>;

    /// Called once at the end of every read or write request, also of one that was refused. Must not block.
    fn finished(&self, end: &TransferEnd);
}

/// How many transfers there may be, and when one is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transfers at a time. One more ends one whose client has not acknowledged anything, as no forged sender does; if there is
    /// none, the request is passed over, and firmware repeats it.
    pub transfers: usize,
    /// Transfers among them with addresses that are not nodes': machines that wait in a pool, and anybody else.
    pub strangers: usize,
    /// Transfers at a time with one client address.
    pub transfers_per_peer: usize,
    /// Repetitions without progress until a client is given up: 15 take about half a minute, and at 20 % loss each way
    /// one transfer in ten million blocks fails.
    pub retransmissions: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            transfers: 4096,
            strangers: 1024,
            transfers_per_peer: 32,
            retransmissions: 15,
        }
    }
}
