//! `cargo xtask efi`: the programs of `bootscripts/efi/` that the EFI system partitions of disks start.
//!
//! The results are in the repository, so that a build of rackstrap needs no compiler for other architectures. The test below compiles
//! them again.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use testbed::{packages, paths};

/// The version of GCC whose output is in the repository: Debian 12's. Another one may choose other instructions.
#[cfg(test)]
const GCC: &str = "12.2.0";

/// A program, and how it is made.
struct Program {
    /// File in `bootscripts/efi/`.
    file: &'static str,
    /// The prefix of the tools' names.
    tools: &'static str,
    /// The linker's name of the machine.
    emulation: &'static str,
    /// Flags of this machine alone. UEFI's interrupts use the program's stack, so there is no red zone (UEFI 2.10, 2.3.4).
    flags: &'static [&'static str],
}

const PROGRAMS: [Program; 2] = [
    Program {
        file: "bootx64.efi",
        tools: "x86_64-linux-gnu-",
        emulation: "elf_x86_64",
        flags: &["-mno-red-zone", "-fcf-protection=none"],
    },
    Program {
        file: "bootaa64.efi",
        tools: "aarch64-linux-gnu-",
        emulation: "aarch64linux",
        flags: &["-mno-outline-atomics"],
    },
];

/// Small code without relocations, tables of addresses, unwind tables or calls to a library.
const FLAGS: &[&str] = &[
    "-Os",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-builtin",
    "-fpie",
    "-fshort-wchar",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-jump-tables",
    "-fno-ident",
    "-mgeneral-regs-only",
];

/// Debian packages with the compilers.
const PACKAGES: &[&str] = &["gcc", "gcc-aarch64-linux-gnu"];

/// Compiles both programs into the repository.
pub fn run() -> Result<()> {
    packages::ensure_these(PACKAGES, &mut |line| eprintln!("{line}"))?;
    let dir = paths::repo_root().join("bootscripts/efi");
    for program in &PROGRAMS {
        let bytes = program.build(&dir)?;
        fs::write(dir.join(program.file), &bytes).with_context(|| format!("writing {}", program.file))?;
        println!("{}: {} bytes", program.file, bytes.len());
    }
    Ok(())
}

impl Program {
    fn build(&self, dir: &Path) -> Result<Vec<u8>> {
        let work = tempfile::tempdir()?;
        let object = |name: &str| work.path().join(name);
        for source in ["header.S", "again.c"] {
            let mut gcc = Command::new(format!("{}gcc", self.tools));
            gcc.args(FLAGS).args(self.flags).arg("-c").arg("-o");
            done(gcc.arg(object(source)).arg(dir.join(source)))?;
        }
        let mut ld = Command::new(format!("{}ld", self.tools));
        ld.args(["-m", self.emulation, "-T"]).arg(dir.join("link.ld")).arg("-o");
        done(ld.args([object("elf"), object("header.S"), object("again.c")]))?;
        let mut objcopy = Command::new(format!("{}objcopy", self.tools));
        done(objcopy.args(["-O", "binary"]).args([object("elf"), object("efi")]))?;
        fs::read(object("efi")).context("reading the program")
    }
}

fn done(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_what_their_source_compiles_to() {
        packages::ensure_these(PACKAGES, &mut |line| eprintln!("{line}")).unwrap();
        let dir = paths::repo_root().join("bootscripts/efi");
        for program in &PROGRAMS {
            let version = done(Command::new(format!("{}gcc", program.tools)).arg("-dumpfullversion")).unwrap();
            let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
            let (built, kept) = (program.build(&dir).unwrap(), fs::read(dir.join(program.file)).unwrap());
            assert!(built.len() <= 4096, "{} has {} bytes", program.file, built.len());
            match version == GCC {
                true => assert!(built == kept, "{} is not what `cargo xtask efi` makes", program.file),
                false => eprintln!("{}: GCC {version} is here, so the bytes are not compared", program.file),
            }
        }
    }
}
