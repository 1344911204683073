//! A daemon and simulated nodes, all in one namespace behind one address.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use testbed::{
    Binaries, Cluster, Namespace, Result, Site,
    netns::{SERVER, connect_as_root},
};

/// The limit of the wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of nodes that boot at the same time.
const AT_ONCE: usize = 24;
/// One node of so many fetches its overlay: a build without optimisation takes a tenth of a second to create a node's host
/// keys.
const OVERLAYS: u8 = 25;

/// What a node does when it boots the new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// It becomes ready.
    Well,
    /// It restarts again and again.
    Never,
    /// It fetches its kernel and sends nothing more.
    Hangs,
}

/// A node.
pub struct Node {
    pub name: String,
    hwaddr: [u8; 6],
    address: Ipv4Addr,
}

/// All nodes and their daemon.
pub struct Fleet {
    pub cluster: Cluster,
    pub nodes: Vec<Node>,
    namespace: Namespace,
    /// A link without an address, as for firmware.
    firmware: Namespace,
}

impl Fleet {
    /// A daemon with debian@1, and `racks` racks of `slots` nodes each in its inventory.
    pub fn start(racks: u8, slots: u8) -> Result<Fleet> {
        let mut site = Site::demo();
        // Few of these tests send heartbeats.
        site.heartbeat_secs = 3600;
        Fleet::of_site(&site, racks, slots)
    }

    /// [`Fleet::start`] with another site file.
    pub fn of_site(site: &Site, racks: u8, slots: u8) -> Result<Fleet> {
        let cluster = Cluster::with_images(&Binaries::get()?, site, Vec::new())?;
        version(cluster.daemon.state_dir(), 1)?;
        cluster.start_daemon()?;
        let namespace = cluster.namespace.client("52:54:00:00:ff:02")?;
        // One neighbour for all nodes: the kernel's table holds little more than a thousand.
        namespace.ip(&["address", "add", "10.5.0.2/16", "dev", "eth0"])?;
        let firmware = cluster.namespace.client("52:54:00:00:ff:03")?;
        let mut nodes = Vec::new();
        for rack in 1..=racks {
            let network = format!("10.5.{rack}.0/24");
            namespace.ip(&["route", "add", "local", &network, "dev", "lo"])?;
            cluster.namespace.ip(&["route", "add", &network, "via", "10.5.0.2"])?;
            nodes.extend((1..=slots).map(|slot| Node {
                name: format!("r{rack:02}n{slot:02}"),
                hwaddr: [0x52, 0x54, 0, 0xb0, rack, slot],
                address: Ipv4Addr::new(10, 5, rack, slot),
            }));
        }
        let rows = nodes.iter().map(|node| format!("{},{}\n", node.name, node.mac(":")));
        let file = cluster.dir().join("nodes.csv");
        fs::write(&file, "name,hwaddr\n".to_owned() + &rows.collect::<String>())?;
        cluster.daemon.cli(&["node", "import", &file.to_string_lossy()])?;
        Ok(Fleet {
            cluster,
            nodes,
            namespace,
            firmware,
        })
    }

    /// Adds another version of the image, known to the daemon.
    pub fn add_version(&self, number: u32) -> Result<String> {
        version(self.cluster.daemon.state_dir(), number)?;
        self.cluster.daemon.cli(&["reload"])?;
        let rollouts = self.cluster.daemon.json(&["rollout", "list"])?;
        Ok(rollouts
            .as_array()
            .map(|all| all.iter().map(Value::to_string).collect())
            .unwrap_or_default())
    }

    /// Runs `act` on the nodes' side of the network.
    pub fn act<T: Send>(&self, act: impl FnOnce(&UdpSocket) -> Result<T> + Send) -> Result<T> {
        let wire = self.firmware.inside(wire)??;
        self.namespace.inside(|| act(&wire))?
    }

    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("no node {name}"))
    }

    /// Restarts these nodes; all must get `version` and become ready.
    pub fn boot(&self, nodes: &[&Node], version: &str) -> Result {
        let others = self.boot_into(nodes, version, |_| Boots::Well)?;
        ensure!(others.is_empty(), "given another version than {version}: {others:?}");
        Ok(())
    }

    /// Restarts these nodes, with the behaviour on `version` that `lot` returns. Returns the nodes that got another version,
    /// on which they become ready.
    pub fn boot_into(
        &self,
        nodes: &[&Node],
        version: &str,
        lot: impl Fn(&Node) -> Boots + Sync,
    ) -> Result<Vec<String>> {
        let (next, others) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let firmware = &self.firmware;
        let work = || -> Result {
            let wire = firmware.inside(wire)??;
            while let Some(node) = nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut boot = node.begin(&wire)?;
                if boot.version != version {
                    others.lock().unwrap().push(node.name.clone());
                } else if lot(node) == Boots::Hangs {
                    continue;
                } else if lot(node) == Boots::Never {
                    for _ in 0..2 {
                        boot = node.begin(&wire)?;
                        ensure!(boot.version == version, "{} was given {}", node.name, boot.version);
                    }
                    boot = node.begin(&wire)?;
                    ensure!(boot.version != version, "{} does not go back", node.name);
                }
                node.come_up(&boot)?;
            }
            Ok(())
        };
        self.namespace.inside(|| {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..AT_ONCE.min(nodes.len())).map(|_| scope.spawn(work)).collect();
                threads
                    .into_iter()
                    .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })??;
        Ok(others.into_inner().unwrap())
    }
}

/// A boot that has begun.
pub struct Boot {
    id: String,
    token: String,
    /// The version of its kernel; empty before it is fetched.
    pub version: String,
}

impl Node {
    fn mac(&self, between: &str) -> String {
        self.hwaddr.map(|byte| format!("{byte:02x}")).join(between)
    }

    /// Boots up to the kernel.
    pub fn begin(&self, wire: &UdpSocket) -> Result<Boot> {
        let mut boot = self.open(wire)?;
        self.take_kernel(&mut boot)?;
        Ok(boot)
    }

    /// Boots up to the script.
    pub fn open(&self, wire: &UdpSocket) -> Result<Boot> {
        let (id, token) = self.script(wire)?;
        let version = String::new();
        Ok(Boot { id, token, version })
    }

    /// Fetches the kernel after [`Node::open`].
    pub fn take_kernel(&self, boot: &mut Boot) -> Result {
        let (status, version) = self.ask("GET", &format!("/boot/{}/kernel", boot.id), "", None)?;
        ensure!(status == 200, "{}: kernel: {status}: {version}", self.name);
        boot.version = version;
        Ok(())
    }

    /// Fetches the plan of a boot.
    pub fn plan(&self, boot: &Boot) -> Result<Value> {
        let (status, plan) = self.ask("GET", &format!("/v1/plan/{}", boot.id), &boot.token, None)?;
        serde_json::from_str(&plan).with_context(|| format!("plan: {status}: {plan}"))
    }

    /// Reports the system as up; `checks` is the result of the node's checks.
    pub fn ready(&self, boot: &Boot, checks: &Value) -> Result {
        let body = json!({"token": boot.token, "uptime_ms": 30_000, "detail": "a test", "checks": checks});
        let (status, said) = self.ask("POST", &format!("/v1/ready/{}", boot.id), "", Some(&body))?;
        ensure!(status == 204, "ready: {status}: {said}");
        Ok(())
    }

    /// Sends a heartbeat. True if the answer is the order to restart.
    pub fn beat(&self, boot: &Boot) -> Result<bool> {
        let body = json!({"token": boot.token, "uptime_ms": 60_000, "trouble": ""});
        let (status, said) = self.ask("POST", &format!("/v1/heartbeat/{}", boot.id), "", Some(&body))?;
        ensure!(matches!(status, 200 | 204), "heartbeat: {status}: {said}");
        Ok(status == 200)
    }

    /// The status of MNT (RFC 1813 section 5.2.1) for the node's root user: 0 if it may mount that export, 13 if not.
    pub fn mount(&self, export: &str) -> Result<u32> {
        const XID: u32 = 0x726f_0001;
        // RPC version 2, MOUNT version 3, procedure 1; AUTH_SYS of uid 0 without a host name; no verifier.
        let call = [
            XID,
            0,
            2,
            100_005,
            3,
            1,
            1,
            20,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            export.len() as u32,
        ];
        let mut payload: Vec<u8> = call.iter().flat_map(|word| word.to_be_bytes()).collect();
        payload.extend_from_slice(export.as_bytes());
        payload.resize(payload.len().next_multiple_of(4), 0);
        // From a port below 1024.
        let mut stream = self.connect(2049)?;
        stream.write_all(&(payload.len() as u32 | 1 << 31).to_be_bytes())?;
        stream.write_all(&payload)?;
        let mut reply = [0; 32];
        stream.read_exact(&mut reply)?;
        let word = |index: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| reply[4 * index + byte]));
        ensure!(word(1) == XID && word(6) == 0, "MNT of {export}: {reply:?}");
        Ok(word(7))
    }

    /// Boots from the kernel to the end.
    pub fn come_up(&self, boot: &Boot) -> Result {
        let Boot { id, token, version } = boot;
        let plan = self.plan(boot)?;
        ensure!(
            plan["image"] == version.as_str() && plan["node"] == self.name.as_str(),
            "kernel of {version}: {plan}"
        );
        if self.hwaddr[5] % OVERLAYS == 1 {
            let hardware =
                json!({"cpus": 1, "memory_mib": 512, "vendor": "", "product": "", "serial": "", "hwaddrs": []});
            let disk = json!({"status": {"state": "not-wanted"}, "device": "", "size": 0, "mounts": []});
            let body = json!({"token": token, "disk": disk, "hardware": hardware});
            let (status, overlay) = self.ask("POST", &format!("/v1/overlay/{id}"), "", Some(&body))?;
            ensure!(
                status == 200 && overlay.contains("PRIVATE KEY"),
                "overlay: {status}: {overlay}"
            );
        }
        self.ready(boot, &json!([]))
    }

    /// Sends DHCP and fetches the script; returns the boot's id and token.
    fn script(&self, wire: &UdpSocket) -> Result<(String, String)> {
        let path = format!("/ipxe?mac={}", self.mac("-"));
        for _ in 0..200 {
            wire.send_to(&self.request(), (Ipv4Addr::BROADCAST, 67))
                .context("sending a request")?;
            for _ in 0..5 {
                let (status, script) = self.ask("GET", &path, "", None)?;
                ensure!(status == 200, "script: {status}: {script}");
                let argument = |name: &str| {
                    let name = format!("rackstrap.{name}=");
                    let mut words = script.split_whitespace();
                    words.find_map(|word| word.strip_prefix(&name).map(str::to_owned))
                };
                if let (Some(id), Some(token)) = (argument("plan"), argument("token")) {
                    return Ok((id, token));
                }
                // The daemon has not handled the request yet.
                ensure!(script.contains("has to ask DHCP before it boots"), "{script}");
                thread::sleep(Duration::from_millis(20));
            }
        }
        anyhow::bail!("{}: DHCP is not answered", self.name)
    }

    /// iPXE's REQUEST with an address that it knows (RFC 2131 section 4.3.2, INIT-REBOOT).
    fn request(&self) -> Vec<u8> {
        static XID: AtomicU32 = AtomicU32::new(0x726f_0000);
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&XID.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        bytes[10] = 0x80;
        bytes[28..34].copy_from_slice(&self.hwaddr);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        let mut put = |code: u8, data: &[u8]| {
            bytes.extend_from_slice(&[code, data.len() as u8]);
            bytes.extend_from_slice(data);
        };
        put(53, &[3]);
        put(50, &self.address.octets());
        put(60, b"PXEClient:Arch:00007:UNDI:003016");
        put(93, &[0, 7]);
        put(77, b"iPXE");
        put(175, &[19, 1, 1, 23, 1, 1, 21, 1, 1, 39, 1, 1]);
        bytes.push(255);
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }

    /// A connection from the node's own address and a port below 1024.
    fn connect(&self, port: u16) -> Result<TcpStream> {
        let server: SocketAddr = format!("{SERVER}:{port}").parse()?;
        let stream = connect_as_root(self.address, server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sends a request from the node's own address; returns status and body.
    fn ask(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let asked = || -> Result<String> {
            let mut stream = self.connect(80)?;
            let body = body.map(Value::to_string).unwrap_or_default();
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: {SERVER}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = asked().with_context(|| format!("{} asks for {path}", self.name))?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("{path}: no head in {answer:?}"))?;
        let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
        Ok((status, body.to_owned()))
    }
}

/// A socket for DHCP requests. Their answers are not read: the script shows whether there was one.
fn wire() -> Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.bind_device(Some(b"eth0"))?;
    socket.set_broadcast(true)?;
    // Firmware sends from this port, and the daemon accepts no other one. Several threads share it.
    socket.set_reuse_port(true)?;
    let any: SocketAddr = "0.0.0.0:68".parse()?;
    socket.bind(&any.into())?;
    Ok(socket.into())
}

/// Creates a version of the image whose kernel names the version.
fn version(state_dir: &Path, number: u32) -> Result {
    let dir = state_dir.join(format!("images/debian/{number}"));
    fs::create_dir_all(dir.join("root"))?;
    fs::write(dir.join("kernel"), format!("debian@{number}"))?;
    fs::write(dir.join("initramfs"), "none")?;
    let manifest = format!(
        "image = \"debian@{number}\"\ncreated = 0\nsource = \"a test\"\nkernel-release = \"6.1.0\"\narch = \"x86_64\"\n\
         init = \"systemd\"\nfiles = 0\nbytes = 0\nwire = 4\n"
    );
    Ok(fs::write(dir.join("manifest.toml"), manifest)?)
}
