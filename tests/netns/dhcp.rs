//! DHCP clients of three systems against the engine, on a veth pair between two namespaces.

use rackstrap::{
    clock::Timestamp,
    config::Subnet,
    dhcp::{
        Answer, AnswerKind, Ask, Authority, Counters, Dhcp, DhcpEvent, Lease, LeaseState, LeaseStore, LeaseView,
        Loader, Network,
    },
};
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
use tokio_util::sync::CancellationToken;

/// Generous, as the machine may be busy; nothing waits that long when it works.
const PATIENCE: Duration = Duration::from_secs(60);
const MAC: &str = "52:54:00:00:01:03";

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}\n{text}{error}");
    text
}

/// Two namespaces; `s0`-`c0` joins them and has 10.5.0.1/16 on the server's side, `s1`-`c1` has 10.7.0.1/16.
struct Lab {
    server: String,
    client: String,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
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

    /// A client program in the client's namespace, its output in a file of this lab.
    fn client(&self, log: &str, script: &str) -> Running {
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

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until a client has written this to its log.
    fn wait_log(&self, log: &str, text: &str) {
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

    /// Waits until the client side has this address.
    fn wait_address(&self, address: &str, log: &str) {
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
struct Running(Child);

impl Running {
    fn signal(&self, signal: &str) {
        run(&format!("kill -{signal} {}", self.0.id()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Remembers what happened, knows one node, keeps leases.
struct World {
    network: Arc<Network>,
    nodes: HashMap<String, (String, Ipv4Addr)>,
    events: Mutex<Vec<DhcpEvent>>,
    changed: Condvar,
    leases: Mutex<BTreeMap<Ipv4Addr, Lease>>,
    /// While locked, no lease gets onto the disk.
    disk: Mutex<()>,
}

impl World {
    fn new(interfaces: &[&str], nodes: &[(&str, &str, Ipv4Addr)]) -> Arc<Self> {
        let subnet = |(second, interface): (u8, &str)| Subnet {
            network: ipnet::Ipv4Net::new(Ipv4Addr::new(10, second, 0, 0), 16).unwrap(),
            interface: interfaces.contains(&interface).then(|| interface.to_owned()),
            server: Ipv4Addr::new(10, second, 0, 1),
            router: Some(Ipv4Addr::new(10, second, 0, 1)),
            dns: vec![Ipv4Addr::new(10, second, 0, 1)],
            ntp: vec![],
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

    /// Waits for an event, and returns the first that fits.
    fn wait(&self, what: &str, fits: impl Fn(&DhcpEvent) -> bool) -> DhcpEvent {
        let events = self.events.lock().unwrap();
        let missing = |events: &mut Vec<DhcpEvent>| !events.iter().any(&fits);
        let (events, timeout) = self.changed.wait_timeout_while(events, PATIENCE, missing).unwrap();
        assert!(!timeout.timed_out(), "no {what} in {events:#?}");
        events.iter().find(|e| fits(e)).unwrap().clone()
    }

    fn forget_events(&self) {
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
                loader,
            },
            None => Answer::Unknown { loader },
        }
    }

    fn observe(&self, event: &DhcpEvent) {
        if event.answer == AnswerKind::Ack && !event.known && event.message != "inform" {
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

    fn is_node_address(&self, address: Ipv4Addr) -> bool {
        self.nodes.values().any(|(_, a)| *a == address)
    }
}

/// The store of a [`World`].
struct Store(Arc<World>);

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

fn enter(namespace: &str) {
    let file = fs::File::open(Path::new("/run/netns").join(namespace)).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// The engine in the server's namespace, on a thread of its own.
struct Server {
    cancel: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    leases: LeaseView,
    counters: Arc<Counters>,
}

impl Server {
    fn start(lab: &Lab, world: &Arc<World>) -> anyhow::Result<Self> {
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

    fn stop(mut self) {
        self.cancel.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A socket of the client's namespace, on one interface, port 68.
fn socket(lab: &Lab, interface: &str) -> UdpSocket {
    let (namespace, interface) = (lab.client.clone(), interface.to_owned());
    let open = move || {
        enter(&namespace);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.bind_device(Some(interface.as_bytes())).unwrap();
        socket.set_broadcast(true).unwrap();
        let any: std::net::SocketAddr = "0.0.0.0:68".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        UdpSocket::from(socket)
    };
    std::thread::spawn(open).join().unwrap()
}

/// A message with the broadcast flag; `id` becomes hardware address and transaction.
fn message(kind: u8, id: u16, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[6..8].copy_from_slice(&id.to_be_bytes());
    bytes[10] = 0x80;
    bytes[28..32].copy_from_slice(&[0x52, 0x54, 0, 9]);
    bytes[32..34].copy_from_slice(&id.to_be_bytes());
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(&[53, 1, kind]);
    bytes.extend_from_slice(options);
    bytes.push(255);
    bytes
}

const TO_ALL: (Ipv4Addr, u16) = (Ipv4Addr::BROADCAST, 67);

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2000];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from.port(), 67);
    buffer.truncate(len);
    buffer
}

/// udhcpc's script: configure, and write down what came.
const UDHCPC_SCRIPT: &str = "#!/bin/sh
env >> $(dirname $0)/env; echo \"event $1\" >> $(dirname $0)/env
case $1 in
bound|renew) ip addr replace $ip/$mask dev $interface;;
deconfig) ip addr flush dev $interface;;
esac
";

fn udhcpc(lab: &Lab, options: &str) -> Running {
    let script = lab.file("udhcpc.sh");
    fs::write(&script, UDHCPC_SCRIPT).unwrap();
    run(&format!("chmod +x {}", script.display()));
    let script = script.display();
    lab.client(
        "udhcpc.log",
        &format!("exec udhcpc -i c0 -f -t 10 -T 1 -s {script} {options}"),
    )
}

#[test]
fn udhcpc_as_a_node() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[(MAC, "r01n03", Ipv4Addr::new(10, 5, 1, 3))]);
    let server = Server::start(&lab, &world).unwrap();
    // Without -B it asks for unicast replies, to an address that it does not have yet.
    let client = udhcpc(&lab, "-O hostname");
    world.wait("ACK", |e| e.message == "request" && e.answer == AnswerKind::Ack);
    lab.wait_address("10.5.1.3", "udhcpc.log");
    let env = fs::read_to_string(lab.file("env")).unwrap();
    for line in [
        "hostname=r01n03",
        "router=10.5.0.1",
        "dns=10.5.0.1",
        "domain=cluster.example",
        "lease=600",
    ] {
        assert!(env.contains(line), "no {line} in\n{env}");
    }
    client.signal("USR1");
    world.wait("renewal", |e| {
        e.message == "request (renewing)" && e.answer == AnswerKind::Ack
    });
    client.signal("USR2");
    let release = world.wait("RELEASE", |e| e.message == "release");
    assert_eq!(release.address, Some(Ipv4Addr::new(10, 5, 1, 3)));
    assert!(world.leases.lock().unwrap().is_empty(), "nodes need no stored lease");
    server.stop();
}

#[test]
fn dhclient_in_the_pool() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[]);
    let server = Server::start(&lab, &world).unwrap();
    let dir = lab.dir.path().display();
    let script = lab.file("dhclient.sh");
    let body = "#!/bin/sh\n[ -n \"$new_ip_address\" ] && ip addr replace $new_ip_address/16 dev $interface\nexit 0\n";
    fs::write(&script, body).unwrap();
    run(&format!("chmod +x {dir}/dhclient.sh; touch {dir}/leases"));
    let dhclient = format!("dhclient -v -d -cf /dev/null -sf {dir}/dhclient.sh -lf {dir}/leases -pf {dir}/pid");
    let first = Ipv4Addr::new(10, 5, 255, 1);
    let running = lab.client("dhclient.log", &format!("exec {dhclient} c0"));
    world.wait("ACK", |e| e.message == "request" && e.answer == AnswerKind::Ack);
    lab.wait_address("10.5.255.1", "dhclient.log");
    // It runs its script first and writes its lease file then.
    lab.wait_log("dhclient.log", "bound to");
    assert_eq!(server.leases.holder(first).unwrap().hwaddr, MAC.parse().unwrap());
    drop(running);
    // Started again it remembers its address: INIT-REBOOT.
    world.forget_events();
    let running = lab.client("dhclient.log", &format!("exec {dhclient} c0"));
    let reboot = world.wait("INIT-REBOOT", |e| e.message == "request (init-reboot)");
    assert_eq!((reboot.answer, reboot.address), (AnswerKind::Ack, Some(first)));
    lab.wait_address("10.5.255.1", "dhclient.log");
    lab.wait_log("dhclient.log", "bound to");
    drop(running);
    let mut release = lab.client("release.log", &format!("exec {dhclient} -r c0"));
    world.wait("RELEASE", |e| e.message == "release" && e.address == Some(first));
    assert!(release.0.wait().unwrap().success());
    assert_eq!(world.leases.lock().unwrap()[&first].state, LeaseState::Released);
    assert_eq!(server.leases.holder(first), None);
    server.stop();
}

#[test]
fn firmware_and_systems_of_one_machine_share_an_address() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[]);
    let server = Server::start(&lab, &world).unwrap();
    // Three client ids: none, a made-up one, and systemd's DUID.
    drop({
        let client = udhcpc(&lab, "-C");
        lab.wait_address("10.5.255.1", "udhcpc.log");
        client
    });
    run(&format!("ip -n {} addr flush dev c0", lab.client));
    drop({
        let client = udhcpc(&lab, "-x 0x3d:ff00112233");
        lab.wait_address("10.5.255.1", "udhcpc.log");
        client
    });
    run(&format!("ip -n {} addr flush dev c0", lab.client));
    world.forget_events();
    let networkd = networkd(&lab);
    lab.wait_address("10.5.255.1", "networkd.log");
    drop(networkd);
    assert_eq!(world.leases.lock().unwrap().len(), 1);
    server.stop();
}

/// systemd-networkd by hand: its own /run, and a read-only /sys, which tells it that no udev will name the links.
fn networkd(lab: &Lab) -> Running {
    lab.client(
        "networkd.log",
        "set -e
         mount --make-rprivate /; mount -t tmpfs tmpfs /run; mount -o remount,ro,bind /sys
         mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
         chown -R systemd-network /run/systemd/netif
         printf '[Match]\\nName=c0\\n[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=no\\nIPv6AcceptRA=no\\n[DHCPv4]\\nUseHostname=no\\n' \
             > /run/systemd/network/10-c0.network
         export SYSTEMD_LOG_LEVEL=debug
         exec unshare --mount /lib/systemd/systemd-networkd",
    )
}

#[test]
fn networkd_as_a_node() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[(MAC, "r01n03", Ipv4Addr::new(10, 5, 1, 3))]);
    let server = Server::start(&lab, &world).unwrap();
    let client = networkd(&lab);
    lab.wait_address("10.5.1.3", "networkd.log");
    world.wait("ACK", |e| e.message == "request" && e.answer == AnswerKind::Ack);
    drop(client);
    server.stop();
}

#[test]
fn interfaces_that_it_was_not_told_to_hear_nothing() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[]);
    let server = Server::start(&lab, &world).unwrap();
    let (told, other) = (socket(&lab, "c0"), socket(&lab, "c1"));
    other.send_to(&message(1, 1, &[]), TO_ALL).unwrap();
    told.send_to(&message(1, 2, &[]), TO_ALL).unwrap();
    assert_eq!(receive(&told)[6..8], [0, 2]);
    // What was sent first had its time; everything after it has been answered.
    other.set_nonblocking(true).unwrap();
    assert!(other.recv_from(&mut [0; 1]).is_err());
    world.wait("OFFER", |e| e.answer == AnswerKind::Offer);
    assert_eq!(world.events.lock().unwrap().len(), 1);
    server.stop();
}

#[test]
fn no_lease_is_promised_before_it_is_stored() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[(MAC, "r01n03", Ipv4Addr::new(10, 5, 1, 3))]);
    let server = Server::start(&lab, &world).unwrap();
    let client = socket(&lab, "c0");
    let disk = world.disk.lock().unwrap();
    let selecting = [54, 4, 10, 5, 0, 1, 50, 4, 10, 5, 255, 9];
    client.send_to(&message(3, 1, &selecting), TO_ALL).unwrap();
    // A node, and an offer, do not wait for the disk.
    client.send_to(&message(1, 2, &[]), TO_ALL).unwrap();
    assert_eq!(receive(&client)[6..8], [0, 2]);
    client.set_nonblocking(true).unwrap();
    assert!(client.recv_from(&mut [0; 1]).is_err());
    client.set_nonblocking(false).unwrap();
    drop(disk);
    let ack = receive(&client);
    assert_eq!((&ack[6..8], &ack[16..20]), (&[0, 1][..], &[10, 5, 255, 9][..]));
    server.stop();
    // Another daemon on the same store knows it.
    let again = Server::start(&lab, &world).unwrap();
    assert!(again.leases.holder(Ipv4Addr::new(10, 5, 255, 9)).unwrap().expires > Timestamp::now());
    again.stop();
}

/// A cluster that is switched on: nobody is lost in a full receive buffer.
#[test]
fn a_burst_is_answered_whole() {
    const MACHINES: u16 = 2000;
    let lab = Lab::new();
    let nodes: Vec<(String, String, Ipv4Addr)> = (0..MACHINES)
        .map(|n| {
            let [a, b] = n.to_be_bytes();
            let mac = format!("52:54:00:09:{a:02x}:{b:02x}");
            (mac, format!("n{n}"), Ipv4Addr::from(0x0a05_0200 + u32::from(n)))
        })
        .collect();
    let nodes: Vec<(&str, &str, Ipv4Addr)> = nodes.iter().map(|(m, n, a)| (m.as_str(), n.as_str(), *a)).collect();
    let world = World::new(&["s0"], &nodes);
    let server = Server::start(&lab, &world).unwrap();
    let client = socket(&lab, "c0");
    client.send_to(&[0; 20], TO_ALL).unwrap();
    for n in 0..MACHINES {
        client.send_to(&message(1, n, &[]), TO_ALL).unwrap();
    }
    let events = world.events.lock().unwrap();
    let fewer = |events: &mut Vec<DhcpEvent>| events.len() < usize::from(MACHINES);
    let (events, _) = world.changed.wait_timeout_while(events, PATIENCE, fewer).unwrap();
    assert_eq!(events.len(), usize::from(MACHINES));
    assert!(events.iter().all(|e| e.answer == AnswerKind::Offer && e.known));
    drop(events);
    assert!(server.counters.answers().contains(&("offer", u64::from(MACHINES))));
    let counters = server.counters.clone();
    server.stop();
    assert!(counters.malformed_by_reason().contains(&("too-short", 1)));
}

#[test]
fn what_cannot_be_bound_is_said_in_one_line() {
    let lab = Lab::new();
    let message = |interfaces: &[&str]| {
        let error = Server::start(&lab, &World::new(interfaces, &[])).err().unwrap();
        format!("{error:#}")
    };
    let none = message(&[]);
    assert!(
        none.contains("no [[subnet]] of the site file names an interface"),
        "{none}"
    );
    let mut world = World::new(&["s0"], &[]);
    let network = Arc::make_mut(&mut Arc::get_mut(&mut world).unwrap().network);
    network.subnets[0].interface = Some("eth9".into());
    let missing = format!("{:#}", Server::start(&lab, &world).err().unwrap());
    assert!(missing.contains("no interface 'eth9'"), "{missing}");
    let server = Server::start(&lab, &World::new(&["s0"], &[])).unwrap();
    let busy = message(&["s0"]);
    assert!(
        busy.contains("UDP port 67 on 's0' is in use by another program"),
        "{busy}"
    );
    let both = Server::start(&lab, &World::new(&["s1"], &[])).unwrap();
    both.stop();
    server.stop();
}

/// A bridge or a bond that is made anew has its old name and another index.
#[test]
fn an_interface_that_comes_back_is_answered_on_again() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[]);
    let server = Server::start(&lab, &world).unwrap();
    let ask = |id: u16| {
        let client = socket(&lab, "c0");
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 600];
        while Instant::now() < end {
            client.send_to(&message(1, id, &[]), TO_ALL).unwrap();
            if client.recv(&mut buffer).is_ok() {
                assert_eq!(buffer[6..8], id.to_be_bytes());
                return;
            }
        }
        panic!("no answer to {id}");
    };
    ask(1);
    let (s, c) = (&lab.server, &lab.client);
    run(&format!(
        "set -e; ip -n {s} link del s0
         ip link add s0 netns {s} type veth peer name c0 netns {c}
         ip -n {s} addr add 10.5.0.1/16 dev s0; ip -n {s} link set s0 up; ip -n {c} link set c0 up"
    ));
    ask(2);
    server.stop();
}
