//! `nfsstat3` (RFC 1813, section 2.6), and the conversion from errno.

use rustix::io::Errno;

/// Results of NFS procedures that the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the RFC's")]
pub enum Status {
    Ok = 0,
    NoEnt = 2,
    Io = 5,
    Acces = 13,
    NotDir = 20,
    IsDir = 21,
    Inval = 22,
    RoFs = 30,
    NameTooLong = 63,
    Stale = 70,
    BadHandle = 10001,
    BadCookie = 10003,
    NotSupp = 10004,
    TooSmall = 10005,
    ServerFault = 10006,
    Jukebox = 10008,
}

/// Why a procedure has no result yet, or has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The result is this status.
    Fault(Status),
    /// The arguments do not parse: GARBAGE_ARGS.
    Garbage,
    /// It would have to wait for a disk, which this thread must not: call it again on a thread that may.
    WouldBlock,
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Stop::Fault(status)
    }
}

impl From<super::xdr::Malformed> for Stop {
    fn from(_: super::xdr::Malformed) -> Self {
        Stop::Garbage
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Stop::Fault(match errno {
            // This only comes with RESOLVE_CACHED or RWF_NOWAIT, and means: not in memory.
            Errno::AGAIN => return Stop::WouldBlock,
            Errno::NOENT => Status::NoEnt,
            // EXDEV: the name leads out of the export (RESOLVE_BENEATH, RESOLVE_NO_XDEV).
            Errno::ACCESS | Errno::PERM | Errno::XDEV => Status::Acces,
            Errno::NOTDIR => Status::NotDir,
            Errno::ISDIR => Status::IsDir,
            Errno::INVAL => Status::Inval,
            Errno::NAMETOOLONG => Status::NameTooLong,
            Errno::STALE => Status::Stale,
            // The process lacks descriptors or memory. This is temporary, and JUKEBOX makes the client try again.
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR => Status::Jukebox,
            _ => Status::Io,
        })
    }
}
