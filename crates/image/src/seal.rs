//! A working copy becomes the next version: by a rename, without a copy.

use super::{
    error::{Doing, ImportError, Result},
    import::{check_name, check_root},
    leftovers::remove_if_there,
    locks::{open_dir, try_lock},
    placeholders::remove_placeholders,
    prepare::{MADE, Origin, Wishes, full, prepare},
    progress::{Progress, Step},
    tree::{Copied, Notes, SpaceGuard, flatten},
    versions::Images,
    work::{Held, PARENT_PACKAGES, WORK, WORK_FILE, hold},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;
use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

/// What is to be sealed, and how.
#[derive(Clone, Debug)]
pub struct SealRequest {
    /// `STATE/images`.
    pub images_dir: PathBuf,
    /// The working copy.
    pub work: String,
    /// Name of the image; none = that of the version that it is a copy of.
    pub name: Option<String>,
    /// The agent's binary.
    pub agent: PathBuf,
    /// A remark for people.
    pub message: String,
    /// Who seals it.
    pub by: String,
    /// Release of the kernel to boot; none = the newest one.
    pub kernel: Option<String>,
    /// Modules that the initramfs shall hold in addition to those that its parent's had.
    pub modules: Vec<String>,
    /// The present.
    pub now: Timestamp,
}

/// Seals a working copy as the next version of an image. On failure it is as it was.
///
/// All that a version has besides the tree is made in the working copy's own directory, which then gets its place among
/// the versions by one rename: ended at any moment, there is either the working copy or the version, whole.
///
/// # Errors
/// The names, rights, a tree that cannot boot, somebody who works in it, room on the disk, and what system calls say.
pub fn seal(request: &SealRequest, progress: &mut dyn Progress) -> Result<ImageRef> {
    check_root("sealing an image")?;
    if let Some(name) = &request.name {
        check_name(name)?;
    }
    let held = hold(&request.images_dir, &request.work, false, "nobody seals")?;
    let images = Images::open(&request.images_dir)?;
    let path = &held.copy.dir;
    let dir = open_dir(path).doing(|| format!("opening {}", path.display()))?;
    // As a version is locked: nobody deletes it in the moment between its name and its end here.
    let dir =
        try_lock(dir, true, path)?.map_err(|_| ImportError::Request(format!("{} is being deleted", request.work)))?;
    let mut space = SpaceGuard::new(
        dir.as_fd(),
        &request.images_dir,
        needed(&images, &held.copy.info.parent),
    )?;
    // A seal that died may have left some, and a shell that was killed others.
    clear(dir.as_fd())?;
    remove_placeholders(path)?;
    let mut notes = Notes::default();
    flatten(&held.copy.root(), &mut space, &mut notes, progress).map_err(|e| full(e, &space))?;
    for note in notes.into_lines() {
        progress.note(&note);
    }
    progress.reached("begun");
    let name = request
        .name
        .clone()
        .unwrap_or_else(|| held.copy.info.parent.name.clone());
    let sealed = seal_held(request, &held, &images, &name, dir.as_fd(), progress);
    let image = sealed.map_err(|e| {
        if let Err(left) = clear(dir.as_fd()) {
            tracing::warn!(dir = %path.display(), error = %left, "what a failed seal made could not be removed");
        }
        if let Ok(_lock) = images.lock() {
            images.tidy(&name);
        }
        full(e, &space)
    })?;
    // They say nothing any more; left behind by a crash, they are in nobody's way.
    for file in [WORK_FILE, PARENT_PACKAGES] {
        remove_if_there(&dir, file)?;
    }
    if let Ok(_lock) = images.lock() {
        images.tidy(WORK);
    }
    drop(held.lock);
    Ok(image)
}

/// Bytes that sealing will write, as far as one can know: what its parent has, and some more.
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
    held: &Held,
    images: &Images,
    name: &str,
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
    let wishes = Wishes {
        agent: &request.agent,
        kernel: request.kernel.as_deref(),
        modules: &modules,
    };
    let before = copy.parent_packages();
    let size = Copied {
        files: copy.info.files,
        bytes: copy.info.bytes,
    };
    let prepared = prepare(&copy.dir, dir, &wishes, before.as_ref(), Some(size), progress)?;
    for note in &prepared.seen.notes {
        progress.note(note);
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
    images.publish(name, (from.as_fd(), &entry), dir, manifest, progress)
}

/// Removes what sealing makes beside the tree.
fn clear(dir: BorrowedFd<'_>) -> Result<()> {
    for file in MADE.iter().chain(&["manifest.toml"]) {
        remove_if_there(dir, file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
