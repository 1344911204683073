//! `rackstrap counters`

use super::{
    connection::connect,
    output::{self, Format},
};
use anyhow::{Result, bail};
use clap::Args;
use rackstrap_control::api;
use std::{collections::BTreeMap, path::Path, process::ExitCode};

/// Arguments of `rackstrap counters`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every packet is either answered, or dropped for a reason. The counters say how often each happened.

Examples:
  rackstrap counters
  rackstrap counters dhcp              (names that contain 'dhcp')")]
pub struct CountersArgs {
    /// Show only counters whose name contains this, such as dhcp
    filter: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: CountersArgs) -> Result<ExitCode> {
    let mut counters: BTreeMap<String, u64> = connect(config)?.get(api::paths::COUNTERS)?;
    if let Some(filter) = &args.filter {
        counters.retain(|name, _| name.contains(filter.as_str()));
    }
    if let Some(filter) = args.filter.filter(|_| counters.is_empty() && !args.format.json) {
        bail!("no counter has '{filter}' in its name\nhelp: `rackstrap counters` lists all");
    }
    if args.format.json {
        output::print_json(&counters)?;
    } else {
        let mut table = output::table(["counter", "count"]);
        for (name, count) in &counters {
            table.add_row(vec![name.as_str().into(), output::right(count)]);
        }
        output::print(&output::render(&table))?;
    }
    Ok(ExitCode::SUCCESS)
}
