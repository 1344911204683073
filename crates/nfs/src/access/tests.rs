//! Tables of permissions, and a comparison with this kernel's own decisions.

use super::*;
use crate::attr::Time;

fn attr(kind: FileType, mode: u32, uid: u32, gid: u32) -> Attr {
    Attr {
        kind,
        mode,
        nlink: 1,
        uid,
        gid,
        size: 0,
        used: 0,
        rdev: (0, 0),
        fileid: 1,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
    }
}

const ALL: u32 = 0x3f;

#[test]
fn the_first_class_that_matches_decides() {
    let file = attr(FileType::Regular, 0o604, 1000, 50);
    // The owner's bits count for the owner, and the group's for a member of the group, although others have more.
    for (who, want) in [
        (Credentials::new(1000, 50, &[]), ACCESS_READ),
        (Credentials::new(1001, 50, &[]), 0),
        (Credentials::new(1001, 1, &[7, 50]), 0),
        (Credentials::new(1001, 1, &[7]), ACCESS_READ),
        (Credentials::nobody(), ACCESS_READ),
    ] {
        assert_eq!(granted(&file, None, &who, ALL), want, "{who:?}");
    }
}

#[test]
fn only_sixteen_groups_count() {
    let file = attr(FileType::Regular, 0o040, 0, 16);
    let groups: Vec<u32> = (1..=17).collect();
    assert!(may_read(&file, None, &Credentials::new(5, 5, &groups)));
    assert!(!may_read(
        &attr(FileType::Regular, 0o040, 0, 17),
        None,
        &Credentials::new(5, 5, &groups)
    ));
    // An unused slot is not group 0.
    assert!(!may_read(
        &attr(FileType::Regular, 0o040, 0, 0),
        None,
        &Credentials::new(5, 5, &[1])
    ));
}

#[test]
fn the_owner_and_callers_with_execute_permission_may_read() {
    let user = Credentials::new(1000, 1000, &[]);
    assert!(may_read(&attr(FileType::Regular, 0, 1000, 0), None, &user));
    assert_eq!(granted(&attr(FileType::Regular, 0, 1000, 0), None, &user, ALL), 0);
    let program = attr(FileType::Regular, 0o711, 0, 0);
    assert!(may_read(&program, None, &user));
    assert_eq!(granted(&program, None, &user, ALL), ACCESS_EXECUTE);
    assert!(!may_read(&attr(FileType::Regular, 0o600, 0, 0), None, &user));
    assert!(!may_list(&attr(FileType::Directory, 0o711, 0, 0), None, &user));
    assert!(may_search(&attr(FileType::Directory, 0o711, 0, 0), None, &user));
    assert!(!may_search(&attr(FileType::Directory, 0o744, 0, 0), None, &user));
}

#[test]
fn root_reads_everything_and_executes_what_is_executable() {
    let root = Credentials::new(0, 0, &[]);
    assert_eq!(
        granted(&attr(FileType::Regular, 0, 5, 5), None, &root, ALL),
        ACCESS_READ
    );
    let any_x = attr(FileType::Regular, 0o001, 5, 5);
    assert_eq!(granted(&any_x, None, &root, ALL), ACCESS_READ | ACCESS_EXECUTE);
    let dir = attr(FileType::Directory, 0, 5, 5);
    assert_eq!(granted(&dir, None, &root, ALL), ACCESS_READ | ACCESS_LOOKUP);
    assert!(may_search(&dir, None, &root) && may_list(&dir, None, &root));
}

#[test]
fn writing_is_granted_on_devices_only() {
    let user = Credentials::new(1000, 1000, &[]);
    let null = attr(FileType::Character, 0o666, 0, 0);
    let read_write = ACCESS_READ | ACCESS_MODIFY | ACCESS_EXTEND;
    assert_eq!(granted(&null, None, &user, ALL), read_write);
    assert_eq!(granted(&null, None, &user, ACCESS_MODIFY), ACCESS_MODIFY);
    assert_eq!(
        granted(
            &attr(FileType::Character, 0o600, 0, 0),
            None,
            &Credentials::new(0, 0, &[]),
            ALL
        ),
        read_write
    );
    assert_eq!(
        granted(&attr(FileType::Regular, 0o777, 1000, 0), None, &user, ALL),
        ACCESS_READ | ACCESS_EXECUTE
    );
    assert_eq!(
        granted(&attr(FileType::Directory, 0o777, 1000, 0), None, &user, ALL),
        ACCESS_READ | ACCESS_LOOKUP
    );
}

/// Compares with faccessat2(2) on a thread with a caller's uid and groups, which returns this kernel's decision.
#[test]
fn access_agrees_with_this_kernel() {
    use rustix::{
        fs::{Access, AtFlags, CWD, accessat},
        process::geteuid,
        thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
    };
    use std::os::unix::fs::{PermissionsExt, chown};

    if !geteuid().is_root() {
        eprintln!("skipped: only root can change its uid");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (file, sub) = (dir.path().join("file"), dir.path().join("dir"));
    std::fs::write(&file, "").unwrap();
    std::fs::create_dir(&sub).unwrap();
    let callers: [(u32, u32, &[u32]); 6] = [
        (0, 0, &[]),
        (1000, 1000, &[]),
        (1000, 50, &[]),
        (1001, 50, &[]),
        (1001, 1, &[3, 50]),
        (1001, 1, &[3]),
    ];
    let modes: Vec<u32> = (0..8)
        .flat_map(|u| (0..8).flat_map(move |g| (0..8).map(move |o| u << 6 | g << 3 | o)))
        .collect();
    for mode in modes {
        for path in [&file, &sub] {
            chown(path, Some(1000), Some(50)).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        for (uid, gid, groups) in callers {
            // The raw system calls change the ids of the calling thread only, so each case has its own thread.
            let (file, sub) = (file.clone(), sub.clone());
            let kernel = std::thread::spawn(move || {
                let gids: Vec<_> = groups.iter().map(|g| rustix::process::Gid::from_raw(*g)).collect();
                set_thread_groups(&gids).unwrap();
                let gid = rustix::process::Gid::from_raw(gid);
                set_thread_res_gid(gid, gid, gid).unwrap();
                let uid = rustix::process::Uid::from_raw(uid);
                set_thread_res_uid(uid, uid, uid).unwrap();
                let may = |path: &std::path::Path, what| accessat(CWD, path, what, AtFlags::EACCESS).is_ok();
                [&file, &sub].map(|path| [Access::READ_OK, Access::EXEC_OK].map(|what| may(path, what)))
            })
            .join()
            .unwrap();
            let who = Credentials::new(uid, gid, groups);
            let ours = [FileType::Regular, FileType::Directory].map(|kind| {
                let bits = granted(&attr(kind, mode, 1000, 50), None, &who, ALL);
                [bits & ACCESS_READ != 0, bits & (ACCESS_EXECUTE | ACCESS_LOOKUP) != 0]
            });
            assert_eq!(ours, kernel, "mode {mode:03o}, {who:?}");
        }
    }
}
