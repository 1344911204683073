//! Answers that are sent again whenever they change, for `--watch`.
//!
//! `GET path?watch=true` answers with one [`WatchLine`] per line (newline-delimited JSON): the answer, then the answer again
//! each time one of its sources has changed, and signs of life in between. Changes within a short time are one line. A
//! watcher that reads slowly misses intermediate states and costs no memory: the next answer is made after the last one was
//! read.

use super::{
    Context,
    api::{Failure, WATCH_TYPE, WatchLine, Watchable},
    refusal::{Refusal, Shared},
};
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use hyper::body::Frame;
use rackstrap_base::clock::Timestamp;
use rackstrap_control::HEARTBEAT;
use rackstrap_store::Table;
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hasher},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// At most this many watchers at a time. Each costs a task, one unread line, and one answer for each change.
const MOST_WATCHERS: usize = 64;

/// Shortest time between two answers to one watcher. Within this time, written changes also become visible to decisions.
const SHORTEST_GAP: Duration = Duration::from_millis(500);

/// A watcher gets at most this part of one processor's time: the gap is this many times as long as making the last answer
/// took.
const GAP_BY_COST: u32 = 20;

/// A watcher that reads nothing for this long counts as gone (Ctrl-Z).
const PATIENCE: Duration = Duration::from_secs(60);

/// The sources of an answer.
#[derive(Clone, Copy)]
pub(super) struct Sources {
    /// Tables of the store.
    pub(super) tables: &'static [Table],
    /// Waiting machines, of which only some are in the store.
    pub(super) machines: bool,
    /// Nodes that are lost or stalled.
    pub(super) overdue: bool,
    /// Results of power commands.
    pub(super) power: bool,
}

impl Sources {
    /// Counters that change with each change of a source.
    fn subscribe(self, context: &Context, watchers: &Watchers) -> Vec<watch::Receiver<u64>> {
        let mut all: Vec<_> = self.tables.iter().map(|table| context.store.watch(*table)).collect();
        all.push(watchers.asked.subscribe());
        all.extend(self.machines.then(|| context.discovery.watch()));
        all.extend(self.overdue.then(|| context.recorder.watch_overdue()));
        all.extend(self.power.then(|| context.power.watch()));
        all
    }
}

/// All watchers of a daemon, and what wakes or ends them.
pub(super) struct Watchers {
    seats: Arc<Semaphore>,
    /// Changes after each request that changed something, because the site file and the images are in no table.
    asked: watch::Sender<u64>,
    ending: CancellationToken,
    /// Number of answered requests, including watches and refusals.
    served: AtomicU64,
}

impl Watchers {
    /// No watchers yet; all of them end with `ending`.
    pub(super) fn new(ending: CancellationToken) -> Arc<Watchers> {
        Arc::new(Watchers {
            seats: Arc::new(Semaphore::new(MOST_WATCHERS)),
            asked: watch::Sender::new(0),
            ending,
            served: AtomicU64::new(0),
        })
    }

    /// Counts a request; if it `changed` something, all watchers wake.
    pub(super) fn served(&self, changed: bool) {
        self.served.fetch_add(1, Ordering::Relaxed);
        if changed {
            self.asked.send_modify(|number| *number += 1);
        }
    }

    /// Names and values for `rackstrap counters`.
    pub(super) fn counters(&self) -> [(String, u64); 2] {
        let watchers = MOST_WATCHERS.saturating_sub(self.seats.available_permits());
        [
            ("control requests".to_owned(), self.served.load(Ordering::Relaxed)),
            ("control watchers".to_owned(), watchers as u64),
        ]
    }

    fn seat(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.seats.clone().try_acquire_owned().map_err(|_| {
            Refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "{MOST_WATCHERS} commands already watch this daemon, which is the limit; end one of them, or run the command without --watch\n\
                     help: `pgrep -af 'rackstrap .*watch'` lists those on this server"
                ),
            )
        })
    }
}

/// The query of a `GET`.
#[derive(Deserialize)]
struct AskedWatch {
    #[serde(default)]
    watch: bool,
}

/// A `GET` whose answer can be watched. `answer` makes it from the variable part of the path, which is empty if the path has
/// none.
pub(super) fn watchable<A, F, Answer>(answer: F, sources: Sources) -> MethodRouter<Shared>
where
    A: Watchable + Serialize + Send + 'static,
    F: Fn(Shared, String) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    get(
        move |about: Option<Path<String>>,
              State(context): State<Shared>,
              Extension(watchers): Extension<Arc<Watchers>>,
              Query(asked): Query<AskedWatch>| async move {
            let about = about.map(|Path(about)| about).unwrap_or_default();
            if !asked.watch {
                return Ok::<Response, Refusal>(Json(answer(context, about).await?).into_response());
            }
            let seat = watchers.seat()?;
            // Subscribed before the first answer is made, so that no change is missed in between.
            let sources = sources.subscribe(&context, &watchers);
            let (first, digest) = line(answer(context.clone(), about.clone()).await?)?;
            let (lines, taken) = mpsc::channel(1);
            let again = move || {
                let made = answer(context.clone(), about.clone());
                async move { line(made.await?) }
            };
            tokio::spawn(async move {
                let _seat = seat;
                push(first, digest, again, sources, &lines, &watchers.ending, HEARTBEAT).await;
            });
            let mut response = Response::new(Body::new(Lines(taken)));
            let kind = header::HeaderValue::from_static(WATCH_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            Ok(response)
        },
    )
}

/// Sends lines until the watcher is gone, the daemon ends, or the answer becomes a refusal. Sends at least one line in each
/// `heartbeat`.
async fn push<Again, Made>(
    first: Bytes,
    mut digest: u64,
    again: Again,
    mut sources: Vec<watch::Receiver<u64>>,
    lines: &mpsc::Sender<Bytes>,
    ending: &CancellationToken,
    heartbeat: Duration,
) where
    Again: Fn() -> Made,
    Made: Future<Output = Result<(Bytes, u64), Refusal>>,
{
    let mut next = Some(first);
    let mut gap = SHORTEST_GAP;
    let mut said = Instant::now();
    loop {
        if let Some(line) = next.take() {
            tokio::select! {
                () = ending.cancelled() => return,
                sent = tokio::time::timeout(PATIENCE, lines.send(line)) => match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return,
                },
            }
            said = Instant::now();
        }
        let changed = tokio::select! {
            () = ending.cancelled() => {
                // For a watcher that reads; other watchers notice the end of the answer.
                let _ = lines.try_send(word(&WatchLine::<()>::Ending));
                return;
            }
            () = lines.closed() => return,
            () = any_changed(&mut sources) => true,
            () = tokio::time::sleep(heartbeat.saturating_sub(said.elapsed())) => false,
        };
        if changed {
            tokio::select! {
                () = ending.cancelled() => continue,
                () = lines.closed() => return,
                () = tokio::time::sleep(gap) => {}
            }
        }
        for source in &mut sources {
            source.mark_unchanged();
        }
        let begun = Instant::now();
        match again().await {
            Ok((line, now)) if now != digest => {
                digest = now;
                next = Some(line);
            }
            // Also if the sources change all the time and the answer does not.
            Ok(_) => next = (said.elapsed() >= heartbeat).then(|| word(&WatchLine::<()>::Alive)),
            Err(Refusal(_, error)) => {
                let last = lines.send(word(&WatchLine::<()>::Failed(Failure { error })));
                let _ = tokio::time::timeout(PATIENCE, last).await;
                return;
            }
        }
        gap = SHORTEST_GAP.max(begun.elapsed() * GAP_BY_COST).min(heartbeat);
    }
}

/// Returns when one of `sources` has changed since it was last read.
async fn any_changed(sources: &mut [watch::Receiver<u64>]) {
    let mut waits: Vec<_> = sources.iter_mut().map(|source| Box::pin(source.changed())).collect();
    std::future::poll_fn(
        |cx| match waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        },
    )
    .await;
}

/// The line of an answer, and a digest of its content without the time.
fn line<A: Watchable + Serialize>(mut answer: A) -> Result<(Bytes, u64), Refusal> {
    let now = answer.now().map(|now| std::mem::replace(now, Timestamp(0)));
    let mut hasher = DefaultHasher::new();
    hasher.write(&serde_json::to_vec(&answer).map_err(super::refusal::broken)?);
    if let (Some(field), Some(now)) = (answer.now(), now) {
        *field = now;
    }
    Ok((word(&WatchLine::Answer(answer)), hasher.finish()))
}

fn word<A: Serialize>(line: &WatchLine<A>) -> Bytes {
    // An answer that was serialised once can be serialised again.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

/// The lines as a body.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_hears_something_in_time_also_where_sources_change_and_the_answer_does_not() {
        let source = watch::Sender::new(0);
        let (lines, mut taken) = mpsc::channel(1);
        let ending = CancellationToken::new();
        let heartbeat = 2 * SHORTEST_GAP;
        let again = || async { Ok((Bytes::from_static(b"same"), 1)) };
        let first = Bytes::from_static(b"first");
        let watched = push(first, 1, again, vec![source.subscribe()], &lines, &ending, heartbeat);
        let busy = async {
            loop {
                source.send_modify(|number| *number += 1);
                tokio::time::sleep(SHORTEST_GAP / 10).await;
            }
        };
        let read = async {
            assert_eq!(taken.recv().await.unwrap(), "first");
            for _ in 0..2 {
                let line = tokio::time::timeout(4 * heartbeat, taken.recv()).await;
                assert_eq!(line.expect("a sign of life").unwrap(), word(&WatchLine::<()>::Alive));
            }
        };
        tokio::select! {
            () = watched => panic!("the watch goes on"),
            () = busy => {}
            () = read => {}
        }
    }
}
