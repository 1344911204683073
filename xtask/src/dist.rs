//! `cargo xtask dist`: builds the programs of one architecture, as they are installed.

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::{
    fs::{self, File},
    io::Read,
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

    /// `e_machine` of its programs (System V ABI, "ELF Header").
    fn elf_machine(self) -> u16 {
        match self {
            Arch::Amd64 => 62,
            Arch::Arm64 => 183,
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
        let mut made = vec![place(self.arch, &agent, &dir, &name)?];
        if !self.agent {
            let daemon = match &cross {
                None => binaries::build_release()?,
                Some(cross) => cross.build_daemon()?,
            };
            made.push(place(self.arch, &daemon, &dir, "rackstrap")?);
        }
        for path in made {
            println!("{}", path.display());
        }
        Ok(())
    }
}

/// Copies a program, which must be one for that architecture.
fn place(arch: Arch, from: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let mut header = Vec::new();
    File::open(from)
        .and_then(|file| file.take(HEADER).read_to_end(&mut header))
        .with_context(|| format!("reading {}", from.display()))?;
    let machine = elf_machine(&header);
    ensure!(
        machine == Some(arch.elf_machine()),
        "{} is not a program for {}: its ELF header has the machine {machine:?}",
        from.display(),
        arch.name()
    );
    let to = dir.join(name);
    fs::copy(from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(to)
}

/// Bytes of an ELF header of 64 bits.
const HEADER: u64 = 64;

/// `e_machine` of a program with 64 bits, little-endian; none for anything else.
fn elf_machine(file: &[u8]) -> Option<u16> {
    let header = file.get(..HEADER as usize)?;
    let is_elf = header.starts_with(b"\x7fELF\x02\x01");
    is_elf.then(|| u16::from_le_bytes([header[18], header[19]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_placed_only_as_one_of_its_own_architecture() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(HEADER as usize, 0);
        for (machine, own, other) in [(183, Arch::Arm64, Arch::Amd64), (62, Arch::Amd64, Arch::Arm64)] {
            header[18] = machine;
            fs::write(&program, &header).unwrap();
            let placed = place(own, &program, dir.path(), "placed").unwrap();
            assert_eq!(fs::read(placed).unwrap(), header);
            let refused = place(other, &program, dir.path(), "refused").unwrap_err().to_string();
            assert!(
                refused.contains(&format!("is not a program for {}", other.name())),
                "{refused}"
            );
            assert!(!dir.path().join("refused").exists());
        }
        for malformed in [&header[..63], b"#!/bin/sh", b""] {
            assert_eq!(elf_machine(malformed), None);
        }
    }
}
