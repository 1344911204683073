//! Counts, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const NFS: [&str; 22] = [
    "nfs_null",
    "nfs_getattr",
    "nfs_setattr",
    "nfs_lookup",
    "nfs_access",
    "nfs_readlink",
    "nfs_read",
    "nfs_write",
    "nfs_create",
    "nfs_mkdir",
    "nfs_symlink",
    "nfs_mknod",
    "nfs_remove",
    "nfs_rmdir",
    "nfs_rename",
    "nfs_link",
    "nfs_readdir",
    "nfs_readdirplus",
    "nfs_fsstat",
    "nfs_fsinfo",
    "nfs_pathconf",
    "nfs_commit",
];
const MOUNT: [&str; 6] = [
    "mount_null",
    "mount_mnt",
    "mount_dump",
    "mount_umnt",
    "mount_umntall",
    "mount_export",
];
const NFSACL: [&str; 3] = ["nfsacl_null", "nfsacl_getacl", "nfsacl_setacl"];

/// Things counted besides calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Connections accepted.
    Connections,
    /// Connections refused, as there were too many.
    ConnectionsRefused,
    /// Idle connections that we closed, as another one needed the place.
    ConnectionsDisplaced,
    /// Connections that we closed, as nothing came for long.
    ConnectionsIdle,
    /// Connections that we closed, as the peer did not take its replies.
    ConnectionsStalled,
    /// A record over the limit, or of too many fragments.
    MalformedRecord,
    /// A record that is no RPC call.
    MalformedCall,
    /// A reply, which nobody asked for.
    UnexpectedReply,
    /// Another RPC version.
    RpcMismatch,
    /// Unusable credentials.
    BadCredentials,
    /// A source port that is not privileged.
    UnprivilegedPort,
    /// An unknown program.
    ProgUnavail,
    /// An unknown version.
    ProgMismatch,
    /// An unknown procedure.
    ProcUnavail,
    /// Arguments that do not parse.
    GarbageArgs,
    /// A handle that we did not make.
    BadHandle,
    /// A handle whose file is gone.
    StaleHandle,
    /// Calls by peers whom the export does not belong to.
    ExportRefused,
    /// Calls that we could not make sense of ourselves.
    SystemError,
    /// Calls that had to wait for a disk.
    Blocking,
    /// Bytes sent as file data.
    ReadBytes,
}

const OTHER: [&str; Count::ReadBytes as usize + 1] = [
    "connections",
    "connections_refused",
    "connections_displaced",
    "connections_idle",
    "connections_stalled",
    "malformed_record",
    "malformed_call",
    "malformed_unexpected_reply",
    "malformed_rpc_version",
    "refused_credentials",
    "refused_unprivileged_port",
    "malformed_program",
    "malformed_version",
    "malformed_procedure",
    "malformed_arguments",
    "refused_bad_handle",
    "refused_stale_handle",
    "refused_export",
    "system_error",
    "calls_blocking",
    "read_bytes",
];

/// All counts since the start; shared by all connections.
#[derive(Debug)]
pub struct Counters {
    nfs: [AtomicU64; NFS.len()],
    mount: [AtomicU64; MOUNT.len()],
    nfsacl: [AtomicU64; NFSACL.len()],
    other: [AtomicU64; OTHER.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            nfs: [const { AtomicU64::new(0) }; _],
            mount: [const { AtomicU64::new(0) }; _],
            nfsacl: [const { AtomicU64::new(0) }; _],
            other: [const { AtomicU64::new(0) }; _],
        }
    }
}

impl Counters {
    /// Counts one.
    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }

    /// Counts `n`.
    pub fn add(&self, what: Count, n: u64) {
        self.other[what as usize].fetch_add(n, Relaxed);
    }

    pub(super) fn nfs_call(&self, procedure: u32) {
        if let Some(counter) = self.nfs.get(procedure as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn mount_call(&self, procedure: u32) {
        if let Some(counter) = self.mount.get(procedure as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn nfsacl_call(&self, procedure: u32) {
        if let Some(counter) = self.nfsacl.get(procedure as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// All counts with their names.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let read = |names: &[&'static str], counters: &[AtomicU64]| -> Vec<_> {
            names
                .iter()
                .zip(counters)
                .map(|(name, counter)| (*name, counter.load(Relaxed)))
                .collect()
        };
        [
            read(&NFS, &self.nfs),
            read(&MOUNT, &self.mount),
            read(&NFSACL, &self.nfsacl),
            read(&OTHER, &self.other),
        ]
        .concat()
    }
}
