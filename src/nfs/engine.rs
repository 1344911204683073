//! One RPC record in, one reply out: programs, versions, procedures, and whose export a handle is of.
//!
//! There is no duplicate request cache. It has to replay the replies of calls that
//! changed something, because executing a repeated REMOVE or CREATE again would fail; on read-only exports no call succeeds in
//! changing anything, and every repeated call is simply executed again. With writable exports it would sit in
//! [`Engine::answer`], between parsing and dispatch, keyed by peer address (not connection), XID, and a checksum of the call.

use super::{
    access::Credentials,
    buf::Buf,
    counters::{Count, Counters},
    export::{ExportRoot, Node, Pace},
    exports::{ExportId, Exports, NfsEvent, Refusal},
    handle::HandleKey,
    mount::{self, MountTable},
    procs,
    rpc::{self, AcceptStat, AuthStat, Call, Unanswerable},
    status::{Status, Stop},
    xdr::Reader,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// NFS_PROGRAM (RFC 1813)
pub const NFS: u32 = 100_003;
/// MOUNT_PROGRAM (RFC 1813, appendix I)
pub const MOUNT: u32 = 100_005;
/// How long an answer of [`Exports::by_id`] holds for a connection.
const GRANT: Duration = Duration::from_secs(1);
/// Exports that one connection uses at a time; a node has one, two during a change.
const GRANTS: usize = 8;

/// What all connections share.
pub struct Engine {
    pub(super) exports: Arc<dyn Exports>,
    pub(super) key: HandleKey,
    pub(super) counters: Arc<Counters>,
    pub(super) mounts: Mutex<MountTable>,
    /// Tells clients that the daemon was restarted: COMMIT's verifier differs from the last one.
    pub(super) write_verifier: [u8; 8],
    privileged_ports_only: bool,
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

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A reply, record mark included, was appended.
    Replied,
    /// Nothing was appended: the call has to be made again on a thread that may block.
    WouldBlock,
    /// Nothing was appended, and nothing is to be sent.
    Silent,
    /// Nothing was appended; the peer does not speak RPC, and the connection is to be closed.
    Close,
}

/// What a procedure may use.
pub(super) struct Cx<'a> {
    pub engine: &'a Engine,
    pub peer: &'a Peer,
    pub who: Credentials,
    pub pace: Pace,
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
            exports,
            key,
            counters,
            mounts: Mutex::default(),
            write_verifier,
            privileged_ports_only,
        }
    }

    /// Executes the call in `record` and appends its reply to `out`.
    pub fn answer(&self, peer: &Peer, record: &[u8], out: &mut Buf, pace: Pace) -> Outcome {
        let start = out.len();
        out.u32(0);
        let outcome = match Call::parse(record) {
            Ok(call) => self.execute(peer, call, out, pace),
            Err(Unanswerable::NoCall) => {
                self.counters.count(Count::MalformedCall);
                Outcome::Close
            }
            Err(Unanswerable::Reply) => {
                self.counters.count(Count::UnexpectedReply);
                Outcome::Silent
            }
            Err(Unanswerable::RpcVersion { xid }) => {
                self.counters.count(Count::RpcMismatch);
                rpc::put_rpc_mismatch(out, xid);
                Outcome::Replied
            }
            Err(Unanswerable::Auth { xid, why }) => {
                self.counters.count(Count::BadCredentials);
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

    fn execute(&self, peer: &Peer, call: Call<'_>, out: &mut Buf, pace: Pace) -> Outcome {
        let start = out.len();
        let refuse = |out: &mut Buf, count, why| {
            self.counters.count(count);
            out.truncate(start);
            rpc::put_not_executed(out, call.xid, why);
            Outcome::Replied
        };
        let procedures = match (call.program, call.version) {
            (NFS, 3) => procs::COUNT,
            (MOUNT, 3) => mount::COUNT,
            (NFS | MOUNT, _) => return refuse(out, Count::ProgMismatch, AcceptStat::ProgMismatch(3, 3)),
            // Linux asks for NFSACL (100227) here after every mount, and does without.
            _ => return refuse(out, Count::ProgUnavail, AcceptStat::ProgUnavail),
        };
        if call.procedure >= procedures {
            return refuse(out, Count::ProcUnavail, AcceptStat::ProcUnavail);
        }
        // NULL is a ping, and tells nothing.
        if self.privileged_ports_only && peer.addr.port() >= 1024 && call.procedure != 0 {
            self.counters.count(Count::UnprivilegedPort);
            if call.program == MOUNT && call.procedure == mount::MNT {
                mount::refused_port(self, peer, call.args);
            }
            rpc::put_auth_error(out, call.xid, AuthStat::TooWeak);
            return Outcome::Replied;
        }
        rpc::put_success(out, call.xid);
        let cx = Cx {
            engine: self,
            peer,
            who: call.credentials,
            pace,
        };
        let mut args = call.args;
        let done = match call.program {
            NFS => procs::run(&cx, call.procedure, &mut args, out),
            _ => mount::run(&cx, call.procedure, &mut args, out),
        };
        match done {
            Err(Stop::WouldBlock) if pace == Pace::Inline => return Outcome::WouldBlock,
            Err(Stop::Garbage) => return refuse(out, Count::GarbageArgs, AcceptStat::GarbageArgs),
            // Every procedure turns its faults into its own failure result, and none that may wait says that it would have to.
            Err(Stop::Fault(_) | Stop::WouldBlock) => return refuse(out, Count::SystemError, AcceptStat::SystemErr),
            Ok(()) => {}
        }
        match call.program {
            NFS => self.counters.nfs_call(call.procedure),
            _ => self.counters.mount_call(call.procedure),
        }
        Outcome::Replied
    }
}

impl Cx<'_> {
    /// The file of a handle, if it is ours and its export this peer's.
    pub fn file(&self, wire: &[u8]) -> Result<File, Stop> {
        let (export, id) = self.engine.key.open(wire).inspect_err(|_| {
            self.engine.counters.count(Count::BadHandle);
        })?;
        let export = self.export(export)?;
        let node = export.node(&id, self.pace).inspect_err(|stop| {
            if *stop == Stop::Fault(Status::Stale) {
                self.engine.counters.count(Count::StaleHandle);
            }
        })?;
        Ok(File { export, node })
    }

    fn export(&self, id: ExportId) -> Result<Arc<ExportRoot>, Stop> {
        let grants = || self.peer.grants.lock().unwrap_or_else(|e| e.into_inner());
        let now = Instant::now();
        let mut told = false;
        for grant in grants().iter().filter(|grant| grant.id == id) {
            if now < grant.until {
                return grant.export.clone().map_err(|status| self.refused(status));
            }
            told = grant.export.is_err();
        }
        if self.pace == Pace::Inline {
            return Err(Stop::WouldBlock);
        }
        let export = self.engine.exports.by_id(self.peer.addr, id).map_err(|refusal| {
            if !told {
                self.engine.exports.observe(NfsEvent::HandleRefused {
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
            until: now + GRANT,
        });
        export.map_err(|status| self.refused(status))
    }

    fn refused(&self, status: Status) -> Stop {
        self.engine.counters.count(Count::ExportRefused);
        Stop::Fault(status)
    }
}

/// A handle among a call's arguments. Longer ones than `NFS3_FHSIZE` are read too, to be answered NFS3ERR_BADHANDLE.
pub(super) fn handle_arg<'a>(args: &mut Reader<'a>) -> Result<&'a [u8], Stop> {
    Ok(args.opaque(usize::MAX)?)
}
