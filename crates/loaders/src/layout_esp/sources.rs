//! Which files the EFI system partitions of layouts are made of, and what is missing for them.

use super::{Chain, KINDS, Kind, LayoutEsps, TooSmall};
use crate::{
    Family, Loaders,
    files::{FURTHER_DIRS, Trust},
};
use rackstrap_base::{arch::Architecture, firmware::companions_of};
use rackstrap_model::decide::LoaderChoice;
use rackstrap_site::{LayoutPolicy, LoaderRule, Site};
use rackstrap_wire::{MOST_ESP_IMAGE, Size};
use std::collections::BTreeSet;

impl Loaders {
    /// The EFI system partitions that layouts ask for.
    pub(crate) fn make_layout_esps(&mut self, site: &Site, trust: &Trust) -> LayoutEsps {
        let sizes: BTreeSet<u64> = site.layouts.values().filter_map(LayoutPolicy::esp_size).collect();
        if sizes.is_empty() {
            return LayoutEsps::default();
        }
        let chains: Vec<Chain> = (KINDS.iter())
            .filter_map(|kind| self.chain(site, trust, kind))
            .collect();
        // Where another server gives the addresses, its answer need not name this one.
        let of_others = site.subnets.iter().filter(|subnet| subnet.dhcp.is_of_another_server());
        LayoutEsps::build(&sizes, &chains, &of_others.map(|subnet| subnet.server).collect())
    }

    /// shim with the programs that it loads: those of `[loader.NAME]`, or else of the distribution's packages.
    fn chain(&mut self, site: &Site, trust: &Trust, kind: &Kind) -> Option<Chain> {
        let file = shim_of(site, kind);
        if file.is_none() {
            for name in kind.files {
                self.search(trust, name, &FURTHER_DIRS);
            }
            for companion in kind.companions() {
                self.add_companion(trust, companion);
            }
        }
        let files = file.map_or_else(|| kind.files.map(str::to_owned).to_vec(), |file| vec![file]);
        let mut complete = files.iter().filter(|file| self.lacking(file).is_none());
        let (file, shim) = complete.find_map(|file| Some((file, self.find(file)?)))?;
        let next = (kind.companions())
            .filter_map(|companion| Some((companion.asked, self.companion(file, companion)?.bytes.clone())));
        Some(Chain {
            arch: kind.arch,
            shim: shim.bytes.clone(),
            next: next.collect(),
        })
    }

    /// The EFI system partitions that layouts ask for.
    pub fn layout_esps(&self) -> &LayoutEsps {
        &self.layout_esps
    }

    /// Why disks get no content for the EFI system partition of a layout, and the remedy, for each architecture with the name of Linux for it.
    /// `boots` says whether an image is for an architecture. Without any image, one architecture with content is enough.
    pub fn lacks_for_esp(
        &self,
        policy: &LayoutPolicy,
        site: &Site,
        family: Family,
        boots: impl Fn(Architecture) -> bool,
    ) -> Vec<(&'static str, (String, String))> {
        let Some(size) = policy.esp_size() else {
            return Vec::new();
        };
        let made = self.layout_esps.images(size);
        let has = |kind: &Kind| made.iter().any(|image| image.arch == kind.arch);
        let too_small = |kind: &Kind| {
            let mut small = self.layout_esps.too_small().iter();
            small.find(|small| small.size == size && small.arch == kind.arch)
        };
        let with_image = |kind: &&Kind| Architecture::of_machine(kind.arch).is_some_and(&boots);
        let mut wanted: Vec<&Kind> = KINDS.iter().filter(with_image).collect();
        if wanted.is_empty() && !KINDS.iter().any(has) {
            let given = KINDS.iter().find(|kind| shim_of(site, kind).is_some());
            wanted.push(given.unwrap_or(&KINDS[0]));
        }
        let of_kind = |kind: &Kind| match too_small(kind) {
            Some(small) => Some(describe(small)),
            None if has(kind) => None,
            None => Some(self.lacks_shim(site, kind, family)),
        };
        // What does not fit is reported for each architecture that the server has files for.
        let concerned = |kind: &&Kind| wanted.iter().any(|other| other.arch == kind.arch) || too_small(kind).is_some();
        (KINDS.iter().filter(concerned))
            .filter_map(|kind| Some((kind.arch, of_kind(kind)?)))
            .collect()
    }

    /// Why the server has no shim of this kind with all that it loads, and the remedy.
    fn lacks_shim(&self, site: &Site, kind: &Kind, family: Family) -> (String, String) {
        let given = shim_of(site, kind);
        let choice = LoaderChoice {
            name: site
                .loaders
                .iter()
                .find(|rule| Some(rule.served()) == given)
                .map_or_else(String::new, |rule| rule.name.clone()),
            of_site: given.is_some(),
            files: given.map_or_else(|| kind.files.map(str::to_owned).to_vec(), |file| vec![file]),
            why: String::new(),
        };
        self.lacks(&choice, family)
    }
}

/// Why shim and GRUB are not in a partition that is too small, and the remedy.
fn describe(small: &TooSmall) -> (String, String) {
    let TooSmall { size, arch, smallest } = small;
    match smallest {
        Some(smallest) => (
            format!(
                "esp = \"{}\" is too small for shim and GRUB for {arch}",
                Size::Bytes(*size)
            ),
            format!(
                "write esp = \"{}\" or more, and raise the layout's version",
                Size::Bytes(*smallest)
            ),
        ),
        None => (
            format!(
                "shim and GRUB for {arch} are larger than {}, which is the most that a disk gets",
                Size::Bytes(MOST_ESP_IMAGE.into())
            ),
            "use smaller ones in [loader.NAME]".to_owned(),
        ),
    }
}

/// The shim of this kind that the site file names.
fn shim_of(site: &Site, kind: &Kind) -> Option<String> {
    let served = site.loaders.iter().map(LoaderRule::served);
    let mut of_kind = served.filter(|file| companions_of(file).any(|companion| companion.of == kind.shim));
    of_kind.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// The loaders and the site of a layout with `esp` of `size`, in a directory that has these files.
    fn load(size: &str, lines: &str, files: &[(&str, usize)]) -> (Loaders, Site) {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), vec![b'x'; *bytes]).unwrap();
        }
        let text = format!(
            "[cluster]\nnode-name = \"n{{n:02}}\"\nnode-address = \"10.5.1.{{n}}\"\n[[subnet]]\nnetwork = \"10.5.0.0/16\"\n\
             relayed = true\nserver = \"10.5.0.1\"\n[layout.s]\nversion = 1\nesp = \"{size}\"\n[[layout.s.partition]]\nname = \"a\"\n\
             size = \"rest\"\nfs = \"raw\"\n[profile.default]\nlayout = \"s\"\n{lines}"
        );
        let (mut site, _) = rackstrap_site::parse(&text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        site.server.loader_dirs = vec![dir.path().to_owned()];
        let trust = Trust {
            owner: rustix::process::geteuid().as_raw(),
            ..Trust::default()
        };
        (Loaders::load_as(&site, &trust).unwrap(), site)
    }

    /// What disks of arm64 machines lack, where the images are for them.
    fn lacks(size: &str, lines: &str, files: &[(&str, usize)]) -> Option<(String, String)> {
        let (loaders, site) = load(size, lines, files);
        let arm64 = |arch| arch == Architecture::Arm64;
        let mut found = loaders
            .lacks_for_esp(&site.layouts["s"], &site, Family::Debian, arm64)
            .into_iter();
        found.find_map(|(arch, lacks)| (arch == "aarch64").then_some(lacks))
    }

    /// A shim of arm64, which this machine has in no package.
    const ARM64: &str = "[loader.secure]\nfile = \"shimaa64.efi\"\narch = [11]\n";

    #[test]
    fn the_files_are_those_of_the_site() {
        let files = [("shimaa64.efi", 900_000), ("grubnetaa64.efi.signed", 3_000_000)];
        let (loaders, site) = load("8MiB", ARM64, &files);
        let images = loaders.layout_esps().images(8 << 20);
        let arm64 = images.iter().filter(|image| image.arch == "aarch64");
        assert_eq!(arm64.count(), 2, "{images:?}");
        let lacks = |boots: &[Architecture]| -> Vec<&str> {
            let found = loaders.lacks_for_esp(&site.layouts["s"], &site, Family::Other, |arch| boots.contains(&arch));
            found.into_iter().map(|(arch, _)| arch).collect()
        };
        assert_eq!(lacks(&[]), [""; 0]);
        assert_eq!(lacks(&[Architecture::Arm64]), [""; 0]);
        // What this machine's packages have for x64 is content, too.
        if !images.iter().any(|image| image.arch == "x86_64") {
            assert_eq!(lacks(&[Architecture::Amd64, Architecture::Arm64]), ["x86_64"]);
        }
        assert!(loaders.layout_esps().pieces(8 << 20, "aarch64-4096").is_some());
        // Without `esp` nothing is made.
        let mut without = site;
        without.layouts.clear();
        let loaders = Loaders::load(&without).unwrap();
        assert!(loaders.layout_esps().images(8 << 20).is_empty());
    }

    #[test]
    fn missing_files_name_their_package_and_a_small_partition_the_size_that_is_enough() {
        let (what, remedy) = lacks("7MiB", ARM64, &[("shimaa64.efi", 900_000), ("grubaa64.efi", 8_000_000)]).unwrap();
        assert_eq!(what, "esp = \"7MiB\" is too small for shim and GRUB for aarch64");
        assert_eq!(remedy, "write esp = \"9MiB\" or more, and raise the layout's version");
        let (what, _) = lacks(
            "16MiB",
            ARM64,
            &[("shimaa64.efi", 900_000), ("grubaa64.efi", 14_000_000)],
        )
        .unwrap();
        assert_eq!(
            what,
            "shim and GRUB for aarch64 are larger than 12MiB, which is the most that a disk gets"
        );
    }
}
