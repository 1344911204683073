//! Packages of boot loaders: which one to install for a missing file.

use std::sync::LazyLock;

/// A family of distributions that share a package manager and the names of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian up to 12, and Ubuntu.
    Debian,
    /// Debian since 13, whose package `ipxe` has more files.
    Debian13,
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
/// no loader for arm64, and Arch's has `ipxe.lkrn`, `ipxe.pxe` and `x86_64/ipxe.efi` only
/// (https://archlinux.org/packages/extra/x86_64/ipxe/files/). A package of Debian that exists for one architecture only is named with it.
const PACKAGES: [(&str, [&str; 3]); 20] = [
    ("undionly.kpxe", ["ipxe", "ipxe-bootimgs-x86", ""]),
    ("ipxe.lkrn", ["ipxe", "ipxe-bootimgs-x86", "ipxe"]),
    ("snponly.efi", ["ipxe", "", ""]),
    ("ipxe.efi", ["ipxe", "", "ipxe"]),
    ("ipxe-snponly-x86_64.efi", ["", "ipxe-bootimgs-x86", ""]),
    ("ipxe-x86_64.efi", ["", "ipxe-bootimgs-x86", ""]),
    ("arm64-efi/snponly.efi", ["", "ipxe-bootimgs-aarch64", ""]),
    ("arm64-efi/ipxe.efi", ["", "ipxe-bootimgs-aarch64", ""]),
    ("shimx64.efi.signed", ["shim-signed", "", ""]),
    ("shimaa64.efi.signed", ["shim-signed:arm64", "", ""]),
    ("grubnetx64.efi.signed", ["grub-efi-amd64-signed", "", ""]),
    ("grubnetaa64.efi.signed", ["grub-efi-arm64-signed:arm64", "", ""]),
    ("pxelinux.0", ["pxelinux", "syslinux-nonlinux", "syslinux"]),
    ("lpxelinux.0", ["pxelinux", "syslinux-nonlinux", "syslinux"]),
    ("ldlinux.c32", ["syslinux-common", "syslinux-nonlinux", "syslinux"]),
    ("libcom32.c32", ["syslinux-common", "syslinux-nonlinux", "syslinux"]),
    ("reboot.c32", ["syslinux-common", "syslinux-nonlinux", "syslinux"]),
    ("memtest86+x64.bin", ["memtest86+", "", ""]),
    ("memtest86+x64.efi", ["memtest86+", "", ""]),
    ("syslinux.efi", ["syslinux-efi", "syslinux-efi64", "syslinux"]),
];

/// Further files of Debian's packages since Debian 13.
const SINCE_DEBIAN_13: [(&str, &str); 1] = [("ipxe-arm64.efi", "ipxe")];

/// Debian's name of this program's architecture, as far as packages above name one.
const OWN: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "" };

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
        let (id, version) = (value("ID"), value("VERSION_ID"));
        if id == "debian" && version.parse().is_ok_and(|version: u32| version >= 13) {
            return Family::Debian13;
        }
        let named = format!("{id} {}", value("ID_LIKE"));
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
            Family::Debian | Family::Debian13 => 0,
            Family::RedHat => 1,
            Family::Arch => 2,
            Family::Alpine | Family::Other => return None,
        };
        files.iter().find_map(|file| {
            let file = file.as_ref();
            let mut since = SINCE_DEBIAN_13.iter().filter(|_| self == Family::Debian13);
            if let Some((_, package)) = since.find(|(name, _)| *name == file) {
                return Some(*package);
            }
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
            Family::Debian | Family::Debian13 | Family::Other => "apt install",
        };
        match package.split_once(':') {
            Some((_, architecture)) if architecture != OWN => {
                format!("dpkg --add-architecture {architecture} && apt update && {how} {package}")
            }
            _ => format!("{how} {package}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_recognised_with_their_relatives() {
        for (text, family) in [
            ("ID=debian\n", Family::Debian),
            ("ID=debian\nVERSION_ID=\"12\"\n", Family::Debian),
            ("ID=debian\nVERSION_ID=\"13\"\n", Family::Debian13),
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n", Family::Debian),
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
        let grub = "grub-efi-arm64-signed:arm64";
        assert_eq!(
            Family::Debian.package(arm64),
            Some(grub),
            "Debian 12's iPXE is not for arm64"
        );
        assert_eq!(Family::Debian13.package(arm64), Some("ipxe"), "by its ipxe-arm64.efi");
        assert_eq!(Family::Debian13.package(x64), Some("ipxe"));
        if OWN != "arm64" {
            assert_eq!(
                Family::Debian.install(grub),
                format!("dpkg --add-architecture arm64 && apt update && apt install {grub}")
            );
        }
        assert_eq!(Family::Arch.package(x64), Some("ipxe"), "by its ipxe.efi");
        assert_eq!(Family::Arch.package(&["undionly.kpxe"]), None, "Arch's has none");
        assert_eq!(Family::Alpine.package(x64), None);
        assert_eq!(Family::Debian.package(&["my-own.efi"]), None);
        assert_eq!(
            Family::RedHat.install("ipxe-bootimgs-x86"),
            "dnf install ipxe-bootimgs-x86"
        );
    }
}
