//! QEMU's monitor: what happens to a machine's hardware while it runs.

use crate::{Node, Result};
use anyhow::{Context, bail};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// QEMU prints it when it takes a command.
const PROMPT: &[u8] = b"(qemu) ";
/// Longest wait for it. An emulated machine answers between two of its steps.
const PATIENCE: Duration = Duration::from_secs(60);

fn socket(dir: &Path) -> PathBuf {
    dir.join("monitor.sock")
}

/// The value of `-monitor`.
pub(crate) fn argument(dir: &Path) -> String {
    format!("unix:{},server=on,wait=off", socket(dir).display())
}

impl Node<'_> {
    /// Takes the link from its first card, or gives it back. In contrast to [`Node::cable`], the card learns of it.
    pub fn link(&self, up: bool) -> Result {
        let state = if up { "on" } else { "off" };
        self.monitor(&format!("set_link net {state}"))
    }

    /// Runs a command of QEMU's monitor, which prints nothing if it succeeds.
    fn monitor(&self, command: &str) -> Result {
        let socket = socket(&self.dir);
        let connected = UnixStream::connect(&socket);
        let mut stream = connected.with_context(|| format!("connecting to the monitor {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        read_prompt(&mut stream)?;
        writeln!(stream, "{command}")?;
        let answer = read_prompt(&mut stream)?;
        match answer.contains("Error") {
            true => bail!("QEMU's monitor: {command}: {answer}"),
            false => Ok(()),
        }
    }
}

/// Reads up to a prompt, and returns what was before it.
fn read_prompt(stream: &mut UnixStream) -> Result<String> {
    let mut read = Vec::new();
    while !read.ends_with(PROMPT) {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("waiting for QEMU's monitor")?;
        read.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}
