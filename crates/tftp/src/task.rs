//! Sockets: the listener, and one task with one socket for each transfer.

use super::{
    Counters, ErrorCode, Files, Limits, Outcome, Refusal, TransferEnd,
    counters::Reason,
    name,
    options::Negotiated,
    packet::{self, MAX_REQUEST, Malformed, Packet, Request},
    pktinfo,
    session::{self, Session, Stats},
    table::{Admission, Link, Table, Ticket},
};
use bytes::Bytes;
use rackstrap_base::{connection_limit::ClientClass, rare::Rare};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use std::{
    io::{self, ErrorKind, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::Semaphore,
    time::{sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// Receive buffer of the listener, bytes: the requests of thousands of nodes that are switched on together. A request
/// of 60 bytes occupies 768 bytes of it in Linux 6.1, so this holds some 5,000.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Files opened at a time; the others wait, so that a storm of requests does not start a thread each.
const OPENING: usize = 16;

/// Descriptors left to the rest of the process when the limit is raised.
const OTHER_DESCRIPTORS: u64 = 1024;

/// What all tasks share.
struct Shared {
    files: Arc<dyn Files>,
    counters: Arc<Counters>,
    limits: Limits,
    opening: Semaphore,
    cancel: CancellationToken,
    /// SO_BINDTODEVICE of the listener, which its transfers keep to.
    device: Option<Vec<u8>>,
}

/// Serves read requests that arrive on `socket` until `cancel`; the transfers that run then are ended with an ERROR.
///
/// `socket` is bound to one of the server's addresses, or to 0.0.0.0; in either case answers leave from the address
/// that the client asked. Every transfer has a socket of its own, so if the process may open fewer descriptors than
/// `limits.transfers` needs, its soft limit is raised (to the hard limit at most).
///
/// # Errors
/// Only those of setting the socket up; a wildcard IPv6 socket is refused, because the address that was asked is not
/// looked up there.
pub async fn serve(
    socket: std::net::UdpSocket,
    files: Arc<dyn Files>,
    limits: Limits,
    counters: Arc<Counters>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let bound = socket.local_addr()?.ip();
    if bound.is_unspecified() {
        if bound.is_ipv6() {
            return Err(io::Error::new(
                ErrorKind::Unsupported,
                "TFTP on [::] cannot tell which address was asked; bind it to the server's own addresses",
            ));
        }
        pktinfo::enable(&socket)?;
    }
    socket.set_nonblocking(true)?;
    enlarge_receive_buffer(&socket);
    raise_descriptor_limit(limits.transfers as u64 + OTHER_DESCRIPTORS);
    let device = SockRef::from(&socket).device()?;
    let socket = UdpSocket::from_std(socket)?;
    let table = Table::new(&limits);
    let troubles = Rare::default();
    let tasks = TaskTracker::new();
    let shared = Arc::new(Shared {
        files,
        counters,
        limits,
        opening: Semaphore::new(OPENING),
        cancel,
        device,
    });
    let mut buffer = [0; MAX_REQUEST + 1];
    loop {
        let ready = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => break,
            ready = socket.readable() => ready,
        };
        ready?;
        let received = if bound.is_unspecified() {
            socket.try_io(Interest::READABLE, || pktinfo::receive(&socket, &mut buffer))
        } else {
            let received = socket.try_recv_from(&mut buffer);
            received.map(|(len, peer)| pktinfo::Received { len, peer, local: None })
        };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                // An unconnected UDP socket reports nothing that would come again at once, but were it so, the
                // processor must not be spent on it.
                if error.kind() != ErrorKind::WouldBlock {
                    if let Some(times) = troubles.tell() {
                        warn!(times, "receiving TFTP requests on {bound}: {error}");
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                continue;
            }
        };
        let local = match received.local {
            // The kernel leaves the local address out for what arrived before IP_PKTINFO was set (right after a start).
            Some((local, destination)) if local.is_unspecified() && !destination.is_broadcast() => {
                IpAddr::V4(destination)
            }
            // RFC 1123, 4.2.3.5: a request to a broadcast address is ignored.
            Some((local, destination)) if local != destination => {
                shared.counters.count(Reason::Broadcast);
                continue;
            }
            Some((local, _)) => IpAddr::V4(local),
            None => bound,
        };
        shared.take(&table, &tasks, received.peer, local, &buffer[..received.len]);
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Best effort: beyond net.core.rmem_max with CAP_NET_ADMIN, up to it without.
fn enlarge_receive_buffer(socket: &std::net::UdpSocket) {
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER).is_err()
        && let Err(error) = rustix::net::sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER)
    {
        debug!("the TFTP socket keeps its receive buffer: {error}");
    }
}

fn raise_descriptor_limit(needed: u64) {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = now.maximum.map_or(needed, |hard| needed.min(hard));
    let limit = Rlimit {
        current: Some(raised),
        maximum: now.maximum,
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) if raised == needed => debug!("raised the limit of open descriptors to {raised} for TFTP"),
        Ok(()) => warn!("TFTP may need {needed} descriptors, the hard limit is {raised}: raise LimitNOFILE"),
        Err(error) => warn!("cannot raise the limit of open descriptors to {raised}: {error}"),
    }
}

impl Shared {
    /// Takes one datagram of the listener.
    fn take(
        self: &Arc<Self>,
        table: &Arc<Table>,
        tasks: &TaskTracker,
        peer: SocketAddr,
        local: IpAddr,
        datagram: &[u8],
    ) {
        let began = Instant::now();
        match Packet::parse(datagram) {
            Ok(Packet::Read(request)) => {
                match table.admit(peer, ClientClass::of(self.files.is_node(peer.ip())), datagram) {
                    Admission::Begin(ticket) => {
                        let transfer = Transfer {
                            shared: self.clone(),
                            ticket,
                            end: self.begin_end(peer, local, &request),
                            began,
                        };
                        tasks.spawn(transfer.run(datagram.into()));
                    }
                    Admission::Repeated => self.counters.count(Reason::RepeatedRequest),
                    Admission::Full(reason, why) => {
                        self.counters.count(reason);
                        self.finish(self.begin_end(peer, local, &request), began, Outcome::Busy(why));
                    }
                }
            }
            Ok(Packet::Write(request)) => {
                self.counters.count(Reason::WriteRequest);
                let refusal = Refusal::new(
                    ErrorCode::AccessViolation,
                    "this server only serves files, it takes none",
                );
                self.answer(local, peer, refusal.code, &refusal.message);
                self.finish(self.begin_end(peer, local, &request), began, Outcome::Refused(refusal));
            }
            // An answer to an ERROR could be answered in turn.
            Ok(Packet::Error(..)) => self.counters.count(Reason::StrayError),
            Ok(Packet::Data | Packet::Ack(_) | Packet::OptionAck) => {
                self.counters.count(Reason::UnknownTransfer);
                self.answer(
                    local,
                    peer,
                    ErrorCode::UnknownTransfer,
                    "no transfer runs on the request port",
                );
            }
            Err(malformed) => {
                self.counters.count(malformed.into());
                if malformed != Malformed::Truncated {
                    self.answer(local, peer, ErrorCode::IllegalOperation, &malformed.to_string());
                }
            }
        }
    }

    fn begin_end(&self, peer: SocketAddr, local: IpAddr, request: &Request<'_>) -> TransferEnd {
        let name = name::normalise(request.name);
        TransferEnd {
            peer,
            local,
            name: name.unwrap_or_else(|_| request.name.escape_ascii().to_string()),
            mode: request.mode,
            size: None,
            bytes_sent: 0,
            duration: Duration::ZERO,
            retransmissions: 0,
            outcome: Outcome::Complete,
        }
    }

    fn finish(&self, mut end: TransferEnd, began: Instant, outcome: Outcome) {
        end.duration = began.elapsed();
        end.outcome = outcome;
        self.files.finished(&end);
    }

    /// A socket for one transfer: only `peer`'s datagrams reach it, and they leave from `local`.
    fn connect(&self, local: IpAddr, peer: SocketAddr) -> io::Result<std::net::UdpSocket> {
        let socket = std::net::UdpSocket::bind((local, 0))?;
        if let Some(device) = &self.device {
            SockRef::from(&socket).bind_device(Some(device))?;
        }
        socket.set_nonblocking(true)?;
        socket.connect(peer)?;
        Ok(socket)
    }

    /// One ERROR where there is no transfer.
    fn answer(&self, local: IpAddr, peer: SocketAddr, code: ErrorCode, message: &str) {
        let sent = self
            .connect(local, peer)
            .and_then(|socket| socket.send(&packet::error(code, message)));
        if let Err(error) = sent {
            self.counters.count(Reason::SocketFailed);
            debug!("answering {peer} from {local}: {error}");
        }
    }
}

/// One transfer's task.
struct Transfer {
    shared: Arc<Shared>,
    ticket: Ticket,
    end: TransferEnd,
    began: Instant,
}

impl Transfer {
    async fn run(mut self, datagram: Box<[u8]>) {
        let (stats, outcome) = match self.open(&datagram).await {
            Ok((file, size, options)) => {
                self.end.size = Some(size);
                self.transfer(file, size, options).await
            }
            Err(outcome) => {
                if let Outcome::Refused(refusal) = &outcome {
                    self.shared
                        .answer(self.end.local, self.end.peer, refusal.code, &refusal.message);
                }
                (Stats::default(), outcome)
            }
        };
        self.end.bytes_sent = stats.bytes_sent;
        self.end.retransmissions = stats.retransmissions;
        self.shared.counters.add(Reason::StaleAck, stats.stale_acks);
        self.shared.finish(self.end, self.began, outcome);
    }

    /// Gets the file and negotiates.
    async fn open(&self, datagram: &[u8]) -> Result<(Bytes, u64, Negotiated), Outcome> {
        let Ok(Packet::Read(request)) = Packet::parse(datagram) else {
            return Err(Outcome::Local("the request changed while it waited".into()));
        };
        let name = name::normalise(request.name).map_err(Outcome::Refused)?;
        let permit = tokio::select! {
            permit = self.shared.opening.acquire() => permit,
            () = self.shared.cancel.cancelled() => return Err(Outcome::Cancelled),
        };
        let (files, peer, local, mode) = (self.shared.files.clone(), self.end.peer, self.end.local, self.end.mode);
        let opened = tokio::task::spawn_blocking(move || {
            let file = files.open(peer, local, &name)?;
            let size = session::transfer_size(&file, mode);
            Ok((file, size))
        });
        let opened = opened
            .await
            .map_err(|error| Outcome::Local(format!("opening the file: {error}")))?;
        drop(permit);
        if self.ticket.link.replaced.load(Relaxed) {
            return Err(Outcome::Replaced);
        }
        let (file, size) = opened.map_err(Outcome::Refused)?;
        let options = Negotiated::new(&request, size);
        Ok((file, size, options))
    }

    async fn transfer(&self, file: Bytes, size: u64, options: Negotiated) -> (Stats, Outcome) {
        let Shared {
            counters,
            limits,
            cancel,
            ..
        } = &*self.shared;
        let connected = self.shared.connect(self.end.local, self.end.peer);
        let socket = match connected.and_then(UdpSocket::from_std) {
            Ok(socket) => socket,
            Err(error) => {
                counters.count(Reason::SocketFailed);
                return (Stats::default(), Outcome::Local(format!("making a socket: {error}")));
            }
        };
        let link: &Link = &self.ticket.link;
        // What was repeated while the file was being opened gets the first answer, which leaves now.
        link.repeated.store(false, Relaxed);
        let begin = || {
            let (file, options) = (file.clone(), options.clone());
            Session::new(
                Instant::now(),
                file,
                self.end.mode,
                size,
                options,
                limits.retransmissions,
            )
        };
        let mut session = begin();
        // The client has sent its request again, and acknowledged nothing.
        let mut asked_again = false;
        let mut timer = pin!(sleep_until(session.deadline().into()));
        // A token of its own: a thousand transfers that look at one would wait for each other at its lock.
        let cancel = cancel.child_token();
        let mut cancelled = pin!(cancel.cancelled());
        let mut buffer = [0; MAX_REQUEST + 4];
        loop {
            self.send(&socket, &mut session).await;
            if let Some(outcome) = session.outcome() {
                // Firmware that sends ERROR and asks again at once, from the same port, waits for an answer to the second request.
                let by_client = matches!(outcome, Outcome::ClientError(..)) && !session.answered();
                if by_client && (self.ticket.ended_by_client() || asked_again) {
                    asked_again = false;
                    session = begin();
                    timer.as_mut().reset(session.deadline().into());
                    continue;
                }
                return (session.stats(), outcome.clone());
            }
            // A deadline nearly always moves on before it is reached: then the timer fires for nothing, and is moved on.
            if session.deadline() < timer.deadline().into_std() {
                timer.as_mut().reset(session.deadline().into());
            }
            // A client that floods its own transfer comes last, so that it holds up nothing.
            tokio::select! {
                biased;
                () = cancelled.as_mut() => session.abort("the server is stopping", Outcome::Cancelled),
                () = link.wake.notified() => {
                    let again = link.repeated.swap(false, Relaxed);
                    if link.replaced.load(Relaxed) {
                        return (session.stats(), Outcome::Replaced);
                    }
                    if again {
                        asked_again |= session.on_repeated_request();
                    }
                }
                () = self.ticket.revoked() => {
                    let outcome = match link.replaced.load(Relaxed) {
                        true => Outcome::Replaced,
                        false => Outcome::Busy("another client needs the place, and this one had not answered"),
                    };
                    return (session.stats(), outcome);
                }
                () = timer.as_mut() => {
                    session.on_timeout(Instant::now());
                    timer.as_mut().reset(session.deadline().into());
                }
                received = socket.recv(&mut buffer) => match received {
                    Ok(len) => {
                        session.on_packet(Instant::now(), &buffer[..len]);
                        if session.answered() {
                            self.ticket.answered();
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => session.on_unreachable(),
                    // Other ICMP errors (no route, no ARP answer) pass; the timer is the judge.
                    Err(_) => counters.count(Reason::SendFailed),
                },
            }
        }
    }

    /// Sends all that the session has.
    async fn send(&self, socket: &UdpSocket, session: &mut Session) {
        let mut refused = false;
        while let Some(datagram) = session.poll_transmit() {
            loop {
                let parts = [IoSlice::new(datagram.head), IoSlice::new(datagram.body)];
                let sent = socket.try_io(Interest::WRITABLE, || SockRef::from(socket).send_vectored(&parts));
                match sent {
                    Ok(_) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        // Bounded, because a link that is down may keep what it was given for ever.
                        if timeout(Duration::from_secs(1), socket.writable()).await.is_err() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        refused = true;
                        break;
                    }
                    // As good as lost on the way: the timer sends it again.
                    Err(_) => {
                        self.shared.counters.count(Reason::SendFailed);
                        break;
                    }
                }
            }
            if refused {
                break;
            }
        }
        if refused {
            session.on_unreachable();
        }
    }
}
