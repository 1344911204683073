//! Two network namespaces, with the engine in one of them and clients in the other.

use rackstrap_base::{
    dhcp_option::DhcpOption,
    subnet::{DhcpPart, Subnet},
};
use rackstrap_dhcp::{
    Answer, AnswerKind, Ask, Authority, Counters, Dhcp, DhcpEvent, Kind, Lease, LeaseStore, LeaseView, Loader, Network,
};
use rackstrap_wire::HwAddr;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use testbed::played::{Message, client_socket};
use tokio_util::sync::CancellationToken;

/// The limit of every wait. It is long as the machine may be busy; no wait that succeeds takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const MAC: &str = "52:54:00:00:01:03";

pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}\n{text}{error}");
    text
}

/// Two namespaces; `s0`-`c0` joins them and has 10.5.0.1/16 on the server's side, `s1`-`c1` has 10.7.0.1/16.
pub struct Lab {
    pub server: String,
    pub client: String,
    pub dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("rsdhcp{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab {
            server: format!("{id}-s"),
            client: format!("{id}-c"),
            dir: tempfile::tempdir().unwrap(),
        };
        let (s, c) = (&lab.server, &lab.client);
        run(&format!(
            "set -e; ip netns add {s}; ip netns add {c}
             ip link add s0 netns {s} type veth peer name c0 netns {c} address {MAC}
             ip link add s1 netns {s} type veth peer name c1 netns {c}
             ip -n {s} addr add 10.5.0.1/16 dev s0; ip -n {s} addr add 10.7.0.1/16 dev s1
             for i in lo s0 s1; do ip -n {s} link set $i up; done
             for i in lo c0 c1; do ip -n {c} link set $i up; done"
        ));
        lab
    }

    /// Runs a client program in the client's namespace, with its output in a file of this lab.
    pub fn client(&self, log: &str, script: &str) -> Running {
        let out = fs::File::create(self.dir.path().join(log)).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.client, "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Running(child)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until the client's log contains `text`.
    pub fn wait_log(&self, log: &str, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = fs::read_to_string(self.file(log)).unwrap_or_default();
            if now.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "no '{text}' in {log}:\n{now}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the client's card has this address.
    pub fn wait_address(&self, address: &str, log: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = run(&format!("ip -n {} -4 -o addr show dev c0", self.client));
            if now.contains(&format!("inet {address}/16")) {
                return;
            }
            let log = || fs::read_to_string(self.file(log)).unwrap_or_default();
            assert!(Instant::now() < end, "no {address} on c0: '{now}'\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A program that is stopped at the end of its test.
pub struct Running(pub Child);

impl Running {
    pub fn signal(&self, signal: &str) {
        run(&format!("kill -{signal} {}", self.0.id()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The engine's view of the site in these tests: it records events, has the given nodes, and stores leases.
pub struct World {
    pub network: Arc<Network>,
    nodes: HashMap<String, (String, Ipv4Addr)>,
    pub events: Mutex<Vec<DhcpEvent>>,
    pub changed: Condvar,
    pub leases: Mutex<BTreeMap<Ipv4Addr, Lease>>,
    /// While locked, storing a lease blocks.
    pub disk: Mutex<()>,
}

impl World {
    pub fn new(interfaces: &[&str], nodes: &[(&str, &str, Ipv4Addr)]) -> Arc<Self> {
        World::with_options(interfaces, nodes, None, &[])
    }

    /// The same with an MTU and options in both subnets.
    pub fn with_options(
        interfaces: &[&str],
        nodes: &[(&str, &str, Ipv4Addr)],
        mtu: Option<u16>,
        options: &[DhcpOption],
    ) -> Arc<Self> {
        let subnet = |(second, interface): (u8, &str)| Subnet {
            network: ipnet::Ipv4Net::new(Ipv4Addr::new(10, second, 0, 0), 16).unwrap(),
            interface: interfaces.contains(&interface).then(|| interface.to_owned()),
            server: Ipv4Addr::new(10, second, 0, 1),
            vlan: None,
            dhcp: DhcpPart::Full,
            dhcp_servers: vec![],
            next_server: false,
            router: Some(Ipv4Addr::new(10, second, 0, 1)),
            dns: vec![Ipv4Addr::new(10, second, 0, 1)],
            ntp: vec![],
            mtu,
            options: options.to_vec(),
            pool: Some((Ipv4Addr::new(10, second, 255, 1), Ipv4Addr::new(10, second, 255, 254))),
            lease_secs: 600,
            pool_lease_secs: 300,
        };
        let node = |(mac, name, addr): &(&str, &str, Ipv4Addr)| (mac.to_string(), (name.to_string(), *addr));
        Arc::new(World {
            network: Arc::new(Network {
                subnets: [(5, "s0"), (7, "s1")].into_iter().map(subnet).collect(),
                domain: "cluster.example".into(),
            }),
            nodes: nodes.iter().map(node).collect(),
            events: Mutex::default(),
            changed: Condvar::new(),
            leases: Mutex::default(),
            disk: Mutex::new(()),
        })
    }

    /// Waits for an event and returns the first that fits.
    pub fn wait(&self, what: &str, fits: impl Fn(&DhcpEvent) -> bool) -> DhcpEvent {
        let events = self.events.lock().unwrap();
        let missing = |events: &mut Vec<DhcpEvent>| !events.iter().any(&fits);
        let (events, timeout) = self.changed.wait_timeout_while(events, PATIENCE, missing).unwrap();
        assert!(!timeout.timed_out(), "no {what} in {events:#?}");
        events.iter().find(|e| fits(e)).unwrap().clone()
    }

    pub fn forget_events(&self) {
        self.events.lock().unwrap().clear();
    }
}

impl Authority for World {
    fn ask(&self, who: &Ask<'_>) -> Answer {
        let loader = who.arch.map(|_| Loader::Url("http://10.5.0.1/boot".into()));
        match self.nodes.get(&who.hwaddr.to_string()) {
            Some((hostname, ipaddr)) => Answer::Node {
                ipaddr: *ipaddr,
                hostname: hostname.clone(),
                root: None,
                settings: Default::default(),
                loader,
            },
            None => Answer::Unknown {
                loader,
                further_card: false,
            },
        }
    }

    fn observe(&self, event: &DhcpEvent) {
        if event.answer == AnswerKind::Ack && !event.known && event.message != Kind::Inform {
            let leases = self.leases.lock().unwrap();
            let lease = leases
                .get(&event.address.unwrap())
                .expect("acknowledged before it was stored");
            assert_eq!(lease.hwaddr, event.hwaddr);
        }
        self.events.lock().unwrap().push(event.clone());
        self.changed.notify_all();
    }

    fn network(&self) -> Arc<Network> {
        self.network.clone()
    }

    fn is_node(&self, hwaddr: HwAddr) -> bool {
        self.nodes.contains_key(&hwaddr.to_string())
    }

    fn is_node_address(&self, address: Ipv4Addr) -> bool {
        self.nodes.values().any(|(_, a)| *a == address)
    }

    fn is_card_of(&self, hwaddr: HwAddr, address: Ipv4Addr) -> bool {
        self.nodes.get(&hwaddr.to_string()).is_some_and(|(_, a)| *a == address)
    }
}

/// The store of a [`World`].
pub struct Store(Arc<World>);

impl LeaseStore for Store {
    fn load(&self) -> anyhow::Result<Vec<Lease>> {
        Ok(self.0.leases.lock().unwrap().values().cloned().collect())
    }

    fn commit(&self, leases: &[Lease]) -> anyhow::Result<()> {
        let _disk = self.0.disk.lock().unwrap();
        let by_address = leases.iter().map(|l| (l.ipaddr, l.clone()));
        self.0.leases.lock().unwrap().extend(by_address);
        Ok(())
    }

    fn forget(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
        self.0.leases.lock().unwrap().retain(|a, _| !addresses.contains(a));
        Ok(())
    }
}

pub fn enter(namespace: &str) {
    let file = fs::File::open(Path::new("/run/netns").join(namespace)).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// The engine in the server's namespace, on a thread of its own.
pub struct Server {
    cancel: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    pub leases: LeaseView,
    pub counters: Arc<Counters>,
}

impl Server {
    pub fn start(lab: &Lab, world: &Arc<World>) -> anyhow::Result<Self> {
        let (namespace, world) = (lab.server.clone(), world.clone());
        let counters = Arc::new(Counters::default());
        let cancel = CancellationToken::new();
        let (ready, bound) = mpsc::channel();
        let (stop, counted) = (cancel.clone(), counters.clone());
        let thread = std::thread::spawn(move || {
            enter(&namespace);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let store = Arc::new(Store(world.clone()));
                match Dhcp::bind(world, store, counted) {
                    Ok(dhcp) => {
                        ready.send(Ok(dhcp.leases()))?;
                        dhcp.run(stop).await
                    }
                    Err(error) => Ok(ready.send(Err(error))?),
                }
            })
        });
        Ok(Server {
            cancel,
            leases: bound.recv()??,
            thread: Some(thread),
            counters,
        })
    }

    pub fn stop(mut self) {
        self.cancel.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A socket in the client's namespace, on one interface, port 68.
pub fn socket(lab: &Lab, interface: &str) -> UdpSocket {
    let (namespace, interface) = (lab.client.clone(), interface.to_owned());
    let open = move || {
        enter(&namespace);
        let socket = client_socket(&interface).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    std::thread::spawn(open).join().unwrap()
}

/// A message with the broadcast flag; `id` becomes hardware address and transaction.
pub fn message(kind: u8, id: u16, options: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let message = Message::new(kind, [0x52, 0x54, 0, 9, high, low]).xid(id.into());
    message.broadcast().options(options).build()
}

pub fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2000];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from.port(), 67);
    buffer.truncate(len);
    buffer
}
