//! Runs one of the site's programs, with limits on its time and output, and ends it with all its children.

use rustix::process::{Pid, Signal, kill_process_group};
use std::{process::Stdio, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

/// At most this many bytes of its output are kept. The rest is read and dropped, so that the program does not block.
const KEPT: usize = 16 << 10;
/// How long processes that it left behind may hold its output open after its end.
const LINGER: Duration = Duration::from_secs(1);

/// Why a program did not succeed.
#[derive(Debug, Error)]
pub enum Failed {
    /// The program could not be started.
    #[error("{program} cannot be run: {error}")]
    Start {
        /// Path of the program.
        program: String,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The program did not end with 0.
    #[error("{program} ended with {status}{}", said(output))]
    Status {
        /// Path of the program.
        program: String,
        /// Its exit status or signal.
        status: std::process::ExitStatus,
        /// The end of its output; empty if there was none.
        output: String,
    },
    /// The program did not end in time and was killed.
    #[error("{program} was killed after {secs} s{}", said(output))]
    Timeout {
        /// Path of the program.
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

/// Runs `words`, a program with its arguments, without a shell and without input. Returns its output, from both streams.
///
/// # Errors
/// The program cannot be started, does not end within `timeout`, or does not end with 0.
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
        // A program that waits for a file server that does not answer cannot be killed (state D of proc(5)). It is not waited
        // for: tokio reaps it when it ends.
        let _ = tokio::time::timeout(LINGER, child.wait()).await;
    } else {
        // Processes that it started in the background continue, because a hook may start a service.
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

/// A process group that is killed when this is dropped, also if the daemon stops while the program runs.
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
