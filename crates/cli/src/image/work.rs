//! `rackstrap image clone`, `seal` and `verify`

use super::{find, import, progress::Shown};
use crate::output::{self, Format};
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_base::{arch::Architecture, clock::Timestamp};
use rackstrap_catalog::ImageVersion;
use rackstrap_control::author;
use rackstrap_image::{
    CloneRequest, Cloned, SealRequest, Way, clone_version, default_name, load_catalog, seal, show_bytes, verify,
};
use rackstrap_wire::ImageRef;
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

#[derive(Args, Debug)]
pub(super) struct CloneArgs {
    /// Version (NAME@VERSION), or NAME for the newest version
    #[arg(add = crate::complete::images())]
    image: String,
    /// Name of the working copy [default: NAME-work]
    work: Option<String>,
    /// Architecture of the variant to copy, such as arm64 [default: the one with which the version was made]
    #[arg(long, value_name = "ARCH", value_parser = import::architecture)]
    arch: Option<Architecture>,
}

pub(super) fn clone(args: CloneArgs, images_dir: PathBuf) -> Result<String> {
    let (catalog, _) = load_catalog(&images_dir);
    let parent = find(&catalog, &args.image)?.manifest.image.clone();
    let name = args.work.unwrap_or_else(|| default_name(&parent));
    let begun = Instant::now();
    let mut progress = Shown::new();
    let request = CloneRequest {
        images_dir,
        parent,
        architecture: args.arch,
        name,
        by: author::own(),
        now: Timestamp::now(),
    };
    let cloned = clone_version(&request, &mut progress);
    progress.end();
    let Cloned { copy, way } = cloned.with_context(|| format!("copying {}", request.parent))?;
    let way = match way {
        Way::Snapshot => "snapshot".to_owned(),
        Way::Reflinks => "reflink".to_owned(),
        Way::Copy { written } if written >= copy.info.bytes => "copied".to_owned(),
        Way::Copy { written } => format!("{} copied", show_bytes(written)),
    };
    Ok(format!(
        "{name}: working copy of {}, {} files, {}, {way}, in {:.1} s\n\
         help: change it with `rackstrap image shell {name}`, then `rackstrap image seal {name}`\n",
        request.parent,
        copy.info.files,
        show_bytes(copy.info.bytes),
        begun.elapsed().as_secs_f64(),
        name = copy.name,
    ))
}

#[derive(Args, Debug)]
pub(super) struct SealArgs {
    /// Working copy, such as debian-work
    work: String,
    /// Name of the image, or version that gets it as a further variant, such as debian@4 [default: the image that was copied]
    #[arg(long = "as", value_name = "NAME|NAME@VERSION")]
    name: Option<String>,
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
    /// Kernel module to add to those of the parent's initramfs; repeat for more
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
}

pub(super) fn run_seal(args: SealArgs, images_dir: PathBuf) -> Result<String> {
    let request = SealRequest {
        images_dir,
        work: args.work,
        name: args.name,
        agents: import::agents(args.agent),
        message: args.message,
        by: author::own(),
        kernel: args.kernel,
        modules: args.modules,
        now: Timestamp::now(),
    };
    let begun = Instant::now();
    let mut progress = Shown::new();
    let image = seal(&request, &mut progress);
    progress.end();
    let image = image.with_context(|| format!("sealing {}", request.work))?;
    import::made(&request.images_dir, &image, begun)
}

/// The result of `image verify --json` for one version.
#[derive(Serialize)]
struct Verified {
    image: ImageRef,
    /// The architecture of the variant.
    arch: String,
    /// The digest of the sealed list of files.
    digest: String,
    /// What differs from the sealed version, one line each.
    differs: Vec<String>,
}

/// Verifies versions; a difference is an error.
pub(super) fn run_verify(images: &[String], format: Format, images_dir: &Path) -> Result<String> {
    let (catalog, _) = load_catalog(images_dir);
    let found: Vec<&ImageVersion> = images
        .iter()
        .map(|image| find(&catalog, image))
        .collect::<Result<_>>()?;
    let mut checked = Vec::new();
    for variant in found.into_iter().flat_map(ImageVersion::variants) {
        let mut progress = Shown::new();
        let differs = verify(variant, &mut progress);
        progress.end();
        let name = variant.export_name();
        checked.push((
            name.clone(),
            Verified {
                image: variant.manifest.image.clone(),
                arch: variant.architecture_name(),
                differs: differs.with_context(|| format!("checking {name}"))?,
                digest: variant.manifest.digest.to_string(),
            },
        ));
    }
    let (mut text, mut wrong) = (String::new(), Vec::new());
    for (name, Verified { digest, differs, .. }) in &checked {
        match differs.is_empty() {
            true => text.push_str(&format!("{name}: unchanged since it was sealed, {digest}\n")),
            false => wrong.extend(differs.iter().map(|what| format!("{name}: {what}"))),
        }
    }
    if format.json {
        let checked: Vec<_> = checked.into_iter().map(|(_, verified)| verified).collect();
        text = serde_json::to_string_pretty(&checked)?;
    }
    if !wrong.is_empty() {
        if format.json {
            output::print(&text)?;
        }
        bail!(
            "changed since it was sealed; nodes that run it may fail. Import it again from its source, or seal another version:\n  {}",
            wrong.join("\n  ")
        );
    }
    Ok(text)
}
