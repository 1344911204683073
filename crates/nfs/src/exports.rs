//! The interface to the daemon: the exports and their permissions.

use super::{export::ExportRoot, handle::ExportId};
use std::{fmt, net::SocketAddr, sync::Arc};

/// Why a peer does not get an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No export has that name or id: MNT3ERR_NOENT, NFS3ERR_STALE.
    NoSuchExport,
    /// This peer may not use it; the text for the log says why: MNT3ERR_ACCES, NFS3ERR_ACCES.
    NotYours(String),
    /// The peer may use it, but it is not available now; the text says why: MNT3ERR_SERVERFAULT, NFS3ERR_JUKEBOX (the client tries
    /// again).
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

/// An event for timelines and logs. Calls do not cause events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NfsEvent {
    /// A peer got the root handle of an export.
    Mounted {
        /// Address and port of the client.
        peer: SocketAddr,
        /// [`ExportRoot::name`]
        export: String,
    },
    /// A peer was refused a mount.
    MountRefused {
        /// Address and port of the client.
        peer: SocketAddr,
        /// The path in the request, made printable.
        path: String,
        /// The reason, in words for an administrator.
        why: String,
    },
    /// A peer used a handle of an export that it may not use. Reported once for each connection and export.
    HandleRefused {
        /// Address and port of the client.
        peer: SocketAddr,
        /// The export of the handle.
        export: ExportId,
        /// The reason, in words for an administrator.
        why: String,
    },
    /// A peer reported an unmount. This is advisory: a node that is switched off does not report it.
    Unmounted {
        /// Address and port of the client.
        peer: SocketAddr,
        /// The path in the request, made printable.
        path: String,
    },
    /// The server refused or closed a connection.
    Trouble {
        /// Address and port of the client.
        peer: SocketAddr,
        /// The reason, in words for an administrator.
        why: String,
    },
}

/// Decides which peer may use which export; implemented by the daemon.
///
/// All methods except `is_node` are called on threads that may block, at most about once a second for each connection and export. The
/// implementor keeps the exports that it returns; connections do not, so an export that it drops is closed.
pub trait Exports: Send + Sync + 'static {
    /// True for the address of a node: connections of nodes have a limit of their own. It must answer from memory.
    fn is_node(&self, peer: SocketAddr) -> bool;

    /// The export for a MNT of `path` by `peer`.
    ///
    /// # Errors
    /// The refusal, which determines the client's error.
    fn mount(&self, peer: SocketAddr, path: &[u8]) -> Result<Arc<ExportRoot>, Refusal>;

    /// The export with that id, if `peer` may use it now. After a restart of the daemon, clients use handles without a MNT.
    ///
    /// # Errors
    /// The refusal; every call with the handle then fails.
    fn by_id(&self, peer: SocketAddr, id: ExportId) -> Result<Arc<ExportRoot>, Refusal>;

    /// The paths that `peer` can mount, for EXPORT of the MOUNT protocol (`showmount -e`, `nfs-ls -D`).
    fn list(&self, peer: SocketAddr) -> Vec<Vec<u8>>;

    /// Records an event on timelines and in the log.
    fn observe(&self, event: NfsEvent);
}
