//! Sockets: the listener, and one task for each connection.
//!
//! A connection's task takes complete records from its buffer and executes each at once on its own thread, as long as everything is in
//! memory ([`Pace::Inline`]: `fstat` of open files, lookups in the kernel's name cache, reads from its page cache, each a microsecond
//! or two; passing such a call to another thread would cost several times that). A call that would wait for a disk returns that, and
//! runs again on a thread that may block, while the task continues with the next call. So a cold READ delays neither the connection's
//! other calls nor other connections, and a client's read-ahead keeps several reads at the disk busy. Replies may overtake each other;
//! XIDs exist for that.
//!
//! A connection has limits on its record size, on the bytes of replies that its peer has not read ([`Config::reply_bytes`]), and on the
//! calls that wait for the disk ([`Config::blocking_calls`]). Above a limit, the task stops reading, and TCP slows the peer down.

use super::{
    buf::{Buf, Pool},
    context::Peer,
    counters::{Count, Counters},
    engine::{Engine, Outcome},
    export::Pace,
    exports::{Exports, NfsEvent},
    handle::HandleKey,
    record::{Assembler, RecordError},
};
use rackstrap_base::{
    connection_limit::{Bounds, ClientClass, ConnectionLimit, Permit},
    rare::Rare,
};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Limits, timeouts and the key of the handles.
#[derive(Clone, Debug)]
pub struct Config {
    /// Key for file handles; it must be the same 32 bytes at every start, or all nodes lose their roots.
    pub handle_key: [u8; 32],
    /// Refuse all calls except pings from source ports of 1024 and above. Only root can use lower ports, so a user of a node cannot send calls
    /// in the name of the node's root.
    pub privileged_ports_only: bool,
    /// Largest record in bytes. READ and LOOKUP calls have a few hundred; 1 MiB allows a WRITE, which gets NFS3ERR_ROFS.
    pub record_bytes: usize,
    /// Most connections. A node has one, and a second one while it mounts.
    pub connections: usize,
    /// Most connections of strangers: from addresses that are not nodes', and, with [`Config::privileged_ports_only`], from ports that any
    /// user of a node can use. They get answers to pings and `showmount` only.
    pub strangers: usize,
    /// Most connections of one address: Linux opens up to 16 (`nconnect`). A further one closes an idle one. Together with the limits
    /// below, this limits the memory that one node can use.
    pub connections_per_peer: usize,
    /// Most bytes of replies that a peer has not read. Above that, no more of its calls are executed.
    pub reply_bytes: usize,
    /// Most calls of one connection that wait for a disk.
    pub blocking_calls: usize,
    /// Most calls of all connections that wait for a disk, each on a thread.
    pub blocking_threads: usize,
    /// A node's connection without a call for this long is closed. Linux closes its own after 5 minutes, and reconnects when needed. A
    /// stranger's connection is closed after `stall`.
    pub idle: Duration,
    /// A record that has started must end within this time, and a peer must read some of its replies within it.
    pub stall: Duration,
    /// Most bytes per second that one address gets by UDP. The loader of FreeBSD waits for each reply before it asks again, and reads
    /// less than that.
    pub datagram_bytes_per_second: u64,
    /// The counters of calls.
    pub counters: Arc<Counters>,
}

impl Config {
    /// Defaults with that key.
    pub fn new(handle_key: [u8; 32]) -> Self {
        Config {
            handle_key,
            privileged_ports_only: true,
            record_bytes: (1 << 20) + 4096,
            connections: 16_384,
            strangers: 64,
            connections_per_peer: 20,
            reply_bytes: 1 << 20,
            blocking_calls: 8,
            blocking_threads: 64,
            idle: Duration::from_secs(600),
            stall: Duration::from_secs(60),
            datagram_bytes_per_second: 64 << 20,
            counters: Arc::default(),
        }
    }
}

struct Server {
    engine: Engine,
    exports: Arc<dyn Exports>,
    config: Config,
    pool: Pool,
    disk: Arc<Semaphore>,
    limit: Arc<ConnectionLimit>,
    /// Number of connections that could not be accepted.
    unaccepted: Rare,
}

/// Serves NFS and MOUNT on `listener` until `cancel`.
///
/// # Errors
/// The listener cannot be used at all. Errors of a connection end only that connection.
pub async fn serve(
    listener: TcpListener,
    exports: Arc<dyn Exports>,
    config: Config,
    cancel: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let server = Arc::new(Server {
        engine: engine(&exports, &config),
        exports,
        pool: Pool::default(),
        disk: Arc::new(Semaphore::new(config.blocking_threads)),
        limit: ConnectionLimit::new(Bounds {
            all: config.connections,
            strangers: config.strangers,
            each: config.connections_per_peer,
        }),
        config,
        unaccepted: Rare::default(),
    });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                let peer = Peer::new(addr);
                match server.admit(peer.addr()) {
                    Ok(permit) => {
                        connections.spawn(Connection::new(server.clone(), stream, peer, permit).run(cancel.clone()));
                    }
                    Err(why) => {
                        server.config.counters.count(Count::ConnectionsRefused);
                        server.trouble(peer.addr(), why);
                    }
                }
            }
            // EMFILE and ENFILE end when connections end; the peer causes ECONNABORTED.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if let Some(times) = server.unaccepted.tell() {
                    tracing::warn!(
                        times,
                        "cannot accept an NFS connection: {error}; is RLIMIT_NOFILE high enough?"
                    );
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// The engine that `config` describes.
pub(super) fn engine(exports: &Arc<dyn Exports>, config: &Config) -> Engine {
    // The verifier differs from that of every earlier start, unless the clock is set back to the same nanosecond.
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Engine::new(
        exports.clone(),
        HandleKey::new(config.handle_key),
        config.counters.clone(),
        config.privileged_ports_only,
        (started.as_nanos() as u64).to_be_bytes(),
    )
}

impl Server {
    fn admit(&self, addr: SocketAddr) -> Result<Permit, String> {
        // Only root of a node can use a port below 1024. A connection of a node's user counts as a stranger's.
        let is_root = addr.port() < 1024 || !self.config.privileged_ports_only;
        let class = ClientClass::of(is_root && self.exports.is_node(addr));
        let permit = (self.limit.take(addr.ip(), class)).map_err(|full| format!("of the connections, {full}"))?;
        permit.idle();
        self.config.counters.count(Count::Connections);
        Ok(permit)
    }

    fn trouble(&self, peer: SocketAddr, why: String) {
        self.exports.observe(NfsEvent::Trouble { peer, why });
    }
}

/// Replies in the order of sending.
#[derive(Default)]
struct Queue {
    chunks: VecDeque<Buf>,
    /// Bytes of the first chunk that were sent.
    sent: usize,
    bytes: usize,
}

impl Queue {
    /// A chunk with this many bytes gets no further replies.
    const CHUNK: usize = 256 << 10;

    /// The chunk to which replies are appended. [`Queue::grew`] must count each append.
    fn last(&mut self, pool: &Pool) -> &mut Buf {
        // A new chunk is started now and then, because a chunk is only freed after all of it was sent.
        if self.chunks.back().is_none_or(|chunk| chunk.len() > Self::CHUNK) {
            self.chunks.push_back(pool.take());
        }
        self.chunks.back_mut().expect("a chunk was added above")
    }

    fn grew(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    fn push(&mut self, chunk: Buf) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// The bytes to send next, for one `writev`.
    fn slices(&self) -> [IoSlice<'_>; 16] {
        let mut slices = [IoSlice::new(&[]); 16];
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk.as_slice());
        }
        if let Some(first) = self.chunks.front() {
            slices[0] = IoSlice::new(&first.as_slice()[self.sent..]);
        }
        slices
    }

    fn advance(&mut self, mut n: usize, pool: &Pool) {
        self.bytes -= n;
        while let Some(first) = self.chunks.front() {
            let left = first.len() - self.sent;
            if n < left {
                self.sent += n;
                return;
            }
            n -= left;
            self.sent = 0;
            if let Some(done) = self.chunks.pop_front() {
                pool.give(done);
            }
        }
    }
}

struct Connection {
    server: Arc<Server>,
    stream: TcpStream,
    peer: Arc<Peer>,
    permit: Arc<Permit>,
    input: Assembler,
    replies: Queue,
    /// Calls that wait for a disk.
    jobs: JoinSet<(Outcome, Buf)>,
    /// Time of the last complete record, or of the start of an incomplete one.
    last_record: Instant,
    /// Time at which the peer last read some reply, or had none to read.
    last_taken: Instant,
}

/// Why a connection ends.
enum End {
    /// The peer or the network closed it.
    Closed,
    /// The server closes it, for a reason that is reported.
    Because(String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Closed
    }
}

/// Most calls that are executed in a row before replies are sent and other tasks run.
const BATCH: usize = 64;

impl Connection {
    fn new(server: Arc<Server>, stream: TcpStream, peer: Peer, permit: Permit) -> Self {
        let now = Instant::now();
        Connection {
            input: Assembler::new(server.config.record_bytes),
            server,
            stream,
            peer: Arc::new(peer),
            permit: Arc::new(permit),
            replies: Queue::default(),
            jobs: JoinSet::new(),
            last_record: now,
            last_taken: now,
        }
    }

    async fn run(mut self, cancel: CancellationToken) {
        // Replies must not wait for further ones. Keepalive finds nodes that were switched off.
        let _ = self.stream.set_nodelay(true);
        let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
        let _ = socket2::SockRef::from(&self.stream).set_tcp_keepalive(&keepalive);
        let revoked = self.permit.clone();
        let ended = tokio::select! {
            () = cancel.cancelled() => Err(End::Closed),
            () = revoked.revoked() => {
                self.server.config.counters.count(Count::ConnectionsDisplaced);
                Err(End::Closed)
            }
            ended = self.work() => ended,
        };
        if let Err(End::Because(why)) = ended {
            self.server.trouble(self.peer.addr(), why);
        }
        // Jobs are aborted only if they have not started; others end by themselves.
        let Connection {
            permit,
            jobs,
            replies,
            server,
            ..
        } = self;
        drop(jobs);
        for chunk in replies.chunks {
            server.pool.give(chunk);
        }
        drop(permit);
    }

    async fn work(&mut self) -> Result<(), End> {
        let timer = sleep_until(self.deadline());
        tokio::pin!(timer);
        loop {
            let more = self.execute_batch()?;
            self.send()?;
            if more && self.may_execute() {
                tokio::task::yield_now().await;
                continue;
            }
            self.wait(timer.as_mut()).await?;
        }
    }

    fn may_execute(&self) -> bool {
        self.replies.bytes < self.server.config.reply_bytes && self.jobs.len() < self.server.config.blocking_calls
    }

    /// Executes calls that have arrived. Returns true if there may be more.
    fn execute_batch(&mut self) -> Result<bool, End> {
        for _ in 0..BATCH {
            if !self.may_execute() {
                return Ok(true);
            }
            let record = match self.input.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(false),
                Err(error) => return Err(malformed(&self.server, error)),
            };
            let now = Instant::now();
            let out = self.replies.last(&self.server.pool);
            let before = out.len();
            let outcome = self
                .server
                .engine
                .answer(&self.peer, record, out, Pace::Inline, now.into_std());
            let grown = out.len() - before;
            if self.replies.bytes == 0 {
                self.last_taken = now;
            }
            self.replies.grew(grown);
            match outcome {
                Outcome::Replied | Outcome::Silent => {}
                Outcome::WouldBlock => {
                    let record = record.to_vec();
                    self.defer(record);
                }
                Outcome::Close => return Err(End::Because("sent a record that is not an RPC call".into())),
            }
            self.last_record = now;
        }
        Ok(true)
    }

    /// Executes a call on a thread that may block.
    fn defer(&mut self, record: Vec<u8>) {
        let (server, peer) = (self.server.clone(), self.peer.clone());
        server.config.counters.count(Count::Blocking);
        self.jobs.spawn(async move {
            // The semaphore is never closed, so a permit is always granted.
            let _permit = server.disk.clone().acquire_owned().await;
            let work = tokio::task::spawn_blocking(move || {
                let mut out = server.pool.take();
                let outcome = server
                    .engine
                    .answer(&peer, &record, &mut out, Pace::MayBlock, Instant::now().into_std());
                (outcome, out)
            });
            // An error means a panic in a procedure: the call gets no reply, and other calls are not affected.
            work.await.unwrap_or((Outcome::Silent, Buf::default()))
        });
    }

    /// Sends as much as the socket accepts now.
    fn send(&mut self) -> Result<(), End> {
        while self.replies.bytes > 0 {
            match self.stream.try_write_vectored(&self.replies.slices()) {
                Ok(0) => return Err(End::Closed),
                Ok(n) => {
                    self.replies.advance(n, &self.server.pool);
                    self.last_taken = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        // Some chunks stayed empty, because their calls had no reply.
        while let Some(chunk) = self.replies.chunks.pop_front() {
            self.server.pool.give(chunk);
        }
        Ok(())
    }

    /// Waits until bytes arrive or can be sent, and receives them.
    async fn wait(&mut self, mut timer: std::pin::Pin<&mut Sleep>) -> Result<(), End> {
        let (to_send, to_receive) = (self.replies.bytes > 0, self.may_execute());
        if !to_send && self.jobs.is_empty() {
            self.permit.idle();
        }
        let interest = match (to_receive, to_send) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let ready = async {
            match interest {
                Some(interest) => self.stream.ready(interest).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = ready => {
                if to_receive && ready?.is_readable() {
                    self.permit.busy();
                    self.receive()?;
                }
            }
            Some(done) = self.jobs.join_next() => {
                if let Ok((outcome, chunk)) = done {
                    match outcome {
                        Outcome::Replied => {
                            if self.replies.bytes == 0 {
                                self.last_taken = Instant::now();
                            }
                            self.replies.push(chunk);
                        }
                        _ => self.server.pool.give(chunk),
                    }
                }
            }
            () = timer.as_mut() => {
                self.check_time()?;
                let deadline = self.deadline();
                timer.reset(deadline);
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), End> {
        let was_partial = self.input.is_partial();
        match self.stream.try_read(self.input.room()) {
            Ok(0) => Err(End::Closed),
            Ok(n) => {
                self.input.received(n);
                if !was_partial {
                    self.last_record = Instant::now();
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Time at which [`Connection::check_time`] must run again.
    fn deadline(&self) -> Instant {
        Instant::now() + self.server.config.stall.min(self.server.config.idle)
    }

    /// How long the peer may send no call.
    fn idle(&self) -> Duration {
        let config = &self.server.config;
        match self.permit.class() {
            ClientClass::Root | ClientClass::Node => config.idle,
            ClientClass::Stranger => config.idle.min(config.stall),
        }
    }

    fn check_time(&mut self) -> Result<(), End> {
        let (config, now) = (&self.server.config, Instant::now());
        if self.replies.bytes > 0 {
            if now.duration_since(self.last_taken) >= config.stall {
                config.counters.count(Count::ConnectionsStalled);
                return Err(End::Because(format!(
                    "read none of the {} bytes of waiting replies within {:?}",
                    self.replies.bytes, config.stall
                )));
            }
            return Ok(());
        }
        if !self.jobs.is_empty() {
            return Ok(());
        }
        let quiet = now.duration_since(self.last_record);
        if self.input.is_partial() && quiet >= config.stall {
            config.counters.count(Count::ConnectionsStalled);
            return Err(End::Because(format!(
                "did not complete a call within {:?}",
                config.stall
            )));
        }
        if quiet >= self.idle() {
            config.counters.count(Count::ConnectionsIdle);
            return Err(End::Closed);
        }
        Ok(())
    }
}

fn malformed(server: &Server, error: RecordError) -> End {
    server.config.counters.count(Count::MalformedRecord);
    End::Because(match error {
        RecordError::TooLong { bytes } => {
            let max = server.config.record_bytes;
            format!("announced a record of {bytes} bytes; at most {max} are allowed")
        }
        RecordError::TooManyFragments => "sent a record in more than 1,000 fragments".into(),
    })
}
