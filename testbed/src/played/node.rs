//! A node, from its first packet to its heartbeats.

use super::{
    Machine, PATIENCE, Reply, Stage, Wire,
    http::ask,
    rpc::{MOUNT, call, opaque},
};
use crate::{
    Namespace, Result,
    netns::{SERVER, connect_as_root},
};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

/// At most this many requests for a script, while the daemon has not recorded the ACK before it, with this pause between two.
const LOOKS: u32 = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// A machine that is a node of the inventory.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name in the inventory.
    pub name: String,
    /// Its machine.
    pub machine: Machine,
    /// The namespace that its connections come from.
    pub namespace: Arc<Namespace>,
    has: Address,
}

/// The origin of a node's address.
#[derive(Clone, Debug)]
enum Address {
    /// The namespace has the addresses of many nodes.
    Known(Ipv4Addr),
    /// The namespace is the node's machine, and its `eth0` has the address that DHCP gave.
    OfItsOwn,
}

impl Node {
    /// One of many nodes in a namespace with the addresses of all. Their firmware is on `wire`.
    pub fn among_others(
        name: &str,
        hwaddr: [u8; 6],
        address: Ipv4Addr,
        wire: &Arc<Wire>,
        namespace: &Arc<Namespace>,
    ) -> Node {
        Node {
            name: name.to_owned(),
            machine: Machine::of(hwaddr, wire),
            namespace: namespace.clone(),
            has: Address::Known(address),
        }
    }

    /// A node with a machine of its own: a namespace whose `eth0` has the hardware address.
    pub fn alone(name: &str, hwaddr: &str, namespace: Namespace) -> Result<Node> {
        let bytes: Result<Vec<u8>> = hwaddr
            .split(':')
            .map(|byte| Ok(u8::from_str_radix(byte, 16)?))
            .collect();
        let hwaddr = bytes?.try_into().ok().context("six bytes")?;
        let wire = namespace.inside(|| Wire::local("eth0"))??;
        Ok(Node {
            name: name.to_owned(),
            machine: Machine::of(hwaddr, &wire),
            namespace: Arc::new(namespace),
            has: Address::OfItsOwn,
        })
    }

    /// Boots from DHCP up to the script.
    pub fn boot(&self) -> Result<Boot> {
        let has = self.dhcp()?;
        let server = format!("http://{SERVER}:80");
        let path = has.boot_file.strip_prefix(&server);
        self.script(path.with_context(|| format!("{}: {has:?}", self.name))?)
    }

    /// Boots from DHCP up to the kernel.
    pub fn boot_into_kernel(&self) -> Result<Boot> {
        let mut boot = self.boot()?;
        boot.take_kernel()?;
        Ok(boot)
    }

    /// Sends iPXE's DHCP and takes the address.
    pub fn dhcp(&self) -> Result<Reply> {
        match self.has {
            Address::Known(address) => self.machine.request_again(Stage::Ipxe, address),
            Address::OfItsOwn => {
                // After a reset, the card has no address.
                self.namespace.ip(&["address", "flush", "dev", "eth0"])?;
                let has = self.machine.dhcp(Stage::Ipxe)?;
                let address = format!("{}/{}", has.address, has.prefix);
                self.namespace.ip(&["address", "add", &address, "dev", "eth0"])?;
                Ok(has)
            }
        }
    }

    /// Fetches the script without DHCP before.
    pub fn fetch_script(&self) -> Result<Boot> {
        self.script(&format!("/ipxe?mac={}", self.machine.mac()))
    }

    fn script(&self, path: &str) -> Result<Boot> {
        // The daemon sends its ACK before it records the boot.
        let mut answer = None;
        for _ in 0..LOOKS {
            let (status, script) = self.ask("GET", path, "", None)?;
            let too_early = script.contains("has to ask DHCP before it boots");
            answer = Some((status, script));
            if !too_early {
                break;
            }
            thread::sleep(PAUSE);
        }
        let (status, script) = answer.context("never asked")?;
        let [id, token] = ["plan", "token"].map(|name| argument(&script, name).to_owned());
        ensure!(
            status == 200 && !id.is_empty() && !token.is_empty(),
            "{}: script: {status}: {script}",
            self.name
        );
        Ok(Boot {
            node: self.clone(),
            id,
            token,
            version: String::new(),
        })
    }

    /// The status of MNT (RFC 1813 section 5.2.1) for the node's root user: 0 if it may mount that export, 13 if not.
    pub fn mount(&self, export: &str) -> Result<u32> {
        let reply = call(&mut self.connect(2049)?, MOUNT, 1, &opaque(export.as_bytes()))?;
        // A reply, accepted and executed; then the status.
        ensure!(
            reply.len() > 6 && reply[1] == 1 && reply[2] == 0 && reply[5] == 0,
            "MNT of {export}: {reply:?}"
        );
        Ok(reply[6])
    }

    /// A connection from the node's own address and a port below 1024.
    pub(super) fn connect(&self, port: u16) -> Result<TcpStream> {
        let server: SocketAddr = format!("{SERVER}:{port}").parse()?;
        let from = match self.has {
            Address::Known(address) => address,
            Address::OfItsOwn => Ipv4Addr::UNSPECIFIED,
        };
        let stream = self.namespace.inside(|| connect_as_root(from, server, PATIENCE))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sends a request from the node's own address; returns status and body.
    pub fn ask(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let asked = || ask(self.connect(80)?, method, path, token, body);
        asked().with_context(|| format!("{} asks for {path}", self.name))
    }
}

/// A boot that has begun. Its agent does not send its version.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The node that boots.
    pub node: Node,
    /// The id of the boot.
    pub id: String,
    /// The token for requests of this boot.
    pub token: String,
    /// The content of the kernel file, which names the version in the tests; empty before it is fetched.
    pub version: String,
}

impl Boot {
    /// Fetches the kernel.
    pub fn take_kernel(&mut self) -> Result {
        let path = format!("/boot/{}/kernel", self.id);
        let (status, version) = self.node.ask("GET", &path, "", None)?;
        ensure!(status == 200, "{}: kernel: {status}: {version}", self.node.name);
        self.version = version;
        Ok(())
    }

    /// Fetches the plan.
    pub fn plan(&self) -> Result<Value> {
        let (status, plan) = self
            .node
            .ask("GET", &format!("/v1/plan/{}", self.id), &self.token, None)?;
        ensure!(status == 200, "plan: {status}: {plan}");
        serde_json::from_str(&plan).with_context(|| format!("plan: {plan}"))
    }

    /// Reports disk and hardware, and fetches the overlay with its files and secrets.
    pub fn overlay(&self, disk: &Value, hardware: &Value) -> Result<String> {
        let (status, overlay) = self.post("overlay", json!({"disk": disk, "hardware": hardware}))?;
        ensure!(status == 200, "overlay: {status}: {overlay}");
        Ok(overlay)
    }

    /// Reports the system as up; `checks` is the result of the node's checks.
    pub fn ready(&self, checks: &Value) -> Result {
        let (status, said) = self.post("ready", json!({"detail": "a test", "checks": checks}))?;
        ensure!(status == 204, "ready: {status}: {said}");
        Ok(())
    }

    /// Sends a heartbeat and returns the order to restart, if the answer has one.
    pub fn heartbeat(&self) -> Result<Option<Value>> {
        let (status, said) = self.post("heartbeat", json!({"trouble": ""}))?;
        ensure!(matches!(status, 200 | 204), "heartbeat: {status}: {said}");
        match status {
            200 => Ok(Some(serde_json::from_str::<Value>(&said)?["restart"].clone())),
            _ => Ok(None),
        }
    }

    /// Posts `more` with token and uptime; returns status and body.
    pub fn post(&self, what: &str, more: Value) -> Result<(u16, String)> {
        let mut body = json!({"token": self.token, "uptime_ms": 30_000});
        let fields = body.as_object_mut().context("an object")?;
        fields.extend(more.as_object().cloned().unwrap_or_default());
        self.node
            .ask("POST", &format!("/v1/{what}/{}", self.id), "", Some(&body))
    }
}

/// A report of unknown hardware.
pub fn no_hardware() -> Value {
    json!({"cpus": 1, "memory_mib": 512, "vendor": "", "product": "", "serial": "", "hwaddrs": []})
}

/// A report of a disk that is not used.
pub fn no_disk() -> Value {
    json!({"status": {"state": "not-wanted"}, "device": "", "size": 0, "mounts": []})
}

/// `rackstrap.NAME=value` of a kernel command line; empty if the name is not there.
pub fn argument<'a>(script: &'a str, name: &str) -> &'a str {
    let name = format!("rackstrap.{name}=");
    script
        .split_whitespace()
        .find_map(|word| word.strip_prefix(&name))
        .unwrap_or_default()
}
