//! A node's serial console: its output, and a shell on it.

use crate::{Result, timeline};
use anyhow::{Context, bail};
use std::{
    cell::{Cell, RefCell},
    fs, io,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The first output of a kernel.
const KERNEL: &[u8] = b"Linux version ";

/// The serial console of a virtual machine. QEMU writes all output to a log, even if no program is connected to the socket.
#[derive(Debug)]
pub struct Console {
    socket: PathBuf,
    log: PathBuf,
    /// Length of the log before the last power-on.
    begin: Cell<usize>,
    input: RefCell<Option<UnixStream>>,
    commands: Cell<u32>,
}

impl Console {
    /// The console whose socket and log are in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Console {
            socket: dir.join("console.sock"),
            log: dir.join("console.log"),
            begin: Cell::new(0),
            input: RefCell::new(None),
            commands: Cell::new(0),
        }
    }

    /// The arguments for QEMU.
    pub(crate) fn qemu_arguments(&self) -> [String; 4] {
        let (socket, log) = (self.socket.display(), self.log.display());
        let device = format!("socket,id=console,path={socket},server=on,wait=off,logfile={log},logappend=on");
        ["-chardev".into(), device, "-serial".into(), "chardev:console".into()]
    }

    /// From here on, [`Console::text`] contains only later output.
    pub(crate) fn power_on(&self) {
        self.begin.set(self.bytes().len());
        *self.input.borrow_mut() = None;
    }

    /// From here on, [`Console::text`] starts at the last kernel of this power-on.
    pub(crate) fn last_boot(&self) {
        let bytes = self.bytes();
        let since = &bytes[self.begin.get().min(bytes.len())..];
        if let Some(place) = since.windows(KERNEL.len()).rposition(|window| window == KERNEL) {
            self.begin.set(self.begin.get() + place);
        }
    }

    /// The unix socket for a terminal. Only one program can be connected, and [`Console::shell`] also uses it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The output since the last power-on, without control characters.
    pub fn text(&self) -> String {
        let bytes = self.bytes();
        timeline::printable(&String::from_utf8_lossy(&bytes[self.begin.get().min(bytes.len())..]))
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.log).unwrap_or_default()
    }

    /// Types `text`.
    pub fn send(&self, text: &str) -> Result {
        let mut input = self.input.borrow_mut();
        if let Some(stream) = input.as_mut() {
            match stream.write_all(text.as_bytes()) {
                // A reset has ended QEMU, and another one has the console now.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => *input = None,
                written => return written.context("typing on the console"),
            }
        }
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("connecting to the console {}", self.socket.display()))?;
        // QEMU stops sending to a socket that no program reads, and then the guest waits for its UART.
        let mut output = stream.try_clone()?;
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        stream.write_all(text.as_bytes()).context("typing on the console")?;
        *input = Some(stream);
        Ok(())
    }

    /// Waits until `pattern` appears in the output since the last power-on.
    pub fn wait(&self, pattern: &str, limit: Duration) -> Result {
        match timeline::poll(limit, || Ok(self.text().contains(pattern).then_some(())))? {
            Some(()) => Ok(()),
            None => bail!("the console did not show {pattern:?} within {} s", limit.as_secs()),
        }
    }

    /// Runs `command` in the root shell on the console, and returns its output. Fails if the command fails.
    pub fn shell(&self, command: &str, limit: Duration) -> Result<String> {
        self.begin_command(command)?.finish(limit)
    }

    /// Types `command` without waiting for its end.
    pub fn begin_command(&self, command: &str) -> Result<Typed<'_>> {
        let number = self.commands.get() + 1;
        self.commands.set(number);
        // The terminal echoes the typed text. The markers are typed in halves, so that only the output has them complete.
        self.send(&format!(
            "printf '\\n[[%s {number}]]\\n' be'gin'; {{ {command}\n}} 2>&1; printf '\\n[[%s {number} %d]]\\n' e'nd' $?\n"
        ))?;
        Ok(Typed {
            console: self,
            command: command.to_owned(),
            number,
        })
    }
}

/// A command that was typed.
#[derive(Debug)]
pub struct Typed<'a> {
    console: &'a Console,
    command: String,
    number: u32,
}

impl Typed<'_> {
    /// Waits for its end and returns its output. Fails if the command fails.
    pub fn finish(self, limit: Duration) -> Result<String> {
        let Typed {
            console,
            command,
            number,
        } = self;
        let (begin, end) = (format!("[[begin {number}]]"), format!("[[end {number} "));
        let found = timeline::poll(limit, || {
            let text = console.text();
            let Some((_, after)) = text.rsplit_once(&begin) else {
                return Ok(None);
            };
            let Some((output, status)) = after.rsplit_once(&end) else {
                return Ok(None);
            };
            Ok(status
                .split_once("]]")
                .map(|(status, _)| (output.trim().to_owned(), status.trim().to_owned())))
        })?;
        match found {
            Some((output, status)) if status == "0" => Ok(output),
            Some((output, status)) => bail!("on the console, {command:?} ended with status {status}:\n{output}"),
            None => bail!("on the console, {command:?} did not end within {} s", limit.as_secs()),
        }
    }
}
