//! A private network: one namespace with a bridge for the daemon and the virtual machines, and further namespaces behind it for ordinary
//! clients.

use crate::{Result, paths, process};
use anyhow::{Context, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};
use std::{
    fs::File,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// Name of the bridge to which everything is attached, and of the interface in the site file.
pub const BRIDGE: &str = "br0";

/// The daemon's address on it.
pub const SERVER: &str = "10.5.0.1";

/// The bridge's hardware address. Without one, a bridge takes the lowest of its ports' addresses (br_stp_if.c of Linux,
/// br_stp_recalculate_bridge_id). Then a port that joins may change it, and packets of other machines to the old one are lost.
const HWADDR: &str = "52:54:00:05:00:01";

/// A network namespace, which is removed with its interfaces when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    taps: AtomicU32,
}

impl Namespace {
    /// Makes a namespace with [`BRIDGE`] up and [`SERVER`]`/16` on it.
    pub fn with_bridge() -> Result<Self> {
        let namespace = Namespace::empty()?;
        // Without spanning tree and forward delay, a port forwards its first packet, which is a DHCPDISCOVER.
        namespace.ip(&[
            "link",
            "add",
            BRIDGE,
            "address",
            HWADDR,
            "type",
            "bridge",
            "stp_state",
            "0",
            "forward_delay",
            "0",
        ])?;
        namespace.ip(&["link", "set", BRIDGE, "type", "bridge", "mcast_snooping", "0"])?;
        namespace.ip(&["address", "add", &format!("{SERVER}/16"), "dev", BRIDGE])?;
        namespace.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(namespace)
    }

    /// Makes a namespace with only loopback.
    pub fn empty() -> Result<Self> {
        remove_leftovers()?;
        let name = paths::unique_name();
        process::output(Command::new("ip").args(["netns", "add", &name]))
            .context("making a network namespace; the demo and the tests with real clients run as root")?;
        let namespace = Namespace {
            name,
            taps: AtomicU32::new(0),
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name in `ip netns list`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside, with the namespace's own `/sys`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `f` on a thread inside. Sockets that it opens stay inside, even if other threads use them later.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.name);
        let namespace = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let enter = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering the namespace {}", self.name))?;
            Ok(f())
        };
        let done = thread::scope(|scope| scope.spawn(enter).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip ARGUMENTS` inside.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        process::output(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Adds a tap to the bridge and returns its name.
    pub fn tap(&self) -> Result<String> {
        self.tap_on(BRIDGE)
    }

    /// Adds a tap to another bridge and returns its name.
    pub fn tap_on(&self, bridge: &str) -> Result<String> {
        let name = format!("tap{}", self.taps.fetch_add(1, Ordering::Relaxed));
        self.ip(&["tuntap", "add", &name, "mode", "tap"])?;
        self.ip(&["link", "set", &name, "master", bridge, "up"])?;
        Ok(name)
    }

    /// Sets the MTU of [`BRIDGE`] and of all its ports, in bytes.
    pub fn set_mtu(&self, mtu: u16) -> Result {
        self.set_mtu_of(BRIDGE, mtu)
    }

    /// The same for another bridge.
    pub fn set_mtu_of(&self, bridge: &str, mtu: u16) -> Result {
        let mtu = mtu.to_string();
        let ports = self.ip(&["-o", "link", "show", "master", bridge])?;
        // `3: tap0: <...>`, and `4: port0@if2: <...>` for one end of a pair.
        let ports = ports
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1)?.split([':', '@']).next());
        for port in ports.chain([bridge]) {
            self.ip(&["link", "set", port, "mtu", &mtu])?;
        }
        Ok(())
    }

    /// Runs `nft COMMANDS` inside.
    pub fn nft(&self, commands: &str) -> Result<String> {
        process::output(self.command("nft").arg(commands))
    }

    /// A separate machine on the bridge: another namespace, whose `eth0` has that hardware address, is up, and has no address yet.
    pub fn client(&self, hwaddr: &str) -> Result<Namespace> {
        let client = Namespace::empty()?;
        let port = format!("port{}", self.taps.fetch_add(1, Ordering::Relaxed));
        self.ip(&[
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            client.name(),
        ])?;
        client.ip(&["link", "set", "eth0", "address", hwaddr])?;
        // veth leaves the UDP checksum to missing hardware, so DHCP clients on packet sockets would see a wrong one.
        process::output(client.command("ethtool").args(["-K", "eth0", "tx", "off"]))?;
        process::output(self.command("ethtool").args(["-K", &port, "tx", "off"]))?;
        client.ip(&["link", "set", "eth0", "up"])?;
        self.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        Ok(client)
    }
}

/// A connection from a port below 1024 of `local`, like those of root's programs, from the namespace of the calling thread.
pub fn connect_as_root(local: Ipv4Addr, to: SocketAddr, patience: Duration) -> Result<TcpStream> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        let port = 512 + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        let bound = socket.bind(&SocketAddr::from((local, port as u16)).into());
        match bound.and_then(|()| socket.connect_timeout(&to.into(), patience)) {
            Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) => {}
            connected => {
                connected.with_context(|| format!("connecting to {to} from port {port}"))?;
                return Ok(socket.into());
            }
        }
    }
    bail!("{local} has no free port below 1024")
}

/// Number of ports that [`connect_as_root`] tries: 512 to 1023.
const PORTS: u32 = 512;

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = process::output(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("testbed: could not remove the namespace {}: {error:#}", self.name);
        }
    }
}

/// Removes the namespaces of processes that have ended.
fn remove_leftovers() -> Result {
    let list = process::output(Command::new("ip").args(["netns", "list"])).context("listing network namespaces")?;
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        if paths::is_leftover(name) {
            // Another process may be removing the same one.
            let _ = process::output(Command::new("ip").args(["netns", "delete", name]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_keeps_its_address_when_a_port_with_a_lower_one_joins() -> Result {
        let namespace = Namespace::with_bridge()?;
        let port = namespace.tap()?;
        namespace.ip(&["link", "set", &port, "address", "02:00:00:00:00:01"])?;
        let bridge = namespace.ip(&["link", "show", BRIDGE])?;
        assert!(bridge.contains(HWADDR), "{bridge}");
        Ok(())
    }
}
