//! `rackstrap counters`

use super::{
    connection::connect,
    output::{self, Format},
};
use crate::control::api;
use anyhow::{Result, bail};
use clap::Args;
use std::{collections::BTreeMap, path::Path, process::ExitCode};

/// Arguments of `rackstrap counters`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every packet ends as an answer or as a reason for none; here is how often each happened.

Examples:
  rackstrap counters
  rackstrap counters dhcp              (those whose name holds 'dhcp')")]
pub struct CountersArgs {
    /// Only counters whose name holds this
    filter: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// Runs it.
pub fn run(config: &Path, args: CountersArgs) -> Result<ExitCode> {
    let mut counters: BTreeMap<String, u64> = connect(config)?.get(api::paths::COUNTERS)?;
    if let Some(filter) = &args.filter {
        counters.retain(|name, _| name.contains(filter.as_str()));
    }
    if let Some(filter) = args.filter.filter(|_| counters.is_empty() && !args.format.json) {
        bail!("no counter has '{filter}' in its name; all of them: rackstrap counters");
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
