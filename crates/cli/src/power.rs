//! `rackstrap power`: reads and switches the power of nodes by their BMCs.

use super::{
    ask,
    connection::connect,
    hostlist::{HELP, Wanted},
    output::{self, Format},
    watching::next_answer,
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use rackstrap_control::{
    Client,
    api::{self, BootFrom, Level, PowerAnswer, PowerBegun, PowerVerb, SwitchPower},
};
use rackstrap_hostlist::NodeSet;
use std::{
    collections::BTreeMap,
    io::{IsTerminal, stderr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

/// More nodes than this are switched only after a question, or with --yes.
const ASKS_ABOVE: usize = 8;

/// Arguments of `rackstrap power`.
#[derive(Debug, Args)]
pub struct PowerArgs {
    #[command(subcommand)]
    command: PowerCommand,
}

#[derive(Debug, Subcommand)]
enum PowerCommand {
    /// Show whether the power of nodes is on
    #[command(after_help = format!("{HELP}\n\nExamples:\n  rackstrap power status r01n01\n  rackstrap power status 'r01n[01-32]' --json"))]
    Status(LookArgs),
    /// Switch nodes on
    #[command(after_help = format!("{HELP}\n\nExamples:\n  rackstrap power on r01n01\n  rackstrap power on 'r01n[01-32]' --yes"))]
    On(SwitchArgs),
    /// Switch nodes off at once, without their operating systems
    #[command(after_help = format!("{HELP}\n\nExample:\n  rackstrap power off r01n01"))]
    Off(SwitchArgs),
    /// Ask the operating systems of nodes to shut down, and wait until the power is off
    #[command(after_help = format!("{HELP}\n\nExample:\n  rackstrap power soft r01n01 --within 5m"))]
    Soft(SwitchArgs),
    /// Switch nodes off and on again
    #[command(after_help = format!("{HELP}\n\nExample:\n  rackstrap power cycle r01n01"))]
    Cycle(SwitchArgs),
    /// Reset nodes, without switching the power off
    #[command(after_help = format!("{HELP}\n\nExample:\n  rackstrap power reset r01n01"))]
    Reset(SwitchArgs),
    /// Let the identify lights of nodes blink
    #[command(after_help = format!("{HELP}\n\nExamples:\n  rackstrap power identify r01n01\n  rackstrap power identify r01n01 --seconds 0"))]
    Identify(IdentifyArgs),
    /// Set where the next boot of nodes is from, once
    #[command(after_help = format!("{HELP}\n\nExamples:\n  rackstrap power boot r01n01 --from network --efi\n  rackstrap power boot r01n01 --from setup"))]
    Boot(BootArgs),
}

#[derive(Debug, Args)]
struct LookArgs {
    /// Names or hostlists
    #[arg(required = true, value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Give up a node after this time (30s, 2m)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    within: Duration,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct SwitchArgs {
    /// Names or hostlists
    #[arg(required = true, value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Give up a node that has not reached its state after this time (2m, 5m)
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Do not ask for confirmation; without it, more than 8 nodes are switched only after a question
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct IdentifyArgs {
    #[command(flatten)]
    look: LookArgs,
    /// Number of seconds that the lights blink; 0 switches them off
    #[arg(long, value_name = "N", default_value_t = 15)]
    seconds: u8,
}

#[derive(Debug, Args)]
struct BootArgs {
    #[command(flatten)]
    look: LookArgs,
    /// Where the next boot is from; `firmware` takes an earlier order back
    #[arg(long, value_name = "DEVICE")]
    from: Source,
    /// The firmware boots as UEFI does
    #[arg(long)]
    efi: bool,
}

/// The values of `--from`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    Network,
    Disk,
    Setup,
    Firmware,
}

/// Runs the command.
pub fn run(config: &Path, args: PowerArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    match args.command {
        PowerCommand::Status(args) => look(&client, PowerVerb::Status, args, |_| ()),
        PowerCommand::Identify(args) => {
            let seconds = args.seconds;
            look(&client, PowerVerb::Identify, args.look, |asked| {
                asked.identify_secs = seconds
            })
        }
        PowerCommand::Boot(args) => {
            let from = match args.from {
                Source::Network => BootFrom::Network,
                Source::Disk => BootFrom::Disk,
                Source::Setup => BootFrom::Setup,
                Source::Firmware => BootFrom::Firmware,
            };
            let efi = args.efi;
            look(&client, PowerVerb::Boot, args.look, |asked| {
                (asked.boot_from, asked.efi) = (Some(from), efi)
            })
        }
        PowerCommand::On(args) => switch(&client, PowerVerb::On, args),
        PowerCommand::Off(args) => switch(&client, PowerVerb::Off, args),
        PowerCommand::Soft(args) => switch(&client, PowerVerb::Soft, args),
        PowerCommand::Cycle(args) => switch(&client, PowerVerb::Cycle, args),
        PowerCommand::Reset(args) => switch(&client, PowerVerb::Reset, args),
    }
}

fn look(client: &Client, verb: PowerVerb, args: LookArgs, more: impl Fn(&mut SwitchPower)) -> Result<ExitCode> {
    let nodes = Wanted::new(args.nodes)?.some_names(client)?;
    let mut asked = request(verb, nodes, args.within);
    more(&mut asked);
    carry_out(client, &asked, args.format)
}

fn request(verb: PowerVerb, nodes: Vec<String>, within: Duration) -> SwitchPower {
    SwitchPower {
        verb,
        nodes,
        within_secs: u32::try_from(within.as_secs()).unwrap_or(u32::MAX),
        identify_secs: 0,
        boot_from: None,
        efi: false,
    }
}

fn switch(client: &Client, verb: PowerVerb, args: SwitchArgs) -> Result<ExitCode> {
    let nodes = Wanted::new(args.nodes)?.some_names(client)?;
    if nodes.len() > ASKS_ABOVE && !args.yes {
        let set: NodeSet = nodes.iter().map(String::as_str).collect();
        let question = format!("power {verb} of {}: {set}?", output::count(nodes.len(), "node"));
        if !ask::yes(&question, false)? {
            bail!("nothing was switched");
        }
    }
    carry_out(client, &request(verb, nodes, args.within), args.format)
}

/// Has the daemon do it, waits for all results, and prints them.
fn carry_out(client: &Client, asked: &SwitchPower, format: Format) -> Result<ExitCode> {
    let begun: PowerBegun = client.post(api::paths::POWER, asked)?;
    let answer = wait(client, begun.id)?;
    match format.json {
        true => output::print_json(&answer)?,
        false => output::print(&describe(&answer))?,
    }
    let failed = answer.nodes.iter().any(|row| row.level != Some(Level::Ok));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Waits for the end of a task. On a terminal, a line shows how many nodes have their result.
fn wait(client: &Client, id: u64) -> Result<PowerAnswer> {
    let mut watch = client.watch::<PowerAnswer>(&format!("{}/{id}", api::paths::POWER))?;
    let shows = stderr().is_terminal();
    // A task ends with the daemon. After a restart the next answer says so.
    while let Some(answer) = next_answer(&mut watch) {
        let answer = answer?;
        if shows {
            let ended = answer.nodes.iter().filter(|row| row.level.is_some()).count();
            // Back to the beginning of the line, which is then deleted (ECMA-48, CR and EL).
            let end = if answer.done { "\r\x1b[K" } else { "" };
            eprint!(
                "\rpower {}: {ended} of {}{end}",
                answer.verb,
                output::count(answer.nodes.len(), "node")
            );
        }
        if answer.done {
            return Ok(answer);
        }
    }
    bail!("the daemon ended the answer early; `rackstrap timeline` shows what was done to a node")
}

fn describe(answer: &PowerAnswer) -> String {
    let mut table = output::table(["node", "bmc", "before", "now", "result"]);
    let mut helps: BTreeMap<&str, NodeSet> = BTreeMap::new();
    for row in &answer.nodes {
        let bmc = row.bmc.map(|address| address.to_string()).unwrap_or_default();
        table.add_row([
            row.node.as_str(),
            output::dash(&bmc).as_str(),
            api::on_or_off(row.before),
            api::on_or_off(row.after),
            output::dash(&row.detail).as_str(),
        ]);
        if !row.help.is_empty() {
            helps.entry(&row.help).or_default().insert(row.node.as_str());
        }
    }
    let mut text = output::render(&table);
    for (help, nodes) in helps {
        text.push_str(&format!("\nhelp: {nodes}: {help}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_base::clock::Timestamp;
    use rackstrap_control::api::PowerRow;

    #[test]
    fn results_are_a_table_with_one_line_of_help_for_all_nodes_that_need_it() {
        let row = |node: &str, level, after, detail: &str, help: &str| PowerRow {
            node: node.to_owned(),
            bmc: Some([10, 6, 1, 1].into()),
            level: Some(level),
            before: Some(false),
            after,
            detail: detail.to_owned(),
            help: help.to_owned(),
        };
        let answer = PowerAnswer {
            now: Timestamp(0),
            id: 1,
            verb: PowerVerb::On,
            by: "root".to_owned(),
            began: Timestamp(0),
            done: true,
            nodes: vec![
                row("r01n01", Level::Ok, Some(true), "done", ""),
                row(
                    "r01n02",
                    Level::Error,
                    None,
                    "BMC 10.6.1.2: no login within 30 s",
                    "check the cable",
                ),
                row(
                    "r01n03",
                    Level::Error,
                    None,
                    "BMC 10.6.1.3: no login within 30 s",
                    "check the cable",
                ),
            ],
        };
        let text = describe(&answer);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[0]), "NODE BMC BEFORE NOW RESULT");
        assert_eq!(words(lines[1]), "r01n01 10.6.1.1 off on done");
        assert_eq!(lines.last(), Some(&"help: r01n[02-03]: check the cable"));
        assert!(lines.iter().all(|line| line.chars().count() <= 100));
    }
}
