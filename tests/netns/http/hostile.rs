//! Clients that send invalid data, too much data, or nothing: each is counted by its reason, and other clients are served.

use super::{Lab, Node, PATIENCE, connect, connect_as_agent, status_of, talk, until_closed};
use anyhow::ensure;
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
};
use testbed::{Result, timeline::poll};

/// The connection limit of one address.
const SHARE: usize = 64;

/// The first bytes that curl sends to an https:// URL (TLS 1.2 record, ClientHello), the rest of it zeroed.
fn client_hello() -> Vec<u8> {
    let mut bytes = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    bytes.resize(517, 0);
    bytes
}

#[test]
fn invalid_requests_are_refused_and_counted() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let head = |fields: &str| format!("GET /ipxe HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
    let noise: Vec<u8> = (0..4_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let malformed = [
        client_hello(),
        noise,
        vec![0; 3_000],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"GET /ipxe\r\n\r\n".to_vec(),
        b"GET /ipxe HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        head("No colon\r\n"),
        head("Bad name: x\r\n"),
        head("X: a\0b\r\n"),
        head("Content-Length: many\r\n"),
        head("Content-Length: -1\r\n"),
        head("Content-Length: 1\r\nContent-Length: 2\r\n"),
        head("Content-Length: 99999999999999999999999\r\n"),
    ];
    for bytes in &malformed {
        let answer = talk(connect(&node.namespace)?, bytes)?;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(matches!(status_of(&answer), None | Some(400)), "{shown:?}: {answer}");
    }
    lab.expect_counted("refused-malformed", malformed.len() as u64)?;

    // Too many fields, one that is too long, a request line of 10,000 bytes (accepted; the path does not exist) and of
    // 100,000.
    let too_large = [
        head(&"X: y\r\n".repeat(101)),
        // Just over the 16 KiB limit of a head, and without an end: one more byte makes no difference.
        [&head("")[..20], &vec![b'a'; 16 << 10]].concat(),
        head(&"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(100_000)),
        head(&format!("X: {}\r\n", "y".repeat(1_000_000))),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)).into_bytes(),
    ];
    for bytes in &too_large {
        let answer = talk(connect(&node.namespace)?, bytes)?;
        // The kernel may drop the answer, as there are unread bytes.
        assert!(matches!(status_of(&answer), None | Some(414 | 431)), "{answer}");
    }
    lab.expect_counted("refused-head-too-large", too_large.len() as u64)?;
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "a".repeat(10_000)
    );
    assert_eq!(status_of(&talk(connect(&node.namespace)?, long.as_bytes())?), Some(404));

    // Connections that end in the middle of a head and of a body.
    let path = format!("/v1/report/{}", node.boot);
    let body =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{");
    for bytes in [&b"GET /ipxe HT"[..], body.as_bytes()] {
        let mut stream = connect_as_agent(&node.namespace)?;
        stream.write_all(bytes)?;
        stream.shutdown(Shutdown::Write)?;
        until_closed(stream)?;
    }
    let seen = poll(PATIENCE, || {
        let ended = lab.counted("closed-broken-off")? + lab.counted("refused-bad-body")?;
        Ok((ended >= 2).then_some(()))
    })?;
    ensure!(
        seen.is_some(),
        "half requests are not counted:\n{}",
        lab.cluster.daemon.log_tail(10)
    );
    // The log has the first case of each reason, not one line for each connection.
    let log = lab.cluster.daemon.log();
    let lines = log.lines().filter(|line| line.contains("refused-malformed")).count();
    assert_eq!(lines, 5, "1, 2, 4, 8 and 16 of them:\n{log}");
    assert_eq!(lab.counted("unavailable")?, 0);
    lab.expect_served(node)?;
    lab.cluster.daemon.stop()
}

/// A connection that stays open and counts toward the limit.
fn held(lab: &Lab, bytes: &[u8]) -> Result<TcpStream> {
    let mut stream = connect(&lab.stranger)?;
    stream.write_all(bytes)?;
    Ok(stream)
}

#[test]
fn one_machine_at_its_connection_limit_delays_no_other() -> Result {
    let lab = Lab::start()?;
    let node = Node::boot(&lab.cluster, 2)?;
    let before = lab.cluster.daemon.resident_bytes()?;
    let opened = lab.counted("connections")?;

    // Silent connections, connections in the middle of the largest allowed head, connections in the middle of a body.
    let half = b"GET /ipxe?mac=52-54-00-00-09-09 HTTP/1.1\r\nHost: ";
    let full = [&half[..], &[b'x'; 15_000]].concat();
    let heads: [&[u8]; 4] = [b"", b"G", half, &full];
    let mut held: Vec<TcpStream> = (0..SHARE)
        .map(|number| held(&lab, heads[number % heads.len()]))
        .collect::<Result<_>>()?;
    lab.expect_counted("connections", opened + SHARE as u64)?;
    assert_eq!(lab.counted("closed-for-another-connection")?, 0);

    // Each further connection closes the one that is idle for longest.
    for _ in 0..10 {
        held.push(self::held(&lab, b"G")?);
    }
    lab.expect_counted("closed-for-another-connection", 10)?;
    for ended in held.drain(..10) {
        assert_eq!(until_closed(ended)?, "");
    }
    // Other clients notice nothing.
    for node in [&lab.node, &node] {
        lab.expect_served(node)?;
    }
    // A request of the machine itself is served too.
    let request = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = talk(connect(&lab.stranger)?, request)?;
    assert_eq!(status_of(&answer), Some(404), "{answer}");
    drop(held);
    lab.cluster.daemon.check_alive()?;
    let grown = lab.cluster.daemon.resident_bytes()?.saturating_sub(before);
    assert!(grown < 64 << 20, "64 connections cost {grown} bytes");
    lab.cluster.daemon.stop()
}

/// 10,048 idle connections from 157 addresses. Without a limit for unknown machines they would take all connections and fill
/// the kernel's queue.
#[test]
fn ten_thousand_idle_connections_of_unknown_machines_delay_no_node() -> Result {
    const ADDRESSES: u8 = 157;
    const STRANGERS: usize = 2048;
    crate::netns::raise_descriptor_limit();
    let lab = Lab::start()?;
    let addresses: Vec<Ipv4Addr> = (1..=ADDRESSES).map(|last| Ipv4Addr::new(10, 5, 254, last)).collect();
    for address in &addresses {
        lab.stranger
            .ip(&["address", "add", &format!("{address}/16"), "dev", "eth0"])?;
    }
    let crowd: Vec<TcpStream> = lab.stranger.inside(|| {
        let connect = |address: &Ipv4Addr| -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((*address, 0)).into())?;
            socket.connect(&SocketAddr::from((Ipv4Addr::new(10, 5, 0, 1), 80)).into())?;
            Ok(socket.into())
        };
        let of_each = |address| (0..SHARE).map(move |_| address);
        addresses
            .iter()
            .flat_map(of_each)
            .map(connect)
            .collect::<std::io::Result<Vec<TcpStream>>>()
    })??;
    assert_eq!(crowd.len(), 10_048);
    lab.expect_served(&lab.node)?;
    // Unknown machines have a part of the connections and no more; the oldest were closed for newer ones, not by their time
    // limit.
    let gone = (crowd.len() - STRANGERS) as u64;
    let ended = poll(PATIENCE, || {
        Ok((lab.counted("closed-for-another-connection")? >= gone).then_some(()))
    })?;
    ensure!(
        ended.is_some(),
        "unknown machines keep more connections than their limit"
    );
    lab.expect_served(&lab.node)?;
    assert_eq!(lab.counted("refused-no-place")?, 0);
    // A machine that waits to be racked counts as unknown and is served.
    let request = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = talk(connect(&lab.stranger)?, request)?;
    assert_eq!(status_of(&answer), Some(404), "{answer}");
    let log = lab.cluster.daemon.log();
    let lines = log.lines().filter(|line| line.contains("closed-for-another")).count();
    assert!(lines <= 14, "powers of two below 10,048, not {lines} lines");
    drop(crowd);
    lab.cluster.daemon.stop()
}

/// A hostile node, which may send bodies: each of its connections holds as much of one as it may.
#[test]
fn endless_bodies_are_buffered_up_to_a_limit() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let other = Node::boot(&lab.cluster, 2)?;
    let before = lab.cluster.daemon.resident_bytes()?;
    let (opened, asked) = (lab.counted("connections")?, lab.counted("requests")?);
    let head = |bytes: usize| {
        format!(
            "POST /v1/report/{} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {bytes}\r\n\r\n",
            node.boot
        )
    };
    let most = 512 << 10;
    let unfinished = [head(most).as_bytes(), &vec![b' '; most - 1]].concat();
    let mut held = Vec::new();
    for _ in 0..SHARE - 2 {
        let mut stream = connect_as_agent(&node.namespace)?;
        stream.write_all(&unfinished)?;
        held.push(stream);
    }
    lab.expect_counted("connections", opened + SHARE as u64 - 2)?;
    lab.expect_served(&other)?;
    lab.expect_served(node)?;
    // When no connection of the address is idle, one more is refused at once.
    let mut last_two = Vec::new();
    for _ in 0..2 {
        let mut stream = connect_as_agent(&node.namespace)?;
        stream.write_all(&unfinished)?;
        last_two.push(stream);
    }
    // A connection that was served above has sent a request, and so is not idle.
    poll(PATIENCE, || {
        Ok((lab.counted("requests")? >= asked + SHARE as u64 + 2).then_some(()))
    })?;
    let nothing = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let refused = talk(connect_as_agent(&node.namespace)?, b"")?;
    for words in ["Retry-After: 1", "64 of this address are in use"] {
        assert!(refused.contains(words), "{refused}");
    }
    // Connections from ports of users have a limit of their own, and do not count toward the agent's.
    ensure!(status_of(&talk(connect(&node.namespace)?, nothing)?) == Some(404));
    drop(last_two);
    let free = poll(PATIENCE, || {
        let answer = talk(connect_as_agent(&node.namespace)?, nothing)?;
        Ok((status_of(&answer) == Some(404)).then_some(()))
    })?;
    ensure!(free.is_some(), "places that were given back stay taken");
    // A length over the limit is refused before the body arrives, without an allocation of that size.
    for length in [most + 1, usize::MAX >> 1] {
        let mut stream = connect_as_agent(&node.namespace)?;
        stream.write_all(head(length).as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"HTTP/1.1 413", "{length}");
    }
    lab.expect_counted("refused-body-too-large", 2)?;
    let grown = lab.cluster.daemon.resident_bytes()?.saturating_sub(before);
    // Twice the bytes, as a growing buffer is copied, and as much again for the allocator.
    assert!(grown < 4 * (SHARE * most) as u64, "{SHARE} bodies cost {grown} bytes");
    // All bodies are read to their end and refused as invalid reports. On a slow machine some ran into the time limit.
    for stream in held {
        let answer = talk(stream, b" ")?;
        assert!(matches!(status_of(&answer), None | Some(400 | 408)), "{answer}");
    }
    // So were those that ended in the middle of the body.
    let counted = || -> Result<u64> { Ok(lab.counted("refused-bad-body")? + lab.counted("refused-body-too-slow")?) };
    poll(PATIENCE, || Ok((counted()? >= SHARE as u64).then_some(())))?;
    assert_eq!(counted()?, SHARE as u64);
    lab.expect_served(node)?;
    lab.cluster.daemon.stop()
}
