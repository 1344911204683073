//! Everything that a client can read, compared with lstat(2) and read(2).

use super::{
    Client, Daemon, export, test_config,
    tree::{self, FileState},
};
use nfs3_client::nfs3_types::{
    nfs3::{
        ACCESS3args, COMMIT3args, FSINFO3args, FSSTAT3args, GETATTR3args, LOOKUP3args, Nfs3Option, Nfs3Result,
        PATHCONF3args, READ3args, READDIR3args, READDIRPLUS3args, READLINK3args, cookieverf3, diropargs3, fattr3,
        nfs_fh3, nfsstat3,
    },
    xdr_codec::Opaque,
};
use rackstrap_nfs::{ExportId, ExportRoot};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

pub fn ok<T: std::fmt::Debug, E: std::fmt::Debug>(result: Nfs3Result<T, E>) -> T {
    match result {
        Nfs3Result::Ok(value) => value,
        Nfs3Result::Err((status, _)) => panic!("{status:?}"),
    }
}

pub fn status<T: std::fmt::Debug, E: std::fmt::Debug>(result: Nfs3Result<T, E>) -> nfsstat3 {
    match result {
        Nfs3Result::Ok(value) => panic!("succeeded: {value:?}"),
        Nfs3Result::Err((status, _)) => status,
    }
}

pub fn some<T: nfs3_client::nfs3_types::xdr_codec::Pack + nfs3_client::nfs3_types::xdr_codec::Unpack>(
    option: Nfs3Option<T>,
) -> T {
    match option {
        Nfs3Option::Some(value) => value,
        Nfs3Option::None => panic!("nothing there"),
    }
}

pub fn name_in<'a>(dir: &nfs_fh3, name: &'a [u8]) -> diropargs3<'a> {
    diropargs3 {
        dir: dir.clone(),
        name: name.into(),
    }
}

pub async fn try_lookup(client: &mut Client, dir: &nfs_fh3, name: &[u8]) -> Result<nfs_fh3, nfsstat3> {
    let args = LOOKUP3args {
        what: name_in(dir, name),
    };
    match client.lookup(&args).await.unwrap() {
        Nfs3Result::Ok(found) => Ok(found.object),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

pub async fn walk_to(client: &mut Client, path: &str) -> nfs_fh3 {
    let mut at = client.root_nfs_fh3();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = try_lookup(client, &at, name.as_bytes()).await.unwrap();
    }
    at
}

pub async fn try_read(
    client: &mut Client,
    file: &nfs_fh3,
    offset: u64,
    count: u32,
) -> Result<(Vec<u8>, bool), nfsstat3> {
    let args = READ3args {
        file: file.clone(),
        offset,
        count,
    };
    match client.read(&args).await.unwrap() {
        Nfs3Result::Ok(read) => {
            assert_eq!(read.count as usize, read.data.len());
            Ok((read.data.to_vec(), read.eof))
        }
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

async fn read_all(client: &mut Client, file: &nfs_fh3, count: u32) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (data, eof) = try_read(client, file, all.len() as u64, count).await.unwrap();
        assert!(eof || !data.is_empty(), "no progress at {}", all.len());
        all.extend(data);
        if eof {
            return all;
        }
    }
}

async fn readlink(client: &mut Client, symlink: &nfs_fh3) -> Vec<u8> {
    let args = READLINK3args {
        symlink: symlink.clone(),
    };
    ok(client.readlink(&args).await.unwrap()).data.0.to_vec()
}

/// Names, attributes and handles of a whole directory by READDIRPLUS; `maxcount` decides how many calls it takes.
async fn readdirplus(client: &mut Client, dir: &nfs_fh3, maxcount: u32) -> Vec<(Vec<u8>, fattr3, nfs_fh3)> {
    let (mut cookie, mut cookieverf, mut all) = (0, cookieverf3::default(), Vec::new());
    loop {
        let args = READDIRPLUS3args {
            dir: dir.clone(),
            cookie,
            cookieverf,
            dircount: maxcount,
            maxcount,
        };
        let part = ok(client.readdirplus(&args).await.unwrap());
        cookieverf = part.cookieverf;
        for entry in part.reply.entries.0 {
            cookie = entry.cookie;
            let (attr, handle) = (some(entry.name_attributes), some(entry.name_handle));
            assert_eq!(entry.fileid, attr.fileid);
            all.push((entry.name.0.to_vec(), attr, handle));
        }
        if part.reply.eof {
            return all;
        }
    }
}

async fn readdir(client: &mut Client, dir: &nfs_fh3, count: u32) -> Vec<(Vec<u8>, u64)> {
    let (mut cookie, mut cookieverf, mut all) = (0, cookieverf3::default(), Vec::new());
    loop {
        let args = READDIR3args {
            dir: dir.clone(),
            cookie,
            cookieverf,
            count,
        };
        let part = ok(client.readdir(&args).await.unwrap());
        cookieverf = part.cookieverf;
        for entry in part.reply.entries.0 {
            cookie = entry.cookie;
            all.push((entry.name.0.to_vec(), entry.fileid));
        }
        if part.reply.eof {
            return all;
        }
    }
}

/// Reads the whole tree through the client.
pub async fn remote(client: &mut Client, maxcount: u32) -> BTreeMap<Vec<u8>, FileState> {
    let root = client.root_nfs_fh3();
    let attr = ok(client.getattr(&GETATTR3args { object: root.clone() }).await.unwrap()).obj_attributes;
    let fsid = attr.fsid;
    let mut all = BTreeMap::new();
    let mut pending = vec![(Vec::new(), attr, root.clone(), root)];
    while let Some((path, attr, handle, parent)) = pending.pop() {
        assert_eq!(attr.fsid, fsid);
        let again = ok(client.getattr(&GETATTR3args { object: handle.clone() }).await.unwrap()).obj_attributes;
        assert_eq!(
            format!("{again:?}"),
            format!("{attr:?}"),
            "READDIRPLUS and GETATTR of {path:?}"
        );
        let mut content = vec![];
        match attr.type_ as u32 {
            1 if attr.size < 1 << 30 => {
                content = blake3::hash(&read_all(client, &handle, 65_536).await)
                    .as_bytes()
                    .to_vec()
            }
            5 => content = readlink(client, &handle).await,
            2 => {
                let mut plain: BTreeMap<_, _> = readdir(client, &handle, maxcount).await.into_iter().collect();
                for (name, entry, entry_handle) in readdirplus(client, &handle, maxcount).await {
                    assert_eq!(plain.remove(&name), Some(entry.fileid), "{name:?}");
                    let found = try_lookup(client, &handle, &name).await.unwrap();
                    assert_eq!(
                        found.data.to_vec(),
                        entry_handle.data.to_vec(),
                        "LOOKUP and READDIRPLUS of {name:?}"
                    );
                    match &name[..] {
                        b"." => assert_eq!(found.data.to_vec(), handle.data.to_vec()),
                        b".." => assert_eq!(found.data.to_vec(), parent.data.to_vec()),
                        _ => {
                            let mut child = path.clone();
                            if !child.is_empty() {
                                child.push(b'/');
                            }
                            child.extend(&name);
                            pending.push((child, entry, found, handle.clone()));
                        }
                    }
                }
                assert!(plain.is_empty(), "only READDIR has {plain:?}");
            }
            _ => {}
        }
        let seen = FileState {
            kind: attr.type_ as u32,
            mode: attr.mode,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            size: attr.size,
            used: attr.used,
            rdev: (attr.rdev.specdata1, attr.rdev.specdata2),
            fileid: attr.fileid,
            mtime: (attr.mtime.seconds, attr.mtime.nseconds),
            ctime: (attr.ctime.seconds, attr.ctime.nseconds),
            content,
        };
        assert!(all.insert(path, seen).is_none(), "listed twice");
    }
    all
}

pub fn assert_same(local: &BTreeMap<Vec<u8>, FileState>, remote: &BTreeMap<Vec<u8>, FileState>) {
    for (path, seen) in local {
        assert_eq!(remote.get(path), Some(seen), "{}", path.escape_ascii());
    }
    assert_eq!(local.len(), remote.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tree_matches_lstat() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let local = tree::local(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = daemon.mount().await;
    assert_same(&local, &remote(&mut client, 1024).await);
    assert_same(&local, &remote(&mut client, 65_536).await);
    client.unmount().await.unwrap();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tree_by_an_index_of_inodes_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let local = tree::local(dir.path());
    let root = ExportRoot::open_indexed(dir.path(), ExportId([1; 8]), "tree@1".into()).unwrap();
    let daemon = Daemon::start(root, test_config());
    let mut client = daemon.mount().await;
    assert_same(&local, &remote(&mut client, 4096).await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_directories_are_listed_whole_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let counts = [3_000, 50_000];
    for count in counts {
        tree::make_large_dir(&dir.path().join(count.to_string()), count);
    }
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = daemon.mount().await;
    for count in counts {
        let handle = walk_to(&mut client, &count.to_string()).await;
        let plain = readdir(&mut client, &handle, 8192).await;
        let names: BTreeSet<_> = plain.iter().map(|(name, _)| name).collect();
        assert_eq!((plain.len(), names.len()), (count + 2, count + 2));
        let plus = readdirplus(&mut client, &handle, 32_768).await;
        let names: BTreeSet<_> = plus.iter().map(|(name, ..)| name).collect();
        assert_eq!((plus.len(), names.len()), (count + 2, count + 2));
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_keep_to_the_requested_sizes() {
    let dir = tempfile::tempdir().unwrap();
    tree::make_large_dir(&dir.path().join("large"), 500);
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = daemon.mount().await;
    let handle = walk_to(&mut client, "large").await;
    let mut raw = super::wire::Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    for count in [200u32, 512, 1000, 4096, 10_000] {
        let args = super::wire::words_after(&handle.data, &[0, 0, 0, 0, count]);
        let reply = raw.nfs(16, &args).await;
        // Without header (24) and status (4), it is READDIR3resok.
        assert!(reply.len() - 28 <= count as usize, "{} for {count}", reply.len());
        assert!(
            count < 4096 || reply.len() - 28 > count as usize - 100,
            "{} for {count}",
            reply.len()
        );
        let args = super::wire::words_after(&handle.data, &[0, 0, 0, 0, 1 << 20, count.max(512)]);
        let reply = raw.nfs(17, &args).await;
        assert!(
            reply.len() - 28 <= count.max(512) as usize,
            "{} for {count}",
            reply.len()
        );
        // dircount counts names, cookies and file ids only: 20 bytes and the name.
        let args = super::wire::words_after(&handle.data, &[0, 0, 0, 0, count, 1 << 20]);
        let part = raw.nfs(17, &args).await;
        assert!(part.len() < count as usize * 9 + 400);
    }
    let args = READDIR3args {
        dir: handle.clone(),
        cookie: 0,
        cookieverf: cookieverf3::default(),
        count: 100,
    };
    assert_eq!(status(client.readdir(&args).await.unwrap()), nfsstat3::NFS3ERR_TOOSMALL);
    let args = READDIR3args {
        cookie: 77,
        count: 4096,
        ..args
    };
    assert_eq!(
        status(client.readdir(&args).await.unwrap()),
        nfsstat3::NFS3ERR_BAD_COOKIE
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_is_read_at_any_offset_and_length() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = daemon.mount().await;
    let bytes = std::fs::read(dir.path().join("srv/data")).unwrap();
    let data = walk_to(&mut client, "srv/data").await;
    for count in [1 << 20, 1 << 30, 131_072, 99_999] {
        assert!(
            read_all(&mut client, &data, count).await == bytes,
            "in pieces of {count}"
        );
    }
    let len = bytes.len() as u64;
    // Requested bytes, received bytes, end of file.
    for (offset, count, got, eof) in [
        (0, 0, 0, false),
        (len - 10, 10, 10, true),
        (len - 10, 9, 9, false),
        (len - 10, 4096, 10, true),
        (len, 1, 0, true),
        (len, 0, 0, true),
        (u64::MAX, u32::MAX, 0, true),
        (1, 1, 1, false),
    ] {
        let (read, end) = try_read(&mut client, &data, offset, count).await.unwrap();
        assert_eq!((read.len(), end), (got, eof), "{count} at {offset}");
        let from = offset.min(len) as usize;
        assert_eq!(read, bytes[from..from + got], "{count} at {offset}");
    }
    let sparse = walk_to(&mut client, "srv/sparse").await;
    assert_eq!(
        try_read(&mut client, &sparse, 0, 8).await,
        Ok((b"start\0\0\0".to_vec(), false))
    );
    assert_eq!(
        try_read(&mut client, &sparse, 4 << 30, 9).await,
        Ok((b"\0\0\0\0\0far\0".to_vec(), false))
    );
    assert_eq!(
        try_read(&mut client, &sparse, (5 << 30) - 2, 9).await,
        Ok((vec![0, 0], true))
    );
    let empty = walk_to(&mut client, "etc/empty").await;
    assert_eq!(try_read(&mut client, &empty, 0, 9).await, Ok((vec![], true)));
    for (path, want) in [
        ("etc", nfsstat3::NFS3ERR_ISDIR),
        ("dev/null", nfsstat3::NFS3ERR_INVAL),
        ("run/fifo", nfsstat3::NFS3ERR_INVAL),
        ("run/socket", nfsstat3::NFS3ERR_INVAL),
        ("bin", nfsstat3::NFS3ERR_INVAL),
    ] {
        let handle = walk_to(&mut client, path).await;
        assert_eq!(try_read(&mut client, &handle, 0, 9).await, Err(want), "{path}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let before = Daemon::start(export(dir.path()), test_config());
    let mut client = before.mount().await;
    let handles = [
        client.root_nfs_fh3(),
        walk_to(&mut client, "usr/bin/su").await,
        walk_to(&mut client, "srv/closed/inside").await,
        walk_to(&mut client, "etc/absolute").await,
        walk_to(&mut client, "dev/null").await,
    ];
    let mut attrs = Vec::new();
    for handle in &handles {
        attrs.push(ok(client.getattr(&GETATTR3args { object: handle.clone() }).await.unwrap()).obj_attributes);
    }
    before.stop().await;
    let after = Daemon::start(export(dir.path()), test_config());
    // Without MNT: only the address identifies this client.
    let mut raw = super::wire::Wire::connect(after.addr, [127, 0, 0, 1]).await;
    for (handle, attr) in handles.iter().zip(&attrs) {
        let reply = raw.nfs(1, &super::wire::words_after(&handle.data, &[])).await;
        let word = |i: usize| u32::from_be_bytes(reply[24 + 4 * i..28 + 4 * i].try_into().unwrap());
        assert_eq!((word(0), word(1), word(2)), (0, attr.type_ as u32, attr.mode));
        assert_eq!(u64::from(word(14)) << 32 | u64::from(word(15)), attr.fileid);
    }
    assert_eq!(after.counted("mount_mnt"), 0);
    after.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fsstat_fsinfo_and_pathconf_describe_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = daemon.mount().await;
    let root = client.root_nfs_fh3();
    let info = ok(client.fsinfo(&FSINFO3args { fsroot: root.clone() }).await.unwrap());
    assert_eq!((info.rtmax, info.rtpref, info.properties), (1 << 20, 1 << 20, 0x1b));
    assert_eq!((info.time_delta.seconds, info.time_delta.nseconds), (0, 1));
    let conf = ok(client.pathconf(&PATHCONF3args { object: root.clone() }).await.unwrap());
    assert_eq!(
        (
            conf.name_max,
            conf.no_trunc,
            conf.case_insensitive,
            conf.case_preserving
        ),
        (255, true, false, true)
    );
    let stat = ok(client.fsstat(&FSSTAT3args { fsroot: root.clone() }).await.unwrap());
    let local = rustix::fs::statvfs(dir.path()).unwrap();
    assert_eq!(stat.tbytes, local.f_blocks * local.f_frsize);
    assert_eq!(stat.tfiles, local.f_files);
    assert!(stat.abytes <= stat.fbytes && stat.fbytes <= stat.tbytes);
    let file = walk_to(&mut client, "srv/data").await;
    let args = COMMIT3args {
        file,
        offset: 0,
        count: 0,
    };
    ok(client.commit(&args).await.unwrap());
    // The link counts of a directory and of a hard link are those of stat. ACCESS asks for all rights, as root on a read-only
    // export.
    for (path, want) in [
        ("etc", 0x03),
        ("usr/bin/su", 0x21),
        ("etc/secret", 0x01),
        ("dev/null", 0x0d),
    ] {
        let object = walk_to(&mut client, path).await;
        let args = ACCESS3args { object, access: 0x3f };
        assert_eq!(ok(client.access(&args).await.unwrap()).access, want, "{path}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_inside_the_tree_and_paths_out_of_it_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut client = daemon.mount().await;
    let root = client.root_nfs_fh3();
    let up = try_lookup(&mut client, &root, b"..").await.unwrap();
    assert_eq!(up.data.to_vec(), root.data.to_vec());
    let etc = walk_to(&mut client, "etc").await;
    let up = try_lookup(&mut client, &etc, b"..").await.unwrap();
    assert_eq!(up.data.to_vec(), root.data.to_vec());
    for (name, want) in [
        (&b"../etc"[..], nfsstat3::NFS3ERR_ACCES),
        (b"/etc", nfsstat3::NFS3ERR_ACCES),
        (b"etc/", nfsstat3::NFS3ERR_ACCES),
        (b"", nfsstat3::NFS3ERR_ACCES),
        (b"etc\0", nfsstat3::NFS3ERR_ACCES),
        (&[b'n'; 256], nfsstat3::NFS3ERR_NAMETOOLONG),
        (&[b'n'; 60_000], nfsstat3::NFS3ERR_NAMETOOLONG),
        (b"absent", nfsstat3::NFS3ERR_NOENT),
    ] {
        assert_eq!(try_lookup(&mut client, &root, name).await, Err(want), "{}", name.len());
    }
    let link = walk_to(&mut client, "bin").await;
    assert_eq!(
        try_lookup(&mut client, &link, b"su").await,
        Err(nfsstat3::NFS3ERR_NOTDIR)
    );
    let file = walk_to(&mut client, "etc/passwd").await;
    assert_eq!(
        try_lookup(&mut client, &file, b"..").await,
        Err(nfsstat3::NFS3ERR_NOTDIR)
    );
    daemon.stop().await;
}

/// The handle as the type of the client.
pub fn opaque(bytes: &[u8]) -> nfs_fh3 {
    nfs_fh3 {
        data: Opaque::owned(bytes.to_vec()),
    }
}

/// The test tree must contain what the tests are about.
#[test]
fn the_test_tree_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let local = tree::local(dir.path());
    let kinds: BTreeSet<_> = local.values().map(|seen| seen.kind).collect();
    assert_eq!(kinds, (1..=7).collect());
    assert_eq!(local[&b"usr/bin/su"[..]].nlink, 2);
    assert_eq!(local[&b"usr/bin/su"[..]].mode, 0o4755);
    assert_eq!(local[&b"dev/big"[..]].rdev, (511, 70_000));
    assert!(Path::new("/proc/self").exists());
}
