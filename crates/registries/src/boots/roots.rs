//! Which versions and variants nodes run from or boot into.

use super::registry::Boots;
use rackstrap_wire::ImageRef;
use std::collections::{BTreeMap, BTreeSet};

impl Boots {
    /// Whether `image` is that of the running system of `node`, or of a later boot.
    pub fn uses(&self, node: &str, image: &ImageRef) -> bool {
        let state = self.read();
        state.live(node).any(|boot| boot.image() == image)
    }

    /// Whether `node` may mount that variant of `image` as its root: it is that of its running system or of a later boot.
    pub fn may_mount(&self, node: &str, image: &ImageRef, variant: &str) -> bool {
        let state = self.read();
        state
            .live(node)
            .any(|boot| boot.image() == image && boot.plan.variant == variant)
    }

    /// The variants of images that nodes run from or boot into, with those nodes. A variant's name is that of a plan.
    pub fn variants_in_use(&self) -> BTreeMap<(ImageRef, String), BTreeSet<String>> {
        let state = self.read();
        let mut all: BTreeMap<(ImageRef, String), BTreeSet<String>> = BTreeMap::new();
        for node in state.by_node.keys() {
            for boot in state.live(node) {
                let key = (boot.image().clone(), boot.plan.variant.clone());
                all.entry(key).or_default().insert(node.clone());
            }
        }
        all
    }

    /// Images that nodes run from or boot into. These cannot be deleted.
    pub fn images_in_use(&self) -> BTreeSet<ImageRef> {
        let state = self.read();
        let nodes = state.by_node.keys();
        nodes
            .flat_map(|node| state.live(node).map(|boot| boot.image().clone()))
            .collect()
    }
}
