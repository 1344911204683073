//! Makes the list of files for the initramfs (see `crates/wire/src/image_list.rs`): properties of files that nodes cannot read from the
//! root, because they mount it by NFSv3.

use super::{
    error::{Doing, Result, show_name},
    tree::{Entry, Id, Walk},
};
use rackstrap_wire::image_list::{self, Entry as Listed, letter};
use rustix::fs::{FileType, readlinkat};
use std::{
    collections::HashMap,
    io::{ErrorKind, Read},
    os::fd::BorrowedFd,
};

/// Name of the attribute (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";
/// Most files with capabilities. Debian has three, a desktop twenty.
const MOST_CAPABLE: usize = 1024;
/// Most bytes of these files, which each node copies to RAM.
const MOST_CAPABLE_BYTES: u64 = 256 << 20;
/// Directories that layouts often put on disks.
const FOLLOWED: [&[u8]; 6] = [b"home", b"opt", b"root", b"srv", b"usr/local", b"var"];
/// Most entries of one directory: 20,000 take 1.5 MB of the initramfs before compression.
const MOST_ENTRIES: usize = 20_000;
/// Most bytes of the files of one directory; all of them are read.
const MOST_BYTES: u64 = 2 << 30;

/// Directories of /var that describe what is installed in the root, and so belong to it: databases of package managers (dpkg, apt,
/// rpm, dnf, yum, zypper, pacman, apk, xbps, portage), records of their scripts (alternatives, debconf, ucf, PAM profiles, enabled
/// units, configuration of installed modules), and the SELinux policy.
const OWNED: [&[u8]; 24] = [
    b"var/cache/debconf",
    b"var/db/pkg",
    b"var/db/xbps",
    b"var/lib/PackageKit",
    b"var/lib/alternatives",
    b"var/lib/apk",
    b"var/lib/apt",
    b"var/lib/authselect",
    b"var/lib/dkms",
    b"var/lib/dnf",
    b"var/lib/dpkg",
    b"var/lib/pacman",
    b"var/lib/pam",
    b"var/lib/portage",
    b"var/lib/python",
    b"var/lib/rpm",
    b"var/lib/rpm-state",
    b"var/lib/selinux",
    b"var/lib/systemd/deb-systemd-helper-enabled",
    b"var/lib/systemd/deb-systemd-helper-masked",
    b"var/lib/systemd/deb-systemd-user-helper-enabled",
    b"var/lib/ucf",
    b"var/lib/yum",
    b"var/lib/zypp",
];

/// A list, with remarks for people.
#[derive(Debug)]
pub(crate) struct Made {
    /// The list.
    pub text: Vec<u8>,
    /// Remarks, one line each.
    pub remarks: Vec<String>,
}

/// A directory whose files are listed.
#[derive(Default)]
struct Followed {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: u64,
    /// Why its files are not listed; none if they are.
    too_much: Option<String>,
}

/// Makes the list of the tree `root`.
pub(crate) fn make_list(root: BorrowedFd<'_>) -> Result<Made> {
    let mut walk = Walk::new(root)?;
    let mut owned: Vec<Vec<u8>> = Vec::new();
    let mut capable: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut capable_bytes = HashMap::new();
    let mut user_attributes = Vec::new();
    let mut left_out = 0;
    let mut followed: [Followed; FOLLOWED.len()] = Default::default();
    while let Some(entry) = walk.next()? {
        let path = entry.path;
        let mut capability = Vec::new();
        for (name, value) in super::digest::shared_xattrs(&entry)? {
            if name.to_bytes() == CAPABILITY {
                capability = value;
            } else if name.to_bytes().starts_with(b"user.") && user_attributes.last().is_none_or(|last| last != path) {
                user_attributes.push(path.to_vec());
            }
        }
        if !capability.is_empty() && entry.kind() == FileType::RegularFile {
            let bytes: u64 = capable_bytes.values().sum();
            if capable.len() == MOST_CAPABLE || bytes + entry.stat.st_size as u64 > MOST_CAPABLE_BYTES {
                left_out += 1;
            } else {
                capable_bytes.insert(Id::of(&entry.stat), entry.stat.st_size as u64);
                capable.push((path.to_vec(), capability.clone()));
            }
        }
        if OWNED.contains(&path) && entry.kind() == FileType::Directory {
            owned.push(path.to_vec());
        }
        let belongs = owned.iter().any(|dir| path == dir.as_slice() || inside(path, dir));
        let place = FOLLOWED.iter().position(|dir| inside(path, dir));
        if let Some(place) = place.filter(|_| !belongs) {
            follow(&mut followed[place], &entry, &capability)?;
        }
    }
    Ok(Made {
        remarks: remarks(
            &capable,
            capable_bytes.values().sum(),
            left_out,
            &user_attributes,
            &followed,
        ),
        text: write(owned, capable, followed),
    })
}

/// True if `path` is below `dir`.
fn inside(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn follow(followed: &mut Followed, entry: &Entry<'_>, capability: &[u8]) -> Result<()> {
    if followed.too_much.is_some() {
        return Ok(());
    }
    let kind = entry.kind();
    let stat = &entry.stat;
    let mut listed = Listed {
        path: entry.path,
        kind: letter(kind.as_raw_mode()),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: 0,
        crc: 0,
        sum: 0,
        target: &[],
    };
    let target;
    match kind {
        FileType::RegularFile => {
            listed.size = stat.st_size as u64;
            followed.bytes += listed.size;
            if followed.bytes <= MOST_BYTES {
                (listed.crc, listed.sum) = sums(entry, capability)?;
            }
        }
        FileType::Symlink => {
            target = readlinkat(entry.dir, &entry.name, Vec::new())
                .doing(|| format!("reading /{}", show_name(entry.path)))?;
            listed.target = target.to_bytes();
        }
        FileType::CharacterDevice | FileType::BlockDevice => listed.size = stat.st_rdev,
        _ => {}
    }
    if followed.bytes > MOST_BYTES {
        followed.too_much = Some(format!("more than {} GiB of files", MOST_BYTES >> 30));
    } else if followed.entries.len() == MOST_ENTRIES {
        followed.too_much = Some(format!("more than {MOST_ENTRIES} files"));
    } else {
        let mut text = Vec::new();
        image_list::add_entry(&mut text, &listed);
        followed.entries.push((entry.path.to_vec(), text));
        return Ok(());
    }
    followed.entries = Vec::new();
    Ok(())
}

/// CRC-32 of a file's content, and the sum by which versions are compared.
fn sums(entry: &Entry<'_>, capability: &[u8]) -> Result<(u32, u64)> {
    let mut file = entry.open()?;
    let (mut crc, mut sum) = (crc32fast::Hasher::new(), blake3::Hasher::new());
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => {
                crc.update(&buffer[..got]);
                sum.update(&buffer[..got]);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).doing(|| format!("reading /{}", show_name(entry.path))),
        }
    }
    sum.update(capability);
    let sum = sum.finalize();
    let (first, _) = sum.as_bytes().split_first_chunk::<8>().expect("32 bytes");
    Ok((crc.finalize(), u64::from_be_bytes(*first)))
}

/// Sorts all entries by path. A walk sorts the names of each directory, which gives another order.
fn write(
    mut owned: Vec<Vec<u8>>,
    mut capable: Vec<(Vec<u8>, Vec<u8>)>,
    followed: [Followed; FOLLOWED.len()],
) -> Vec<u8> {
    let mut text = Vec::new();
    image_list::begin(&mut text);
    owned.sort_unstable();
    for path in &owned {
        image_list::add_owned(&mut text, path);
    }
    capable.sort_unstable();
    for (path, value) in &capable {
        image_list::add_capability(&mut text, path, value);
    }
    let mut entries: Vec<_> = followed.into_iter().flat_map(|f| f.entries).collect();
    entries.sort_unstable();
    for (_, entry) in entries {
        text.extend(entry);
    }
    text
}

fn remarks(
    capable: &[(Vec<u8>, Vec<u8>)],
    bytes: u64,
    left_out: usize,
    user_attributes: &[Vec<u8>],
    followed: &[Followed],
) -> Vec<String> {
    let mut remarks = Vec::new();
    let names = |paths: &mut dyn Iterator<Item = &[u8]>| {
        const NAMED: usize = 5;
        let shown: Vec<String> = paths
            .take(NAMED + 1)
            .map(|path| format!("/{}", show_name(path)))
            .collect();
        match shown.len() > NAMED {
            true => format!("{} and more", shown[..NAMED].join(", ")),
            false => shown.join(", "),
        }
    };
    if !capable.is_empty() {
        remarks.push(format!(
            "{} with capabilities: NFS does not transfer these, so each node sets them at boot, which takes {:.1} MiB of its RAM: {}",
            files(capable.len()),
            bytes as f64 / f64::from(1 << 20),
            names(&mut capable.iter().map(|(path, _)| path.as_slice()))
        ));
    }
    if left_out > 0 {
        remarks.push(format!(
            "{} without capabilities on nodes: more than {MOST_CAPABLE} files or {} MiB have some",
            files(left_out),
            MOST_CAPABLE_BYTES >> 20
        ));
    }
    if !user_attributes.is_empty() {
        remarks.push(format!(
            "{} without user.* attributes on nodes, because NFSv3 does not transfer them: {}",
            files(user_attributes.len()),
            names(&mut user_attributes.iter().map(Vec::as_slice))
        ));
    }
    for (dir, followed) in FOLLOWED.iter().zip(followed) {
        if let Some(why) = &followed.too_much {
            remarks.push(format!(
                "/{} holds {why}: if a layout puts it on the disk, nodes keep the files that were copied when the disk was prepared",
                show_name(dir)
            ));
        }
    }
    remarks
}

fn files(count: usize) -> String {
    match count {
        1 => "1 file".to_owned(),
        n => format!("{n} files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::ImageList;
    use std::{
        fs,
        os::{fd::AsFd, unix::fs::symlink},
        path::Path,
    };

    fn make(at: &Path) -> Made {
        make_list(fs::File::open(at).unwrap().as_fd()).unwrap()
    }

    fn capable(at: &Path) {
        // CAP_NET_RAW, permitted and effective (struct vfs_cap_data, version 2).
        let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(at, "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
    }

    #[test]
    fn dpkg_and_rpm_trees_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let p = |path: &str| dir.path().join(path);
        for path in [
            "usr/bin",
            "usr/lib",
            "var/lib/dpkg/info",
            "var/lib/rpm",
            "var/lib/foo",
            "var/log",
            "opt",
        ] {
            fs::create_dir_all(p(path)).unwrap();
        }
        fs::write(p("usr/bin/ping"), "ping").unwrap();
        fs::hard_link(p("usr/bin/ping"), p("usr/bin/ping4")).unwrap();
        capable(&p("usr/bin/ping"));
        fs::write(p("var/lib/dpkg/status"), "Package: x\n").unwrap();
        fs::write(p("var/lib/rpm/rpmdb.sqlite"), "db").unwrap();
        fs::write(p("var/lib/foo/conf"), "123456789").unwrap();
        fs::write(p("var/lib/foo-bar"), "").unwrap();
        fs::write(p("usr/lib/not-followed"), "").unwrap();
        symlink("/run", p("var/run")).unwrap();
        let made = make(dir.path());
        let list = ImageList::parse(&made.text).unwrap();
        assert_eq!(list.owned, [&b"var/lib/dpkg"[..], b"var/lib/rpm"]);
        let capable: Vec<&[u8]> = list.capabilities.iter().map(|(path, _)| *path).collect();
        assert_eq!(capable, [&b"usr/bin/ping"[..], b"usr/bin/ping4"]);
        let paths: Vec<_> = list.entries.iter().map(|e| String::from_utf8_lossy(e.path)).collect();
        assert_eq!(
            paths,
            [
                "var/lib",
                "var/lib/foo",
                "var/lib/foo-bar",
                "var/lib/foo/conf",
                "var/log",
                "var/run"
            ]
        );
        let conf = list.entry(b"var/lib/foo/conf").unwrap();
        // This is the check value of CRC-32.
        assert_eq!((conf.size, conf.crc), (9, 0xcbf4_3926));
        assert_eq!(list.entry(b"var/run").unwrap().target, b"/run");
        assert_eq!(made.remarks.len(), 1, "{:?}", made.remarks);
        assert!(
            made.remarks[0].contains("2 files with capabilities")
                && made.remarks[0].contains("/usr/bin/ping, /usr/bin/ping4"),
            "{:?}",
            made.remarks
        );
    }

    #[test]
    fn a_content_or_capability_that_changed_changes_the_sum() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("var")).unwrap();
        let file = dir.path().join("var/x");
        let sum = || {
            let made = make(dir.path());
            ImageList::parse(&made.text).unwrap().entries[0].sum
        };
        fs::write(&file, "a").unwrap();
        let before = sum();
        assert_eq!(sum(), before);
        fs::write(&file, "b").unwrap();
        let changed = sum();
        assert_ne!(changed, before);
        capable(&file);
        assert_ne!(sum(), changed);
    }

    #[test]
    fn directories_and_files_over_the_limits_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("opt/many")).unwrap();
        fs::create_dir_all(dir.path().join("srv")).unwrap();
        for n in 0..MOST_ENTRIES {
            fs::write(dir.path().join(format!("opt/many/{n}")), "").unwrap();
        }
        let sparse = fs::File::create(dir.path().join("srv/large")).unwrap();
        sparse.set_len(MOST_BYTES + 1).unwrap();
        for n in 0..=MOST_CAPABLE {
            let file = dir.path().join(format!("bin{n}"));
            fs::write(&file, "x").unwrap();
            capable(&file);
        }
        let made = make(dir.path());
        let list = ImageList::parse(&made.text).unwrap();
        assert_eq!((list.entries.len(), list.capabilities.len()), (0, MOST_CAPABLE));
        let remarks = made.remarks.join("\n");
        for said in [
            "1 file without capabilities",
            "/opt holds more than 20000 files",
            "/srv holds more than 2 GiB",
        ] {
            assert!(remarks.contains(said), "{remarks}");
        }
    }
}
