//! Profiles whose nodes have no image to boot.

use super::{Finding, Reach, finding};
use rackstrap_base::words::closest;
use rackstrap_catalog::{Catalog, import_command};
use rackstrap_model::inventory::Settings;
use rackstrap_site::Site;
use rackstrap_wire::ImageRef;
use std::collections::BTreeMap;

/// One finding for each missing image, with the profiles that use it: their nodes cannot boot.
pub(super) fn of_profiles(site: &Site, images: &Catalog) -> Vec<Finding> {
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut named = false;
    for profile in site.profiles.keys() {
        let settings = Settings::of(site, std::slice::from_ref(profile), |_| ());
        // A profile without an image, its own or the default one's, exists for its other settings.
        let Some(name) = settings.text(|p| &p.image) else {
            continue;
        };
        named = true;
        if !is_there(name, images) {
            let profiles = missing.entry(name.to_owned()).or_default();
            profiles.push(profile.clone());
        }
    }
    let mut all: Vec<Finding> = missing
        .iter()
        .map(|(name, profiles)| {
            let named: Vec<String> = profiles.iter().map(|profile| format!("[profile.{profile}]")).collect();
            let message = format!(
                "image {name} does not exist; nodes with {} cannot boot",
                named.join(", ")
            );
            finding(true, &format!("image {name}"), message, remedy(name, images))
                .about(Reach::Profiles(profiles.clone()))
        })
        .collect();
    if !named {
        let message = "no profile names an image; no node can boot".to_owned();
        let help = "write image = \"NAME\" in [profile.default]; images: rackstrap image list".to_owned();
        all.push(finding(true, "image", message, help));
    }
    all
}

/// Whether an image of that name, or that version, exists.
pub(super) fn is_there(name: &str, images: &Catalog) -> bool {
    match name.parse() {
        Ok(pinned) => images.get(&pinned).is_some(),
        Err(_) => images.newest(name).is_some(),
    }
}

/// How nodes get an image if `wanted` (a name or a pinned version) is missing.
pub(super) fn remedy(wanted: &str, images: &Catalog) -> String {
    if let Ok(ImageRef { name, .. }) = wanted.parse() {
        // An import gets the next number, which need not be the pinned one.
        return match images.newest(&name) {
            Some(newest) => format!(
                "write image = \"{name}\" for its current version, or \"{}\"; all versions: rackstrap image list {name}",
                newest.manifest.image
            ),
            None => format!(
                "write image = \"{name}\" in the site file, and make it: {}",
                import_command(&name)
            ),
        };
    }
    let make = format!(
        "make it: {}; --from also takes a recipe of yours, a directory, a tar archive or a container image",
        import_command(wanted)
    );
    let there: Vec<&str> = images
        .iter()
        .map(|version| version.manifest.image.name.as_str())
        .collect();
    match closest(wanted, there) {
        Some(near) => format!("did you mean image = \"{near}\"? else {make}"),
        None => make,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_catalog::{ImageVersion, Manifest};
    use std::path::{Path, PathBuf};

    fn catalog(images: &[&str]) -> Catalog {
        let versions = images.iter().map(|image| Manifest::bare(image.parse().unwrap()));
        Catalog::new(versions.map(|manifest| ImageVersion::new(manifest, PathBuf::from("/images"))))
    }

    fn parsed(profiles: &str) -> Site {
        let least = "[cluster]\nnode-name = \"n{n:02}\"\nnode-address = \"10.5.1.{n}\"\nreserved = [\"10.5.1.250\"]\n\
                     [[subnet]]\nnetwork = \"10.5.1.0/24\"\ninterface = \"eth1\"\nserver = \"10.5.1.250\"\n";
        rackstrap_site::parse(&format!("{least}{profiles}"), Path::new("/site.toml"))
            .unwrap()
            .0
    }

    #[test]
    fn an_image_that_one_profile_lacks_stops_that_profile_and_not_the_site() {
        let stops = |profiles: &str, images: &[&str]| {
            let site = parsed(profiles);
            super::super::stops_all(&of_profiles(&site, &catalog(images)), &site)
        };
        let two = "[profile.default]\nimage = \"debian\"\n[profile.gpu]\nimage = \"cuda\"\n[profile.big]\n";
        assert!(!stops(two, &["debian@1", "cuda@1"]));
        assert!(!stops(two, &["debian@1"]));
        assert!(!stops(two, &["cuda@1"]));
        assert!(stops(two, &[]));
        assert!(stops("[profile.default]\n", &["debian@1"]), "no profile names an image");
        // A profile without an image has no nodes that boot.
        assert!(stops("[profile.gpu]\nimage = \"cuda\"\n[profile.big]\n", &["debian@1"]));
    }

    fn found(profiles: &str, images: &[&str]) -> Vec<String> {
        let site = parsed(profiles);
        let all = of_profiles(&site, &catalog(images));
        assert!(all.iter().all(|finding| finding.fatal), "{all:?}");
        let shown = all
            .iter()
            .map(|finding| format!("{}\n  {}", finding.message, finding.help));
        shown.collect()
    }

    const ALSO: &str = "--from also takes a recipe of yours, a directory, a tar archive or a container image";

    #[test]
    fn an_image_is_named_once_with_its_profiles_and_a_command_that_can_be_typed() {
        let profiles = "[profile.default]\nimage = \"debian\"\n[profile.gpu]\n[profile.login]\nimage = \"rocky\"\n";
        let rocky = format!(
            "image rocky does not exist; nodes with [profile.login] cannot boot\n  make it: rackstrap image import rocky --from \
             images/rocky.toml; {ALSO}"
        );
        let debian = format!(
            "image debian does not exist; nodes with [profile.default], [profile.gpu] cannot boot\n  make it: rackstrap image import \
             debian --from images/debian.toml; {ALSO}"
        );
        assert_eq!(found(profiles, &[]), [debian, rocky.clone()]);
        // It is an error although other nodes can boot.
        assert_eq!(found(profiles, &["debian@1"]), [rocky]);
        assert!(found(profiles, &["debian@1", "rocky@2"]).is_empty());
    }

    #[test]
    fn a_pinned_version_is_not_promised_by_an_import() {
        let missing =
            "image debian@3 does not exist; nodes with [profile.default] cannot boot\n  write image = \"debian\"";
        let pinned = "[profile.default]\nimage = \"debian@3\"\n";
        let make = "rackstrap image import debian --from images/debian.toml";
        assert_eq!(
            found(pinned, &[]),
            [format!("{missing} in the site file, and make it: {make}")]
        );
        let others = "or \"debian@2\"; all versions: rackstrap image list debian";
        assert_eq!(
            found(pinned, &["debian@1", "debian@2"]),
            [format!("{missing} for its current version, {others}")]
        );
    }

    #[test]
    fn a_misspelt_image_and_a_site_without_an_image_are_found() {
        let near = found("[profile.default]\nimage = \"debain\"\n", &["debian@1"]);
        assert!(
            near[0].contains("\n  did you mean image = \"debian\"? else make it: "),
            "{near:?}"
        );
        let none = "no profile names an image; no node can boot\n  write image = \"NAME\" in [profile.default]; images: rackstrap \
                    image list";
        assert_eq!(found("", &[]), [none]);
    }
}
