//! What holds a version: nodes that run it or boot into it, profiles and nodes that pin it, rollouts.

use crate::{connection, output::count};
use anyhow::{Context, Result};
use rackstrap_catalog::Catalog;
use rackstrap_control::{
    ClientError,
    api::{Done, ImageUse, paths},
};
use rackstrap_image::load_catalog;
use rackstrap_model::{decide::Assignments, inventory::Inventory};
use rackstrap_registries::{
    boots::{Boot, Boots},
    rollout::stored,
};
use rackstrap_site::Site;
use rackstrap_store::{Store, Table};
use rackstrap_wire::ImageRef;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A message names at most this many nodes; of the rest it gives the number.
const NAMED: usize = 5;

/// What holds which version.
#[derive(Debug, Default)]
pub(super) struct Uses {
    nodes: BTreeMap<ImageRef, BTreeSet<String>>,
    reasons: BTreeMap<ImageRef, BTreeSet<String>>,
    /// The nodes that run a variant or boot into it.
    variants: BTreeMap<(ImageRef, String), BTreeSet<String>>,
    /// The daemon is of a release that knows no variants in use.
    no_variants: bool,
    /// Whether the daemon answered. Otherwise its store was read, and no node can take a version meanwhile.
    pub daemon: bool,
}

impl Uses {
    /// Asks the daemon, or reads its store if none runs. Also reads the site file, which the daemon may not have read yet.
    pub fn load(config: &Path, site: &Site) -> Result<Self> {
        let mut uses = Uses::default();
        let (catalog, _) = load_catalog(&site.server.state_dir.join("images"));
        match connection::connect(config)?.get::<Vec<ImageUse>>(paths::IMAGES_IN_USE) {
            Ok(all) => {
                uses.daemon = true;
                for one in all {
                    // A boot of a node that was deleted since has neither nodes nor reasons.
                    if !one.nodes.is_empty() || one.reasons.is_empty() {
                        uses.nodes.entry(one.image.clone()).or_default().extend(one.nodes);
                    }
                    uses.no_variants |= one.variants.is_none();
                    for (variant, nodes) in one.variants.unwrap_or_default() {
                        uses.variants.insert((one.image.clone(), variant), nodes);
                    }
                    uses.reasons.entry(one.image).or_default().extend(one.reasons);
                }
            }
            Err(ClientError::NoDaemon(_)) => {
                let (assignments, inventory) = uses.read_store(&site.server.state_dir.join("store.redb"))?;
                uses.hold(&assignments, site, &inventory, &catalog);
            }
            Err(error) => return Err(error.into()),
        }
        // Versions that the site file pins; the daemon may not have read it yet.
        let pinned = site.profiles.iter().filter_map(|(name, profile)| {
            let image: ImageRef = profile.image.as_deref()?.parse().ok()?;
            Some((image, format!("profile {name} pins it")))
        });
        for (image, why) in pinned {
            uses.reasons.entry(image).or_default().insert(why);
        }
        Ok(uses)
    }

    fn hold(&mut self, assignments: &Assignments, site: &Site, inventory: &Inventory, catalog: &Catalog) {
        for (image, reasons) in assignments.holds(site, inventory, catalog) {
            self.reasons.entry(image).or_default().extend(reasons);
        }
    }

    /// Reads the store, which is possible because the daemon does not run. There is none if no daemon ever ran for the
    /// cluster.
    fn read_store(&mut self, path: &Path) -> Result<(Assignments, Inventory)> {
        if !path.exists() {
            return Ok(Default::default());
        }
        let what = || format!("reading which images nodes run, from {}", path.display());
        let store = Store::open(path).with_context(what)?;
        let nodes: Vec<(Vec<u8>, Boot)> = store.scan(Table::Boots, b"").with_context(what)?;
        let nodes: BTreeSet<String> = nodes.into_iter().map(|(_, boot)| boot.plan.node).collect();
        let assignments = stored(&store).with_context(what)?;
        let inventory = Inventory::new(rackstrap_registries::nodes::load(&store).with_context(what)?);
        let boots = Boots::load(store).with_context(what)?;
        for image in boots.images_in_use() {
            let running = nodes.iter().filter(|node| boots.uses(node, &image));
            self.nodes.entry(image.clone()).or_default().extend(running.cloned());
        }
        self.variants = boots.variants_in_use();
        Ok((assignments, inventory))
    }

    /// Which nodes run that variant of the version; none if it can be deleted.
    pub fn holder_of_variant(&self, image: &ImageRef, variant: &str) -> Option<String> {
        if self.no_variants {
            return Some("the daemon is of an older release; restart it (systemctl restart rackstrap)".to_owned());
        }
        let nodes = self.variants.get(&(image.clone(), variant.to_owned()))?;
        Some(running(nodes))
    }

    /// What holds the version; none if it is free.
    pub fn holder(&self, image: &ImageRef) -> Option<String> {
        let mut who = Vec::new();
        if let Some(nodes) = self.nodes.get(image) {
            who.push(running(nodes));
        }
        who.extend(self.reasons.get(image).into_iter().flatten().cloned());
        (!who.is_empty()).then(|| who.join("; "))
    }

    /// What holds any version of that image.
    pub fn holders_of(&self, name: &str) -> Option<String> {
        let images: BTreeSet<&ImageRef> = self.nodes.keys().chain(self.reasons.keys()).collect();
        images
            .into_iter()
            .filter(|image| image.name == name)
            .find_map(|image| Some(format!("{image}: {}", self.holder(image)?)))
    }
}

/// `r01n01, r01n02 run it or are booting it`
fn running(nodes: &BTreeSet<String>) -> String {
    let named: Vec<&str> = nodes.iter().take(NAMED).map(String::as_str).collect();
    let more = nodes.len().saturating_sub(NAMED);
    match (named.is_empty(), more) {
        // The boot is of a node that was deleted since.
        (true, _) => "a node that is no longer in the inventory runs it".to_owned(),
        (_, 0) => format!("{} run it or are booting it", named.join(", ")),
        (_, more) => format!(
            "{} and {} run it or are booting it",
            named.join(", "),
            count(more, "other node")
        ),
    }
}

/// Reports to the daemon that versions were moved out of sight, and asks whether a node took one of them before that.
pub(super) fn still_free(config: &Path, site: &Site, images: &[ImageRef]) -> Result<(), String> {
    still(config, site, &|uses| {
        images
            .iter()
            .find_map(|image| Some(format!("{image} is in use now: {}", uses.holder(image)?)))
    })
}

/// The same for one variant of a version.
pub(super) fn variant_still_free(config: &Path, site: &Site, image: &ImageRef, variant: &str) -> Result<(), String> {
    still(config, site, &|uses| {
        let holder = uses.holder_of_variant(image, variant)?;
        Some(format!("{image}/{variant} is in use now: {holder}"))
    })
}

fn still(config: &Path, site: &Site, holder: &dyn Fn(&Uses) -> Option<String>) -> Result<(), String> {
    let ask = || -> Result<Option<String>> {
        let client = connection::connect(config)?;
        match client.post::<Done>(paths::RESCAN, &()) {
            Ok(_) => {}
            Err(ClientError::NoDaemon(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        Ok(holder(&Uses::load(config, site)?))
    };
    match ask() {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(why),
        Err(error) => Err(crate::error_line(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_named() {
        let image: ImageRef = "debian@3".parse().unwrap();
        let mut uses = Uses::default();
        assert_eq!(uses.holder(&image), None);
        uses.reasons.entry(image.clone()).or_default();
        assert_eq!(uses.holder(&image), None);
        uses.reasons
            .entry(image.clone())
            .or_default()
            .insert("profile default pins it".into());
        let nodes = uses.nodes.entry(image.clone()).or_default();
        nodes.extend((1..=7).map(|n| format!("n{n}")));
        assert_eq!(
            uses.holder(&image).unwrap(),
            "n1, n2, n3, n4, n5 and 2 other nodes run it or are booting it; profile default pins it"
        );
        assert!(uses.holders_of("debian").unwrap().starts_with("debian@3: n1"));
        assert_eq!(uses.holders_of("debia"), None);
    }
}
