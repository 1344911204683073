//! Working in a working copy: a command or a shell in it, in namespaces of its own.
//!
//! `rackstrap` starts itself once more as PID 1 of a new PID namespace (`inside`), which makes the mounts
//! (`mounts`) in a mount namespace of its own and starts the command. PID 1 is killed with the process that started it, the
//! kernel kills everybody in the namespace with PID 1, and mounts go with the last process of their namespace: however
//! it ends, nothing stays behind. It keeps root on the host from mistakes, not the host from a hostile image.

mod inside;
mod mounts;
mod sys;

pub use inside::run_inside;

use super::{
    bootstrap::NO_INITRAMFS,
    error::{Doing, ImportError, Result},
    import::check_root,
    placeholders::{make_placeholders, remove_placeholders},
    work::{Held, hold},
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

/// What is to run where.
#[derive(Clone, Debug)]
pub struct EnterRequest {
    /// `STATE/images`.
    pub images_dir: PathBuf,
    /// The working copy.
    pub work: String,
    /// Program and arguments; none for a login shell.
    pub command: Vec<OsString>,
}

/// What PID 1 is told.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    root: PathBuf,
    name: String,
    command: Vec<OsString>,
    environment: Vec<(String, String)>,
    resolver: Vec<u8>,
}

/// Environment that goes inside with the command; everything else stays outside.
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

/// Runs a command in a working copy; answers its exit code, or 128 and the signal that ended it. `own_arguments` make
/// this program call [`run_inside`] with the numbers that are put behind them.
///
/// # Errors
/// The copy is not there, or is being sealed or deleted; rights; what system calls say. What PID 1 finds wrong it prints
/// itself, and the answer is 125 then, 126 for a command that cannot be executed, 127 for one that is not there.
pub fn enter(request: &EnterRequest, own_arguments: &[&str]) -> Result<u8> {
    check_root("entering an image")?;
    let held = hold(&request.images_dir, &request.work, true, "nobody enters")?;
    make_placeholders(&held.copy.dir)?;
    let terminal = Terminal::now();
    // A thread of its own: its children are in the new namespace, and no other thread's.
    let ended = std::thread::scope(|scope| {
        let inside = scope.spawn(|| start(request, &held, own_arguments));
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    leave(&held);
    ended
}

/// The last one who leaves removes what only served to enter.
fn leave(held: &Held) {
    if held.lock.alone()
        && let Err(e) = remove_placeholders(&held.copy.dir)
    {
        tracing::warn!(error = %e, "left for the next one");
    }
}

fn start(request: &EnterRequest, held: &Held, own_arguments: &[&str]) -> Result<u8> {
    sys::children_in_new_pid_namespace().doing(|| "making a PID namespace")?;
    let (reader, mut writer) = io::pipe().doing(|| "making a pipe")?;
    // PID 1 holds the lock too: killed, this process gives it up before all in the namespace are gone.
    for fd in [reader.as_fd(), held.lock.as_fd()] {
        fcntl_setfd(fd, FdFlags::empty()).doing(|| "passing on a descriptor")?;
    }
    let child = Command::new("/proc/self/exe")
        .arg0("rackstrap")
        .args(own_arguments)
        .args([reader.as_raw_fd(), held.lock.as_fd().as_raw_fd()].map(|fd| fd.to_string()))
        .spawn();
    let mut child = child.doing(|| "starting PID 1 of the namespace")?;
    // Not before it is started: it would be deaf to them too.
    sys::ignore_the_terminals_signals();
    for fd in [reader.as_fd(), held.lock.as_fd()] {
        fcntl_setfd(fd, FdFlags::CLOEXEC).doing(|| "keeping a descriptor")?;
    }
    drop(reader);
    let told = told(request, held);
    let line = serde_json::to_vec(&told)
        .map_err(io::Error::other)
        .doing(|| "telling PID 1 what to do")?;
    // Should it be gone already, it has said why.
    let _ = writer.write_all(&line).and_then(|()| writer.write_all(b"\n"));
    let status = child.wait().doing(|| "waiting for PID 1 of the namespace")?;
    // Until here: that its end is open tells PID 1 that somebody waits for it.
    drop(writer);
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(code as u8),
        (None, Some(signal)) => Ok(128 + signal as u8),
        (None, None) => Err(ImportError::Request(format!(
            "PID 1 of the namespace ended as {status}"
        ))),
    }
}

fn told(request: &EnterRequest, held: &Held) -> Told {
    let name = &held.copy.name;
    let mut environment: Vec<(String, String)> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("LANG", "C.UTF-8"),
        // systemctl starts nothing, and enables and disables units in the tree alone.
        ("SYSTEMD_OFFLINE", "1"),
        // systemd-tmpfiles makes no subvolumes of btrfs in a tree that is one.
        ("SYSTEMD_TMPFILES_FORCE_SUBVOL", "0"),
        NO_INITRAMFS,
        // Debian's bashrc has it in its prompt; other shells take PS1.
        ("debian_chroot", name),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    environment.push(("PS1".to_owned(), format!("({name}) # ")));
    if !isatty(io::stdin()) {
        // Packages ask nobody where nobody is there.
        environment.push(("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned()));
    }
    let passed = PASSED_ON
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), std::env::var(key).ok()?)));
    environment.extend(passed);
    Told {
        root: held.copy.root(),
        name: name.clone(),
        command: request.command.clone(),
        environment,
        resolver: resolver(Path::new("/etc/resolv.conf")),
    }
}

/// The host's name servers; none if it has none.
fn resolver(path: &Path) -> Vec<u8> {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(64 << 10).read_to_end(&mut text);
    }
    text
}

/// The terminal as it was, to be made so again: a shell that is killed leaves it in a state of its own.
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
        // Both are a courtesy: a terminal that is gone needs neither.
        let _ = tcsetpgrp(stdin, rustix::process::getpgrp());
        let _ = tcsetattr(stdin, OptionalActions::Drain, &self.modes);
    }
}
