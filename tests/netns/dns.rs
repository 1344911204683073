//! The DNS server, with dig as its client (its zones, forwarding, and for which clients it forwards), and with hostile
//! clients.

use super::{
    dnsmasq,
    serve::{udhcpc, variable},
};
use anyhow::{Context, ensure};
use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};
use testbed::{
    Binaries, Cluster, Daemon, Namespace, Result, Site,
    netns::{BRIDGE, SERVER},
    process::{Running, output},
    timeline::poll,
};

const MAC: &str = "52:54:00:00:01:01";
/// The limit of every wait. No server here takes that long, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// The address of these tests' forwarder, and one without a server.
const FORWARDER: &str = "127.0.0.1:5353";
const NOBODY: &str = "127.0.0.1:5399";

/// A daemon with the node r01n01, whose namespace has its address.
struct Lab {
    node: Namespace,
    cluster: Cluster,
}

fn site() -> Site {
    let mut site = Site::demo();
    site.domain = Some("cluster.example".to_owned());
    site.dns_forward = Some(vec![NOBODY.to_owned(), FORWARDER.to_owned()]);
    site
}

impl Lab {
    fn start() -> Result<Self> {
        let cluster = Cluster::with_images(&Binaries::get()?, &site(), Vec::new())?;
        cluster.start_daemon()?;
        cluster.daemon.cli(&["node", "add", "r01n01", "--hwaddr", MAC])?;
        let node = cluster.namespace.client(MAC)?;
        node.ip(&["address", "add", "10.5.1.1/16", "dev", "eth0"])?;
        Ok(Lab { node, cluster })
    }

    /// A machine outside the site's subnets, which reaches the server through a router: the server itself.
    fn foreign(&self) -> Result<Namespace> {
        self.cluster
            .namespace
            .ip(&["address", "add", "192.0.2.1/24", "dev", BRIDGE])?;
        let foreign = self.cluster.namespace.client("52:54:00:00:09:09")?;
        foreign.ip(&["address", "add", "192.0.2.7/24", "dev", "eth0"])?;
        foreign.ip(&["route", "add", "10.5.0.0/16", "via", "192.0.2.1"])?;
        Ok(foreign)
    }

    fn counted(&self, name: &str) -> Result<u64> {
        let counters = self.cluster.daemon.json(&["counters"])?;
        let count = counters[format!("dns {name}")].as_u64();
        count.with_context(|| format!("no counter dns {name} in {counters}"))
    }
}

/// What dig prints: the header's status and flags, and the records.
fn dig(client: &Namespace, question: &[&str]) -> Result<String> {
    let mut command = client.command("dig");
    // Without the user's settings: no ~/.digrc, no search list.
    command.args([
        "-r",
        &format!("@{SERVER}"),
        "+tries=1",
        "+time=30",
        "+noall",
        "+comments",
        "+answer",
        "+authority",
    ]);
    output(command.args(question))
}

/// Checks that the answer has this status and each of `words`; several blanks count as one.
fn expect(client: &Namespace, question: &[&str], status: &str, words: &[&str]) -> Result {
    let said = dig(client, question)?;
    let plain = said.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        plain.contains(&format!("status: {status},")),
        "{question:?}: not {status}:\n{said}"
    );
    for word in words {
        ensure!(plain.contains(word), "{question:?}: no '{word}' in:\n{said}");
    }
    Ok(())
}

/// [`expect`] for a forwarded question, with repetition: on a loaded machine the forwarder may at first be too slow for the
/// daemon.
fn expect_forwarded(client: &Namespace, question: &[&str], status: &str, words: &[&str]) -> Result {
    let mut last = Ok(());
    poll(PATIENCE, || {
        last = expect(client, question, status, words);
        Ok(last.is_ok().then_some(()))
    })?;
    last
}

/// Starts dnsmasq as the site's own DNS server, with names outside rackstrap's zones.
fn forwarder(namespace: &Namespace) -> Result<Running> {
    // 6 strings of 250 bytes: too long for a UDP answer.
    let long = vec!["x".repeat(250); 6].join(",");
    let running = dnsmasq(
        namespace,
        &[
            "--no-resolv",
            "--no-hosts",
            "--port=5353",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--host-record=www.example,192.0.2.80",
            "--local=/example/",
            &format!("--txt-record=long.example,{long}"),
        ],
    )?;
    let answers = poll(PATIENCE, || {
        let mut command = namespace.command("dig");
        command.args([
            "-r",
            "@127.0.0.1",
            "-p",
            "5353",
            "+tries=1",
            "+time=1",
            "+short",
            "www.example",
        ]);
        Ok(command.output()?.stdout.starts_with(b"192.0.2.80").then_some(()))
    })?;
    ensure!(answers.is_some(), "the forwarder does not answer");
    Ok(running)
}

#[test]
fn nodes_are_found_by_name_and_by_address() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let name = "r01n01.cluster.example";
    expect(
        node,
        &[name],
        "NOERROR",
        &["aa rd ra;", "r01n01.cluster.example. 60 IN A 10.5.1.1"],
    )?;
    expect(
        node,
        &["R01N01.Cluster.Example"],
        "NOERROR",
        &["R01N01.Cluster.Example. 60 IN A 10.5.1.1"],
    )?;
    expect(node, &["+tcp", name], "NOERROR", &["IN A 10.5.1.1"])?;
    expect(node, &["+noedns", name], "NOERROR", &["IN A 10.5.1.1"])?;
    expect(
        node,
        &["-x", "10.5.1.1"],
        "NOERROR",
        &["1.1.5.10.in-addr.arpa. 60 IN PTR r01n01.cluster.example."],
    )?;
    expect(node, &["-x", SERVER], "NOERROR", &["IN PTR rackstrap.cluster.example."])?;
    expect(node, &["rackstrap.cluster.example"], "NOERROR", &["IN A 10.5.0.1"])?;
    let soa = "SOA rackstrap.cluster.example. hostmaster.cluster.example.";
    expect(node, &["AAAA", name], "NOERROR", &["ANSWER: 0, AUTHORITY: 1", soa])?;
    expect(
        node,
        &["r01n02.cluster.example"],
        "NXDOMAIN",
        &["cluster.example. 5 IN SOA"],
    )?;
    expect(node, &["-x", "10.5.1.2"], "NXDOMAIN", &["5.10.in-addr.arpa. 5 IN SOA"])?;
    expect(
        node,
        &["NS", "5.10.in-addr.arpa"],
        "NOERROR",
        &["IN NS rackstrap.cluster.example."],
    )?;
    // dig prints no status when a transfer is refused.
    let transfer = dig(node, &["+tcp", "AXFR", "cluster.example"])?;
    ensure!(transfer.contains("Transfer failed"), "{transfer}");

    // With the resolver library, as ordinary programs do.
    let said = output(node.command("host").args([name, SERVER]))?;
    ensure!(said.contains("has address 10.5.1.1"), "{said}");

    // A change applies to the next question, also for a name that was just denied, and the zones' serial number increases.
    let serial = |zone: &str| -> Result<u32> {
        let said = dig(node, &["SOA", zone])?;
        let record = said.lines().find(|line| line.contains("\tSOA\t")).context("no SOA")?;
        Ok(record.split_whitespace().nth(6).context("no serial")?.parse()?)
    };
    let before = serial("cluster.example")?;
    lab.cluster
        .daemon
        .cli(&["node", "add", "r01n02", "--hwaddr", "52:54:00:00:01:02"])?;
    expect(node, &["r01n02.cluster.example"], "NOERROR", &["IN A 10.5.1.2"])?;
    expect(
        node,
        &["-x", "10.5.1.2"],
        "NOERROR",
        &["IN PTR r01n02.cluster.example."],
    )?;
    let (after, reverse) = (serial("cluster.example")?, serial("5.10.in-addr.arpa")?);
    ensure!(after > before && after == reverse, "{before} {after} {reverse}");
    lab.cluster.daemon.cli(&["node", "delete", "r01n02", "--yes"])?;
    expect(node, &["r01n02.cluster.example"], "NXDOMAIN", &[])?;

    // Unknown machines have addresses and no names. Their DHCP answers name the DNS server, as those of nodes do.
    let stranger = lab.cluster.namespace.client("52:54:00:00:09:08")?;
    for client in [&stranger, node] {
        let got = udhcpc(client, &lab.cluster, &["-O", "dns", "-O", "domain"])?;
        ensure!(
            variable(&got, "dns") == SERVER && variable(&got, "domain") == "cluster.example",
            "{got}"
        );
        if !std::ptr::eq(client, node) {
            expect(client, &["-x", variable(&got, "ip")], "NXDOMAIN", &[])?;
        }
    }
    lab.cluster.daemon.stop()
}

#[test]
fn questions_of_the_sites_own_machines_are_forwarded() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    // Without a forwarder that answers, the client gets SERVFAIL at once.
    expect(node, &["www.example"], "SERVFAIL", &["ANSWER: 0"])?;
    expect(node, &["+tcp", "www.example"], "SERVFAIL", &["ANSWER: 0"])?;
    assert_eq!(lab.counted("forward-failed")?, 2);

    // The first of the two forwarders never answers.
    let running = forwarder(&lab.cluster.namespace)?;
    expect_forwarded(node, &["www.example"], "NOERROR", &["www.example. 0 IN A 192.0.2.80"])?;
    expect_forwarded(node, &["+tcp", "www.example"], "NOERROR", &["IN A 192.0.2.80"])?;
    expect_forwarded(node, &["nothing.example"], "NXDOMAIN", &[])?;
    // Too long for UDP: dig repeats its question over TCP, and the daemon does so too.
    expect_forwarded(
        node,
        &["+ignore", "TXT", "long.example"],
        "NOERROR",
        &[" tc ", "ANSWER: 0"],
    )?;
    let whole = vec![format!("\"{}\"", "x".repeat(250)); 6].join(" ");
    expect_forwarded(node, &["TXT", "long.example"], "NOERROR", &[&whole])?;
    expect(node, &["+norecurse", "www.example"], "REFUSED", &[])?;
    expect(node, &["CH", "TXT", "version.bind"], "REFUSED", &[])?;

    // Clients outside the site get answers from the zones only.
    let foreign = lab.foreign()?;
    expect(&foreign, &["r01n01.cluster.example"], "NOERROR", &["IN A 10.5.1.1"])?;
    for transport in ["+notcp", "+tcp"] {
        expect(&foreign, &[transport, "www.example"], "REFUSED", &["ANSWER: 0"])?;
    }
    assert_eq!(lab.counted("refused-foreign")?, 2);
    assert!(lab.counted("forwarded")? >= 5);

    // A changed list of forwarders applies to the next question; the section itself must stay.
    running.kill();
    let mut without = site();
    without.dns_forward = Some(Vec::new());
    lab.cluster.daemon.reload(&without)?;
    expect(node, &["www.example"], "REFUSED", &[])?;
    without.dns_forward = None;
    let refused = lab.cluster.daemon.reload(&without).unwrap_err().to_string();
    ensure!(refused.contains("[dns]") && refused.contains("restart"), "{refused}");
    lab.cluster.daemon.stop()
}

#[test]
fn hostile_clients_are_counted_and_others_answered() -> Result {
    let lab = Lab::start()?;
    let name = "r01n01.cluster.example";
    // Random bytes; every other packet has a valid header with one question. The sequence is fixed, so that a failure can be
    // repeated.
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let packets: Vec<Vec<u8>> = (0..400)
        .map(|i| {
            let length = usize::from(random()) * if i % 10 == 0 { 8 } else { 1 };
            let mut packet: Vec<u8> = (0..length).map(|_| random()).collect();
            if i % 2 == 0 && packet.len() >= 12 {
                packet[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            }
            packet
        })
        .collect();
    lab.node.inside(|| -> Result {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for packet in &packets {
            socket.send_to(packet, (SERVER, 53))?;
        }
        Ok(())
    })??;
    expect(&lab.node, &[name], "NOERROR", &["IN A 10.5.1.1"])?;
    for counter in ["malformed", "dropped-short", "dropped-response", "not-implemented"] {
        // The kernel delivers the packets of a socket in order: when dig has its answer, all packets before it were handled.
        ensure!(lab.counted(counter)? > 0, "{counter}");
    }

    // A message that is too long, one that never arrives whole and one that is no query close their connection.
    let connect = || -> Result<TcpStream> {
        let stream = lab.node.inside(|| TcpStream::connect((SERVER, 53)))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    for bytes in [&[0xff, 0xff, 1][..], &[0, 4, 1, 2, 3, 4], &[0, 30, 1]] {
        let mut stream = connect()?;
        stream.write_all(bytes)?;
        let left = stream.read_to_end(&mut Vec::new());
        ensure!(
            left.as_ref().is_ok_and(|n| *n == 0)
                || left.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
    let counted = poll(PATIENCE, || Ok((lab.counted("connections-closed")? == 3).then_some(())))?;
    ensure!(counted.is_some(), "{}", lab.counted("connections-closed")?);

    // One client opens as many connections as it may. One more closes the one that is idle for longest. Other clients have
    // their own.
    let mut held = (0..16).map(|_| connect()).collect::<Result<Vec<_>>>()?;
    let accepted = poll(PATIENCE, || Ok((lab.counted("connections")? >= 19).then_some(())))?;
    ensure!(accepted.is_some());
    held.push(connect()?);
    ensure!(matches!(held[0].read(&mut [0]), Ok(0)));
    assert_eq!(lab.counted("connections-refused")?, 0);
    expect(&lab.node, &["+notcp", name], "NOERROR", &[])?;
    expect(&lab.foreign()?, &["+tcp", name], "NOERROR", &["IN A 10.5.1.1"])?;
    drop(held);
    let again = poll(PATIENCE, || Ok(expect(&lab.node, &["+tcp", name], "NOERROR", &[]).ok()))?;
    ensure!(again.is_some(), "the places of closed connections are not free again");
    lab.cluster.daemon.check_alive()?;
    lab.cluster.daemon.stop()
}

#[test]
fn a_port_of_another_dns_server_is_reported_in_one_line() -> Result {
    let binaries = Binaries::get()?;
    let namespace = Namespace::with_bridge()?;
    let dir = tempfile::tempdir()?;
    let daemon = Daemon::new(&binaries, dir.path().join("daemon"), &site(), &[])?;
    let _running = dnsmasq(&namespace, &["--no-resolv"])?;
    let bound = poll(PATIENCE, || {
        let sockets = output(namespace.command("ss").args(["-lnu", "sport = :53"]))?;
        Ok(sockets.contains("0.0.0.0:53").then_some(()))
    })?;
    ensure!(bound.is_some(), "dnsmasq did not start");
    let mut command: Command = namespace.command(&binaries.daemon);
    let done = command.args(["serve", "--config"]).arg(daemon.config()).output()?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    assert_eq!((done.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    for word in ["DNS", "10.5.0.1 udp port 53", "bind-interfaces", "remove [dns]"] {
        ensure!(said.contains(word), "no '{word}' in: {said}");
    }
    Ok(())
}
