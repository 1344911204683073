//! Finds the differences between two trees.

use super::{
    digest::shared_xattrs,
    error::{Doing, Result, show_name},
    locks::open_dir,
    progress::{Progress, Step},
    tree::{Entry, Id, Walk, changing, reading, walk_order},
};
use rustix::fs::{FileType, readlinkat};
use serde::Serialize;
use std::{
    cmp::Ordering,
    fs::File,
    io::{ErrorKind, Read},
    os::fd::AsFd,
    path::Path,
};

/// Bytes compared at a time.
const CHUNK: usize = 256 << 10;

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Became {
    /// It is only in the second tree.
    Added,
    /// It is only in the first tree.
    Removed,
    /// It is in both, and different.
    Changed,
}

/// A file that is different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path from the root of the trees, with a leading slash; escaped if it is not plain text.
    pub file: String,
    /// How the second tree differs.
    pub became: Became,
    /// The changed properties: `content`, `mode 0644 -> 0600` and so on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
}

/// Compares the trees `before` and `after`, and calls `found` for each difference, in the order of paths. Times, holes and hard
/// links do not count.
///
/// # Errors
/// System calls, a tree that changes meanwhile, and the error of `found`.
pub fn diff_trees(
    before: &Path,
    after: &Path,
    bytes: Option<u64>,
    found: &mut dyn FnMut(FileChange) -> std::io::Result<()>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let open = |path: &Path| open_dir(path).doing(|| format!("opening {}", path.display()));
    let (left, right) = (open(before)?, open(after)?);
    progress.begin(Step::Compare, bytes);
    let (mut left, mut right) = (Walk::new(left.as_fd())?, Walk::new(right.as_fd())?);
    let (mut a, mut b) = (left.next()?, right.next()?);
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    let mut tell = |entry: &Entry<'_>, became, what| {
        let file = format!("/{}", show_name(entry.path));
        found(FileChange { file, became, what }).doing(|| "reporting a difference")
    };
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => walk_order(a.path, b.path),
        };
        match (order, &a, &b) {
            (Ordering::Equal, Some(was), Some(is)) => {
                let what = differences(was, is, &mut buffers, progress)?;
                if !what.is_empty() {
                    tell(is, Became::Changed, what)?;
                }
                progress.advance(1, 0);
                (a, b) = (left.next()?, right.next()?);
            }
            (Ordering::Less, Some(was), _) => {
                tell(was, Became::Removed, Vec::new())?;
                a = left.next()?;
            }
            (_, _, Some(is)) => {
                tell(is, Became::Added, Vec::new())?;
                b = right.next()?;
            }
            _ => unreachable!("two entries are equal, or one comes first"),
        }
    }
}

fn differences(
    was: &Entry<'_>,
    is: &Entry<'_>,
    buffers: &mut [Vec<u8>; 2],
    progress: &mut dyn Progress,
) -> Result<Vec<String>> {
    let mut what = Vec::new();
    let (before, after) = (&was.stat, &is.stat);
    let size = before.st_size as u64;
    if Id::of(before) == Id::of(after) {
        return Ok(what);
    }
    if was.kind() != is.kind() {
        what.push(format!("{} -> {}", kind(was.kind()), kind(is.kind())));
    } else {
        match was.kind() {
            FileType::RegularFile => {
                if before.st_size != after.st_size || !same_content(was, is, buffers)? {
                    what.push("content".to_owned());
                }
                progress.advance(0, size);
            }
            FileType::Symlink => {
                let target = |entry: &Entry<'_>| {
                    let target = readlinkat(entry.dir, &entry.name, Vec::new()).doing(|| reading(entry.path))?;
                    Ok(show_name(target.to_bytes()))
                };
                let (old, new): (String, String) = (target(was)?, target(is)?);
                if old != new {
                    what.push(format!("target {old} -> {new}"));
                }
            }
            FileType::CharacterDevice | FileType::BlockDevice if before.st_rdev != after.st_rdev => {
                let number = |rdev| format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev));
                what.push(format!(
                    "device {} -> {}",
                    number(before.st_rdev),
                    number(after.st_rdev)
                ));
            }
            _ => {}
        }
    }
    let (old, new) = (before.st_mode & 0o7777, after.st_mode & 0o7777);
    // Links have no mode of their own.
    if old != new && ![was.kind(), is.kind()].contains(&FileType::Symlink) {
        what.push(format!("mode {old:04o} -> {new:04o}"));
    }
    if (before.st_uid, before.st_gid) != (after.st_uid, after.st_gid) {
        let (old, new) = ((before.st_uid, before.st_gid), (after.st_uid, after.st_gid));
        what.push(format!("owner {}:{} -> {}:{}", old.0, old.1, new.0, new.1));
    }
    let (old, new) = (shared_xattrs(was)?, shared_xattrs(is)?);
    if old != new {
        let names = old
            .iter()
            .chain(&new)
            .filter(|pair| !(old.contains(pair) && new.contains(pair)));
        let mut names: Vec<String> = names.map(|(name, _)| show_name(name.to_bytes())).collect();
        names.dedup();
        names.sort();
        names.dedup();
        what.push(format!("attributes {}", names.join(" ")));
    }
    Ok(what)
}

fn same_content(was: &Entry<'_>, is: &Entry<'_>, [left, right]: &mut [Vec<u8>; 2]) -> Result<bool> {
    let (mut a, mut b) = (was.open()?, is.open()?);
    loop {
        let got = fill(&mut a, left).doing(|| reading(was.path))?;
        let same = fill(&mut b, right).doing(|| reading(is.path))?;
        if got != same {
            // Both had the same size a moment ago.
            return Err(changing(is.path));
        }
        if left[..got] != right[..got] {
            return Ok(false);
        }
        if got < left.len() {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "directory",
        FileType::RegularFile => "file",
        FileType::Symlink => "link",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        progress::Quiet,
        tree::{Remarks, SpaceGuard, copy_tree, nasty},
    };
    use std::{fs, process::Command};

    fn diff(before: &Path, after: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        let mut found = |change: FileChange| {
            lines.push(
                format!("{:?} {} {}", change.became, change.file, change.what.join(", "))
                    .trim()
                    .to_owned(),
            );
            Ok(())
        };
        diff_trees(before, after, None, &mut found, &mut Quiet).unwrap();
        lines
    }

    #[test]
    fn a_copy_is_equal_and_changes_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        nasty::make(&from, true);
        let (source, target) = (open_dir(&from).unwrap(), open_dir(&to).unwrap());
        let mut space = SpaceGuard::new(target.as_fd(), &to, None).unwrap();
        copy_tree(
            source.as_fd(),
            target.as_fd(),
            None,
            &mut space,
            &mut Remarks::default(),
            &mut Quiet,
        )
        .unwrap();
        assert_eq!(diff(&from, &to), Vec::<String>::new());
        assert_eq!(diff(&from, &from), Vec::<String>::new());
        // The size and the time do not change.
        let shell = "printf SUID > bin/su; touch -r etc bin/su; chmod 755 bin/ping; chown 3:4 etc/empty-file; \
            ln -sfn /etc/group links/absolute; rm dev/null; mknod -m 666 dev/null c 1 5; mkdir new; touch new/file; \
            rm -r etc/empty; rm dev/fifo; mkdir dev/fifo; printf x >> var/dense";
        assert!(
            Command::new("sh")
                .args(["-ec", shell])
                .current_dir(&to)
                .status()
                .unwrap()
                .success()
        );
        rustix::fs::setxattr(
            to.join("etc/shadow"),
            "user.empty",
            b"x",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let lines = diff(&from, &to);
        let wanted = [
            "Changed /bin/ping mode 0644 -> 0755",
            "Changed /bin/su content",
            "Changed /dev/fifo fifo -> directory, mode 0600 -> 0755, owner 1000:1000 -> 0:0, attributes trusted.fifo",
            "Changed /dev/null device 1:3 -> 1:5",
            "Removed /etc/empty",
            "Changed /etc/empty-file owner 0:0 -> 3:4",
            "Changed /etc/shadow attributes user.empty",
            "Changed /links/absolute target /etc/passwd -> /etc/group, owner 7:8 -> 0:0",
            "Added /new",
            "Added /new/file",
            "Changed /var/dense content",
        ];
        assert_eq!(lines, wanted);
        let back: Vec<String> = diff(&to, &from)
            .into_iter()
            .filter(|line| line.contains("new"))
            .collect();
        assert_eq!(back, ["Removed /new", "Removed /new/file"]);
    }
}
