//! The transfers that are running: bounded in total and per client, one per client port.

use super::{Limits, counters::Reason};
use rackstrap_base::connection_limit::{Bounds, ClientClass, ConnectionLimit, Full, Permit, PermitRef};
use rackstrap_base::sync::lock;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
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

/// What to do with a request.
pub enum Admission {
    /// The request begins a transfer.
    Begin(Ticket),
    /// The transfer that it belongs to was told.
    Repeated,
    /// A limit is reached.
    Full(Reason, &'static str),
}

/// The place of one transfer; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    table: Arc<Table>,
    peer: SocketAddr,
    id: u64,
    permit: Permit,
    /// The listener's word.
    pub link: Arc<Link>,
}

/// All transfers that run.
#[derive(Debug)]
pub struct Table {
    limit: Arc<ConnectionLimit>,
    ports: Mutex<Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    /// The latest transfer of each client port.
    by_port: HashMap<SocketAddr, Entry>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    request: Box<[u8]>,
    permit: PermitRef,
    link: Arc<Link>,
}

impl Table {
    /// An empty table.
    pub fn new(limits: &Limits) -> Arc<Self> {
        let limit = ConnectionLimit::new(Bounds {
            all: limits.transfers,
            strangers: limits.strangers,
            each: limits.transfers_per_peer,
        });
        Arc::new(Table {
            limit,
            ports: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Ports> {
        lock(&self.ports)
    }

    /// Decides on a request; `request` is the whole datagram.
    pub fn admit(self: &Arc<Self>, peer: SocketAddr, class: ClientClass, request: &[u8]) -> Admission {
        let mut ports = self.lock();
        if let Some(entry) = ports.by_port.get(&peer) {
            if *entry.request == *request && !entry.link.answered.load(Relaxed) {
                entry.link.repeated.store(true, Relaxed);
                entry.link.wake.notify_one();
                return Admission::Repeated;
            }
            entry.link.replaced.store(true, Relaxed);
            entry.link.wake.notify_one();
            // Its task notices later, and the new one needs the place now.
            self.limit.end(&entry.permit);
        }
        let permit = match self.limit.take(peer.ip(), class) {
            Ok(permit) => permit,
            Err(Full::All(_)) => {
                return Admission::Full(Reason::TooManyTransfers, "as many transfers as allowed are running");
            }
            Err(Full::Share(_)) => {
                return Admission::Full(
                    Reason::TooManyTransfersOfPeer,
                    "as many transfers as allowed are running with this client",
                );
            }
        };
        permit.idle();
        let id = ports.next_id;
        ports.next_id += 1;
        let link = Arc::new(Link::default());
        let entry = Entry {
            id,
            request: request.into(),
            permit: permit.reference(),
            link: link.clone(),
        };
        ports.by_port.insert(peer, entry);
        Admission::Begin(Ticket {
            table: self.clone(),
            peer,
            id,
            permit,
            link,
        })
    }
}

impl Ticket {
    /// The client acknowledged something, as no forged sender does: its place is not taken away for a newcomer.
    pub fn answered(&self) {
        if !self.link.answered.swap(true, Relaxed) {
            self.permit.busy();
        }
    }

    /// The client ended the transfer with an ERROR. True if it has sent the same request again since: the listener took that for a
    /// repetition, as the ERROR goes to another socket and may be read later. From now on a request begins a transfer.
    pub fn ended_by_client(&self) -> bool {
        let _ports = self.table.lock();
        self.link.answered.store(true, Relaxed);
        self.link.repeated.swap(false, Relaxed)
    }

    /// Returns when another transfer needs the place.
    pub async fn revoked(&self) {
        self.permit.revoked().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut ports = self.table.lock();
        if ports.by_port.get(&self.peer).is_some_and(|entry| entry.id == self.id) {
            ports.by_port.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(table: &Arc<Table>, peer: &str, request: &[u8]) -> Ticket {
        match table.admit(peer.parse().unwrap(), ClientClass::Stranger, request) {
            Admission::Begin(ticket) => ticket,
            Admission::Repeated => panic!("taken for a repetition"),
            Admission::Full(_, why) => panic!("{why}"),
        }
    }

    #[test]
    fn bounds_and_places() {
        let table = Table::new(&Limits {
            transfers: 3,
            strangers: 3,
            transfers_per_peer: 2,
            retransmissions: 1,
        });
        let first = begin(&table, "10.0.0.1:1", b"a");
        let second = begin(&table, "10.0.0.1:2", b"a");
        first.answered();
        second.answered();
        let peer = "10.0.0.1:3".parse().unwrap();
        assert!(matches!(
            table.admit(peer, ClientClass::Stranger, b"a"),
            Admission::Full(Reason::TooManyTransfersOfPeer, _)
        ));
        let third = begin(&table, "10.0.0.2:1", b"a");
        third.answered();
        let other = "10.0.0.3:1".parse().unwrap();
        drop(first);
        let fourth = begin(&table, "10.0.0.3:1", b"a");
        fourth.answered();
        assert!(matches!(
            table.admit("10.0.0.4:1".parse().unwrap(), ClientClass::Stranger, b"a"),
            Admission::Full(Reason::TooManyTransfers, _)
        ));
        drop((second, fourth));
        assert!(matches!(
            table.admit(other, ClientClass::Stranger, b"a"),
            Admission::Begin(_)
        ));
    }

    /// Requests with forged senders, none of which ever acknowledges anything.
    #[tokio::test]
    async fn who_never_answers_makes_room_for_others() {
        let table = Table::new(&Limits {
            transfers: 8,
            strangers: 4,
            transfers_per_peer: 4,
            retransmissions: 1,
        });
        let real = begin(&table, "10.0.0.1:1", b"a");
        real.answered();
        let forged: Vec<Ticket> = (0..100)
            .map(|n| begin(&table, &format!("10.0.1.{n}:1"), b"a"))
            .collect();
        for ticket in &forged[..97] {
            ticket.revoked().await;
        }
        let node = "10.5.1.1:1".parse().unwrap();
        assert!(matches!(
            table.admit(node, ClientClass::Node, b"a"),
            Admission::Begin(_)
        ));
        // The transfer that was answered still has its place.
        tokio::select! {
            biased;
            () = real.revoked() => panic!("the place of a client that answers was taken away"),
            () = std::future::ready(()) => {}
        }
    }

    #[test]
    fn same_port_same_request() {
        let table = Table::new(&Limits::default());
        let peer = "10.0.0.1:1".parse().unwrap();
        let first = begin(&table, "10.0.0.1:1", b"a");
        assert!(matches!(
            table.admit(peer, ClientClass::Stranger, b"a"),
            Admission::Repeated
        ));
        assert!(first.link.repeated.load(Relaxed));
        first.answered();
        let second = begin(&table, "10.0.0.1:1", b"a");
        assert!(first.link.replaced.load(Relaxed));
        let third = begin(&table, "10.0.0.1:1", b"b");
        assert!(second.link.replaced.load(Relaxed));
        drop((first, second));
        assert!(matches!(
            table.admit(peer, ClientClass::Stranger, b"b"),
            Admission::Repeated
        ));
        // The client ended the transfer before it sent that request; the next one needs no repetition.
        assert!(third.ended_by_client());
        assert!(!third.ended_by_client());
        let fourth = begin(&table, "10.0.0.1:1", b"b");
        drop((third, fourth));
        assert!(table.lock().by_port.is_empty());
    }
}
