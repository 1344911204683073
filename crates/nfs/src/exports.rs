//! What the engine asks its surroundings: which exports there are and who may use them.

use super::{export::ExportRoot, handle::ExportId};
use std::{fmt, net::SocketAddr, sync::Arc};

/// Why a peer does not get an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No export has that name or id: MNT3ERR_NOENT, NFS3ERR_STALE.
    NoSuchExport,
    /// It is not this peer's; says why, for the log: MNT3ERR_ACCES, NFS3ERR_ACCES.
    NotYours(String),
    /// It exists and is the peer's, but cannot be had now; says why: MNT3ERR_SERVERFAULT,
    /// NFS3ERR_JUKEBOX (the client asks again).
    Unavailable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoSuchExport => f.write_str("no such export"),
            Refusal::NotYours(why) | Refusal::Unavailable(why) => f.write_str(why),
        }
    }
}

/// What happened, for timelines and logs. Never one per call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NfsEvent {
    /// A peer got the root handle of an export.
    Mounted {
        /// Address and port of the client.
        peer: SocketAddr,
        /// [`ExportRoot::name`]
        export: String,
    },
    /// A peer did not get what it asked to mount.
    MountRefused {
        /// Address and port of the client.
        peer: SocketAddr,
        /// What it asked for, made printable.
        path: String,
        /// The reason, in words for an administrator.
        why: String,
    },
    /// A peer used a handle of an export that it may not use (told once a connection and export).
    HandleRefused {
        /// Address and port of the client.
        peer: SocketAddr,
        /// The export of the handle.
        export: ExportId,
        /// The reason, in words for an administrator.
        why: String,
    },
    /// A peer said that it unmounted. Advisory: a node that is switched off says nothing.
    Unmounted {
        /// Address and port of the client.
        peer: SocketAddr,
        /// Path that it asked for, made printable.
        path: String,
    },
    /// A connection was refused or ended by us.
    Trouble {
        /// Address and port of the client.
        peer: SocketAddr,
        /// The reason, in words for an administrator.
        why: String,
    },
}

/// Who may use what; implemented by the daemon.
///
/// All of it is called on threads that may block, at most about once a second for each connection and export. The implementor
/// holds the exports that it answers with; connections do not, so that what it drops is closed.
pub trait Exports: Send + Sync + 'static {
    /// True if it is the address of a node: connections of nodes have places of their own. From memory.
    fn is_node(&self, peer: SocketAddr) -> bool;

    /// MNT of `path` by `peer`: which export.
    ///
    /// # Errors
    /// The refusal, which decides what the client sees.
    fn mount(&self, peer: SocketAddr, path: &[u8]) -> Result<Arc<ExportRoot>, Refusal>;

    /// The export with that id, if `peer` may use it now. After a restart of the daemon, handles come in
    /// without a MNT first.
    ///
    /// # Errors
    /// The refusal; every call with the handle then fails.
    fn by_id(&self, peer: SocketAddr, id: ExportId) -> Result<Arc<ExportRoot>, Refusal>;

    /// Paths that `peer` could mount, for the MOUNT protocol's EXPORT (`showmount -e`, `nfs-ls -D`).
    fn list(&self, peer: SocketAddr) -> Vec<Vec<u8>>;

    /// Takes an event, for timelines and the log.
    fn observe(&self, event: NfsEvent);
}
