//! The time limits of the server: for a head, for a body, for a peer that takes its answer, and for a connection. Each test
//! has a server of its own, with a short limit where the test is about it and long limits elsewhere.

use super::{PATIENCE, patient, status_of, talk, until_closed};
use crate::daemon::parts;
use anyhow::{Context, ensure};
use rackstrap::parts::http::{Limits, Service, serve};
use rackstrap_base::{clock::Timestamp, counters::ReadCounts};
use rackstrap_registries::boots::Boot;
use rackstrap_wire::testing::plan;
use std::{
    fs, io,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};
use testbed::{Namespace, Result, netns::SERVER, timeline::poll};
use tokio_util::sync::CancellationToken;

/// Bytes of the only boot loader: more than the sockets of both sides buffer.
const LOADER: usize = 24 << 20;

/// Short enough for a test. No test asserts how long it takes, only that it ends.
const SHORT: Duration = Duration::from_millis(700);

/// The daemon's limits, with times that no test reaches.
fn limits() -> Limits {
    Limits {
        head_timeout: 10 * PATIENCE,
        body_timeout: 10 * PATIENCE,
        stall: 10 * PATIENCE,
        ..Limits::default()
    }
}

struct Server {
    address: SocketAddr,
    service: Arc<Service>,
    boot: Arc<Boot>,
    cancel: CancellationToken,
    runtime: tokio::runtime::Runtime,
    serving: Option<tokio::task::JoinHandle<io::Result<()>>>,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(limits: Limits) -> Result<Self> {
        Server::on(TcpListener::bind("127.0.0.1:0")?, limits)
    }

    fn on(listener: TcpListener, limits: Limits) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let loader_dir = dir.path().join("loaders");
        fs::create_dir(&loader_dir)?;
        fs::write(loader_dir.join("big.efi"), vec![7; LOADER])?;
        let parts = parts(dir.path(), |dir, text| {
            let loaders = format!("loader-dirs = [{:?}]\n", dir.join("loaders"));
            text.replace("[server]\n", &format!("[server]\n{loaders}"))
        });
        let service = Arc::new(parts.http_service(
            Box::new(|_, _| rackstrap_base::holding::Holding::Own),
            Box::new(|_| None),
            limits,
        ));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let boot = runtime.block_on(
            service
                .pinning
                .boots
                .open(Timestamp::now(), plan("r01n01").ipaddr(Ipv4Addr::LOCALHOST).pinned()),
        )?;
        let cancel = CancellationToken::new();
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = runtime.block_on(async { tokio::net::TcpListener::from_std(listener) })?;
        let serving = Some(runtime.spawn(serve(listener, service.clone(), cancel.clone())));
        Ok(Server {
            address,
            service,
            boot,
            cancel,
            runtime,
            serving,
            _dir: dir,
        })
    }

    fn connect(&self) -> Result<TcpStream> {
        patient(TcpStream::connect(self.address)?)
    }

    fn counted(&self, name: &str) -> Result<u64> {
        let found = self
            .service
            .counters
            .counts()
            .into_iter()
            .find(|(counter, _)| *counter == name);
        Ok(found.with_context(|| format!("no counter {name}"))?.1)
    }

    fn expect_counted(&self, name: &str, times: u64) -> Result {
        poll(PATIENCE, || Ok((self.counted(name)? >= times).then_some(())))?;
        let counted = self.counted(name)?;
        ensure!(counted == times, "{name} is {counted}, not {times}");
        Ok(())
    }

    /// Stops the server, which must end although connections are open.
    fn stop(mut self) -> Result {
        self.cancel.cancel();
        if let Some(serving) = self.serving.take() {
            let ended = async { tokio::time::timeout(PATIENCE, serving).await };
            self.runtime.block_on(ended)???;
        }
        Ok(())
    }
}

/// Sends `byte` again and again until the other end has closed.
fn drip(stream: &TcpStream, byte: u8) -> Result<thread::JoinHandle<()>> {
    let mut stream = stream.try_clone()?;
    Ok(thread::spawn(move || {
        while stream.write_all(&[byte]).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    }))
}

#[test]
fn a_connection_without_a_whole_head_is_closed() -> Result {
    let server = Server::start(Limits {
        head_timeout: SHORT,
        ..limits()
    })?;
    let silent = server.connect()?;
    let mut half = server.connect()?;
    half.write_all(b"GET /loader/big.efi HTTP/1.1\r\nHost: ")?;
    let slow = server.connect()?;
    (&slow).write_all(b"GET / HTTP/1.1\r\nX: ")?;
    let dripping = drip(&slow, b'x')?;
    for stream in [silent, half, slow] {
        // hyper closes without an answer: a client that is still sending its request does not read.
        assert_eq!(until_closed(stream)?, "");
    }
    ensure!(dripping.join().is_ok(), "the dripping thread panicked");
    server.expect_counted("closed-no-request", 3)?;

    // A connection that was kept alive after a request is closed as well, without a refusal.
    let mut idle = server.connect()?;
    idle.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let answer = until_closed(idle)?;
    assert_eq!(status_of(&answer), Some(404), "{answer}");
    assert_eq!(
        (server.counted("closed-no-request")?, server.counted("requests")?),
        (3, 1)
    );
    server.stop()
}

#[test]
fn the_time_limit_of_a_body_is_for_the_whole_body() -> Result {
    let server = Server::start(Limits {
        body_timeout: SHORT,
        ..limits()
    })?;
    let head = format!(
        "POST /v1/report/{} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n",
        server.boot.plan.id
    );
    let silent = server.connect()?;
    let slow = server.connect()?;
    for mut stream in [&silent, &slow] {
        stream.write_all(head.as_bytes())?;
    }
    let dripping = drip(&slow, b' ')?;
    let answer = until_closed(silent)?;
    assert_eq!(status_of(&answer), Some(408), "{answer}");
    assert!(answer.contains("did not arrive within"), "{answer}");
    // The kernel may drop this answer, as unread bytes arrive after it.
    let answer = until_closed(slow)?;
    assert!(matches!(status_of(&answer), None | Some(408)), "{answer}");
    ensure!(dripping.join().is_ok(), "the dripping thread panicked");
    server.expect_counted("refused-body-too-slow", 2)?;
    server.stop()
}

#[test]
fn a_client_that_takes_no_answer_is_disconnected() -> Result {
    let server = Server::start(Limits {
        stall: SHORT,
        ..limits()
    })?;
    // The client never reads: its window is full, and it acknowledges the kernel's probes without opening it.
    let mut deaf = server.connect()?;
    deaf.write_all(b"GET /loader/big.efi HTTP/1.1\r\nHost: x\r\n\r\n")?;
    server.expect_counted("closed-broken-off", 1)?;
    // A client that reads gets the whole answer from the same server.
    let request = b"GET /loader/big.efi HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = talk(server.connect()?, request)?;
    assert_eq!(status_of(&answer), Some(200));
    assert!(answer.len() > LOADER, "{} bytes", answer.len());
    server.stop()
}

/// A node that is switched off in the middle of a file: it sends nothing any more, not even a reset.
#[test]
fn a_client_that_vanished_is_disconnected() -> Result {
    let ours = Namespace::with_bridge()?;
    let node = ours.client("52:54:00:00:01:01")?;
    node.ip(&["address", "add", "10.5.1.1/16", "dev", "eth0"])?;
    let listener = ours.inside(|| TcpListener::bind((SERVER, 0)))??;
    let server = Server::on(
        listener,
        Limits {
            stall: SHORT,
            ..limits()
        },
    )?;
    let mut stream = patient(node.inside(|| TcpStream::connect(server.address))??)?;
    stream.write_all(b"GET /loader/big.efi HTTP/1.1\r\nHost: x\r\n\r\n")?;
    stream.read_exact(&mut [0; 1000])?;
    node.ip(&["link", "set", "eth0", "down"])?;
    server.expect_counted("closed-broken-off", 1)?;
    server.stop()
}

#[test]
fn at_the_connection_limit_an_idle_connection_is_closed_and_a_busy_one_stays() -> Result {
    let server = Server::start(Limits {
        connections: 2,
        ..limits()
    })?;
    let idle = server.connect()?;
    server.expect_counted("connections", 1)?;
    // The client takes nothing of its answer, and so its connection stays busy.
    let busy = server.connect()?;
    (&busy).write_all(b"GET /loader/big.efi HTTP/1.1\r\nHost: x\r\n\r\n")?;
    server.expect_counted("requests", 1)?;
    let request = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = talk(server.connect()?, request)?;
    assert_eq!(status_of(&answer), Some(404), "{answer}");
    assert_eq!(until_closed(idle)?, "");
    server.expect_counted("closed-for-another-connection", 1)?;

    let second = server.connect()?;
    (&second).write_all(b"GET /loader/big.efi HTTP/1.1\r\nHost: x\r\n\r\n")?;
    server.expect_counted("requests", 3)?;
    let refused = until_closed(server.connect()?)?;
    assert_eq!(status_of(&refused), Some(503), "{refused}");
    assert!(refused.contains("Retry-After"), "{refused}");
    server.expect_counted("refused-no-place", 1)?;
    drop((busy, second));
    server.stop()
}
