//! `rackstrap restore`

use super::{
    backup::{Shown, check, progress},
    connection,
    output::{self, Format},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_base::clock::Timestamp;
use rackstrap_registries::{boots, nodes, rollout};
use rackstrap_store::{
    Staged,
    backup::{Reader, file::date},
};
use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `rackstrap restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Stop the daemon first. The whole backup is checked before a new store replaces the old one atomically. The old store
is kept as store.redb.before-restore-DATE. A backup of an older rackstrap is migrated; one of a newer rackstrap is
refused.

Leases, boots and disks describe what machines use now, so they are kept from the old store if it can be read. If it
cannot, they come from the backup. Then nodes that have booted another version since the backup lose their root and
must be restarted, and the disk layouts of the site file count as confirmed.

A backup does not contain the site file, templates, boot scripts and images.

Examples:
  rackstrap restore lab.backup --dry-run
  systemctl stop rackstrap && rackstrap restore lab.backup && systemctl start rackstrap")]
pub struct RestoreArgs {
    /// Backup to restore, such as lab.backup
    file: PathBuf,
    /// Check the backup and print what it contains, and change nothing; the daemon may run
    #[arg(long)]
    dry_run: bool,
    /// Restore it even if it is from another cluster
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: RestoreArgs) -> Result<ExitCode> {
    let file = &args.file;
    let header = check(file)?;
    let shown = Shown::new(file, &header);
    let cluster = connection::cluster(config)?;
    if cluster != header.cluster && !args.force {
        bail!(
            "backup {} is from the cluster '{}', but the site file {} is for '{cluster}'\nhelp: `rackstrap restore --force` restores it nevertheless",
            file.display(),
            header.cluster,
            config.display()
        );
    }
    if args.dry_run {
        shown.print(args.format)?;
        if !args.format.json {
            output::print("the backup is complete and unaltered; nothing was changed: --dry-run")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let target = connection::store(config)?;
    // The file is read and checked again, because it may have changed since the first check.
    let input = File::open(file).with_context(|| format!("backup {}: cannot open it", file.display()))?;
    let mut reader = Reader::new(BufReader::with_capacity(1 << 17, input)).context("reading it again")?;
    if *reader.header() != header {
        bail!("nothing was changed: {} was replaced while it was read", file.display());
    }
    let bar = progress("restoring", reader.header());
    let staged = Staged::write(&mut reader, &target, || bar.inc(1))
        .with_context(|| format!("nothing was changed: restoring {}", file.display()))?;
    bar.finish_and_clear();
    let nodes = look_at(&staged).context("nothing was changed: the restored store would be damaged")?;
    let took_along = staged.took_along();
    let kept = staged
        .put_in_place(&date(Timestamp::now()))
        .with_context(|| format!("restoring {}", file.display()))?;
    if args.format.json {
        shown.print(args.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut said = shown.text();
    said += &format!("\n\nrestored: {} in {}", output::count(nodes, "node"), target.display());
    if let Some(kept) = kept {
        said += &format!("\nthe old store is kept as {}", kept.display());
    }
    if took_along {
        said += "\nleases, boots and disks are kept from the old store, because machines use them now";
    } else {
        said += "\nthe old store could not be read, so ordered restarts and disk preparations are lost";
    }
    said += "\nhelp: `systemctl start rackstrap` starts the daemon";
    output::print(&said)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that a daemon can start with the restored store. Returns the number of its nodes.
fn look_at(staged: &Staged) -> Result<usize> {
    let store = staged.store().context("it is closed")?;
    let nodes = nodes::load(store)?;
    if !staged.took_along() {
        // Secrets are sent once for each boot, and may have been sent after the backup was made.
        boots::redeem_all(store)?;
        boots::trust_site_file(store)?;
    }
    rollout::pause_all(store, Timestamp::now())?;
    boots::Boots::load(store.clone())?;
    Ok(nodes.len())
}
