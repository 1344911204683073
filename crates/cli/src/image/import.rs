//! `rackstrap image import`

use super::{list::size_of, progress::Shown};
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_base::clock::Timestamp;
use rackstrap_control::author;
use rackstrap_image::{ImportRequest, OciOptions, import, load_catalog, show_bytes};
use rackstrap_wire::ImageRef;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Name of the image, such as debian; its version is the next number
    name: String,
    /// A root directory, a tar archive (plain, gzip, xz, zstd), a recipe for mmdebstrap or dnf (.toml), or a container image:
    /// docker://REGISTRY/REPOSITORY[:TAG|@DIGEST], oci-archive:FILE[:TAG], oci:DIR[:TAG]
    #[arg(long, value_name = "DIR|TAR|RECIPE|IMAGE")]
    from: PathBuf,
    /// Variant of a container image, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// File with the registry's user and password, in Docker's format [default: $DOCKER_CONFIG/config.json, else
    /// ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Allow plain HTTP to a registry without TLS; always allowed on this machine
    #[arg(long)]
    insecure: bool,
    /// Path of the agent's binary [default: rackstrap-agent beside this program, else in /usr/lib/rackstrap]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Remark to keep with the version, such as 'security updates'
    #[arg(long, short, default_value = "")]
    message: String,
    /// Release of the kernel to boot, such as 6.1.0-30-amd64 [default: the newest in the tree]
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    /// Kernel module to add to the initramfs, such as megaraid_sas; repeat for more
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

/// The path of the agent's binary: the one that was named, or the one that was installed with this program.
pub(super) fn agent(named: Option<PathBuf>) -> Result<PathBuf> {
    match named {
        Some(agent) => Ok(agent),
        None => find_agent(),
    }
}

fn find_agent() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding the path of this program")?;
    let places = [
        me.with_file_name("rackstrap-agent"),
        "/usr/lib/rackstrap/rackstrap-agent".into(),
    ];
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(place.clone()),
        None => bail!(
            "the agent's binary is neither at {} nor at {}\nhelp: name it with --agent PATH",
            places[0].display(),
            places[1].display()
        ),
    }
}
