//! The MOUNT protocol, version 3 (RFC 1813, appendix I).

use super::{
    buf::Buf,
    counters::Count,
    engine::{Cx, Engine, Peer},
    export::Pace,
    exports::{NfsEvent, Refusal},
    status::Stop,
    xdr::Reader,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// Number of procedures.
pub const COUNT: u32 = 6;
/// MOUNTPROC3_MNT
pub const MNT: u32 = 1;
/// MNTPATHLEN
const MAX_PATH: usize = 1024;
/// AUTH_SYS, the only flavor that says who asks.
const AUTH_SYS: u32 = 1;

const MNT3_OK: u32 = 0;
const MNT3ERR_NOENT: u32 = 2;
const MNT3ERR_ACCES: u32 = 13;
const MNT3ERR_SERVERFAULT: u32 = 10006;

/// Who said to have mounted what. Advisory (nodes that are switched off never unmount), kept for
/// DUMP, and forgotten with the daemon.
#[derive(Debug, Default)]
pub struct MountTable {
    entries: BTreeSet<(IpAddr, Vec<u8>)>,
}

impl MountTable {
    /// Entries in all; what is more is not listed.
    const MAX: usize = 16_384;
    /// Entries of one peer.
    const MAX_PER_PEER: usize = 16;

    fn add(&mut self, peer: IpAddr, path: &[u8]) {
        if self.entries.len() < Self::MAX && self.of(peer).count() < Self::MAX_PER_PEER {
            self.entries.insert((peer, path.to_vec()));
        }
    }

    fn of(&self, peer: IpAddr) -> impl Iterator<Item = &Vec<u8>> {
        self.entries
            .range((peer, Vec::new())..)
            .take_while(move |(ip, _)| *ip == peer)
            .map(|(_, path)| path)
    }

    fn remove(&mut self, peer: IpAddr, path: &[u8]) -> bool {
        self.entries.remove(&(peer, path.to_vec()))
    }

    fn remove_all(&mut self, peer: IpAddr) -> Vec<Vec<u8>> {
        let paths: Vec<_> = self.of(peer).cloned().collect();
        for path in &paths {
            self.remove(peer, path);
        }
        paths
    }
}

/// Runs a procedure below [`COUNT`].
pub(super) fn run(cx: &Cx<'_>, procedure: u32, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let peer = cx.peer.addr();
    match procedure {
        0 => {}
        MNT => mnt(cx, args, out)?,
        2 => dump(cx.engine, peer.ip(), out),
        3 => {
            let path = args.opaque(MAX_PATH)?;
            if table(cx.engine).remove(peer.ip(), path) {
                unmounted(cx.engine, peer, path);
            }
        }
        4 => {
            let paths = table(cx.engine).remove_all(peer.ip());
            for path in paths {
                unmounted(cx.engine, peer, &path);
            }
        }
        5 if cx.pace == Pace::Inline => return Err(Stop::WouldBlock),
        _ => {
            for path in cx.engine.exports.list(peer) {
                out.u32(1);
                out.opaque(&path);
                // No list of groups: everybody who sees this list may mount.
                out.u32(0);
            }
            out.u32(0);
        }
    }
    Ok(())
}

fn table(engine: &Engine) -> std::sync::MutexGuard<'_, MountTable> {
    engine.mounts.lock().unwrap_or_else(|e| e.into_inner())
}

fn printable(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

fn unmounted(engine: &Engine, peer: SocketAddr, path: &[u8]) {
    engine.exports.observe(NfsEvent::Unmounted {
        peer,
        path: printable(path),
    });
}

/// A peer sees its own entries only: what other nodes run is none of its business.
fn dump(engine: &Engine, peer: IpAddr, out: &mut Buf) {
    for path in table(engine).of(peer) {
        out.u32(1);
        out.opaque(peer.to_string().as_bytes());
        out.opaque(path);
    }
    out.u32(0);
}

fn mnt(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let path = args.opaque(MAX_PATH)?;
    // Opening an export may take long.
    if cx.pace == Pace::Inline {
        return Err(Stop::WouldBlock);
    }
    let (engine, peer) = (cx.engine, cx.peer.addr());
    match engine.exports.mount(peer, path) {
        Ok(export) => {
            let handle = engine.key.seal(export.id(), export.root_id());
            out.u32(MNT3_OK);
            out.opaque(handle.as_slice());
            out.u32(1);
            out.u32(AUTH_SYS);
            table(engine).add(peer.ip(), path);
            engine.exports.observe(NfsEvent::Mounted {
                peer,
                export: export.name().to_owned(),
            });
        }
        Err(refusal) => {
            engine.counters.count(Count::ExportRefused);
            out.u32(match refusal {
                Refusal::NoSuchExport => MNT3ERR_NOENT,
                Refusal::NotYours(_) => MNT3ERR_ACCES,
                Refusal::Unavailable(_) => MNT3ERR_SERVERFAULT,
            });
            observe_refusal(engine, peer, path, refusal.to_string());
        }
    }
    Ok(())
}

fn observe_refusal(engine: &Engine, peer: SocketAddr, path: &[u8], why: String) {
    engine.exports.observe(NfsEvent::MountRefused {
        peer,
        path: printable(path),
        why,
    });
}

/// A MNT that was refused for its source port: worth an event, because it is the mount
/// option `noresvport`, or NAT, and not an attack, as a rule.
pub(super) fn refused_port(engine: &Engine, peer: &Peer, mut args: Reader<'_>) {
    let path = args.opaque(MAX_PATH).unwrap_or_default();
    let why = format!(
        "source port {} is not privileged (below 1024); mount as root and without noresvport",
        peer.addr().port()
    );
    observe_refusal(engine, peer.addr(), path, why);
}
