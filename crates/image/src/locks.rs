//! Locks on directories and files below `images/`. The kernel knows the holders of a lock, and releases it when they die.

use super::error::{Doing, ImportError, Result};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, open, openat},
    io::Errno,
};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

/// A wait that is longer than this is reported.
const SILENT: Duration = Duration::from_secs(2);
/// Time between two attempts to take the lock before that.
const LOOK: Duration = Duration::from_millis(50);

/// Opens the directory `path`.
pub(crate) fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
}

/// Locks the directory `path` until the result is dropped. Waits for other holders, and reports a long wait on standard error.
pub(crate) fn lock_dir(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    lock_dir_reporting(dir, path, &mut |line| eprintln!("{line}"))
}

fn lock_dir_reporting(dir: BorrowedFd<'_>, path: &Path, report: &mut dyn FnMut(&str)) -> Result<OwnedFd> {
    let doing = || format!("locking {}", path.display());
    // A lock belongs to an open file description, so each holder needs a new one.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(dir, c".", flags, Mode::empty()).doing(doing)?;
    let begun = Instant::now();
    while begun.elapsed() < SILENT {
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOOK),
            other => return other.map(|()| fd).doing(doing),
        }
    }
    let holders = show_pids(&holders(fd.as_fd()));
    report(&format!(
        "waiting for the lock of {}, held by {holders}",
        path.display()
    ));
    loop {
        match flock(&fd, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            other => return other.map(|()| fd).doing(doing),
        }
    }
}

/// An open file or directory with a lock. Dropping it releases the lock, even if a child process that is being started still has
/// the descriptor.
#[derive(Debug)]
pub struct Locked(OwnedFd);

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Unlocking cannot fail, and closing would also unlock in the end.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Locked {
    /// Makes a shared lock an exclusive one. Returns false if another process has a shared lock.
    pub(crate) fn alone(&self) -> bool {
        flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok()
    }
}

/// Takes the lock of an open file or directory, unless another process holds a conflicting lock.
///
/// # Errors
/// `Ok(Err(pids))`: these processes hold it. It is empty if they are in another namespace.
pub(crate) fn try_lock(
    file: impl Into<OwnedFd>,
    shared: bool,
    path: &Path,
) -> Result<std::result::Result<Locked, Vec<u32>>> {
    let fd = file.into();
    let how = match shared {
        true => FlockOperation::NonBlockingLockShared,
        false => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&fd, how) {
        Ok(()) => Ok(Ok(Locked(fd))),
        Err(Errno::WOULDBLOCK) => Ok(Err(holders(fd.as_fd()))),
        Err(e) => Err(e).doing(|| format!("locking {}", path.display())),
    }
}

/// Processes that hold a lock of that file, from `/proc/locks` (proc(5)).
pub(crate) fn holders(fd: BorrowedFd<'_>) -> Vec<u32> {
    let Ok(stat) = fstat(fd) else { return Vec::new() };
    let text = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let mut found = parse_locks(&text, Some(device), stat.st_ino);
    if found.is_empty() {
        // btrfs and overlayfs report another device to programs than the kernel's list has.
        found = parse_locks(&text, None, stat.st_ino);
    }
    found
}

/// Lines are `7: FLOCK  ADVISORY  READ 1234 fe:00:567 0 EOF`; lines of waiting processes have `->` after the number.
fn parse_locks(text: &str, device: Option<(u32, u32)>, inode: u64) -> Vec<u32> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if fields.next() != Some("FLOCK") {
            continue;
        }
        let (pid, file) = (fields.nth(2), fields.next());
        let mut parts = file.unwrap_or_default().split(':');
        let mut hex = || u32::from_str_radix(parts.next()?, 16).ok();
        let at = hex().zip(hex());
        let same = parts.next().and_then(|ino| ino.parse().ok()) == Some(inode);
        // A process of another namespace has the number 0 or -1.
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid > 0);
        if same && at.is_some() && (device.is_none() || at == device) {
            found.extend(pid);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// `pid 5 (sh), pid 6 (rackstrap)`
pub fn show_pids(pids: &[u32]) -> String {
    let shown = pids.iter().map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        match name.trim() {
            "" => format!("pid {pid}"),
            name => format!("pid {pid} ({name})"),
        }
    });
    let shown: Vec<String> = shown.collect();
    match shown.is_empty() {
        true => "a process of another namespace".to_owned(),
        false => shown.join(", "),
    }
}

/// The error when other processes hold what `what` needs.
pub(crate) fn held(what: &str, pids: &[u32]) -> ImportError {
    ImportError::Request(format!("{what}: {}", show_pids(pids)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_parsed() {
        let text = "1: POSIX  ADVISORY  WRITE 1234 00:0f:567 0 EOF\n2: FLOCK  ADVISORY  READ 12 fe:00:567 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 13 fe:00:567 0 EOF\n3: FLOCK  ADVISORY  WRITE 14 fe:00:568 0 EOF\n\
            4: FLOCK ADVISORY READ 11 fe:00:567 0 EOF\n5: FLOCK ADVISORY READ -1 fe:00:567 0 EOF\nnonsense\n6: FLOCK\n";
        assert_eq!(parse_locks(text, Some((254, 0)), 567), [11, 12]);
        assert!(parse_locks(text, Some((254, 1)), 567).is_empty());
        assert_eq!(parse_locks(text, None, 568), [14]);
    }

    #[test]
    fn a_long_wait_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        let mut told = Vec::new();
        let free = lock_dir_reporting(fd.as_fd(), dir.path(), &mut |line| told.push(line.to_owned()));
        assert_eq!(told, Vec::<String>::new(), "no process holds the lock");
        let mut holder = Some(Locked(free.unwrap()));
        let lock = lock_dir_reporting(fd.as_fd(), dir.path(), &mut |line| {
            told.push(line.to_owned());
            holder.take();
        });
        assert!(lock.is_ok());
        let named = format!(
            "waiting for the lock of {}, held by pid {} (",
            dir.path().display(),
            std::process::id()
        );
        assert!(told.len() == 1 && told[0].starts_with(&named), "{told:?}");
    }

    #[test]
    fn holders_of_a_lock_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || std::fs::File::open(file.path()).unwrap();
        let take = |shared| try_lock(open(), shared, Path::new("x")).unwrap();
        let (a, b) = (take(true).unwrap(), take(true).unwrap());
        assert_eq!(take(false).unwrap_err(), [std::process::id()]);
        assert!(!a.alone());
        // A child that is being started has the descriptor until it executes another program.
        let _copy = a.as_fd().try_clone_to_owned().unwrap();
        drop((a, b));
        assert!(take(true).unwrap().alone());
        assert!(show_pids(&[std::process::id()]).contains(" ("));
        assert!(show_pids(&[]).contains("another namespace"));
    }
}
