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

/// Most bytes of file data or of a listing in a datagram: FreeBSD's kernel and loader ask for 16 KiB at most (NFS_MAXDGRAMDATA in its
/// sys/fs/nfs/nfsport.h, NFSREAD_MAX_SIZE in its stand/libsa/nfs.c).
const DATAGRAM_DATA: u32 = 16 << 10;
/// Most bytes of a reply in a datagram. The data, attributes and headers of a reply are always less.
const DATAGRAM: usize = DATAGRAM_DATA as usize + 4096;

/// How a call arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Stream,
    Datagram,
}

/// What happens to a record that is no call which can be executed; appends the reply if it gets one.
pub(crate) fn unanswerable(why: Unanswerable, out: &mut Buf) -> Outcome {
    match why {
        Unanswerable::NoCall => Outcome::Close,
        Unanswerable::Reply => Outcome::Silent,
        Unanswerable::RpcVersion { xid } => {
            rpc::put_rpc_mismatch(out, xid);
            Outcome::Replied
        }
        Unanswerable::Auth { xid, why } => {
            rpc::put_auth_error(out, xid, why);
            Outcome::Replied
        }
    }
}

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
        let outcome = self.reply(peer, record, out, pace, now, Transport::Stream);
        if outcome == Outcome::Replied {
            let length = (out.len() - start - 4) as u32;
            out.patch_u32(start, length | 1 << 31);
        } else {
            out.truncate(start);
        }
        outcome
    }

    /// Executes the call in a UDP datagram from `peer`, and appends its reply, without a record mark, to `out`.
    ///
    /// The sender's address may be forged, so replies go to nodes only, and a stranger gets no more bytes than it sent: a reply to a
    /// ping. Lists (DUMP, EXPORT) and ACLs are left to TCP, and reads are limited to what fits into a datagram.
    pub fn answer_datagram(&self, peer: &Peer, datagram: &[u8], out: &mut Buf, pace: Pace, now: Instant) -> Outcome {
        let start = out.len();
        let is_ping = || Call::parse(datagram).is_ok_and(|call| call.procedure == 0);
        if !self.shared.exports.is_node(peer.addr()) && !is_ping() {
            self.shared.counters.count(Count::DatagramsOfStrangers);
            return Outcome::Silent;
        }
        let outcome = match self.reply(peer, datagram, out, pace, now, Transport::Datagram) {
            Outcome::Close => Outcome::Silent,
            Outcome::Replied if out.len() - start > DATAGRAM => {
                self.shared.counters.count(Count::SystemError);
                Outcome::Silent
            }
            outcome => outcome,
        };
        if outcome != Outcome::Replied {
            out.truncate(start);
        }
        outcome
    }

    /// Executes a call and appends its reply. If the result is not [`Outcome::Replied`], the caller removes what was appended.
    fn reply(
        &self,
        peer: &Peer,
        record: &[u8],
        out: &mut Buf,
        pace: Pace,
        now: Instant,
        transport: Transport,
    ) -> Outcome {
        let why = match Call::parse(record) {
            Ok(call) => return self.execute(peer, call, out, pace, now, transport),
            Err(why) => why,
        };
        self.shared.counters.count(match why {
            Unanswerable::NoCall => Count::MalformedCall,
            Unanswerable::Reply => Count::UnexpectedReply,
            Unanswerable::RpcVersion { .. } => Count::RpcMismatch,
            Unanswerable::Auth { .. } => Count::BadCredentials,
        });
        unanswerable(why, out)
    }

    fn execute(
        &self,
        peer: &Peer,
        call: Call<'_>,
        out: &mut Buf,
        pace: Pace,
        now: Instant,
        transport: Transport,
    ) -> Outcome {
        let start = out.len();
        let refuse = |out: &mut Buf, count, why| {
            self.shared.counters.count(count);
            out.truncate(start);
            rpc::put_not_executed(out, call.xid, why);
            Outcome::Replied
        };
        let by_datagram = transport == Transport::Datagram;
        let procedures = match (call.program, call.version) {
            (NFSACL, _) if by_datagram => return refuse(out, Count::ProgUnavail, AcceptStat::ProgUnavail),
            (NFS, 3) => procs::COUNT,
            (MOUNT, 3) => mount::COUNT,
            (NFSACL, 3) => nfsacl::COUNT,
            (NFS | MOUNT | NFSACL, _) => return refuse(out, Count::ProgMismatch, AcceptStat::ProgMismatch(3, 3)),
            _ => return refuse(out, Count::ProgUnavail, AcceptStat::ProgUnavail),
        };
        let listed = call.program == MOUNT && matches!(call.procedure, mount::DUMP | mount::EXPORT);
        if call.procedure >= procedures || (by_datagram && listed) {
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
            max_data: match transport {
                Transport::Stream => procs::MAX_DATA,
                Transport::Datagram => DATAGRAM_DATA,
            },
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
