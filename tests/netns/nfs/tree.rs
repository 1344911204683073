//! A tree with every kind of file of a root file system, and its attributes as lstat(2) returns them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Creates the tree.
pub fn make(root: &Path) {
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for dir in ["etc", "usr/bin", "tmp", "dev", "run", "srv/closed", "srv/list-only"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    mode(root, 0o755);
    mode(&root.join("tmp"), 0o1777);
    mode(&root.join("srv/closed"), 0o700);
    mode(&root.join("srv/list-only"), 0o744);
    fs::write(root.join("srv/closed/inside"), "closed").unwrap();
    fs::write(root.join("srv/list-only/inside"), "listed").unwrap();
    let file = |name: &str, bytes: &[u8], bits, uid, gid| {
        let path = root.join(name);
        fs::write(&path, bytes).unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
        mode(&path, bits);
    };
    file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", 0o644, 0, 0);
    file("etc/shadow", b"root:*:1::::::\n", 0o640, 0, 42);
    file("etc/secret", b"only root\n", 0o600, 0, 0);
    file("etc/own-0000", b"the owner may read\n", 0o000, 1000, 1000);
    file(
        "etc/not-owner",
        b"the owner may, others too, not the group\n",
        0o604,
        1000,
        1000,
    );
    file("etc/empty", b"", 0o644, 0, 0);
    file("usr/bin/su", &[0x7f; 70_001], 0o4755, 0, 0);
    file("usr/bin/wall", b"#!/bin/sh\n", 0o2755, 0, 5);
    file("usr/bin/x-only", b"#!/bin/true\n", 0o711, 0, 0);
    fs::hard_link(root.join("usr/bin/su"), root.join("usr/bin/su-link")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("/etc/../../..//absolute", root.join("etc/absolute")).unwrap();
    symlink("x".repeat(3000), root.join("etc/long-link")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"etc/caf\xe9 \xff\x01\n")), "latin-1").unwrap();
    fs::write(root.join("etc").join("n".repeat(255)), "long name").unwrap();
    for (name, kind, bits, device) in [
        ("dev/null", FileType::CharacterDevice, 0o666, makedev(1, 3)),
        ("dev/vda", FileType::BlockDevice, 0o660, makedev(254, 0)),
        ("dev/big", FileType::CharacterDevice, 0o600, makedev(511, 70_000)),
        ("run/fifo", FileType::Fifo, 0o620, 0),
    ] {
        mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(bits), device).unwrap();
        mode(&root.join(name), bits);
    }
    UnixListener::bind(root.join("run/socket")).unwrap();
    // A sparse file of 5 GiB with two blocks.
    let sparse = File::create(root.join("srv/sparse")).unwrap();
    sparse.set_len(5 << 30).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"far", (4 << 30) + 5).unwrap();
    // Larger than one READ, with a length that is no multiple of a block.
    let bytes: Vec<u8> = (0..3_333_333u32).map(|i| (i * 7 + i / 251) as u8).collect();
    fs::write(root.join("srv/data"), bytes).unwrap();
    rustix::fs::utimensat(
        CWD,
        root.join("etc/passwd"),
        &rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: 1,
                tv_nsec: 999_999_999,
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: 1_700_000_000,
                tv_nsec: 123_456_789,
            },
        },
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
}

/// Creates a directory of `count` entries with names of different lengths.
pub fn make_large_dir(dir: &Path, count: usize) {
    fs::create_dir(dir).unwrap();
    for i in 0..count {
        File::create(dir.join(format!("{i}-{}", "n".repeat(i % 37)))).unwrap();
    }
}

/// The attributes of a file, as both a client and lstat(2) return them.
#[derive(Debug, PartialEq, Eq)]
pub struct FileState {
    pub kind: u32,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub used: u64,
    pub rdev: (u32, u32),
    pub fileid: u64,
    pub mtime: (u32, u32),
    pub ctime: (u32, u32),
    /// Hash of the data, or the target of a symbolic link.
    pub content: Vec<u8>,
}

/// Reads the whole tree with lstat(2) and read(2); the keys are paths relative to the root.
pub fn local(root: &Path) -> BTreeMap<Vec<u8>, FileState> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).follow_links(false) {
        let entry = entry.unwrap();
        let m = entry.metadata().unwrap();
        let path = entry.path();
        // ftype3 in the order of RFC 1813 by the type bits of st_mode.
        let kind = match m.mode() >> 12 {
            0o10 => 1,
            0o04 => 2,
            0o06 => 3,
            0o02 => 4,
            0o12 => 5,
            0o14 => 6,
            0o01 => 7,
            other => panic!("type {other:o}"),
        };
        let content = match kind {
            1 if m.len() < 1 << 30 => blake3::hash(&fs::read(path).unwrap()).as_bytes().to_vec(),
            5 => fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
            _ => vec![],
        };
        let rdev = match kind {
            3 | 4 => (rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev())),
            _ => (0, 0),
        };
        let seen = FileState {
            kind,
            mode: m.mode() & 0o7777,
            nlink: m.nlink() as u32,
            uid: m.uid(),
            gid: m.gid(),
            size: m.len(),
            used: m.blocks() * 512,
            rdev,
            fileid: m.ino(),
            mtime: (m.mtime() as u32, m.mtime_nsec() as u32),
            ctime: (m.ctime() as u32, m.ctime_nsec() as u32),
            content,
        };
        all.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), seen);
    }
    all
}
