//! Nodes with several layouts, each of which has a disk of its own.

use crate::inventory::Settings;
use rackstrap_catalog::{ImageVersion, seal_commands};

/// Why the image cannot boot on a node with these settings; none if it can. An agent that knows the first layout only could prepare the disk of
/// another one.
pub(super) fn problem(settings: &Settings<'_>, version: &ImageVersion) -> Option<String> {
    let several = settings.text(|p| &p.layout)?.split_ascii_whitespace().count() > 1;
    let image = &version.manifest.image;
    (several && !version.is_freebsd() && !version.has_several_layouts()).then(|| {
        format!(
            "image {image} has the agent of an older release, which knows one layout only, and the node has several; seal it again: {}",
            seal_commands(image)
        )
    })
}
