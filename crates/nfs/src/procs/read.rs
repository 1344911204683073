//! READ: copies from the page cache directly into the reply.

use super::{KnownAttr, acl, handle_arg, open_file, or_failure, put_known_attr};
use crate::{
    access,
    attr::FileType,
    buf::Buf,
    context::Cx,
    counters::Count,
    export::Pace,
    status::{Status, Stop},
    xdr::Reader,
};
use rustix::{
    fd::BorrowedFd,
    io::{Errno, ReadWriteFlags},
};
use std::io::IoSliceMut;

/// Procedure 6.
pub fn read(cx: &Cx<'_>, args: &mut Reader<'_>, out: &mut Buf) -> Result<(), Stop> {
    let handle = handle_arg(args)?;
    let offset = args.u64()?;
    let count = args.u32()?;
    let (start, mut seen) = (out.len(), None);
    let result = read_data(cx, handle, offset, count, &mut seen, out);
    or_failure(result, start, &seen, out)
}

fn read_data(
    cx: &Cx<'_>,
    handle: &[u8],
    offset: u64,
    count: u32,
    seen: &mut KnownAttr,
    out: &mut Buf,
) -> Result<(), Stop> {
    let (file, attr) = open_file(cx, handle, seen)?;
    match attr.kind {
        FileType::Regular => {}
        FileType::Directory => return Err(Status::IsDir.into()),
        _ => return Err(Status::Inval.into()),
    }
    if !access::may_read(&attr, acl(cx, &file, &attr)?, &cx.who) {
        return Err(Status::Acces.into());
    }
    let left = attr.size.saturating_sub(offset);
    let want = left.min(u64::from(count.min(cx.max_data))) as usize;
    out.u32(Status::Ok as u32);
    put_known_attr(out, seen);
    let header = out.len();
    out.put(&[0; 12]);
    let mut got = 0;
    if want > 0 {
        let fd = file.export.data(&file.node, cx.pace)?;
        // The padding is part of the tail, because the buffer's memory may contain old bytes.
        let room = out.tail(want.next_multiple_of(4));
        got = fill(fd, &mut room[..want], offset, cx.pace)?;
        room[got..got.next_multiple_of(4)].fill(0);
        out.advance(got.next_multiple_of(4));
    }
    // If the file is shorter by now, it ends where the read ended.
    let eof = got < want || got as u64 == left;
    out.patch_u32(header, got as u32);
    out.patch_u32(header + 4, eof.into());
    out.patch_u32(header + 8, got as u32);
    cx.shared.counters.add(Count::ReadBytes, got as u64);
    Ok(())
}

/// Reads until `room` is full or the file ends.
///
/// Inline, only data in the page cache is read (RWF_NOWAIT): copying it is fast, while waiting for a disk would delay all other
/// connections of this thread.
fn fill(fd: BorrowedFd<'_>, room: &mut [u8], offset: u64, pace: Pace) -> Result<usize, Stop> {
    let mut got = 0;
    while got < room.len() {
        let at = offset + got as u64;
        let read = match pace {
            Pace::Inline => {
                let mut slices = [IoSliceMut::new(&mut room[got..])];
                rustix::io::preadv2(fd, &mut slices, at, ReadWriteFlags::NOWAIT)
            }
            Pace::MayBlock => rustix::io::pread(fd, &mut room[got..], at),
        };
        match read {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::INTR) => {}
            // The file system does not support RWF_NOWAIT.
            Err(Errno::OPNOTSUPP) if pace == Pace::Inline => return Err(Stop::WouldBlock),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(got)
}
