//! Every template tried before a node needs it.

use super::{facts, mounts, render::render, tree::Templates};
use crate::{
    config::{Diagnostic, Site},
    inventory::Settings,
};
use rackstrap_image::{Catalog, ImageVersion, RootDir};
use rackstrap_wire::ImageRef;
use std::sync::Arc;

/// What is wrong with the trees: each profile's trees in their order, and then those that no profile names, are rendered for
/// a node that the site could have. A mistake behind a condition that does not hold for it is not found.
pub fn check(site: &Site, templates: &Templates) -> Vec<Diagnostic> {
    let mut problems: Vec<Diagnostic> = Vec::new();
    let mut named: Vec<String> = Vec::new();
    let mut tried = |profile: &str, tree: &str| {
        let profiles = [profile.to_owned()];
        let (mounts, _) = mounts::of_node(site, &profiles);
        let facts = facts::example(site, profile, mounts);
        if let Err(mut problem) = render(templates, &[tree.to_owned()], &facts, Vec::new())
            && !problems.iter().any(|known| known.brief().starts_with(&problem.brief()))
        {
            if problem.line == 0 {
                problem.message = format!("{}, which [profile.{profile}] names", problem.message);
            }
            problems.push(*problem);
        }
    };
    for profile in site.profiles.keys() {
        // Tree by tree, so that all their problems are found.
        for tree in Settings::of(site, std::slice::from_ref(profile), |_| ()).templates() {
            tried(profile, &tree);
            named.push(tree);
        }
    }
    for tree in templates
        .names()
        .filter(|name| !named.iter().any(|known| known == name))
    {
        tried("default", tree);
    }
    problems
}

/// The images that profiles boot (their newest versions, unless pinned) and that enforce SELinux, which nodes cannot.
pub fn enforcing_selinux(site: &Site, images: &Catalog) -> Vec<ImageRef> {
    let profiles = site.profiles.keys();
    let versions = profiles.filter_map(|profile| image_of(site, images, std::slice::from_ref(profile)));
    let mut found: Vec<ImageRef> = versions
        .filter(|version| version.enforces_selinux())
        .map(|version| version.manifest.image.clone())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn image_of<'a>(site: &Site, images: &'a Catalog, profiles: &[String]) -> Option<&'a Arc<ImageVersion>> {
    let settings = Settings::of(site, profiles, |_| ());
    let named = settings.text(|p| &p.image).unwrap_or_default();
    match named.parse() {
        Ok(pinned) => images.get(&pinned),
        Err(_) => images.newest(named),
    }
}

/// What images lack for the mounts of the profiles that boot them.
pub fn lacking(site: &Site, images: &Catalog) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for profile in site.profiles.keys() {
        let profiles = std::slice::from_ref(profile);
        let Some(image) = image_of(site, images, profiles) else {
            continue;
        };
        let Ok(root) = RootDir::open(&image.dir.join("root")) else {
            continue;
        };
        let (mounts, _) = mounts::of_node(site, profiles);
        for lack in mounts::lacking(&mounts, &image.manifest.image.to_string(), |path| root.exists(path)) {
            if !all.contains(&lack) {
                all.push(lack);
            }
        }
    }
    all
}
