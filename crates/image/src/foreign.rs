//! Whether this server can run the programs of a tree for another architecture: with QEMU's user emulation, to which the kernel gives
//! such programs (Documentation/admin-guide/binfmt-misc.rst).

use super::{
    error::{ImportError, Result},
    inspect::find_machine,
    root::RootDir,
};
use rackstrap_base::arch::Architecture;
use std::{fs, path::Path};

/// Where the kernel shows the formats of programs that it gives to others.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";

/// The architecture of the programs in the tree `root`.
pub(crate) fn tree_architecture(root: &Path) -> Option<Architecture> {
    let tree = RootDir::open(root).ok()?;
    find_machine(&tree, Path::new("sbin/init")).and_then(Architecture::of_machine)
}

/// Fails if this server cannot run programs for `architecture`. `what` would run, such as "commands in it".
pub(crate) fn expect_runs(architecture: Architecture, what: &str) -> Result<()> {
    runs(architecture, what, Path::new(FORMATS))
}

fn runs(architecture: Architecture, what: &str, formats: &Path) -> Result<()> {
    let native = Architecture::native();
    if native.is_none_or(|native| architecture.runs_on(native)) || emulated(architecture, formats) {
        return Ok(());
    }
    let native = native.map(|native| native.to_string()).unwrap_or_default();
    Err(ImportError::Request(format!(
        "the tree is for {architecture}, and this {native} server cannot run {what}\nhelp: apt install qemu-user-static (Debian), \
         dnf install qemu-user-static (Fedora), or import a tree that was made on an {architecture} machine"
    )))
}

/// Whether an enabled format of QEMU is for that architecture, with an interpreter that the kernel opened at registration (flag F).
/// Without that flag it would look for the interpreter inside the tree.
fn emulated(architecture: Architecture, formats: &Path) -> bool {
    let names: &[&str] = match architecture {
        Architecture::Amd64 => &["qemu-x86_64"],
        Architecture::I386 => &["qemu-i386"],
        Architecture::Arm64 => &["qemu-aarch64"],
        Architecture::Arm => &["qemu-arm"],
        Architecture::Riscv64 => &["qemu-riscv64"],
    };
    names.iter().any(|name| {
        let text = fs::read_to_string(formats.join(name)).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        text.starts_with("enabled") && flags.is_some_and(|flags| flags.contains('F'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_another_architecture_need_an_emulator() {
        let formats = tempfile::tempdir().unwrap();
        let native = Architecture::native().unwrap();
        let other = match native {
            Architecture::Arm64 => Architecture::Amd64,
            _ => Architecture::Arm64,
        };
        assert!(runs(native, "", formats.path()).is_ok());
        let why = runs(other, "commands in it", formats.path()).unwrap_err().to_string();
        assert!(
            why.contains(&format!("the tree is for {other}"))
                && why.contains("cannot run commands in it")
                && why.contains("qemu-user-static"),
            "{why}"
        );
        let file = formats.path().join(format!("qemu-{}", other.machine()));
        let registered = |flags: &str| format!("enabled\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\n");
        for (text, runs_now) in [
            (registered("OC"), false),
            (registered("OCF"), true),
            (registered("OCF").replace("enabled", "disabled"), false),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(runs(other, "", formats.path()).is_ok(), runs_now);
        }
    }
}
