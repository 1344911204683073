//! DHCP clients of three systems against the engine, on a veth pair between two namespaces.

pub(super) mod lab;

use lab::{Lab, MAC, PATIENCE, Running, Server, World, message, receive, run, socket};
use rackstrap_base::{clock::Timestamp, counters::ReadCounts, dhcp_option::DhcpOption};
use rackstrap_dhcp::{AnswerKind, DhcpEvent, Kind, LeaseState};
use std::{
    fs,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};
use testbed::played::TO_ALL;

/// The script of udhcpc: it configures the card and writes its environment to a file.
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
    world.wait("ACK", |e| {
        matches!(e.message, Kind::Selecting { .. }) && e.answer == AnswerKind::Ack
    });
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
        matches!(e.message, Kind::Extend { .. }) && e.answer == AnswerKind::Ack
    });
    client.signal("USR2");
    let release = world.wait("RELEASE", |e| matches!(e.message, Kind::Release { .. }));
    assert_eq!(release.address, Some(Ipv4Addr::new(10, 5, 1, 3)));
    assert!(world.leases.lock().unwrap().is_empty(), "nodes need no stored lease");
    server.stop();
}

#[test]
fn udhcpc_takes_the_options_of_the_site() {
    let lab = Lab::new();
    let lines = [
        "routes 10.6.0.0/16 via 10.5.0.2",
        "search cluster.example example",
        "log-servers 10.5.0.9",
        "224 text hello",
        "225 text not asked for",
    ];
    let options = lines.map(|line| DhcpOption::parse(line).unwrap());
    let world = World::with_options(
        &["s0"],
        &[(MAC, "r01n03", Ipv4Addr::new(10, 5, 1, 3))],
        Some(9000),
        &options,
    );
    let server = Server::start(&lab, &world).unwrap();
    let _client = udhcpc(&lab, "-O mtu -O staticroutes -O search -O 7 -O 224");
    lab.wait_address("10.5.1.3", "udhcpc.log");
    let env = fs::read_to_string(lab.file("env")).unwrap();
    for line in [
        "mtu=9000",
        "staticroutes=10.6.0.0/16 10.5.0.2 0.0.0.0/0 10.5.0.1",
        "search=cluster.example example",
        "opt7=0a050009",
        "opt224=68656c6c6f",
    ] {
        assert!(env.contains(line), "no {line} in\n{env}");
    }
    assert!(!env.contains("opt225"), "{env}");
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
    world.wait("ACK", |e| {
        matches!(e.message, Kind::Selecting { .. }) && e.answer == AnswerKind::Ack
    });
    lab.wait_address("10.5.255.1", "dhclient.log");
    // It runs its script first and writes its lease file afterwards.
    lab.wait_log("dhclient.log", "bound to");
    assert_eq!(server.leases.holder(first).unwrap().hwaddr, MAC.parse().unwrap());
    drop(running);
    // After a restart it remembers its address (INIT-REBOOT).
    world.forget_events();
    let running = lab.client("dhclient.log", &format!("exec {dhclient} c0"));
    let reboot = world.wait("INIT-REBOOT", |e| matches!(e.message, Kind::InitReboot { .. }));
    assert_eq!((reboot.answer, reboot.address), (AnswerKind::Ack, Some(first)));
    lab.wait_address("10.5.255.1", "dhclient.log");
    lab.wait_log("dhclient.log", "bound to");
    drop(running);
    let mut release = lab.client("release.log", &format!("exec {dhclient} -r c0"));
    world.wait("RELEASE", |e| {
        matches!(e.message, Kind::Release { .. }) && e.address == Some(first)
    });
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

/// Runs systemd-networkd without systemd: with a /run of its own, and a read-only /sys, from which it concludes that no udev
/// will name the cards.
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
    world.wait("ACK", |e| {
        matches!(e.message, Kind::Selecting { .. }) && e.answer == AnswerKind::Ack
    });
    drop(client);
    server.stop();
}

#[test]
fn other_interfaces_are_not_served() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[]);
    let server = Server::start(&lab, &world).unwrap();
    let (told, other) = (socket(&lab, "c0"), socket(&lab, "c1"));
    other.send_to(&message(1, 1, &[]), TO_ALL).unwrap();
    told.send_to(&message(1, 2, &[]), TO_ALL).unwrap();
    assert_eq!(receive(&told)[6..8], [0, 2]);
    // The earlier message had its time: a later one has been answered.
    other.set_nonblocking(true).unwrap();
    assert!(other.recv_from(&mut [0; 1]).is_err());
    world.wait("OFFER", |e| e.answer == AnswerKind::Offer);
    assert_eq!(world.events.lock().unwrap().len(), 1);
    server.stop();
}

#[test]
fn no_lease_is_acknowledged_before_it_is_stored() {
    let lab = Lab::new();
    let world = World::new(&["s0"], &[(MAC, "r01n03", Ipv4Addr::new(10, 5, 1, 3))]);
    let server = Server::start(&lab, &world).unwrap();
    let client = socket(&lab, "c0");
    let disk = world.disk.lock().unwrap();
    let selecting = [54, 4, 10, 5, 0, 1, 50, 4, 10, 5, 255, 9];
    client.send_to(&message(3, 1, &selecting), TO_ALL).unwrap();
    // Answers to a node, and offers, do not wait for the disk.
    client.send_to(&message(1, 2, &[]), TO_ALL).unwrap();
    assert_eq!(receive(&client)[6..8], [0, 2]);
    client.set_nonblocking(true).unwrap();
    assert!(client.recv_from(&mut [0; 1]).is_err());
    client.set_nonblocking(false).unwrap();
    drop(disk);
    let ack = receive(&client);
    assert_eq!((&ack[6..8], &ack[16..20]), (&[0, 1][..], &[10, 5, 255, 9][..]));
    server.stop();
    // Another daemon on the same store has the lease.
    let again = Server::start(&lab, &world).unwrap();
    assert!(again.leases.holder(Ipv4Addr::new(10, 5, 255, 9)).unwrap().expires > Timestamp::now());
    again.stop();
}

/// Many machines at once, as when a cluster is switched on: no message is lost in a full receive buffer.
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
    assert!(server.counters.counts().contains(&("offer", u64::from(MACHINES))));
    let counters = server.counters.clone();
    server.stop();
    assert!(counters.counts().contains(&("too-short", 1)));
}

#[test]
fn a_socket_that_cannot_be_bound_is_reported_in_one_line() {
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

/// A bridge or bond that is created again has the same name and another index.
#[test]
fn an_interface_that_is_created_again_is_served_again() {
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
