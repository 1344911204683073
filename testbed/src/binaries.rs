//! The programs under test, built by cargo.

use crate::{Result, foreign, packages, paths, process};
use anyhow::{Context, ensure};
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Environment variable with the path of a daemon, which is then not built.
pub const DAEMON: &str = "RACKSTRAP_TEST_DAEMON";

/// Environment variable with the path of an agent for arm64, which is then not built.
pub const AGENT_ARM64: &str = "RACKSTRAP_TEST_AGENT_ARM64";

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

    /// For clusters whose machines do not run the agent, so that none is built. `daemon` is the path of the daemon.
    pub fn without_agent(daemon: impl Into<PathBuf>) -> Self {
        Binaries {
            daemon: daemon.into(),
            agent: PathBuf::new(),
        }
    }

    /// Variables with which child processes, and so the tests, use these programs without calling cargo again.
    pub fn environment(&self) -> [(&'static str, &PathBuf); 2] {
        [(DAEMON, &self.daemon), (AGENT, &self.agent)]
    }
}

/// Largest size of the agent in bytes: about a tenth of the kernel and the initramfs (21.5 MB) with which each node loads it. It has all of
/// the node's disks, networks and checks, and keeps heavy crates out.
const AGENT_SIZE: u64 = 2_200_000;

/// `target/debug/rackstrap` for the test `target/debug/deps/all-…`. A build here would make another one, because cargo chooses the
/// features of dependencies by the packages that it builds.
fn beside_the_test() -> Option<PathBuf> {
    let test = env::current_exe().ok()?;
    let deps = test.parent().filter(|dir| dir.ends_with("deps"))?;
    Some(deps.parent()?.join("rackstrap"))
}

/// Rust's name of the target for arm64.
const ARM64: &str = "aarch64-unknown-linux-gnu";
/// The flags of the agent, as it is shipped: one file that needs no library and is not moved at its start.
const STATIC: &str = "-C target-feature=+crt-static -C relocation-model=static";
/// Debian's compiler, which is beside rustup's.
const RUSTC: &str = "/usr/bin/rustc";
/// The oldest version of Rust that compiles this workspace.
const NEEDED: &str = env!("CARGO_PKG_RUST_VERSION");

/// Whether the compiler that said `version` (`rustc 1.85.0 (...)`) is older than `needed`. One whose version cannot be read is not.
fn is_older(version: &str, needed: &str) -> bool {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let has = version.split_whitespace().nth(1).and_then(numbers);
    has.zip(numbers(needed)).is_some_and(|(has, needed)| has < needed)
}

/// Builds the daemon with the release profile.
pub fn build_release() -> Result<PathBuf> {
    cargo_build(&["--package", "rackstrap", "--bin", "rackstrap", "--release"], None).context("building the daemon")?;
    Ok(paths::target_dir().join("release/rackstrap"))
}

/// The agent for arm64, built now unless [`AGENT_ARM64`] names one.
pub fn arm64_agent(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    match env::var_os(AGENT_ARM64) {
        Some(path) => Ok(path.into()),
        None => Cross::prepare(say)?.build_agent(),
    }
}

/// The means to build for arm64, of [`packages::CROSS_ARM64`] and of the standard library that is fetched for them.
#[derive(Debug)]
pub struct Cross {
    sysroot: PathBuf,
    target_dir: PathBuf,
}

impl Cross {
    /// Installs and fetches what is missing, on Debian with amd64.
    pub fn prepare(say: &mut dyn FnMut(&str)) -> Result<Self> {
        ensure!(
            env::consts::ARCH == "x86_64",
            "builds for arm64 work on a machine with amd64, and on one with arm64 with --arch of its own"
        );
        packages::ensure_these(packages::CROSS_ARM64, say)?;
        let version_now = || process::output(Command::new(RUSTC).arg("--version"));
        let mut version = version_now()?;
        // Debian 12 came with an older compiler, which may be installed already.
        if is_older(&version, NEEDED) {
            packages::upgrade(packages::CROSS_ARM64, say)?;
            version = version_now()?;
        }
        ensure!(
            !is_older(&version, NEEDED),
            "building for arm64 needs Debian's rustc {NEEDED} or newer, and {RUSTC} is {}; apt-cache policy rustc-web shows which ones the \
             package lists have",
            version.trim()
        );
        // The library must be of the compiler's own build.
        let library = foreign::unpacked("arm64-std", &["libstd-rust-web-dev"], version.trim(), say)?;
        Ok(Cross {
            sysroot: library.join("usr"),
            // Two compilers cannot share a directory: each would build everything again.
            target_dir: paths::target_dir().join("cross"),
        })
    }

    /// Builds the agent as one static program.
    pub fn build_agent(&self) -> Result<PathBuf> {
        self.build(&["--package", "rackstrap-agent", "--profile", "agent"], STATIC)
            .context("building the agent for arm64")?;
        let agent = self.target_dir.join(ARM64).join("agent/rackstrap-agent");
        expect_small(&agent)?;
        Ok(agent)
    }

    /// Builds the daemon with the release profile, for Debian 12 or newer.
    pub fn build_daemon(&self) -> Result<PathBuf> {
        self.build(&["--package", "rackstrap", "--bin", "rackstrap", "--release"], "")
            .context("building the daemon for arm64")?;
        Ok(self.target_dir.join(ARM64).join("release/rackstrap"))
    }

    fn build(&self, arguments: &[&str], flags: &str) -> Result {
        let flags = format!("--sysroot {} {flags}", self.sysroot.display());
        let mut command = cargo_command(&[arguments, &["--target", ARM64]].concat(), Some(flags.trim()));
        // Build scripts and macros run here, so `--target` keeps the flags from them.
        command
            .env("RUSTC", RUSTC)
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            .env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc")
            .env("AR_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-ar");
        run(command, arguments)
    }
}

/// Builds the daemon with the dev profile.
pub fn build_daemon() -> Result<PathBuf> {
    cargo_build(&["--package", "rackstrap", "--bin", "rackstrap"], None).context("building the daemon")?;
    Ok(paths::target_dir().join("debug/rackstrap"))
}

/// Builds the agent as one static program. `--target` keeps the flags from build scripts and macros.
pub fn build_agent() -> Result<PathBuf> {
    cargo_build(
        &["--package", "rackstrap-agent", "--profile", "agent", "--target", TARGET],
        Some(STATIC),
    )
    .context("building the agent")?;
    let agent = paths::target_dir().join(TARGET).join("agent/rackstrap-agent");
    expect_small(&agent)?;
    Ok(agent)
}

fn expect_small(agent: &Path) -> Result {
    let size = agent
        .metadata()
        .with_context(|| format!("looking at {}", agent.display()))?
        .len();
    ensure!(
        size <= AGENT_SIZE,
        "the agent has {size} bytes; at most {AGENT_SIZE} are allowed, because every node downloads it at every boot"
    );
    Ok(())
}

/// Cargo's output goes to stderr, because on a fresh machine it builds for minutes.
fn cargo_build(arguments: &[&str], flags: Option<&str>) -> Result {
    run(cargo_command(arguments, flags), arguments)
}

fn cargo_command(arguments: &[&str], flags: Option<&str>) -> Command {
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
    command
}

fn run(mut command: Command, arguments: &[&str]) -> Result {
    let status = command.status().context("running cargo")?;
    ensure!(
        status.success(),
        "cargo build {} failed ({status})",
        arguments.join(" ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_too_old_is_recognised() {
        for (version, older) in [
            (
                "rustc 1.85.0 (4d91de4e4 2025-02-17) (built from a source tarball)\n",
                true,
            ),
            ("rustc 1.95.0", false),
            ("rustc 1.96.0-nightly", false),
            ("rustc 2.0.0", false),
            ("rustc", false),
            ("", false),
        ] {
            assert_eq!(is_older(version, "1.95"), older, "{version}");
        }
        assert!(!is_older("rustc 1.95.0", NEEDED), "{NEEDED}");
    }
}
