//! A simulated machine: firmware, then iPXE, which fetches its script until the script boots a node.

use super::lab::PATIENCE;
use anyhow::{Context, bail, ensure};
use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};
use testbed::{Result, netns::SERVER};
use uuid::Uuid;

const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// Pauses before a packet is repeated: firmware's, shortened. All give up after [`PATIENCE`].
const AGAIN: [Duration; 3] = [
    Duration::from_millis(1000),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
];

/// A network with machines: the daemon's own, or one behind a relay.
pub struct Wire {
    socket: UdpSocket,
    to: SocketAddr,
    giaddr: Ipv4Addr,
    waiting: Mutex<HashMap<u32, Sender<Vec<u8>>>>,
    /// Packets sent, repetitions included.
    pub sent: AtomicUsize,
}

impl Wire {
    /// A relay sends from its own port to the daemon's, and gets the answers there.
    pub fn of_relay(address: Ipv4Addr) -> Result<Arc<Wire>> {
        let socket = UdpSocket::bind((address, 67)).with_context(|| format!("as the relay {address}"))?;
        let server: Ipv4Addr = SERVER.parse()?;
        Wire::new(socket, SocketAddrV4::new(server, 67).into(), address)
    }

    pub fn local(interface: &str) -> Result<Arc<Wire>> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_broadcast(true)?;
        let any: SocketAddr = "0.0.0.0:68".parse()?;
        socket.bind(&any.into())?;
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67).into();
        Wire::new(socket.into(), to, Ipv4Addr::UNSPECIFIED)
    }

    fn new(socket: UdpSocket, to: SocketAddr, giaddr: Ipv4Addr) -> Result<Arc<Wire>> {
        // A real relay would not be the bottleneck either: with the default of 208 KiB, answers are lost in a flood.
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

    pub fn is_relay(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// Sends once, without waiting for an answer.
    pub fn send(&self, packet: &[u8]) -> Result {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.socket.send_to(packet, self.to).context("sending a request")?;
        Ok(())
    }

    /// Sends until a reply `fits` or the time is over.
    fn exchange(&self, xid: u32, packet: &[u8], patience: Duration, fits: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
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
                // The waiting thread may have got another reply meanwhile.
                let _ = told.send(buffer[..len].to_vec());
            }
        }
    }
}

/// The program of the machine that asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Firmware,
    Ipxe,
}

/// A machine and its position on the network.
#[derive(Clone)]
pub struct Machine {
    pub hwaddr: [u8; 6],
    pub uuid: Uuid,
    pub wire: Arc<Wire>,
    /// Remote id of option 82; empty: the relay adds none.
    pub switch: String,
    /// Circuit id; empty: none.
    pub port: String,
}

/// An OFFER or ACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub address: Ipv4Addr,
    pub server: Ipv4Addr,
    pub host_name: String,
    pub boot_file: String,
}

/// The boot arguments of a machine that has become a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    pub name: String,
    pub address: Ipv4Addr,
}

impl Machine {
    /// Number `n` of rack `rack`.
    pub fn new(rack: u8, n: u8, wire: &Arc<Wire>, switch: &str, port: &str) -> Machine {
        Machine {
            hwaddr: [0x52, 0x54, 0, 0xa0, rack, n],
            uuid: Uuid::from_bytes([0x6b, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, rack, n]),
            wire: wire.clone(),
            switch: switch.to_owned(),
            port: port.to_owned(),
        }
    }

    pub fn mac(&self) -> String {
        self.hwaddr.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// DISCOVER, OFFER, REQUEST, ACK. After a NAK it starts again: the machine has become a node in between.
    pub fn dhcp(&self, stage: Stage) -> Result<Reply> {
        let mut refused = None;
        for _ in 0..5 {
            let offer = self.discover(stage)?;
            match self.request(stage, &offer) {
                Ok(ack) => return Ok(ack),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.context("never asked")?)
    }

    pub fn discover(&self, stage: Stage) -> Result<Reply> {
        self.ask(stage, 1, &[], OFFER, PATIENCE)
    }

    pub fn request(&self, stage: Stage, offer: &Reply) -> Result<Reply> {
        let ack = self.ask(stage, 3, &chosen(offer), ACK, PATIENCE)?;
        ensure!(ack.address == offer.address, "{offer:?}, but {ack:?}");
        Ok(ack)
    }

    /// A DISCOVER or REQUEST that may stay unanswered: returns the reply that arrives within a short time.
    pub fn try_discover(&self, stage: Stage, patience: Duration) -> Option<Reply> {
        self.ask(stage, 1, &[], OFFER, patience).ok()
    }

    fn ask(&self, stage: Stage, kind: u8, more: &[u8], wanted: u8, patience: Duration) -> Result<Reply> {
        let xid = next_xid();
        let packet = self.packet(xid, stage, kind, more);
        let fits = |reply: &[u8]| {
            let is = |kind| option(reply, 53).as_deref() == Some(&[kind]);
            (is(wanted) || is(NAK)) && reply[28..34] == self.hwaddr
        };
        let asked = |what: &str| format!("{} sends message {kind} and waits for {wanted}: {what}", self.mac());
        let reply = self
            .wire
            .exchange(xid, &packet, patience, fits)
            .with_context(|| asked("DHCP"))?;
        // RFC 3046 section 2.1: the server echoes the relay's option.
        ensure!(
            option(&reply, 82) == option(&packet, 82),
            "option 82 is not echoed in {reply:?}"
        );
        ensure!(reply[24..28] == packet[24..28], "giaddr is not echoed in {reply:?}");
        ensure!(option(&reply, 53).as_deref() != Some(&[NAK]), "{}", asked("NAK"));
        let text = |code| {
            let bytes = option(&reply, code).unwrap_or_default();
            String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
        };
        let server = option(&reply, 54).with_context(|| asked("option 54"))?;
        Ok(Reply {
            address: address(&reply[16..20]),
            server: address(&server),
            host_name: text(12),
            boot_file: text(67),
        })
    }

    /// A request as the machine's relay, if it has one, forwards it.
    pub fn packet(&self, xid: u32, stage: Stage, kind: u8, more: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[3] = u8::from(self.wire.is_relay());
        bytes[4..8].copy_from_slice(&xid.to_be_bytes());
        // No card here could receive a frame that is addressed to it.
        bytes[10] = 0x80;
        bytes[24..28].copy_from_slice(&self.wire.giaddr.octets());
        bytes[28..34].copy_from_slice(&self.hwaddr);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        let mut put = |code: u8, data: &[u8]| {
            bytes.extend_from_slice(&[code, data.len() as u8]);
            bytes.extend_from_slice(data);
        };
        put(53, &[kind]);
        put(55, &[1, 3, 6, 7, 12, 15, 17, 43, 60, 66, 67, 128, 175]);
        put(57, &1472_u16.to_be_bytes());
        put(60, b"PXEClient:Arch:00007:UNDI:003016");
        put(93, &[0, 7]);
        put(97, &[&[0], &self.uuid.as_bytes()[..]].concat());
        if stage == Stage::Ipxe {
            put(77, b"iPXE");
            // HTTP, DNS, TFTP and menus, as Debian's iPXE declares.
            put(175, &[19, 1, 1, 23, 1, 1, 21, 1, 1, 39, 1, 1]);
        }
        bytes.extend_from_slice(more);
        let ids = [(1, &self.port), (2, &self.switch)];
        let ids = ids.iter().filter(|(_, text)| !text.is_empty());
        let info: Vec<u8> = ids
            .flat_map(|(code, text)| [&[*code, text.len() as u8], text.as_bytes()].concat())
            .collect();
        if self.wire.is_relay() && !info.is_empty() {
            bytes.extend_from_slice(&[82, info.len() as u8]);
            bytes.extend_from_slice(&info);
        }
        bytes.push(255);
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }

    /// Fetches the script from address `from`; with `again` as iPXE does after a first script, with the machine's properties.
    pub fn script(&self, from: Ipv4Addr, again: bool) -> Result<String> {
        let mac = self.hwaddr.map(|byte| format!("{byte:02x}")).join("-");
        let told = format!(
            "&uuid={}&serial=S-{mac}&vendor=Maker%20%26%20Sons&product=Node%202",
            self.uuid
        );
        let path = format!("/ipxe?mac={mac}{}", if again { &told } else { "" });
        let get = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((from, 0)).into())?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let server: SocketAddr = format!("{SERVER}:80").parse()?;
            socket.connect_timeout(&server.into(), PATIENCE)?;
            let mut stream = TcpStream::from(socket);
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: {SERVER}\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, anyhow::Error>(answer)
        };
        let answer = get().with_context(|| format!("{} asks for its script from {from}", self.mac()))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        ensure!(
            head.starts_with("HTTP/1.1 200") && body.starts_with("#!ipxe"),
            "{path} from {from}: {answer}"
        );
        Ok(body.to_owned())
    }

    /// Runs iPXE from its DHCP until its script boots a node. `see` is called with every address that it gets.
    pub fn walk(&self, see: impl Fn(&Reply)) -> Result<Booted> {
        let mut has = self.dhcp(Stage::Ipxe)?;
        see(&has);
        ensure!(
            has.boot_file.starts_with(&format!("http://{SERVER}:80/ipxe?mac=")),
            "{has:?}"
        );
        let end = Instant::now() + PATIENCE;
        let mut again = false;
        while Instant::now() < end {
            let script = self.script(has.address, again)?;
            again = true;
            if let Some(name) = boots(&script) {
                ensure!(has.host_name == name, "{has:?} boots {name}");
                return Ok(Booted {
                    name: name.to_owned(),
                    address: has.address,
                });
            }
            if script.contains("ifclose\n") {
                has = self.dhcp(Stage::Ipxe)?;
                see(&has);
            } else {
                ensure!(script.contains("waiting to be racked"), "{script}");
                // The script itself waits 2 s or longer.
                thread::sleep(Duration::from_millis(100));
            }
        }
        bail!("{} was never given a name", self.mac())
    }
}

/// The node that a script boots, if it boots one.
fn boots(script: &str) -> Option<&str> {
    let line = script.lines().find_map(|line| line.strip_prefix("echo rackstrap: "))?;
    Some(line.split_once(" boots ")?.0)
}

/// Options of a REQUEST for an offer.
pub fn chosen(offer: &Reply) -> Vec<u8> {
    let [server, address] = [offer.server, offer.address].map(|a| a.octets());
    [&[54, 4], &server[..], &[50, 4], &address].concat()
}

pub fn next_xid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0x7261_0000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

/// An option's value.
fn option(message: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut rest = &message[240..];
    loop {
        match rest {
            [0, tail @ ..] => rest = tail,
            [255, ..] | [] => return None,
            [code, len, tail @ ..] => {
                let (value, tail) = tail.split_at_checked(usize::from(*len))?;
                if *code == wanted {
                    return Some(value.to_vec());
                }
                rest = tail;
            }
            [_] => return None,
        }
    }
}
