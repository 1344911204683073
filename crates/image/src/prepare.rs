//! From a tree to a version: makes the files next to `root/`, in the same way for imports and for working copies.

use super::{
    InitKind, Manifest, Packages,
    agents::Agents,
    digest::{Digested, digest_file, digest_tree},
    error::{Doing, ImportError, Result},
    freebsd,
    image_list::make_list,
    initramfs::{self, Ingredients},
    inspect::inspect,
    packages::read_packages,
    progress::Progress,
    root::RootDir,
    tree::{Copied, SpaceGuard},
    versions::write_new,
};
use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::{EFI_LOADER, PXE_LOADER, System};
use rackstrap_wire::ImageRef;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// Files that are made here, next to the tree and the manifest.
pub(crate) const MADE: [&str; 5] = ["kernel", "initramfs", PXE_LOADER, EFI_LOADER, PACKAGES];
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
    pub remarks: Vec<String>,
    pub digested: Digested,
    pub packages: Packages,
    booted: Booted,
}

/// What nodes boot of a tree.
#[derive(Debug)]
struct Booted {
    system: System,
    release: String,
    arch: String,
    init: InitKind,
    os: String,
    /// Digests of the files next to the tree, by their names.
    digests: BTreeMap<String, String>,
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
    let (booted, remarks) = match freebsd::is_freebsd(&tree) {
        true => of_freebsd(path, &tree, choices)?,
        false => of_linux(path, &tree, choices, progress)?,
    };
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
        remarks,
        digested,
        packages,
        booted,
    })
}

/// Copies the kernel of a tree of Linux, and builds its initramfs.
fn of_linux(
    path: &Path,
    tree: &RootDir,
    choices: &Choices<'_>,
    progress: &mut dyn Progress,
) -> Result<(Booted, Vec<String>)> {
    let seen = inspect(tree, choices.kernel).map_err(ImportError::Refused)?;
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
        tree,
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
    let booted = Booted {
        system: System::Linux,
        release: seen.release,
        arch: seen.arch,
        init: seen.init,
        os: seen.os,
        digests: digests(path, &["kernel", "initramfs"])?,
        modules: choices.modules.to_vec(),
        wire: rackstrap_wire::wire_of_agent(&agent),
    };
    Ok((booted, seen.remarks))
}

/// Copies the boot loaders of a tree of FreeBSD, and adds the programs that report to the server.
fn of_freebsd(path: &Path, tree: &RootDir, choices: &Choices<'_>) -> Result<(Booted, Vec<String>)> {
    if choices.kernel.is_some() || !choices.modules.is_empty() {
        return Err(ImportError::Request(
            "the tree is FreeBSD's: name its kernel and modules in /boot/loader.conf of the tree instead of --kernel and --module"
                .to_owned(),
        ));
    }
    let mut seen = freebsd::inspect(tree).map_err(ImportError::Refused)?;
    freebsd::copy_loaders(tree, &seen, path)?;
    seen.remarks.extend(freebsd::add_reporters(tree));
    let os = match seen.release.is_empty() {
        true => "FreeBSD".to_owned(),
        false => format!("FreeBSD {}", seen.release),
    };
    let booted = Booted {
        system: System::FreeBsd,
        release: seen.release,
        arch: seen.arch,
        init: InitKind::Other,
        os,
        digests: digests(path, &seen.loaders)?,
        modules: Vec::new(),
        wire: None,
    };
    Ok((booted, seen.remarks))
}

/// The digests of `files` in `dir`, by their names.
fn digests(dir: &Path, files: &[&str]) -> Result<BTreeMap<String, String>> {
    let digest = |file: &&str| Ok(((*file).to_owned(), digest_file(&dir.join(file))?));
    files.iter().map(digest).collect()
}

impl Prepared {
    /// Machine of the tree, as `uname -m` of Linux names it.
    pub fn arch(&self) -> &str {
        &self.booted.arch
    }

    /// Which system its tree is of.
    pub fn system(&self) -> System {
        self.booted.system
    }

    /// The manifest of `image`.
    pub fn manifest(self, image: ImageRef, origin: Origin) -> Manifest {
        let Booted {
            system,
            release,
            arch,
            init,
            os,
            mut digests,
            modules,
            wire,
        } = self.booted;
        let mut digest = |file| match system {
            System::Linux => digests.remove(file).unwrap_or_default(),
            System::FreeBsd => String::new(),
        };
        Manifest {
            image,
            created: origin.created,
            source: origin.source,
            message: origin.message,
            kernel_release: release,
            arch,
            init,
            files: self.digested.files,
            bytes: self.digested.bytes,
            os,
            digest: self.digested.digest,
            kernel_digest: digest("kernel"),
            initramfs_digest: digest("initramfs"),
            parent: origin.parent,
            work: origin.work,
            by: origin.by,
            modules,
            wire,
            system,
            packages: Some(self.packages.counts()),
            loaders: digests,
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
