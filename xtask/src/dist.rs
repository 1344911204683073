//! `cargo xtask dist`: builds the programs of one architecture, as they are installed.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::{
    fs,
    path::{Path, PathBuf},
};
use testbed::{
    binaries::{self, Cross},
    packages, paths,
};

#[derive(Args)]
pub struct Dist {
    /// Architecture of the machines that run the programs
    #[arg(long, value_enum, default_value_t = Arch::Amd64)]
    arch: Arch,
    /// Build only the agent, which nodes run, and not the daemon
    #[arg(long)]
    agent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// As in the names of directories and packages.
    fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }
}

impl Dist {
    pub fn run(self) -> Result<()> {
        let mut say = |line: &str| eprintln!("{line}");
        let cross = match self.arch {
            Arch::Amd64 => None,
            Arch::Arm64 => {
                say(&format!(
                    "a build for arm64 needs the packages {} (installed if they are missing), and Debian's standard library for arm64 \
                     (unpacked below target/; no architecture is added to dpkg)",
                    packages::CROSS_ARM64.join(" ")
                ));
                Some(Cross::prepare(&mut say)?)
            }
        };
        let dir = paths::target_dir().join("dist").join(self.arch.name());
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let agent = match &cross {
            None => binaries::build_agent()?,
            Some(cross) => cross.build_agent()?,
        };
        // A server looks for the agent of another architecture under this name; one of the same architecture without it.
        let name = format!("rackstrap-agent-{}", self.arch.name());
        let mut made = vec![place(&agent, &dir, &name)?];
        if !self.agent {
            let daemon = match &cross {
                None => binaries::build_release()?,
                Some(cross) => cross.build_daemon()?,
            };
            made.push(place(&daemon, &dir, "rackstrap")?);
        }
        for path in made {
            println!("{}", path.display());
        }
        Ok(())
    }
}

fn place(from: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let to = dir.join(name);
    fs::copy(from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(to)
}
