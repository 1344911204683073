//! What a call is executed in: what all connections share, who asks, and which exports they may use.

use super::{
    access::Credentials,
    counters::{Count, Counters},
    export::{ExportRoot, Node, Pace},
    exports::{Exports, NfsEvent, Refusal},
    handle::{ExportId, HandleKey},
    mounts::MountTable,
    status::{Status, Stop},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// How long an answer of [`Exports::by_id`] holds for a connection.
const GRANT: Duration = Duration::from_secs(1);
/// Exports that one connection uses at a time; a node has one, two during a change.
const GRANTS: usize = 8;

/// What all connections share.
pub(super) struct Shared {
    pub exports: Arc<dyn Exports>,
    pub key: HandleKey,
    pub counters: Arc<Counters>,
    pub mounts: Mutex<MountTable>,
    /// Tells clients that the daemon was restarted: COMMIT's verifier differs from the last one.
    pub write_verifier: [u8; 8],
}

/// Whoever is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    addr: SocketAddr,
    grants: Mutex<Vec<Grant>>,
}

#[derive(Debug)]
struct Grant {
    id: ExportId,
    export: Result<Arc<ExportRoot>, Status>,
    until: Instant,
}

/// What a procedure may use.
pub(super) struct Cx<'a> {
    pub shared: &'a Shared,
    pub peer: &'a Peer,
    pub who: Credentials,
    pub pace: Pace,
    pub now: Instant,
}

/// An open file and the export that it is of.
pub(super) struct File {
    pub export: Arc<ExportRoot>,
    pub node: Arc<Node>,
}

impl Peer {
    /// A peer at `addr`; an IPv4 address inside an IPv6 one is taken as what it is.
    pub fn new(addr: SocketAddr) -> Self {
        Peer {
            addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            grants: Mutex::default(),
        }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Cx<'_> {
    /// The file of a handle, if it is ours and its export this peer's.
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
        let grants = || self.peer.grants.lock().unwrap_or_else(|e| e.into_inner());
        let mut told = false;
        for grant in grants().iter().filter(|grant| grant.id == id) {
            if self.now < grant.until {
                return grant.export.clone().map_err(|status| self.refused(status));
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
            export: export.clone(),
            until: self.now + GRANT,
        });
        export.map_err(|status| self.refused(status))
    }

    fn refused(&self, status: Status) -> Stop {
        self.shared.counters.count(Count::ExportRefused);
        Stop::Fault(status)
    }
}
