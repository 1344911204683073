//! Versions that must not be deleted although no node runs them now, with the reasons.

use super::Assignments;
use crate::inventory::Inventory;
use rackstrap_catalog::Catalog;
use rackstrap_hostlist::NodeSet;
use rackstrap_site::Site;
use rackstrap_wire::ImageRef;
use std::collections::{BTreeMap, BTreeSet};

impl Assignments {
    /// What would be lost with each version of `images`, in words.
    pub fn holds(&self, site: &Site, inventory: &Inventory, images: &Catalog) -> BTreeMap<ImageRef, Vec<String>> {
        let mut holds: BTreeMap<ImageRef, Vec<String>> = BTreeMap::new();
        let mut hold = |image: ImageRef, why: String| holds.entry(image).or_default().push(why);
        for (name, profile) in &site.profiles {
            if let Some(Ok(pinned)) = profile.image.as_deref().map(str::parse::<ImageRef>) {
                hold(pinned, format!("profile {name} pins it"));
            }
        }
        let own = inventory
            .iter()
            .filter_map(|node| Some((node, node.settings.set().image.as_deref()?)));
        let own: Vec<_> = own.collect();
        let mut by_nodes: BTreeMap<ImageRef, NodeSet> = BTreeMap::new();
        for (node, pinned) in own.iter().filter_map(|(node, image)| Some((node, image.parse().ok()?))) {
            by_nodes.entry(pinned).or_default().insert(node.name.as_str());
        }
        for (image, nodes) in by_nodes {
            hold(image, format!("the settings of {nodes} pin it"));
        }
        // If neither a profile nor a node names an image, no node boots its current version.
        let named = site.profiles.values().filter_map(|profile| profile.image.as_deref());
        for name in named
            .chain(own.iter().map(|(_, image)| *image))
            .collect::<BTreeSet<&str>>()
        {
            let current = self.current.get(name).map(|current| &current.image);
            let newest = || images.newest(name).map(|version| &version.manifest.image);
            if let Some(image) = current.or_else(newest) {
                hold(image.clone(), format!("it is the current version of {name}"));
            }
        }
        for (name, given) in self.given.iter() {
            let image = ImageRef {
                name: name.clone(),
                version: given.version,
            };
            hold(image, format!("a rollout gives it ({})", given.stage));
        }
        let mut back: BTreeMap<&ImageRef, NodeSet> = BTreeMap::new();
        for (node, trial) in self.trials.iter() {
            back.entry(&trial.last_known_good).or_default().insert(node.as_str());
        }
        for (image, nodes) in back {
            hold(image.clone(), format!("{nodes} would go back to it"));
        }
        holds.retain(|image, _| images.get(image).is_some());
        holds
    }
}
