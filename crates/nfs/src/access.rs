//! Permissions of callers: Unix permissions as the Linux kernel's own NFS server applies them.
//!
//! Mode bits apply by owner, group, others: the first class that matches decides (`acl_permission_check`, fs/namei.c). If a file has
//! an ACL, it replaces the mode's bits for group and others. Root (uid 0; there is no root squash, because a node's root owns its
//! root) reads and searches everything, and executes files with any execute bit. READ has two exceptions (`nfsd_permission`,
//! fs/nfsd/vfs.c): the owner may read a file of any mode, because a program that opened it before a chmod can still read it; and
//! execute permission is enough, because running a program reads it. ACCESS has no exceptions, because open(2) depends on it.

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

    /// A caller. Only the first 16 of `groups` count.
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

    /// Adds a supplementary group, unless there are 16.
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

    /// True if an ACL of the file can matter: not for root and the owner, nor if its mask, which the mode's group bits then are, is
    /// empty. The kernel (`acl_permission_check`) does not read it in these cases either.
    pub fn needs_acl(&self, attr: &Attr) -> bool {
        !self.is_root() && self.uid != attr.uid && attr.mode & 0o070 != 0 && attr.kind != FileType::Symlink
    }

    fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups[..self.count].contains(&gid)
    }

    /// The `rwx` bits of this caller, including root's privileges.
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

/// True if the caller may look up names in this directory.
pub fn may_search(attr: &Attr, acl: Option<&Acl>, who: &Credentials) -> bool {
    who.rights(attr, acl) & X != 0
}

/// True if the caller may list this directory.
pub fn may_list(attr: &Attr, acl: Option<&Acl>, who: &Credentials) -> bool {
    who.rights(attr, acl) & R != 0
}

/// True if the caller may READ this file.
pub fn may_read(attr: &Attr, acl: Option<&Acl>, who: &Credentials) -> bool {
    who.uid == attr.uid || who.rights(attr, acl) & (R | X) != 0
}

/// The bits of `asked` that the caller has, on a read-only export.
///
/// MODIFY and EXTEND are never granted on files and directories. On devices, fifos and sockets their mode decides: writing to
/// `/dev/null` changes nothing on the server, and the client asks the server before it opens one (`nfs3_anyaccess` with
/// `NFSD_MAY_LOCAL_ACCESS`, fs/nfsd/vfs.c). DELETE is never granted.
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
