//! Seals a working copy as the next version, by a rename without a copy.

use super::{
    agents::Agents,
    error::{Doing, ImportError, Result},
    import::check_root,
    leftovers::remove_if_there,
    locks::{open_dir, try_lock},
    placeholders::remove_placeholders,
    prepare::{Choices, MADE, Origin, full, prepare},
    progress::{Progress, Step},
    tree::{Copied, Remarks, SpaceGuard, flatten},
    versions::{Images, Place, free_variant},
    work::{LockedCopy, PARENT_PACKAGES, WORK, WORK_FILE, lock_copy},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;
use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

/// A request to seal a working copy.
#[derive(Clone, Debug)]
pub struct SealRequest {
    /// `STATE/images`.
    pub images_dir: PathBuf,
    /// The working copy.
    pub work: String,
    /// Name of the image, or version that gets it as a further variant (`debian@4`); none for the name of its parent.
    pub name: Option<String>,
    /// Where the agent's binary is.
    pub agents: Agents,
    /// A remark for people; may be empty.
    pub message: String,
    /// Name of the user who seals it.
    pub by: String,
    /// Release of the kernel to boot; none for the newest one.
    pub kernel: Option<String>,
    /// Names of modules for the initramfs, in addition to those of its parent.
    pub modules: Vec<String>,
    /// The current time.
    pub now: Timestamp,
}

/// Seals a working copy as the next version of an image. After a failure the working copy is unchanged.
///
/// All files of a version besides the tree are made in the working copy's own directory, which one rename then moves to the versions.
/// An interruption leaves either the working copy or the complete version.
///
/// # Errors
/// Invalid names, missing rights, a tree that cannot boot, a process that works in it, missing space, and system calls.
pub fn seal(request: &SealRequest, progress: &mut dyn Progress) -> Result<ImageRef> {
    check_root("sealing an image")?;
    let place = request.name.as_deref().map(Place::parse).transpose()?;
    let held = lock_copy(&request.images_dir, &request.work, false, "cannot seal")?;
    let images = Images::open(&request.images_dir)?;
    let path = &held.copy.dir;
    let dir = open_dir(path).doing(|| format!("opening {}", path.display()))?;
    // Take the lock of a version, so that no process deletes it between the rename and the end of this function.
    let dir =
        try_lock(dir, true, path)?.map_err(|_| ImportError::Request(format!("{} is being deleted", request.work)))?;
    let mut space = SpaceGuard::new(
        dir.as_fd(),
        &request.images_dir,
        needed(&images, &held.copy.info.parent),
    )?;
    // An interrupted seal or shell may have left files.
    clear(dir.as_fd())?;
    remove_placeholders(path)?;
    let mut remarks = Remarks::default();
    flatten(&held.copy.root(), &mut space, &mut remarks, progress).map_err(|e| full(e, &space))?;
    for remark in remarks.into_lines() {
        progress.remark(&remark);
    }
    progress.reached("begun");
    let place = place.unwrap_or_else(|| Place::Next(held.copy.info.parent.name.clone()));
    let sealed = seal_held(request, &held, &images, &place, dir.as_fd(), progress);
    let image = sealed.map_err(|e| {
        if let Err(left) = clear(dir.as_fd()) {
            tracing::warn!(dir = %path.display(), error = %left, "files of the failed seal could not be removed");
        }
        if let Ok(_lock) = images.lock() {
            images.tidy(place.name());
        }
        full(e, &space)
    })?;
    // These files are no longer used. A crash may leave them behind, which does no harm.
    for file in [WORK_FILE, PARENT_PACKAGES] {
        remove_if_there(&dir, file)?;
    }
    if let Ok(_lock) = images.lock() {
        images.tidy(WORK);
    }
    drop(held.lock);
    Ok(image)
}

/// Bytes that sealing will write, estimated from its parent.
fn needed(images: &Images, parent: &ImageRef) -> Option<u64> {
    let dir = images.path().join(&parent.name).join(parent.version.to_string());
    let sizes = MADE
        .iter()
        .map(|file| std::fs::metadata(dir.join(file)).map_or(0, |data| data.len()));
    let sum: u64 = sizes.sum();
    (sum > 0).then(|| sum + sum / 8 + (64 << 10))
}

fn seal_held(
    request: &SealRequest,
    held: &LockedCopy,
    images: &Images,
    place: &Place,
    dir: BorrowedFd<'_>,
    progress: &mut dyn Progress,
) -> Result<ImageRef> {
    let copy = &held.copy;
    let mut modules = copy.info.modules.clone();
    modules.extend(
        request
            .modules
            .iter()
            .filter(|m| !copy.info.modules.contains(m))
            .cloned(),
    );
    let choices = Choices {
        agents: &request.agents,
        kernel: request.kernel.as_deref(),
        modules: &modules,
    };
    let before = copy.parent_packages();
    let size = Copied {
        files: copy.info.files,
        bytes: copy.info.bytes,
    };
    let prepared = prepare(&copy.dir, dir, &choices, before.as_ref(), Some(size), progress)?;
    for remark in &prepared.remarks {
        progress.remark(remark);
    }
    match place {
        // Refuse before the copy is written to disk.
        Place::Variant(image) => {
            free_variant(&images.version(image)?, prepared.arch(), Some(prepared.system()))?;
        }
        Place::Next(name) => remark_other_variants(images, &copy.info.parent, name, prepared.arch(), progress),
    }
    progress.begin(Step::Sync, None);
    let origin = Origin {
        created: request.now,
        source: format!("{}, a working copy of {}", copy.name, copy.info.parent),
        message: request.message.clone(),
        by: request.by.clone(),
        parent: Some(copy.info.parent.clone()),
        work: copy.name.clone(),
    };
    let from_path = images.path().join(WORK);
    let from = open_dir(&from_path).doing(|| format!("opening {}", from_path.display()))?;
    let entry = CString::new(copy.name.as_str()).expect("names hold no NUL");
    let manifest = |image| prepared.manifest(image, origin);
    images.publish(place, (from.as_fd(), &entry), dir, manifest, progress)
}

/// Remarks that the new version of `name` has one variant, where the version that was copied has several.
fn remark_other_variants(images: &Images, parent: &ImageRef, name: &str, arch: &str, progress: &mut dyn Progress) {
    let Ok(version) = images.version(parent) else { return };
    let others = version.variants().filter(|variant| variant.manifest.arch != arch);
    let others: Vec<String> = others.map(|variant| variant.architecture_name()).collect();
    if parent.name == name && !others.is_empty() {
        let others = others.join(" and ");
        progress.remark(&format!(
            "{parent} also has a variant for {others}, and the new version has none yet; make a working copy of it \
             (rackstrap image clone {parent} --arch ARCH), and seal that with --as {name}@VERSION"
        ));
    }
}

/// Removes the files that sealing makes next to the tree.
fn clear(dir: BorrowedFd<'_>) -> Result<()> {
    for file in MADE.iter().chain(&["manifest.toml"]) {
        remove_if_there(dir, file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
