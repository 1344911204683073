//! `rackstrap image`: one file for each subject.

mod current;
mod delete;
mod diff;
mod enter;
mod held;
mod import;
mod list;
mod progress;
mod work;

use super::{
    connection,
    output::{self, Format},
    rollout::{Order, carry_out},
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rackstrap_catalog::{Catalog, ImageVersion};
use rackstrap_control::api::{Done, paths};
use rackstrap_image::needs_root;
use rackstrap_wire::ImageRef;
use std::{path::Path, process::ExitCode};

/// `rackstrap image …`
#[derive(Args, Debug)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand, Debug)]
enum ImageCommand {
    /// Import a root tree as the next version of an image, with its kernel and initramfs
    #[command(after_help = "\
Examples:
  rackstrap image import debian --from /srv/debian-root
  rackstrap image import debian --from root.tar.zst --message 'with the new driver'
  rackstrap image import debian --from images/debian.toml      (built by mmdebstrap)
  rackstrap image import rocky --from images/rocky.toml        (built by dnf)
  rackstrap image import debian --from docker://registry.example:5000/cluster/node:12
  rackstrap image import debian --from oci-archive:node.tar    (from docker save, buildah push or skopeo copy)
  rackstrap image import debian --from oci:/srv/node:12        (an OCI layout directory, by tag)
  rackstrap image import debian@3 --arch arm64 --from images/debian.toml   (a further variant of that version)")]
    Import(import::ImportArgs),
    #[command(flatten)]
    Order(Order),
    /// List all versions of all images, and mark the current ones
    #[command(after_help = "\
Example:
  rackstrap image list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a version, or the newest one of an image
    #[command(after_help = "\
Examples:
  rackstrap image show debian
  rackstrap image show debian@1")]
    Show {
        /// Image (NAME, shows the newest version) or version (NAME@VERSION)
        #[arg(add = crate::complete::images())]
        image: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a working copy of a version, to change and seal as the next version
    #[command(after_help = "\
Examples:
  rackstrap image clone debian@3                (the working copy is debian-work)
  rackstrap image clone debian new-driver
  rackstrap image clone debian debian-arm --arch arm64")]
    Clone(work::CloneArgs),
    /// Run a command in a working copy, with its own mounts and processes
    #[command(after_help = "\
Examples:
  rackstrap image exec debian-work -- apt-get update
  rackstrap image exec debian-work -- apt-get -y upgrade

Exits with the command's exit code. Packages that are installed start no services. The command has its own /run, /tmp
and /dev, and this machine's name servers. Nothing stays mounted, however it ends.")]
    Exec(enter::ExecArgs),
    /// Open a shell in a working copy
    #[command(after_help = "\
Example:
  rackstrap image shell debian-work")]
    Shell {
        /// Working copy, such as debian-work
        work: String,
    },
    /// The first process of exec and shell
    #[command(hide = true, after_help = "Used by `exec` and `shell` only.")]
    Inside {
        /// Descriptor of a pipe
        pipe: i32,
        /// Descriptor of a lock
        lock: i32,
    },
    /// Seal a working copy as the next version of its image
    #[command(after_help = "\
Examples:
  rackstrap image seal debian-work --message 'security updates'
  rackstrap image seal new-driver --as debian-gpu
  rackstrap image seal debian-arm --as debian@4    (a further variant of that version)")]
    Seal(work::SealArgs),
    /// Verify that versions have not changed since they were sealed
    #[command(after_help = "\
Example:
  rackstrap image verify debian@4")]
    Verify {
        /// Version (NAME@VERSION), or NAME for the newest version
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Compare two versions: packages and files
    #[command(after_help = "\
Examples:
  rackstrap image diff debian@3 debian@4
  rackstrap image diff debian@3 debian-work --packages
  rackstrap image diff debian@3 debian --files --json
  rackstrap image diff debian@3 debian@4 --arch arm64

+ is only in the second, - only in the first, ~ differs. Times of files are not compared.")]
    Diff(diff::DiffArgs),
    /// Delete working copies, and versions that no node uses
    #[command(after_help = "\
Examples:
  rackstrap image delete debian@2 debian-work
  rackstrap image delete 'debian@[1-3]'

Versions that a node uses or a profile names are not deleted; the refusal names the users.")]
    Delete(delete::DeleteArgs),
    /// Delete all versions that nothing needs, and remains of interrupted commands
    #[command(after_help = "\
Examples:
  rackstrap image gc --dry-run
  rackstrap image gc --keep 2 --yes")]
    Gc(delete::GcArgs),
    /// Rename an image that no node uses
    #[command(after_help = "\
Example:
  rackstrap image rename debian debian12")]
    Rename {
        /// Present name
        old: String,
        /// New name
        new: String,
    },
}

/// Runs the command. Images are directories, so no daemon is needed. A running daemon is told to read them again.
///
/// # Errors
/// Those of the command.
pub fn run(config: &Path, args: ImageArgs) -> Result<ExitCode> {
    if let ImageCommand::Inside { pipe, lock } = args.command {
        return Ok(ExitCode::from(rackstrap_image::run_inside(pipe, lock)));
    }
    if let ImageCommand::Order(order) = &args.command {
        return carry_out(config, order);
    }
    let (site, _) = rackstrap_site::load(config)?;
    let images = site.server.state_dir.join("images");
    if let Some(why) = needs_root(&images) {
        bail!("{why}");
    }
    let (text, changed) = match args.command {
        ImageCommand::Import(args) => (import::run(args, images)?, true),
        ImageCommand::List { json } => (list::list(config, &site, json)?, false),
        ImageCommand::Show { image, json } => (list::show(&images, &image, json)?, false),
        ImageCommand::Exec(args) => return enter::exec(args, images),
        ImageCommand::Shell { work } => return enter::shell(work, images),
        ImageCommand::Inside { .. } | ImageCommand::Order(_) => unreachable!("answered above"),
        ImageCommand::Clone(args) => (work::clone(args, images)?, false),
        ImageCommand::Seal(args) => (work::run_seal(args, images)?, true),
        ImageCommand::Diff(args) => return diff::run(args, &images).map(|()| ExitCode::SUCCESS),
        ImageCommand::Delete(args) => (delete::delete(args, config, &site)?, false),
        ImageCommand::Gc(args) => (delete::gc(args, config, &site)?, false),
        ImageCommand::Rename { old, new } => (delete::rename(&old, &new, config, &site)?, true),
        ImageCommand::Verify { images: wanted, format } => (work::run_verify(&wanted, format, &images)?, false),
    };
    output::print(&text)?;
    if changed {
        rescan(config, &site.server.socket)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the daemon, if one runs, read the directory of images again.
fn rescan(config: &Path, socket: &Path) -> Result<()> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        let told: Done = connection::connect(config)?.post(paths::RESCAN, &())?;
        if !told.message.is_empty() {
            output::print(&told.message)?;
        }
    }
    Ok(())
}

/// The version that `image` names: `NAME@VERSION`, or `NAME` for the newest one.
fn find<'c>(catalog: &'c Catalog, image: &str) -> Result<&'c ImageVersion> {
    let found = match image.contains('@') {
        true => catalog.get(&image.parse::<ImageRef>()?),
        false => catalog.newest(image),
    };
    if let Some(version) = found {
        return Ok(version);
    }
    let known: Vec<String> = catalog.iter().map(|v| v.manifest.image.to_string()).collect();
    match known.is_empty() {
        true => bail!("image {image} does not exist: no image has been imported yet"),
        false => bail!("image {image} does not exist; available: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        let command = ImageArgs::augment_args(clap::Command::new("image"));
        command.clone().debug_assert();
        let parsed = command.try_get_matches_from([
            "image", "import", "debian", "--from", "/x", "--module", "a", "--module", "b",
        ]);
        assert!(parsed.is_ok());
    }
}
