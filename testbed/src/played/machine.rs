//! A simulated machine: firmware, then iPXE, which fetches its script until the script boots a node.

use super::{
    PATIENCE, Wire,
    http::ask,
    message::{Message, next_xid, option},
};
use crate::{Result, netns::SERVER};
use anyhow::{Context, bail, ensure};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use uuid::Uuid;

const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// The program of the machine that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// UEFI firmware of an x64 machine.
    Firmware,
    /// The boot loader iPXE.
    Ipxe,
}

/// A machine and its position on the network.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Hardware address of its card.
    pub hwaddr: [u8; 6],
    /// UUID of its mainboard.
    pub uuid: Uuid,
    /// The network that it is attached to.
    pub wire: Arc<Wire>,
    /// Remote id of option 82; empty: the relay adds none.
    pub switch: String,
    /// Circuit id; empty: none.
    pub port: String,
}

/// An OFFER or ACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Address of the machine.
    pub address: Ipv4Addr,
    /// Prefix length of its network, in bits.
    pub prefix: u32,
    /// Server identifier (option 54).
    pub server: Ipv4Addr,
    /// Option 12; empty: none.
    pub host_name: String,
    /// Option 67; empty: none.
    pub boot_file: String,
}

/// The boot arguments of a machine that has become a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    /// Name of the node.
    pub name: String,
    /// Address of the node.
    pub address: Ipv4Addr,
}

impl Machine {
    /// Machine number `n` of rack `rack`.
    pub fn new(rack: u8, n: u8, wire: &Arc<Wire>, switch: &str, port: &str) -> Machine {
        Machine {
            switch: switch.to_owned(),
            port: port.to_owned(),
            ..Machine::of([0x52, 0x54, 0, 0xa0, rack, n], wire)
        }
    }

    /// A machine with that card. Its relay adds no option 82.
    pub fn of(hwaddr: [u8; 6], wire: &Arc<Wire>) -> Machine {
        let [.., rack, n] = hwaddr;
        Machine {
            hwaddr,
            uuid: Uuid::from_bytes([0x6b, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, rack, n]),
            wire: wire.clone(),
            switch: String::new(),
            port: String::new(),
        }
    }

    /// The hardware address as text.
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

    /// DISCOVER and OFFER.
    pub fn discover(&self, stage: Stage) -> Result<Reply> {
        self.ask(stage, 1, &[], OFFER, PATIENCE)
    }

    /// REQUEST for an offer, and ACK.
    pub fn request(&self, stage: Stage, offer: &Reply) -> Result<Reply> {
        let [server, address] = [offer.server, offer.address].map(|a| a.octets());
        let chosen = [&[54, 4], &server[..], &[50, 4], &address].concat();
        let ack = self.ask(stage, 3, &chosen, ACK, PATIENCE)?;
        ensure!(ack.address == offer.address, "{offer:?}, but {ack:?}");
        Ok(ack)
    }

    /// REQUEST with an address that the machine knows (RFC 2131 section 4.3.2, INIT-REBOOT), and ACK.
    pub fn request_again(&self, stage: Stage, address: Ipv4Addr) -> Result<Reply> {
        let wanted = [&[50, 4], &address.octets()[..]].concat();
        let ack = self.ask(stage, 3, &wanted, ACK, PATIENCE)?;
        ensure!(ack.address == address, "{address}, but {ack:?}");
        Ok(ack)
    }

    /// A DISCOVER that may stay unanswered: returns the offer that arrives within `patience`.
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
        let mask = option(&reply, 1).with_context(|| asked("option 1"))?;
        Ok(Reply {
            address: address(&reply[16..20]),
            prefix: address(&mask).to_bits().leading_ones(),
            server: address(&server),
            host_name: text(12),
            boot_file: text(67),
        })
    }

    /// A request as the machine's relay, if it has one, forwards it.
    pub fn packet(&self, xid: u32, stage: Stage, kind: u8, more: &[u8]) -> Vec<u8> {
        let mut message = Message::new(kind, self.hwaddr)
            .xid(xid)
            .hops(u8::from(self.wire.is_relay()))
            .broadcast()
            .giaddr(self.wire.giaddr)
            .option(55, &[1, 3, 6, 7, 12, 15, 17, 43, 60, 66, 67, 128, 175])
            .option(57, &1472_u16.to_be_bytes())
            .firmware(7)
            .option(97, &[&[0], &self.uuid.as_bytes()[..]].concat());
        if stage == Stage::Ipxe {
            message = message.ipxe();
        }
        message = message.options(more);
        let ids = [(1, &self.port), (2, &self.switch)];
        let ids = ids.iter().filter(|(_, text)| !text.is_empty());
        let info: Vec<u8> = ids
            .flat_map(|(code, text)| [&[*code, text.len() as u8], text.as_bytes()].concat())
            .collect();
        if self.wire.is_relay() && !info.is_empty() {
            message = message.option(82, &info);
        }
        message.build()
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
            ask(TcpStream::from(socket), "GET", &path, "", None)
        };
        let (status, body) = get().with_context(|| format!("{} asks for its script from {from}", self.mac()))?;
        ensure!(
            status == 200 && body.starts_with("#!ipxe"),
            "{path} from {from}: {status}: {body}"
        );
        Ok(body)
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

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}
