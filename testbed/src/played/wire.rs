//! The network that machines are plugged into.

use super::message::TO_ALL;
use crate::{Result, netns::SERVER};
use anyhow::{Context, bail};
use socket2::{Domain, Socket, Type};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Pauses before a packet is sent again: firmware's, shortened. Nobody gives up before [`super::PATIENCE`].
const AGAIN: [Duration; 3] = [
    Duration::from_millis(1000),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
];

/// A socket as firmware has it, on that interface of the calling thread's namespace: it sends from port 68 by broadcast, and hears broadcasts.
pub fn client_socket(interface: &str) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    let any: SocketAddr = "0.0.0.0:68".parse()?;
    socket.bind(&any.into())?;
    Ok(socket.into())
}

/// A wire with machines: the daemon's own, or one behind a relay.
#[derive(Debug)]
pub struct Wire {
    socket: UdpSocket,
    to: SocketAddr,
    pub(super) giaddr: Ipv4Addr,
    waiting: Mutex<HashMap<u32, Sender<Vec<u8>>>>,
    /// Packets sent, repetitions included.
    pub sent: AtomicUsize,
}

impl Wire {
    /// A relay sends to the daemon's port from its own, and is answered there.
    pub fn of_relay(address: Ipv4Addr) -> Result<Arc<Wire>> {
        let socket = UdpSocket::bind((address, 67)).with_context(|| format!("as the relay {address}"))?;
        let server: Ipv4Addr = SERVER.parse()?;
        Wire::new(socket, SocketAddrV4::new(server, 67).into(), address)
    }

    /// The wire that this interface of the calling thread's namespace is attached to.
    pub fn local(interface: &str) -> Result<Arc<Wire>> {
        Wire::new(client_socket(interface)?, TO_ALL.into(), Ipv4Addr::UNSPECIFIED)
    }

    fn new(socket: UdpSocket, to: SocketAddr, giaddr: Ipv4Addr) -> Result<Arc<Wire>> {
        // A relay's CPU would not be the bottleneck either: with the default of 208 KiB, answers are lost in a flood.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20)?;
        let hears = socket.try_clone()?;
        hears.set_read_timeout(Some(Duration::from_millis(200)))?;
        let wire = Arc::new(Wire {
            socket,
            to,
            giaddr,
            waiting: Mutex::default(),
            sent: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&wire);
        thread::spawn(move || hear(&hears, &weak));
        Ok(wire)
    }

    /// True if a relay is between it and the daemon.
    pub fn is_relay(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// Sends once, and does not wait.
    pub fn send(&self, packet: &[u8]) -> Result {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.socket.send_to(packet, self.to).context("sending a request")?;
        Ok(())
    }

    /// Sends until a reply comes that `fits`, or patience ends.
    pub(super) fn exchange(
        &self,
        xid: u32,
        packet: &[u8],
        patience: Duration,
        fits: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let (told, replies) = channel();
        self.waiting.lock().unwrap().insert(xid, told);
        let reply = self.wait(packet, &replies, patience, fits);
        self.waiting.lock().unwrap().remove(&xid);
        reply
    }

    fn wait(
        &self,
        packet: &[u8],
        replies: &Receiver<Vec<u8>>,
        patience: Duration,
        fits: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let end = Instant::now() + patience;
        let mut pauses = AGAIN.into_iter().chain(std::iter::repeat(AGAIN[2]));
        while Instant::now() < end {
            self.send(packet)?;
            let again = Instant::now() + pauses.next().unwrap_or_default();
            while let Ok(reply) = replies.recv_timeout(again.saturating_duration_since(Instant::now())) {
                if fits(&reply) {
                    return Ok(reply);
                }
            }
        }
        bail!("no answer within {patience:?}")
    }
}

fn hear(socket: &UdpSocket, wire: &Weak<Wire>) {
    let mut buffer = [0; 2048];
    loop {
        let heard = socket.recv(&mut buffer);
        let Some(wire) = wire.upgrade() else { return };
        if let Ok(len @ 240..) = heard {
            let xid = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]);
            if let Some(told) = wire.waiting.lock().unwrap().get(&xid) {
                // Whoever waited may have got another reply meanwhile.
                let _ = told.send(buffer[..len].to_vec());
            }
        }
    }
}
