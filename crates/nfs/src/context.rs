//! The context of a call: the state that connections share, the caller, and the exports that it may use.

use super::{
    access::Credentials,
    counters::{Count, Counters},
    export::{ExportRoot, Node, Pace},
    exports::{Exports, NfsEvent, Refusal},
    handle::{ExportId, HandleKey},
    mounts::MountTable,
    status::{Status, Stop},
};
use rackstrap_base::sync::lock;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

/// How long a connection keeps an answer of [`Exports::by_id`].
const GRANT: Duration = Duration::from_secs(1);
/// Most exports that one connection uses at a time; a node has one, and two during a change.
const GRANTS: usize = 8;

/// The state that all connections share.
pub(super) struct Shared {
    pub exports: Arc<dyn Exports>,
    pub key: HandleKey,
    pub counters: Arc<Counters>,
    pub mounts: Mutex<MountTable>,
    /// Verifier of COMMIT. It differs after each start, so that clients detect a restart.
    pub write_verifier: [u8; 8],
}

/// The client of a connection.
#[derive(Debug)]
pub struct Peer {
    addr: SocketAddr,
    grants: Mutex<Vec<Grant>>,
}

#[derive(Debug)]
struct Grant {
    id: ExportId,
    /// The reference is weak: a silent connection, for example of a node that lost power, would otherwise keep the files of a deleted
    /// version on disk.
    export: Result<Weak<ExportRoot>, Status>,
    until: Instant,
}

/// The context of a procedure.
pub(super) struct Cx<'a> {
    pub shared: &'a Shared,
    pub peer: &'a Peer,
    pub who: Credentials,
    pub pace: Pace,
    pub now: Instant,
    /// Most bytes of file data or of a listing in the reply.
    pub max_data: u32,
}

/// An open file with its export.
pub(super) struct File {
    pub export: Arc<ExportRoot>,
    pub node: Arc<Node>,
}

impl Peer {
    /// A peer at `addr`. An IPv4 address inside an IPv6 address is converted.
    pub fn new(addr: SocketAddr) -> Self {
        Peer {
            addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            grants: Mutex::default(),
        }
    }

    /// The address and port of the client.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Cx<'_> {
    /// The file of a handle, if the handle is ours and the peer may use its export.
    pub fn file(&self, wire: &[u8]) -> Result<File, Stop> {
        let (export, id) = self.shared.key.open(wire).inspect_err(|_| {
            self.shared.counters.count(Count::BadHandle);
        })?;
        let export = self.export(export)?;
        let node = export.node(&id, self.pace).inspect_err(|stop| {
            if *stop == Stop::Fault(Status::Stale) {
                self.shared.counters.count(Count::StaleHandle);
            }
        })?;
        Ok(File { export, node })
    }

    fn export(&self, id: ExportId) -> Result<Arc<ExportRoot>, Stop> {
        let grants = || lock(&self.peer.grants);
        let mut told = false;
        for grant in grants().iter().filter(|grant| grant.id == id) {
            let known = match &grant.export {
                Ok(export) => export.upgrade().map(Ok),
                Err(status) => Some(Err(*status)),
            };
            if let Some(export) = known.filter(|_| self.now < grant.until) {
                return export.map_err(|status| self.refused(status));
            }
            told = grant.export.is_err();
        }
        if self.pace == Pace::Inline {
            return Err(Stop::WouldBlock);
        }
        let export = self.shared.exports.by_id(self.peer.addr, id).map_err(|refusal| {
            if !told {
                self.shared.exports.observe(NfsEvent::HandleRefused {
                    peer: self.peer.addr,
                    export: id,
                    why: refusal.to_string(),
                });
            }
            match refusal {
                Refusal::NoSuchExport => Status::Stale,
                Refusal::NotYours(_) => Status::Acces,
                Refusal::Unavailable(_) => Status::Jukebox,
            }
        });
        let mut grants = grants();
        grants.retain(|grant| grant.id != id);
        if grants.len() >= GRANTS {
            grants.remove(0);
        }
        grants.push(Grant {
            id,
            export: export.as_ref().map(Arc::downgrade).map_err(|status| *status),
            until: self.now + GRANT,
        });
        export.map_err(|status| self.refused(status))
    }

    fn refused(&self, status: Status) -> Stop {
        self.shared.counters.count(Count::ExportRefused);
        Stop::Fault(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::FileId;

    /// Has one export, or none after it was removed.
    struct One(Mutex<Option<Arc<ExportRoot>>>);

    impl Exports for One {
        fn is_node(&self, _: SocketAddr) -> bool {
            true
        }

        fn mount(&self, peer: SocketAddr, _: &[u8]) -> Result<Arc<ExportRoot>, Refusal> {
            self.by_id(peer, ExportId([1; 8]))
        }

        fn by_id(&self, _: SocketAddr, _: ExportId) -> Result<Arc<ExportRoot>, Refusal> {
            self.0.lock().unwrap().clone().ok_or(Refusal::NoSuchExport)
        }

        fn list(&self, _: SocketAddr) -> Vec<Vec<u8>> {
            Vec::new()
        }

        fn observe(&self, _: NfsEvent) {}
    }

    #[test]
    fn a_connection_does_not_keep_a_dropped_export_open() {
        let dir = tempfile::tempdir().unwrap();
        let root = ExportRoot::open(dir.path(), ExportId([1; 8]), "test@1".into()).unwrap();
        let (id, root_id): (_, FileId) = (root.id(), *root.root_id());
        let exports = Arc::new(One(Mutex::new(Some(Arc::new(root)))));
        let shared = Shared {
            exports: exports.clone(),
            key: HandleKey::new([7; 32]),
            counters: Arc::default(),
            mounts: Mutex::default(),
            write_verifier: [0; 8],
        };
        let peer = Peer::new("10.5.1.1:700".parse().unwrap());
        let now = Instant::now();
        let handle = shared.key.seal(id, &root_id);
        let file = |pace| {
            let (shared, peer, who) = (&shared, &peer, Credentials::nobody());
            Cx {
                shared,
                peer,
                who,
                pace,
                now,
                max_data: 1 << 20,
            }
            .file(handle.as_slice())
            .map(|file| Arc::downgrade(&file.export))
        };
        let held = file(Pace::MayBlock).unwrap();
        assert!(file(Pace::Inline).is_ok(), "the grant expired within a second");
        *exports.0.lock().unwrap() = None;
        assert!(held.upgrade().is_none(), "a connection keeps it");
        assert_eq!(file(Pace::Inline).err(), Some(Stop::WouldBlock));
        assert_eq!(file(Pace::MayBlock).err(), Some(Stop::Fault(Status::Stale)));
    }
}
