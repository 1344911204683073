//! The socket of NFS by UDP: receives calls, executes them, and sends the replies that the limits allow.

use super::Allowances;
use crate::{
    buf::Buf,
    context::Peer,
    counters::Count,
    engine::{Engine, Outcome},
    export::Pace,
    exports::Exports,
    task::{Config, engine},
};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::UdpSocket, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// The largest UDP datagram over IPv4, rounded up (RFC 768: a length of 16 bits).
const LARGEST: usize = 65_536;
/// Most senders whose grants are remembered. FreeBSD's loader takes another port for each file that it opens.
const PEERS: usize = 4096;
/// Most calls of all senders that wait for a disk. Further ones are dropped.
const WAITING: usize = 256;

struct Server {
    engine: Engine,
    exports: Arc<dyn Exports>,
    config: Config,
    socket: UdpSocket,
    disk: Semaphore,
}

/// What the task remembers of senders.
struct Senders {
    peers: HashMap<SocketAddr, Arc<Peer>>,
    allowances: Allowances,
    /// Calls of each address that wait for a disk.
    waiting: HashMap<IpAddr, usize>,
}

impl Senders {
    fn peer(&mut self, address: SocketAddr) -> Arc<Peer> {
        if let Some(peer) = self.peers.get(&address) {
            return peer.clone();
        }
        if self.peers.len() >= PEERS {
            // A grant is kept for a second only, so little is lost.
            self.peers.clear();
        }
        let peer = Arc::new(Peer::new(address));
        self.peers.insert(address, peer.clone());
        peer
    }
}

/// Serves NFS and MOUNT on `socket` until `cancel`.
///
/// # Errors
/// The socket cannot be used at all.
pub async fn serve_datagrams(
    socket: std::net::UdpSocket,
    exports: Arc<dyn Exports>,
    config: Config,
    cancel: CancellationToken,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let server = Arc::new(Server {
        engine: engine(&exports, &config),
        exports,
        socket: UdpSocket::from_std(socket)?,
        disk: Semaphore::new(config.blocking_threads),
        config,
    });
    let mut senders = Senders {
        peers: HashMap::new(),
        allowances: Allowances::new(server.config.datagram_bytes_per_second),
        waiting: HashMap::new(),
    };
    let mut jobs: JoinSet<(SocketAddr, Buf)> = JoinSet::new();
    let (mut input, mut out) = (vec![0; LARGEST], Buf::default());
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            Some(done) = jobs.join_next() => {
                let Ok((to, reply)) = done else { continue };
                let waiting = senders.waiting.entry(to.ip()).or_default();
                *waiting -= 1;
                if *waiting == 0 {
                    senders.waiting.remove(&to.ip());
                }
                server.send(&mut senders.allowances, to, &reply);
            }
            received = server.socket.recv_from(&mut input) => match received {
                Ok((length, from)) => server.call(&mut senders, &mut jobs, from, &input[..length], &mut out),
                // Errors of earlier replies arrive here, too. The pause keeps a lasting one from using a whole processor.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

impl Server {
    /// Executes a call, or starts it on a thread that may block.
    fn call(
        self: &Arc<Self>,
        senders: &mut Senders,
        jobs: &mut JoinSet<(SocketAddr, Buf)>,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Buf,
    ) {
        out.clear();
        // Strangers have no place among the peers that are remembered.
        let peer = match self.exports.is_node(from) {
            true => senders.peer(from),
            false => Arc::new(Peer::new(from)),
        };
        let now = Instant::now();
        match self.engine.answer_datagram(&peer, datagram, out, Pace::Inline, now) {
            Outcome::Replied => self.send(&mut senders.allowances, from, out),
            Outcome::WouldBlock => {
                let of_sender = senders.waiting.get(&from.ip()).copied().unwrap_or_default();
                if of_sender >= self.config.blocking_calls || jobs.len() >= WAITING {
                    self.config.counters.count(Count::DatagramsDropped);
                    return;
                }
                senders.waiting.insert(from.ip(), of_sender + 1);
                self.config.counters.count(Count::Blocking);
                jobs.spawn(self.clone().wait(peer, from, datagram.to_vec()));
            }
            Outcome::Silent | Outcome::Close => {}
        }
    }

    /// Executes a call on a thread that may block.
    async fn wait(self: Arc<Self>, peer: Arc<Peer>, from: SocketAddr, datagram: Vec<u8>) -> (SocketAddr, Buf) {
        // The semaphore is never closed, so a permit is always granted.
        let _permit = self.disk.acquire().await;
        let server = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let mut out = Buf::default();
            let now = Instant::now();
            server
                .engine
                .answer_datagram(&peer, &datagram, &mut out, Pace::MayBlock, now);
            out
        });
        // An error means a panic in a procedure: the call gets no reply, and other calls are not affected.
        (from, work.await.unwrap_or_default())
    }

    fn send(&self, allowances: &mut Allowances, to: SocketAddr, reply: &Buf) {
        if reply.is_empty() {
            return;
        }
        let may = allowances.take(to.ip(), reply.len(), Instant::now());
        // A full send buffer drops the reply like a full network: the client repeats its call.
        if !may || self.socket.try_send_to(reply.as_slice(), to).is_err() {
            self.config.counters.count(Count::DatagramsDropped);
        }
    }
}
