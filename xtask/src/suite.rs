//! `cargo xtask test`: runs all tests, after making once what several of them need.

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use std::{
    env,
    process::{Command, ExitCode, Stdio},
    thread,
};
use testbed::{
    binaries::{self, AGENT_ARM64, Binaries},
    image::{Image, Kernel},
    networks, packages, paths, small,
};

#[derive(Args)]
pub struct Test {
    /// Skip the tests with virtual machines (those named `vm::…`)
    #[arg(long)]
    fast: bool,
    /// Run only the tests whose names contain this
    filter: Option<String>,
}

impl Test {
    pub fn run(self) -> Result<ExitCode> {
        let mut say = |line: &str| eprintln!("{line}");
        packages::ensure(&mut say)?;
        // The trees take a minute, in which one processor unpacks packages.
        let machines = !self.fast && self.filter.is_none();
        let trees = thread::spawn(move || {
            let mut say = |line: &str| eprintln!("{line}");
            small::tree(Kernel::Cloud, &mut say)?;
            if machines {
                small::tree(Kernel::Whole, &mut say)?;
                small::arm64(&mut say)?;
                networks::tree(&mut say)?;
            }
            anyhow::Ok(())
        });
        say("building the agent, the daemon and the tests");
        let agent = binaries::build_agent()?;
        // A test with a filter builds it if it needs it.
        let arm64_agent = machines.then(|| binaries::arm64_agent(&mut say)).transpose()?;
        let mut runner = if has_nextest() {
            self.nextest()
        } else {
            say("cargo-nextest is not installed: cargo test runs the tests instead, without limits on their time");
            self.cargo_test()
        };
        let run = |command: &mut Command| -> Result<bool> {
            command.current_dir(paths::repo_root()).stdin(Stdio::null());
            let what = format!("running {}", command.get_program().display());
            Ok(command.status().context(what)?.success())
        };
        // Use the daemon of the tests, because it imports the image.
        ensure!(
            run(cargo().args(["test", "--workspace", "--all-targets", "--no-run", "--quiet"]))?,
            "the tests do not build"
        );
        let binaries = Binaries {
            daemon: paths::target_dir().join("debug/rackstrap"),
            agent,
        };
        trees.join().map_err(|_| anyhow!("making the root trees panicked"))??;
        // The images are held until the end, so that no process removes them as unused.
        let _debian = Image::debian(&binaries, Kernel::Cloud, &mut say)?;
        let _small = Image::small(&binaries, Kernel::Cloud, &mut say)?;
        // nextest does not run the examples in documentation. They come last, so that its closing lines are visible.
        let documented = self.filter.is_some() || run(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
        runner.envs(binaries.environment());
        runner.envs(arm64_agent.map(|agent| (AGENT_ARM64, agent)));
        let tested = run(&mut runner)?;
        if !documented {
            say("examples in the documentation failed, see above");
        }
        Ok(if tested && documented {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn nextest(&self) -> Command {
        let mut command = cargo();
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
        if self.fast {
            command.args(["-E", "not test(/^vm::/)"]);
        }
        command.args(&self.filter);
        command
    }

    fn cargo_test(&self) -> Command {
        let mut command = cargo();
        command.args(["test", "--workspace", "--no-fail-fast", "--all-targets"]);
        // The filter comes first. As many tests at a time as in .config/nextest.toml.
        command.args(&self.filter).args(["--", "--test-threads=3"]);
        if self.fast {
            command.args(["--skip", "vm::"]);
        }
        command
    }
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn has_nextest() -> bool {
    let asked = cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}
