//! Which packages own files: a question to the package manager, for people only.

use rackstrap_loaders::Family;
use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long the package manager may take. rpm waits for a lock while packages are installed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of its answer that are read.
const MOST: u64 = 64 << 10;

/// The package manager's question about the owners of files.
fn question(family: Family) -> Option<(&'static str, &'static [&'static str])> {
    match family {
        Family::Debian | Family::Debian13 => Some(("dpkg", &["-S"])),
        Family::RedHat => Some(("rpm", &["-qf", "--qf", "%{NAME}\n"])),
        Family::Arch => Some(("pacman", &["-Qqo"])),
        Family::Alpine | Family::Other => None,
    }
}

/// The packages that own `paths`; a path that no package owns is left out. Empty if the package manager does not exist, or does not
/// answer within a few seconds: the answer is for people only.
pub fn owners(family: Family, paths: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let Some((program, arguments)) = question(family) else {
        return BTreeMap::new();
    };
    let end = Instant::now() + PATIENCE;
    let mut all = BTreeMap::new();
    // One question for each file: a file without an owner would hide the others in rpm's answer.
    for path in paths {
        let mut command = Command::new(program);
        command.args(arguments).arg(path).env("LC_ALL", "C");
        let Some(answer) = answer(&mut command, end) else { break };
        if let Some(owner) = owner(family, &answer, path) {
            all.insert(path.clone(), owner);
        }
    }
    all
}

/// The owner in the answer to [`question`]; none if no package owns the file.
fn owner(family: Family, answer: &str, path: &Path) -> Option<String> {
    let line = answer.lines().map(str::trim).find(|line| !line.is_empty())?;
    let name = match family {
        // `ipxe: /usr/lib/ipxe/snponly.efi`; of a file of several packages `a, b: /path`.
        Family::Debian | Family::Debian13 => {
            let lines = answer.lines().filter_map(|line| line.split_once(": "));
            lines.into_iter().find(|(_, file)| Path::new(file.trim()) == path)?.0
        }
        _ if line.contains(' ') => return None,
        _ => line,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._:, ".contains(c);
    (!name.is_empty() && name.chars().all(plain)).then(|| name.to_owned())
}

/// What the program prints; none if it cannot be run, or has not ended at `end`: then it is killed.
fn answer(command: &mut Command, end: Instant) -> Option<String> {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = quiet.spawn().ok()?;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    let mut bytes = Vec::new();
    child.stdout.take()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_package_managers_are_read_with_care() {
        let path = Path::new("/usr/lib/ipxe/snponly.efi");
        for (family, answer, name) in [
            (Family::Debian, "ipxe: /usr/lib/ipxe/snponly.efi\n", Some("ipxe")),
            (
                Family::Debian,
                "diversion by a from: /x\nshim-signed:amd64: /usr/lib/ipxe/snponly.efi\n",
                Some("shim-signed:amd64"),
            ),
            (Family::Debian, "other: /usr/lib/ipxe/ipxe.efi\n", None),
            (Family::Debian, "", None),
            (Family::RedHat, "ipxe-bootimgs-x86\n", Some("ipxe-bootimgs-x86")),
            (Family::RedHat, "file /x is not owned by any package\n", None),
            (Family::Arch, "ipxe\n", Some("ipxe")),
            (Family::Arch, "\x1b[31mipxe\n", None),
        ] {
            assert_eq!(owner(family, answer, path).as_deref(), name, "{answer}");
        }
    }

    #[test]
    fn a_package_manager_that_hangs_or_is_missing_is_no_error() {
        let now = Instant::now();
        let mut hangs = Command::new("sleep");
        assert_eq!(answer(hangs.arg("60"), now + Duration::from_millis(100)), None);
        assert!(now.elapsed() < Duration::from_secs(20));
        assert_eq!(answer(&mut Command::new("/nonexistent/rpm"), now + PATIENCE), None);
        assert_eq!(owners(Family::Other, &[PathBuf::from("/etc/passwd")]), BTreeMap::new());
    }
}
