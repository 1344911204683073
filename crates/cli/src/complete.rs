//! Completion in the shell: names of nodes, images, profiles and layouts as they are now.
//!
//! The shell runs `rackstrap` at each press of the key, with `COMPLETE` in its environment. Errors are not shown: without a
//! daemon or a site file, nothing is offered.

use super::connection::connect;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use rackstrap_control::api;
use rackstrap_image::load_catalog;
use rackstrap_site::{Site, own_keys};
use std::path::PathBuf;

/// At most this many names are offered: a terminal cannot show more.
const MOST: usize = 20_000;

/// For an argument that names nodes.
pub fn nodes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(node_names()))
}

fn node_names() -> Vec<String> {
    let client = connect(&site_file()).ok();
    let nodes: Option<Vec<api::NodeRow>> = client.and_then(|client| client.get(api::paths::NODES).ok());
    nodes.unwrap_or_default().into_iter().map(|node| node.name).collect()
}

/// For an argument that names nodes, or settings with their values.
pub fn nodes_and_settings() -> ArgValueCandidates {
    ArgValueCandidates::new(|| with_settings("="))
}

/// For an argument that names nodes, or keys of settings.
pub fn nodes_and_keys() -> ArgValueCandidates {
    ArgValueCandidates::new(|| with_settings(""))
}

/// For an argument that is a setting with its value.
pub fn settings() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(own_keys().map(|key| format!("{key}="))))
}

/// The names of nodes, and the keys of settings with `suffix`.
fn with_settings(suffix: &str) -> Vec<CompletionCandidate> {
    let keys = own_keys().map(|key| format!("{key}{suffix}"));
    candidates(node_names().into_iter().chain(keys))
}

/// For an argument that names a profile of the site file.
pub fn profiles() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(site().into_iter().flat_map(|site| site.profiles.into_keys())))
}

/// For an argument that names a disk layout of the site file.
pub fn layouts() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(site().into_iter().flat_map(|site| site.layouts.into_keys())))
}

/// For an argument that names an image, with or without a version.
pub fn images() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let Some(site) = site() else { return Vec::new() };
        let (catalog, _) = load_catalog(&site.server.state_dir.join("images"));
        let images = catalog.iter().map(|version| &version.manifest.image);
        let mut all: Vec<String> = images
            .flat_map(|image| [image.name.clone(), image.to_string()])
            .collect();
        all.sort();
        all.dedup();
        candidates(all)
    })
}

fn candidates(names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    names.into_iter().take(MOST).map(CompletionCandidate::new).collect()
}

fn site() -> Option<Site> {
    rackstrap_site::load(&site_file()).ok().map(|(site, _)| site)
}

/// The site file of the command line that is being completed.
fn site_file() -> PathBuf {
    let words: Vec<_> = std::env::args_os().collect();
    let after = |at: usize| words.get(at + 1).map(PathBuf::from);
    let named = words.iter().enumerate().find_map(|(at, word)| match word.to_str()? {
        "--config" => after(at),
        word => word.strip_prefix("--config=").map(PathBuf::from),
    });
    named.unwrap_or_else(super::default_config)
}
