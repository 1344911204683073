//! Connects the terminal to a node's serial console.

use anyhow::{Context, Result};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

/// Ctrl-], as in telnet and virsh.
const ESCAPE: u8 = 0x1d;

/// Why the connection ended.
enum End {
    Escape,
    ConsoleClosed,
}

/// Connects the terminal to the console behind `socket` until Ctrl-] is typed, the console closes, or a signal comes.
pub fn attach(socket: &Path, interrupted: &AtomicBool) -> Result<()> {
    let console = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
    let raw = Raw::enter()?;
    let (ended, end) = channel();
    let (mut output, said) = (console.try_clone()?, ended.clone());
    thread::spawn(move || {
        // This only ends when the console is closed.
        copy(&mut output, &mut io::stdout());
        said.send(End::ConsoleClosed)
    });
    thread::spawn(move || type_on(console, &ended));
    let closed = loop {
        match end.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) if !interrupted.load(Ordering::Relaxed) => {}
            Ok(End::ConsoleClosed) => break true,
            Ok(End::Escape) | Err(_) => break false,
        }
    };
    drop(raw);
    println!("{}", if closed { "\nthe machine was switched off" } else { "" });
    Ok(())
}

fn copy(from: &mut UnixStream, to: &mut impl Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

fn type_on(mut console: UnixStream, ended: &Sender<End>) {
    // An empty line makes the shell, which is older than this connection, print its prompt again.
    let mut typed = b"\n".to_vec();
    let mut buffer = [0; 256];
    loop {
        let escape = typed.iter().position(|byte| *byte == ESCAPE);
        if console.write_all(&typed[..escape.unwrap_or(typed.len())]).is_err() || escape.is_some() {
            break;
        }
        match io::stdin().read(&mut buffer) {
            Ok(count @ 1..) => typed = buffer[..count].to_vec(),
            _ => break,
        }
    }
    // The receiver no longer exists if a signal was faster.
    let _ = ended.send(End::Escape);
}

/// The terminal in raw mode, until dropped.
struct Raw {
    before: String,
}

impl Raw {
    fn enter() -> Result<Self> {
        let before = stty(&["-g"])?;
        stty(&["raw", "-echo"])?;
        Ok(Raw {
            before: before.trim().to_owned(),
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = stty(&[&self.before]) {
            eprintln!("xtask: could not reset the terminal ({error:#}); type: stty sane");
        }
    }
}

fn stty(arguments: &[&str]) -> Result<String> {
    let done = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::inherit())
        .output()
        .context("running stty")?;
    anyhow::ensure!(
        done.status.success(),
        "stty {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
