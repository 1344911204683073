//! What clients may use.

use std::time::Duration;

/// Bounds in number, size and time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once on one listener. A machine in its boot has one or two. When the limit is reached, an idle
    /// connection is closed for the new one; if none is idle, the new one is refused with 503.
    pub connections: usize,
    /// Connections among them from addresses that are not nodes': machines that wait in a pool, and unknown clients.
    pub strangers: usize,
    /// Connections at once from one address on one listener. curl's `--parallel` makes up to 50. One more closes an idle one.
    pub connections_per_peer: usize,
    /// Largest head of a request, bytes; 414 or 431 beyond it. What iPXE, OVMF and the agent send is below 1 KiB.
    pub head_bytes: usize,
    /// A connection without a whole head of a request within this time is closed, also between two requests.
    pub head_timeout: Duration,
    /// Largest body, bytes; 413 beyond it.
    pub body_bytes: usize,
    /// A body that is not complete within this time after its head is refused with 408.
    pub body_timeout: Duration,
    /// A peer must accept some of its answer within this time. This ends connections of nodes that were switched off, and of
    /// clients that do not read.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 8192,
            strangers: 2048,
            connections_per_peer: 64,
            head_bytes: 16 << 10,
            head_timeout: Duration::from_secs(30),
            // A report of 256 events of 500 bytes, and some reserve.
            body_bytes: 512 << 10,
            body_timeout: Duration::from_secs(30),
            stall: Duration::from_secs(60),
        }
    }
}
