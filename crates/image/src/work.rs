//! Working copies: `images/.work/NAME/{root/, work.toml}`, made from a version, changed by people, sealed as the next version.

use super::{
    CatalogProblem, Manifest, Packages,
    catalog::{entries, read_manifest},
    error::{Doing, ImportError, Result},
    import::{check_name, check_root},
    leftovers::Discarded,
    locks::{Locked, held, holders, open_dir, try_lock},
    placeholders::remove_placeholders,
    prepare::{full, packages_of},
    progress::{Progress, Step},
    tree::{Copied, Remarks, SpaceGuard, copy_tree, count_tree, has_nested, is_subvolume, make_root, snapshot},
    verify::keep_version,
    versions::{Images, Incoming, write_new},
};
use rackstrap_base::{arch::Architecture, clock::Timestamp};
use rackstrap_wire::ImageRef;
use rustix::fs as rfs;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

/// The directory below `images/`. Names of images cannot begin with a dot.
pub(crate) const WORK: &str = ".work";
/// The description of a working copy. A process that works in it holds a shared lock on this file.
pub(crate) const WORK_FILE: &str = "work.toml";
/// The packages of its parent, because the parent may be deleted before the copy is sealed.
pub(crate) const PARENT_PACKAGES: &str = "parent-packages.json";

/// The content of `work.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WorkInfo {
    /// The version that was copied.
    pub parent: ImageRef,
    /// Time of the copy.
    pub created: Timestamp,
    /// Name of the user who made it; empty in old files.
    #[serde(default)]
    pub by: String,
    /// Number of files when it was made.
    pub files: u64,
    /// Bytes of regular files when it was made.
    pub bytes: u64,
    /// Modules in the initramfs of its parent that a person asked for.
    #[serde(default)]
    pub modules: Vec<String>,
}

/// A working copy on disk.
#[derive(Clone, Debug)]
pub struct WorkingCopy {
    /// Its name.
    pub name: String,
    /// Its description.
    pub info: WorkInfo,
    /// `images/.work/NAME`.
    pub dir: PathBuf,
}

/// A request to make a working copy.
#[derive(Clone, Debug)]
pub struct CloneRequest {
    /// `STATE/images`.
    pub images_dir: PathBuf,
    /// The version.
    pub parent: ImageRef,
    /// The architecture whose variant is copied; none for the one with which the version was made.
    pub architecture: Option<Architecture>,
    /// Name of the copy.
    pub name: String,
    /// Name of the user who makes it.
    pub by: String,
    /// The current time.
    pub now: Timestamp,
}

/// How a working copy was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Way {
    /// By one snapshot of a subvolume.
    Snapshot,
    /// File by file, with shared blocks.
    Reflinks,
    /// File by file.
    Copy {
        /// Bytes that were written, without those of files with shared blocks.
        written: u64,
    },
}

/// A working copy that was just made.
#[derive(Clone, Debug)]
pub struct Cloned {
    /// The copy.
    pub copy: WorkingCopy,
    /// How it was made.
    pub way: Way,
}

/// A locked working copy: no other process may change it (exclusive) or delete or seal it (shared) until this is dropped.
#[derive(Debug)]
pub(crate) struct LockedCopy {
    pub copy: WorkingCopy,
    /// `work.toml`, open and locked.
    pub lock: Locked,
}

impl WorkingCopy {
    /// Processes that work in it: shells and commands.
    pub fn users(&self) -> Vec<u32> {
        let file = File::open(self.dir.join(WORK_FILE));
        file.map_or_else(|_| Vec::new(), |file| holders(file.as_fd()))
    }

    /// Removes the placeholders that a killed shell left in the tree, if no process works in it now.
    ///
    /// # Errors
    /// System calls.
    pub fn tidy(&self) -> Result<()> {
        let path = self.dir.join(WORK_FILE);
        let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
        match try_lock(file, false, &path)? {
            Ok(_alone) => remove_placeholders(&self.dir),
            Err(_) => Ok(()),
        }
    }

    /// Its tree.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The packages of its parent; none if the file is missing.
    pub(crate) fn parent_packages(&self) -> Option<Packages> {
        let text = std::fs::read(self.dir.join(PARENT_PACKAGES)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// All working copies below `images_dir`, by name, and directories that are not usable.
pub fn working_copies(images_dir: &Path) -> (Vec<WorkingCopy>, Vec<CatalogProblem>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let all = images_dir.join(WORK);
    for name in entries(&all, &mut problems) {
        let path = all.join(&name);
        match name
            .to_str()
            .ok_or_else(|| "not a valid name of a working copy".to_owned())
            .and_then(|name| load(&path, name))
        {
            Ok(copy) => found.push(copy),
            Err(what) => problems.push(CatalogProblem { path, what }),
        }
    }
    (found, problems)
}

fn load(dir: &Path, name: &str) -> std::result::Result<WorkingCopy, String> {
    let text = read_manifest(&dir.join(WORK_FILE)).map_err(|e| format!("{WORK_FILE} cannot be read: {e}"))?;
    let info = toml::from_str(&text).map_err(|e| format!("{WORK_FILE}: {}", e.to_string().trim_end()))?;
    Ok(WorkingCopy {
        name: name.to_owned(),
        info,
        dir: dir.to_owned(),
    })
}

/// Finds the working copy `name`. An error lists those that exist, or names the version as which it was sealed.
pub fn find_working_copy(images_dir: &Path, name: &str) -> Result<WorkingCopy> {
    let (copies, _) = working_copies(images_dir);
    if let Some(copy) = copies.iter().find(|copy| copy.name == name) {
        return Ok(copy.clone());
    }
    let dir = images_dir.join(WORK).join(name);
    if ImageRef::valid_name(name) && dir.is_dir() {
        let why = load(&dir, name).err().unwrap_or_default();
        return Err(ImportError::Request(format!("{}: {why}", dir.display())));
    }
    let (catalog, _) = super::load_catalog(images_dir);
    let sealed = catalog.iter().filter(|version| version.manifest.work == name);
    if let Some(version) = sealed.max_by_key(|version| version.manifest.created) {
        let m = &version.manifest;
        return Err(ImportError::Request(format!(
            "working copy {name} no longer exists: it was sealed as {}; make another one with `rackstrap image \
             clone {} {name}`",
            m.image, m.image
        )));
    }
    let known: Vec<&str> = copies.iter().map(|copy| copy.name.as_str()).collect();
    Err(ImportError::Request(match known.is_empty() {
        true => format!("working copy {name} does not exist; make one with `rackstrap image clone IMAGE {name}`"),
        false => format!(
            "working copy {name} does not exist; existing copies: {}",
            known.join(", ")
        ),
    }))
}

/// Finds the working copy and locks it: shared to work in it, exclusively to seal or delete it. `what` begins the error message:
/// `cannot seal`.
pub(crate) fn lock_copy(images_dir: &Path, name: &str, shared: bool, what: &str) -> Result<LockedCopy> {
    let copy = find_working_copy(images_dir, name)?;
    let path = copy.dir.join(WORK_FILE);
    let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
    let lock = try_lock(file, shared, &path)?.map_err(|pids| {
        let why = match shared {
            true => format!("{what} {name}: it is being sealed or deleted by"),
            false => format!("{what} {name} while a process works in it"),
        };
        held(&why, &pids)
    })?;
    // Before the lock was taken, the copy may have been sealed and another one may have got its name.
    let ours = rfs::fstat(&lock).doing(|| format!("looking at {}", path.display()))?;
    match std::fs::symlink_metadata(&path) {
        Ok(now) if (now.dev(), now.ino()) == (ours.st_dev, ours.st_ino) => Ok(LockedCopy { copy, lock }),
        _ => find_working_copy(images_dir, name).and_then(|_| {
            Err(ImportError::Request(format!(
                "working copy {name} was replaced by another one; try again"
            )))
        }),
    }
}

/// The default name of a working copy.
pub fn default_name(parent: &ImageRef) -> String {
    format!("{}-work", parent.name)
}

/// Makes a working copy. A failure leaves nothing behind.
///
/// # Errors
/// Invalid names, missing rights, missing space, and system calls.
pub fn clone_version(request: &CloneRequest, progress: &mut dyn Progress) -> Result<Cloned> {
    check_name(&request.name)?;
    check_root("copying an image")?;
    let (catalog, _) = super::load_catalog(&request.images_dir);
    let Some(parent) = catalog.get(&request.parent) else {
        return Err(ImportError::Request(format!(
            "image {} does not exist; see: rackstrap image list",
            request.parent
        )));
    };
    if catalog.newest(&request.name).is_some() {
        return Err(ImportError::Request(format!(
            "{} is an image; give the working copy another name, such as {}-work",
            request.name, request.name
        )));
    }
    let taken = request.images_dir.join(WORK).join(&request.name);
    if taken.exists() {
        return Err(ImportError::Request(format!(
            "working copy {} exists already; choose another name, or seal or delete the existing one",
            request.name
        )));
    }
    let variant = match request.architecture {
        None => Some(parent),
        Some(wanted) => parent
            .variant_for(Some(wanted))
            .filter(|variant| variant.architecture() == Some(wanted)),
    };
    let Some(variant) = variant else {
        return Err(ImportError::Request(format!(
            "image {} has no variant for {}; it has {}",
            request.parent,
            request
                .architecture
                .map(|wanted| wanted.to_string())
                .unwrap_or_default(),
            parent.architectures()
        )));
    };
    // The parent is held until the copy is complete, so that no process deletes it meanwhile.
    let _kept = keep_version(parent)?;
    let parent = variant;
    let from_path = parent.dir.join("root");
    let from = open_dir(&from_path).doing(|| format!("opening {}", from_path.display()))?;
    let incoming = Incoming::create(&request.images_dir, WORK)?;
    progress.reached("made");
    let mut space = SpaceGuard::new(incoming.dir(), &request.images_dir, None)?;
    let mut remarks = Remarks::default();
    let mut fill = || {
        let (copied, way) = match snapshot_of(from.as_fd(), &incoming) {
            true => {
                let Manifest { files, bytes, .. } = parent.manifest;
                (Copied { files, bytes }, Way::Snapshot)
            }
            false => copy_files(request, from.as_fd(), &incoming, &mut space, &mut remarks, progress)?,
        };
        progress.reached("copied");
        let info = WorkInfo {
            parent: request.parent.clone(),
            created: request.now,
            by: request.by.clone(),
            files: copied.files,
            bytes: copied.bytes,
            modules: parent.manifest.modules.clone(),
        };
        let packages = packages_of(&parent.dir);
        let packages = serde_json::to_vec(&packages)
            .map_err(io::Error::other)
            .doing(|| "listing the packages")?;
        write_new(incoming.dir(), c"parent-packages.json", &packages).doing(|| "writing the list of packages")?;
        let text = toml::to_string(&info)
            .map_err(|e| ImportError::Request(format!("{WORK_FILE} cannot be written as TOML: {e}")))?;
        write_new(incoming.dir(), c"work.toml", text.as_bytes()).doing(|| format!("writing {WORK_FILE}"))?;
        progress.begin(Step::Sync, None);
        Ok((info, way))
    };
    let (info, way) = fill().map_err(|e| full(e, &space))?;
    incoming.name(&request.name, progress).map_err(|e| full(e, &space))?;
    for remark in remarks.into_lines() {
        progress.remark(&remark);
    }
    let copy = WorkingCopy {
        name: request.name.clone(),
        info,
        dir: taken,
    };
    Ok(Cloned { copy, way })
}

/// Makes the tree of `incoming` a snapshot of the tree `from`. Returns false if that is not possible.
fn snapshot_of(from: BorrowedFd<'_>, incoming: &Incoming) -> bool {
    // This is checked first because most trees are on other file systems. Nested subvolumes would be empty directories in a snapshot.
    let possible = is_subvolume(from) && has_nested(from).is_ok_and(|nested| !nested);
    possible
        && match snapshot(from, incoming.dir(), c"root") {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "snapshot failed; copying file by file");
                false
            }
        }
}

fn copy_files(
    request: &CloneRequest,
    from: BorrowedFd<'_>,
    incoming: &Incoming,
    space: &mut SpaceGuard,
    remarks: &mut Remarks,
    progress: &mut dyn Progress,
) -> Result<(Copied, Way)> {
    progress.begin(Step::Count, None);
    let (total, allocated) = count_tree(from, None)?;
    *space = SpaceGuard::new(incoming.dir(), &request.images_dir, Some(allocated))?;
    let root_path = incoming.path().join("root");
    let making = || format!("making {}", root_path.display());
    make_root(incoming.dir(), c"root").doing(making)?;
    let root = open_dir(&root_path).doing(making)?;
    progress.begin(Step::Copy, Some(total.bytes));
    let copied = copy_tree(from, root.as_fd(), None, space, remarks, progress)?;
    let way = match space.written() {
        0 if copied.bytes > 0 => Way::Reflinks,
        written => Way::Copy { written },
    };
    Ok((copied, way))
}

/// Deletes a working copy in which no process works.
pub fn delete_working_copy(images_dir: &Path, name: &str, progress: &mut dyn Progress) -> Result<()> {
    check_root("deleting a working copy")?;
    let discarded = {
        let images = Images::open(images_dir)?;
        let _lock = images.lock()?;
        let _held = lock_copy(images_dir, name, false, "cannot delete")?;
        Discarded::take(Images::open(images_dir)?, WORK, name, name)?
    };
    progress.reached("discarded");
    discarded.remove(progress)
}

#[cfg(test)]
mod tests;
