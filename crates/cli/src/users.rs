//! `rackstrap users`

use super::{
    connection::connect,
    output::{self, Format},
};
use anyhow::Result;
use clap::{Args, Subcommand};
use rackstrap_control::api::{self, UsersReport};
use rackstrap_hostlist::NodeSet;
use std::{collections::HashMap, path::Path, process::ExitCode};

/// Arguments of `rackstrap users`.
#[derive(Debug, Args)]
pub struct UsersArgs {
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// List the server's users that nodes get in addition to their image's, and those they do not get
    #[command(after_help = "\
Example:
  rackstrap users list")]
    List(Format),
    /// Read passwd, group and shadow now; running nodes update at their next heartbeat
    #[command(after_help = "\
The daemon notices changes by itself within ten seconds; this command does it now. Nodes also get the users at each boot.

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

/// Runs the command.
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
    let report: UsersReport = connect(config)?.post(api::paths::USERS_SYNC, &())?;
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
    if report.behind.is_empty() && report.stale.is_empty() && report.own.is_empty() {
        text.push_str("\nall running nodes have these users");
        return text;
    }
    for (nodes, what) in [
        (&report.current, "with them"),
        (&report.behind, "with older users, until the next heartbeat"),
        (
            &report.stale,
            "with older users, until the next boot (the image has an older agent: clone and seal it again)",
        ),
        (
            &report.own,
            "with a passwd or group file from the site's own trees, without these users",
        ),
    ] {
        let nodes: NodeSet = nodes.iter().map(String::as_str).collect();
        if !nodes.is_empty() {
            let (count, verb) = (nodes.len(), if nodes.len() == 1 { "runs" } else { "run" });
            text.push_str(&format!("\n{} {verb} {what}: {nodes}", output::count(count, "node")));
        }
    }
    text
}
