//! The daemon under test, and its command line.

use crate::{Binaries, Namespace, Result, Site, image::Image, process, timeline, unit};
use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    cell::RefCell,
    ffi::OsString,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Start of the line that the daemon prints when all its ports are bound.
const READY: &str = "rackstrap: ready";

/// A daemon in a namespace, with a site file, state and log of its own.
#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    dir: PathBuf,
    process: RefCell<Option<process::Running>>,
}

impl Daemon {
    /// Writes the site file and the state directory with its images; does not start the daemon.
    pub fn new(binaries: &Binaries, dir: PathBuf, site: &Site, images: &[&Image]) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        for image in images {
            image.link_into(&dir)?;
        }
        let daemon = Daemon {
            binary: binaries.daemon.clone(),
            dir,
            process: RefCell::new(None),
        };
        daemon.write_site(site)?;
        Ok(daemon)
    }

    /// The site file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("rackstrap.toml")
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.dir
    }

    /// Starts it with the permissions of the shipped unit, and waits until it is ready.
    pub fn start(&self, namespace: &Namespace) -> Result {
        self.start_behind(namespace, &unit::privileges()?)
    }

    /// Starts it in the complete sandbox of the shipped unit. `visible` are directories below /tmp that it needs.
    pub fn start_in_sandbox(&self, namespace: &Namespace, visible: &[PathBuf]) -> Result {
        self.start_behind(namespace, &unit::sandbox(visible)?)
    }

    fn start_behind(&self, namespace: &Namespace, before: &[OsString]) -> Result {
        ensure!(self.process.borrow().is_none(), "the daemon is running already");
        let path = self.dir.join("daemon.log");
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let begin = self.log().len();
        let mut words = before.iter().map(OsString::as_os_str).chain([self.binary.as_os_str()]);
        let mut command = namespace.command(words.next().unwrap_or_default());
        command.args(words).args(["serve", "--config"]).arg(self.config());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut running = process::Running::start("the daemon", &mut command)?;
        let ready = timeline::poll(Duration::from_secs(60), || {
            if self.log()[begin..].lines().any(|line| line.starts_with(READY)) {
                return Ok(Some(()));
            }
            match running.ended()? {
                Some(status) => bail!("the daemon ended ({status}):\n{}", &self.log()[begin..]),
                None => Ok(None),
            }
        })?;
        if ready.is_none() {
            bail!("the daemon was not ready within 60 s:\n{}", &self.log()[begin..]);
        }
        *self.process.borrow_mut() = Some(running);
        Ok(())
    }

    /// Kills it with SIGKILL.
    pub fn kill(&self) {
        if let Some(running) = self.process.take() {
            running.kill();
        }
    }

    /// Stops it without an end: its connections stay open, and nothing answers on them.
    pub fn freeze(&self) -> Result {
        self.signal(Signal::STOP)
    }

    /// Lets it continue.
    pub fn thaw(&self) -> Result {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result {
        let process = self.process.borrow();
        process.as_ref().context("the daemon is not running")?.signal(signal)
    }

    /// Ends it with SIGTERM. An exit status other than 0, or a long time, is an error.
    pub fn stop(&self) -> Result {
        let Some(running) = self.process.take() else {
            return Ok(());
        };
        let status = running.terminate(Duration::from_secs(20))?;
        ensure!(
            status.success(),
            "the daemon ended with {status} after SIGTERM:\n{}",
            self.log_tail(10)
        );
        Ok(())
    }

    /// Fails if it has ended on its own.
    pub fn check_alive(&self) -> Result {
        if let Some(running) = self.process.borrow_mut().as_mut()
            && let Some(status) = running.ended()?
        {
            bail!("the daemon ended on its own ({status}):\n{}", self.log_tail(20));
        }
        Ok(())
    }

    /// Replaces the site file and makes a running daemon read it.
    pub fn reload(&self, site: &Site) -> Result {
        self.write_site(site)?;
        if self.process.borrow().is_some() {
            self.cli(&["reload"])?;
        }
        Ok(())
    }

    /// Like [`Daemon::reload`], with a site file that makes nodes lose the contents of their disks.
    pub fn reload_and_lose_disks(&self, site: &Site) -> Result {
        self.write_site(site)?;
        self.cli(&["reload", "--reprep"]).map(drop)
    }

    /// Its memory in bytes (`VmRSS` of proc(5)).
    pub fn resident_bytes(&self) -> Result<u64> {
        let process = self.process.borrow();
        let id = process.as_ref().context("the daemon is not running")?.id();
        let path = format!("/proc/{id}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib: u64 = kib.with_context(|| format!("{path} has no VmRSS"))?.trim().parse()?;
        Ok(kib << 10)
    }

    /// Sends it SIGHUP.
    pub fn hang_up(&self) -> Result {
        match self.process.borrow().as_ref() {
            Some(running) => running.signal(Signal::HUP),
            None => bail!("the daemon is not running"),
        }
    }

    /// Runs `rackstrap --config FILE ARGUMENTS`.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        process::output(
            Command::new(&self.binary)
                .arg("--config")
                .arg(self.config())
                .args(arguments),
        )
    }

    /// Like [`Daemon::cli`], with `--json`, parsed.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.cli(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("rackstrap {} --json: {text:?}", arguments.join(" ")))
    }

    /// Its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("daemon.log")).unwrap_or_default()).into_owned()
    }

    /// The end of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        timeline::tail(&self.log(), lines)
    }

    /// Replaces the site file. A running daemon does not read it by itself.
    pub fn write_site(&self, site: &Site) -> Result {
        let path = self.config();
        fs::write(&path, site.to_toml(&self.dir)?).with_context(|| format!("writing {}", path.display()))
    }
}
