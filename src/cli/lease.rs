//! `rackstrap lease`

use super::{
    connection::connect,
    output::{self, Format},
};
use crate::{clock::Timestamp, control::api};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::{path::Path, process::ExitCode};

/// Arguments of `rackstrap lease`.
#[derive(Debug, Args)]
pub struct LeaseArgs {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// List the leases of the temporary pools; nodes have fixed addresses and none
    #[command(after_help = "\
Example:
  rackstrap lease list")]
    List(Format),
}

/// Runs it.
pub fn run(config: &Path, args: LeaseArgs) -> Result<ExitCode> {
    let LeaseCommand::List(format) = args.command;
    let leases: Vec<api::LeaseRow> = connect(config)?.get(api::paths::LEASES)?;
    if format.json {
        output::print_json(&leases)?;
    } else if leases.is_empty() {
        output::print("no leases: no unknown machine has asked for an address")?;
    } else {
        let mut table = output::table(["address", "hwaddr", "state", "since", "expires"]);
        for lease in &leases {
            let text = |name: &str| lease.lease.get(name).and_then(|v| v.as_str()).unwrap_or("-").to_owned();
            let time = |name: &str| {
                let millis = lease.lease.get(name).and_then(serde_json::Value::as_u64);
                millis.map_or("-".to_owned(), |millis| output::local_time(Timestamp(millis)))
            };
            table.add_row([
                lease.ipaddr.to_string(),
                text("hwaddr"),
                text("state"),
                time("since"),
                time("expires"),
            ]);
        }
        output::print(&output::render(&table))?;
    }
    Ok(ExitCode::SUCCESS)
}
