//! POSIX ACLs (acl(5)) as the kernel stores them: the mode's group bits of a file that has one are its mask, and
//! say nothing of what the group may do.

/// Name of the extended attribute.
pub const XATTR: &str = "system.posix_acl_access";

/// Version of the format (`struct posix_acl_xattr_header`, linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The entries that concern others than the owner, whose rights are in the mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    users: Vec<(u32, u32)>,
    /// `None` is the file's own group.
    groups: Vec<(Option<u32>, u32)>,
    mask: u32,
    other: u32,
}

impl Acl {
    /// Parses the attribute's value: a version, then entries of tag, rights, id, all little-endian. `None` if it is no ACL.
    pub fn parse(value: &[u8]) -> Option<Acl> {
        let (version, mut rest) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION {
            return None;
        }
        let mut acl = Acl {
            users: Vec::new(),
            groups: Vec::new(),
            mask: 0o7,
            other: 0,
        };
        while let Some(([t0, t1, p0, p1, id @ ..], tail)) = rest.split_first_chunk::<8>() {
            let rights = u32::from(u16::from_le_bytes([*p0, *p1])) & 0o7;
            let id = u32::from_le_bytes(*id);
            match u16::from_le_bytes([*t0, *t1]) {
                USER => acl.users.push((id, rights)),
                GROUP_OBJ => acl.groups.push((None, rights)),
                GROUP => acl.groups.push((Some(id), rights)),
                MASK => acl.mask = rights,
                OTHER => acl.other = rights,
                _ => {}
            }
            rest = tail;
        }
        rest.is_empty().then_some(acl)
    }

    /// `rwx` bits of somebody who is not the owner (`posix_acl_permission`, fs/posix_acl.c): a named user's entry
    /// decides alone; then all groups that fit together; others only if no group fits.
    pub fn rights(&self, uid: u32, own_group: u32, in_group: impl Fn(u32) -> bool) -> u32 {
        if let Some((_, rights)) = self.users.iter().find(|(user, _)| *user == uid) {
            return rights & self.mask;
        }
        self.groups
            .iter()
            .filter(|(group, _)| in_group(group.unwrap_or(own_group)))
            .map(|(_, rights)| *rights)
            .reduce(|a, b| a | b)
            .map_or(self.other, |rights| rights & self.mask)
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
    fn the_first_kind_of_entry_that_fits_decides() {
        const NONE: u32 = u32::MAX;
        let acl = Acl::parse(&value(&[
            (0x01, 6, NONE),
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
        assert_eq!(rights(1, &[9]), 0, "the file's group, although others have more");
        assert_eq!(rights(1, &[9, 50]), 4);
        assert_eq!(rights(1, &[50, 51]), 5);
        assert_eq!(rights(1, &[1]), 2, "others, not masked");
    }

    #[test]
    fn other_values_are_no_acl() {
        assert_eq!(Acl::parse(&[]), None);
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), None);
        assert_eq!(Acl::parse(&[2, 0, 0, 0, 1]), None);
        assert!(Acl::parse(&[2, 0, 0, 0]).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_do_not(bytes: Vec<u8>, uid: u32) {
            if let Some(acl) = Acl::parse(&bytes) {
                prop_assert!(acl.rights(uid, 0, |_| true) <= 7);
            }
        }
    }
}
