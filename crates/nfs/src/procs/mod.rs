//! The procedures of NFS version 3 (RFC 1813, section 3.3). Arguments are parsed completely first; a call whose arguments cannot be parsed
//! gets GARBAGE_ARGS. Bytes after the arguments are ignored, as in the Linux server.

mod fs;
mod modify;
pub(super) mod nfsacl;
mod object;
mod read;
mod readdir;

use super::{
    acl::Acl,
    attr::{Attr, put_post_op},
    buf::Buf,
    context::{Cx, File},
    status::{Status, Stop},
    xdr::Reader,
};

/// Number of procedures.
pub const COUNT: u32 = 22;
/// Most bytes of data in one READ, and of one directory listing: the largest size that Linux requests by default. Larger READs need memory
/// for every reading node, and are not measurably faster on a 10 Gb/s link.
pub const MAX_DATA: u32 = 1 << 20;

/// Runs a procedure with a number below [`COUNT`].
pub(super) fn run(cx: &Cx<'_>, procedure: u32, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    match procedure {
        0 => Ok(()),
        1 => object::getattr(cx, args, out),
        3 => object::lookup(cx, args, out),
        4 => object::access(cx, args, out),
        5 => object::readlink(cx, args, out),
        6 => read::read(cx, args, out),
        16 => readdir::readdir(cx, args, out),
        17 => readdir::readdirplus(cx, args, out),
        18 => fs::fsstat(cx, args, out),
        19 => fs::fsinfo(cx, args, out),
        20 => fs::pathconf(cx, args, out),
        21 => fs::commit(cx, args, out),
        _ => modify::refuse(cx, procedure, args, out),
    }
}

/// Attributes that were read before a failure, and the export's fsid.
type KnownAttr = Option<(Attr, u64)>;

/// Opens the file of a handle, and stores its attributes in `seen`.
fn open_file(cx: &Cx<'_>, handle: &[u8], seen: &mut KnownAttr) -> Result<(File, Attr), Stop> {
    let file = cx.file(handle)?;
    let attr = file.node.attr()?;
    *seen = Some((attr, file.export.fsid()));
    Ok((file, attr))
}

/// The file's ACL, if it has one that matters for the caller.
fn acl<'a>(cx: &Cx<'_>, file: &'a File, attr: &Attr) -> Result<Option<&'a Acl>, Stop> {
    if cx.who.needs_acl(attr) {
        file.node.acl(cx.pace)
    } else {
        Ok(None)
    }
}

fn put_known_attr(out: &mut Buf, seen: &KnownAttr) {
    match seen {
        Some((attr, fsid)) => put_post_op(out, Some(attr), *fsid),
        None => out.u32(0),
    }
}

/// The failure result of most procedures: the status, and attributes if known.
fn or_failure(result: Result<(), Stop>, start: usize, seen: &KnownAttr, out: &mut Buf) -> Result<(), Stop> {
    if failure(result, start, out)? {
        put_known_attr(out, seen);
    }
    Ok(())
}

/// True if `result` is a fault. Then only its status is written after `start`.
fn failure(result: Result<(), Stop>, start: usize, out: &mut Buf) -> Result<bool, Stop> {
    match result {
        Ok(()) => Ok(false),
        Err(Stop::Fault(status)) => {
            out.truncate(start);
            out.u32(status as u32);
            Ok(true)
        }
        Err(other) => Err(other),
    }
}

/// A handle in a call's arguments. Handles longer than `NFS3_FHSIZE` are parsed too, and get NFS3ERR_BADHANDLE.
fn handle_arg<'a>(args: &mut Reader<'a>) -> Result<&'a [u8], Stop> {
    Ok(args.opaque(usize::MAX)?)
}

/// Refuses everything except a single name.
///
/// # Errors
/// NFS3ERR_NAMETOOLONG over 255 bytes; NFS3ERR_ACCES, as in the Linux server, for an empty name and one with NUL or `/`.
fn check_name(name: &[u8]) -> Result<(), Status> {
    if name.len() > 255 {
        return Err(Status::NameTooLong);
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return Err(Status::Acces);
    }
    Ok(())
}
