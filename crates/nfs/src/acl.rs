//! POSIX ACLs (acl(5)) as the kernel stores them. If a file has one, the mode's group bits are its mask, and are not the permissions
//! of the group.

/// Name of the extended attribute.
pub const XATTR: &str = "system.posix_acl_access";
/// Name of the attribute with the default ACL, which new files in a directory inherit.
pub const XATTR_DEFAULT: &str = "system.posix_acl_default";

/// Version of the format (`struct posix_acl_xattr_header`, linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One entry, in the stored form and in that of NFSACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    rights: u32,
    /// The user or group of [`USER`] and [`GROUP`] entries.
    id: u32,
}

/// A POSIX access control list, as the extended attribute of a file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// In the kernel's order: owner, users, own group, groups, mask, others.
    entries: Vec<Entry>,
}

impl Acl {
    /// Parses the attribute's value: a version, then entries of tag, rights, id, all little-endian. None if it is not an ACL.
    pub fn parse(value: &[u8]) -> Option<Acl> {
        let (version, mut rest) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION {
            return None;
        }
        let mut entries = Vec::with_capacity(rest.len() / 8);
        while let Some(([t0, t1, p0, p1, id @ ..], tail)) = rest.split_first_chunk::<8>() {
            entries.push(Entry {
                tag: u16::from_le_bytes([*t0, *t1]),
                rights: u32::from(u16::from_le_bytes([*p0, *p1])) & 0o7,
                id: u32::from_le_bytes(*id),
            });
            rest = tail;
        }
        rest.is_empty().then_some(Acl { entries })
    }

    /// The ACL of a mode. It has a mask that removes nothing, as the Linux server adds it for Solaris (`nfsacl_encode`,
    /// fs/nfs_common/nfsacl.c).
    pub fn of_mode(mode: u32) -> Acl {
        let entry = |tag, rights| Entry {
            tag,
            rights: rights & 0o7,
            id: 0,
        };
        Acl {
            entries: vec![
                entry(USER_OBJ, mode >> 6),
                entry(GROUP_OBJ, mode >> 3),
                entry(MASK, mode >> 3),
                entry(OTHER, mode),
            ],
        }
    }

    /// The `rwx` bits of a caller who is not the owner (`posix_acl_permission`, fs/posix_acl.c): an entry of the user decides alone;
    /// then all matching groups together; others only if no group matches.
    pub fn rights(&self, uid: u32, own_group: u32, in_group: impl Fn(u32) -> bool) -> u32 {
        let of = |tag| self.entries.iter().find(|e| e.tag == tag).map(|e| e.rights);
        let mask = of(MASK).unwrap_or(0o7);
        if let Some(user) = self.entries.iter().find(|e| e.tag == USER && e.id == uid) {
            return user.rights & mask;
        }
        self.entries
            .iter()
            .filter(|e| match e.tag {
                GROUP_OBJ => in_group(own_group),
                GROUP => in_group(e.id),
                _ => false,
            })
            .map(|e| e.rights)
            .reduce(|a, b| a | b)
            .map_or(of(OTHER).unwrap_or(0), |rights| rights & mask)
    }

    /// Tag, id and rights of each entry for NFSACL: the owner's and the own group's entries have the file's `uid` and `gid`, mask and
    /// others have 0 (`xdr_nfsace_encode`, fs/nfs_common/nfsacl.c).
    pub fn wire(&self, uid: u32, gid: u32) -> impl ExactSizeIterator<Item = [u32; 3]> {
        self.entries.iter().map(move |e| {
            let id = match e.tag {
                USER_OBJ => uid,
                GROUP_OBJ => gid,
                USER | GROUP => e.id,
                _ => 0,
            };
            [u32::from(e.tag), id, e.rights]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An attribute's value.
    pub fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            out.extend(tag.to_le_bytes());
            out.extend(rights.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
        out
    }

    #[test]
    fn the_first_kind_of_entry_that_matches_decides() {
        const NONE: u32 = u32::MAX;
        let acl = Acl::parse(&value(&[
            (USER_OBJ, 6, NONE),
            (USER, 7, 1000),
            (GROUP_OBJ, 0, NONE),
            (GROUP, 4, 50),
            (GROUP, 1, 51),
            (MASK, 5, NONE),
            (OTHER, 2, NONE),
        ]))
        .unwrap();
        let rights = |uid, groups: &[u32]| acl.rights(uid, 9, |g| groups.contains(&g));
        assert_eq!(rights(1000, &[9]), 5, "a named user, masked");
        assert_eq!(rights(1, &[9]), 0, "the file's group has the rights of others");
        assert_eq!(rights(1, &[9, 50]), 4);
        assert_eq!(rights(1, &[50, 51]), 5);
        assert_eq!(rights(1, &[1]), 2, "others, not masked");
    }

    #[test]
    fn a_mode_is_an_acl() {
        let acl = Acl::of_mode(0o100_640);
        assert!(acl.wire(5, 6).eq([[1, 5, 6], [4, 6, 4], [0x10, 0, 4], [0x20, 0, 0]]));
        assert_eq!(acl.rights(9, 6, |g| g == 6), 4);
        assert_eq!(acl.rights(9, 6, |_| false), 0);
    }

    #[test]
    fn other_values_are_not_an_acl() {
        assert_eq!(Acl::parse(&[]), None);
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), None);
        assert_eq!(Acl::parse(&[2, 0, 0, 0, 1]), None);
        assert!(Acl::parse(&[2, 0, 0, 0]).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes: Vec<u8>, uid: u32) {
            if let Some(acl) = Acl::parse(&bytes) {
                prop_assert!(acl.rights(uid, 0, |_| true) <= 7);
            }
        }
    }
}
