//! The thread that writes for all callers: batches that wait at the same time share one flush.

use super::{Batch, StoreError, Watches, embedded::Database};
use rackstrap_base::{
    sync::{self, lock, wait_for},
    threads::Thread,
};
use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Longest wait of queued batches for others with which they share a flush.
pub const LAZY_FLUSH: Duration = Duration::from_millis(200);

/// Most queued batches; a further one is dropped and counted. At 1 KiB each this limits the memory to about 16 MiB.
const QUEUE_LIMIT: usize = 16_384;

/// Most batches of one transaction, so that no caller waits for a long one.
const GROUP_LIMIT: usize = 1_024;

/// Most commits that wait at the same time; further ones wait before they enter the queue.
const WAITING_LIMIT: usize = 4_096;

type Answer = oneshot::Sender<Result<(), StoreError>>;

/// A batch with a caller that waits.
type Urgent = (Batch, Answer);

#[derive(Default)]
struct Queue {
    urgent: VecDeque<Urgent>,
    lazy: VecDeque<Batch>,
    closing: bool,
    panicked: bool,
}

#[derive(Default)]
struct State {
    queue: Mutex<Queue>,
    wake: Condvar,
    dropped: AtomicU64,
}

pub(super) struct Writer {
    state: Arc<State>,
    slots: tokio::sync::Semaphore,
    thread: Thread,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

impl Writer {
    pub(super) fn spawn(database: Arc<Database>, watches: Arc<Watches>) -> Writer {
        let state = Arc::new(State::default());
        let thread = Thread::spawn("store", {
            let state = state.clone();
            move || run(&state, &database, &watches)
        });
        Writer {
            state,
            slots: tokio::sync::Semaphore::new(WAITING_LIMIT),
            thread,
        }
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let _slot = self.slots.acquire().await.map_err(|_| StoreError::Closed)?;
        self.enqueue(batch)?.await.unwrap_or_else(|_| Err(self.given_up()))
    }

    pub(super) fn commit_blocking(&self, batch: Batch) -> Result<(), StoreError> {
        // A thread waits for its answer, so there are never more of these than threads.
        let mut answer = self.enqueue(batch)?;
        // `blocking_recv` panics inside an async context, but any executor can poll a oneshot.
        wait_blocking(&mut answer).unwrap_or_else(|| Err(self.given_up()))
    }

    /// Waits until the thread has ended.
    pub(super) fn ended(&self) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        self.thread.ended()
    }

    /// Why a batch gets no answer.
    fn given_up(&self) -> StoreError {
        let queue = self.state.lock();
        match queue.closing && !queue.panicked {
            true => StoreError::Closed,
            // The answers of a batch that panics are dropped before the queue is closed.
            false => StoreError::NotWritten(
                "store: this was not written, because its writer panicked, which is a defect of rackstrap: see the log"
                    .to_owned(),
            ),
        }
    }

    pub(super) fn queue(&self, batch: Batch) -> bool {
        let mut queue = self.state.lock();
        if queue.closing || queue.lazy.len() >= QUEUE_LIMIT {
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        queue.lazy.push_back(batch);
        // The thread sleeps without a limit while the queue is empty. It needs the time of the first batch.
        if queue.lazy.len() == 1 {
            self.state.wake.notify_one();
        }
        true
    }

    pub(super) fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    fn enqueue(&self, batch: Batch) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.state.lock();
        if queue.closing {
            drop(queue);
            return Err(self.given_up());
        }
        queue.urgent.push_back((batch, sender));
        self.state.wake.notify_one();
        Ok(receiver)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.state.lock().closing = true;
        self.state.wake.notify_one();
        // The thread's panic hook reports a panic.
        let _ = self.thread.join();
    }
}

/// Polls a oneshot until it is ready, on a plain thread or on a thread of an async runtime.
fn wait_blocking<T>(receiver: &mut oneshot::Receiver<T>) -> Option<T> {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        // Polls without tokio's budget: a task without budget is only woken after it yields, which it does not do while it waits here.
        match std::pin::pin!(tokio::task::unconstrained(&mut *receiver)).poll(&mut context) {
            std::task::Poll::Ready(result) => return result.ok(),
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fn run(state: &State, database: &Database, watches: &Watches) {
    let closing = Closing {
        state,
        unwatched: Cell::new(0),
    };
    while let Some((urgent, lazy)) = next(state) {
        closing.unwatched.set(lazy.len() as u64);
        write(state, database, watches, urgent, lazy);
        closing.unwatched.set(0);
    }
}

/// Closes the queue when the thread ends for any reason, so that no caller waits for an answer that does not come.
struct Closing<'a> {
    state: &'a State,
    /// Number of batches without a waiting caller in the current transaction.
    unwatched: Cell<u64>,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut queue = self.state.lock();
        queue.closing = true;
        queue.panicked = std::thread::panicking();
        // Dropping the senders tells waiting callers that their batches were not written.
        queue.urgent.clear();
        let lost = self.unwatched.get() + queue.lazy.len() as u64;
        queue.lazy.clear();
        self.state.dropped.fetch_add(lost, Ordering::Relaxed);
    }
}

/// Waits for work. An urgent batch starts a transaction at once, with the queued batches. None at the end, when all is written.
fn next(state: &State) -> Option<(Vec<Urgent>, Vec<Batch>)> {
    let mut queue = state.lock();
    let mut lazy_since: Option<Instant> = None;
    loop {
        let due = lazy_since.is_some_and(|since| since.elapsed() >= LAZY_FLUSH);
        let nothing = queue.urgent.is_empty() && queue.lazy.is_empty();
        if queue.closing && nothing {
            return None;
        }
        if !queue.urgent.is_empty() || due || queue.closing || queue.lazy.len() >= GROUP_LIMIT {
            let urgent_count = queue.urgent.len().min(GROUP_LIMIT);
            let urgent: Vec<_> = queue.urgent.drain(..urgent_count).collect();
            // The order of queued and urgent batches does not matter, because no caller waits for a queued one. An exception is an empty urgent
            // batch, which flushes: so the whole queue is written with it.
            let lazy = queue.lazy.drain(..).collect();
            return Some((urgent, lazy));
        }
        if queue.lazy.is_empty() {
            queue = sync::wait(&state.wake, queue);
        } else {
            let since = *lazy_since.get_or_insert_with(Instant::now);
            let rest = LAZY_FLUSH.saturating_sub(since.elapsed());
            queue = wait_for(&state.wake, queue, rest);
        }
    }
}

fn write(state: &State, database: &Database, watches: &Watches, urgent: Vec<Urgent>, lazy: Vec<Batch>) {
    let mut outcomes = Vec::with_capacity(urgent.len());
    let result = database.write(|tx| {
        for batch in &lazy {
            match batch.apply(tx) {
                Err(StoreError::Conflict { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        for (batch, _) in &urgent {
            match batch.apply(tx) {
                // Expectations are checked before the first write, so nothing of this batch is in the transaction.
                Err(conflict @ StoreError::Conflict { .. }) => outcomes.push(Err(conflict)),
                Err(error) => return Err(error),
                Ok(()) => outcomes.push(Ok(())),
            }
        }
        Ok(())
    });
    match result {
        Ok(((), tables)) => {
            watches.changed(&tables);
            for ((_, answer), outcome) in urgent.into_iter().zip(outcomes) {
                // The caller may no longer wait; the batch is written anyway.
                let _ = answer.send(outcome);
            }
        }
        Err(error) => {
            tracing::error!("{error}");
            state.dropped.fetch_add(lazy.len() as u64, Ordering::Relaxed);
            let text = error.to_string();
            for (_, answer) in urgent {
                let _ = answer.send(Err(StoreError::NotWritten(text.clone())));
            }
        }
    }
}
