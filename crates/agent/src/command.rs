//! Runs a program with limits on its time and its output, and ends all processes that it started.
//!
//! A process that waits in the kernel for a dead server or a broken disk cannot be killed until that wait ends, which may be
//! never. A thread waits for its end, and until then the same command is not started again.

use crate::fail::{Doing, Res};
use rackstrap_wire::text;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use std::{
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Bytes of output that are kept. The rest is read and dropped, so that the program does not block.
const MOST_OUTPUT: usize = 4 << 10;
/// Time between two looks at a program that prints nothing.
const POLL: Duration = Duration::from_millis(50);

/// How long a process may take to end after SIGKILL.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// The commands with processes that could not be killed and still live.
static STUCK: Mutex<Vec<Vec<String>>> = Mutex::new(Vec::new());

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// True if it ended with 0.
    pub ok: bool,
    /// `ended with exit status 3`, `was killed by signal 9`, `ran longer than 30 s and was killed`, `ran longer than 30 s and could not
    /// be killed`, `cannot be run: …`.
    pub end: String,
    /// The beginning of its output, as one line.
    pub output: String,
}

/// The fate of processes that a program leaves behind when it ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// They are killed.
    Killed,
    /// They continue to run.
    Alone,
}

/// Runs the program `words[0]` with its arguments, without a shell and with empty input.
pub fn run(words: &[&str], timeout: Duration, left: Left) -> Execution {
    run_with(words, timeout, left, kill)
}

fn run_with(words: &[&str], timeout: Duration, left: Left, kill: fn(&Child)) -> Execution {
    // An earlier process of the same command still hangs.
    if stuck().iter().any(|stuck| stuck == words) {
        return Execution {
            ok: false,
            end: cannot_be_killed(timeout),
            output: String::new(),
        };
    }
    let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/");
    execute(words, command, timeout, left, kill).0
}

/// Runs a prepared command, which `words` name, in the same way. Also returns its exit status; none if it did not end by itself.
pub fn run_prepared(words: &[&str], command: Command, timeout: Duration) -> (Execution, Option<i32>) {
    execute(words, command, timeout, Left::Killed, kill)
}

fn execute(
    words: &[&str],
    command: Command,
    timeout: Duration,
    left: Left,
    kill: fn(&Child),
) -> (Execution, Option<i32>) {
    attempt(words, command, timeout, left, kill).unwrap_or_else(|error| {
        let execution = Execution {
            ok: false,
            end: format!("cannot be run: {error}"),
            output: String::new(),
        };
        (execution, None)
    })
}

fn stuck() -> std::sync::MutexGuard<'static, Vec<Vec<String>>> {
    STUCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cannot_be_killed(timeout: Duration) -> String {
    format!("ran longer than {} s and could not be killed", timeout.as_secs())
}

/// Waits until a process and its whole group have ended, and reaps the process. Returns false if they live at `until`.
fn wait_until_gone(child: &mut Child, until: Instant) -> bool {
    let mut reaped = false;
    loop {
        if !reaped && has_ended(child) {
            let _ = child.wait();
            reaped = true;
        }
        // mount(8) itself ends at once. The helper that it started is what waits for the server.
        if reaped && !group_lives(child.id()) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(POLL / 5);
    }
}

/// True if the group has a process that is not a zombie.
fn group_lives(group: u32) -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    // proc(5): state, parent and group follow the name, which is in parentheses and may contain parentheses.
    stats
        .filter_map(|stat| Some(stat.rsplit_once(')')?.1.to_owned()))
        .any(|rest| {
            let mut fields = rest.split_whitespace();
            let lives = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
            lives && fields.nth(1).and_then(|field| field.parse().ok()) == Some(group)
        })
}

/// Starts a thread that reaps a process whenever it ends.
fn reap_later(words: &[&str], mut child: Child) {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    stuck().push(words.clone());
    let forget = move |words: &Vec<String>| {
        let mut stuck = stuck();
        if let Some(at) = stuck.iter().position(|one| one == words) {
            stuck.swap_remove(at);
        }
    };
    let named = words.clone();
    let reaper = std::thread::Builder::new().spawn(move || {
        let _ = child.wait();
        while group_lives(child.id()) {
            std::thread::sleep(Duration::from_secs(1));
        }
        forget(&words);
    });
    if reaper.is_err() {
        // Without the thread, nothing else would remove the command from the list.
        forget(&named);
    }
}

fn attempt(
    words: &[&str],
    mut command: Command,
    timeout: Duration,
    left: Left,
    kill: fn(&Child),
) -> Res<(Execution, Option<i32>)> {
    let (mut output, writer) = io::pipe().doing(|| "making a pipe".into())?;
    let second = writer.try_clone().doing(|| "making a pipe".into())?;
    command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(second)
        .process_group(0);
    let mut child = command.spawn().doing(|| "starting it".into())?;
    // Close our own write ends of the pipe: while they are open, the read end never reports its end.
    drop(command);
    rustix::io::ioctl_fionbio(&output, true).doing(|| "reading its output".into())?;
    let ended = Instant::now() + timeout;
    let mut said = Vec::new();
    let mut open = true;
    loop {
        open = open && read_some(&mut output, &mut said);
        if has_ended(&child) {
            // The process is still a zombie, so its group id cannot belong to another process.
            if left == Left::Killed {
                kill(&child);
            }
            let status = child.wait().doing(|| "waiting for it".into())?;
            read_some(&mut output, &mut said);
            let execution = Execution {
                ok: status.success(),
                end: describe(status),
                output: one_line(&said),
            };
            return Ok((execution, status.code()));
        }
        if Instant::now() >= ended {
            kill(&child);
            let end = match wait_until_gone(&mut child, Instant::now() + KILL_WAIT) {
                true => format!("ran longer than {} s and was killed", timeout.as_secs()),
                false => {
                    reap_later(words, child);
                    cannot_be_killed(timeout)
                }
            };
            let execution = Execution {
                ok: false,
                end,
                output: one_line(&said),
            };
            return Ok((execution, None));
        }
        pause(&output, open);
    }
}

/// Reads what the pipe has, at most a bounded part of it. Returns false at its end.
fn read_some(output: &mut io::PipeReader, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    // A program that prints without end must not keep this function from checking the time.
    for _ in 0..64 {
        match output.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => said.extend_from_slice(&buffer[..count.min(MOST_OUTPUT - said.len())]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// True if the process has ended. It stays a zombie for `wait`.
fn has_ended(child: &Child) -> bool {
    let Some(pid) = Pid::from_raw(child.id().cast_signed()) else {
        return true;
    };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // An error means that the child does not exist; wait() returns the reason.
    !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
}

fn kill(child: &Child) {
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn pause(output: &io::PipeReader, open: bool) {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: POLL.subsec_nanos().into(),
    };
    let mut ready = [PollFd::new(output, PollFlags::IN)];
    // A pipe at its end is always ready, so it is not polled.
    let watched = if open { &mut ready[..] } else { &mut [] };
    let _ = poll(watched, Some(&timeout));
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}

fn one_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    text::one_line(&lines.collect::<Vec<_>>().join(" / "), usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn shell(script: &str, timeout: Duration, left: Left) -> Execution {
        run(&["/bin/sh", "-c", script], timeout, left)
    }

    #[test]
    fn the_end_and_the_output_are_returned() {
        let ran = shell("echo so; echo ' and so' >&2; exit 3", LONG, Left::Killed);
        assert_eq!(
            (ran.ok, ran.end.as_str(), ran.output.as_str()),
            (false, "ended with exit status 3", "so / and so")
        );
        assert!(shell("true", LONG, Left::Alone).ok);
        assert_eq!(shell("kill -9 $$", LONG, Left::Killed).end, "was killed by signal 9");
        let none = run(&["/no/such"], LONG, Left::Killed);
        assert!(none.end.starts_with("cannot be run: ") && !none.ok, "{none:?}");
        assert!(!run(&[], LONG, Left::Killed).ok);
    }

    #[test]
    fn a_prepared_command_has_a_limit_and_an_exit_status() {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "echo $LOOKED_FOR; exit 3"])
            .env("LOOKED_FOR", "found");
        let (ran, code) = run_prepared(&["sh"], command, LONG);
        assert_eq!((ran.output.as_str(), code), ("found", Some(3)));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 600"]);
        let (ran, code) = run_prepared(&["sh"], command, Duration::from_secs(1));
        assert_eq!((ran.end.as_str(), code), ("ran longer than 1 s and was killed", None));
    }

    #[test]
    fn much_output_is_cut_and_does_not_block() {
        let ran = shell("yes | head -c 3000000", LONG, Left::Killed);
        assert!(ran.ok && ran.output.len() <= 2 * MOST_OUTPUT, "{}", ran.output.len());
        let ran = shell("yes", Duration::from_secs(1), Left::Killed);
        assert_eq!(ran.end, "ran longer than 1 s and was killed");
    }

    /// True until the process is gone or a zombie.
    fn alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
    }

    /// `spare` kills only a part of the processes. The rest stands for a process that waits in the kernel.
    fn hangs(spare: fn(&Child)) {
        let dir = tempfile::tempdir().unwrap();
        let (started, go) = (dir.path().join("started"), dir.path().join("go"));
        let script = format!(
            "echo $$ >> {}; (until test -e {}; do sleep 0.1; done) & wait",
            started.display(),
            go.display()
        );
        let words = ["/bin/sh", "-c", &script];
        let run = |kill| run_with(&words, Duration::from_secs(1), Left::Killed, kill);
        let began = Instant::now();
        let ran = run(spare);
        assert_eq!(
            (ran.ok, ran.end.as_str()),
            (false, "ran longer than 1 s and could not be killed")
        );
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
        let pids = || std::fs::read_to_string(&started).unwrap();
        assert_eq!(run(kill), ran, "it is started again while the first one lives");
        assert_eq!(pids().lines().count(), 1);
        // Other commands still run.
        assert!(shell("true", LONG, Left::Killed).ok);
        std::fs::write(&go, "").unwrap();
        let began = Instant::now();
        while !run(kill).ok {
            assert!(began.elapsed() < LONG, "the end of the process was not noticed");
            std::thread::sleep(Duration::from_millis(10));
        }
        let first = pids().lines().next().unwrap().to_owned();
        assert!(
            !std::path::Path::new("/proc").join(first).exists(),
            "the process was not reaped"
        );
    }

    #[test]
    fn a_process_that_cannot_be_killed_blocks_nothing_and_is_not_started_twice() {
        hangs(|_| ());
    }

    #[test]
    fn a_process_whose_helper_cannot_be_killed_blocks_nothing() {
        hangs(|child| {
            let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        });
    }

    #[test]
    fn children_are_killed_with_their_program() {
        // The child's output is closed, so that it does not hold the pipe open.
        let script = "sleep 600 >/dev/null 2>&1 & echo $!";
        for (more, timeout) in [("", LONG), ("; wait", Duration::from_secs(1))] {
            let ran = shell(&format!("{script}{more}"), timeout, Left::Killed);
            let began = Instant::now();
            while alive(&ran.output) {
                assert!(began.elapsed() < LONG, "{ran:?}: the child was left running");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let ran = shell(script, LONG, Left::Alone);
        assert!(alive(&ran.output), "{ran:?}");
        let pid = Pid::from_raw(ran.output.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        // A child that holds the output open does not delay the result.
        let ran = shell("sleep 600 & exit 0", LONG, Left::Killed);
        assert!(ran.ok);
    }
}
