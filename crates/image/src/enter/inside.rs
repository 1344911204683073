//! PID 1 of the namespace that a command in a working copy runs in.

use super::{Told, mounts, sys};
use crate::error::{Doing, ImportError, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, getpid, set_parent_process_death_signal, wait},
};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::{fd::RawFd, unix::process::CommandExt},
    path::Path,
    process::Command,
};

/// Longest line that says what to do: the kernel's own limit of arguments is 6 MiB (execve(2)).
const LONGEST: u64 = 32 << 20;

/// What `enter` answers if it is not the command's own code (as env(1), nice(1) and the like).
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Is PID 1: makes the mounts, runs the command, waits for everybody; answers the command's code. `pipe` and `lock` are
/// descriptors that [`super::enter`] left open.
pub fn run_inside(pipe: RawFd, lock: RawFd) -> u8 {
    run(pipe, lock).unwrap_or_else(|error| {
        eprintln!("rackstrap: {error}");
        FAILED
    })
}

fn run(pipe: RawFd, lock: RawFd) -> Result<u8> {
    if getpid() != Pid::INIT {
        return Err(ImportError::Request(
            "this is a part of `rackstrap image shell` and `image exec`, and is not called by people".to_owned(),
        ));
    }
    set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "asking to die with whoever started this")?;
    let pipe = sys::inherited(pipe).doing(|| "taking over the pipe")?;
    let _lock = sys::inherited(lock).doing(|| "taking over the lock")?;
    let mut reader = BufReader::new(io::Read::take(File::from(pipe), LONGEST));
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).doing(|| "reading what to do")?;
    let told: Told = serde_json::from_slice(&line)
        .map_err(io::Error::other)
        .doing(|| "reading what to do")?;
    // It may have died before we asked to die with it.
    let pipe = reader.get_ref().get_ref();
    let mut asked = [PollFd::new(pipe, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&now)).doing(|| "looking whether somebody waits")?;
    if asked[0].revents().contains(PollFlags::HUP) {
        return Err(ImportError::Request("whoever started this is gone".to_owned()));
    }
    sys::new_namespaces().doing(|| "making namespaces")?;
    mounts::mount_all(&told.root, &told.resolver)?;
    // What is read only for us is writable here: it is this namespace's name.
    fs::write("/proc/sys/kernel/hostname", &told.name).doing(|| "naming the namespace")?;
    let mut command = command(&told);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            eprintln!("rackstrap: in {}: {}: {e}", told.name, command.get_program().display());
            return Ok(match e.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            });
        }
    };
    let main = Pid::from_child(&child);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main => return Ok(code(status)),
            // Orphans that came to us.
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).doing(|| "waiting for the command"),
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => FAILED,
    }
}

fn command(told: &Told) -> Command {
    let (shell, home) = root_of(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    let shell = [shell.as_str(), "/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|shell| !shell.ends_with("nologin") && !shell.ends_with("false") && Path::new(shell).exists())
        .unwrap_or("/bin/sh");
    let mut command = match told.command.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => {
            let mut command = Command::new(shell);
            // A login shell, as login(1) starts it.
            let mut arg0 = OsString::from("-");
            arg0.push(Path::new(shell).file_name().unwrap_or(OsStr::new("sh")));
            command.arg0(arg0);
            if Path::new(&home).is_dir() {
                command.current_dir(&home);
            }
            command
        }
    };
    command
        .env_clear()
        .envs(told.environment.iter().map(|(key, value)| (key, value)));
    command.env("SHELL", shell).env("HOME", home);
    command
}

/// Root's shell and home directory by passwd(5).
fn root_of(passwd: &str) -> (String, String) {
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let root = line.into_iter().find(|fields| fields.len() == 7 && fields[2] == "0");
    let field = |index: usize, default: &str| {
        let value = root
            .as_ref()
            .map(|fields| fields[index])
            .filter(|value| value.starts_with('/'));
        value.unwrap_or(default).to_owned()
    };
    (field(6, "/bin/sh"), field(5, "/root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_shell_and_home() {
        let text = "daemon:x:1:1::/usr/sbin:/usr/sbin/nologin\nroot:x:0:0:root:/root:/bin/zsh\ntoor:x:0:0::/x:/y\n";
        assert_eq!(root_of(text), ("/bin/zsh".into(), "/root".into()));
        for odd in ["", "root", "root:x:0:0:root::", "\u{0}:::::::\n"] {
            assert_eq!(root_of(odd), ("/bin/sh".into(), "/root".into()), "{odd}");
        }
    }

    #[test]
    fn only_pid_1_runs_it() {
        assert_eq!(run_inside(0, 0), FAILED);
    }
}
