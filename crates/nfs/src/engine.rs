//! Answers one RPC record with one reply: programs, versions, procedures, and the exports of handles.
//!
//! There is no duplicate request cache. Such a cache repeats the replies of calls that changed something, because executing a repeated
//! REMOVE or CREATE again would fail. On read-only exports no call changes anything, so repeated calls are executed again. With
//! writable exports the cache would be in [`Engine::answer`], between parsing and dispatch, keyed by peer address (not connection),
//! XID, and a checksum of the call.

use super::{
    buf::Buf,
    context::{Cx, Peer, Shared},
    counters::{Count, Counters},
    export::Pace,
    exports::Exports,
    handle::HandleKey,
    mount,
    procs::{self, nfsacl},
    rpc::{self, AcceptStat, AuthStat, Call, Unanswerable},
    status::Stop,
};
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

/// NFS_PROGRAM (RFC 1813)
pub const NFS: u32 = 100_003;
/// MOUNT_PROGRAM (RFC 1813, appendix I)
pub const MOUNT: u32 = 100_005;
/// NFS_ACL_PROGRAM (linux/nfsacl.h)
pub const NFSACL: u32 = 100_227;

/// Answers the calls of all connections.
pub struct Engine {
    shared: Shared,
    privileged_ports_only: bool,
}

/// The result for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A reply with its record mark was appended.
    Replied,
    /// Nothing was appended. The call must be made again on a thread that may block.
    WouldBlock,
    /// Nothing was appended, and no reply is sent.
    Silent,
    /// Nothing was appended. The peer does not speak RPC, so the connection must be closed.
    Close,
}

impl Engine {
    /// An engine that serves `exports` with handles sealed by `key`.
    pub fn new(
        exports: Arc<dyn Exports>,
        key: HandleKey,
        counters: Arc<Counters>,
        privileged_ports_only: bool,
        write_verifier: [u8; 8],
    ) -> Self {
        Engine {
            shared: Shared {
                exports,
                key,
                counters,
                mounts: Mutex::default(),
                write_verifier,
            },
            privileged_ports_only,
        }
    }

    /// Executes the call in `record` from `peer`, and appends its reply to `out`.
    pub fn answer(&self, peer: &Peer, record: &[u8], out: &mut Buf, pace: Pace, now: Instant) -> Outcome {
        let start = out.len();
        out.u32(0);
        let outcome = match Call::parse(record) {
            Ok(call) => self.execute(peer, call, out, pace, now),
            Err(Unanswerable::NoCall) => {
                self.shared.counters.count(Count::MalformedCall);
                Outcome::Close
            }
            Err(Unanswerable::Reply) => {
                self.shared.counters.count(Count::UnexpectedReply);
                Outcome::Silent
            }
            Err(Unanswerable::RpcVersion { xid }) => {
                self.shared.counters.count(Count::RpcMismatch);
                rpc::put_rpc_mismatch(out, xid);
                Outcome::Replied
            }
            Err(Unanswerable::Auth { xid, why }) => {
                self.shared.counters.count(Count::BadCredentials);
                rpc::put_auth_error(out, xid, why);
                Outcome::Replied
            }
        };
        if outcome == Outcome::Replied {
            let length = (out.len() - start - 4) as u32;
            out.patch_u32(start, length | 1 << 31);
        } else {
            out.truncate(start);
        }
        outcome
    }

    fn execute(&self, peer: &Peer, call: Call<'_>, out: &mut Buf, pace: Pace, now: Instant) -> Outcome {
        let start = out.len();
        let refuse = |out: &mut Buf, count, why| {
            self.shared.counters.count(count);
            out.truncate(start);
            rpc::put_not_executed(out, call.xid, why);
            Outcome::Replied
        };
        let procedures = match (call.program, call.version) {
            (NFS, 3) => procs::COUNT,
            (MOUNT, 3) => mount::COUNT,
            (NFSACL, 3) => nfsacl::COUNT,
            (NFS | MOUNT | NFSACL, _) => return refuse(out, Count::ProgMismatch, AcceptStat::ProgMismatch(3, 3)),
            _ => return refuse(out, Count::ProgUnavail, AcceptStat::ProgUnavail),
        };
        if call.procedure >= procedures {
            return refuse(out, Count::ProcUnavail, AcceptStat::ProcUnavail);
        }
        // NULL is a ping and returns no data, so any port may send it.
        if self.privileged_ports_only && peer.addr().port() >= 1024 && call.procedure != 0 {
            self.shared.counters.count(Count::UnprivilegedPort);
            if call.program == MOUNT && call.procedure == mount::MNT {
                mount::refused_port(&self.shared, peer, call.args);
            }
            rpc::put_auth_error(out, call.xid, AuthStat::TooWeak);
            return Outcome::Replied;
        }
        rpc::put_success(out, call.xid);
        let cx = Cx {
            shared: &self.shared,
            peer,
            who: call.credentials,
            pace,
            now,
        };
        let mut args = call.args;
        let done = match call.program {
            NFS => procs::run(&cx, call.procedure, &mut args, out),
            NFSACL => nfsacl::run(&cx, call.procedure, &mut args, out),
            _ => mount::run(&cx, call.procedure, &mut args, out),
        };
        match done {
            Err(Stop::WouldBlock) if pace == Pace::Inline => return Outcome::WouldBlock,
            Err(Stop::Garbage) => return refuse(out, Count::GarbageArgs, AcceptStat::GarbageArgs),
            // Every procedure converts its faults to its own failure result, and `MayBlock` never returns `WouldBlock`.
            Err(Stop::Fault(_) | Stop::WouldBlock) => return refuse(out, Count::SystemError, AcceptStat::SystemErr),
            Ok(()) => {}
        }
        match call.program {
            NFS => self.shared.counters.nfs_call(call.procedure),
            NFSACL => self.shared.counters.nfsacl_call(call.procedure),
            _ => self.shared.counters.mount_call(call.procedure),
        }
        Outcome::Replied
    }
}
