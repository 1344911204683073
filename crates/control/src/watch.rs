//! The client's end of a watched answer: a thread that reads it, and connects again after a restart of the daemon.

use crate::{
    Client, ClientError,
    api::{WATCH_TYPE, WatchLine},
};
use http_body_util::BodyExt;
use hyper::{
    Method,
    body::{Bytes, Incoming},
    header,
};
use serde::de::DeserializeOwned;
use std::{io, time::Duration};
use tokio::sync::mpsc;

/// Time between two signs of life of a watched answer. The daemon also makes the answer again then, because parts of it change with
/// time alone.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// After this time without a line, the daemon hangs or was killed.
const SILENCE: Duration = Duration::from_secs(4 * HEARTBEAT.as_secs());

/// Time between two attempts to reach a daemon that is down.
const AGAIN: Duration = Duration::from_millis(500);

/// Largest line in bytes: three times the status of 100,000 nodes.
const LINE_LIMIT: usize = 256 << 20;

/// A watched answer. Its thread ends when this is dropped.
pub struct Watch<T> {
    answers: mpsc::Receiver<Result<T, ClientError>>,
}

impl<T: DeserializeOwned + Send + 'static> Watch<T> {
    pub(crate) fn begin(client: Client, path: String) -> io::Result<Watch<T>> {
        let (sender, answers) = mpsc::channel(1);
        let follow = move || client.runtime.block_on(follow(&client, &path, &sender));
        std::thread::Builder::new().name("watch".into()).spawn(follow)?;
        Ok(Watch { answers })
    }
}

impl<T> Watch<T> {
    /// The next answer, or an error. After a [temporary](ClientError::passes) error further answers follow; after any other
    /// error none do.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        self.answers.recv().await
    }

    /// The same for plain threads.
    pub fn blocking_next(&mut self) -> Option<Result<T, ClientError>> {
        self.answers.blocking_recv()
    }
}

/// Passes answers on until the receiver is gone or an error is permanent.
async fn follow<T: DeserializeOwned>(client: &Client, path: &str, sender: &mpsc::Sender<Result<T, ClientError>>) {
    loop {
        let ended = tokio::select! {
            ended = read(client, path, sender) => ended,
            () = sender.closed() => return,
        };
        let Err(error) = ended else { return };
        let passes = error.passes();
        if sender.send(Err(error)).await.is_err() || !passes {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reads one connection to its end, which is an error; none if the receiver is gone.
async fn read<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    sender: &mpsc::Sender<Result<T, ClientError>>,
) -> Result<(), ClientError> {
    let answer = client.exchange(Method::GET, path, Bytes::new()).await?;
    let status = answer.status();
    if !status.is_success() {
        let (_, body) = client.collect(answer).await?;
        return Err(client.refused(status, &body));
    }
    if answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind != WATCH_TYPE)
    {
        return Err(client.misunderstood("it does not push what is watched"));
    }
    let mut lines = Lines {
        body: answer.into_body(),
        read: Vec::new(),
    };
    loop {
        let line = tokio::time::timeout(SILENCE, lines.next()).await;
        let silent = |_| client.broken(format!("the daemon has said nothing for {} s", SILENCE.as_secs()));
        let line = line.map_err(silent)?.map_err(|error| client.broken(error))?;
        match serde_json::from_slice(&line) {
            Ok(WatchLine::Answer(answer)) => {
                if sender.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(WatchLine::Alive) => {}
            Ok(WatchLine::Failed(failure)) => return Err(ClientError::Refused(failure.error)),
            Ok(WatchLine::Ending) => return Err(client.broken("the daemon stops")),
            Err(error) => return Err(client.misunderstood(error)),
        }
    }
}

/// The lines of a body.
struct Lines {
    body: Incoming,
    /// The part of the next line that was read.
    read: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Vec<u8>, String> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.read[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            searched = self.read.len();
            if searched > LINE_LIMIT {
                return Err(format!("a line of more than {LINE_LIMIT} bytes"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the daemon ended the answer".to_owned()),
            }
        }
    }
}
