//! The digest of a tree: two trees have the same digest exactly if a node sees no difference between them.
//!
//! It is BLAKE3 over `rackstrap tree 1\n` and one record for each entry of the tree. The tree's own directory comes first, a
//! directory comes before its content, and the names of a directory are in the order of their bytes. All numbers of a record are
//! little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 4 + n | length of the path from the tree (0 for the tree itself), the path |
//! | 1 | type: `d`, `f`, `l` (symbolic link), `c`, `b`, `p` (fifo), `s` (socket) |
//! | 4, 4, 4 | mode (permissions, suid, sgid, sticky), uid, gid |
//! | `f`: 8 + 32 | size, BLAKE3 of the content |
//! | `l`: 4 + n | length of the target, the target |
//! | `c`, `b`: 4, 4 | major and minor number |
//! | 4 | number of extended attributes; then for each, by the bytes of their names, 4 + n name and 4 + n value |
//!
//! Not included are times, hard links (a file with two names counts as two files), holes, and attributes that belong to the
//! machine with the tree (SELinux labels, IMA, EVM, attributes of a file system).

use super::{
    error::{Doing, Result},
    progress::{Progress, Step},
    tree::{Entry, Id, Target, Walk, changing, may_be_lost, other_names, reading},
};
use rackstrap_wire::image_list::letter;
use rustix::fs::{FileType, major, minor, readlinkat};
use std::{
    collections::HashMap,
    io::{ErrorKind, Read},
    os::fd::BorrowedFd,
};

/// The bytes before the first record.
const HEADER: &[u8] = b"rackstrap tree 1\n";

/// The result for a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digested {
    /// `blake3:` and 64 hex digits.
    pub digest: String,
    /// Entries, without the tree's own directory.
    pub files: u64,
    /// Bytes of regular files, hard links counted once.
    pub bytes: u64,
}

/// Hashes contents. A file with several names is read once.
pub(crate) struct Contents {
    buffer: Vec<u8>,
    /// Hashes of files with more names, and the number of names that are still to come.
    several: HashMap<Id, ([u8; 32], usize)>,
}

impl Default for Contents {
    fn default() -> Self {
        Contents {
            buffer: vec![0; 1 << 20],
            several: HashMap::new(),
        }
    }
}

impl Contents {
    /// BLAKE3 of a regular file, and whether this is its first name.
    pub fn hash(&mut self, entry: &Entry<'_>, progress: &mut dyn Progress) -> Result<([u8; 32], bool)> {
        let id = Id::of(&entry.stat);
        if let Some((hash, left)) = self.several.get_mut(&id) {
            let hash = *hash;
            *left -= 1;
            if *left == 0 {
                self.several.remove(&id);
            }
            return Ok((hash, false));
        }
        let mut file = entry.open()?;
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        loop {
            let got = match file.read(&mut self.buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other.doing(|| reading(entry.path))?,
            };
            if got == 0 {
                break;
            }
            size += got as u64;
            hasher.update(&self.buffer[..got]);
            progress.advance(0, got as u64);
        }
        if size != entry.stat.st_size as u64 {
            return Err(changing(entry.path));
        }
        let hash = *hasher.finalize().as_bytes();
        let others = other_names(&entry.stat);
        if others > 0 {
            self.several.insert(id, (hash, others));
        }
        Ok((hash, true))
    }
}

/// Digests the tree `root`. `bytes` is its size, if known.
pub(crate) fn digest_tree(root: BorrowedFd<'_>, bytes: Option<u64>, progress: &mut dyn Progress) -> Result<Digested> {
    progress.begin(Step::Digest, bytes);
    let mut hasher = blake3::Hasher::new();
    hasher.update(HEADER);
    let mut walk = Walk::new(root)?;
    let mut contents = Contents::default();
    let mut record = Vec::new();
    let (mut files, mut bytes) = (0, 0);
    while let Some(entry) = walk.next()? {
        record.clear();
        text(&mut record, entry.path);
        let kind = entry.kind();
        let stat = &entry.stat;
        record.push(letter(kind.as_raw_mode()));
        for number in [stat.st_mode & 0o7777, stat.st_uid, stat.st_gid] {
            record.extend(number.to_le_bytes());
        }
        match kind {
            FileType::RegularFile => {
                let (hash, first) = contents.hash(&entry, progress)?;
                if first {
                    bytes += stat.st_size as u64;
                }
                record.extend((stat.st_size as u64).to_le_bytes());
                record.extend(hash);
            }
            FileType::Symlink => {
                let target = readlinkat(entry.dir, &entry.name, Vec::new()).doing(|| reading(entry.path))?;
                text(&mut record, target.to_bytes());
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                record.extend(major(stat.st_rdev).to_le_bytes());
                record.extend(minor(stat.st_rdev).to_le_bytes());
            }
            _ => {}
        }
        let xattrs = shared_xattrs(&entry)?;
        record.extend((xattrs.len() as u32).to_le_bytes());
        for (name, value) in &xattrs {
            text(&mut record, name.to_bytes());
            text(&mut record, value);
        }
        hasher.update(&record);
        if !entry.path.is_empty() {
            files += 1;
            progress.advance(1, 0);
        }
    }
    Ok(Digested {
        digest: format!("blake3:{}", hasher.finalize().to_hex()),
        files,
        bytes,
    })
}

/// The extended attributes that a tree has on every machine, by name.
pub(crate) fn shared_xattrs(entry: &Entry<'_>) -> Result<Vec<(std::ffi::CString, Vec<u8>)>> {
    let target = Target::Name(entry.dir, &entry.name);
    let mut xattrs = target.xattrs().doing(|| reading(entry.path))?;
    xattrs.retain(|(name, _)| !may_be_lost(name));
    xattrs.sort();
    Ok(xattrs)
}

/// BLAKE3 of one file, as `blake3:` and hex digits.
pub(crate) fn digest_file(path: &std::path::Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let doing = || format!("reading {}", path.display());
    hasher
        .update_reader(std::fs::File::open(path).doing(doing)?)
        .doing(doing)?;
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

fn text(record: &mut Vec<u8>, bytes: &[u8]) {
    // Paths, targets and attributes are far shorter than 4 GiB: the kernel limits the latter to 64 KiB, and a path is as long as
    // its directories are deep.
    record.extend((bytes.len() as u32).to_le_bytes());
    record.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        progress::Quiet,
        tree::{Remarks, SpaceGuard, copy_tree, nasty},
    };
    use std::{fs, os::fd::AsFd, os::unix::fs as unix, path::Path, process::Command};

    fn digest(at: &Path) -> Digested {
        digest_tree(fs::File::open(at).unwrap().as_fd(), None, &mut Quiet).unwrap()
    }

    #[test]
    fn a_copy_has_the_digest_of_its_original() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        nasty::make(&from, true);
        let (source, target) = (fs::File::open(&from).unwrap(), fs::File::open(&to).unwrap());
        let mut space = SpaceGuard::new(target.as_fd(), &to, None).unwrap();
        let mut remarks = Remarks::default();
        let copied = copy_tree(
            source.as_fd(),
            target.as_fd(),
            None,
            &mut space,
            &mut remarks,
            &mut Quiet,
        )
        .unwrap();
        let digested = digest(&from);
        assert_eq!(digested, digest(&to));
        assert_eq!((digested.files, digested.bytes), (copied.files, copied.bytes));
    }

    #[test]
    fn every_change_that_a_node_sees_changes_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let p = |name: &str| at.join(name);
        fs::create_dir(p("dir")).unwrap();
        fs::write(p("dir/file"), "content").unwrap();
        fs::hard_link(p("dir/file"), p("dir/same")).unwrap();
        unix::symlink("target", p("link")).unwrap();
        let shell = |line: &str| {
            let done = Command::new("sh").args(["-ec", line]).current_dir(at).status();
            assert!(done.unwrap().success(), "{line}");
        };
        shell("mknod null c 1 3; mkfifo pipe");
        let mut seen = std::collections::HashSet::from([digest(at).digest]);
        for change in [
            "printf Content > dir/file",
            "chmod 600 dir/file",
            "chmod u+s dir/file",
            "chown 5 dir/file",
            "chgrp 5 dir/file",
            "ln -sfn other link",
            "chown -h 5 link",
            "rm null; mknod null c 1 5",
            "rm null; mknod null b 1 5",
            "chmod 700 dir",
            "chmod 700 .",
            "touch dir/empty",
            "mv dir/empty dir/moved",
            "mkdir dir/moved.d",
            "rm pipe",
        ] {
            shell(change);
            assert!(seen.insert(digest(at).digest), "{change}");
        }
        let mut set = |name: &str, value: &[u8], differs: bool| {
            rustix::fs::setxattr(p("dir/file"), name, value, rustix::fs::XattrFlags::empty()).unwrap();
            assert_eq!(seen.insert(digest(at).digest), differs, "{name}");
        };
        set("user.a", b"1", true);
        set("user.a", b"2", true);
        set("security.selinux", b"label", false);
        let before = digest(at);
        for no_change in [
            "touch -h -d 2001-01-01 dir/file link",
            "cp -p --preserve=all dir/same x && mv x dir/same",
        ] {
            shell(no_change);
            assert_eq!(digest(at).digest, before.digest, "{no_change}");
        }
    }

    #[test]
    fn the_digest_is_as_documented() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("tree");
        fs::create_dir(&at).unwrap();
        fs::write(at.join("f"), "hello").unwrap();
        unix::symlink("f", at.join("l")).unwrap();
        for (path, mode) in [(at.clone(), 0o755), (at.join("f"), 0o640)] {
            fs::set_permissions(path, unix::PermissionsExt::from_mode(mode)).unwrap();
        }
        let mut bytes = b"rackstrap tree 1\n".to_vec();
        bytes.extend(b"\0\0\0\0d\xed\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend(b"\x01\0\0\0ff\xa0\x01\0\0\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        bytes.extend(blake3::hash(b"hello").as_bytes());
        bytes.extend(b"\0\0\0\0\x01\0\0\0ll\xff\x01\0\0\0\0\0\0\0\0\0\0\x01\0\0\0f\0\0\0\0");
        assert_eq!(digest(&at).digest, format!("blake3:{}", blake3::hash(&bytes).to_hex()));
        assert_eq!(
            digest_file(&at.join("f")).unwrap(),
            format!("blake3:{}", blake3::hash(b"hello").to_hex())
        );
    }
}
