//! READDIR and READDIRPLUS.
//!
//! A cookie is the kernel's own position after the entry (`d_off` of getdents64). ext4 and btrfs derive it from the name's hash or the
//! entry's number, so it stays valid when other entries change, and after a restart of the daemon. Linux' own server does the same.
//! Listings are not kept between calls.

use super::{KnownAttr, acl, handle_arg, open_file, or_failure, put_known_attr};
use crate::{
    access,
    attr::put_post_op,
    buf::Buf,
    context::{Cx, File},
    export::Pace,
    status::{Status, Stop},
    xdr::Reader,
};
use rustix::fs::{RawDir, SeekFrom};

/// Identifies the format of cookies. There is no other check, because cookies stay valid when a directory changes.
const VERIFIER: [u8; 8] = *b"d_off\0\0\x01";
/// Bytes at the end of a list: `value_follows` = false, and `eof`.
const END: usize = 8;

struct Request {
    cookie: u64,
    verifier: [u8; 8],
    /// Most bytes of names, file ids and cookies.
    dircount: usize,
    /// Most bytes of the result after its status.
    maxcount: usize,
    plus: bool,
}

/// Procedure 16.
pub fn readdir(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (cookie, verifier) = position(args)?;
    let count = args.u32()?.min(cx.max_data) as usize;
    let request = Request {
        cookie,
        verifier,
        dircount: usize::MAX,
        maxcount: count,
        plus: false,
    };
    answer(cx, handle, &request, out)
}

/// Procedure 17.
pub fn readdirplus(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (cookie, verifier) = position(args)?;
    let dircount = args.u32()? as usize;
    let maxcount = args.u32()?.min(cx.max_data) as usize;
    let request = Request {
        cookie,
        verifier,
        dircount,
        maxcount,
        plus: true,
    };
    answer(cx, handle, &request, out)
}

fn position(args: &mut Reader<'_>) -> Result<(u64, [u8; 8]), Stop> {
    let cookie = args.u64()?;
    let verifier = *args.fixed(8)?.first_chunk().ok_or(Stop::Garbage)?;
    Ok((cookie, verifier))
}

fn answer(cx: &Cx<'_>, handle: &[u8], request: &Request, out: &mut Buf) -> Result<(), Stop> {
    // Directory blocks may be on disk, and the kernel has no call that reads only those in memory.
    if cx.pace == Pace::Inline {
        return Err(Stop::WouldBlock);
    }
    let (start, mut seen) = (out.len(), None);
    let result = list(cx, handle, request, &mut seen, out);
    or_failure(result, start, &seen, out)
}

fn list(cx: &Cx<'_>, handle: &[u8], request: &Request, seen: &mut KnownAttr, out: &mut Buf) -> Result<(), Stop> {
    let (dir, attr) = open_file(cx, handle, seen)?;
    if !attr.is_dir() {
        return Err(Status::NotDir.into());
    }
    let acl = acl(cx, &dir, &attr)?;
    if !access::may_list(&attr, acl, &cx.who) {
        return Err(Status::Acces.into());
    }
    let fd = dir.export.listing(&dir.node)?;
    if request.cookie != 0 {
        if request.verifier != VERIFIER || i64::try_from(request.cookie).is_err() {
            return Err(Status::BadCookie.into());
        }
        rustix::fs::seek(&fd, SeekFrom::Start(request.cookie)).map_err(|_| Status::BadCookie)?;
    }
    out.u32(Status::Ok as u32);
    let start = out.len();
    put_known_attr(out, seen);
    out.put(&VERIFIER);
    let entry_bytes = if request.plus { 200 } else { 40 };
    let mut memory = Vec::with_capacity((request.maxcount / entry_bytes * 32).clamp(2048, 64 << 10));
    let mut entries = RawDir::new(&fd, memory.spare_capacity_mut());
    // Attributes and handles of entries need permission to search the directory; names only need permission to read it.
    let with_attr = request.plus && access::may_search(&attr, acl, &cx.who);
    let (mut eof, mut any, mut names) = (true, false, 0);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let before = out.len();
        let ino = match name {
            b".." if dir.node.id() == dir.export.root_id() => attr.fileid,
            _ => entry.ino(),
        };
        put_entry(
            cx,
            &dir,
            request.plus,
            with_attr,
            name,
            ino,
            entry.next_entry_cookie(),
            out,
        );
        names += 20 + name.len().next_multiple_of(4);
        if out.len() - start + END > request.maxcount || (any && names > request.dircount) {
            out.truncate(before);
            eof = false;
            break;
        }
        any = true;
    }
    if !any && !eof || out.len() - start + END > request.maxcount {
        return Err(Status::TooSmall.into());
    }
    out.u32(0);
    out.u32(eof.into());
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "entry3 has these fields")]
fn put_entry(cx: &Cx<'_>, dir: &File, plus: bool, with_attr: bool, name: &[u8], ino: u64, cookie: u64, out: &mut Buf) {
    // An entry that has vanished is listed without attributes; a LOOKUP will fail.
    let peeked = with_attr.then(|| dir.export.peek(&dir.node, name).ok()).flatten();
    out.u32(1);
    // overlayfs may have another number in the directory than stat(2) returns.
    out.u64(peeked.as_ref().map_or(ino, |(_, attr)| attr.fileid));
    out.opaque(name);
    out.u64(cookie);
    match peeked {
        Some((id, attr)) => {
            put_post_op(out, Some(&attr), dir.export.fsid());
            out.u32(1);
            out.opaque(cx.shared.key.seal(dir.export.id(), &id).as_slice());
        }
        None if plus => {
            out.u32(0);
            out.u32(0);
        }
        None => {}
    }
}
