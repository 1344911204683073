//! Running one of the site's programs: bounded in time and in what it says, and gone with all its children.

use rustix::process::{Pid, Signal, kill_process_group};
use std::{process::Stdio, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

/// Bytes of its output that are kept; the rest is read and dropped, so that it does not block.
const KEPT: usize = 16 << 10;
/// After its end, how long what it left behind may hold its output open.
const LINGER: Duration = Duration::from_secs(1);

/// Why a program did not do what it was to do.
#[derive(Debug, Error)]
pub enum Failed {
    /// The program could not be started.
    #[error("{program} cannot be run: {error}")]
    Start {
        /// Its path.
        program: String,
        /// Error of the operating system.
        error: std::io::Error,
    },
    /// It ended otherwise than with 0.
    #[error("{program} ended with {status}{}", said(output))]
    Status {
        /// Its path.
        program: String,
        /// Its exit status or signal.
        status: std::process::ExitStatus,
        /// The end of its output; empty if there was none.
        output: String,
    },
    /// The program did not end in time and was killed.
    #[error("{program} was killed after {secs} s{}", said(output))]
    Timeout {
        /// Its path.
        program: String,
        /// Time limit, in seconds.
        secs: u64,
        /// The end of its output; empty if there was none.
        output: String,
    },
}

fn said(output: &str) -> String {
    match output.trim() {
        "" => ", without output".to_owned(),
        output => format!(", with the output: {}", output.replace('\n', " / ")),
    }
}

/// Runs `words`, program and arguments, without a shell and without input; returns what it said on both outputs.
///
/// # Errors
/// It does not run, does not end in `timeout`, or does not end with 0.
pub async fn run(words: &[String], environment: &[(&str, String)], timeout: Duration) -> Result<String, Failed> {
    let program = words.first().cloned().unwrap_or_default();
    let failed = |error| Failed::Start {
        program: program.clone(),
        error,
    };
    let mut child = Command::new(&program)
        .args(words.get(1..).unwrap_or_default())
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let out = tokio::spawn(keep(child.stdout.take()));
    let err = tokio::spawn(keep(child.stderr.take()));
    let ended = tokio::time::timeout(timeout, child.wait()).await;
    if ended.is_err() {
        drop(group);
        // A program that waits for a file server which is away is not killed until that answers (state D of proc(5)). Nobody waits for
        // it: tokio reaps it when it ends.
        let _ = tokio::time::timeout(LINGER, child.wait()).await;
    } else {
        // Processes that it started in the background continue: a hook may start a service.
        std::mem::forget(group);
    }
    let mut output = String::new();
    for stream in [out, err] {
        if let Ok(Ok(text)) = tokio::time::timeout(LINGER, stream).await {
            output.push_str(&text);
        }
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(output),
        Ok(Ok(status)) => Err(Failed::Status {
            program,
            status,
            output,
        }),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(Failed::Timeout {
            program,
            secs: timeout.as_secs(),
            output,
        }),
    }
}

/// A process group that is killed when it is dropped: also when the daemon stops while the program runs.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// The beginning of a stream, which is read to its end.
async fn keep(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = KEPT - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
