//! `rackstrap lease`

use super::{
    connection::connect,
    output::{self, Format},
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rackstrap_control::api;
use rackstrap_hostlist::NoGroups;
use std::{collections::HashSet, path::Path, process::ExitCode};

/// Arguments of `rackstrap lease`.
#[derive(Debug, Args)]
pub struct LeaseArgs {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// List the leases of the temporary pools; nodes have fixed addresses, not leases
    #[command(after_help = "\
Example:
  rackstrap lease list")]
    List(Format),
    /// Release leases of the temporary pools, so that other machines can have the addresses
    #[command(after_help = "\
Release only leases of machines that are gone: a machine that is still on keeps using its address, and another machine
may get the same one. Nodes have no leases; `rackstrap node delete` frees their addresses.

Examples:
  rackstrap lease release 10.5.255.17
  rackstrap lease release 52:54:00:12:34:56
  rackstrap lease release --dry-run '10.5.255.[1-254]'")]
    Release(ReleaseArgs),
}

/// Arguments of `rackstrap lease release`.
#[derive(Debug, Args)]
struct ReleaseArgs {
    /// Addresses, also as a hostlist ('10.5.255.[1-254]'), or hardware addresses
    #[arg(required = true, value_name = "ADDRESS|HWADDR")]
    leases: Vec<String>,
    /// Print what would be released, and release nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: LeaseArgs) -> Result<ExitCode> {
    match args.command {
        LeaseCommand::List(format) => list(config, format),
        LeaseCommand::Release(args) => release(config, args),
    }
}

fn list(config: &Path, format: Format) -> Result<ExitCode> {
    let leases: Vec<api::LeaseRow> = connect(config)?.get(api::paths::LEASES)?;
    if format.json {
        output::print_json(&leases)?;
    } else if leases.is_empty() {
        output::print("no leases: no unknown machine has asked for an address")?;
    } else {
        output::print(&table(&leases))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn release(config: &Path, args: ReleaseArgs) -> Result<ExitCode> {
    let (mut leases, mut single) = (Vec::new(), HashSet::new());
    for text in &args.leases {
        let named: Vec<String> = match text.parse::<rackstrap_wire::HwAddr>() {
            Ok(_) => vec![text.clone()],
            Err(_) => rackstrap_hostlist::expand(text, &NoGroups)?
                .iter()
                .map(str::to_owned)
                .collect(),
        };
        // Most addresses of a range may have no lease, which is not an error. A single address without one is an error.
        if named.len() == 1 {
            single.extend(named.iter().cloned());
        }
        leases.extend(named);
    }
    let mut seen = HashSet::new();
    leases.retain(|lease| seen.insert(lease.clone()));
    let asked = api::ReleaseLeases {
        leases,
        dry_run: args.dry_run,
    };
    let answer: api::Released = connect(config)?.post(api::paths::LEASES_RELEASE, &asked)?;
    let none: Vec<&str> = answer
        .none
        .iter()
        .map(String::as_str)
        .filter(|lease| single.contains(*lease))
        .collect();
    if !none.is_empty() {
        let none = format!(
            "no lease found for {}\nhelp: `rackstrap lease list` shows all leases",
            none.join(", ")
        );
        if answer.released.is_empty() {
            bail!(none);
        }
        eprintln!("warning: {none}");
    }
    if args.format.json {
        output::print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !answer.released.is_empty() {
        output::print(&table(&answer.released))?;
    }
    let count = output::count(answer.released.len(), "lease");
    output::print(&match args.dry_run {
        true => format!("{count} would be released; nothing was changed: --dry-run"),
        false => format!("{count} released"),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn table(leases: &[api::LeaseRow]) -> String {
    let mut table = output::table(["address", "hwaddr", "state", "since", "expires"]);
    for lease in leases {
        table.add_row([
            lease.ipaddr.to_string(),
            lease.hwaddr.to_string(),
            lease.state.as_str().to_owned(),
            output::local_time(lease.since),
            output::local_time(lease.expires),
        ]);
    }
    output::render(&table)
}
