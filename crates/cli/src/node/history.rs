//! `rackstrap node history`

use crate::{
    hostlist::Wanted,
    output::{self, Format},
};
use anyhow::Result;
use clap::Args;
use rackstrap_control::{Client, api, segment};
use rackstrap_model::inventory::differences;

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Names or hostlists, also of deleted nodes
    #[arg(required = true, value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(client: &Client, args: &HistoryArgs) -> Result<()> {
    let names = Wanted::new(args.nodes.clone())?.names(client)?;
    let mut rows: Vec<(String, api::HistoryRow)> = Vec::new();
    for name in &names {
        let entries: Vec<api::HistoryRow> = client.get(&format!("{}{}", api::paths::HISTORY, segment(name)))?;
        if args.format.json {
            output::print_json(&entries)?;
        }
        rows.extend(entries.into_iter().map(|entry| (name.clone(), entry)));
    }
    if args.format.json {
        return Ok(());
    }
    rows.sort_by_key(|(_, entry)| entry.at);
    let mut table = output::table(["when", "who", "node", "what"]);
    for (name, entry) in rows {
        table.add_row([
            output::local_time(entry.at),
            entry.by.clone(),
            name,
            differences(&entry.changed.into()).join("\n"),
        ]);
    }
    output::print(&output::render(&table))
}
