//! From a tree to a version: makes the files next to `root/`, in the same way for imports and for working copies.

use super::{
    Manifest, Packages,
    agents::Agents,
    digest::{Digested, digest_file, digest_tree},
    error::{Doing, ImportError, Result},
    image_list::make_list,
    initramfs::{self, Ingredients},
    inspect::{Inspection, inspect},
    packages::read_packages,
    progress::Progress,
    root::RootDir,
    tree::{Copied, SpaceGuard},
    versions::write_new,
};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// Files that are made here, next to the tree and the manifest.
pub(crate) const MADE: [&str; 3] = ["kernel", "initramfs", PACKAGES];
/// List of packages.
pub(crate) const PACKAGES: &str = "packages.json";

/// The choices of a person.
pub(crate) struct Choices<'a> {
    /// Where the agent's binary is.
    pub agents: &'a Agents,
    /// Release of the kernel to boot; none for the newest one.
    pub kernel: Option<&'a str>,
    /// Names of further modules for the initramfs.
    pub modules: &'a [String],
}

/// The facts for the manifest.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub seen: Inspection,
    pub digested: Digested,
    pub packages: Packages,
    kernel_digest: String,
    initramfs_digest: String,
    modules: Vec<String>,
    wire: Option<u32>,
}

/// Source, maker and time of a version.
pub(crate) struct Origin {
    pub created: Timestamp,
    pub source: String,
    pub message: String,
    pub by: String,
    pub parent: Option<ImageRef>,
    pub work: String,
}

/// Makes the files [`MADE`] in `dir`, for the tree in its `root/`. `before` are the packages of its parent.
pub(crate) fn prepare(
    path: &Path,
    dir: BorrowedFd<'_>,
    choices: &Choices<'_>,
    before: Option<&Packages>,
    size: Option<Copied>,
    progress: &mut dyn Progress,
) -> Result<Prepared> {
    let root_path = path.join("root");
    let tree = RootDir::open(&root_path).doing(|| format!("opening {}", root_path.display()))?;
    let seen = inspect(&tree, choices.kernel).map_err(ImportError::Refused)?;
    let agent = choices.agents.read(&seen.arch)?;
    let doing = || "copying the kernel";
    let mut kernel = tree.open_file(&seen.kernel).doing(doing)?;
    io::copy(&mut kernel, &mut create(&path.join("kernel"))?).doing(doing)?;
    progress.reached("kernel");
    let list = make_list(tree.as_fd())?;
    for remark in &list.remarks {
        progress.remark(remark);
    }
    let ingredients = Ingredients {
        tree: &tree,
        release: &seen.release,
        index: &seen.index,
        modprobe: &seen.modprobe,
        agent: &agent,
        list: &list.text,
        extra: choices.modules,
    };
    let mut out = io::BufWriter::with_capacity(1 << 20, create(&path.join("initramfs"))?);
    let built = initramfs::build(&ingredients, &mut out, progress)?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .doing(|| "writing the initramfs")?;
    tracing::debug!(?built, "initramfs");
    progress.reached("initramfs");
    let digested = digest_tree(tree.as_fd(), size.map(|size| size.bytes), progress)?;
    let mut packages = read_packages(&tree);
    if let Some(before) = before {
        match packages.since(before) {
            Ok(changes) => packages.changes = changes,
            Err(why) => progress.remark(&format!(
                "the changes of packages since the parent are not known: {why}"
            )),
        }
    }
    let text = serde_json::to_vec(&packages)
        .map_err(io::Error::other)
        .doing(|| "listing the packages")?;
    write_new(dir, c"packages.json", &text).doing(|| "writing the list of packages")?;
    progress.reached("packages");
    Ok(Prepared {
        kernel_digest: digest_file(&path.join("kernel"))?,
        initramfs_digest: digest_file(&path.join("initramfs"))?,
        modules: choices.modules.to_vec(),
        wire: rackstrap_wire::wire_of_agent(&agent),
        seen,
        digested,
        packages,
    })
}

impl Prepared {
    /// The manifest of `image`.
    pub fn manifest(self, image: ImageRef, origin: Origin) -> Manifest {
        Manifest {
            image,
            created: origin.created,
            source: origin.source,
            message: origin.message,
            kernel_release: self.seen.release,
            arch: self.seen.arch,
            init: self.seen.init,
            files: self.digested.files,
            bytes: self.digested.bytes,
            os: self.seen.os,
            digest: self.digested.digest,
            kernel_digest: self.kernel_digest,
            initramfs_digest: self.initramfs_digest,
            parent: origin.parent,
            work: origin.work,
            by: origin.by,
            modules: self.modules,
            wire: self.wire,
            packages: Some(self.packages.counts()),
        }
    }
}

fn create(path: &Path) -> Result<File> {
    File::create_new(path).doing(|| format!("making {}", path.display()))
}

/// Adds the missing bytes to an error of a full file system.
pub(crate) fn full(error: ImportError, space: &SpaceGuard) -> ImportError {
    match error {
        ImportError::Io { .. } if error.is_full() => space.full(),
        other => other,
    }
}

/// The packages of the version or working copy in `dir`: from the file next to its tree, or from the tree if there is no such
/// file.
pub fn packages_of(dir: &Path) -> Packages {
    let file: PathBuf = dir.join(PACKAGES);
    let listed = std::fs::read(&file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    listed.unwrap_or_else(|| packages_installed(&dir.join("root")))
}

/// The packages that the tree `root` has now.
pub fn packages_installed(root: &Path) -> Packages {
    match RootDir::open(root) {
        Ok(tree) => read_packages(&tree),
        Err(e) => Packages {
            why: format!("{} cannot be read: {e}", root.display()),
            ..Packages::default()
        },
    }
}
