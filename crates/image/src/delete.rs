//! Deletes versions, and renames images.

use super::{
    Catalog,
    error::{Doing, ImportError, Result},
    import::{check_name, check_root},
    leftovers::{Discarded, leftovers, remove_if_there, remove_leftovers},
    load_catalog,
    locks::{held, open_dir, try_lock},
    progress::{Progress, Step},
    versions::{Images, write_new},
    work::{WORK, working_copies},
};
use rackstrap_base::arch::Architecture;
use rackstrap_catalog::export_name;
use rackstrap_wire::ImageRef;
use rustix::fs::{self as rfs, RenameFlags};
use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// Deletes versions, all or none. First they are hidden. Then `still_free` tells the daemon that they are gone, and checks that no
/// node took one of them meanwhile; if it fails, all come back. Then their space is freed.
///
/// # Errors
/// Missing rights, versions that do not exist or are being read, `still_free`, and system calls.
pub fn delete_versions(
    images_dir: &Path,
    wanted: &[ImageRef],
    still_free: &mut dyn FnMut() -> std::result::Result<(), String>,
    progress: &mut dyn Progress,
) -> Result<()> {
    check_root("deleting images")?;
    let images = Images::open(images_dir)?;
    let mut gone: Vec<Discarded> = Vec::new();
    let taken: Result<()> = {
        let _lock = images.lock()?;
        wanted.iter().try_for_each(|image| {
            let number = image.version.to_string();
            if !images_dir.join(&image.name).join(&number).is_dir() {
                return Err(ImportError::Request(format!(
                    "{image} does not exist; see: rackstrap image list"
                )));
            }
            images.remember(&image.name, image.version)?;
            gone.push(Discarded::take(
                Images::open(images_dir)?,
                &image.name,
                &number,
                &image.to_string(),
            )?);
            progress.reached("discarded");
            Ok(())
        })
    };
    let free = taken.and_then(|()| still_free().map_err(ImportError::Request));
    if let Err(error) = free {
        for discarded in gone {
            discarded.put_back()?;
        }
        return Err(error);
    }
    for discarded in gone {
        discarded.remove(progress)?;
    }
    Ok(())
}

/// Deletes the variant of a version for `architecture`, and leaves the others. `still_free` is as in [`delete_versions`].
///
/// # Errors
/// Missing rights, a version or variant that does not exist or is being read, the variant with which the version was made, `still_free`, and
/// system calls.
pub fn delete_variant(
    images_dir: &Path,
    image: &ImageRef,
    architecture: Architecture,
    still_free: &mut dyn FnMut() -> std::result::Result<(), String>,
    progress: &mut dyn Progress,
) -> Result<()> {
    check_root("deleting a variant of an image")?;
    let images = Images::open(images_dir)?;
    let discarded = {
        let _lock = images.lock()?;
        let variant = variant_to_delete(images_dir, image, architecture)?;
        let version = image.version.to_string();
        let what = export_name(image, &variant);
        Discarded::take_variant(Images::open(images_dir)?, &image.name, &version, &variant, &what)?
    };
    progress.reached("discarded");
    if let Err(why) = still_free() {
        discarded.put_back()?;
        return Err(ImportError::Request(why));
    }
    discarded.remove(progress)
}

/// The name of the variant of `image` for `architecture`, which can be deleted alone.
///
/// # Errors
/// The version has no variant for that architecture, or was made with that variant.
pub fn variant_to_delete(images_dir: &Path, image: &ImageRef, architecture: Architecture) -> Result<String> {
    let refuse = |why: String| Err(ImportError::Request(why));
    let (catalog, _) = load_catalog(images_dir);
    let Some(version) = catalog.get(image) else {
        return refuse(format!("{image} does not exist; see: rackstrap image list"));
    };
    let found = version
        .variants()
        .find(|variant| variant.architecture() == Some(architecture));
    match found {
        None => refuse(format!(
            "{image} has no variant for {architecture}; it has {}",
            version.architectures()
        )),
        Some(first) if first.variant.is_empty() => refuse(format!(
            "{image} was made with its tree for {architecture}, which cannot be deleted without the version\nhelp: `rackstrap image delete \
             {image}` deletes the version with all its variants"
        )),
        Some(further) => Ok(further.variant.clone()),
    }
}

/// The decision of garbage collection about a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Delete it.
    Delete,
    /// Keep it, for this reason.
    Keep(String),
}

/// Decides which versions to delete: all except the newest `keep` of each image and those with a reason from `holder`.
pub fn gc_plan(
    catalog: &Catalog,
    keep: usize,
    holder: &dyn Fn(&ImageRef) -> Option<String>,
) -> Vec<(ImageRef, Verdict)> {
    let mut plan = Vec::new();
    for version in catalog.iter() {
        let image = &version.manifest.image;
        let newer = catalog.iter().map(|other| &other.manifest.image);
        let newer = newer
            .filter(|other| other.name == image.name && other.version > image.version)
            .count();
        let verdict = match holder(image) {
            Some(who) => Verdict::Keep(who),
            None if newer < keep => Verdict::Keep(format!("one of the newest {keep}")),
            None => Verdict::Delete,
        };
        plan.push((image.clone(), verdict));
    }
    plan
}

/// Removes what interrupted processes left behind; with `dry_run` it only returns the paths.
///
/// # Errors
/// Missing rights, and system calls.
pub fn collect_leftovers(images_dir: &Path, dry_run: bool, progress: &mut dyn Progress) -> Result<Vec<PathBuf>> {
    if !images_dir.is_dir() {
        return Ok(Vec::new());
    }
    check_root("cleaning up images")?;
    let images = Images::open(images_dir)?;
    let _lock = images.lock()?;
    let found = leftovers(images_dir)?;
    if !dry_run && !found.is_empty() {
        progress.begin(Step::Remove, None);
        remove_leftovers(images_dir, &mut |_, files| progress.advance(files, 0))?;
        for holder in found.iter().filter_map(|path| path.parent()?.file_name()?.to_str()) {
            images.tidy(holder);
        }
    }
    Ok(found)
}

/// Renames an image with all its versions.
///
/// Manifests with the new name are written next to the old ones. Then the image's directory is renamed, and then the new manifests
/// replace the old ones. [`load_catalog`] uses the manifest whose name matches the directory. `before` is called after all checks,
/// when no other process can take the name, and may refuse.
///
/// # Errors
/// Missing rights, invalid names, working copies of the image, versions that are being read, `before`, and system calls.
pub fn rename_image(
    images_dir: &Path,
    old: &str,
    new: &str,
    before: &mut dyn FnMut() -> std::result::Result<(), String>,
    progress: &mut dyn Progress,
) -> Result<()> {
    check_root("renaming an image")?;
    check_name(new)?;
    let refuse = |why: String| Err(ImportError::Request(why));
    let images = Images::open(images_dir)?;
    let _lock = images.lock()?;
    let (catalog, problems) = load_catalog(images_dir);
    if let Some(problem) = problems
        .iter()
        .find(|problem| problem.path.starts_with(images_dir.join(old)))
    {
        return refuse(format!("{old} cannot be renamed: {problem}"));
    }
    let mut versions = catalog
        .iter()
        .filter(|version| version.manifest.image.name == old)
        .peekable();
    if versions.peek().is_none() {
        return refuse(format!("image {old} does not exist; see: rackstrap image list"));
    }
    for taken in [images_dir.join(new), images_dir.join(WORK).join(new)] {
        if rfs::lstat(&taken).is_ok() {
            return refuse(format!("the name {new} is taken: {} exists", taken.display()));
        }
    }
    if let Some(copy) = working_copies(images_dir)
        .0
        .iter()
        .find(|copy| copy.info.parent.name == old)
    {
        return refuse(format!(
            "{} is a working copy of {}; seal or delete it first",
            copy.name, copy.info.parent
        ));
    }
    let mut locked = Vec::new();
    for version in versions.flat_map(|version| version.variants()) {
        let dir = open_dir(&version.dir).doing(|| format!("opening {}", version.dir.display()))?;
        let dir = try_lock(dir, false, &version.dir)?
            .map_err(|pids| held(&format!("{} is being read", version.manifest.image), &pids))?;
        let mut manifest = version.manifest.clone();
        manifest.image.name = new.to_owned();
        if let Some(parent) = manifest.parent.as_mut().filter(|parent| parent.name == old) {
            parent.name = new.to_owned();
        }
        let text = toml::to_string(&manifest)
            .map_err(|e| ImportError::Request(format!("a manifest cannot be written as TOML: {e}")))?;
        let doing = || format!("writing a manifest into {}", version.dir.display());
        write_new(dir.as_fd(), c"manifest.toml.new", text.as_bytes()).doing(doing)?;
        rfs::fsync(dir.as_fd()).doing(doing)?;
        locked.push(dir);
    }
    progress.reached("manifests");
    if let Err(why) = before() {
        for dir in &locked {
            remove_if_there(dir, "manifest.toml.new")?;
        }
        return refuse(why);
    }
    let doing = || format!("renaming {old} to {new}");
    let all = open_dir(images_dir).doing(doing)?;
    rfs::renameat_with(&all, old, &all, new, RenameFlags::NOREPLACE).doing(doing)?;
    rfs::fsync(&all).doing(doing)?;
    for dir in &locked {
        progress.reached("renamed");
        rfs::renameat(dir.as_fd(), c"manifest.toml.new", dir.as_fd(), c"manifest.toml").doing(doing)?;
        rfs::fsync(dir.as_fd()).doing(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
