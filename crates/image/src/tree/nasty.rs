//! A tree with all features of file systems, and a comparison of two trees, for tests.

use super::Target;
use rustix::fs::{
    self as rfs, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, lsetxattr, makedev, mknodat, openat, statat, utimensat,
};
use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    fs,
    io::{Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt, fs::symlink},
    },
    path::Path,
};

/// Depth of the deepest directory. 700 names of 8 bytes are longer than PATH_MAX, and two descriptors per level would exceed the
/// usual 1,024 open files.
pub(crate) const DEPTH: usize = 700;

/// Makes the tree in the empty directory `at`. `all` includes what archives of GNU tar cannot hold: sockets, links to devices,
/// access control lists other than as text.
pub(crate) fn make(at: &Path, all: bool) {
    let p = |name: &str| at.join(name);
    for dir in ["bin", "dev", "etc/empty", "var/tmp", "links"] {
        fs::create_dir_all(p(dir)).unwrap();
    }
    fs::write(p("bin/su"), b"suid").unwrap();
    fs::write(p("bin/ping"), b"capable").unwrap();
    fs::write(p("etc/empty-file"), b"").unwrap();
    fs::write(p("etc/shadow"), b"secret").unwrap();
    // Hard links: of a file, a symbolic link, a device, and across directories.
    fs::write(p("links/a"), b"one file").unwrap();
    fs::hard_link(p("links/a"), p("links/b")).unwrap();
    fs::hard_link(p("links/a"), p("var/c")).unwrap();
    symlink("no/such/target", p("links/dangling")).unwrap();
    fs::hard_link(p("links/dangling"), p("links/dangling2")).unwrap();
    symlink("/etc/passwd", p("links/absolute")).unwrap();
    symlink("../../../../../../etc", p("links/climbing")).unwrap();
    symlink("x".repeat(4000), p("links/long")).unwrap();
    let node = |name: &str, kind, mode, major, minor| {
        mknodat(CWD, p(name), kind, Mode::from_raw_mode(mode), makedev(major, minor)).unwrap();
    };
    node("dev/null", FileType::CharacterDevice, 0o666, 1, 3);
    node("dev/big", FileType::BlockDevice, 0o660, 259, 70000);
    node("dev/fifo", FileType::Fifo, 0o600, 0, 0);
    if all {
        fs::hard_link(p("dev/null"), p("dev/null2")).unwrap();
        node("dev/log", FileType::Socket, 0o755, 0, 0);
    }
    // Sparse files: data at odd places, a hole at the start and at the end, and only a hole.
    let file = fs::File::create(p("var/sparse")).unwrap();
    file.write_all_at(b"middle", 3 << 20).unwrap();
    file.write_all_at(&[7; 100_000], (9 << 20) + 123).unwrap();
    file.set_len(20 << 20).unwrap();
    fs::File::create(p("var/hole")).unwrap().set_len(5 << 20).unwrap();
    let mut dense = fs::File::create(p("var/dense")).unwrap();
    for i in 0..300_000u32 {
        dense.write_all(&i.wrapping_mul(2_654_435_761).to_le_bytes()).unwrap();
    }
    dense.seek(SeekFrom::Start(0)).unwrap();
    // Many segments: GNU tar's old format needs extension blocks for them.
    let many = fs::File::create(p("var/many-holes")).unwrap();
    for i in 0..100u64 {
        many.write_all_at(&[i as u8 + 1; 4096], i * 65536).unwrap();
    }
    // These names are unusual but valid.
    for name in [
        &b"caf\xe9"[..],
        b"new\nline",
        b"-rf *",
        b"\x01\x7f",
        "größe".as_bytes(),
        &[b'n'; 255],
    ] {
        fs::write(at.join(OsStr::from_bytes(name)), name).unwrap();
    }
    // A deep directory is made level by level, because its path is too long for one call.
    let mut dir: OwnedFd = rfs::open(at, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..DEPTH {
        let name = format!("deep{level:04}");
        rfs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
        dir = openat(&dir, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE;
    let bottom = openat(&dir, "bottom", flags, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&bottom, b"deep").unwrap();
    rfs::linkat(&dir, "bottom", &dir, "bottom2", AtFlags::empty()).unwrap();
    rfs::linkat(&dir, "bottom", CWD, p("var/zz-bottom3"), AtFlags::empty()).unwrap();
    // Extended attributes of each kind.
    let set = |name: &str, key: &str, value: &[u8]| {
        lsetxattr(p(name), key, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{key}: {e}"));
    };
    // cap_net_raw=ep, as setcap(8) writes it (linux/capability.h, VFS_CAP_REVISION_2).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set("bin/ping", "security.capability", &capability);
    set("etc/shadow", "user.binary", b"\x00=\n\xff");
    set("etc/shadow", "user.empty", b"");
    set("etc/empty", "user.dir", &[b'v'; 1000]);
    set("links/dangling", "trusted.link", b"on a link");
    set("dev/fifo", "trusted.fifo", b"on a fifo");
    // user::rw- user:1000:r-- group::r-- mask::r-- other::--- (linux/posix_acl_xattr.h)
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(perm.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    if all {
        set("var/dense", "system.posix_acl_access", &acl);
        set("var/tmp", "system.posix_acl_default", &acl);
    }
    let own = |name: &str, uid, gid| {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(CWD, p(name), uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    };
    own("links/absolute", 7, 8);
    own("etc/shadow", 0, 42);
    own("var/hole", 3_000_000_000, 4_000_000_000);
    own("dev/fifo", 1000, 1000);
    let mode = |name: &str, mode| chmodat(CWD, p(name), Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
    mode("bin/su", 0o6755);
    mode("var/tmp", 0o1777);
    mode("etc/empty", 0o2000);
    mode("etc/shadow", 0);
    mode("dev/null", 0o666);
    let time = |name: &str, tv_sec, tv_nsec| {
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, p(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    };
    time("bin/su", 1_000_000_000, 123_456_789);
    time("etc/shadow", 1, 1);
    time("links/absolute", 1_100_000_000, 5);
    time("dev/fifo", 1_200_000_000, 6);
    time("var/tmp", 1_300_000_000, 7);
    time("var", 1_400_000_000, 8);
    mode("", 0o751);
    own("", 0, 3);
    time("", 1_500_000_000, 9);
}

/// The compared properties of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    kind: FileType,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    device: u64,
    size: u64,
    mtime: (i64, i64),
    xattrs: BTreeMap<CString, Vec<u8>>,
    /// Content as a digest, or the target of a link.
    content: Vec<u8>,
    /// Whether it clearly has fewer blocks than bytes.
    holes: bool,
    /// The first of the file's names, in their order.
    same_as: Vec<u8>,
}

/// Reads everything in a tree.
pub(crate) fn look(at: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let at = at.to_owned();
    // The walk calls itself once per level, so it needs a large stack.
    let walker = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || look_here(&at));
    walker.unwrap().join().unwrap()
}

fn look_here(at: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let root = rfs::open(at, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    walk(&root, Vec::new(), &mut found, &mut inodes);
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for path in found.keys() {
        names.entry(inodes[path]).or_insert_with(|| path.clone());
    }
    for (path, seen) in &mut found {
        seen.same_as = names[&inodes[path]].clone();
    }
    found
}

fn walk(dir: &OwnedFd, path: Vec<u8>, found: &mut BTreeMap<Vec<u8>, Seen>, inodes: &mut BTreeMap<Vec<u8>, u64>) {
    let own = rfs::fstat(dir).unwrap();
    record(path.clone(), &own, Target::Fd(dir.as_fd()), Vec::new(), found, inodes);
    let names: Vec<CString> = Dir::read_from(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_owned())
        .collect();
    for name in names {
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let mut inner = path.clone();
        inner.push(b'/');
        inner.extend_from_slice(name.to_bytes());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                walk(&openat(dir, &name, flags, Mode::empty()).unwrap(), inner, found, inodes);
            }
            kind => {
                let content = match kind {
                    FileType::RegularFile => {
                        let file = openat(dir, &name, OFlags::RDONLY, Mode::empty()).unwrap();
                        let mut hasher = blake3::Hasher::new();
                        std::io::copy(&mut fs::File::from(file), &mut hasher).unwrap();
                        hasher.finalize().as_bytes().to_vec()
                    }
                    FileType::Symlink => rfs::readlinkat(dir, &name, Vec::new()).unwrap().into_bytes(),
                    _ => Vec::new(),
                };
                record(inner, &stat, Target::Name(dir.as_fd(), &name), content, found, inodes);
            }
        }
    }
}

fn record(
    path: Vec<u8>,
    stat: &rfs::Stat,
    target: Target<'_>,
    content: Vec<u8>,
    found: &mut BTreeMap<Vec<u8>, Seen>,
    inodes: &mut BTreeMap<Vec<u8>, u64>,
) {
    let kind = FileType::from_raw_mode(stat.st_mode);
    inodes.insert(path.clone(), stat.st_ino);
    let is_dir = kind == FileType::Directory;
    let seen = Seen {
        kind,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        links: stat.st_nlink,
        device: stat.st_rdev,
        size: if is_dir { 0 } else { stat.st_size as u64 },
        // Directories without an explicit time have the time of their creation, which must be kept too.
        mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
        xattrs: target.xattrs().unwrap().into_iter().collect(),
        content,
        holes: !is_dir && (stat.st_blocks as u64 * 512) < stat.st_size as u64 / 2,
        same_as: Vec::new(),
    };
    found.insert(path, seen);
}

/// Fails with the differences.
pub(crate) fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (look(left), look(right));
    let names = |tree: &BTreeMap<Vec<u8>, Seen>| tree.keys().cloned().collect::<std::collections::BTreeSet<_>>();
    let difference: Vec<_> = names(&left)
        .symmetric_difference(&names(&right))
        .map(|n| n.escape_ascii().to_string())
        .collect();
    assert!(difference.is_empty(), "only in one of the trees: {difference:?}");
    for (path, seen) in &left {
        assert_eq!(seen, &right[path], "{}", path.escape_ascii());
    }
}
