//! Who may do what: Unix permissions as the Linux kernel's own NFS server applies them.
//!
//! Rules: mode bits by owner, group, others, the first class that fits decides (`acl_permission_check`,
//! fs/namei.c); where a file has an ACL, that instead of the mode's group and others. Root (uid 0, there is no root squash: a node's root owns its root) reads and
//! searches everything, and executes what has any execute bit. READ has two exceptions
//! (`nfsd_permission`, fs/nfsd/vfs.c): the owner may read a file whatever its mode is, because a program
//! that opened it before a chmod can still read it; and execute permission alone is enough, because
//! running a program reads it. ACCESS has no exceptions: it is what open(2) is decided from.

use super::{
    acl::Acl,
    attr::{Attr, FileType},
};

/// Uid and gids of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    uid: u32,
    gid: u32,
    groups: [u32; Credentials::MAX_GROUPS],
    count: usize,
}

impl Credentials {
    /// Supplementary groups of AUTH_SYS (RFC 5531, appendix A).
    pub const MAX_GROUPS: usize = 16;

    /// A caller; of `groups` the first 16 count.
    pub fn new(uid: u32, gid: u32, groups: &[u32]) -> Self {
        let mut credentials = Credentials {
            uid,
            gid,
            groups: [0; Self::MAX_GROUPS],
            count: 0,
        };
        for group in groups {
            credentials.add_group(*group);
        }
        credentials
    }

    /// AUTH_NONE: nobody (65534) and nogroup.
    pub fn nobody() -> Self {
        Credentials::new(65534, 65534, &[])
    }

    /// Adds a supplementary group, if there is room.
    pub fn add_group(&mut self, gid: u32) {
        if let Some(slot) = self.groups.get_mut(self.count) {
            *slot = gid;
            self.count += 1;
        }
    }

    /// True for user id 0.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// True if the file's ACL, should it have one, matters: not for root and the owner, nor where its mask (which is what the
    /// mode's group bits then are) is empty; the kernel (`acl_permission_check`) does not look at it there either.
    pub fn needs_acl(&self, attr: &Attr) -> bool {
        !self.is_root() && self.uid != attr.uid && attr.mode & 0o070 != 0 && attr.kind != FileType::Symlink
    }

    fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups[..self.count].contains(&gid)
    }

    /// `rwx` bits that apply to this caller, root's privileges included.
    fn rights(&self, attr: &Attr, acl: Option<&Acl>) -> u32 {
        if self.is_root() {
            let executable = attr.kind == FileType::Directory || attr.mode & 0o111 != 0;
            return if executable { 0o7 } else { 0o6 };
        }
        let class = if self.uid == attr.uid {
            attr.mode >> 6
        } else if let Some(acl) = acl {
            acl.rights(self.uid, attr.gid, |group| self.in_group(group))
        } else if self.in_group(attr.gid) {
            attr.mode >> 3
        } else {
            attr.mode
        };
        class & 0o7
    }
}

const R: u32 = 4;
const W: u32 = 2;
const X: u32 = 1;

/// ACCESS3_READ (RFC 1813, 3.3.4): read data or list a directory.
pub const ACCESS_READ: u32 = 0x01;
/// ACCESS3_LOOKUP: look up names in a directory.
pub const ACCESS_LOOKUP: u32 = 0x02;
/// ACCESS3_MODIFY: rewrite data or entries.
pub const ACCESS_MODIFY: u32 = 0x04;
/// ACCESS3_EXTEND: write new data or entries.
pub const ACCESS_EXTEND: u32 = 0x08;
/// ACCESS3_EXECUTE: run a file.
pub const ACCESS_EXECUTE: u32 = 0x20;

/// May the caller look up names in this directory?
pub fn may_search(attr: &Attr, acl: Option<&Acl>, who: &Credentials) -> bool {
    who.rights(attr, acl) & X != 0
}

/// May the caller list this directory?
pub fn may_list(attr: &Attr, acl: Option<&Acl>, who: &Credentials) -> bool {
    who.rights(attr, acl) & R != 0
}

/// May the caller READ this file?
pub fn may_read(attr: &Attr, acl: Option<&Acl>, who: &Credentials) -> bool {
    who.uid == attr.uid || who.rights(attr, acl) & (R | X) != 0
}

/// The bits of `asked` that the caller has, on a read-only export.
///
/// MODIFY and EXTEND are never granted on files and directories. They are on devices, fifos and sockets by their
/// mode: writing to `/dev/null` changes nothing on the server, and the client asks us before it opens
/// one (`nfs3_anyaccess` with `NFSD_MAY_LOCAL_ACCESS`, fs/nfsd/vfs.c). DELETE is never granted.
pub fn granted(attr: &Attr, acl: Option<&Acl>, who: &Credentials, asked: u32) -> u32 {
    let rights = who.rights(attr, acl);
    let mut bits = 0;
    if rights & R != 0 {
        bits |= ACCESS_READ;
    }
    match attr.kind {
        FileType::Directory => {
            if rights & X != 0 {
                bits |= ACCESS_LOOKUP;
            }
        }
        FileType::Regular | FileType::Symlink => {
            if rights & X != 0 {
                bits |= ACCESS_EXECUTE;
            }
        }
        FileType::Block | FileType::Character | FileType::Socket | FileType::Fifo => {
            if rights & X != 0 {
                bits |= ACCESS_EXECUTE;
            }
            if rights & W != 0 {
                bits |= ACCESS_MODIFY | ACCESS_EXTEND;
            }
        }
    }
    bits & asked
}

#[cfg(test)]
mod tests;
