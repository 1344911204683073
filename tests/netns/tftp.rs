//! The TFTP engine with real sockets: tftp-hpa, atftp, and hand-written datagrams, all on loopback.

use bytes::Bytes;
use rackstrap_tftp::{
    Counters, ErrorCode, Files, Limits, Mode, Outcome, Refusal, TransferEnd,
    packet::{self, ack},
    serve,
};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Files in memory, with a record of the requests and how they ended.
struct Shelf {
    files: HashMap<&'static str, Bytes>,
    asked: Mutex<Vec<(IpAddr, String)>>,
    ends: mpsc::Sender<TransferEnd>,
}

impl Files for Shelf {
    fn is_node(&self, _peer: IpAddr) -> bool {
        false
    }

    fn open(&self, _peer: SocketAddr, local: IpAddr, name: &str) -> Result<Bytes, Refusal> {
        self.asked.lock().unwrap().push((local, name.to_owned()));
        let file = self.files.get(name).cloned();
        file.ok_or_else(|| Refusal::new(ErrorCode::NotFound, format!("there is no file {name}")))
    }

    fn finished(&self, end: &TransferEnd) {
        // At the end of a test the receiver is gone.
        let _ = self.ends.send(end.clone());
    }
}

/// A server of its own for one test.
struct Server {
    port: u16,
    shelf: Arc<Shelf>,
    ends: mpsc::Receiver<TransferEnd>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<io::Result<()>>>,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Server {
    fn start(address: &str, files: &[(&'static str, Vec<u8>)], limits: Limits) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (sender, ends) = mpsc::channel();
        let shelf = Arc::new(Shelf {
            files: files
                .iter()
                .map(|(name, bytes)| (*name, Bytes::from(bytes.clone())))
                .collect(),
            asked: Mutex::default(),
            ends: sender,
        });
        let counters = Arc::new(Counters::default());
        let cancel = CancellationToken::new();
        let served = serve(socket, shelf.clone(), limits, counters.clone(), cancel.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(served)
        });
        Server {
            port,
            shelf,
            ends,
            counters,
            cancel,
            thread: Some(thread),
        }
    }

    fn with(files: &[(&'static str, Vec<u8>)]) -> Self {
        Server::start("127.0.0.1", files, Limits::default())
    }

    fn end(&self) -> TransferEnd {
        self.ends
            .recv_timeout(PATIENCE)
            .expect("no transfer ended within half a minute")
    }

    fn counted(&self, name: &str) -> u64 {
        self.counters
            .read()
            .find(|(n, _)| *n == name)
            .unwrap_or_else(|| panic!("no counter {name}"))
            .1
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Runs a client, which must be installed; returns its output on stdout and stderr.
fn client(program: &str, package: &str, directory: &Path, arguments: &[&str]) -> String {
    // coreutils' timeout bounds a client that never ends.
    let output = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("`timeout` of coreutils runs");
    assert_ne!(
        output.status.code(),
        Some(127),
        "{program} is missing: apt-get install {package}"
    );
    assert_ne!(
        output.status.code(),
        Some(124),
        "{program} {arguments:?} did not end within a minute"
    );
    [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat()
}

fn hpa(directory: &Path, mode: &str, port: u16, command: &[&str]) -> String {
    let port = port.to_string();
    let arguments = [&["-m", mode, "127.0.0.1", &port, "-c"], command].concat();
    client("tftp", "tftp-hpa", directory, &arguments)
}

fn atftp(directory: &Path, port: u16, arguments: &[&str]) -> String {
    let port = port.to_string();
    let arguments = [arguments, &["127.0.0.1", &port]].concat();
    client("atftp", "atftp", directory, &arguments)
}

/// Bytes in which a misplaced block is detected.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

fn assert_file(path: &Path, expected: &[u8]) {
    let got = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        got == expected,
        "{}: {} bytes, not the {} expected",
        path.display(),
        got.len(),
        expected.len()
    );
}

#[test]
fn tftp_hpa_gets_files() {
    let files = [
        ("loader", pattern(70_001)),
        ("full", pattern(1024)),
        ("empty", Vec::new()),
        ("dir/text", b"a\nb\rc\n".to_vec()),
    ];
    let server = Server::with(&files);
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in &files {
        let said = hpa(directory.path(), "octet", server.port, &["get", name, "got"]);
        assert_eq!(server.end().outcome, Outcome::Complete, "{name}: {said}");
        assert_file(&directory.path().join("got"), bytes);
    }
    // The client converts netascii back.
    hpa(directory.path(), "netascii", server.port, &["get", "/dir/text", "got"]);
    let end = server.end();
    assert_eq!(
        (end.outcome, end.mode, end.size),
        (Outcome::Complete, Mode::Netascii, Some(9))
    );
    assert_file(&directory.path().join("got"), b"a\nb\rc\n");

    let said = hpa(directory.path(), "octet", server.port, &["get", "nothing", "got"]);
    assert!(said.contains("there is no file nothing"), "{said}");
    assert!(matches!(server.end().outcome, Outcome::Refused(_)));
    std::fs::write(directory.path().join("mine"), "x").unwrap();
    let said = hpa(directory.path(), "octet", server.port, &["put", "mine", "loader"]);
    assert!(said.contains("only serves files"), "{said}");
    assert!(matches!(server.end().outcome, Outcome::Refused(_)));
}

#[test]
fn atftp_gets_files_with_options() {
    let bytes = pattern(3_000_003);
    let server = Server::with(&[("big", bytes.clone())]);
    let directory = tempfile::tempdir().unwrap();
    for options in [
        &[][..],
        &["blksize 1468"],
        &["blksize 65464"],
        &["blksize 8192", "windowsize 16"],
        &["windowsize 16"],
        &["blksize 1400", "windowsize 64", "tsize 0", "timeout 2"],
    ] {
        let options: Vec<&str> = options.iter().flat_map(|option| ["--option", option]).collect();
        let arguments = [&options[..], &["-g", "-r", "big", "-l", "got"]].concat();
        let said = atftp(directory.path(), server.port, &arguments);
        let end = server.end();
        assert_eq!(end.outcome, Outcome::Complete, "{options:?}: {said}");
        assert_file(&directory.path().join("got"), &bytes);
        std::fs::remove_file(directory.path().join("got")).unwrap();
    }
    let said = atftp(directory.path(), server.port, &["-g", "-r", "../secret", "-l", "got"]);
    assert!(said.contains("not served"), "{said}");
}

/// 34 MB are 66,407 blocks of 512 bytes: the block number rolls over, with and without windows.
#[test]
fn block_numbers_roll_over_with_real_clients() {
    let bytes = pattern(34_000_000);
    let server = Server::with(&[("big", bytes.clone())]);
    let directory = tempfile::tempdir().unwrap();
    let said = hpa(directory.path(), "octet", server.port, &["get", "big", "got"]);
    assert_eq!(server.end().outcome, Outcome::Complete, "{said}");
    assert_file(&directory.path().join("got"), &bytes);
    let said = atftp(
        directory.path(),
        server.port,
        &["--option", "windowsize 16", "-g", "-r", "big", "-l", "window"],
    );
    assert_eq!(server.end().outcome, Outcome::Complete, "{said}");
    assert_file(&directory.path().join("window"), &bytes);
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65536];
    let (len, from) = socket.recv_from(&mut buffer).expect("an answer within half a minute");
    buffer.truncate(len);
    (buffer, from)
}

/// The next datagram that is not a repetition: on a slow machine the server's timer repeats blocks.
fn receive_new(socket: &UdpSocket, seen: &mut Vec<(Vec<u8>, SocketAddr)>) -> (Vec<u8>, SocketAddr) {
    loop {
        let datagram = receive(socket);
        if !seen.contains(&datagram) {
            seen.push(datagram.clone());
            return datagram;
        }
    }
}

fn local(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

fn request(name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let options: Vec<(&[u8], &[u8])> = options.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    packet::read_request(name.as_bytes(), Mode::Octet, &options)
}

#[test]
fn answers_come_from_the_requested_address() {
    let server = Server::start("0.0.0.0", &[("f", pattern(100))], Limits::default());
    for last in [1, 2, 200] {
        let address = Ipv4Addr::new(127, 0, 0, last);
        let client = socket();
        client.send_to(&request("f", &[]), local(address, server.port)).unwrap();
        let (data, from) = receive(&client);
        assert_eq!(data[..4], [0, 3, 0, 1]);
        assert_eq!(from.ip(), IpAddr::V4(address));
        assert_ne!(from.port(), server.port);
        client.send_to(&ack(1), from).unwrap();
        assert_eq!(server.end().outcome, Outcome::Complete);
        let refused = socket();
        refused
            .send_to(&request("missing", &[]), local(address, server.port))
            .unwrap();
        let (error, from) = receive(&refused);
        assert_eq!((&error[..4], from.ip()), (&[0, 5, 0, 1][..], IpAddr::V4(address)));
        assert!(matches!(server.end().outcome, Outcome::Refused(_)));
        assert_eq!(
            server.shelf.asked.lock().unwrap().last().unwrap().0,
            IpAddr::V4(address)
        );
    }
}

#[test]
fn a_client_error_ends_a_transfer_and_its_port_is_free_for_the_next() {
    let server = Server::with(&[("f", pattern(5000))]);
    let to = local(Ipv4Addr::LOCALHOST, server.port);
    let client = socket();
    let mut seen = Vec::new();
    client
        .send_to(&request("f", &[("tsize", "0"), ("windowsize", "4")]), to)
        .unwrap();
    let (oack, from) = receive_new(&client, &mut seen);
    assert_eq!(oack, b"\0\x06tsize\x005000\0windowsize\x004\0");
    client.send_to(b"\0\x05\0\x08not now\0", from).unwrap();
    let end = server.end();
    assert_eq!(end.outcome, Outcome::ClientError(8, "not now".into()));
    assert!(end.only_asked_size());
    // The first datagram afterwards answers the next request: the ERROR got no answer.
    client.send_to(&request("f", &[]), to).unwrap();
    let (data, from) = receive_new(&client, &mut seen);
    assert_eq!(data[..4], [0, 3, 0, 1]);
    // During that transfer a new request from the same port replaces it.
    client.send_to(&ack(1), from).unwrap();
    assert_eq!(receive_new(&client, &mut seen).0[..4], [0, 3, 0, 2]);
    client.send_to(&request("f", &[]), to).unwrap();
    let (data, again) = receive_new(&client, &mut seen);
    assert_eq!(data[..4], [0, 3, 0, 1]);
    assert_ne!(again.port(), from.port());
    assert_eq!(server.end().outcome, Outcome::Replaced);
    client.send_to(b"\0\x05\0\0\0", again).unwrap();
    assert_eq!(server.end().outcome, Outcome::ClientError(0, String::new()));
}

/// The ERROR goes to the port of the transfer, the request to the server's: whichever is read first, the request is answered.
#[test]
fn a_request_right_behind_an_error_is_answered() {
    let server = Server::with(&[("f", pattern(700))]);
    let to = local(Ipv4Addr::LOCALHOST, server.port);
    let asks = request("f", &[("tsize", "0")]);
    for error_first in [true, false].repeat(25) {
        let client = socket();
        client.send_to(&asks, to).unwrap();
        let (oack, from) = receive(&client);
        assert_eq!(oack, b"\0\x06tsize\x00700\0");
        match error_first {
            true => {
                client.send_to(b"\0\x05\0\x08not now\0", from).unwrap();
                client.send_to(&asks, to).unwrap();
            }
            false => {
                client.send_to(&asks, to).unwrap();
                client.send_to(b"\0\x05\0\x08not now\0", from).unwrap();
            }
        }
        // The answer comes from the same transfer or from another one.
        let mut buffer = [0; 1024];
        let last = loop {
            let (len, from) = client.recv_from(&mut buffer).expect("the second request has no answer");
            client.send_to(&ack(0), from).unwrap();
            if buffer[..len][..4] == [0, 3, 0, 1] {
                break from;
            }
        };
        client.send_to(&ack(1), last).unwrap();
        loop {
            let (data, from) = receive(&client);
            if from == last && data[..4] == [0, 3, 0, 2] {
                break;
            }
        }
        client.send_to(&ack(2), last).unwrap();
        loop {
            match server.end().outcome {
                Outcome::Complete => break,
                Outcome::ClientError(8, _) | Outcome::Replaced => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Acknowledgements from another port belong to no transfer (RFC 1350, section 4). The first port's transfer goes on, and a client that
/// lost its port begins again from the next one.
#[test]
fn a_client_that_changes_its_port_begins_again() {
    let server = Server::with(&[("f", pattern(1500))]);
    let to = local(Ipv4Addr::LOCALHOST, server.port);
    let (first, second) = (socket(), socket());
    let mut seen = Vec::new();
    first.send_to(&request("f", &[]), to).unwrap();
    let (data, from) = receive_new(&first, &mut seen);
    assert_eq!(data[..4], [0, 3, 0, 1]);
    for block in [1, 2, 3] {
        second.send_to(&ack(block), from).unwrap();
    }
    second.send_to(b"\0\x05\0\0not mine\0", from).unwrap();
    first.send_to(&ack(1), from).unwrap();
    assert_eq!(receive_new(&first, &mut seen).0[..4], [0, 3, 0, 2]);
    // On the request port it learns that there is no transfer.
    second.send_to(&ack(2), to).unwrap();
    assert_eq!(receive(&second).0[..4], [0, 5, 0, 5]);
    second.send_to(&request("f", &[]), to).unwrap();
    let (data, again) = receive(&second);
    assert_eq!((&data[..4], again == from), (&[0, 3, 0, 1][..], false));
    // The first port is closed: its transfer ends at once.
    drop(first);
    assert_eq!(server.end().outcome, Outcome::Unreachable);
    second.send_to(b"\0\x05\0\0aborted in the middle\0", again).unwrap();
    assert_eq!(
        server.end().outcome,
        Outcome::ClientError(0, "aborted in the middle".into())
    );
}

#[test]
fn a_repeated_request_starts_no_second_transfer() {
    let server = Server::with(&[("f", pattern(100))]);
    let to = local(Ipv4Addr::LOCALHOST, server.port);
    let client = socket();
    client.send_to(&request("f", &[]), to).unwrap();
    let (first, from) = receive(&client);
    client.send_to(&request("f", &[]), to).unwrap();
    assert_eq!(receive(&client), (first, from));
    client.send_to(&ack(1), from).unwrap();
    let end = server.end();
    assert_eq!(end.outcome, Outcome::Complete);
    assert!(end.retransmissions >= 1);
    assert_eq!(server.shelf.asked.lock().unwrap().len(), 1);
    assert_eq!(server.counted("repeated-request"), 1);
}

#[test]
fn a_closed_port_ends_the_transfer() {
    let server = Server::with(&[("f", pattern(5000))]);
    let client = socket();
    client
        .send_to(&request("f", &[]), local(Ipv4Addr::LOCALHOST, server.port))
        .unwrap();
    receive(&client);
    drop(client);
    assert_eq!(server.end().outcome, Outcome::Unreachable);
}

#[test]
fn malformed_packets_are_counted_and_answered() {
    let server = Server::with(&[]);
    let to = local(Ipv4Addr::LOCALHOST, server.port);
    let client = socket();
    for (packet, code, counter) in [
        (&b"\0\x09"[..], 4, "unknown-opcode"),
        (b"\0\x01name", 4, "unterminated-string"),
        (b"\0\x01name\0mail\0", 4, "unknown-mode"),
        (b"\0\x04\0\x07", 5, "unknown-transfer"),
        (b"\0\x02name\0octet\0", 2, "write-request"),
        (
            &[&b"\0\x01"[..], &[b'a'; 600], b"\0octet\0"].concat(),
            4,
            "request-too-long",
        ),
        (&request("n", &[("o", "v"); 40]), 4, "too-many-options"),
        (&request("a/../b", &[]), 2, "truncated"),
    ] {
        // The first two packets get no answer, so the answer belongs to the third.
        client.send_to(b"\0", to).unwrap();
        client.send_to(b"\0\x05\0\0hello\0", to).unwrap();
        client.send_to(packet, to).unwrap();
        let (answer, _) = receive(&client);
        assert_eq!(answer[..4], [0, 5, 0, code], "{packet:?}: {answer:?}");
        assert_eq!(answer.last(), Some(&0));
        assert!(server.counted(counter) > 0, "{counter}");
    }
    assert_eq!((server.counted("truncated"), server.counted("stray-error")), (8, 8));
}

#[test]
fn limits_are_kept_and_stopping_ends_transfers() {
    let limits = Limits {
        transfers: 2,
        ..Limits::default()
    };
    let server = Server::start("127.0.0.1", &[("f", pattern(5000))], limits);
    let to = local(Ipv4Addr::LOCALHOST, server.port);
    let clients = [socket(), socket(), socket()];
    for client in &clients[..2] {
        client.send_to(&request("f", &[]), to).unwrap();
        let (_, from) = receive(client);
        // A client that acknowledges nothing would free a place.
        client.send_to(&ack(1), from).unwrap();
        while receive(client).0[..4] != packet::data_header(2) {}
    }
    clients[2].send_to(&request("f", &[]), to).unwrap();
    assert!(matches!(server.end().outcome, Outcome::Busy(_)));
    assert_eq!(server.counted("too-many-transfers"), 1);
    server.cancel.cancel();
    for client in &clients[..2] {
        let answer = loop {
            let (answer, _) = receive(client);
            if answer[1] != 3 {
                break answer;
            }
        };
        assert_eq!(answer, b"\0\x05\0\0the server is stopping\0");
        assert_eq!(server.end().outcome, Outcome::Cancelled);
    }
}

/// A rack row is switched on: a thousand transfers at the same time, each with one block in transit.
#[test]
fn a_thousand_clients_at_once() {
    let bytes = pattern(3000);
    let limits = Limits {
        transfers_per_peer: 1000,
        ..Limits::default()
    };
    let server = Server::start("127.0.0.1", &[("f", bytes.clone())], limits);
    let to = local(Ipv4Addr::LOCALHOST, server.port);
    // All requests are answered before any transfer continues.
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    while clients.len() < 1000 {
        // Bursts that fit a receive buffer of Linux's default size, in case the test does not run as root.
        let burst: Vec<UdpSocket> = (0..100).map(|_| socket()).collect();
        for client in &burst {
            client
                .send_to(&request("f", &[("blksize", "1432"), ("tsize", "0")]), to)
                .unwrap();
        }
        for client in &burst {
            let (oack, from) = receive(client);
            assert_eq!(oack, b"\0\x06blksize\x001432\0tsize\x003000\0");
            servers.push(from);
        }
        clients.extend(burst);
    }
    for (client, from) in clients.iter().zip(&servers) {
        let mut got = Vec::new();
        let mut next = 0u16;
        loop {
            client.send_to(&ack(next), from).unwrap();
            // An OACK or a block that the timer repeated is skipped.
            let data = loop {
                let (data, _) = receive(client);
                if data[..4] == packet::data_header(next + 1) {
                    break data;
                }
            };
            next += 1;
            got.extend_from_slice(&data[4..]);
            if data.len() < 1436 {
                break;
            }
        }
        client.send_to(&ack(next), from).unwrap();
        assert!(got == bytes);
    }
    for _ in &clients {
        assert_eq!(server.end().outcome, Outcome::Complete);
    }
    assert_eq!(server.shelf.asked.lock().unwrap().len(), 1000);
}
