//! The boot of FreeBSD as packets: firmware, FreeBSD's loader, its kernel's mount of the root.
//!
//! Written after FreeBSD's sources: stand/libsa/bootp.c (DHCP), rpc.c (port mapper, ports, credentials), nfs.c (MOUNT, LOOKUP, READ) and
//! sys/nfs/nfs_diskless.c (the kernel's mount by the loader's handle).

use super::{
    Message, Node, PATIENCE, next_xid, option,
    rpc::{self, MOUNT, NFS, opaque},
};
use crate::{Result, netns::SERVER};
use anyhow::{Context, bail, ensure};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

/// Number of the port mapper's program (RFC 1833 section 3).
pub const PORTMAP: u32 = 100_000;
/// The port that it always has.
const PORTMAP_PORT: u16 = 111;
/// MINTMO of stand/libsa/net.h: the first pause before a packet is repeated.
const AGAIN: Duration = Duration::from_secs(2);

/// What DHCP gave to firmware or loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Address of the node.
    pub address: Ipv4Addr,
    /// `siaddr`
    pub next_server: Ipv4Addr,
    /// Option 67 without its NUL; empty without it.
    pub boot_file: String,
    /// Option 17; empty without it.
    pub root_path: String,
    /// The variables that the loader makes of options 250 to 254.
    pub variables: BTreeMap<String, String>,
}

/// Firmware of that architecture asks for an address and takes it.
pub fn firmware(node: &Node, arch: u16) -> Result<Lease> {
    dhcp(node, |message| {
        message
            .option(55, &[1, 3, 12, 17, 43, 60, 66, 67, 97])
            .option(57, &1472_u16.to_be_bytes())
            .firmware(arch)
    })
}

/// DISCOVER to ACK; the address is then the one of `eth0`.
fn dhcp(node: &Node, options: impl Fn(Message) -> Message) -> Result<Lease> {
    node.namespace.ip(&["address", "flush", "dev", "eth0"])?;
    let hwaddr = node.machine.hwaddr;
    let exchange = |kind: u8, wanted: u8, more: &[(u8, Vec<u8>)]| -> Result<Vec<u8>> {
        let xid = next_xid();
        let message = options(Message::new(kind, hwaddr).xid(xid).broadcast());
        let message = more
            .iter()
            .fold(message, |message, (code, value)| message.option(*code, value));
        let fits = |reply: &[u8]| option(reply, 53).as_deref() == Some(&[wanted]) && reply[28..34] == hwaddr;
        let asked = node.machine.wire.exchange(xid, &message.build(), PATIENCE, fits);
        asked.with_context(|| format!("{} sends DHCP message {kind}", node.name))
    };
    let offer = exchange(1, 2, &[])?;
    let server = option(&offer, 54).context("an offer without option 54")?;
    let ack = exchange(3, 5, &[(54, server), (50, offer[16..20].to_vec())])?;
    let address = |at: usize| Ipv4Addr::new(ack[at], ack[at + 1], ack[at + 2], ack[at + 3]);
    let text = |code| {
        let bytes = option(&ack, code).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    };
    let lease = Lease {
        address: address(16),
        next_server: address(20),
        boot_file: text(67),
        root_path: text(17),
        variables: (250..=254)
            .filter_map(|code| {
                text(code)
                    .split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
            })
            .collect(),
    };
    let on_card = format!("{}/16", lease.address);
    node.namespace.ip(&["address", "add", &on_card, "dev", "eth0"])?;
    Ok(lease)
}

/// Fetches a file by TFTP as a PXE ROM does (RFC 1350).
pub fn tftp(node: &Node, name: &str) -> Result<Vec<u8>> {
    let socket = node.namespace.inside(|| UdpSocket::bind(("0.0.0.0", 0)))??;
    socket.set_read_timeout(Some(AGAIN))?;
    let mut packet = [&[0, 1], name.as_bytes(), b"\0octet\0"].concat();
    let mut to: std::net::SocketAddr = format!("{SERVER}:69").parse()?;
    let (mut content, mut block) = (Vec::new(), 1_u16);
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        socket.send_to(&packet, to)?;
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        match &buffer[..length] {
            [0, 5, _, _, message @ ..] => bail!("{name}: {}", String::from_utf8_lossy(message)),
            [0, 3, high, low, data @ ..] if u16::from_be_bytes([*high, *low]) == block => {
                content.extend_from_slice(data);
                to = from;
                packet = [&[0, 4], &block.to_be_bytes()[..]].concat();
                block = block.wrapping_add(1);
                if data.len() < 512 {
                    socket.send_to(&packet, to)?;
                    return Ok(content);
                }
            }
            _ => {}
        }
    }
    bail!("{name}: not sent within {PATIENCE:?}")
}

/// One RPC call by UDP, repeated until its answer arrives; none if none arrives within `patience`. Credentials as FreeBSD's loader sends
/// them: AUTH_SYS of root, without a machine name.
pub fn call(
    socket: &UdpSocket,
    port: u16,
    (program, version, procedure): (u32, u32, u32),
    arguments: &[u8],
    patience: Duration,
) -> Result<Option<Vec<u32>>> {
    let xid = next_xid();
    let head = [xid, 0, 2, program, version, procedure, 1, 20, 0, 0, 0, 0, 0, 0, 0];
    let mut packet: Vec<u8> = head.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
    packet.extend(arguments);
    let end = Instant::now() + patience;
    let mut buffer = vec![0; 65_536];
    while Instant::now() < end {
        socket.send_to(&packet, (SERVER, port))?;
        socket.set_read_timeout(Some(AGAIN.min(patience)))?;
        while let Ok(length) = socket.recv(&mut buffer) {
            let words: Vec<u32> = (buffer[..length].chunks_exact(4))
                .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
                .collect();
            if words.first() == Some(&xid) {
                return Ok(Some(words));
            }
        }
    }
    Ok(None)
}

/// The words of a result after the header of a reply to a call that was executed.
fn result(reply: &[u32]) -> Result<&[u32]> {
    // Reply, accepted, no verifier, success.
    ensure!(
        reply.len() >= 6 && reply[1..6] == [1, 0, 0, 0, 0],
        "not executed: {reply:?}"
    );
    Ok(&reply[6..])
}

/// The arguments of GETPORT for a program by UDP.
pub fn getport_args(program: u32, version: u32) -> Vec<u8> {
    [program, version, 17, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

/// FreeBSD's loader after its DHCP.
#[derive(Debug)]
pub struct Loader {
    node: Node,
    /// What DHCP gave to it.
    pub lease: Lease,
    /// The path of its root on the server.
    pub root: String,
    /// `rpc_port`: each file that is opened takes the next lower port.
    port: u16,
    ports: BTreeMap<(u32, u32), u16>,
}

/// An open file.
#[derive(Debug)]
pub struct File {
    socket: UdpSocket,
    nfs: u16,
    handle: Vec<u8>,
    /// Bytes in it.
    pub size: u64,
}

impl Loader {
    /// Starts on a node whose firmware has fetched it.
    pub fn start(node: &Node) -> Result<Loader> {
        let lease = dhcp(node, |message| {
            message
                .option(60, b"PXEClient")
                .option(77, b"\x07FreeBSD")
                .option(55, &[17, 12, 16, 3, 1, 26, 54])
        })?;
        // net_parse_rootpath(): ADDRESS:PATH
        let (server, root) = lease
            .root_path
            .split_once(':')
            .context("a root path without an address")?;
        ensure!(server == SERVER, "the root is on {server}");
        Ok(Loader {
            node: node.clone(),
            root: root.to_owned(),
            lease,
            port: 1024,
            ports: BTreeMap::new(),
        })
    }

    fn socket(&mut self) -> Result<UdpSocket> {
        self.port -= 1;
        let (address, port) = (self.lease.address, self.port);
        Ok(self.node.namespace.inside(|| UdpSocket::bind((address, port)))??)
    }

    /// `rpc_getport()`: asks once for each program.
    fn getport(&mut self, socket: &UdpSocket, program: u32, version: u32) -> Result<u16> {
        if let Some(port) = self.ports.get(&(program, version)) {
            return Ok(*port);
        }
        let reply = call(
            socket,
            PORTMAP_PORT,
            (PORTMAP, 2, 3),
            &getport_args(program, version),
            PATIENCE,
        )?;
        let port = result(&reply.context("the port mapper does not answer")?)?[0];
        ensure!(port != 0, "Portmapper returned 0. TCP-only NFS server?");
        self.ports.insert((program, version), port as u16);
        Ok(port as u16)
    }

    /// `nfs_getrootfh()`: the status of MNT, and the handle of the root.
    pub fn mount(&mut self) -> Result<(u32, Vec<u8>)> {
        let socket = self.socket()?;
        self.mount_from(&socket)
    }

    fn mount_from(&mut self, socket: &UdpSocket) -> Result<(u32, Vec<u8>)> {
        let port = self.getport(socket, MOUNT, 3)?;
        let reply = call(socket, port, (MOUNT, 3, 1), &opaque(self.root.as_bytes()), PATIENCE)?;
        let reply = reply.context("MNT is not answered")?;
        let words = result(&reply)?;
        Ok((
            words[0],
            if words[0] == 0 {
                handle(&words[1..])?
            } else {
                Vec::new()
            },
        ))
    }

    /// `nfs_open()`: mounts the root, and looks each part of the path up.
    pub fn open(&mut self, path: &str) -> Result<File> {
        let socket = self.socket()?;
        let (status, mut at) = self.mount_from(&socket)?;
        ensure!(status == 0, "MNT of {}: {status}", self.root);
        let nfs = self.getport(&socket, NFS, 3)?;
        let mut size = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let reply = call(
                &socket,
                nfs,
                (NFS, 3, 3),
                &[opaque(&at), opaque(name.as_bytes())].concat(),
                PATIENCE,
            )?;
            let reply = reply.context("LOOKUP is not answered")?;
            let words = result(&reply)?;
            ensure!(words[0] == 0, "LOOKUP of {name} in {path}: {}", words[0]);
            at = handle(&words[1..])?;
            let attributes = &words[2 + at.len().div_ceil(4)..];
            ensure!(attributes[0] == 1, "LOOKUP without attributes, which the loader needs");
            size = u64::from(attributes[6]) << 32 | u64::from(attributes[7]);
        }
        Ok(File {
            socket,
            nfs,
            handle: at,
            size,
        })
    }
}

impl File {
    /// `nfs_readdata()`: at most `length` bytes at `offset`.
    pub fn read(&self, offset: u32, length: u32) -> Result<Vec<u8>> {
        let place: Vec<u8> = [0, offset, length].iter().flat_map(|word| word.to_be_bytes()).collect();
        let reply = call(
            &self.socket,
            self.nfs,
            (NFS, 3, 6),
            &[opaque(&self.handle), place].concat(),
            PATIENCE,
        )?;
        data(result(&reply.context("READ is not answered")?)?)
    }

    /// The whole file, by reads of `block` bytes (`nfs.read_size`).
    pub fn content(&self, block: u32) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        while (content.len() as u64) < self.size {
            let read = self.read(content.len() as u32, block)?;
            ensure!(
                !read.is_empty(),
                "the file ends after {} of {} bytes",
                content.len(),
                self.size
            );
            content.extend(read);
        }
        Ok(content)
    }
}

/// The data of a READ result: status, attributes, count, end of file, data.
fn data(words: &[u32]) -> Result<Vec<u8>> {
    ensure!(words[0] == 0, "READ: {}", words[0]);
    ensure!(words[1] == 1, "READ without attributes, which the loader needs");
    // 21 words of attributes.
    let (length, words) = (words[25] as usize, &words[26..]);
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.truncate(length);
    ensure!(bytes.len() == length, "{length} bytes announced, {} sent", bytes.len());
    Ok(bytes)
}

/// A handle with its length.
fn handle(words: &[u32]) -> Result<Vec<u8>> {
    let length = words[0] as usize;
    // NFS_V3MAXFHSIZE
    ensure!(length <= 64, "a handle of {length} bytes");
    let mut bytes: Vec<u8> = words[1..].iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.truncate(length);
    Ok(bytes)
}

/// The kernel mounts the root by the loader's handle, without MOUNT and port mapper, from port 2049 (`nfs_setup_diskless()`). Returns the
/// mode of the root, and the largest READ that the server offers (FSINFO's `rtmax`): by UDP or TCP, as `boot.nfsroot.options` says.
pub fn kernel_mounts(node: &Node, root: &[u8], udp: bool) -> Result<(u32, u32)> {
    let ask = |procedure: u32| -> Result<Vec<u32>> {
        if udp {
            let socket = node.namespace.inside(|| UdpSocket::bind(("0.0.0.0", 1000)))??;
            let reply = call(&socket, 2049, (NFS, 3, procedure), &opaque(root), PATIENCE)?;
            Ok(result(&reply.context("the root is not answered")?)?.to_vec())
        } else {
            let reply = rpc::call(&mut node.connect(2049)?, NFS, procedure, &opaque(root))?;
            Ok(result(&reply)?.to_vec())
        }
    };
    let (attributes, info) = (ask(1)?, ask(19)?);
    ensure!(
        attributes[0] == 0 && info[0] == 0,
        "GETATTR {}, FSINFO {}",
        attributes[0],
        info[0]
    );
    // FSINFO: status, attributes (1 + 21 words), rtmax.
    Ok((attributes[2], info[23]))
}
