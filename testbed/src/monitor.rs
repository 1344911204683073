//! QEMU's monitor, which changes the hardware of a machine while it runs.

use crate::Result;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest wait for an answer: QEMU answers between two steps of its main loop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The monitor of a virtual machine, which speaks QMP (docs/interop/qmp-spec.txt of QEMU).
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: PathBuf,
}

impl Monitor {
    /// The monitor whose socket is in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Monitor {
            socket: dir.join("qmp.sock"),
        }
    }

    /// The arguments for QEMU.
    pub(crate) fn qemu_arguments(&self) -> [String; 2] {
        let socket = format!("unix:{},server=on,wait=off", self.socket.display());
        ["-qmp".to_owned(), socket]
    }

    /// Plugs the cable with the name `id` in, or pulls it out.
    pub(crate) fn set_link(&self, id: &str, plugged: bool) -> Result {
        self.execute("set_link", &json!({ "name": id, "up": plugged }))
    }

    /// Sends a non-maskable interrupt to the machine's processors, as the button of a server does.
    pub(crate) fn interrupt(&self) -> Result {
        self.execute("inject-nmi", &json!({}))
    }

    fn execute(&self, command: &str, arguments: &Value) -> Result {
        let socket = &self.socket;
        let doing = || format!("asking the monitor {} to {command}", socket.display());
        let mut stream = UnixStream::connect(socket).with_context(doing)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        // The greeting. A client ends the negotiation before its first command.
        lines.next().transpose().with_context(doing)?;
        for message in [
            json!({ "execute": "qmp_capabilities" }),
            json!({ "execute": command, "arguments": arguments }),
        ] {
            writeln!(stream, "{message}").with_context(doing)?;
            loop {
                let line = lines.next().context("the monitor ended").and_then(|line| Ok(line?));
                let answer: Value = serde_json::from_str(&line.with_context(doing)?).with_context(doing)?;
                if let Some(error) = answer.get("error") {
                    bail!("{}: {error}", doing());
                }
                // Everything else is an event.
                if answer.get("return").is_some() {
                    break;
                }
            }
        }
        Ok(())
    }
}
