//! Imports a tree as a sealed version of an image.

use super::{
    agents::Agents,
    bootstrap::{bootstrap, expect_program},
    error::{Doing, ImportError, Result},
    foreign::expect_runs,
    freebsd,
    inspect::inspect,
    locks::open_dir,
    oci::{OciImage, OciOptions},
    prepare::{Choices, Origin, Prepared, full, prepare},
    progress::{Progress, Step},
    recipe::Recipe,
    root::RootDir,
    tar,
    tree::{Id, Remarks, SpaceGuard, copy_tree, count_tree, flatten, make_root},
    versions::{Images, Incoming, Place, free_variant},
};
use rackstrap_base::{arch::Architecture, clock::Timestamp};
use rackstrap_catalog::System;
use rackstrap_wire::ImageRef;
use rustix::fs as rfs;
use std::{fs::File, io::Read, os::fd::AsFd, path::PathBuf};

/// A request to import a tree.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// `STATE/images`.
    pub images_dir: PathBuf,
    /// Name of the image, or version that gets the tree as a further variant (`debian@3`).
    pub name: String,
    /// The architecture for which the tree has to be, and for which recipes make it; none for any. Recipes then make one for this
    /// machine.
    pub architecture: Option<Architecture>,
    /// A directory, an archive (tar, also compressed by gzip, xz or zstd), a recipe (`.toml`), or a container image:
    /// `oci:DIR`, `oci-archive:FILE`, `docker://…`.
    pub source: PathBuf,
    /// How a container image is fetched.
    pub oci: OciOptions,
    /// Where the agent's binary is.
    pub agents: Agents,
    /// A remark for people; may be empty.
    pub message: String,
    /// Name of the user who imports it.
    pub by: String,
    /// Release of the kernel to boot; none for the newest one.
    pub kernel: Option<String>,
    /// Names of further modules for the initramfs.
    pub modules: Vec<String>,
    /// The current time.
    pub now: Timestamp,
}

enum Source {
    Dir(RootDir),
    Archive(File),
    Recipe(Recipe),
    Oci(Box<OciImage>),
}

/// Imports a tree as the next version of an image, or as a further variant of a version. A failure leaves nothing behind.
///
/// Needs root, because owners, devices and capabilities are part of a tree.
pub fn import(request: &ImportRequest, progress: &mut dyn Progress) -> Result<ImageRef> {
    let place = Place::parse(&request.name)?;
    check_root("importing an image")?;
    let source = open_source(request)?;
    // Refuse what can be refused before anything is copied.
    let version = match &place {
        Place::Variant(image) => Some(Images::open(&request.images_dir)?.version(image)?),
        Place::Next(_) => None,
    };
    let fits = |arch: &str, system| match &version {
        Some(version) => free_variant(version, arch, system).map(drop),
        None => Ok(()),
    };
    let target = match &source {
        Source::Oci(image) => image.architecture(),
        _ => request.architecture.or_else(Architecture::native),
    };
    if let Source::Recipe(recipe) = &source {
        expect_program(recipe)?;
        target.map_or(Ok(()), |target| expect_runs(target, "the packages' scripts"))?;
    }
    match (&source, target) {
        (Source::Dir(tree), _) => {
            let is_freebsd = freebsd::is_freebsd(tree);
            let arch = match is_freebsd {
                true => freebsd::inspect(tree).map_err(ImportError::Refused)?.arch,
                false => {
                    let seen = inspect(tree, request.kernel.as_deref());
                    seen.map_err(ImportError::Refused)?.arch
                }
            };
            expect_architecture(request, &arch)?;
            let system = if is_freebsd { System::FreeBsd } else { System::Linux };
            fits(&arch, Some(system))?;
            if !is_freebsd {
                request.agents.read(&arch)?;
            }
        }
        // An archive shows its architecture only when it is unpacked.
        (Source::Archive(_), _) if request.architecture.is_none() => {
            if let Agents::Named(_) = request.agents {
                request.agents.find(std::env::consts::ARCH)?;
            }
        }
        // A container image may not exist for that architecture, which it says itself.
        (_, Some(target)) => {
            fits(target.machine(), None)?;
            request.agents.find(target.machine())?;
        }
        (_, None) => {}
    }
    let incoming = Incoming::create_for(&request.images_dir, place)?;
    let path = incoming.path();
    let mut space = SpaceGuard::new(incoming.dir(), &request.images_dir, None)?;
    let mut remarks = Remarks::default();
    progress.reached("made");
    let made = fill(request, &source, &incoming, &mut space, &mut remarks, progress);
    let prepared = made.map_err(|e| full(e, &space))?;
    expect_architecture(request, prepared.arch())?;
    fits(prepared.arch(), Some(prepared.system()))?;
    for remark in remarks.into_lines().iter().chain(&prepared.remarks) {
        progress.remark(remark);
    }
    progress.begin(Step::Sync, None);
    tracing::debug!(dir = %path.display(), "sealing");
    let source = match &source {
        Source::Oci(image) => image.taken(),
        _ => std::path::absolute(&request.source)
            .unwrap_or_else(|_| request.source.clone())
            .display()
            .to_string(),
    };
    let origin = Origin {
        created: request.now,
        source,
        message: request.message.clone(),
        by: request.by.clone(),
        parent: None,
        work: String::new(),
    };
    let sealed = incoming.seal(|image| prepared.manifest(image, origin), progress);
    sealed.map_err(|e| full(e, &space))
}

/// Fails if the tree is for another architecture than the one that was asked for.
fn expect_architecture(request: &ImportRequest, arch: &str) -> Result<()> {
    let found = Architecture::of_machine(arch);
    match request.architecture {
        Some(wanted) if found != Some(wanted) => {
            let found = found.map_or_else(|| arch.to_owned(), |found| found.to_string());
            Err(ImportError::Request(format!(
                "the tree is for {found}, and --arch asks for {wanted}"
            )))
        }
        _ => Ok(()),
    }
}

/// Fails if the text is not a valid name of an image or a working copy.
pub(crate) fn check_name(name: &str) -> Result<()> {
    match ImageRef::valid_name(name) {
        true => Ok(()),
        false => Err(ImportError::Request(format!(
            "'{name}' is not a name for an image; use 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit"
        ))),
    }
}

/// Fails if the process does not run as root.
pub(crate) fn check_root(doing: &str) -> Result<()> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(ImportError::Request(format!(
            "{doing} needs root: owners, devices and capabilities are part of a tree; use sudo"
        ))),
    }
}

fn open_source(request: &ImportRequest) -> Result<Source> {
    let path = request.source.as_path();
    if let Some(image) = OciImage::parse(path.as_os_str(), &request.oci, request.architecture) {
        return Ok(Source::Oci(Box::new(image?)));
    }
    request.oci.check_unused()?;
    let shown = path.display();
    let data = std::fs::metadata(path).doing(|| format!("opening {shown}"))?;
    if data.is_dir() {
        return Ok(Source::Dir(RootDir::open(path).doing(|| format!("opening {shown}"))?));
    }
    if !data.is_file() {
        return Err(ImportError::Request(format!(
            "{shown} is neither a directory nor a file; give a root tree, a tar archive, or a recipe (.toml)"
        )));
    }
    let file = File::open(path).doing(|| format!("opening {shown}"))?;
    if path.extension().is_some_and(|e| e == "toml") {
        let mut text = String::new();
        file.take(1 << 20)
            .read_to_string(&mut text)
            .doing(|| format!("reading {shown}"))?;
        let recipe = Recipe::parse(&text).map_err(|e| ImportError::Request(format!("{shown}: {e}")))?;
        return Ok(Source::Recipe(recipe));
    }
    Ok(Source::Archive(file))
}

/// Fills `incoming` with everything except the manifest.
fn fill(
    request: &ImportRequest,
    source: &Source,
    incoming: &Incoming,
    space: &mut SpaceGuard,
    remarks: &mut Remarks,
    progress: &mut dyn Progress,
) -> Result<Prepared> {
    let path = incoming.path();
    let root_path = path.join("root");
    let making = || format!("making {}", root_path.display());
    make_root(incoming.dir(), c"root").doing(making)?;
    let root = open_dir(&root_path).doing(making)?;
    let copied = match source {
        Source::Dir(tree) => {
            let images =
                rfs::stat(&request.images_dir).doing(|| format!("looking at {}", request.images_dir.display()))?;
            let images = Some(Id::of(&images));
            progress.begin(Step::Count, None);
            let (total, allocated) = count_tree(tree.as_fd(), images)?;
            *space = SpaceGuard::new(incoming.dir(), &request.images_dir, Some(allocated))?;
            progress.begin(Step::Copy, Some(total.bytes));
            Some(copy_tree(tree.as_fd(), root.as_fd(), images, space, remarks, progress)?)
        }
        Source::Archive(file) => {
            let file = file.try_clone().doing(|| "opening the archive")?;
            progress.begin(Step::Copy, None);
            Some(tar::extract(file, root.as_fd(), space, remarks, progress)?)
        }
        Source::Oci(image) => {
            image.extract(root.as_fd(), incoming.dir(), space, remarks, progress)?;
            None
        }
        Source::Recipe(recipe) => {
            progress.begin(Step::Bootstrap, None);
            bootstrap(recipe, request.architecture, &root_path, &path, progress)?;
            None
        }
    };
    flatten(&root_path, space, remarks, progress)?;
    progress.reached("copied");
    let choices = Choices {
        agents: &request.agents,
        kernel: request.kernel.as_deref(),
        modules: &request.modules,
    };
    let prepared = prepare(&path, incoming.dir(), &choices, None, copied, progress);
    prepared.map_err(|error| match (source, error) {
        // A container image without a kernel or an init gets the instructions for building one with them.
        (Source::Oci(_), ImportError::Refused(problems)) => ImportError::Unbootable(problems),
        (_, error) => error,
    })
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod variant_tests;
