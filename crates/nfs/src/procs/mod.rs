//! The procedures of NFS version 3 (RFC 1813, section 3.3). Arguments are read whole before anything is
//! done; a call whose arguments do not parse is GARBAGE_ARGS. Bytes after the arguments are ignored, as the Linux server does.

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

/// Procedures are numbered from 0 up to, and without, this number.
pub const COUNT: u32 = 22;
/// Most bytes of data in one READ, and of one directory listing: what Linux asks for at most by itself. Larger READs cost
/// memory for every node that reads, and win nothing measurable on a 10 Gb/s link.
pub const MAX_DATA: u32 = 1 << 20;

/// Runs a procedure below [`COUNT`].
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

/// Attributes that were seen before something failed, and the export's fsid.
type Seen = Option<(Attr, u64)>;

/// Opens the file of a handle, and notes its attributes.
fn look(cx: &Cx<'_>, handle: &[u8], seen: &mut Seen) -> Result<(File, Attr), Stop> {
    let file = cx.file(handle)?;
    let attr = file.node.attr()?;
    *seen = Some((attr, file.export.fsid()));
    Ok((file, attr))
}

/// The file's ACL, if it has one that matters to the caller.
fn acl<'a>(cx: &Cx<'_>, file: &'a File, attr: &Attr) -> Result<Option<&'a Acl>, Stop> {
    if cx.who.needs_acl(attr) {
        file.node.acl(cx.pace)
    } else {
        Ok(None)
    }
}

fn put_seen(out: &mut Buf, seen: &Seen) {
    match seen {
        Some((attr, fsid)) => put_post_op(out, Some(attr), *fsid),
        None => out.u32(0),
    }
}

/// The failure result that most procedures share: status, and attributes if we have them.
fn or_failure(result: Result<(), Stop>, start: usize, seen: &Seen, out: &mut Buf) -> Result<(), Stop> {
    if failure(result, start, out)? {
        put_seen(out, seen);
    }
    Ok(())
}

/// True if `result` is a fault; its status then is all that is written since `start`.
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

/// A handle among a call's arguments. Longer ones than `NFS3_FHSIZE` are read too, to be answered NFS3ERR_BADHANDLE.
fn handle_arg<'a>(args: &mut Reader<'a>) -> Result<&'a [u8], Stop> {
    Ok(args.opaque(usize::MAX)?)
}

/// Refuses what is no single name.
///
/// # Errors
/// NFS3ERR_NAMETOOLONG over 255 bytes; NFS3ERR_ACCES, as the Linux server, for an empty name and one with NUL or `/`.
fn check_name(name: &[u8]) -> Result<(), Status> {
    if name.len() > 255 {
        return Err(Status::NameTooLong);
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return Err(Status::Acces);
    }
    Ok(())
}
