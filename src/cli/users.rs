//! `rackstrap users`

use super::{
    connection::connect,
    output::{self, Format},
};
use crate::{control::api, inventory::hostlist::NodeSet, overlay::UsersReport};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::{collections::HashMap, path::Path, process::ExitCode};

/// Arguments of `rackstrap users`.
#[derive(Debug, Args)]
pub struct UsersArgs {
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// List the users that nodes know beside their image's own, and whom they do not get
    #[command(after_help = "\
Example:
  rackstrap users list")]
    List(Format),
    /// Have the daemon look at passwd, group and shadow now, and name running nodes that have older ones
    #[command(after_help = "\
Nodes get the users as they are at each of their boots, without this. Running nodes keep those that they booted with.

Example:
  rackstrap users sync")]
    Sync(SyncArgs),
}

/// Arguments of `rackstrap users sync`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  rackstrap sync-users")]
pub struct SyncArgs {
    #[command(flatten)]
    format: Format,
}

/// Runs it.
pub fn run(config: &Path, args: UsersArgs) -> Result<ExitCode> {
    match args.command {
        UsersCommand::List(format) => {
            let report: UsersReport = connect(config)?.get(api::paths::USERS)?;
            match format.json {
                true => output::print_json(&report)?,
                false => output::print(&format!("{}\n\n{}", list(&report), summary(&report)))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        UsersCommand::Sync(args) => sync(config, &args),
    }
}

/// Runs `rackstrap users sync`.
pub fn sync(config: &Path, args: &SyncArgs) -> Result<ExitCode> {
    let report: UsersReport = connect(config)?.get(api::paths::USERS)?;
    match args.format.json {
        true => output::print_json(&report)?,
        false => output::print(&summary(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(report: &UsersReport) -> String {
    let accounts = &report.accounts;
    let mut groups: HashMap<&str, Vec<&str>> = HashMap::new();
    for group in &accounts.groups {
        for member in &group.members {
            groups.entry(member).or_default().push(&group.name);
        }
    }
    let mut table = output::table(["user", "uid", "gid", "home", "shell", "groups"]);
    for user in &accounts.users {
        table.add_row(vec![
            user.name.clone().into(),
            output::right(user.uid),
            output::right(user.gid),
            user.home.clone().into(),
            output::dash(&user.shell).into(),
            output::list(groups.get(user.name.as_str()).into_iter().flatten()).into(),
        ]);
    }
    output::render(&table)
}

fn summary(report: &UsersReport) -> String {
    let accounts = &report.accounts;
    let mut text = format!(
        "{} and {} of {}",
        output::count(accounts.users.len(), "user"),
        output::count(accounts.groups.len(), "group"),
        report.from.display()
    );
    let refused = accounts
        .refused
        .iter()
        .map(|line| format!("{}/{line}", report.from.display()));
    for warning in refused.chain(report.conflicts.iter().cloned()) {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    if accounts.omitted > 0 {
        text.push_str(&format!("\nwarning: {} more lines are left out", accounts.omitted));
    }
    let stale: NodeSet = report.stale.iter().map(String::as_str).collect();
    match stale.len() {
        0 => text.push_str("\nevery running node has them"),
        count => text.push_str(&format!(
            "\n{} {} with others, until its next boot: {stale}",
            output::count(count, "node"),
            if count == 1 { "runs" } else { "run" }
        )),
    }
    text
}
