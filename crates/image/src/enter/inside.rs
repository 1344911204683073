//! PID 1 of the namespace of a command in a working copy.

use super::{Instructions, mounts, sys};
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

/// Longest line with the instructions: the kernel limits arguments to 6 MiB (execve(2)).
const LONGEST: u64 = 32 << 20;

/// Exit code of `enter` for its own failures (as env(1), nice(1) and others use).
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs as PID 1: makes the mounts, runs the command, reaps all processes, and returns the command's exit code. `pipe` and `lock`
/// are descriptors that [`super::enter`] left open.
pub fn run_inside(pipe: RawFd, lock: RawFd) -> u8 {
    run(pipe, lock).unwrap_or_else(|error| {
        eprintln!("rackstrap: {error}");
        FAILED
    })
}

fn run(pipe: RawFd, lock: RawFd) -> Result<u8> {
    if getpid() != Pid::INIT {
        return Err(ImportError::Request(
            "this command is internal to `rackstrap image shell` and `image exec`".to_owned(),
        ));
    }
    set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "setting the signal for the end of the parent")?;
    let pipe = sys::inherited(pipe).doing(|| "taking over the pipe")?;
    let _lock = sys::inherited(lock).doing(|| "taking over the lock")?;
    let mut reader = BufReader::new(io::Read::take(File::from(pipe), LONGEST));
    let mut line = Vec::new();
    reader
        .read_until(b'\n', &mut line)
        .doing(|| "reading the instructions")?;
    let instructions: Instructions = serde_json::from_slice(&line)
        .map_err(io::Error::other)
        .doing(|| "reading the instructions")?;
    // The parent may have ended before the signal was set.
    let pipe = reader.get_ref().get_ref();
    let mut asked = [PollFd::new(pipe, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&now)).doing(|| "checking the pipe")?;
    if asked[0].revents().contains(PollFlags::HUP) {
        return Err(ImportError::Request(
            "the process that started this has ended".to_owned(),
        ));
    }
    sys::new_namespaces().doing(|| "making namespaces")?;
    mounts::mount_all(&instructions.root, &instructions.resolver)?;
    // /proc/sys is read-only for the command, but writable here: this is the namespace's own name.
    fs::write("/proc/sys/kernel/hostname", &instructions.name).doing(|| "naming the namespace")?;
    let mut command = command(&instructions);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            eprintln!(
                "rackstrap: in {}: {}: {e}",
                instructions.name,
                command.get_program().display()
            );
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
            // Orphans become children of PID 1.
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

fn command(instructions: &Instructions) -> Command {
    let (shell, home) = root_of(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    let shell = [shell.as_str(), "/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|shell| !shell.ends_with("nologin") && !shell.ends_with("false") && Path::new(shell).exists())
        .unwrap_or("/bin/sh");
    let mut command = match instructions.command.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => {
            let mut command = Command::new(shell);
            // login(1) starts a login shell with this name.
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
        .envs(instructions.environment.iter().map(|(key, value)| (key, value)));
    command.env("SHELL", shell).env("HOME", home);
    command
}

/// The shell and home directory of root, from passwd(5).
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
