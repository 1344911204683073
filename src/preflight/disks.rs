//! Whether disks get the network loaders for firmware that boots from them.

use super::{Finding, finding};
use rackstrap_base::arch::Architecture;
use rackstrap_catalog::Catalog;
use rackstrap_loaders::{Family, Loaders, OnDisk};
use rackstrap_model::inventory::Settings;
use rackstrap_site::Site;
use std::{io, sync::Arc};

pub(super) fn of(site: &Site, images: &Catalog, found: &io::Result<Arc<Loaders>>) -> Vec<Finding> {
    let layout = |profile| {
        Settings::of(site, std::slice::from_ref(profile), |_| ())
            .text(|p| &p.layout)
            .map(str::is_empty)
    };
    let none_has_a_disk = site.profiles.keys().all(|profile| layout(profile) != Some(false));
    let Ok(loaders) = found else { return Vec::new() };
    if none_has_a_disk {
        return Vec::new();
    }
    // Machines of other processors than amd64 are a matter of sites that have an image for them.
    let concerned = |row: &OnDisk| row.arch == Architecture::Amd64 || images.has_architecture(row.arch);
    let rows = loaders
        .on_disks(Family::of_this_machine())
        .into_iter()
        .filter(concerned);
    rows.filter_map(|row| {
        let (what, help) = row.lacks?;
        Some(match row.firmware {
            "BIOS" => finding(
                false,
                "network loader of disks",
                format!(
                    "{what}: disks get no network loader. A node whose BIOS boots from its disk stops there for five minutes, and then \
                     restarts; with the disk first in its boot order it may never boot"
                ),
                help,
            ),
            firmware => finding(
                false,
                &format!("{firmware} loader of disks"),
                format!(
                    "{what}: {} get no network loader for {firmware}. A node that boots from its disk waits there for minutes, and then \
                     tries the network entry of its firmware",
                    row.disks
                ),
                help,
            ),
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_catalog::{ImageVersion, Manifest};
    use std::{fs, path::Path};

    /// The topics of the findings for a loader directory with these files, and an image for that machine.
    fn topics(machine: &str, files: &[(&str, Vec<u8>)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let text = include_str!("../../rackstrap.example.toml");
        let (mut site, _) = rackstrap_site::parse(text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        site.server.loader_dirs = vec![dir.path().to_owned()];
        let mut manifest = Manifest::bare("debian@1".parse().unwrap());
        manifest.arch = machine.to_owned();
        let images = Catalog::new([ImageVersion::new(manifest, dir.path().to_owned())]);
        let loaders = Loaders::load(&site).map(Arc::new);
        let all = of(&site, &images, &loaders);
        assert!(all.iter().all(|finding| !finding.fatal && !finding.help.is_empty()));
        all.into_iter().map(|finding| finding.topic).collect()
    }

    #[test]
    fn each_loader_of_disks_that_is_missing_is_a_warning_and_arm64_only_where_an_image_is_for_it() {
        let bios = "site network loader of disks";
        assert_eq!(topics("x86_64", &[]), [bios, "site x64 UEFI loader of disks"]);
        let all = topics("aarch64", &[]);
        assert_eq!(all[2..], ["site arm64 UEFI loader of disks"], "{all:?}");
        let mut kernel = vec![0; 8192];
        kernel[0x1f1] = 4;
        kernel[0x202..0x208].copy_from_slice(b"HdrS\x07\x02");
        let both = [("ipxe.lkrn", kernel), ("ipxe.efi", vec![1; 1000])];
        assert_eq!(topics("x86_64", &both), [""; 0]);
        let large = [("ipxe.efi", vec![1; 2 << 20])];
        assert_eq!(topics("x86_64", &large), [bios, "site x64 UEFI loader of disks"]);
    }
}
