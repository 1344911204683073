//! One request and its answer, by TCP from a port below 1024. That takes root's rights on the node, so that the server knows the agent
//! from a user.
//!
//! The small HTTP clients cannot choose the local port (minreq, attohttpc), and ureq, which takes a connector, makes the agent larger
//! by a fifteenth. What is needed of HTTP is little: each connection has one request, and answers have their length.

use crate::retry::random_seed;
use rackstrap_wire::FIRST_USER_PORT;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

/// The ports to begin with; those that rresvport(3) has always taken.
const PORTS: RangeInclusive<u16> = 512..=FIRST_USER_PORT - 1;

/// Most bytes before the body of an answer.
const MAX_HEAD: usize = 16 << 10;
/// Most fields in it.
const MAX_FIELDS: usize = 64;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// 200, 404 and so on.
    pub status: u16,
    /// All of it, if that is no more than was asked for; one byte more otherwise.
    pub body: Vec<u8>,
}

/// Sends `request`, which says `Connection: close`, to `host` (`10.5.0.1:80`), and reads the answer with at most `most` bytes of body.
///
/// # Errors
/// There is no connection, the answer is no HTTP, or ends too early, or all of it took longer than `patience`.
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

/// A socket's timeout is EAGAIN.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// An answer that comes in.
#[derive(Default)]
struct Reading {
    bytes: Vec<u8>,
    head: Option<Head>,
}

/// The head of an answer.
#[derive(Clone, Copy)]
struct Head {
    status: u16,
    /// Of the head, bytes.
    length: usize,
    /// Of the body, bytes; none if it ends with the connection.
    body: Option<usize>,
}

impl Reading {
    /// True if there is nothing more to read, or `most` bytes of body and one more have come.
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

    /// What was read, at its end.
    fn ended(mut self, most: usize) -> io::Result<Answer> {
        let early = |what: String| Err(io::Error::new(ErrorKind::UnexpectedEof, what));
        let Some(head) = self.head else {
            return early("the answer ended before its head did".into());
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

/// The head that `bytes` begin with; none if there is more of it to come.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let wrong = |what: String| Err(io::Error::new(ErrorKind::InvalidData, what));
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(&bytes[..bytes.len().min(MAX_HEAD)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return wrong(format!("the answer's head is longer than {MAX_HEAD} bytes")),
        Err(error) => return wrong(format!("the answer is no HTTP: {error}")),
    };
    let status = response.code.unwrap_or_default();
    let field = |name: &str| {
        response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))
    };
    if field("Transfer-Encoding").is_some() {
        return wrong("the answer has no length but chunks, which this server does not send".into());
    }
    let body = match field("Content-Length").map(|field| str::from_utf8(field.value).unwrap_or_default().trim().parse())
    {
        // They have no body, whatever they say (RFC 9112, 6.3).
        _ if matches!(status, 204 | 304) => Some(0),
        None => None,
        Some(Ok(length)) => Some(length),
        Some(Err(error)) => return wrong(format!("the answer's length is no number: {error}")),
    };
    Ok(Some(Head { status, length, body }))
}

/// A connection to `to` from any free port of [`PORTS`]; from any port at all for a program without the right to those, as tests are.
fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let count = PORTS.end() - PORTS.start() + 1;
    // Of a port that was used a moment ago the server may still remember the connection.
    let first = (random_seed() % u64::from(count)) as u16;
    for port in (0..count).map(|n| PORTS.start() + (first + n) % count) {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        // A port with nothing but an old connection to another address is free.
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
            // The last connection from there to this server is not forgotten yet.
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
    fn roots_connections_come_from_a_port_that_users_cannot_have() {
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
        assert!(ports.len() > 10, "a port rests after its connection: {ports:?}");
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = connect(address, Duration::from_secs(5)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    /// What [`exchange`] makes of `answer`, with at most eight bytes of body.
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
    fn answers_have_their_length_or_end_with_the_connection() {
        for (answer, status, body) in [
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"[..],
                200,
                &b"abc"[..],
            ),
            (b"HTTP/1.0 200 OK\r\n\r\nabc", 200, b"abc"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
            (b"HTTP/1.1 404 \r\ncontent-length: 0\r\n\r\n", 404, b""),
            // Too long: one byte more than was asked for says so.
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
    fn an_answer_that_is_none_says_what_is_wrong() {
        let long: &'static [u8] = Box::leak(
            [&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'x'; MAX_HEAD]]
                .concat()
                .into_boxed_slice(),
        );
        for (answer, wrong) in [
            (&b""[..], "ended before its head did"),
            (b"HTTP/1.1 200 OK\r\nContent-Le", "ended before its head did"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
                "ended after 3 of 5 bytes",
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no number"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunks"),
            (b"\xff\xfe\x00", "no HTTP"),
            (long, "longer than 16384 bytes"),
        ] {
            let error = read(answer).unwrap_err().to_string();
            assert!(error.contains(wrong), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let error = exchange(&host, b"hello", 8, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let nowhere = exchange("127.0.0.1:0", b"hello", 8, Duration::from_secs(5));
        assert!(nowhere.is_err());
    }
}
