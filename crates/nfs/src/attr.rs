//! File attributes: `fattr3`, `post_op_attr`, `wcc_data` (RFC 1813, section 2.6).

use super::buf::Buf;

/// `ftype3`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// NF3REG
    Regular = 1,
    /// NF3DIR
    Directory = 2,
    /// NF3BLK
    Block = 3,
    /// NF3CHR
    Character = 4,
    /// NF3LNK
    Symlink = 5,
    /// NF3SOCK
    Socket = 6,
    /// NF3FIFO
    Fifo = 7,
}

/// A point in time, `nfstime3`: unsigned 32-bit seconds, so 1970 to 2106.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since 1970.
    pub secs: u32,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanos: u32,
}

/// The content of `fattr3` except the file system's id, which is the export's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// File, directory, link or one of the other types of inodes.
    pub kind: FileType,
    /// Permission bits with suid, sgid and sticky: `07777`.
    pub mode: u32,
    /// Number of hard links to the inode.
    pub nlink: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Id of the group that the file belongs to.
    pub gid: u32,
    /// Length of the file in bytes.
    pub size: u64,
    /// Bytes on disk; fewer than `size` if the file has holes.
    pub used: u64,
    /// Major and minor number of devices, else zeros.
    pub rdev: (u32, u32),
    /// Inode number, which NFS calls the file id.
    pub fileid: u64,
    /// Time of the last access.
    pub atime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
}

/// Bytes of `fattr3` on the wire.
#[cfg(test)]
const FATTR_BYTES: usize = 84;

impl Time {
    /// Times before 1970 become 1970, and times after 2106 the last second that fits.
    pub fn clamped(secs: i64, nanos: u32) -> Self {
        match u32::try_from(secs) {
            Ok(secs) => Time { secs, nanos },
            Err(_) if secs < 0 => Time::default(),
            Err(_) => Time {
                secs: u32::MAX,
                nanos: 0,
            },
        }
    }

    fn put(&self, out: &mut Buf) {
        out.u32(self.secs);
        out.u32(self.nanos);
    }
}

impl Attr {
    /// `fattr3`
    pub fn put(&self, out: &mut Buf, fsid: u64) {
        out.u32(self.kind as u32);
        out.u32(self.mode);
        out.u32(self.nlink);
        out.u32(self.uid);
        out.u32(self.gid);
        out.u64(self.size);
        out.u64(self.used);
        out.u32(self.rdev.0);
        out.u32(self.rdev.1);
        out.u64(fsid);
        out.u64(self.fileid);
        self.atime.put(out);
        self.mtime.put(out);
        self.ctime.put(out);
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }
}

/// `post_op_attr`
pub fn put_post_op(out: &mut Buf, attr: Option<&Attr>, fsid: u64) {
    match attr {
        Some(attr) => {
            out.u32(1);
            attr.put(out, fsid);
        }
        None => out.u32(0),
    }
}

/// `wcc_data` of an operation that changed nothing: the attributes before and after are equal.
pub fn put_wcc_unchanged(out: &mut Buf, attr: Option<&Attr>, fsid: u64) {
    match attr {
        Some(attr) => {
            out.u32(1);
            out.u64(attr.size);
            attr.mtime.put(out);
            attr.ctime.put(out);
        }
        None => out.u32(0),
    }
    put_post_op(out, attr, fsid);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_clamped_to_the_range_of_the_wire() {
        assert_eq!(Time::clamped(-1, 5), Time { secs: 0, nanos: 0 });
        assert_eq!(Time::clamped(7, 5), Time { secs: 7, nanos: 5 });
        assert_eq!(
            Time::clamped(1 << 32, 5),
            Time {
                secs: u32::MAX,
                nanos: 0
            }
        );
    }

    #[test]
    fn fattr3_has_84_bytes_in_the_rfc_order() {
        let attr = Attr {
            kind: FileType::Character,
            mode: 0o1666,
            nlink: 3,
            uid: 4,
            gid: 5,
            size: 6,
            used: 7,
            rdev: (8, 9),
            fileid: 11,
            atime: Time { secs: 12, nanos: 13 },
            mtime: Time { secs: 14, nanos: 15 },
            ctime: Time { secs: 16, nanos: 17 },
        };
        let mut out = Buf::default();
        attr.put(&mut out, 10);
        let words: Vec<u32> = out
            .as_slice()
            .chunks(4)
            .map(|w| u32::from_be_bytes(w.try_into().unwrap()))
            .collect();
        assert_eq!(
            words,
            [
                4, 0o1666, 3, 4, 5, 0, 6, 0, 7, 8, 9, 0, 10, 0, 11, 12, 13, 14, 15, 16, 17
            ]
        );
        assert_eq!(out.len(), FATTR_BYTES);
        out.clear();
        put_wcc_unchanged(&mut out, Some(&attr), 10);
        assert_eq!(out.len(), 4 + 24 + 4 + FATTR_BYTES);
    }
}
