//! The transfers that are running: bounded in total and per client, one per client port.

use super::{Limits, counters::Reason};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;

/// What the listener tells a transfer's task, and it the listener.
#[derive(Debug, Default)]
pub struct Link {
    /// Wakes the task after one of the two below was set.
    pub wake: Notify,
    /// The client sent the same request once more.
    pub repeated: AtomicBool,
    /// The client sent another request from the same port.
    pub replaced: AtomicBool,
    /// Set by the task: the client acknowledged something.
    pub answered: AtomicBool,
}

/// What is to be done with a request.
pub enum Admission {
    /// Begin a transfer.
    Begin(Ticket),
    /// The transfer that it belongs to was told.
    Repeated,
    /// There is no room.
    Full(Reason, &'static str),
}

/// The place of one transfer; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    table: Arc<Table>,
    peer: SocketAddr,
    id: u64,
    /// The listener's word.
    pub link: Arc<Link>,
}

/// All transfers.
#[derive(Debug, Default)]
pub struct Table(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The latest transfer of each client port.
    by_port: HashMap<SocketAddr, Entry>,
    /// Transfers of each client address, those included that are just ending.
    by_address: HashMap<IpAddr, usize>,
    total: usize,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    request: Box<[u8]>,
    link: Arc<Link>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on a request; `request` is the whole datagram.
    pub fn admit(self: &Arc<Self>, peer: SocketAddr, request: &[u8], limits: &Limits) -> Admission {
        let mut inner = self.lock();
        // A transfer that is being replaced still has its place until its task has noticed, so replacing may go above
        // the bounds, but not without end.
        let mut slack = 1;
        if let Some(entry) = inner.by_port.get(&peer) {
            if *entry.request == *request && !entry.link.answered.load(Relaxed) {
                entry.link.repeated.store(true, Relaxed);
                entry.link.wake.notify_one();
                return Admission::Repeated;
            }
            entry.link.replaced.store(true, Relaxed);
            entry.link.wake.notify_one();
            slack = 2;
        }
        if inner.total >= limits.transfers * slack {
            return Admission::Full(Reason::TooManyTransfers, "as many transfers as allowed are running");
        }
        if inner.by_address.get(&peer.ip()).copied().unwrap_or(0) >= limits.transfers_per_peer * slack {
            return Admission::Full(
                Reason::TooManyTransfersOfPeer,
                "as many transfers as allowed are running with this client",
            );
        }
        let id = inner.next_id;
        inner.next_id += 1;
        inner.total += 1;
        *inner.by_address.entry(peer.ip()).or_default() += 1;
        let link = Arc::new(Link::default());
        let entry = Entry {
            id,
            request: request.into(),
            link: link.clone(),
        };
        inner.by_port.insert(peer, entry);
        Admission::Begin(Ticket {
            table: self.clone(),
            peer,
            id,
            link,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.table.lock();
        inner.total -= 1;
        if inner.by_port.get(&self.peer).is_some_and(|entry| entry.id == self.id) {
            inner.by_port.remove(&self.peer);
        }
        if let Some(number) = inner.by_address.get_mut(&self.peer.ip()) {
            *number -= 1;
            if *number == 0 {
                inner.by_address.remove(&self.peer.ip());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(table: &Arc<Table>, peer: &str, request: &[u8], limits: &Limits) -> Ticket {
        match table.admit(peer.parse().unwrap(), request, limits) {
            Admission::Begin(ticket) => ticket,
            Admission::Repeated => panic!("taken for a repetition"),
            Admission::Full(_, why) => panic!("{why}"),
        }
    }

    #[test]
    fn bounds_and_places() {
        let table = Arc::new(Table::default());
        let limits = Limits {
            transfers: 3,
            transfers_per_peer: 2,
            retransmissions: 1,
        };
        let first = begin(&table, "10.0.0.1:1", b"a", &limits);
        let _second = begin(&table, "10.0.0.1:2", b"a", &limits);
        let peer = "10.0.0.1:3".parse().unwrap();
        assert!(matches!(
            table.admit(peer, b"a", &limits),
            Admission::Full(Reason::TooManyTransfersOfPeer, _)
        ));
        let _third = begin(&table, "10.0.0.2:1", b"a", &limits);
        let other = "10.0.0.3:1".parse().unwrap();
        assert!(matches!(
            table.admit(other, b"a", &limits),
            Admission::Full(Reason::TooManyTransfers, _)
        ));
        drop(first);
        let _again = begin(&table, "10.0.0.3:1", b"a", &limits);
    }

    #[test]
    fn same_port_same_request() {
        let table = Arc::new(Table::default());
        let limits = Limits::default();
        let peer = "10.0.0.1:1".parse().unwrap();
        let first = begin(&table, "10.0.0.1:1", b"a", &limits);
        assert!(matches!(table.admit(peer, b"a", &limits), Admission::Repeated));
        assert!(first.link.repeated.load(Relaxed));
        first.link.answered.store(true, Relaxed);
        let second = begin(&table, "10.0.0.1:1", b"a", &limits);
        assert!(first.link.replaced.load(Relaxed));
        let third = begin(&table, "10.0.0.1:1", b"b", &limits);
        assert!(second.link.replaced.load(Relaxed));
        drop((first, second));
        assert!(matches!(table.admit(peer, b"b", &limits), Admission::Repeated));
        drop(third);
        let inner = table.lock();
        assert_eq!((inner.total, inner.by_port.len(), inner.by_address.len()), (0, 0, 0));
    }
}
