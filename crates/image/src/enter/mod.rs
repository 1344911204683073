//! Runs a command or a shell in a working copy, in namespaces of its own.
//!
//! `rackstrap` starts itself again as PID 1 of a new PID namespace (`inside`). That process makes the mounts (`mounts`) in a
//! mount namespace of its own and starts the command. It is killed with the process that started it, the kernel kills all other
//! processes of the namespace with it, and mounts disappear with the last process of their namespace. So nothing stays behind,
//! however it ends. This protects the host from mistakes of root, not from a hostile image.

mod inside;
mod mounts;
mod sys;

pub use inside::run_inside;

use super::{
    bootstrap::NO_INITRAMFS,
    error::{Doing, ImportError, Result},
    foreign::{expect_runs, tree_architecture},
    freebsd::is_freebsd,
    import::check_root,
    placeholders::{make_placeholders, remove_placeholders},
    root::RootDir,
    work::{LockedCopy, lock_copy},
};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

/// A command to run in a working copy.
#[derive(Clone, Debug)]
pub struct EnterRequest {
    /// `STATE/images`.
    pub images_dir: PathBuf,
    /// The working copy.
    pub work: String,
    /// Program and arguments; none for a login shell.
    pub command: Vec<OsString>,
}

/// The instructions for PID 1.
#[derive(Debug, Serialize, Deserialize)]
struct Instructions {
    root: PathBuf,
    name: String,
    command: Vec<OsString>,
    environment: Vec<(String, String)>,
    resolver: Vec<u8>,
}

/// Variables of the environment that the command gets. It gets no others.
const PASSED_ON: [&str; 9] = [
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
];

/// Runs a command in a working copy. Returns its exit code, or 128 plus the number of the signal that ended it. `own_arguments`
/// make this program call [`run_inside`] with the descriptors' numbers, which are appended.
///
/// # Errors
/// The copy does not exist, or is being sealed or deleted; missing rights; system calls. PID 1 prints its own failures, and the
/// result is then 125, 126 for a command that cannot be executed, or 127 for one that does not exist.
pub fn enter(request: &EnterRequest, own_arguments: &[&str]) -> Result<u8> {
    check_root("entering an image")?;
    let held = lock_copy(&request.images_dir, &request.work, true, "cannot enter")?;
    if RootDir::open(&held.copy.root()).is_ok_and(|root| is_freebsd(&root)) {
        return Err(ImportError::Request(format!(
            "the tree of {} is FreeBSD's, whose programs do not run on Linux; change its files in {}, or on a machine with FreeBSD",
            request.work,
            held.copy.root().display()
        )));
    }
    if let Some(architecture) = tree_architecture(&held.copy.root()) {
        expect_runs(architecture, "commands in it")?;
    }
    make_placeholders(&held.copy.dir)?;
    let terminal = Terminal::now();
    // A thread of its own: only its children are in the new namespace.
    let ended = std::thread::scope(|scope| {
        let inside = scope.spawn(|| start(request, &held, own_arguments));
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    remove_own_files(&held);
    ended
}

/// Removes the placeholders if no other process is in the working copy.
fn remove_own_files(held: &LockedCopy) {
    if held.lock.alone()
        && let Err(e) = remove_placeholders(&held.copy.dir)
    {
        tracing::warn!(error = %e, "placeholders were not removed; the next command removes them");
    }
}

fn start(request: &EnterRequest, held: &LockedCopy, own_arguments: &[&str]) -> Result<u8> {
    sys::children_in_new_pid_namespace().doing(|| "making a PID namespace")?;
    let (reader, mut writer) = io::pipe().doing(|| "making a pipe")?;
    // PID 1 also holds the lock: if this process is killed, it releases its lock before all processes of the namespace have ended.
    for fd in [reader.as_fd(), held.lock.as_fd()] {
        fcntl_setfd(fd, FdFlags::empty()).doing(|| "passing on a descriptor")?;
    }
    let child = Command::new("/proc/self/exe")
        .arg0("rackstrap")
        .args(own_arguments)
        .args([reader.as_raw_fd(), held.lock.as_fd().as_raw_fd()].map(|fd| fd.to_string()))
        .spawn();
    let mut child = child.doing(|| "starting PID 1 of the namespace")?;
    // PID 1 is started before this, because it would inherit the ignored signals.
    sys::ignore_the_terminals_signals();
    for fd in [reader.as_fd(), held.lock.as_fd()] {
        fcntl_setfd(fd, FdFlags::CLOEXEC).doing(|| "keeping a descriptor")?;
    }
    drop(reader);
    let instructions = instructions(request, held);
    let line = serde_json::to_vec(&instructions)
        .map_err(io::Error::other)
        .doing(|| "writing the instructions for PID 1")?;
    // If PID 1 has ended already, it has printed why.
    let _ = writer.write_all(&line).and_then(|()| writer.write_all(b"\n"));
    let status = child.wait().doing(|| "waiting for PID 1 of the namespace")?;
    // The open pipe tells PID 1 that this process waits for it.
    drop(writer);
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(code as u8),
        (None, Some(signal)) => Ok(128 + signal as u8),
        (None, None) => Err(ImportError::Request(format!(
            "PID 1 of the namespace ended as {status}"
        ))),
    }
}

fn instructions(request: &EnterRequest, held: &LockedCopy) -> Instructions {
    let name = &held.copy.name;
    let mut environment: Vec<(String, String)> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("LANG", "C.UTF-8"),
        // With this, systemctl starts nothing, and only enables and disables units in the tree.
        ("SYSTEMD_OFFLINE", "1"),
        // Otherwise systemd-tmpfiles makes subvolumes in a tree that is a subvolume of btrfs.
        ("SYSTEMD_TMPFILES_FORCE_SUBVOL", "0"),
        NO_INITRAMFS,
        // Debian's bashrc shows this in its prompt; other shells use PS1.
        ("debian_chroot", name),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    environment.push(("PS1".to_owned(), format!("({name}) # ")));
    if !isatty(io::stdin()) {
        // Without a terminal no person can answer a package's questions.
        environment.push(("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned()));
    }
    let passed = PASSED_ON
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), std::env::var(key).ok()?)));
    environment.extend(passed);
    Instructions {
        root: held.copy.root(),
        name: name.clone(),
        command: request.command.clone(),
        environment,
        resolver: resolver(Path::new("/etc/resolv.conf")),
    }
}

/// The host's name servers; empty if it has none.
fn resolver(path: &Path) -> Vec<u8> {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(64 << 10).read_to_end(&mut text);
    }
    text
}

/// The state of the terminal, to be restored: a shell that is killed leaves its own state behind.
struct Terminal {
    modes: Termios,
    foreground: bool,
}

impl Terminal {
    fn now() -> Option<Self> {
        let stdin = io::stdin();
        let modes = isatty(&stdin).then(|| tcgetattr(&stdin).ok())??;
        let foreground = tcgetpgrp(&stdin).ok() == Some(rustix::process::getpgrp());
        Some(Terminal { modes, foreground })
    }

    fn restore(&self) {
        if !self.foreground {
            return;
        }
        let stdin = io::stdin();
        let stdin: BorrowedFd<'_> = stdin.as_fd();
        // Failures do not matter: a terminal that was closed needs neither.
        let _ = tcsetpgrp(stdin, rustix::process::getpgrp());
        let _ = tcsetattr(stdin, OptionalActions::Drain, &self.modes);
    }
}
