//! The client of the daemon, for plain threads.

use crate::{api::Failure, watch::Watch};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;

/// The daemon's socket, unless the site file names another one.
pub const DEFAULT_SOCKET: &str = "/run/rackstrap/rackstrap.sock";

/// How long an answer may take. Reading 4,000 nodes takes milliseconds, and reloading a large site less than a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer in bytes: more than 4,000 timelines of 1,000 events each.
const ANSWER_LIMIT: usize = 256 << 20;

/// A client of the daemon.
pub struct Client {
    socket: PathBuf,
    pub(crate) runtime: tokio::runtime::Runtime,
}

/// Why there is no answer, or another answer than expected.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The daemon refused the request; the text says why.
    #[error("{0}")]
    Refused(String),
    /// No daemon listens on the socket.
    #[error(
        "no rackstrap daemon answers on {}; start it with 'systemctl start rackstrap' or 'rackstrap serve --config \
         FILE', or name its site file with --config", .0.display()
    )]
    NoDaemon(PathBuf),
    /// The user is not root.
    #[error("control socket {}: only root may use it; use sudo", .0.display())]
    NotAllowed(PathBuf),
    /// This command does not understand the daemon's answer.
    #[error(
        "control socket {}: an answer that this command does not understand ({error})\nhelp: daemon and command are of different \
         releases; `systemctl restart rackstrap` starts the installed one", socket.display()
    )]
    OtherRelease {
        /// The path of the socket.
        socket: PathBuf,
        /// The part that was not understood.
        error: String,
    },
    /// The connection failed.
    #[error("control socket {}: {error}", socket.display())]
    Broken {
        /// The path of the socket.
        socket: PathBuf,
        /// The error.
        error: String,
    },
}

impl ClientError {
    /// Whether the error is temporary: a daemon that is being restarted comes back. Other errors are permanent.
    pub fn passes(&self) -> bool {
        matches!(self, ClientError::NoDaemon(_) | ClientError::Broken { .. })
    }
}

impl Client {
    /// A client of the daemon on `socket`. It connects with the first request.
    pub fn new(socket: &Path) -> io::Result<Client> {
        Ok(Client {
            socket: socket.to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        })
    }

    /// Asks the daemon on `socket`, for commands that also work without one. None if the socket does not exist: no daemon runs.
    pub fn ask_if_there<T>(
        socket: &Path,
        ask: impl FnOnce(&Client) -> Result<T, ClientError>,
    ) -> Option<Result<T, ClientError>> {
        let broken = |error: io::Error| ClientError::Broken {
            socket: socket.to_owned(),
            error: error.to_string(),
        };
        let client = || Client::new(socket).map_err(broken);
        socket.exists().then(|| ask(&client()?))
    }

    /// `GET path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// `POST path` with `body` as JSON.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.ask(Method::POST, path, body.into())
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let (status, body) = self.within(async {
            let answer = self.exchange(method, path, body).await?;
            self.collect(answer).await
        })?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.misunderstood(error));
        }
        Err(self.refused(status, &body))
    }

    /// `GET path`, whose answer is sent again whenever it changes, until the result is dropped. It survives a restart of the
    /// daemon.
    ///
    /// # Errors
    /// The process cannot start a thread. All other errors are read from the watch.
    pub fn watch<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> io::Result<Watch<T>> {
        Watch::begin(Client::new(&self.socket)?, format!("{path}?watch=true"))
    }

    /// `GET path`, whose answer is read while it arrives.
    pub fn stream(&self, path: &str) -> Result<Answer<'_>, ClientError> {
        let body = self.within(async {
            let answer = self.exchange(Method::GET, path, Bytes::new()).await?;
            if answer.status().is_success() {
                return Ok(answer.into_body());
            }
            let (status, body) = self.collect(answer).await?;
            Err(self.refused(status, &body))
        })?;
        Ok(Answer {
            client: self,
            body,
            chunk: Bytes::new(),
        })
    }

    /// Runs `work` with a time limit.
    fn within<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let work = async { tokio::time::timeout(ANSWER_TIMEOUT, work).await };
        let done = self.runtime.block_on(work);
        done.unwrap_or_else(|_| Err(self.broken(format!("no answer within {ANSWER_TIMEOUT:?}"))))
    }

    /// The error for a well-formed answer that this command does not understand, which is permanent.
    pub(crate) fn misunderstood(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::OtherRelease {
            socket: self.socket.clone(),
            error: error.to_string(),
        }
    }

    pub(crate) fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<Failure>(body) {
            Ok(failure) => ClientError::Refused(failure.error),
            Err(_) => self.broken(format!("{status}: {}", String::from_utf8_lossy(body))),
        }
    }

    pub(crate) async fn collect(&self, answer: Response<Incoming>) -> Result<(StatusCode, Bytes), ClientError> {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| self.broken(error))?;
        Ok((status, body.to_bytes()))
    }

    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = tokio::net::UnixStream::connect(&self.socket)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NoDaemon(self.socket.clone())
                }
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed(self.socket.clone()),
                _ => self.broken(error),
            })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(error))?;
        // This task ends with the connection, which ends with `sender`.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "rackstrap")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    pub(crate) fn broken(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            error: error.to_string(),
        }
    }
}

/// An answer that is read while it arrives. A pause of a minute is an error.
pub struct Answer<'a> {
    client: &'a Client,
    body: Incoming,
    chunk: Bytes,
}

impl io::Read for Answer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let next = self.client.within(async {
                let frame = self.body.frame().await.transpose();
                frame.map_err(|error| {
                    self.client
                        .broken(format!("the answer ended early ({error}); see the daemon's log"))
                })
            });
            match next.map_err(io::Error::other)? {
                Some(frame) => self.chunk = frame.into_data().unwrap_or_default(),
                None => return Ok(0),
            }
        }
        let length = self.chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

/// `text` as one segment of a path: a user may have typed any characters.
pub fn segment(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:".contains(b);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match plain(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
