//! NFSACL version 3: POSIX ACLs, on the same connection as NFS. No RFC has it; this is what Linux speaks (fs/nfs/nfs3acl.c,
//! fs/nfsd/nfs3acl.c, fs/nfs_common/nfsacl.c) and took from Solaris.
//!
//! A root cannot do without it: overlayfs asks the layer below for a file's ACL before it lets anybody but the file's owner
//! at it (`ovl_get_acl`, fs/overlayfs/inode.c). Of a server that does not speak NFSACL, and of a mount with `noacl`,
//! the answer is EOPNOTSUPP, and that is then what execve(2) says to every user but root.

use super::{Seen, handle_arg, look, or_failure, put_seen};
use crate::{
    acl::Acl,
    attr::Attr,
    buf::Buf,
    context::Cx,
    status::{Status, Stop},
    xdr::Reader,
};

/// Procedures are numbered from 0 up to, and without, this number.
pub const COUNT: u32 = 3;

/// The ACL's entries are asked for.
const ACL: u32 = 0x1;
/// The number of its entries is.
const ACL_COUNT: u32 = 0x2;
/// The same of the ACL that a directory hands down.
const DEFAULT: u32 = 0x4;
const DEFAULT_COUNT: u32 = 0x8;
/// Marks the tags of entries of the latter.
const DEFAULT_TAG: u32 = 0x1000;

/// Runs a procedure below [`COUNT`].
pub fn run(cx: &Cx<'_>, procedure: u32, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    match procedure {
        0 => Ok(()),
        1 => get(cx, args, out),
        _ => set(cx, args, out),
    }
}

/// GETACL
fn get(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let asked = args.u32()?;
    let (start, mut seen) = (out.len(), None);
    let result = answer(cx, handle, asked, &mut seen, out);
    or_failure(result, start, &seen, out)
}

fn answer(cx: &Cx<'_>, handle: &[u8], asked: u32, seen: &mut Seen, out: &mut Buf) -> Result<(), Stop> {
    let (file, attr) = look(cx, handle, seen)?;
    if asked & !(ACL | ACL_COUNT | DEFAULT | DEFAULT_COUNT) != 0 {
        return Err(Status::Inval.into());
    }
    let own = match asked & (ACL | ACL_COUNT) {
        0 => None,
        _ => Some(match file.node.acl(cx.pace)? {
            Some(acl) => acl.clone(),
            None => Acl::of_mode(attr.mode),
        }),
    };
    let default = match asked & (DEFAULT | DEFAULT_COUNT) {
        0 => None,
        _ if !attr.is_dir() => None,
        _ => file.node.default_acl(cx.pace)?,
    };
    out.u32(Status::Ok as u32);
    put_seen(out, seen);
    out.u32(asked);
    put_acl(out, own.as_ref(), &attr, asked & ACL != 0, 0);
    put_acl(out, default.as_ref(), &attr, asked & DEFAULT != 0, DEFAULT_TAG);
    Ok(())
}

/// The number of entries; then, behind their number once more, those that were asked for.
fn put_acl(out: &mut Buf, acl: Option<&Acl>, attr: &Attr, whole: bool, tag_bits: u32) {
    let entries = acl.map(|acl| acl.wire(attr.uid, attr.gid));
    let count = entries.as_ref().map_or(0, |entries| entries.len() as u32);
    out.u32(count);
    out.u32(if whole { count } else { 0 });
    for [tag, id, rights] in entries.into_iter().flatten().filter(|_| whole) {
        out.u32(tag | tag_bits);
        out.u32(id);
        out.u32(rights);
    }
}

/// SETACL, which nothing here allows; what was to be set is not looked at.
fn set(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (start, mut seen) = (out.len(), None);
    let result = look(cx, handle, &mut seen).and(Err(Status::RoFs.into()));
    or_failure(result, start, &seen, out)
}
