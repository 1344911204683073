//! The MOUNT protocol, version 3 (RFC 1813, appendix I).

use super::{
    buf::Buf,
    context::{Cx, Peer, Shared},
    counters::Count,
    export::Pace,
    exports::{NfsEvent, Refusal},
    mounts::MountTable,
    status::Stop,
    xdr::Reader,
};
use rackstrap_base::sync::lock;
use std::net::{IpAddr, SocketAddr};

/// Number of procedures.
pub const COUNT: u32 = 6;
/// MOUNTPROC3_MNT
pub const MNT: u32 = 1;
/// MOUNTPROC3_DUMP
pub const DUMP: u32 = 2;
/// MOUNTPROC3_EXPORT
pub const EXPORT: u32 = 5;
/// MNTPATHLEN
const MAX_PATH: usize = 1024;
/// AUTH_SYS, the only flavor that identifies the caller.
const AUTH_SYS: u32 = 1;

const MNT3_OK: u32 = 0;
const MNT3ERR_NOENT: u32 = 2;
const MNT3ERR_ACCES: u32 = 13;
const MNT3ERR_SERVERFAULT: u32 = 10006;

/// Runs a procedure with a number below [`COUNT`].
pub(super) fn run(cx: &Cx<'_>, procedure: u32, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let peer = cx.peer.addr();
    match procedure {
        0 => {}
        MNT => mnt(cx, args, out)?,
        DUMP => dump(cx.shared, peer.ip(), out),
        3 => {
            let path = args.opaque(MAX_PATH)?;
            if table(cx.shared).remove(peer.ip(), path) {
                unmounted(cx.shared, peer, path);
            }
        }
        4 => {
            let paths = table(cx.shared).remove_all(peer.ip());
            for path in paths {
                unmounted(cx.shared, peer, &path);
            }
        }
        EXPORT if cx.pace == Pace::Inline => return Err(Stop::WouldBlock),
        _ => {
            for path in cx.shared.exports.list(peer) {
                out.u32(1);
                out.opaque(&path);
                // The list of groups is empty: every peer that sees this entry may mount it.
                out.u32(0);
            }
            out.u32(0);
        }
    }
    Ok(())
}

fn table(shared: &Shared) -> std::sync::MutexGuard<'_, MountTable> {
    lock(&shared.mounts)
}

fn printable(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

fn unmounted(shared: &Shared, peer: SocketAddr, path: &[u8]) {
    shared.exports.observe(NfsEvent::Unmounted {
        peer,
        path: printable(path),
    });
}

/// A peer sees its own entries only, not the mounts of other nodes.
fn dump(shared: &Shared, peer: IpAddr, out: &mut Buf) {
    for path in table(shared).of(peer) {
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
    let (shared, peer) = (cx.shared, cx.peer.addr());
    match shared.exports.mount(peer, path) {
        Ok(export) => {
            let handle = shared.key.seal(export.id(), export.root_id());
            out.u32(MNT3_OK);
            out.opaque(handle.as_slice());
            out.u32(1);
            out.u32(AUTH_SYS);
            table(shared).add(peer.ip(), path);
            shared.exports.observe(NfsEvent::Mounted {
                peer,
                export: export.name().to_owned(),
            });
        }
        Err(refusal) => {
            shared.counters.count(Count::ExportRefused);
            out.u32(match refusal {
                Refusal::NoSuchExport => MNT3ERR_NOENT,
                Refusal::NotYours(_) => MNT3ERR_ACCES,
                Refusal::Unavailable(_) => MNT3ERR_SERVERFAULT,
            });
            observe_refusal(shared, peer, path, refusal.to_string());
        }
    }
    Ok(())
}

fn observe_refusal(shared: &Shared, peer: SocketAddr, path: &[u8], why: String) {
    shared.exports.observe(NfsEvent::MountRefused {
        peer,
        path: printable(path),
        why,
    });
}

/// Records an event for a MNT that was refused for its source port. The usual cause is the mount option `noresvport`, or NAT, and not an
/// attack.
pub(super) fn refused_port(shared: &Shared, peer: &Peer, mut args: Reader<'_>) {
    let path = args.opaque(MAX_PATH).unwrap_or_default();
    let why = format!(
        "source port {} is not privileged (below 1024); mount as root and without noresvport",
        peer.addr().port()
    );
    observe_refusal(shared, peer.addr(), path, why);
}
