//! `rackstrap image import`

use super::{list::size_of, progress::Shown};
use crate::author;
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_base::clock::Timestamp;
use rackstrap_image::{ImportRequest, OciOptions, import, load_catalog, show_bytes};
use rackstrap_wire::ImageRef;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Name of the image; the version is the next number
    name: String,
    /// A root directory, a tar archive (plain, gzip, xz, zstd), a recipe for mmdebstrap or dnf (.toml), or a container image:
    /// docker://REGISTRY/REPOSITORY[:TAG|@DIGEST], oci-archive:FILE[:TAG], oci:DIR[:TAG]
    #[arg(long, value_name = "DIR|TAR|RECIPE|IMAGE")]
    from: PathBuf,
    /// Which variant of a container image, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// User and password for the registry, in a file like Docker's [default: $DOCKER_CONFIG/config.json, else
    /// ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Talk with the registry by plain HTTP if it has no TLS; on this machine itself that is always allowed
    #[arg(long)]
    insecure: bool,
    /// The agent's binary [default: rackstrap-agent beside this program, else in /usr/lib/rackstrap]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// A remark, kept with the version
    #[arg(long, short, default_value = "")]
    message: String,
    /// Kernel to boot, by its release [default: the newest one in the tree]
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    /// A module that the initramfs needs in addition; may be repeated
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
}

pub(super) fn run(args: ImportArgs, images_dir: PathBuf) -> Result<String> {
    let agent = agent(args.agent)?;
    let mut progress = Shown::new();
    let request = ImportRequest {
        images_dir,
        name: args.name,
        source: args.from,
        oci: OciOptions {
            platform: args.platform,
            credentials: args.credentials,
            insecure: args.insecure,
        },
        agent,
        message: args.message,
        by: author::own(),
        kernel: args.kernel,
        modules: args.modules,
        now: Timestamp::now(),
    };
    let begun = Instant::now();
    let image = import(&request, &mut progress);
    progress.end();
    let image = image.with_context(|| format!("importing {} as {}", request.source.display(), request.name))?;
    made(&request.images_dir, &image, begun)
}

/// One line about a version that was just made.
pub(super) fn made(images_dir: &Path, image: &ImageRef, begun: Instant) -> Result<String> {
    let (catalog, _) = load_catalog(images_dir);
    let version = catalog
        .get(image)
        .with_context(|| format!("reading {image} after it was made"))?;
    let manifest = &version.manifest;
    Ok(format!(
        "{image}: {} files, {}, kernel {}, initramfs {}, in {:.1} s\n",
        manifest.files,
        show_bytes(manifest.bytes),
        manifest.kernel_release,
        show_bytes(size_of(version, "initramfs")),
        begun.elapsed().as_secs_f64(),
    ))
}

/// The agent's binary: the one that was named, or the one that was installed with this program.
pub(super) fn agent(named: Option<PathBuf>) -> Result<PathBuf> {
    match named {
        Some(agent) => Ok(agent),
        None => find_agent(),
    }
}

fn find_agent() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding this program's own place")?;
    let places = [
        me.with_file_name("rackstrap-agent"),
        "/usr/lib/rackstrap/rackstrap-agent".into(),
    ];
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(place.clone()),
        None => bail!(
            "there is no agent at {} or {}; name it with --agent",
            places[0].display(),
            places[1].display()
        ),
    }
}
