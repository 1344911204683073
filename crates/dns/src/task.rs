//! Sockets: datagrams and connections on one address, and the questions that are forwarded.

use super::{
    Counters, Outcome, Reaction, Relay, Transport, View, Views,
    framing::framed,
    respond,
    upstream::{self, Favourite, Patience},
};
use rackstrap_base::{
    connection_limit::{Bounds, ClientClass, ConnectionLimit, Full, Permit},
    counters::ReadCounts,
    rare::Rare,
};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Room for a query in a datagram. A name of 255 bytes and EDNS options take about 300; longer data is cut off, and is not a
/// query.
const QUERY: usize = 1500;
/// Receive buffer in bytes: a job that starts on all nodes looks up all nodes at the same time.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Bounds for all addresses of the server together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections among them of clients that are not nodes.
    pub connections_of_strangers: usize,
    /// Connections of one client at once. One more ends an idle one.
    pub connections_per_client: usize,
    /// Questions at once to the forwarders.
    pub forwards: usize,
    /// Questions among them of clients that are not nodes.
    pub forwards_of_strangers: usize,
    /// Questions among them of one client.
    pub forwards_per_client: usize,
    /// How long each question may take.
    pub patience: Patience,
    /// Largest query on a connection, in bytes; no query needs more than in a datagram.
    pub query: u16,
    /// How long a client may be silent between two queries, take to send a query, or not read an answer.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            connections_of_strangers: 128,
            connections_per_client: 16,
            forwards: 512,
            forwards_of_strangers: 256,
            forwards_per_client: 64,
            patience: Patience::default(),
            query: QUERY as u16,
            idle: Duration::from_secs(10),
        }
    }
}

/// What all sockets share.
#[derive(Debug)]
pub struct Server {
    views: Arc<dyn Views>,
    limits: Limits,
    counters: Counters,
    connections: Arc<ConnectionLimit>,
    forwards: Arc<ConnectionLimit>,
    favourite: Favourite,
}

impl ReadCounts for Server {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counters.counts()
    }
}

impl Server {
    /// A name server that answers from these views.
    pub fn new(views: Arc<dyn Views>, limits: Limits) -> Self {
        Server {
            views,
            limits,
            counters: Counters::default(),
            connections: ConnectionLimit::new(Bounds {
                all: limits.connections,
                strangers: limits.connections_of_strangers,
                each: limits.connections_per_client,
            }),
            forwards: ConnectionLimit::new(Bounds {
                all: limits.forwards,
                strangers: limits.forwards_of_strangers,
                each: limits.forwards_per_client,
            }),
            favourite: Favourite::default(),
        }
    }

    fn view(&self) -> Arc<View> {
        self.views.view()
    }

    /// A permit for a question of `client` to the forwarders.
    fn permit(&self, client: Ipv4Addr, view: &View) -> Result<Permit, Full> {
        self.forwards.take(client.into(), class(client, view))
    }

    /// Forwards a question, and returns the reply to its client. The question counts as under way while its permit is held.
    async fn forward(&self, view: &View, relay: Relay, transport: Transport, permit: Permit) -> Reaction {
        let asked = upstream::ask(
            &relay,
            transport,
            &view.zones.forward,
            &self.favourite,
            self.limits.patience,
        );
        let answer = tokio::select! {
            answer = asked => answer,
            () = permit.revoked() => return relay.failed(Outcome::ForwardBusy),
        };
        match answer {
            Some(bytes) => relay.answer(bytes),
            None => relay.failed(Outcome::ForwardFailed),
        }
    }

    /// Counts how a packet ended, and returns the bytes to send.
    fn settle(&self, client: Ipv4Addr, reaction: Reaction) -> Option<Vec<u8>> {
        let (bytes, outcome) = match reaction {
            Reaction::Reply(bytes, outcome) => (Some(bytes), outcome),
            Reaction::Silence(outcome) => (None, outcome),
            // Only a question with a permit is forwarded, and this one has none.
            Reaction::Forward(relay) => return self.settle(client, relay.failed(Outcome::ForwardBusy)),
        };
        let times = self.counters.add(outcome, 1);
        // Only the first, second, fourth, eighth and so on are logged, so that failures cannot fill the disk.
        let trouble = matches!(outcome, Outcome::ForwardFailed | Outcome::ForwardBusy | Outcome::Failed);
        if trouble && times.is_power_of_two() {
            tracing::warn!(%client, ?outcome, times, "dns");
        } else {
            tracing::debug!(%client, ?outcome, times, "dns");
        }
        bytes
    }
}

/// The class of a client, for the connection limit.
fn class(client: Ipv4Addr, view: &View) -> ClientClass {
    ClientClass::of(view.nodes.name_of(client).is_some())
}

/// Answers on `udp` and `tcp`, which are bound to the same address, until `cancel`.
///
/// # Errors
/// Only errors of setting the sockets up.
pub async fn serve(
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    server: Arc<Server>,
    cancel: CancellationToken,
) -> io::Result<()> {
    enlarge_receive_buffer(&udp);
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let (udp, tcp) = (Arc::new(UdpSocket::from_std(udp)?), TcpListener::from_std(tcp)?);
    let tasks = TaskTracker::new();
    tokio::join!(
        datagrams(udp, &server, &tasks, &cancel),
        connections(tcp, &server, &tasks, &cancel)
    );
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Tries to enlarge the receive buffer: beyond net.core.rmem_max with CAP_NET_ADMIN, otherwise up to it.
fn enlarge_receive_buffer(socket: &std::net::UdpSocket) {
    if set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER).is_err()
        && let Err(error) = set_socket_recv_buffer_size(socket, RECEIVE_BUFFER)
    {
        tracing::debug!("the DNS socket keeps its receive buffer: {error}");
    }
}

async fn datagrams(socket: Arc<UdpSocket>, server: &Arc<Server>, tasks: &TaskTracker, cancel: &CancellationToken) {
    let troubles = Rare::default();
    let mut buffer = [0; QUERY];
    loop {
        let received = tokio::select! {
            () = cancel.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, peer) = match received {
            Ok(received) => received,
            Err(error) => {
                if let Some(times) = troubles.tell() {
                    tracing::warn!(times, "receiving DNS questions: {error}");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // No reply can be sent to port 0.
        let Some(client) = ipv4(peer).filter(|_| peer.port() != 0) else {
            continue;
        };
        let view = server.view();
        let mut reaction = respond(&view, client, Transport::Udp, &buffer[..length]);
        if let Reaction::Forward(relay) = reaction {
            let Ok(permit) = server.permit(client, &view) else {
                reaction = Reaction::Forward(relay);
                send(&socket, server.settle(client, reaction), peer).await;
                continue;
            };
            let (server, socket, cancel) = (server.clone(), socket.clone(), cancel.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    reaction = server.forward(&view, *relay, Transport::Udp, permit) => {
                        send(&socket, server.settle(client, reaction), peer).await;
                    }
                }
            });
            continue;
        }
        send(&socket, server.settle(client, reaction), peer).await;
    }
}

/// If a client cannot be reached, only that client is affected, and it asks again.
async fn send(socket: &UdpSocket, bytes: Option<Vec<u8>>, peer: SocketAddr) {
    if let Some(bytes) = bytes
        && let Err(error) = socket.send_to(&bytes, peer).await
    {
        tracing::debug!(%peer, "dns: an answer could not be sent: {error}");
    }
}

async fn connections(listener: TcpListener, server: &Arc<Server>, tasks: &TaskTracker, cancel: &CancellationToken) {
    let troubles = Rare::default();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(client) = ipv4(peer) else { continue };
                server.counters.count(Outcome::Connection);
                let Ok(permit) = server.connections.take(client.into(), class(client, &server.view())) else {
                    server.counters.count(Outcome::ConnectionRefused);
                    continue;
                };
                let (server, cancel) = (server.clone(), cancel.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = permit.revoked() => {
                            server.counters.count(Outcome::ConnectionClosed);
                            tracing::debug!(%client, "dns: an idle connection was closed for another one");
                        }
                        closed = connection(stream, client, &server, &permit) => if let Err(why) = closed {
                            server.counters.count(Outcome::ConnectionClosed);
                            tracing::debug!(%client, "dns: a connection was closed: {why}");
                        },
                    }
                });
            }
            // The process is out of descriptors, or the client closed between SYN and accept. Neither ends the listener.
            Err(error) => {
                if let Some(times) = troubles.tell() {
                    tracing::warn!(times, "dns: a connection could not be accepted: {error}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Answers one query after the other (RFC 7766), until the client closes the connection.
async fn connection(mut stream: TcpStream, client: Ipv4Addr, server: &Server, permit: &Permit) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let limits = server.limits;
    let mut buffer = vec![0; limits.query.into()];
    loop {
        permit.idle();
        let length = match timeout(limits.idle, stream.read_u16()).await? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            length => length?,
        };
        if length > limits.query {
            let why = format!("a query of {length} bytes, {} are the most", limits.query);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let query = &mut buffer[..length.into()];
        timeout(limits.idle, stream.read_exact(query)).await??;
        permit.busy();
        let view = server.view();
        let mut reaction = respond(&view, client, Transport::Tcp, query);
        if let Reaction::Forward(relay) = reaction {
            reaction = match server.permit(client, &view) {
                Ok(permit) => server.forward(&view, *relay, Transport::Tcp, permit).await,
                Err(_) => Reaction::Forward(relay),
            };
        }
        let Some(bytes) = server.settle(client, reaction) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes that are not a query"));
        };
        timeout(limits.idle, stream.write_all(&framed(&bytes))).await??;
    }
}

fn ipv4(peer: SocketAddr) -> Option<Ipv4Addr> {
    match peer.ip().to_canonical() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
