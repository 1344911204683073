//! `rackstrap restore`

use super::{
    backup::{Shown, check, progress},
    connection,
    output::{self, Format},
};
use crate::{boots, nodes, rollout};
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_base::clock::Timestamp;
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
The daemon has to be stopped. The whole backup is checked first; then a new store is made of it, which takes the old
one's place at one stroke. The old one stays beside it as store.redb.before-restore-DATE. A backup of an older rackstrap
is brought up to date; one of a newer rackstrap is refused.

Leases, boots and disks are about the present: machines hold those addresses, run from those roots, and have data on those
disks. What is known of them is kept as it is now if the old store can be read. If it cannot, it is the backup's; then nodes
that have booted another version of their image since lose their root, and have to be restarted, and the disk layouts of the
site file count as confirmed.

The site file, templates, boot scripts and images are not in a backup.

Examples:
  rackstrap restore lab.backup --dry-run
  systemctl stop rackstrap && rackstrap restore lab.backup && systemctl start rackstrap")]
pub struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Check the backup and print what is in it, and change nothing; the daemon may run
    #[arg(long)]
    dry_run: bool,
    /// Restore it also if it is another cluster's
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs it.
pub fn run(config: &Path, args: RestoreArgs) -> Result<ExitCode> {
    let file = &args.file;
    let header = check(file)?;
    let shown = Shown::new(file, &header);
    let cluster = connection::cluster(config)?;
    if cluster != header.cluster && !args.force {
        bail!(
            "backup {}: it is of the cluster '{}', and the site file {} is of '{cluster}'; if that is what you want, add --force",
            file.display(),
            header.cluster,
            config.display()
        );
    }
    if args.dry_run {
        shown.print(args.format)?;
        if !args.format.json {
            output::print("it is complete and unaltered; nothing was changed: --dry-run")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let target = connection::store(config)?;
    // Read again from its beginning, and checked again: what was checked before might have been changed.
    let input = File::open(file).with_context(|| format!("backup {}: cannot open it", file.display()))?;
    let mut reader = Reader::new(BufReader::with_capacity(1 << 17, input)).context("reading it again")?;
    if *reader.header() != header {
        bail!(
            "nothing was changed: {} became another backup while it was read",
            file.display()
        );
    }
    let bar = progress("restoring", reader.header());
    let staged = Staged::write(&mut reader, &target, || bar.inc(1))
        .with_context(|| format!("nothing was changed: restoring {}", file.display()))?;
    bar.finish_and_clear();
    let nodes = look_at(&staged).context("nothing was changed: the restored store would be no good")?;
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
        said += "\nleases, boots and disks are those of the old store, as machines have them now";
    } else {
        said +=
            "\nthe old store could not be read, so restarts and preparations of disks that were ordered are forgotten";
    }
    said += "\ngo on: systemctl start rackstrap";
    output::print(&said)?;
    Ok(ExitCode::SUCCESS)
}

/// The store has to be one that a daemon can begin with; tells the number of its nodes.
fn look_at(staged: &Staged) -> Result<usize> {
    let store = staged.store().context("it is closed")?;
    let nodes = nodes::load(store)?;
    if !staged.took_along() {
        // Secrets go out once a boot, and may have gone out after the backup was made.
        boots::redeem_all(store)?;
        boots::trust_site_file(store)?;
    }
    rollout::pause_all(store, Timestamp::now())?;
    boots::Boots::load(store.clone())?;
    Ok(nodes.len())
}
