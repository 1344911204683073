//! GETATTR, LOOKUP, ACCESS, READLINK.

use super::{KnownAttr, acl, check_name, failure, handle_arg, open_file, or_failure, put_known_attr};
use crate::{
    access,
    attr::{FileType, put_post_op},
    buf::Buf,
    context::Cx,
    export::Pace,
    status::{Status, Stop},
    xdr::Reader,
};

/// Procedure 1.
pub fn getattr(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let start = out.len();
    let result = open_file(cx, handle, &mut None).map(|(file, attr)| {
        out.u32(Status::Ok as u32);
        attr.put(out, file.export.fsid());
    });
    failure(result, start, out).map(|_| ())
}

/// Procedure 3.
pub fn lookup(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let name = args.opaque(usize::MAX)?;
    let (start, mut seen) = (out.len(), None);
    let result = find(cx, handle, name, &mut seen, out);
    or_failure(result, start, &seen, out)
}

fn find(cx: &Cx<'_>, handle: &[u8], name: &[u8], seen: &mut KnownAttr, out: &mut Buf) -> Result<(), Stop> {
    let (dir, dir_attr) = open_file(cx, handle, seen)?;
    if !dir_attr.is_dir() {
        return Err(Status::NotDir.into());
    }
    check_name(name)?;
    if !access::may_search(&dir_attr, acl(cx, &dir, &dir_attr)?, &cx.who) {
        return Err(Status::Acces.into());
    }
    let (node, attr) = dir.export.child(&dir.node, name, cx.pace)?;
    let handle = cx.shared.key.seal(dir.export.id(), node.id());
    out.u32(Status::Ok as u32);
    out.opaque(handle.as_slice());
    put_post_op(out, Some(&attr), dir.export.fsid());
    put_known_attr(out, seen);
    Ok(())
}

/// Procedure 4.
pub fn access(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let asked = args.u32()?;
    let (start, mut seen) = (out.len(), None);
    let result = open_file(cx, handle, &mut seen).and_then(|(file, attr)| {
        let granted = access::granted(&attr, acl(cx, &file, &attr)?, &cx.who, asked);
        out.u32(Status::Ok as u32);
        put_known_attr(out, &seen);
        out.u32(granted);
        Ok(())
    });
    or_failure(result, start, &seen, out)
}

/// Procedure 5.
pub fn readlink(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (start, mut seen) = (out.len(), None);
    let result = target(cx, handle, &mut seen, out);
    or_failure(result, start, &seen, out)
}

fn target(cx: &Cx<'_>, handle: &[u8], seen: &mut KnownAttr, out: &mut Buf) -> Result<(), Stop> {
    let (file, attr) = open_file(cx, handle, seen)?;
    if attr.kind != FileType::Symlink {
        return Err(Status::Inval.into());
    }
    // Long targets are in disk blocks of their own.
    if cx.pace == Pace::Inline && attr.used > 0 {
        return Err(Stop::WouldBlock);
    }
    let target = rustix::fs::readlinkat(file.node.fd(), "", Vec::new())?;
    out.u32(Status::Ok as u32);
    put_known_attr(out, seen);
    out.opaque(target.as_bytes());
    Ok(())
}
