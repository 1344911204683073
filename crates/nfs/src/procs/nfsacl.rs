//! NFSACL version 3: POSIX ACLs, on the same connection as NFS. No RFC specifies it; Linux took it from Solaris (fs/nfs/nfs3acl.c,
//! fs/nfsd/nfs3acl.c, fs/nfs_common/nfsacl.c).
//!
//! A node's root needs it: overlayfs reads a file's ACL from the layer below before it allows access to users other than the file's owner
//! (`ovl_get_acl`, fs/overlayfs/inode.c). Without NFSACL on the server, or with the mount option `noacl`, that fails with EOPNOTSUPP,
//! and so does execve(2) for every user except root.

use super::{KnownAttr, handle_arg, open_file, or_failure, put_known_attr};
use crate::{
    acl::Acl,
    attr::Attr,
    buf::Buf,
    context::Cx,
    status::{Status, Stop},
    xdr::Reader,
};

/// Number of procedures.
pub const COUNT: u32 = 3;

/// The request asks for the ACL's entries.
const ACL: u32 = 0x1;
/// The request asks for the number of its entries.
const ACL_COUNT: u32 = 0x2;
/// The same for the default ACL of a directory.
const DEFAULT: u32 = 0x4;
const DEFAULT_COUNT: u32 = 0x8;
/// Flag in the tags of a default ACL's entries.
const DEFAULT_TAG: u32 = 0x1000;

/// Runs a procedure with a number below [`COUNT`].
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

fn answer(cx: &Cx<'_>, handle: &[u8], asked: u32, seen: &mut KnownAttr, out: &mut Buf) -> Result<(), Stop> {
    let (file, attr) = open_file(cx, handle, seen)?;
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
    put_known_attr(out, seen);
    out.u32(asked);
    put_acl(out, own.as_ref(), &attr, asked & ACL != 0, 0);
    put_acl(out, default.as_ref(), &attr, asked & DEFAULT != 0, DEFAULT_TAG);
    Ok(())
}

/// Writes the number of entries; then, if `whole`, the number again and the entries.
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

/// SETACL, which is always refused; its ACL is not parsed.
fn set(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (start, mut seen) = (out.len(), None);
    let result = open_file(cx, handle, &mut seen).and(Err(Status::RoFs.into()));
    or_failure(result, start, &seen, out)
}
