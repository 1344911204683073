//! The programs under test, built by cargo.

use crate::{Result, paths};
use anyhow::{Context, ensure};
use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Environment variable with the path of a daemon, which is then not built.
pub const DAEMON: &str = "RACKSTRAP_TEST_DAEMON";

/// Environment variable with the path of an agent, which is then not built.
pub const AGENT: &str = "RACKSTRAP_TEST_AGENT";

/// The target of builds: the only one whose standard library rustup installs.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The daemon with its command line, and the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// `rackstrap`, dev profile.
    pub daemon: PathBuf,
    /// `rackstrap-agent`, static.
    pub agent: PathBuf,
}

impl Binaries {
    /// The programs named by [`DAEMON`] and [`AGENT`]. Others are built, except the daemon of a test, which cargo has built together with
    /// the test.
    pub fn get() -> Result<Self> {
        let named = |name| env::var_os(name).map(PathBuf::from);
        let daemon = match named(DAEMON).or_else(beside_the_test) {
            Some(path) => path,
            None => build_daemon()?,
        };
        let agent = match named(AGENT) {
            Some(path) => path,
            None => build_agent()?,
        };
        for path in [&daemon, &agent] {
            ensure!(
                path.is_file(),
                "{} does not exist; was it built with another target directory?",
                path.display()
            );
        }
        Ok(Binaries { daemon, agent })
    }

    /// Variables with which child processes, and so the tests, use these programs without calling cargo again.
    pub fn environment(&self) -> [(&'static str, &PathBuf); 2] {
        [(DAEMON, &self.daemon), (AGENT, &self.agent)]
    }
}

/// Largest size of the agent in bytes.
const AGENT_SIZE: u64 = 2_000_000;

/// `target/debug/rackstrap` for the test `target/debug/deps/all-…`. A build here would make another one, because cargo chooses the
/// features of dependencies by the packages that it builds.
fn beside_the_test() -> Option<PathBuf> {
    let test = env::current_exe().ok()?;
    let deps = test.parent().filter(|dir| dir.ends_with("deps"))?;
    Some(deps.parent()?.join("rackstrap"))
}

/// Builds the daemon with the dev profile.
pub fn build_daemon() -> Result<PathBuf> {
    cargo_build(&["--package", "rackstrap", "--bin", "rackstrap"], None).context("building the daemon")?;
    Ok(paths::target_dir().join("debug/rackstrap"))
}

/// Builds the agent as one static program. `--target` keeps the flags from build scripts and macros.
pub fn build_agent() -> Result<PathBuf> {
    let flags = "-C target-feature=+crt-static -C relocation-model=static";
    cargo_build(
        &["--package", "rackstrap-agent", "--profile", "agent", "--target", TARGET],
        Some(flags),
    )
    .context("building the agent")?;
    let agent = paths::target_dir().join(TARGET).join("agent/rackstrap-agent");
    let size = agent
        .metadata()
        .with_context(|| format!("looking at {}", agent.display()))?
        .len();
    ensure!(
        size <= AGENT_SIZE,
        "the agent has {size} bytes; at most {AGENT_SIZE} are allowed, because every node downloads it at every boot"
    );
    Ok(agent)
}

/// Cargo's output goes to stderr, because on a fresh machine it builds for minutes.
fn cargo_build(arguments: &[&str], flags: Option<&str>) -> Result {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .arg("build")
        .args(arguments)
        .current_dir(paths::repo_root())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status().context("running cargo")?;
    ensure!(
        status.success(),
        "cargo build {} failed ({status})",
        arguments.join(" ")
    );
    Ok(())
}
