//! `rackstrap reload`

use super::{
    ask,
    connection::connect,
    output::{self, Format},
};
use anyhow::{Result, bail};
use clap::Args;
use rackstrap_control::{Client, api};
use rackstrap_model::disks::{DiskEffect, describe_effects};
use std::{io::IsTerminal, path::Path, process::ExitCode};

/// At most this many lines about nodes' disks, so that they fit a screen.
const MOST_LINES: usize = 20;

/// Arguments of `rackstrap reload`.
#[derive(Debug, Args)]
#[command(after_help = "\
Does the same as `systemctl reload rackstrap`, and prints the result. A faulty site file is refused, and the daemon
keeps the old one. If a new layout version (or wipe = \"always\") makes nodes lose data at their next boots, the nodes
and their data are listed, and the file is accepted only after you confirm, or with --reprep.

Examples:
  rackstrap check && rackstrap reload
  rackstrap reload --reprep             (nodes prepare their disks at the next boot)")]
pub struct ReloadArgs {
    /// Accept the file even if nodes will prepare their disks again and lose the data on them
    #[arg(long)]
    reprep: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: ReloadArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    let mut reloaded = reload(&client, args.reprep)?;
    if !reloaded.done {
        eprintln!("{}", list(&reloaded.effects));
        if args.format.json {
            output::print_json(&reloaded)?;
        }
        if args.format.json || !std::io::stdin().is_terminal() {
            bail!(
                "the old site file stays in use, because nodes would lose data\nhelp: `rackstrap reload --reprep` \
                 accepts the new file; the nodes prepare their disks at the next boot"
            );
        }
        if !ask::yes(
            "accept the file, so that these nodes lose their data at the next boot?",
            false,
        )? {
            bail!("the old site file stays in use");
        }
        reloaded = reload(&client, true)?;
    }
    if args.format.json {
        output::print_json(&reloaded)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&reloaded.message)?;
    if !reloaded.effects.is_empty() {
        output::print(&list(&reloaded.effects))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn reload(client: &Client, reprep: bool) -> Result<api::Reloaded> {
    Ok(client.post(api::paths::RELOAD, &api::Reload { reprep })?)
}

fn list(effects: &[DiskEffect]) -> String {
    describe_effects(effects, MOST_LINES).join("\n")
}
