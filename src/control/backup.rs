//! The route that streams a backup of the store.

use super::refusal::{Refusal, Shared, broken};
use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::StatusCode,
    response::Response,
};
use hyper::body::Frame;
use rackstrap_base::clock::Timestamp;
use std::{
    io::{self, BufWriter, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

/// Bytes that are sent at a time.
const CHUNK: usize = 64 << 10;
/// At most this many chunks wait for the reader.
const WAITING: usize = 16;
/// A reader that reads nothing for this long counts as gone: its snapshot keeps pages of the store from being reused.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest backup: if the disk becomes full meanwhile, the store cannot be opened again before the backup has ended.
const LONGEST: Duration = Duration::from_secs(600);

/// The permit to make a backup. There is only one, for the same reason.
#[derive(Clone)]
pub(super) struct Turn(Arc<Semaphore>);

impl Turn {
    pub(super) fn new() -> Turn {
        Turn(Arc::new(Semaphore::new(1)))
    }
}

type Chunk = io::Result<Bytes>;

pub(super) async fn stream(
    State(context): State<Shared>,
    Extension(Turn(turn)): Extension<Turn>,
) -> Result<Response, Refusal> {
    let turn = turn.try_acquire_owned().map_err(|_| {
        let text = "another backup is running; try again when it has finished";
        Refusal(StatusCode::CONFLICT, text.into())
    })?;
    let (sender, mut chunks) = mpsc::channel(WAITING);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let cluster = context.world.load().site.cluster.name.clone();
        let mut out = BufWriter::with_capacity(
            CHUNK,
            Outlet {
                sender,
                runtime,
                begun: Instant::now(),
            },
        );
        match context.store.back_up(&cluster, Timestamp::now(), &mut out) {
            Ok(header) => tracing::info!("a backup was made: {} rows", header.total()),
            Err(error) => {
                tracing::warn!("a backup ended early: {error}");
                let Outlet { sender, runtime, .. } = out.into_parts().0;
                // The reader has gone, or learns of the error because the answer has no proper end.
                let last = sender.send(Err(io::Error::other(error.to_string())));
                let _ = runtime.block_on(tokio::time::timeout(PATIENCE, last));
            }
        }
    });
    // An error before the first byte can still be a refusal.
    let first = match chunks.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(broken(error)),
        None => return Err(broken("the backup ended before it began")),
    };
    Ok(Response::new(Body::new(Chunks {
        first: Some(first),
        rest: chunks,
    })))
}

/// The blocking end of the channel.
struct Outlet {
    sender: mpsc::Sender<Chunk>,
    runtime: Handle,
    begun: Instant,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun.elapsed() > LONGEST {
            let text = format!("the reader did not take it within {LONGEST:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        let send = self.sender.send(Ok(Bytes::copy_from_slice(bytes)));
        // The timer is made inside the runtime, which it needs.
        let sent = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, send).await });
        match sent {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the reader went away")),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the reader took nothing for {PATIENCE:?}"),
            )),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The asynchronous end of the channel, as a body.
struct Chunks {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Chunk>,
}

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.rest
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
