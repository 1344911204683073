//! Images that lack the program for a file system of their nodes' layout.

use super::{Finding, Reach, finding};
use rackstrap_catalog::{Catalog, ImageVersion};
use rackstrap_image::RootDir;
use rackstrap_model::inventory::Settings;
use rackstrap_site::Site;
use rackstrap_wire::FileSystem;
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Who needs a program that an image lacks.
#[derive(Default)]
struct Lacking {
    profiles: Vec<String>,
    /// `data of layout scratch`
    partitions: Vec<String>,
}

/// One finding for each image and program, with the profiles. Only for file systems for which an import does not name it: every distribution
/// has the other programs.
pub(super) fn of_profiles(site: &Site, images: &Catalog) -> Vec<Finding> {
    let mut lacking: BTreeMap<(String, &str, &str), Lacking> = BTreeMap::new();
    for profile in site.profiles.keys() {
        let settings = Settings::of(site, std::slice::from_ref(profile), |_| ());
        let Some(version) = settings.text(|p| &p.image).and_then(|name| version_of(name, images)) else {
            continue;
        };
        let layouts = site.layouts_of(settings.text(|p| &p.layout).unwrap_or_default());
        let partitions = layouts.flat_map(|policy| policy.layout.partitions.iter().map(|p| (&policy.layout.name, p)));
        let wanted = partitions.filter(|(_, partition)| matches!(partition.fs, FileSystem::Btrfs | FileSystem::Vfat));
        for (layout, partition) in wanted {
            let Some((program, package)) = partition.fs.maker() else {
                continue;
            };
            if !version.is_freebsd() && has(version, program) == Some(false) {
                let key = (version.manifest.image.to_string(), program, package);
                let Lacking { profiles, partitions } = lacking.entry(key).or_default();
                if !profiles.contains(profile) {
                    profiles.push(profile.clone());
                }
                let name = format!("{} of layout {layout}", partition.name);
                if !partitions.contains(&name) {
                    partitions.push(name);
                }
            }
        }
    }
    let all = lacking
        .into_iter()
        .map(|((image, program, package), Lacking { profiles, partitions })| {
            let message = format!(
                "image {image} has no {program} for the partition {}; nodes that have to make it do not prepare their disk",
                partitions.join(", ")
            );
            let name = image.split('@').next().unwrap_or_default();
            let help = format!(
                "install {package} (Debian's name) in a new version: rackstrap image clone {image}, rackstrap image shell, rackstrap image seal; or \
                 choose another fs"
            );
            finding(false, &format!("program {program} of {name}"), message, help).about(Reach::Profiles(profiles))
        });
    all.collect()
}

fn version_of<'a>(name: &str, images: &'a Catalog) -> Option<&'a Arc<ImageVersion>> {
    match name.parse() {
        Ok(pinned) => images.get(&pinned),
        Err(_) => images.newest(name),
    }
}

/// Whether the version's tree has the program; none if the tree cannot be read.
fn has(version: &ImageVersion, program: &str) -> Option<bool> {
    let tree = RootDir::open(&version.dir.join("root")).ok()?;
    let has = |dir: &&str| tree.exists(Path::new(dir).join(program));
    Some(["usr/sbin", "sbin", "usr/bin", "bin"].iter().any(has))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_catalog::Manifest;
    use std::fs;

    #[test]
    fn an_image_without_the_program_for_a_file_system_is_named_with_its_package() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/usr/sbin")).unwrap();
        let images = Catalog::new([ImageVersion::new(
            Manifest::bare("debian@1".parse().unwrap()),
            dir.path().to_owned(),
        )]);
        let text = "[cluster]\nnode-name = \"n{n:02}\"\nnode-address = \"10.5.1.{n}\"\nreserved = [\"10.5.1.250\"]\n\
                    [[subnet]]\nnetwork = \"10.5.1.0/24\"\ninterface = \"eth1\"\nserver = \"10.5.1.250\"\n\
                    [layout.s]\nversion = 1\ndisk = \"vdb\"\n[[layout.s.partition]]\nname = \"data\"\nsize = \"rest\"\nfs = \"btrfs\"\nmount = \"/data\"\n\
                    [layout.first]\nversion = 1\n[[layout.first.partition]]\nname = \"tmp\"\nsize = \"rest\"\nfs = \"ext4\"\nmount = \"/tmp\"\n\
                    [profile.default]\nimage = \"debian\"\nlayout = [\"first\", \"s\"]\n";
        let (site, _) = rackstrap_site::parse(text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        let all = of_profiles(&site, &images);
        let [found] = &all[..] else { panic!("{all:?}") };
        assert!(
            !found.fatal
                && found
                    .message
                    .contains("image debian@1 has no mkfs.btrfs for the partition data of layout s")
        );
        assert!(found.help.contains("install btrfs-progs"), "{}", found.help);
        fs::write(dir.path().join("root/usr/sbin/mkfs.btrfs"), "").unwrap();
        assert_eq!(of_profiles(&site, &images), []);
    }
}
