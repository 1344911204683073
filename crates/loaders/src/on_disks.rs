//! The network loaders that prepared disks carry, and what keeps them from it.

use crate::{Loaders, disk_loader::IPXE, esp::Lacking, packages::Family};
use rackstrap_base::arch::Architecture;

/// A network loader for disks, by the firmware that starts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// The firmware, for people: `BIOS`, `x64 UEFI`.
    pub firmware: &'static str,
    /// The processor of its machines.
    pub arch: Architecture,
    /// The file that it is made of; the first of several names if none exists.
    pub file: &'static str,
    /// Why disks do not get it, and the remedy; none if all do.
    pub lacks: Option<(String, String)>,
    /// The disks that do not get it, for people: `disks with 4096-byte blocks`.
    pub disks: &'static str,
}

impl Loaders {
    /// The network loaders of disks, for a server of that family.
    pub fn on_disks(&self, family: Family) -> Vec<OnDisk> {
        let bios = OnDisk {
            firmware: "BIOS",
            arch: Architecture::Amd64,
            file: IPXE,
            lacks: self.disk().is_none().then(|| {
                let unusable = || format!("the boot loader {IPXE} is not a Linux kernel image of at most 952 KiB");
                self.why_not(&[IPXE], family, unusable)
            }),
            disks: Lacking::All.disks(),
        };
        let uefi = self.esps().programs().map(|(firmware, arch, files, lacking)| {
            let found = files.iter().copied().find(|file| self.find(file).is_some());
            let file = found.unwrap_or(files[0]);
            let too_large = || {
                let size = self.find(file).map_or(0, |content| content.bytes.len().div_ceil(1024));
                format!(
                    "the boot loader {file} has {size} KiB, too much for the EFI system partition of {}",
                    lacking.disks()
                )
            };
            OnDisk {
                firmware,
                arch,
                file,
                lacks: (lacking != Lacking::None).then(|| self.why_not(files, family, too_large)),
                disks: lacking.disks(),
            }
        });
        std::iter::once(bios).chain(uefi).collect()
    }
}

impl Lacking {
    fn disks(self) -> &'static str {
        match self {
            Lacking::None | Lacking::All => "disks",
            Lacking::LargeBlocks => "disks with 4096-byte blocks",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{files::is_of_package, tests::site};
    use std::{fs, path::Path};

    fn found(prepare: impl Fn(&Path)) -> Vec<(&'static str, String, String)> {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let loaders = Loaders::load(&site(&[dir.path().to_owned()], "")).unwrap();
        let lacking = loaders.on_disks(Family::Debian).into_iter();
        let lacking = lacking.filter_map(|row| row.lacks.map(|(what, help)| (row.firmware, what, help)));
        lacking
            .map(|(firmware, what, help)| (firmware, what.replace(dir.path().to_str().unwrap(), "DIR"), help))
            .collect()
    }

    #[test]
    fn a_loader_for_disks_that_is_missing_or_too_large_is_named_with_its_package() {
        let all = found(|_| {});
        assert_eq!(
            all.iter().map(|row| row.0).collect::<Vec<_>>(),
            ["BIOS", "x64 UEFI", "arm64 UEFI"]
        );
        assert_eq!(
            (all[1].1.as_str(), all[1].2.as_str()),
            (
                "boot loader 'ipxe.efi' does not exist in DIR",
                "install the package: apt install ipxe; then: rackstrap reload"
            )
        );
        // Debian 12 has no iPXE for arm64.
        assert!(all[2].2.starts_with("put ipxe-arm64.efi into"), "{all:?}");
        let small = |dir: &Path| fs::write(dir.join("ipxe.efi"), vec![1; 850_528]).unwrap();
        assert_eq!(
            found(small).iter().map(|row| row.0).collect::<Vec<_>>(),
            ["BIOS", "arm64 UEFI"]
        );
        let large = found(|dir| fs::write(dir.join("ipxe.efi"), vec![1; 1_200_000]).unwrap());
        assert_eq!(
            (large[1].0, large[1].1.as_str()),
            (
                "x64 UEFI",
                "the boot loader ipxe.efi has 1172 KiB, too much for the EFI system partition of disks"
            )
        );
        assert!(
            large[1]
                .2
                .contains("remove it there and take the package's: apt install ipxe"),
            "{large:?}"
        );
        // Debian 13's fits disks with blocks of 512 bytes.
        let debian_13 = found(|dir| fs::write(dir.join("ipxe.efi"), vec![1; 996_864]).unwrap());
        assert_eq!(
            debian_13[1].1,
            "the boot loader ipxe.efi has 974 KiB, too much for the EFI system partition of disks with 4096-byte blocks"
        );
        assert!(is_of_package(Path::new("/usr/lib/ipxe/ipxe.efi")));
        assert!(!is_of_package(Path::new("/srv/ipxe/ipxe.efi")));
    }
}
