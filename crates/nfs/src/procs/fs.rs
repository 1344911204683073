//! FSSTAT, FSINFO, PATHCONF, COMMIT.

use super::{KnownAttr, failure, handle_arg, open_file, or_failure, put_known_attr};
use crate::{
    attr::{FileType, put_wcc_unchanged},
    buf::Buf,
    context::Cx,
    export::Pace,
    status::{Status, Stop},
    xdr::Reader,
};

/// FSF3_LINK, FSF3_SYMLINK, FSF3_HOMOGENEOUS, FSF3_CANSETTIME (RFC 1813, 3.3.19): the features of the file systems below, even if
/// this export does not allow their use.
const PROPERTIES: u32 = 0x01 | 0x02 | 0x08 | 0x10;

/// Procedure 18.
pub fn fsstat(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (start, mut seen) = (out.len(), None);
    let result = sizes(cx, handle, &mut seen, out);
    or_failure(result, start, &seen, out)
}

fn sizes(cx: &Cx<'_>, handle: &[u8], seen: &mut KnownAttr, out: &mut Buf) -> Result<(), Stop> {
    let (file, _) = open_file(cx, handle, seen)?;
    // xfs and btrfs add up counters of all CPUs or groups, and may wait for a transaction.
    if cx.pace == Pace::Inline {
        return Err(Stop::WouldBlock);
    }
    let s = file.export.statvfs()?;
    out.u32(Status::Ok as u32);
    put_known_attr(out, seen);
    for blocks in [s.f_blocks, s.f_bfree, s.f_bavail] {
        out.u64(blocks.saturating_mul(s.f_frsize));
    }
    for files in [s.f_files, s.f_ffree, s.f_favail] {
        out.u64(files);
    }
    // invarsec is 0, because other programs write to this disk.
    out.u32(0);
    Ok(())
}

/// Procedure 19.
pub fn fsinfo(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (start, mut seen) = (out.len(), None);
    let result = open_file(cx, handle, &mut seen).map(|_| {
        out.u32(Status::Ok as u32);
        put_known_attr(out, &seen);
        // rtmax, rtpref, rtmult, wtmax, wtpref, wtmult, dtpref. Linux uses dtpref as the size of its READDIRPLUS.
        let max = cx.max_data;
        for size in [max, max, 4096, max, max, 4096, max.min(64 << 10)] {
            out.u32(size);
        }
        out.u64(i64::MAX as u64);
        // time_delta: 1 ns
        out.u32(0);
        out.u32(1);
        out.u32(PROPERTIES);
    });
    or_failure(result, start, &seen, out)
}

/// Procedure 20.
pub fn pathconf(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (start, mut seen) = (out.len(), None);
    let result = open_file(cx, handle, &mut seen).map(|(file, _)| {
        out.u32(Status::Ok as u32);
        put_known_attr(out, &seen);
        out.u32(link_max(file.export.fs_type()));
        // name_max, no_trunc, chown_restricted, case_insensitive, case_preserving
        for value in [255, 1, 1, 0, 1] {
            out.u32(value);
        }
    });
    or_failure(result, start, &seen, out)
}

/// Most hard links of a file, by the magic number of statfs(2). The kernel has these limits only in its sources (EXT4_LINK_MAX,
/// XFS_MAXLINK, BTRFS_LINK_MAX; tmpfs has none).
fn link_max(fs_type: i64) -> u32 {
    match fs_type {
        0xef53 => 65_000,
        0x5846_5342 | 0x0102_1994 => i32::MAX as u32,
        0x9123_683e => 65_535,
        // _POSIX_LINK_MAX of limits.h
        _ => 8,
    }
}

/// Procedure 21. On a read-only export all data is on disk already.
pub fn commit(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let (_offset, _count) = (args.u64()?, args.u32()?);
    let (start, mut seen) = (out.len(), None);
    let result = open_file(cx, handle, &mut seen).and_then(|(file, attr)| {
        if attr.kind != FileType::Regular {
            return Err(Status::Inval.into());
        }
        out.u32(Status::Ok as u32);
        put_wcc_unchanged(out, Some(&attr), file.export.fsid());
        out.put(&cx.shared.write_verifier);
        Ok(())
    });
    if failure(result, start, out)? {
        match &seen {
            Some((attr, fsid)) => put_wcc_unchanged(out, Some(attr), *fsid),
            None => put_wcc_unchanged(out, None, 0),
        }
    }
    Ok(())
}
