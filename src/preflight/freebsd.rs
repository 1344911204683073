//! Profiles whose image is FreeBSD: what such nodes cannot have.

use super::{Finding, Reach, finding};
use rackstrap_catalog::{Catalog, ImageVersion};
use rackstrap_model::{decide::freebsd_problem, inventory::Settings};
use rackstrap_site::Site;
use std::{collections::BTreeMap, sync::Arc};

/// One finding for each reason, with the profiles that it concerns.
pub(super) fn of_profiles(site: &Site, images: &Catalog) -> Vec<Finding> {
    let mut subnets: BTreeMap<String, Finding> = BTreeMap::new();
    let mut all = Vec::new();
    for profile in site.profiles.keys() {
        let settings = Settings::of(site, std::slice::from_ref(profile), |_| ());
        let Some(version) = settings.text(|p| &p.image).and_then(|name| version_of(images, name)) else {
            continue;
        };
        for subnet in &site.subnets {
            if let Some(problem) = freebsd_problem(site, subnet, version) {
                // Nodes of that profile may all be in another subnet, so this is a warning only.
                let help = "nodes with FreeBSD in that subnet cannot boot".to_owned();
                subnets
                    .entry(problem.clone())
                    .or_insert_with(|| finding(false, &format!("freebsd {problem}"), problem, help));
            }
        }
        all.extend(refused(profile, &settings, version));
        all.extend(ignored(profile, &settings, version, site));
    }
    all.extend(subnets.into_values());
    all
}

fn version_of<'a>(images: &'a Catalog, name: &str) -> Option<&'a Arc<ImageVersion>> {
    let found = match name.parse() {
        Ok(pinned) => images.get(&pinned),
        Err(_) => images.newest(name),
    };
    found.filter(|version| version.is_freebsd())
}

/// Features of the agent on which people rely: FreeBSD has no agent.
fn refused(profile: &str, settings: &Settings<'_>, version: &ImageVersion) -> Option<Finding> {
    let layout = settings.text(|p| &p.layout).filter(|layout| !layout.is_empty());
    let checks = settings.get(|p| p.checks.as_ref()).filter(|checks| !checks.is_empty());
    let mut what = Vec::new();
    let mut help = Vec::new();
    if let Some(layout) = layout {
        what.push(format!("the disk layout {layout}"));
        help.push("layout = \"\"");
    }
    if checks.is_some() {
        what.push("health checks".to_owned());
        help.push("checks = []");
    }
    if what.is_empty() {
        return None;
    }
    let image = &version.manifest.image;
    let message = format!(
        "profile {profile} has {}; FreeBSD images take none: {image} is FreeBSD and has no agent",
        what.join(" and ")
    );
    let help = format!("write {} in [profile.{profile}]", help.join(" and "));
    let found = finding(true, &format!("freebsd {profile}"), message, help);
    Some(found.about(Reach::Profiles(vec![profile.to_owned()])))
}

/// Settings that have no effect. They are often those of `[profile.default]`, for nodes with Linux.
fn ignored(profile: &str, settings: &Settings<'_>, version: &ImageVersion, site: &Site) -> Option<Finding> {
    let mut keys = Vec::new();
    // The base tree is there for every node.
    if settings
        .get(|p| p.templates.as_ref())
        .is_some_and(|named| !named.is_empty())
    {
        keys.push("templates");
    }
    for (key, value) in [
        ("kernel-args", settings.text(|p| &p.kernel_args)),
        ("console", settings.text(|p| &p.console)),
        ("init", settings.text(|p| &p.init)),
        ("ram-size", settings.text(|p| &p.ram_size)),
        ("firmware", settings.text(|p| &p.firmware)),
    ] {
        if value.is_some_and(|value| !value.is_empty()) {
            keys.push(key);
        }
    }
    if settings
        .get(|p| p.authorized_keys.as_ref())
        .is_some_and(|keys| !keys.is_empty())
    {
        keys.push("authorized-keys");
    }
    let own = [profile.to_owned()];
    if !site.required_mounts(&own).is_empty() {
        keys.push("[[mount]] with required = true");
    }
    if site.networks.iter().any(|network| network.applies_to(&own)) {
        keys.push("[[network]]");
    }
    if keys.is_empty() {
        return None;
    }
    let image = &version.manifest.image;
    let message = format!(
        "profile {profile}: {} have no effect on nodes with {image}, which is FreeBSD",
        keys.join(", ")
    );
    let help = "write these settings into the image: /boot/loader.conf, and /conf/base for files of nodes (diskless(8) of FreeBSD)".to_owned();
    Some(finding(false, &format!("freebsd settings {profile}"), message, help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_catalog::{Manifest, System};
    use std::path::{Path, PathBuf};

    fn found(more: &str) -> Vec<String> {
        let least = "[cluster]\nnode-name = \"n{n:02}\"\nnode-address = \"10.5.1.{n}\"\nreserved = [\"10.5.1.250\"]\n\
                     [[subnet]]\nnetwork = \"10.5.1.0/24\"\ninterface = \"eth1\"\nserver = \"10.5.1.250\"\n";
        let (site, _) =
            rackstrap_site::parse(&format!("{least}{more}"), Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        let version = |image: &str, system| {
            let manifest = Manifest {
                system,
                ..Manifest::bare(image.parse().unwrap())
            };
            ImageVersion::new(manifest, PathBuf::from("/images"))
        };
        let images = Catalog::new([
            version("debian@1", System::Linux),
            version("freebsd@2", System::FreeBsd),
        ]);
        let all = of_profiles(&site, &images);
        let shown = all.iter().map(|finding| {
            let level = if finding.fatal { "error" } else { "warning" };
            format!("{level}: {}\n  {}", finding.message, finding.help)
        });
        shown.collect()
    }

    const LAYOUT: &str = "[layout.scratch]\nversion = 1\ntable = \"gpt\"\n\
        partition = [{ name = \"scratch\", size = \"rest\", fs = \"ext4\", mount = \"/scratch\" }]\n";

    #[test]
    fn a_disk_layout_and_checks_are_refused_by_profile() {
        let profiles = format!(
            "{LAYOUT}[profile.default]\nimage = \"debian\"\nlayout = \"scratch\"\n[profile.gpu]\nimage = \"freebsd\"\n\
             checks = [\"mount /scratch\"]\n"
        );
        let found = found(&profiles);
        assert_eq!(
            found,
            [
                "error: profile gpu has the disk layout scratch and health checks; FreeBSD images take none: freebsd@2 is FreeBSD and has no \
              agent\n  write layout = \"\" and checks = [] in [profile.gpu]"
            ]
        );
    }

    #[test]
    fn settings_without_effect_are_named_and_linux_has_none() {
        let found = found(
            "[profile.default]\nimage = \"debian\"\nconsole = \"ttyS0\"\n[profile.bsd]\nimage = \"freebsd@2\"\nkernel-args = \"quiet\"\n\
             [[network]]\nname = \"ib\"\ntype = \"ethernet\"\nmatch = { driver = \"igb\" }\n\
             node-address = \"10.6.1.{n}\"\nprefix = 16\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(
                "warning: profile bsd: kernel-args, console, [[network]] have no effect on nodes with freebsd@2"
            ),
            "{found:?}"
        );
    }
}
