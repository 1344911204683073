//! NFS and MOUNT by UDP: FreeBSD's boot loader speaks nothing else (stand/libsa/nfs.c and rpc.c in its sources).
//!
//! A sender's address may be forged. So only nodes get replies ([`Engine::answer_datagram`]), and each address gets a limited number of
//! bytes per second: a host that knows a handle could otherwise have a node flooded with file data. What is above a limit is dropped, and
//! the client repeats its call. All exports are read-only, so a repeated call is executed again.

use super::{
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

/// The bytes per second that each address may get (pure).
#[derive(Debug)]
struct Allowances {
    rate: u64,
    by_address: HashMap<IpAddr, (u64, Instant)>,
}

impl Allowances {
    /// Most addresses: more nodes than one server has.
    const MOST: usize = 16_384;

    fn new(rate: u64) -> Self {
        Allowances {
            rate,
            by_address: HashMap::new(),
        }
    }

    /// Takes `bytes` from what `address` may get; false if it may not get that many now. At most one second's bytes are saved up.
    fn take(&mut self, address: IpAddr, bytes: usize, now: Instant) -> bool {
        let rate = self.rate;
        let left = |saved: u64, at: Instant| {
            let grown = u128::from(rate) * now.saturating_duration_since(at).as_nanos() / 1_000_000_000;
            u64::try_from(u128::from(saved) + grown).unwrap_or(rate).min(rate)
        };
        if self.by_address.len() >= Self::MOST && !self.by_address.contains_key(&address) {
            self.by_address.retain(|_, (saved, at)| left(*saved, *at) < rate);
            if self.by_address.len() >= Self::MOST {
                return false;
            }
        }
        let entry = self.by_address.entry(address).or_insert((rate, now));
        let saved = left(entry.0, entry.1);
        let rest = saved.checked_sub(bytes as u64);
        *entry = (rest.unwrap_or(saved), now);
        rest.is_some()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_bytes_per_second_and_delays_no_other_address() {
        let mut allowances = Allowances::new(1000);
        let (one, other) = (IpAddr::from([10, 5, 1, 1]), IpAddr::from([10, 5, 1, 2]));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(allowances.take(one, 900, at(0)));
        assert!(!allowances.take(one, 200, at(0)));
        assert!(allowances.take(one, 100, at(0)), "what was refused costs nothing");
        assert!(allowances.take(other, 1000, at(0)));
        assert!(!allowances.take(one, 300, at(200)));
        assert!(allowances.take(one, 300, at(300)));
        assert!(
            !allowances.take(one, 1001, at(3_600_000)),
            "an hour saves up one second"
        );
        assert!(allowances.take(one, 1000, at(3_600_000)));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let mut allowances = Allowances::new(1000);
        let start = Instant::now();
        for number in 0..Allowances::MOST as u32 {
            assert!(allowances.take(IpAddr::from(number.to_be_bytes()), 500, start));
        }
        let further = IpAddr::from([192, 168, 0, 1]);
        assert!(!allowances.take(further, 1, start));
        assert!(allowances.take(further, 1, start + Duration::from_secs(1)));
        assert_eq!(allowances.by_address.len(), 1);
    }
}
