//! The socket: one for each address of the server.

use super::lines::{DATAGRAM, Kernels};
use rackstrap_base::{
    clock::Timestamp,
    counters::{Counters, ReadCounts, counted},
    rare::Rare,
};
use rackstrap_model::decide::SharedWorld;
use rackstrap_registries::timeline::{Event, Recorder, Subject};
use rackstrap_wire::{ConsoleLine, FIRST_USER_PORT};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

counted! {
    /// What became of datagrams and lines.
    pub enum Count {
        /// Datagrams of nodes' kernels.
        Datagrams = "datagrams",
        /// Lines that went to a timeline.
        Kept = "kept-lines",
        /// Lines beyond the rate of a node.
        TooMany = "refused-too-many-lines",
        /// Datagrams from an address of no node.
        Stranger = "refused-stranger",
        /// Datagrams from a port that any user can use.
        UserPort = "refused-unprivileged-port",
    }
}

/// All counts since the daemon started; shared by all sockets.
#[derive(Debug, Default)]
pub struct Counts(Counters<Count>);

impl ReadCounts for Counts {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.0.read().collect()
    }
}

/// What a socket needs.
pub struct Listener {
    /// The nodes.
    pub world: SharedWorld,
    /// The registry of timelines.
    pub recorder: Recorder,
    /// Counts.
    pub counts: Arc<Counts>,
}

/// Receives until `cancel`.
///
/// # Errors
/// None after the start: an error of the socket is logged, and receiving continues.
pub async fn serve(socket: UdpSocket, listener: Listener, cancel: CancellationToken) -> io::Result<()> {
    let mut kernels = Kernels::default();
    let troubles = Rare::default();
    let mut buffer = [0; DATAGRAM];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = cancel.cancelled() => return Ok(()),
        };
        match received {
            Ok((len, peer)) => listener.datagram(&mut kernels, peer, &buffer[..len]),
            Err(error) => {
                if let Some(times) = troubles.tell() {
                    tracing::warn!(%error, times, "netconsole: a message of a kernel could not be received");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Listener {
    fn datagram(&self, kernels: &mut Kernels, peer: SocketAddr, datagram: &[u8]) {
        let counts = &self.counts.0;
        let IpAddr::V4(address) = peer.ip().to_canonical() else {
            return counts.count(Count::Stranger);
        };
        let Some(node) = self
            .world
            .load()
            .inventory
            .by_ipaddr(address)
            .map(|node| node.name.clone())
        else {
            return counts.count(Count::Stranger);
        };
        if peer.port() >= FIRST_USER_PORT {
            return counts.count(Count::UserPort);
        }
        counts.count(Count::Datagrams);
        let now = Timestamp::now();
        let heard = kernels.hear(&node, now, datagram);
        for _ in 0..heard.dropped {
            counts.count(Count::TooMany);
        }
        for line in heard.kept {
            counts.count(Count::Kept);
            let event = Event::of_console(now, ConsoleLine::Kernel, &line);
            self.recorder.record(Subject::Node(node.clone()), event);
        }
    }
}
