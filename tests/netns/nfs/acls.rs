//! POSIX ACLs: they decide about access, and overlayfs reads them by NFSACL.

use super::{
    Daemon, export,
    reads::{ok, try_lookup, try_read, walk_to},
    test_config, tree,
    wire::{Wire, words, words_after},
};
use nfs3_client::nfs3_types::nfs3::ACCESS3args;
use std::path::Path;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
/// The undefined id, of entries without a user or group.
const NONE: u32 = u32::MAX;

/// Sets an ACL in the kernel's format, as setfacl(1) may be missing.
fn set_acl(path: &Path, name: &str, entries: &[(u16, u16, u32)]) {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(rights.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    rustix::fs::setxattr(path, name, &value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_follows_a_files_acl() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    // Owner rw, user 1000 r, the group (42) nothing, group 77 r, mask r, others nothing: the mode says 0640.
    let acl = [
        (1, 6, NONE),
        (2, 4, 1000),
        (4, 0, NONE),
        (8, 4, 77),
        (0x10, 4, NONE),
        (0x20, 0, NONE),
    ];
    set_acl(&dir.path().join("etc/shadow"), ACCESS, &acl);
    let closed = [
        (1, 7, NONE),
        (2, 5, 1000),
        (4, 0, NONE),
        (0x10, 5, NONE),
        (0x20, 0, NONE),
    ];
    set_acl(&dir.path().join("srv/closed"), ACCESS, &closed);
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut root = daemon.mount().await;
    let shadow = walk_to(&mut root, "etc/shadow").await;
    let closed = walk_to(&mut root, "srv/closed").await;
    for (uid, gid, gids, file, search) in [
        (1000, 1000, &[][..], true, true),
        (1001, 42, &[], false, false),
        (1001, 42, &[77], true, false),
        (1001, 77, &[], true, false),
        (1001, 1001, &[], false, false),
    ] {
        let mut user = daemon.mount_as(uid, gid, gids).await;
        assert_eq!(
            try_read(&mut user, &shadow, 0, 9).await.is_ok(),
            file,
            "{uid} {gid} {gids:?}"
        );
        let args = ACCESS3args {
            object: shadow.clone(),
            access: 0x3f,
        };
        assert_eq!(ok(user.access(&args).await.unwrap()).access, u32::from(file));
        assert_eq!(
            try_lookup(&mut user, &closed, b"inside").await.is_ok(),
            search,
            "{uid} {gid} {gids:?}"
        );
    }
    daemon.stop().await;
}

/// GETACL's result after the attributes, or the status if it fails.
async fn get_acl(wire: &mut Wire, handle: &[u8], mask: u32) -> Result<Vec<u8>, u32> {
    let reply = wire.call(100_227, 3, 1, &words_after(handle, &[mask])).await;
    let word = |at: usize| u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
    match (word(24), word(28)) {
        (0, 1) => Ok(reply[32 + 84..].to_vec()),
        (0, _) => panic!("no attributes: {reply:?}"),
        (status, _) => Err(status),
    }
}

async fn look_up(wire: &mut Wire, dir: &[u8], name: &str) -> Vec<u8> {
    let args = [words_after(dir, &[]), words_after(name.as_bytes(), &[])].concat();
    let reply = wire.nfs(3, &args).await;
    assert_eq!(reply[24..28], [0; 4], "LOOKUP of {name}");
    let len = u32::from_be_bytes(reply[28..32].try_into().unwrap()) as usize;
    reply[32..32 + len].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nfsacl_returns_each_files_acl() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    set_acl(
        &dir.path().join("etc/shadow"),
        ACCESS,
        &[
            (1, 6, NONE),
            (2, 4, 1000),
            (4, 0, NONE),
            (0x10, 4, NONE),
            (0x20, 0, NONE),
        ],
    );
    set_acl(
        &dir.path().join("srv"),
        DEFAULT,
        &[(1, 7, NONE), (4, 5, NONE), (8, 7, 77), (0x10, 7, NONE), (0x20, 0, NONE)],
    );
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut wire = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    let root = wire.mount().await;
    let etc = look_up(&mut wire, &root, "etc").await;
    let shadow = look_up(&mut wire, &etc, "shadow").await;
    let passwd = look_up(&mut wire, &etc, "passwd").await;
    let srv = look_up(&mut wire, &root, "srv").await;

    // A file without an ACL: the answer is the entries of its mode, 0644. execve(2) by a user waits for this.
    let mode = [1, 0, 6, 4, 0, 4, 0x10, 0, 4, 0x20, 0, 4];
    let want = words(&[&[3, 4, 4], &mode[..], &[0, 0]].concat());
    assert_eq!(get_acl(&mut wire, &passwd, 3).await, Ok(want));
    assert_eq!(get_acl(&mut wire, &passwd, 2).await, Ok(words(&[2, 4, 0, 0, 0])));
    // A file with an ACL; the entries of owner and group have the file's ids.
    let acl = [1, 0, 6, 2, 1000, 4, 4, 42, 0, 0x10, 0, 4, 0x20, 0, 0];
    let want = words(&[&[3, 5, 5], &acl[..], &[0, 0]].concat());
    assert_eq!(get_acl(&mut wire, &shadow, 3).await, Ok(want));
    // The default ACL of a directory.
    let default = [0x1001, 0, 7, 0x1004, 0, 5, 0x1008, 77, 7, 0x1010, 0, 7, 0x1020, 0, 0];
    let want = words(&[&[12, 0, 0, 5, 5], &default[..]].concat());
    assert_eq!(get_acl(&mut wire, &srv, 12).await, Ok(want));
    assert_eq!(get_acl(&mut wire, &etc, 12).await, Ok(words(&[12, 0, 0, 0, 0])));
    assert_eq!(get_acl(&mut wire, &passwd, 12).await, Ok(words(&[12, 0, 0, 0, 0])));

    assert_eq!(get_acl(&mut wire, &passwd, 16).await, Err(22), "NFS3ERR_INVAL");
    assert_eq!(get_acl(&mut wire, &[7; 32], 3).await, Err(10001), "NFS3ERR_BADHANDLE");
    let set = wire.call(100_227, 3, 2, &words_after(&passwd, &[1, 0, 0, 0, 0])).await;
    assert_eq!(set[24..28], words(&[30]), "NFS3ERR_ROFS");
    daemon.stop().await;
}
