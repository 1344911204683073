//! `rackstrap image import`

use super::{
    list::{boot_loaders, size_of},
    progress::Shown,
};
use anyhow::{Context, Result};
use clap::Args;
use rackstrap_base::{arch::Architecture, clock::Timestamp};
use rackstrap_catalog::System;
use rackstrap_control::author;
use rackstrap_image::{Agents, ImportRequest, OciOptions, import, load_catalog, show_bytes};
use rackstrap_wire::ImageRef;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Name of the image, such as debian, for its next version; or a version, such as debian@3, for a further variant of it
    name: String,
    /// Architecture of the tree (amd64, arm64) [default: that of the tree; this machine's for recipes and container images]
    #[arg(long, value_name = "ARCH", value_parser = architecture, conflicts_with = "platform")]
    arch: Option<Architecture>,
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
    /// Path of the agent's binary [default: rackstrap-agent, for another architecture rackstrap-agent-ARCH, beside this program, else
    /// in /usr/lib/rackstrap]
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
    let mut progress = Shown::new();
    let request = ImportRequest {
        images_dir,
        name: args.name,
        architecture: args.arch,
        source: args.from,
        oci: OciOptions {
            platform: args.platform,
            credentials: args.credentials,
            insecure: args.insecure,
        },
        agents: agents(args.agent),
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

/// One line about a version or a variant that was just made.
pub(super) fn made(images_dir: &Path, image: &ImageRef, begun: Instant) -> Result<String> {
    let (catalog, _) = load_catalog(images_dir);
    let version = catalog
        .get(image)
        .with_context(|| format!("reading {image} after it was made"))?;
    // Of several variants, the one that was made last.
    let newest = version.variants().max_by_key(|variant| variant.manifest.created);
    let version = newest.unwrap_or(version);
    let manifest = &version.manifest;
    let variant = match version.variant.as_str() {
        "" => String::new(),
        name => format!(", variant for {name}"),
    };
    let booted = match manifest.system {
        System::Linux => format!("initramfs {}", show_bytes(size_of(version, "initramfs"))),
        System::FreeBsd => format!("FreeBSD with {}", boot_loaders(version)),
    };
    Ok(format!(
        "{image}{variant}: {} files, {}, kernel {}, {booted}, in {:.1} s\n",
        manifest.files,
        show_bytes(manifest.bytes),
        manifest.kernel_release,
        begun.elapsed().as_secs_f64(),
    ))
}

/// The agent that was named, or those that were installed with this program.
pub(super) fn agents(named: Option<PathBuf>) -> Agents {
    named.map_or_else(Agents::installed, Agents::Named)
}

/// Reads the name of an architecture.
pub(super) fn architecture(text: &str) -> Result<Architecture, String> {
    Architecture::of_name(text).ok_or_else(|| {
        let known = Architecture::ALL.map(|architecture| architecture.to_string());
        let (last, others) = known.split_last().expect("there are several");
        format!("not an architecture; write {} or {last}", others.join(", "))
    })
}
