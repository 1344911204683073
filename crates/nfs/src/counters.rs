//! Counters for metrics.

use rackstrap_base::counters::{self, Counted, ReadCounts, counted};

counted! {
    /// Procedures of NFSv3 by their number (RFC 1813 section 3).
    enum NfsProcedure {
        Null = "nfs_null",
        GetAttr = "nfs_getattr",
        SetAttr = "nfs_setattr",
        Lookup = "nfs_lookup",
        Access = "nfs_access",
        ReadLink = "nfs_readlink",
        Read = "nfs_read",
        Write = "nfs_write",
        Create = "nfs_create",
        Mkdir = "nfs_mkdir",
        Symlink = "nfs_symlink",
        Mknod = "nfs_mknod",
        Remove = "nfs_remove",
        Rmdir = "nfs_rmdir",
        Rename = "nfs_rename",
        Link = "nfs_link",
        ReadDir = "nfs_readdir",
        ReadDirPlus = "nfs_readdirplus",
        FsStat = "nfs_fsstat",
        FsInfo = "nfs_fsinfo",
        PathConf = "nfs_pathconf",
        Commit = "nfs_commit",
    }
}

counted! {
    /// Procedures of MOUNT version 3 by their number (RFC 1813 section 5).
    enum MountProcedure {
        Null = "mount_null",
        Mnt = "mount_mnt",
        Dump = "mount_dump",
        Umnt = "mount_umnt",
        UmntAll = "mount_umntall",
        Export = "mount_export",
    }
}

counted! {
    /// Procedures of NFSACL version 3 by their number.
    enum NfsaclProcedure {
        Null = "nfsacl_null",
        GetAcl = "nfsacl_getacl",
        SetAcl = "nfsacl_setacl",
    }
}

counted! {
    /// Counters besides those of calls.
    pub enum Count {
        /// Connections that were accepted.
        Connections = "connections",
        /// Connections that were refused because there were too many.
        ConnectionsRefused = "connections_refused",
        /// Idle connections that the server closed to admit another one.
        ConnectionsDisplaced = "connections_displaced",
        /// Connections that the server closed because no call came for a long time.
        ConnectionsIdle = "connections_idle",
        /// Connections that the server closed because the peer did not read its replies.
        ConnectionsStalled = "connections_stalled",
        /// Datagrams of addresses that are not nodes', which are not answered.
        DatagramsOfStrangers = "datagrams_of_strangers",
        /// Datagrams that are not answered, because their sender has too many calls that wait, or gets too many bytes.
        DatagramsDropped = "datagrams_dropped",
        /// A record that is too long, or has too many fragments.
        MalformedRecord = "malformed_record",
        /// A record that is not an RPC call.
        MalformedCall = "malformed_call",
        /// A reply. The server sends no calls, so no reply is expected.
        UnexpectedReply = "malformed_unexpected_reply",
        /// A call of an RPC version other than 2.
        RpcMismatch = "malformed_rpc_version",
        /// Credentials that cannot be parsed, or of an unknown flavor.
        BadCredentials = "refused_credentials",
        /// A source port that is not privileged.
        UnprivilegedPort = "refused_unprivileged_port",
        /// A call to an unknown program.
        ProgUnavail = "malformed_program",
        /// A call to an unknown version of a program.
        ProgMismatch = "malformed_version",
        /// A call to an unknown procedure of a program.
        ProcUnavail = "malformed_procedure",
        /// Arguments that cannot be parsed.
        GarbageArgs = "malformed_arguments",
        /// A handle that the server did not make.
        BadHandle = "refused_bad_handle",
        /// A handle of a file that no longer exists.
        StaleHandle = "refused_stale_handle",
        /// Calls of peers that may not use the export.
        ExportRefused = "refused_export",
        /// Calls that failed for a reason inside the server.
        SystemError = "system_error",
        /// Calls that had to wait for a disk.
        Blocking = "calls_blocking",
        /// Bytes sent as file data.
        ReadBytes = "read_bytes",
    }
}

/// All counters since the start, shared by all connections.
#[derive(Debug, Default)]
pub struct Counters {
    nfs: counters::Counters<NfsProcedure>,
    mount: counters::Counters<MountProcedure>,
    nfsacl: counters::Counters<NfsaclProcedure>,
    other: counters::Counters<Count>,
}

impl Counters {
    /// Increments the counter of `what`.
    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }

    /// Adds `n` to the counter of `what`.
    pub fn add(&self, what: Count, n: u64) {
        self.other.add(what, n);
    }

    pub(super) fn nfs_call(&self, procedure: u32) {
        count_nth(&self.nfs, procedure);
    }

    pub(super) fn mount_call(&self, procedure: u32) {
        count_nth(&self.mount, procedure);
    }

    pub(super) fn nfsacl_call(&self, procedure: u32) {
        count_nth(&self.nfsacl, procedure);
    }
}

fn count_nth<K: Counted>(counters: &counters::Counters<K>, procedure: u32) {
    if let Some(procedure) = K::ALL.get(procedure as usize) {
        counters.count(*procedure);
    }
}

impl ReadCounts for Counters {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        let calls = self.nfs.read().chain(self.mount.read()).chain(self.nfsacl.read());
        calls.chain(self.other.read()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_under_the_name_of_their_procedure() {
        let counters = Counters::default();
        for (procedure, times) in [(0, 1), (17, 2), (21, 3), (22, 9)] {
            (0..times).for_each(|_| counters.nfs_call(procedure));
        }
        counters.mount_call(5);
        counters.nfsacl_call(1);
        counters.add(Count::ReadBytes, 4096);
        let counted: Vec<_> = counters.counts().into_iter().filter(|(_, n)| *n > 0).collect();
        let expected = [
            ("nfs_null", 1),
            ("nfs_readdirplus", 2),
            ("nfs_commit", 3),
            ("mount_export", 1),
            ("nfsacl_getacl", 1),
            ("read_bytes", 4096),
        ];
        assert_eq!(counted, expected);
    }
}
