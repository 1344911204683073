//! Packages of boot loaders: which one owns a file, and which one to install for a missing file.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

/// How long the package manager may take. rpm waits for a lock while packages are installed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of its answer that are read.
const MOST: u64 = 64 << 10;

/// A family of distributions that share a package manager and the names of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian and Ubuntu.
    Debian,
    /// Fedora and Enterprise Linux.
    RedHat,
    /// Arch.
    Arch,
    /// Alpine, which has no package with iPXE for other machines.
    Alpine,
    /// Any other.
    Other,
}

/// Packages by the file that they have, for Debian, Fedora and Arch; empty where the distribution has none. Debian 12's ipxe has
/// no loader for arm64.
const PACKAGES: [(&str, [&str; 3]); 13] = [
    ("undionly.kpxe", ["ipxe", "ipxe-bootimgs-x86", "ipxe"]),
    ("ipxe.lkrn", ["ipxe", "ipxe-bootimgs-x86", "ipxe"]),
    ("snponly.efi", ["ipxe", "", "ipxe"]),
    ("ipxe.efi", ["ipxe", "", "ipxe"]),
    ("ipxe-snponly-x86_64.efi", ["", "ipxe-bootimgs-x86", ""]),
    ("ipxe-x86_64.efi", ["", "ipxe-bootimgs-x86", ""]),
    ("arm64-efi/snponly.efi", ["", "ipxe-bootimgs-aarch64", ""]),
    ("arm64-efi/ipxe.efi", ["", "ipxe-bootimgs-aarch64", ""]),
    ("shimx64.efi.signed", ["shim-signed", "", ""]),
    ("grubnetx64.efi.signed", ["grub-efi-amd64-signed", "", ""]),
    ("grubnetaa64.efi.signed", ["grub-efi-arm64-signed", "", ""]),
    ("pxelinux.0", ["pxelinux", "syslinux-nonlinux", "syslinux"]),
    ("syslinux.efi", ["syslinux-efi", "syslinux-efi64", "syslinux"]),
];

impl Family {
    /// That of this machine, read once: packets of firmware without a loader ask for it.
    pub fn of_this_machine() -> Family {
        static FAMILY: LazyLock<Family> = LazyLock::new(Family::read);
        *FAMILY
    }

    fn read() -> Family {
        let text =
            std::fs::read_to_string("/etc/os-release").or_else(|_| std::fs::read_to_string("/usr/lib/os-release"));
        Family::of(&text.unwrap_or_default())
    }

    /// That of a machine with this os-release(5).
    fn of(os_release: &str) -> Family {
        let value = |key: &str| {
            let line = os_release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        let named = format!("{} {}", value("ID"), value("ID_LIKE"));
        let family = named.split_whitespace().find_map(|word| match word {
            "debian" | "ubuntu" => Some(Family::Debian),
            "rhel" | "fedora" | "centos" => Some(Family::RedHat),
            "arch" => Some(Family::Arch),
            "alpine" => Some(Family::Alpine),
            _ => None,
        });
        family.unwrap_or(Family::Other)
    }

    /// The package with one of these files, the first one that the distribution has.
    pub fn package(self, files: &[impl AsRef<str>]) -> Option<&'static str> {
        let column = match self {
            Family::Debian => 0,
            Family::RedHat => 1,
            Family::Arch => 2,
            Family::Alpine | Family::Other => return None,
        };
        files.iter().find_map(|file| {
            let file = file.as_ref();
            let row = PACKAGES.iter().find(|(name, _)| *name == file)?;
            Some(row.1[column]).filter(|package| !package.is_empty())
        })
    }

    /// The command that installs a package.
    pub fn install(self, package: &str) -> String {
        let how = match self {
            Family::RedHat => "dnf install",
            Family::Arch => "pacman -S",
            Family::Alpine => "apk add",
            Family::Debian | Family::Other => "apt install",
        };
        format!("{how} {package}")
    }

    /// The package manager's question about the owners of files.
    fn question(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Family::Debian => Some(("dpkg", &["-S"])),
            Family::RedHat => Some(("rpm", &["-qf", "--qf", "%{NAME}\n"])),
            Family::Arch => Some(("pacman", &["-Qqo"])),
            Family::Alpine | Family::Other => None,
        }
    }

    /// The packages that own `paths`; a path that no package owns is left out. Empty if the package manager does not exist, or does not
    /// answer within a few seconds: the answer is for people only.
    pub fn owners(self, paths: &[PathBuf]) -> BTreeMap<PathBuf, String> {
        let Some((program, arguments)) = self.question() else {
            return BTreeMap::new();
        };
        let end = Instant::now() + PATIENCE;
        let mut all = BTreeMap::new();
        // One question for each file: a file without an owner would hide the others in rpm's answer.
        for path in paths {
            let mut command = Command::new(program);
            command.args(arguments).arg(path).env("LC_ALL", "C");
            let Some(answer) = answer(&mut command, end) else { break };
            if let Some(owner) = owner(self, &answer, path) {
                all.insert(path.clone(), owner);
            }
        }
        all
    }
}

/// The owner in the answer to [`Family::question`]; none if no package owns the file.
fn owner(family: Family, answer: &str, path: &Path) -> Option<String> {
    let line = answer.lines().map(str::trim).find(|line| !line.is_empty())?;
    let name = match family {
        // `ipxe: /usr/lib/ipxe/snponly.efi`; of a file of several packages `a, b: /path`.
        Family::Debian => {
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
    fn distributions_are_recognised_with_their_relatives() {
        for (text, family) in [
            ("ID=debian\n", Family::Debian),
            (
                "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                Family::Debian,
            ),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Family::RedHat),
            ("VARIANT_ID=server\nID=fedora\n", Family::RedHat),
            ("ID=arch\n", Family::Arch),
            ("ID='alpine'\n", Family::Alpine),
            ("ID=slackware\n", Family::Other),
            ("", Family::Other),
        ] {
            assert_eq!(Family::of(text), family, "{text}");
        }
    }

    #[test]
    fn a_missing_loader_names_the_package_of_the_distribution() {
        let x64 = rackstrap_base::firmware::default_loader(Some(7)).unwrap().files;
        let arm64 = rackstrap_base::firmware::default_loader(Some(11)).unwrap().files;
        assert_eq!(Family::Debian.package(x64), Some("ipxe"));
        assert_eq!(Family::RedHat.package(x64), Some("ipxe-bootimgs-x86"));
        assert_eq!(Family::RedHat.package(arm64), Some("ipxe-bootimgs-aarch64"));
        assert_eq!(Family::Debian.package(arm64), None, "Debian's has none");
        assert_eq!(Family::Alpine.package(x64), None);
        assert_eq!(Family::Debian.package(&["my-own.efi"]), None);
        assert_eq!(
            Family::RedHat.install("ipxe-bootimgs-x86"),
            "dnf install ipxe-bootimgs-x86"
        );
    }

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
        assert_eq!(Family::Other.owners(&[PathBuf::from("/etc/passwd")]), BTreeMap::new());
    }
}
