//! Sockets to the forwarders: one for each question, closed with its answer.

use super::{Relay, Transport, relay::Verdict};
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long to wait for answers.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one forwarder.
    pub each: Duration,
    /// For all of them, even if some were not asked yet.
    pub all: Duration,
}

impl Default for Patience {
    /// Resolvers of the nodes (glibc) ask again after 5 s: by then three forwarders have been tried.
    fn default() -> Self {
        Patience {
            each: Duration::from_millis(1500),
            all: Duration::from_millis(4500),
        }
    }
}

/// Room for a datagram. We announce 1,232 bytes; if a forwarder sends more, it is understood, and the client asks again by
/// TCP.
const DATAGRAM: usize = 4096;

/// Which forwarder to ask first: the one that answered last, so that a forwarder that is down costs its time once and not
/// with every question.
#[derive(Debug, Default)]
pub struct Favourite(AtomicUsize);

/// The answer of the first of `servers` that has one, by the transport that the client uses. None if all failed.
pub async fn ask(
    relay: &Relay,
    transport: Transport,
    servers: &[SocketAddrV4],
    favourite: &Favourite,
    patience: Patience,
) -> Option<Vec<u8>> {
    let mut unable = None;
    let first = favourite.0.load(Relaxed);
    let asking = async {
        for turn in 0..servers.len() {
            let which = (first + turn) % servers.len();
            let server = servers[which];
            let asked = async {
                match transport {
                    Transport::Udp => by_udp(relay, server).await,
                    Transport::Tcp => by_tcp(relay, server).await,
                }
            };
            match timeout(patience.each, asked).await {
                Ok(Ok((Verdict::Answer, bytes))) => {
                    favourite.0.store(which, Relaxed);
                    return Some(bytes);
                }
                Ok(Ok((Verdict::Unable, bytes))) => unable = Some(bytes),
                Ok(Err(error)) => tracing::debug!(%server, question = %relay.question(), "dns: forwarding: {error}"),
                Err(_) => tracing::debug!(%server, question = %relay.question(), "dns: forwarding: no answer"),
            }
        }
        None
    };
    let answer = timeout(patience.all, asking).await.ok().flatten();
    answer.or(unable)
}

/// Each question has its own socket, and so a port that a forger does not know (RFC 5452 section 9.2).
async fn by_udp(relay: &Relay, server: SocketAddrV4) -> io::Result<(Verdict, Vec<u8>)> {
    let id = rand::random();
    let query = relay.query(id).map_err(io::Error::other)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    // From now on the kernel drops packets from other addresses, and reports if no program listens there.
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut bytes = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut bytes).await?;
        if let Some(verdict) = relay.read(id, &bytes[..length]) {
            bytes.truncate(length);
            return Ok((verdict, bytes));
        }
    }
}

async fn by_tcp(relay: &Relay, server: SocketAddrV4) -> io::Result<(Verdict, Vec<u8>)> {
    let id = rand::random();
    let query = relay.query(id).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&super::framing::framed(&query)).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    match relay.read(id, &bytes) {
        Some(verdict) => Ok((verdict, bytes)),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "that is not an answer to the question",
        )),
    }
}
