//! What the server must refuse: to the wrong user, to the wrong peer, for a wrong handle, or on a read-only export.

use super::{
    Daemon, export,
    reads::{name_in, ok, opaque, some, status, try_lookup, try_read, walk_to},
    test_config, tree,
    wire::{Wire, call, record, words, words_after},
};
use nfs3_client::nfs3_types::nfs3::{
    ACCESS3args, CREATE3args, GETATTR3args, LINK3args, MKDIR3args, MKNOD3args, Nfs3Option, Nfs3Result, READDIR3args,
    READDIRPLUS3args, REMOVE3args, RENAME3args, RMDIR3args, SETATTR3args, SYMLINK3args, WRITE3args, cookieverf3,
    createhow3, fattr3, mknoddata3, nfs_fh3, nfspath3, nfsstat3, sattr3, sattrguard3, stable_how, symlinkdata3,
    wcc_data,
};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use rackstrap_nfs::{Config, ExportId, ExportRoot, NfsEvent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_modes_apply_to_users() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut root = daemon.mount().await;
    let denied = Err(nfsstat3::NFS3ERR_ACCES);
    // The path, and whether uid 1000 with group 1000, uid 1001 with group 1000, and uid 1002 with groups 7 and 42 may READ
    // it.
    for (path, want) in [
        ("etc/passwd", [true, true, true]),
        ("etc/shadow", [false, false, true]),
        ("etc/secret", [false, false, false]),
        ("etc/own-0000", [true, false, false]),
        ("etc/not-owner", [true, false, true]),
        ("usr/bin/x-only", [true, true, true]),
    ] {
        let handle = walk_to(&mut root, path).await;
        assert!(try_read(&mut root, &handle, 0, 9).await.is_ok(), "root, {path}");
        for ((uid, gid, gids), want) in [(1000, 1000, &[][..]), (1001, 1000, &[]), (1002, 7, &[42])]
            .into_iter()
            .zip(want)
        {
            let mut user = daemon.mount_as(uid, gid, gids).await;
            let got = try_read(&mut user, &handle, 0, 9).await;
            assert_eq!(got.is_ok(), want, "uid {uid}, {path}: {got:?}");
            assert!(want || got == denied, "uid {uid}, {path}: {got:?}");
        }
    }
    // Without search permission LOOKUP fails. With a handle that another user got, the mode of the file counts.
    let mut user = daemon.mount_as(1000, 1000, &[]).await;
    let closed = walk_to(&mut root, "srv/closed").await;
    assert_eq!(
        try_lookup(&mut user, &closed, b"inside").await.err(),
        denied.clone().err()
    );
    let listable = walk_to(&mut root, "srv/list-only").await;
    assert_eq!(try_lookup(&mut user, &listable, b"inside").await.err(), denied.err());
    let args = READDIR3args {
        dir: closed.clone(),
        cookie: 0,
        cookieverf: cookieverf3::default(),
        count: 4096,
    };
    assert_eq!(status(user.readdir(&args).await.unwrap()), nfsstat3::NFS3ERR_ACCES);
    // Read permission without search permission gives names without attributes and handles.
    let args = READDIRPLUS3args {
        dir: listable,
        cookie: 0,
        cookieverf: cookieverf3::default(),
        dircount: 4096,
        maxcount: 4096,
    };
    let entries = ok(user.readdirplus(&args).await.unwrap()).reply.entries.0;
    assert_eq!(entries.len(), 3);
    for entry in entries {
        assert!(matches!(entry.name_attributes, Nfs3Option::None) && matches!(entry.name_handle, Nfs3Option::None));
    }
    let object = walk_to(&mut root, "usr/bin/x-only").await;
    let args = ACCESS3args { object, access: 0x3f };
    assert_eq!(ok(user.access(&args).await.unwrap()).access, 0x20);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_node_of_an_export_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let root = Wire::connect(daemon.addr, [127, 0, 0, 1]).await.mount().await;
    let mut stranger = Wire::connect(daemon.addr, [127, 0, 0, 2]).await;
    let reply = stranger.call(100_005, 3, 1, &words_after(b"/tree", &[])).await;
    assert_eq!(reply[24..], words(&[13]), "MNT3ERR_ACCES");
    let reply = stranger.call(100_005, 3, 1, &words_after(b"/other\n", &[])).await;
    assert_eq!(reply[24..], words(&[2]), "MNT3ERR_NOENT");
    // Even with the owner's handle. The second refusal comes from the connection's cache.
    for _ in 0..2 {
        let reply = stranger.nfs(1, &words_after(&root, &[])).await;
        assert_eq!(reply[24..], words(&[13]), "NFS3ERR_ACCES");
    }
    let reply = stranger.call(100_005, 3, 5, &[]).await;
    assert_eq!(reply[24..], words(&[0]), "EXPORT lists nothing");
    let refused: Vec<_> = daemon
        .events()
        .iter()
        .filter_map(|event| match event {
            NfsEvent::MountRefused { path, why, .. } => Some(format!("{path}: {why}")),
            NfsEvent::HandleRefused { why, .. } => Some(why.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        refused,
        [
            "/tree: the export is of 127.0.0.1",
            "/other\\n: no such export",
            "the export is of 127.0.0.1"
        ]
    );
    assert_eq!(daemon.counted("refused_export"), 4);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_handles_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("file"), "other").unwrap();
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = daemon.mount().await;
    let good = walk_to(&mut client, "etc/passwd").await.data.to_vec();
    let getattr = async |client: &mut super::Client, handle: &[u8]| {
        status(client.getattr(&GETATTR3args { object: opaque(handle) }).await.unwrap())
    };
    for at in 0..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 0x40;
        assert_eq!(
            getattr(&mut client, &forged).await,
            nfsstat3::NFS3ERR_BADHANDLE,
            "byte {at}"
        );
        assert_eq!(
            getattr(&mut client, &good[..at]).await,
            nfsstat3::NFS3ERR_BADHANDLE,
            "cut at {at}"
        );
    }
    let longer = [&good[..], &[0; 29]].concat();
    assert_eq!(getattr(&mut client, &longer[..64]).await, nfsstat3::NFS3ERR_BADHANDLE);
    let mut raw = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    for handle in [&longer[..], &[0xff; 5000], &[]] {
        let reply = raw.nfs(1, &words_after(handle, &[])).await;
        assert_eq!(reply[24..], words(&[10001]), "{} bytes", handle.len());
    }
    // A valid MAC with an unknown export; a valid MAC and export of a removed file.
    let mut key_only = Daemon::start(
        ExportRoot::open(other.path(), ExportId([9; 8]), "other@1".into()).unwrap(),
        test_config(),
    );
    let mut elsewhere = key_only.mount().await;
    let foreign = walk_to(&mut elsewhere, "file").await.data.to_vec();
    assert_eq!(getattr(&mut client, &foreign).await, nfsstat3::NFS3ERR_STALE);
    std::fs::remove_file(other.path().join("file")).unwrap();
    let root = ExportRoot::open(other.path(), ExportId([9; 8]), "other@1".into()).unwrap();
    key_only.stop().await;
    key_only = Daemon::start(root, test_config());
    let mut elsewhere = key_only.mount().await;
    assert_eq!(getattr(&mut elsewhere, &foreign).await, nfsstat3::NFS3ERR_STALE);
    assert_eq!(key_only.counted("refused_stale_handle"), 1);
    key_only.stop().await;
    // A handle made with another key.
    daemon.stop().await;
    let config = Config {
        privileged_ports_only: false,
        ..Config::new([8; 32])
    };
    let daemon = Daemon::start(export(dir.path()), config);
    let mut client = daemon.mount().await;
    assert_eq!(getattr(&mut client, &good).await, nfsstat3::NFS3ERR_BADHANDLE);
    assert_eq!(daemon.counted("refused_bad_handle"), 1);
    daemon.stop().await;
}

fn unchanged(wcc: wcc_data, attr: &fattr3) {
    let before = some(wcc.before);
    assert_eq!(before.size, attr.size);
    assert_eq!(format!("{:?}", before.mtime), format!("{:?}", attr.mtime));
    assert_eq!(format!("{:?}", before.ctime), format!("{:?}", attr.ctime));
    assert_eq!(format!("{:?}", some(wcc.after)), format!("{attr:?}"));
}

fn refused<T: std::fmt::Debug, E>(result: Nfs3Result<T, E>, want: nfsstat3) -> E {
    match result {
        Nfs3Result::Ok(value) => panic!("succeeded: {value:?}"),
        Nfs3Result::Err((status, rest)) => {
            assert_eq!(status, want);
            rest
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_changed_and_wcc_data_says_so() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let before = tree::local(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut c = daemon.mount().await;
    let rofs = nfsstat3::NFS3ERR_ROFS;
    let file = walk_to(&mut c, "etc/passwd").await;
    let etc = walk_to(&mut c, "etc").await;
    let tmp = walk_to(&mut c, "tmp").await;
    let attr_of = async |c: &mut super::Client, object: &nfs_fh3| {
        ok(c.getattr(&GETATTR3args { object: object.clone() }).await.unwrap()).obj_attributes
    };
    let file_attr = attr_of(&mut c, &file).await;
    let etc_attr = attr_of(&mut c, &etc).await;
    let tmp_attr = attr_of(&mut c, &tmp).await;

    let args = SETATTR3args {
        object: file.clone(),
        new_attributes: sattr3 {
            mode: Nfs3Option::Some(0o777),
            size: Nfs3Option::Some(0),
            ..Default::default()
        },
        guard: sattrguard3::Some(file_attr.ctime),
    };
    unchanged(refused(c.setattr(&args).await.unwrap(), rofs).obj_wcc, &file_attr);
    let args = WRITE3args {
        file: file.clone(),
        offset: 0,
        count: 5,
        stable: stable_how::FILE_SYNC,
        data: Opaque::borrowed(b"wrong"),
    };
    unchanged(refused(c.write(&args).await.unwrap(), rofs).file_wcc, &file_attr);
    for how in [
        createhow3::UNCHECKED(sattr3::default()),
        createhow3::GUARDED(sattr3::default()),
        createhow3::EXCLUSIVE(Default::default()),
    ] {
        let args = CREATE3args {
            where_: name_in(&etc, b"new"),
            how,
        };
        unchanged(refused(c.create(&args).await.unwrap(), rofs).dir_wcc, &etc_attr);
    }
    let args = MKDIR3args {
        where_: name_in(&etc, b"new"),
        attributes: sattr3::default(),
    };
    unchanged(refused(c.mkdir(&args).await.unwrap(), rofs).dir_wcc, &etc_attr);
    let args = MKDIR3args {
        where_: name_in(&file, b"new"),
        attributes: sattr3::default(),
    };
    unchanged(
        refused(c.mkdir(&args).await.unwrap(), nfsstat3::NFS3ERR_NOTDIR).dir_wcc,
        &file_attr,
    );
    let args = SYMLINK3args {
        where_: name_in(&etc, b"new"),
        symlink: symlinkdata3 {
            symlink_attributes: sattr3::default(),
            symlink_data: nfspath3(Opaque::borrowed(b"x")),
        },
    };
    unchanged(refused(c.symlink(&args).await.unwrap(), rofs).dir_wcc, &etc_attr);
    let args = MKNOD3args {
        where_: name_in(&etc, b"new"),
        what: mknoddata3::NF3FIFO(sattr3::default()),
    };
    unchanged(refused(c.mknod(&args).await.unwrap(), rofs).dir_wcc, &etc_attr);
    let args = REMOVE3args {
        object: name_in(&etc, b"passwd"),
    };
    unchanged(refused(c.remove(&args).await.unwrap(), rofs).dir_wcc, &etc_attr);
    let args = RMDIR3args {
        object: name_in(&etc, b"sub"),
    };
    unchanged(refused(c.rmdir(&args).await.unwrap(), rofs).dir_wcc, &etc_attr);
    let args = RENAME3args {
        from: name_in(&etc, b"passwd"),
        to: name_in(&tmp, b"passwd"),
    };
    let fail = refused(c.rename(&args).await.unwrap(), rofs);
    unchanged(fail.fromdir_wcc, &etc_attr);
    unchanged(fail.todir_wcc, &tmp_attr);
    let args = LINK3args {
        file: file.clone(),
        link: name_in(&tmp, b"passwd"),
    };
    let fail = refused(c.link(&args).await.unwrap(), rofs);
    assert_eq!(format!("{:?}", some(fail.file_attributes)), format!("{file_attr:?}"));
    unchanged(fail.linkdir_wcc, &tmp_attr);
    let args = REMOVE3args {
        object: name_in(&opaque(b"none"), b"passwd"),
    };
    let fail = refused(c.remove(&args).await.unwrap(), nfsstat3::NFS3ERR_BADHANDLE);
    assert!(matches!(fail.dir_wcc.before, Nfs3Option::None));
    daemon.stop().await;
    assert_eq!(tree::local(dir.path()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unprivileged_ports_may_ping_only() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), Config::new([7; 32]));
    let mut user = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    for program in [100_003, 100_005] {
        let reply = user.call(program, 3, 0, &[]).await;
        assert_eq!(reply[4..], words(&[1, 0, 0, 0, 0]), "NULL");
    }
    // MSG_DENIED, AUTH_ERROR, AUTH_TOOWEAK
    let reply = user.call(100_005, 3, 1, &words_after(b"/tree", &[])).await;
    assert_eq!(reply[4..], words(&[1, 1, 1, 5]));
    let reply = user.nfs(1, &words_after(&[0; 36], &[])).await;
    assert_eq!(reply[4..], words(&[1, 1, 1, 5]));
    assert!(
        matches!(&daemon.events()[..], [NfsEvent::MountRefused { path, why, .. }] if path == "/tree" && why.contains("privileged"))
    );
    // Binds any free port below 1024.
    let mut root = None;
    for port in (600..1000).rev() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        if socket.bind(([127, 0, 0, 1], port).into()).is_ok() {
            root = Some(socket.connect(daemon.addr).await.unwrap());
            break;
        }
    }
    let mut root = Wire::of(root.expect("no free privileged port"));
    assert_eq!(root.mount().await.len(), 36);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_are_listed_and_observed() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    client.mount().await;
    let entry = [words(&[1]), words_after(b"127.0.0.1", &[]), words_after(b"/tree", &[0])].concat();
    assert_eq!(client.call(100_005, 3, 2, &[]).await[24..], entry, "DUMP");
    let exports = [words(&[1]), words_after(b"/tree", &[0, 0])].concat();
    assert_eq!(client.call(100_005, 3, 5, &[]).await[24..], exports, "EXPORT");
    let mut stranger = Wire::connect(daemon.addr, [127, 0, 0, 2]).await;
    assert_eq!(
        stranger.call(100_005, 3, 2, &[]).await[24..],
        words(&[0]),
        "DUMP by somebody else"
    );
    assert_eq!(
        client.call(100_005, 3, 3, &words_after(b"/tree", &[])).await.len(),
        24,
        "UMNT"
    );
    assert_eq!(client.call(100_005, 3, 2, &[]).await[24..], words(&[0]));
    client.mount().await;
    assert_eq!(client.call(100_005, 3, 4, &[]).await.len(), 24, "UMNTALL");
    assert_eq!(client.call(100_005, 3, 2, &[]).await[24..], words(&[0]));
    let events: Vec<_> = daemon
        .events()
        .into_iter()
        .map(|event| match event {
            NfsEvent::Mounted { export, .. } => format!("mounted {export}"),
            NfsEvent::Unmounted { path, .. } => format!("unmounted {path}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        events,
        ["mounted tree@1", "unmounted /tree", "mounted tree@1", "unmounted /tree"]
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_versions_and_procedures_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    for (program, version, procedure, want) in [
        (100_228, 3, 0, &[1][..]),
        (100_227, 2, 1, &[2, 3, 3]),
        (100_227, 3, 3, &[3]),
        (100_227, 3, 1, &[4]),
        (100_003, 4, 0, &[2, 3, 3]),
        (100_003, 2, 0, &[2, 3, 3]),
        (100_005, 1, 1, &[2, 3, 3]),
        (100_003, 3, 22, &[3]),
        (100_005, 3, 6, &[3]),
        (100_003, 3, u32::MAX, &[3]),
        (100_003, 3, 1, &[4]),
        (100_003, 3, 6, &[4]),
        (100_005, 3, 1, &[4]),
    ] {
        let reply = client.call(program, version, procedure, &[]).await;
        assert_eq!(
            reply[4..],
            words(&[&[1, 0, 0, 0], want].concat()),
            "{program} {version} {procedure}"
        );
    }
    // RPC version 3; RPCSEC_GSS.
    let mut other = call(9, 100_003, 3, 0, &[]);
    other[8..12].copy_from_slice(&words(&[3]));
    client.send(&record(&other)).await;
    assert_eq!(client.reply().await.unwrap(), words(&[9, 1, 1, 0, 2, 2]));
    client
        .send(&record(&words(&[9, 0, 2, 100_003, 3, 0, 6, 0, 0, 0])))
        .await;
    assert_eq!(client.reply().await.unwrap(), words(&[9, 1, 1, 1, 1]));
    daemon.stop().await;
}
