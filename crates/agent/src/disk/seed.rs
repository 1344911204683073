//! Copies a directory of the image to a fresh file system, so that mounting it there hides nothing.
//!
//! This happens once, when the disk is prepared, before the final marker: if a power cut interrupts it, preparation starts again from
//! the beginning. When the node later boots another version of the image, `refresh` updates the files of the image.
//!
//! Owners, modes, times, hard links, extended attributes (capabilities and ACLs among them), devices, FIFOs, sockets and holes are kept.
//! Several files are copied at once, because each copy waits for several answers from the server. The source is a read-only image, and
//! no user can reach the target yet, so no user can put a link in the way.

use crate::fail::{Doing, Failure, Res};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timestamps, Uid, XattrFlags};
use std::{
    collections::HashMap,
    ffi::CStr,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Files copied at once.
const AT_ONCE: usize = 8;
/// Files that are listed before they are copied, so that the list stays small for a tree of any size.
const LISTED: usize = 1024;

/// The amount that was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files of all kinds, including directories.
    pub files: u64,
    /// Bytes of regular files, without holes.
    pub bytes: u64,
}

/// Copies the content of `from` into the existing directory `to`, and gives `to` the attributes of `from`.
pub fn copy_tree(from: &Path, to: &Path) -> Res<Copied> {
    let mut copier = Copier {
        links: HashMap::new(),
        copied: Copied::default(),
        device: rustix::fs::lstat(from)
            .doing(|| format!("looking at {}", from.display()))?
            .st_dev,
    };
    copier.directory(from, to)?;
    Ok(copier.copied)
}

struct Copier {
    /// First copy of each file with more than one name.
    links: HashMap<(u64, u64), PathBuf>,
    copied: Copied,
    device: u64,
}

impl Copier {
    fn directory(&mut self, from: &Path, to: &Path) -> Res<()> {
        // One level of directories at a time, so that a deep tree needs memory but no stack.
        let mut todo = vec![(from.to_owned(), to.to_owned())];
        let mut made = Vec::new();
        let mut files = Vec::new();
        while let Some((from, to)) = todo.pop() {
            let list = fs::read_dir(&from).doing(|| format!("reading {}", from.display()))?;
            for entry in list {
                let entry = entry.doing(|| format!("reading {}", from.display()))?;
                let (source, target) = (entry.path(), to.join(entry.file_name()));
                // The list of a directory says the kind of each entry.
                let kind = entry.file_type().doing(|| format!("looking at {}", source.display()))?;
                if kind.is_dir() {
                    let stat = rustix::fs::lstat(&source).doing(|| format!("looking at {}", source.display()))?;
                    // ext4 may have made this directory (lost+found).
                    if !target.is_dir() {
                        rustix::fs::mkdir(&target, Mode::RWXU).doing(|| format!("making {}", target.display()))?;
                    }
                    // A file system that is mounted in the image belongs to the machine, not to the image.
                    if stat.st_dev == self.device {
                        todo.push((source, target));
                    }
                } else {
                    files.push((source, target));
                    if files.len() == LISTED {
                        self.files(&files)?;
                        files.clear();
                    }
                }
                self.copied.files += 1;
            }
            made.push((from, to));
        }
        self.files(&files)?;
        // Attributes come last, the deepest first: filling a directory changes its times.
        for (from, to) in made.iter().rev() {
            let stat = rustix::fs::lstat(from).doing(|| format!("looking at {}", from.display()))?;
            attributes(from, to, &stat).doing(|| format!("copying {}", from.display()))?;
        }
        Ok(())
    }

    /// Copies files of any kind, several at once. Files with more than one name come last and in order, so that the first name does not
    /// depend on the speed of threads.
    fn files(&mut self, files: &[(PathBuf, PathBuf)]) -> Res<()> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Done::default());
        let work = || {
            while let Some((index, (from, to))) = files.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
                let copied = copy_if_single(from, to).doing(|| format!("copying {}", from.display()));
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match copied {
                    Ok(Some(bytes)) => done.bytes += bytes,
                    Ok(None) => done.linked.push(index),
                    Err(failure) => {
                        // The other threads start no further file after this.
                        next.store(files.len(), Ordering::Relaxed);
                        done.failed.get_or_insert(failure);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..AT_ONCE.min(files.len()) {
                // This thread also copies, so a thread that could not be started is not a failure.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = done.failed {
            return Err(failure);
        }
        self.copied.bytes += done.bytes;
        done.linked.sort_unstable();
        for index in done.linked {
            let (from, to) = &files[index];
            let copied = rustix::fs::lstat(from)
                .map_err(Into::into)
                .and_then(|stat| self.file(from, to, &stat));
            copied.doing(|| format!("copying {}", from.display()))?;
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path, stat: &Stat) -> std::io::Result<()> {
        let id = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&id) {
                return Ok(rustix::fs::link(first, to)?);
            }
            self.links.insert(id, to.to_owned());
        }
        self.copied.bytes += copy_file(from, to, stat)?;
        Ok(())
    }
}

/// The common result of several threads.
#[derive(Default)]
struct Done {
    bytes: u64,
    /// Indexes of files with more than one name, which are not copied yet.
    linked: Vec<usize>,
    failed: Option<Failure>,
}

/// Copies a file that has one name, and returns its bytes like [`copy_file`]. None if it has more names.
fn copy_if_single(from: &Path, to: &Path) -> std::io::Result<Option<u64>> {
    let stat = rustix::fs::lstat(from)?;
    if stat.st_nlink > 1 {
        return Ok(None);
    }
    copy_file(from, to, &stat).map(Some)
}

/// Copies any object except a directory. Returns the bytes of a regular file, without holes.
pub fn copy_file(from: &Path, to: &Path, stat: &Stat) -> std::io::Result<u64> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut bytes = 0;
    match kind {
        FileType::RegularFile => bytes = contents(from, to, stat.st_size.max(0) as u64)?,
        FileType::Symlink => {
            let target = rustix::fs::readlink(from, Vec::new())?;
            rustix::fs::symlink(target.as_c_str(), to)?;
        }
        _ => rustix::fs::mknodat(CWD, to, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?,
    }
    attributes(from, to, stat)?;
    Ok(bytes)
}

/// Gives a file the capabilities of the image's file, which NFSv3 does not transfer.
pub fn set_capability(file: &Path, value: &[u8]) -> std::io::Result<()> {
    Ok(rustix::fs::lsetxattr(
        file,
        "security.capability",
        value,
        XattrFlags::empty(),
    )?)
}

fn contents(from: &Path, to: &Path, size: u64) -> std::io::Result<u64> {
    const BLOCK: u64 = 128 << 10;
    const ZERO: [u8; 4096] = [0; 4096];
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    // Most files of an image are small. A buffer with one byte more than the file has is enough to find its end.
    let mut buffer = vec![0; BLOCK.min(size + 1) as usize];
    let (mut bytes, mut length) = (0, 0);
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        length += n as u64;
        let block = &buffer[..n];
        if block.chunks(ZERO.len()).all(|c| *c == ZERO[..c.len()]) {
            target.seek(SeekFrom::Current(n as i64))?;
        } else {
            target.write_all(block)?;
            bytes += n as u64;
        }
    }
    target.set_len(length)?;
    Ok(bytes)
}

/// Gives a file the owner, mode, extended attributes and times of another one.
pub fn attributes(from: &Path, to: &Path, stat: &Stat) -> std::io::Result<()> {
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(CWD, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    // This comes after chown, which clears suid bits and capabilities.
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    }
    xattrs(from, to)?;
    let time = |sec, nsec: u64| rustix::fs::Timespec {
        tv_sec: sec,
        tv_nsec: nsec as _,
    };
    let times = Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn xattrs(from: &Path, to: &Path) -> std::io::Result<()> {
    use rustix::io::Errno;
    // Few files have any, and the kernel clears as much memory as the buffer has, so asking for the length costs less.
    let mut names = match rustix::fs::llistxattr_query(from) {
        Ok(0) => return Ok(()),
        Ok(len) => vec![0u8; len],
        // NFSv3 has none; a later server may.
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let len = rustix::fs::llistxattr(from, &mut names[..])?;
    let mut value = vec![0u8; 64 << 10];
    for name in names[..len].split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let len = match rustix::fs::lgetxattr(from, name, &mut value[..]) {
            Ok(len) => len,
            Err(Errno::NODATA) => continue,
            Err(e) => return Err(e.into()),
        };
        match rustix::fs::lsetxattr(to, name, &value[..len], XattrFlags::empty()) {
            // Some names exist only on the source's kind of file system.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    #[test]
    fn many_files_are_copied_completely_and_one_failure_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let name = |number: usize| format!("{}/{number}", number % 7);
        let many = 2 * LISTED + 3;
        (0..7).for_each(|folder| fs::create_dir_all(from.join(folder.to_string())).unwrap());
        fs::create_dir(&to).unwrap();
        for number in 0..many {
            match number % 10 {
                // Another name of the file before, possibly in another directory.
                9 => fs::hard_link(from.join(name(number - 1)), from.join(name(number))).unwrap(),
                _ => fs::write(from.join(name(number)), number.to_string()).unwrap(),
            }
        }
        let copied = copy_tree(&from, &to).unwrap();
        assert_eq!(copied.files, many as u64 + 7);
        for number in 0..many {
            let text = fs::read_to_string(to.join(name(number))).unwrap();
            assert_eq!(text, (number - usize::from(number % 10 == 9)).to_string());
            let links = fs::symlink_metadata(to.join(name(number))).unwrap().nlink();
            let expected = if number % 10 > 7 && number + 1 < many || number % 10 == 9 {
                2
            } else {
                1
            };
            assert_eq!(links, expected, "{number}");
        }
        // A file is in the way of one of many.
        let again = dir.path().join("again");
        fs::create_dir_all(again.join("3")).unwrap();
        fs::write(again.join(name(500)), "there").unwrap();
        let failure = copy_tree(&from, &again).unwrap_err().to_string();
        assert!(
            failure.contains(&format!("copying {}", from.join(name(500)).display())),
            "{failure}"
        );
    }

    #[test]
    fn everything_about_a_tree_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("log/deep")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("log/a"), "alpha").unwrap();
        fs::hard_link(from.join("log/a"), from.join("b")).unwrap();
        symlink("/run", from.join("run")).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(8 << 20).unwrap();
        fs::set_permissions(from.join("log/a"), fs::Permissions::from_mode(0o4751)).unwrap();
        std::os::unix::fs::chown(from.join("log/deep"), Some(38), Some(39)).unwrap();
        fs::set_permissions(from.join("log/deep"), fs::Permissions::from_mode(0o2775)).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o1777)).unwrap();
        rustix::fs::lsetxattr(from.join("b"), "user.note", b"x", XattrFlags::empty()).unwrap();
        rustix::fs::mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();

        let copied = copy_tree(&from, &to).unwrap();
        assert_eq!(copied, Copied { files: 7, bytes: 5 });
        let meta = |p: &str| fs::symlink_metadata(to.join(p)).unwrap();
        assert_eq!(fs::read(to.join("b")).unwrap(), b"alpha");
        assert_eq!(
            (meta("b").ino(), meta("b").mode() & 0o7777),
            (meta("log/a").ino(), 0o4751)
        );
        assert_eq!(fs::read_link(to.join("run")).unwrap(), Path::new("/run"));
        assert_eq!((meta("sparse").len(), meta("sparse").blocks()), (8 << 20, 0));
        assert_eq!(
            (
                meta("log/deep").uid(),
                meta("log/deep").gid(),
                meta("log/deep").mode() & 0o7777
            ),
            (38, 39, 0o2775)
        );
        assert!(meta("fifo").file_type().is_fifo());
        assert_eq!(meta("").mode() & 0o7777, 0o1777);
        let mut value = [0; 4];
        assert_eq!(rustix::fs::lgetxattr(to.join("b"), "user.note", &mut value[..]), Ok(1));
        let source = fs::symlink_metadata(from.join("log")).unwrap();
        assert_eq!(
            (meta("log").mtime(), meta("log").mtime_nsec()),
            (source.mtime(), source.mtime_nsec())
        );
    }
}
