//! The procedures that would change something: all of them parse their arguments, and answer NFS3ERR_ROFS with the attributes of the
//! objects that they would change.

use super::{KnownAttr, handle_arg, open_file, put_known_attr};
use crate::{
    attr::put_wcc_unchanged,
    buf::Buf,
    context::Cx,
    status::{Status, Stop},
    xdr::{Malformed, Reader},
};

/// NFS3ERR_BADTYPE
const BAD_TYPE: u32 = 10007;

/// The content of a failure result after its status.
enum Shape<'a> {
    /// `wcc_data` of one object.
    Object(&'a [u8]),
    /// RENAME: `wcc_data` of the old and of the new directory.
    TwoDirs(&'a [u8], &'a [u8]),
    /// LINK: attributes of the file, `wcc_data` of the directory.
    FileAndDir(&'a [u8], &'a [u8]),
    /// MKNOD of a type that it does not support.
    BadType(&'a [u8]),
}

/// Runs SETATTR, WRITE, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, RENAME or LINK, by number.
pub fn refuse(cx: &Cx<'_>, procedure: u32, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    match parse(procedure, args)? {
        Shape::Object(object) => {
            let (status, seen) = verdict(cx, object, procedure > 7)?;
            out.u32(status as u32);
            put_wcc(out, &seen);
        }
        Shape::BadType(dir) => {
            let (status, seen) = verdict(cx, dir, true)?;
            out.u32(if status == Status::RoFs {
                BAD_TYPE
            } else {
                status as u32
            });
            put_wcc(out, &seen);
        }
        Shape::TwoDirs(from, to) => {
            let (from_status, from) = verdict(cx, from, true)?;
            let (to_status, to) = verdict(cx, to, true)?;
            let status = if from_status == Status::RoFs {
                to_status
            } else {
                from_status
            };
            out.u32(status as u32);
            put_wcc(out, &from);
            put_wcc(out, &to);
        }
        Shape::FileAndDir(file, dir) => {
            let (file_status, file) = verdict(cx, file, false)?;
            let (dir_status, dir) = verdict(cx, dir, true)?;
            let status = if file_status == Status::RoFs {
                dir_status
            } else {
                file_status
            };
            out.u32(status as u32);
            put_known_attr(out, &file);
            put_wcc(out, &dir);
        }
    }
    Ok(())
}

/// NFS3ERR_ROFS, or the fault of the handle.
fn verdict(cx: &Cx<'_>, handle: &[u8], must_be_dir: bool) -> Result<(Status, KnownAttr), Stop> {
    let mut seen = None;
    let status = match open_file(cx, handle, &mut seen) {
        Ok((_, attr)) if must_be_dir && !attr.is_dir() => Status::NotDir,
        Ok(_) => Status::RoFs,
        Err(Stop::Fault(status)) => status,
        Err(other) => return Err(other),
    };
    Ok((status, seen))
}

fn put_wcc(out: &mut Buf, seen: &KnownAttr) {
    match seen {
        Some((attr, fsid)) => put_wcc_unchanged(out, Some(attr), *fsid),
        None => put_wcc_unchanged(out, None, 0),
    }
}

fn parse<'a>(procedure: u32, args: &mut Reader<'a>) -> Result<Shape<'a>, Stop> {
    let object = handle_arg(args)?;
    match procedure {
        // SETATTR: attributes, and optionally a ctime that must match.
        2 => {
            sattr(args)?;
            if args.bool()? {
                args.u64()?;
            }
        }
        // WRITE
        7 => {
            let (_offset, _count) = (args.u64()?, args.u32()?);
            enumerated(args, 2)?;
            args.opaque(usize::MAX)?;
        }
        // CREATE: unchecked and guarded with attributes, exclusive with a verifier.
        8 => {
            args.opaque(usize::MAX)?;
            match enumerated(args, 2)? {
                2 => {
                    args.u64()?;
                }
                _ => sattr(args)?,
            }
        }
        // MKDIR
        9 => {
            args.opaque(usize::MAX)?;
            sattr(args)?;
        }
        // SYMLINK
        10 => {
            args.opaque(usize::MAX)?;
            sattr(args)?;
            args.opaque(usize::MAX)?;
        }
        // MKNOD: block and character devices with their numbers, sockets and fifos without.
        11 => {
            args.opaque(usize::MAX)?;
            match args.u32()? {
                3 | 4 => {
                    sattr(args)?;
                    args.u64()?;
                }
                6 | 7 => sattr(args)?,
                1 | 2 | 5 => return Ok(Shape::BadType(object)),
                _ => return Err(Stop::Garbage),
            }
        }
        // RENAME
        14 => {
            args.opaque(usize::MAX)?;
            let to = handle_arg(args)?;
            args.opaque(usize::MAX)?;
            return Ok(Shape::TwoDirs(object, to));
        }
        // LINK
        15 => {
            let dir = handle_arg(args)?;
            args.opaque(usize::MAX)?;
            return Ok(Shape::FileAndDir(object, dir));
        }
        // REMOVE, RMDIR
        _ => {
            args.opaque(usize::MAX)?;
        }
    }
    Ok(Shape::Object(object))
}

fn enumerated(args: &mut Reader<'_>, last: u32) -> Result<u32, Malformed> {
    match args.u32()? {
        value if value <= last => Ok(value),
        _ => Err(Malformed),
    }
}

/// `sattr3`
fn sattr(args: &mut Reader<'_>) -> Result<(), Malformed> {
    for _mode_uid_gid in 0..3 {
        if args.bool()? {
            args.u32()?;
        }
    }
    if args.bool()? {
        args.u64()?;
    }
    for _atime_mtime in 0..2 {
        // DONT_CHANGE, SET_TO_SERVER_TIME, SET_TO_CLIENT_TIME
        if enumerated(args, 2)? == 2 {
            args.u64()?;
        }
    }
    Ok(())
}
