//! Child processes that do not outlive this one.
#![allow(unsafe_code)]

use crate::Result;
use anyhow::{Context, bail};
use rustix::process::{
    Pid, Signal, getppid, kill_process, kill_process_group, set_parent_process_death_signal, setpriority_pgrp,
};
use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Makes `command` start in a process group of its own, and end when the thread that starts it ends.
///
/// `PR_SET_PDEATHSIG` refers to the thread and not to the process (prctl(2)), so start long-lived children on the thread that holds
/// their guard. The setting survives `execve`, and so also `ip netns exec`.
pub(crate) fn bind_to_us(command: &mut Command) -> &mut Command {
    let us = Pid::from_raw(std::process::id().cast_signed());
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before the call above.
            if getppid() == us {
                Ok(())
            } else {
                Err(io::ErrorKind::Interrupted.into())
            }
        })
    }
}

/// A child with its process group, killed when dropped.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
}

impl Running {
    /// Starts `command`, bound to this thread's life.
    pub fn start(what: &str, command: &mut Command) -> Result<Self> {
        Running::spawn(what, bind_to_us(command))
    }

    fn spawn(what: &str, command: &mut Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("starting {what} ({})", command.get_program().display()))?;
        Ok(Running {
            what: what.to_owned(),
            child,
        })
    }

    /// Its name in messages.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends on its own.
    pub fn wait(mut self) -> Result<ExitStatus> {
        self.child.wait().with_context(|| format!("waiting for {}", self.what))
    }

    /// Its exit status; none if it is still running.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("checking {}", self.what))
    }

    /// Sends a signal to the child itself.
    pub fn signal(&self, signal: Signal) -> Result {
        kill_process(self.pid(), signal).with_context(|| format!("sending {signal:?} to {}", self.what))
    }

    /// Sends SIGTERM and waits. If that takes longer than `limit`, kills it and prints that.
    pub fn terminate(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "{} did not end within {} s of SIGTERM and was killed",
            self.what,
            limit.as_secs()
        );
    }

    /// Sets the nice value of its group, from 0 to 19.
    pub fn nice(&self, nice: u8) -> Result {
        setpriority_pgrp(Some(self.pid()), nice.into())
            .with_context(|| format!("setting the priority of {}", self.what))
    }

    /// Kills it with SIGKILL, as a power cut would.
    pub fn kill(self) {}

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group keeps the child's number until the child is waited for. An error means that it has ended already.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A child that is started again each time it ends with success. It is killed when dropped.
#[derive(Debug)]
pub struct Repeating {
    state: Arc<Mutex<Repeated>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Repeated {
    /// None after the drop.
    running: Option<Running>,
    /// How it ended for good.
    ended: Option<std::result::Result<ExitStatus, String>>,
}

impl Repeating {
    /// Starts `command` for the first time.
    pub fn start(what: &str, mut command: Command) -> Result<Self> {
        let what = what.to_owned();
        let state = Arc::new(Mutex::new(Repeated {
            running: Some(Running::start(&what, &mut command)?),
            ended: None,
        }));
        let shared = state.clone();
        // Its children die with this thread, which lives until the drop.
        let thread = thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(50));
                let mut state = shared.lock().unwrap();
                let Some(running) = &mut state.running else { return };
                match running.ended() {
                    Ok(None) => {}
                    Ok(Some(status)) if status.success() => match Running::spawn(&what, &mut command) {
                        Ok(next) => state.running = Some(next),
                        Err(error) => state.ended = Some(Err(format!("{error:#}"))),
                    },
                    Ok(Some(status)) => state.ended = Some(Ok(status)),
                    Err(error) => state.ended = Some(Err(format!("{error:#}"))),
                }
                if state.ended.is_some() {
                    return;
                }
            }
        });
        Ok(Repeating {
            state,
            thread: Some(thread),
        })
    }

    /// The result of its last end, if it was not started again.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        match &self.state.lock().unwrap().ended {
            None => Ok(None),
            Some(Ok(status)) => Ok(Some(*status)),
            Some(Err(error)) => bail!("{error}"),
        }
    }

    /// See [`Running::nice`]. It applies until the next start.
    pub fn nice(&self, nice: u8) -> Result {
        match &self.state.lock().unwrap().running {
            Some(running) => running.nice(nice),
            None => Ok(()),
        }
    }
}

impl Drop for Repeating {
    fn drop(&mut self) {
        let running = self.state.lock().unwrap().running.take();
        drop(running);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `command` to its end and returns its output. An error contains its output on stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let done = command.output().with_context(|| format!("running {name}"))?;
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!(
            "{name} {} failed ({}):\n{}{}",
            arguments.join(" "),
            done.status,
            stdout,
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_child_kills_its_group() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 100 & echo $! ; wait"])
            .stdout(std::process::Stdio::piped());
        let mut running = Running::start("a shell", &mut command).unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(running.child.stdout.take().unwrap()), &mut line).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        running.kill();
        let gone = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            // A zombie that waits for init counts as dead.
            std::fs::read_to_string(format!("/proc/{grandchild}/stat")).map_or(true, |stat| stat.contains(") Z"))
        });
        assert!(gone, "sleep {grandchild} outlived its group");
    }

    #[test]
    fn a_repeating_child_is_started_again_until_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo >> runs; test $(wc -l < runs) -lt 3 || exit 4"]);
        let repeating = Repeating::start("a shell", {
            command.current_dir(&dir);
            command
        })
        .unwrap();
        let ended = (0..500).find_map(|_| {
            thread::sleep(Duration::from_millis(20));
            repeating.ended().unwrap()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(4));
        assert_eq!(std::fs::read_to_string(dir.path().join("runs")).unwrap(), "\n\n\n");
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let running = thread::spawn(|| Running::start("sleep", Command::new("sleep").arg("100")).unwrap());
        let mut running = running.join().unwrap();
        let ended = (0..200).find_map(|_| {
            thread::sleep(Duration::from_millis(20));
            running.ended().unwrap()
        });
        assert!(ended.is_some_and(|status| !status.success()));
    }

    #[test]
    fn a_failure_contains_the_command_and_its_output() {
        let error = output(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sh -c") && error.contains("no such thing") && error.contains('3'),
            "{error}"
        );
    }
}
