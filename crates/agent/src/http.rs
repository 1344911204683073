//! Requests to the server: small JSON documents, with timeouts and bounded answers.

use crate::{
    fail::{Doing, Failure, Res},
    transport::exchange,
};
use rackstrap_wire::{USER_AGENT, WIRE_VERSION, paths};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// Most bytes of an answer; an overlay with all its files is far smaller.
const MAX_ANSWER: usize = 16 << 20;

/// The server and the boot that authenticates to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `http://10.5.0.1:80`, without a slash at the end.
    pub base: String,
    /// Id of the boot.
    pub plan: String,
    /// Token of the boot.
    pub token: String,
}

impl Server {
    /// Fetches a document.
    pub fn get<T: DeserializeOwned>(&self, path: &str, timeout: Duration) -> Res<T> {
        let body = self.send("GET", path, &[], timeout)?;
        parse(&body, path)
    }

    /// Fetches bytes.
    pub fn bytes(&self, path: &str, timeout: Duration) -> Res<Vec<u8>> {
        self.send("GET", path, &[], timeout)
    }

    /// Sends a document and reads the answer.
    pub fn post<T: DeserializeOwned>(&self, path: &str, document: &impl Serialize, timeout: Duration) -> Res<T> {
        let body = self.send("POST", path, &to_json(document)?, timeout)?;
        parse(&body, path)
    }

    /// Sends a document; of the answer only the status counts.
    pub fn report(&self, path: &str, document: &impl Serialize, timeout: Duration) -> Res<()> {
        self.send("POST", path, &to_json(document)?, timeout).map(|_| ())
    }

    /// Sends a document and reads the answer; none if it is empty.
    pub fn post_optional<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
        timeout: Duration,
    ) -> Res<Option<T>> {
        let body = self.send("POST", path, &to_json(document)?, timeout)?;
        match body.is_empty() {
            true => Ok(None),
            false => parse(&body, path).map(Some),
        }
    }

    fn send(&self, method: &str, path: &str, body: &[u8], timeout: Duration) -> Res<Vec<u8>> {
        let doing = || format!("asking {}{path}", self.base);
        let host = self.base.strip_prefix("http://").unwrap_or(&self.base);
        let (plan, token) = (&self.plan, &self.token);
        if [path, plan, token]
            .iter()
            .any(|text| !text.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Failure::permanent(format!(
                "{}: the boot's id or token has characters that cannot be sent",
                doing()
            )));
        }
        let mut request = format!(
            "{method} {path}{plan} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             {}: {WIRE_VERSION}\r\nUser-Agent: {USER_AGENT}\r\n",
            paths::WIRE_HEADER
        )
        .into_bytes();
        if !body.is_empty() {
            let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            request.extend_from_slice(fields.as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        let answer = exchange(host, &request, MAX_ANSWER, timeout.max(Duration::from_secs(1))).doing(doing)?;
        let (status, answer) = (answer.status, answer.body);
        match status {
            200..=299 if answer.len() > MAX_ANSWER => {
                Err(Failure::new(format!("{}: the answer is longer than 16 MiB", doing())))
            }
            200..=299 => Ok(answer),
            _ => {
                let said = String::from_utf8_lossy(&answer[..answer.len().min(200)])
                    .trim()
                    .to_owned();
                let text = format!("{}: the server answered {status}: {said}", doing());
                // The boot is unknown, over, or of another node: only a new boot, from the loader on, can help.
                Err(if matches!(status, 401 | 403 | 404 | 409 | 410) {
                    Failure::permanent(text)
                } else {
                    Failure::new(text)
                })
            }
        }
    }
}

fn to_json(document: &impl Serialize) -> Res<Vec<u8>> {
    serde_json::to_vec(document).doing(|| "writing JSON".into())
}

fn parse<T: DeserializeOwned>(body: &[u8], path: &str) -> Res<T> {
    serde_json::from_slice(body).doing(|| format!("reading the answer from {path}"))
}

/// Checks the boot script's server address: plain HTTP, a host, no path.
pub fn server_base(text: &str) -> Res<String> {
    let base = text.trim_end_matches('/');
    let host = base.strip_prefix("http://").unwrap_or_default();
    let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b));
    if !plain {
        return Err(Failure::permanent(format!(
            "{}={text} on the kernel command line is not a server's address like http://10.5.0.1:80",
            rackstrap_wire::cmdline::SERVER
        )));
    }
    Ok(base.to_owned())
}

/// Sends a batch of the timeline's events.
pub fn report_events(server: &Server, events: &[rackstrap_wire::AgentEvent], timeout: Duration) -> Res<()> {
    let report = rackstrap_wire::Report {
        token: server.token.clone(),
        events: events.to_vec(),
    };
    server.report(paths::REPORT, &report, timeout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        thread,
    };

    /// Answers one request with `answer` and returns the lines of the request.
    fn one_answer(answer: &'static [u8]) -> (Server, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = Vec::new();
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            lines.push(String::from_utf8(body).unwrap());
            let _ = stream.write_all(answer);
            lines
        });
        let server = Server {
            base,
            plan: "b1".into(),
            token: "cafe".into(),
        };
        (server, asked)
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn asks_with_the_token_and_reads_json() {
        let (server, asked) = one_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1,2,3]");
        assert_eq!(server.get::<Vec<u32>>(paths::PLAN, SOON), Ok(vec![1, 2, 3]));
        let asked = asked.join().unwrap();
        assert_eq!(asked[0], "GET /v1/plan/b1 HTTP/1.1");
        assert!(asked.contains(&"Authorization: Bearer cafe".to_owned()), "{asked:?}");
        assert!(asked.contains(&format!("Rackstrap-Wire: {WIRE_VERSION}")), "{asked:?}");
    }

    #[test]
    fn posts_json() {
        let (server, asked) = one_answer(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(server.report(paths::REPORT, &[7], SOON), Ok(()));
        let asked = asked.join().unwrap();
        assert_eq!(asked[0], "POST /v1/report/b1 HTTP/1.1");
        assert_eq!(asked.last().unwrap(), "[7]");
    }

    #[test]
    fn an_answer_may_be_empty() {
        let (server, _) = one_answer(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(server.post_optional::<u32>(paths::HEARTBEAT, &1, SOON), Ok(None));
        let (server, _) = one_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7");
        assert_eq!(server.post_optional::<u32>(paths::HEARTBEAT, &1, SOON), Ok(Some(7)));
    }

    #[test]
    fn a_forgotten_boot_is_not_retried_and_a_busy_server_is() {
        let (server, _) = one_answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\nno such boot");
        let failure = server.get::<u32>(paths::PLAN, SOON).unwrap_err();
        assert!(
            failure.permanent && failure.to_string().contains("404: no such boot"),
            "{failure}"
        );
        let (server, _) = one_answer(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        assert!(!server.get::<u32>(paths::PLAN, SOON).unwrap_err().permanent);
    }

    #[test]
    fn an_answer_that_is_not_http_or_json_is_an_error() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}x"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"\xff\xfe\x00",
            b"",
        ] {
            let (server, _) = one_answer(answer);
            assert!(server.get::<u32>(paths::PLAN, SOON).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn server_addresses_are_checked() {
        assert_eq!(server_base("http://10.5.0.1:80/").unwrap(), "http://10.5.0.1:80");
        for text in ["", "10.5.0.1", "https://x", "http://", "http://a/b", "http://a@b"] {
            assert!(server_base(text).is_err(), "{text}");
        }
    }
}
