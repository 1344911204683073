//! Which version of each image is current, and what happens to that when an image is renamed.

use crate::connection;
use anyhow::{Context, Result};
use rackstrap_catalog::Catalog;
use rackstrap_control::{
    ClientError,
    api::{CurrentVersion, Done, RenameImage, paths},
};
use rackstrap_model::decide::{RenameStep, Renaming};
use rackstrap_registries::rollout::{rename_stored, stored};
use rackstrap_site::Site;
use rackstrap_store::Store;
use rackstrap_wire::ImageRef;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Current versions by image name, from the daemon, or from its store while none runs.
pub(super) fn current(config: &Path, site: &Site) -> Result<BTreeMap<String, ImageRef>> {
    let rows: Vec<CurrentVersion> = match connection::connect(config)?.get(paths::IMAGES_CURRENT) {
        Ok(rows) => rows,
        Err(ClientError::NoDaemon(_)) => match path(site) {
            Some(path) => of_store(&path).context("reading which versions are current")?,
            None => Vec::new(),
        },
        Err(error) => return Err(error.into()),
    };
    Ok(rows
        .into_iter()
        .map(|row| (row.image.name.clone(), row.image))
        .collect())
}

/// Current versions in the store at `path`. A copy of the store is opened, so that listing images does not block a daemon
/// that starts.
fn of_store(path: &Path) -> Result<Vec<CurrentVersion>> {
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join("store.redb");
    std::fs::copy(path, &copy).with_context(|| format!("copying {}", path.display()))?;
    let assignments = stored(&Store::open(&copy)?)?;
    Ok((assignments.current.values().cloned())
        .map(CurrentVersion::from)
        .collect())
}

/// Whether nodes that follow the image get this version. If no version of the image is current yet, the newest one is.
pub(super) fn is_current(current: &BTreeMap<String, ImageRef>, catalog: &Catalog, image: &ImageRef) -> bool {
    let newest = || catalog.newest(&image.name).map(|version| &version.manifest.image);
    current.get(&image.name).or_else(newest) == Some(image)
}

/// Reports the step of a renaming to the daemon, or writes it to the store while none runs.
pub(super) fn renaming(config: &Path, site: &Site, old: &str, new: &str, step: RenameStep) -> Result<()> {
    let renaming = Renaming {
        old: old.to_owned(),
        new: new.to_owned(),
        step,
    };
    match connection::connect(config)?.post::<Done>(paths::IMAGE_RENAME, &RenameImage::from(&renaming)) {
        Ok(_) => Ok(()),
        Err(ClientError::NoDaemon(_)) => match path(site) {
            Some(path) => {
                let store = Store::open(&path).with_context(|| format!("opening {}", path.display()))?;
                Ok(rename_stored(&store, &renaming)?)
            }
            None => Ok(()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The store of a daemon that does not run; none if no daemon ever ran for the cluster.
fn path(site: &Site) -> Option<PathBuf> {
    let path = site.server.state_dir.join("store.redb");
    path.exists().then_some(path)
}
