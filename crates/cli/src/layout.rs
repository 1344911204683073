//! `rackstrap layout`

use super::{
    connection::connect,
    output::{self, Format},
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rackstrap_control::api;
use rackstrap_wire::Wipe;
use std::{path::Path, process::ExitCode};

/// Arguments of `rackstrap layout`.
#[derive(Debug, Args)]
pub struct LayoutArgs {
    #[command(subcommand)]
    command: LayoutCommand,
}

#[derive(Debug, Subcommand)]
enum LayoutCommand {
    /// List the layouts of the site file that the daemon has loaded
    #[command(after_help = "\
Example:
  rackstrap layout list")]
    List(Format),
    /// Show one layout with its partitions
    #[command(after_help = "\
A disk is prepared again if the layout's name or version differs from the disk's marker. If only the digest differs,
the disk is kept, and the node is degraded until you raise the version.

Example:
  rackstrap layout show scratch")]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Name
    #[arg(add = crate::complete::layouts())]
    name: String,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: LayoutArgs) -> Result<ExitCode> {
    let layouts: Vec<api::LayoutRow> = connect(config)?.get(api::paths::LAYOUTS)?;
    match args.command {
        LayoutCommand::List(format) if format.json => output::print_json(&layouts)?,
        LayoutCommand::List(_) => output::print(&list(&layouts))?,
        LayoutCommand::Show(args) => {
            let Some(layout) = layouts.iter().find(|row| row.layout.name == args.name) else {
                let known = output::list(layouts.iter().map(|row| &row.layout.name));
                bail!("layout '{}' does not exist; the site file has: {known}", args.name);
            };
            match args.format.json {
                true => output::print_json(layout)?,
                false => output::print(&describe(layout))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(layouts: &[api::LayoutRow]) -> String {
    if layouts.is_empty() {
        return "no layouts: local disks are left alone; add a [layout.NAME] to the site file".to_owned();
    }
    let mut table = output::table(["layout", "version", "table", "partitions", "wipe", "profiles"]);
    for row in layouts {
        table.add_row(vec![
            row.layout.name.as_str().into(),
            output::right(row.layout.version),
            row.layout.table.to_string().into(),
            output::list(row.layout.partitions.iter().map(|p| &p.name)).into(),
            wipe(row.wipe).into(),
            output::list(&row.profiles).into(),
        ]);
    }
    output::render(&table)
}

fn wipe(wipe: Wipe) -> &'static str {
    match wipe {
        Wipe::Ours => "ours",
        Wipe::Known => "known",
        Wipe::Always => "always",
    }
}

fn describe(row: &api::LayoutRow) -> String {
    let facts = output::facts(&[
        ("layout", format!("{} v{}", row.layout.name, row.layout.version)),
        ("digest", row.digest.clone()),
        ("table", row.layout.table.to_string()),
        ("wipe", wipe(row.wipe).to_owned()),
        ("disk", output::dash(row.disk.as_deref().unwrap_or_default())),
        ("profiles", output::list(&row.profiles)),
    ]);
    let mut table = output::table(["partition", "size", "fs", "label", "mount", "options", "owner", "mode"]);
    for partition in &row.layout.partitions {
        let root = row.roots.iter().find(|root| root.partition == partition.name);
        let owner = root.and_then(|root| root.owner);
        let mode = root.and_then(|root| root.mode);
        let content = row.contents.iter().find(|content| content.partition == partition.name);
        let label = content.and_then(|content| content.label.as_deref());
        let encrypt = content.and_then(|content| content.encrypt);
        table.add_row(vec![
            partition.name.as_str().into(),
            output::right(partition.size),
            match encrypt {
                Some(encrypt) => format!("{}, {}", partition.fs.as_str(), encrypt.as_str()).into(),
                None => partition.fs.as_str().into(),
            },
            output::dash(label.unwrap_or_default()).into(),
            output::dash(partition.mount.as_deref().unwrap_or_default()).into(),
            output::dash(&partition.options).into(),
            owner
                .map_or_else(|| "-".to_owned(), |(user, group)| format!("{user}:{group}"))
                .into(),
            mode.map_or_else(|| "-".to_owned(), |mode| format!("{mode:04o}")).into(),
        ]);
    }
    format!("{facts}\n\n{}", output::render(&table))
}
