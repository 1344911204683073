//! `rackstrap node history`

use crate::{
    cli::output::{self, Format},
    control::{Client, api, segment},
    inventory::Entry,
};
use anyhow::Result;
use clap::Args;

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Name
    #[arg(value_name = "NODE")]
    name: String,
    #[command(flatten)]
    format: Format,
}

/// Runs it.
pub fn run(client: &Client, args: &HistoryArgs) -> Result<()> {
    let entries: Vec<Entry> = client.get(&format!("{}{}", api::paths::HISTORY, segment(&args.name)))?;
    if args.format.json {
        return output::print_json(&entries);
    }
    let mut table = output::table(["when", "who", "what"]);
    for entry in &entries {
        table.add_row([output::local_time(entry.at), entry.by.clone(), entry.lines().join("\n")]);
    }
    output::print(&output::render(&table))
}
