//! The lease thread: what must be on disk before a reply leaves, committed for all that wait at once.

use super::{authority::LeaseStore, engine::Write, pool::Lease};
use rackstrap_base::threads::Thread;
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

/// Requests that may wait for the disk; more are dropped, and their clients ask again.
const QUEUE: usize = 4096;
/// Requests of one commit.
const BATCH: usize = 1024;

/// What to do once a request's writes are durable (`true`) or have failed.
type Then = Box<dyn FnOnce(bool) + Send>;

struct Waiting {
    writes: Vec<Write>,
    then: Then,
}

/// Hands writes to the lease thread. The thread ends after the last of these is dropped and all that waits is done.
#[derive(Clone)]
pub(super) struct LeaseWriter {
    queue: SyncSender<Waiting>,
}

impl LeaseWriter {
    pub(super) fn start(store: Arc<dyn LeaseStore>) -> (Self, Thread) {
        let (queue, waiting) = sync_channel(QUEUE);
        let thread = Thread::spawn("dhcp-leases", move || run(&*store, &waiting));
        (LeaseWriter { queue }, thread)
    }

    /// Calls `then` after `writes` are durable, on the lease thread. False if too many wait already: then nothing is kept.
    pub(super) fn submit(&self, writes: Vec<Write>, then: Then) -> bool {
        match self.queue.try_send(Waiting { writes, then }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

fn run(store: &dyn LeaseStore, waiting: &Receiver<Waiting>) {
    let mut broken = false;
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![first];
        batch.extend(waiting.try_iter().take(BATCH - 1));
        let result = commit(store, &batch);
        match &result {
            Err(error) if !broken => {
                tracing::error!("leases cannot be stored, so unknown machines get no address: {error:#}");
            }
            Ok(()) if broken => tracing::info!("leases can be stored again"),
            _ => {}
        }
        broken = result.is_err();
        for done in batch {
            (done.then)(!broken);
        }
    }
}

fn commit(store: &dyn LeaseStore, batch: &[Waiting]) -> anyhow::Result<()> {
    let mut last: BTreeMap<Ipv4Addr, Option<&Lease>> = BTreeMap::new();
    for write in batch.iter().flat_map(|w| &w.writes) {
        match write {
            Write::Put(lease) => last.insert(lease.ipaddr, Some(lease)),
            Write::Forget(address) => last.insert(*address, None),
        };
    }
    let put: Vec<Lease> = last.values().filter_map(|l| l.cloned()).collect();
    let forget: Vec<Ipv4Addr> = last.iter().filter(|(_, l)| l.is_none()).map(|(a, _)| *a).collect();
    // Between the two a crash leaves a machine with two leases; at start the later one counts.
    if !put.is_empty() {
        store.commit(&put)?;
    }
    if !forget.is_empty() {
        store.forget(&forget)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LeaseState;
    use rackstrap_base::clock::Timestamp;
    use rackstrap_wire::HwAddr;
    use std::sync::{
        Mutex,
        mpsc::{Sender, channel},
    };

    /// Who stores this address panics.
    const PANICS: Ipv4Addr = Ipv4Addr::new(10, 5, 255, 66);

    /// Says when a commit begins, and waits until it may go on; the first commit fails.
    struct Store {
        begun: Sender<Vec<Ipv4Addr>>,
        go: Mutex<Receiver<bool>>,
        forgotten: Sender<Vec<Ipv4Addr>>,
    }

    impl LeaseStore for Store {
        fn load(&self) -> anyhow::Result<Vec<Lease>> {
            Ok(Vec::new())
        }

        fn commit(&self, leases: &[Lease]) -> anyhow::Result<()> {
            assert!(leases.iter().all(|lease| lease.ipaddr != PANICS), "a test wants it");
            self.begun.send(leases.iter().map(|l| l.ipaddr).collect())?;
            anyhow::ensure!(self.go.lock().unwrap().recv()?, "the disk is full");
            Ok(())
        }

        fn forget(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
            Ok(self.forgotten.send(addresses.to_vec())?)
        }
    }

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 5, 255, last)
    }

    fn put(last: u8) -> Write {
        Write::Put(Lease {
            ipaddr: address(last),
            hwaddr: HwAddr([2, 0, 0, 0, 0, last]),
            uuid: None,
            state: LeaseState::Bound,
            since: Timestamp(0),
            expires: Timestamp(1),
            granted: Timestamp(0),
        })
    }

    #[test]
    fn a_failure_is_told_and_those_who_wait_share_a_commit() {
        let ((begun, commits), (go, gate), (forgotten, forgets)) = (channel(), channel(), channel());
        let store = Store {
            begun,
            go: Mutex::new(gate),
            forgotten,
        };
        let (writer, thread) = LeaseWriter::start(Arc::new(store));
        let (told, results) = channel();
        let submit = |name: &'static str, writes| {
            let told = told.clone();
            assert!(writer.submit(writes, Box::new(move |stored| told.send((name, stored)).unwrap())));
        };
        submit("first", vec![put(1)]);
        assert_eq!(commits.recv().unwrap(), [address(1)]);
        submit("second", vec![put(2), put(3)]);
        submit("third", vec![put(3), Write::Forget(address(2))]);
        go.send(false).unwrap();
        assert_eq!(results.recv().unwrap(), ("first", false));
        assert_eq!(commits.recv().unwrap(), [address(3)]);
        assert!(results.try_recv().is_err(), "told before it was stored");
        go.send(true).unwrap();
        assert_eq!(results.recv().unwrap(), ("second", true));
        assert_eq!(results.recv().unwrap(), ("third", true));
        assert_eq!(forgets.recv().unwrap(), [address(2)]);
        drop(writer);
        thread.join().unwrap();
    }

    #[test]
    fn a_panic_is_the_end_of_the_thread_with_a_reason_and_nothing_more_is_promised() {
        let ((begun, _commits), (_go, gate), (forgotten, _forgets)) = (channel(), channel(), channel());
        let store = Store {
            begun,
            go: Mutex::new(gate),
            forgotten,
        };
        let (writer, thread) = LeaseWriter::start(Arc::new(store));
        let (lost, gone) = channel::<()>();
        assert!(writer.submit(vec![put(66)], Box::new(move |_| drop(lost))));
        // Its end is let go of without a word.
        assert!(gone.recv().is_err());
        let reason = thread.join().unwrap_err().to_string();
        assert!(
            reason.starts_with("thread dhcp-leases panicked: a test wants it"),
            "{reason}"
        );
        assert!(!writer.submit(vec![put(1)], Box::new(|_| ())));
    }
}
