//! One request and its answer, by TCP from a port below 1024. Only root can use such a port, so the server can tell the agent from
//! a user of the node.
//!
//! The small HTTP clients cannot choose the local port (minreq, attohttpc), and ureq, which accepts a connector, makes the agent a
//! fifteenth larger. The agent needs little of HTTP: each connection has one request, and answers have a length.

use crate::retry::random_seed;
use rackstrap_wire::FIRST_USER_PORT;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

/// The local ports; rresvport(3) uses the same ones.
const PORTS: RangeInclusive<u16> = 512..=FIRST_USER_PORT - 1;

/// Most bytes of an answer before its body.
const MAX_HEAD: usize = 16 << 10;
/// Most fields of an answer.
const MAX_FIELDS: usize = 64;

/// The answer of a server.
#[derive(Debug)]
pub struct Answer {
    /// 200, 404 and so on.
    pub status: u16,
    /// The body, if it has at most the requested bytes; otherwise one byte more than that.
    pub body: Vec<u8>,
}

/// Sends `request`, which contains `Connection: close`, to `host` (`10.5.0.1:80`), and reads an answer with at most `most` bytes of body.
///
/// # Errors
/// The connection failed, the answer is not HTTP or ends too early, or all of it took longer than `patience`.
pub fn exchange(host: &str, request: &[u8], most: usize, patience: Duration) -> io::Result<Answer> {
    let until = Instant::now() + patience;
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let addresses = match host.parse::<SocketAddr>() {
        Ok(address) => vec![address],
        Err(_) if host.rsplit(']').next().is_some_and(|end| end.contains(':')) => host.to_socket_addrs()?.collect(),
        Err(_) => (host.trim_matches(['[', ']']), 80)
            .to_socket_addrs()?
            .collect::<Vec<_>>(),
    };
    let mut tried = Err(io::Error::new(ErrorKind::NotFound, format!("{host} has no address")));
    for address in addresses {
        tried = connect(address, left()?);
        if tried.is_ok() {
            break;
        }
    }
    let mut stream = tried?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request).map_err(named)?;
    let mut answer = Reading::default();
    let mut buffer = vec![0; 64 << 10];
    while !answer.is_whole(most)? {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return answer.ended(most),
            Ok(read) => answer.bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(named(error)),
        }
    }
    answer.ended(most)
}

/// Names a socket's timeout, which the kernel reports as EAGAIN.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// An answer that is being read.
#[derive(Default)]
struct Reading {
    bytes: Vec<u8>,
    head: Option<Head>,
}

/// The head of an answer.
#[derive(Clone, Copy)]
struct Head {
    status: u16,
    /// Bytes of the head.
    length: usize,
    /// Bytes of the body; none if it ends with the connection.
    body: Option<usize>,
}

impl Reading {
    /// True if there is nothing more to read, or if `most` bytes of body and one more have arrived.
    fn is_whole(&mut self, most: usize) -> io::Result<bool> {
        if self.head.is_none() {
            self.head = head(&self.bytes)?;
        }
        let Some(head) = self.head else { return Ok(false) };
        let wanted = head.body.map_or(most + 1, |length| length.min(most + 1));
        let whole = self.bytes.len() >= head.length + wanted;
        if whole {
            self.bytes.truncate(head.length + wanted);
        }
        Ok(whole)
    }

    /// The answer, after its end was read.
    fn ended(mut self, most: usize) -> io::Result<Answer> {
        let early = |what: String| Err(io::Error::new(ErrorKind::UnexpectedEof, what));
        let Some(head) = self.head else {
            return early("the answer ended inside its head".into());
        };
        let body = self.bytes.split_off(head.length);
        match head.body {
            Some(length) if body.len() < length.min(most) => {
                early(format!("the answer ended after {} of {length} bytes", body.len()))
            }
            _ => Ok(Answer {
                status: head.status,
                body,
            }),
        }
    }
}

/// The head at the start of `bytes`; none if more of it has to arrive.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let wrong = |what: String| Err(io::Error::new(ErrorKind::InvalidData, what));
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(&bytes[..bytes.len().min(MAX_HEAD)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return wrong(format!("the answer's head is longer than {MAX_HEAD} bytes")),
        Err(error) => return wrong(format!("the answer is not HTTP: {error}")),
    };
    let status = response.code.unwrap_or_default();
    let field = |name: &str| {
        response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))
    };
    if field("Transfer-Encoding").is_some() {
        return wrong("the answer is chunked, which this agent does not read".into());
    }
    let body = match field("Content-Length").map(|field| str::from_utf8(field.value).unwrap_or_default().trim().parse())
    {
        // These have no body, whatever their fields say (RFC 9112, 6.3).
        _ if matches!(status, 204 | 304) => Some(0),
        None => None,
        Some(Ok(length)) => Some(length),
        Some(Err(error)) => return wrong(format!("the answer's length is not a number: {error}")),
    };
    Ok(Some(Head { status, length, body }))
}

/// A connection to `to` from any free port of [`PORTS`], or from any other port for a program that may not use those, such as a test.
fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let count = PORTS.end() - PORTS.start() + 1;
    // The server may still remember the last connection from a port, so each call starts at another port.
    let first = (random_seed() % u64::from(count)) as u16;
    for port in (0..count).map(|n| PORTS.start() + (first + n) % count) {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        // A port is free if it only has old connections to other addresses.
        socket.set_reuse_address(true)?;
        let local: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        };
        match socket.bind(&local.into()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
        match socket.connect_timeout(&to.into(), patience) {
            Ok(()) => return Ok(socket.into()),
            // The last connection from this port to this server is not forgotten yet.
            Err(error) if matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        ErrorKind::AddrInUse,
        format!("no port from {} to {} is free", PORTS.start(), PORTS.end()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn connections_of_root_come_from_a_port_that_users_cannot_use() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ports = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let _stream = connect(listener.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
            let (_, from) = listener.accept().unwrap();
            ports.insert(from.port());
        }
        if rustix::process::geteuid().is_root() {
            assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        }
        assert!(ports.len() > 10, "a port is reused at once: {ports:?}");
    }

    #[test]
    fn a_server_that_does_not_listen_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = connect(address, Duration::from_secs(5)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    /// The result of [`exchange`] for `answer`, with at most eight bytes of body.
    fn read(answer: &'static [u8]) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 16];
            let read = stream.read(&mut asked).unwrap();
            assert_eq!(&asked[..read], b"hello");
            stream.write_all(answer).unwrap();
        });
        let answer = exchange(&host, b"hello", 8, Duration::from_secs(5));
        server.join().unwrap();
        answer
    }

    #[test]
    fn answers_end_by_their_length_or_with_the_connection() {
        for (answer, status, body) in [
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"[..],
                200,
                &b"abc"[..],
            ),
            (b"HTTP/1.0 200 OK\r\n\r\nabc", 200, b"abc"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
            (b"HTTP/1.1 404 \r\ncontent-length: 0\r\n\r\n", 404, b""),
            // The body is too long: the result has one byte more than was asked for.
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n0123456789",
                200,
                b"012345678",
            ),
            (b"HTTP/1.1 200 OK\r\n\r\n0123456789", 200, b"012345678"),
        ] {
            let read = read(answer).unwrap();
            assert_eq!(
                (read.status, &read.body[..]),
                (status, body),
                "{}",
                String::from_utf8_lossy(answer)
            );
        }
    }

    #[test]
    fn a_malformed_answer_is_refused_with_its_reason() {
        let long: &'static [u8] = Box::leak(
            [&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'x'; MAX_HEAD]]
                .concat()
                .into_boxed_slice(),
        );
        for (answer, wrong) in [
            (&b""[..], "ended inside its head"),
            (b"HTTP/1.1 200 OK\r\nContent-Le", "ended inside its head"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
                "ended after 3 of 5 bytes",
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not a number"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "is chunked"),
            (b"\xff\xfe\x00", "not HTTP"),
            (long, "longer than 16384 bytes"),
        ] {
            let error = read(answer).unwrap_err().to_string();
            assert!(error.contains(wrong), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_server_that_sends_nothing_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let error = exchange(&host, b"hello", 8, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let nowhere = exchange("127.0.0.1:0", b"hello", 8, Duration::from_secs(5));
        assert!(nowhere.is_err());
    }
}
