//! The lease thread: what must be on disk before a reply leaves, committed for all that wait at once.

use super::{authority::LeaseStore, engine::Write, pool::Lease};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
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
    pub(super) fn start(store: Arc<dyn LeaseStore>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, waiting) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("dhcp-leases".into())
            .spawn(move || run(&*store, &waiting))?;
        Ok((LeaseWriter { queue }, thread))
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
