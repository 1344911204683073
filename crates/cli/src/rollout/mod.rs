//! `rackstrap rollout`, and the commands of `rackstrap image` that ask the daemon: which version each node is given.

mod current;
mod show;

pub use current::{Order, carry_out};

use super::{
    connection::connect,
    hostlist::{HELP, Wanted},
    output::{self, Format},
};
use anyhow::Result;
use clap::{Args, Subcommand};
use rackstrap_control::{
    Client,
    api::{self, RestartsWithdrawn, RolloutAnswer, RolloutNodeState, RolloutPace, RolloutWish},
};
use rackstrap_hostlist::NodeSet;
use rackstrap_registries::rollout::Share;
use rackstrap_wire::ImageRef;
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, process::ExitCode};

/// Arguments of `rackstrap rollout`.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Debug, Subcommand)]
enum RolloutCommand {
    /// Start a rollout: give a version to canaries, at their next boots or by restarting them
    #[command(after_help = "\
All other nodes keep the current version. A node has failed if it is not ready in time, if its checks fail, or if it
rolled back to its last known good version after some boots ([limits] boots-before-going-back). More failures than
--max-failures stop the rollout. Nodes that have not started booting the new version then keep the current one.

Examples:
  rackstrap rollout start debian@4 --nodes 'r01n[01-04]'
  rackstrap rollout start debian@4 --nodes @canary --reboot --soak 1h -m 'new driver'
  rackstrap rollout start debian@4 --nodes 'r01*' --max-failures 2 --ready-within 10m")]
    Start(StartArgs),
    /// Show the progress of a rollout, and the state of each node
    #[command(after_help = "\
States: waiting (was given the version, has not booted it), booting, ready, failed, rolled back (boots its last known good version).

Examples:
  rackstrap rollout status
  rackstrap rollout status debian --watch
  rackstrap rollout status --json | jq -r '.[].nodes[] | select(.state == \"failed\") | .node'")]
    Status(StatusArgs),
    /// Give the version to all other nodes, batch by batch
    #[command(after_help = "\
A batch starts when all nodes of the earlier batches are ready or have failed; nodes that are switched off are not
waited for. When all nodes have the version, it becomes the current one. Run the command again to change the pace.

Examples:
  rackstrap rollout promote
  rackstrap rollout promote debian --batch 8 --pause-between 5m
  rackstrap rollout promote --batch 25% --max-failures 10")]
    Promote(PromoteArgs),
    /// Pause: no further nodes get the version
    #[command(after_help = "\
Nodes that have not started booting the version boot the current one. The rollout's restarts are cancelled, unless the
node has received the order already; nodes that were drained for them are put back into service.

Example:
  rackstrap rollout pause")]
    Pause(OneArgs),
    /// Continue after a pause, or after failures stopped the rollout
    #[command(after_help = "\
Examples:
  rackstrap rollout resume
  rackstrap rollout resume debian --max-failures 5")]
    Resume(ResumeArgs),
    /// End the rollout: its nodes return to the current version
    #[command(after_help = "\
If it was started without --reboot, nodes return to it at their next boots. If it was started with --reboot, nodes that run
its version are restarted, and restarts of the other nodes are cancelled.

Example:
  rackstrap rollout abort debian")]
    Abort(OneArgs),
    /// Let nodes try a version again that failed on them
    #[command(after_help = format!("{HELP}\n\n\
Works without a rollout too, for nodes that rolled back by themselves. A stopped rollout also needs `rackstrap rollout resume`.

Example:
  rackstrap rollout retry 'r01n[03,07]'"))]
    Retry(RetryArgs),
    /// List all rollouts, also those that have ended
    #[command(after_help = "\
Example:
  rackstrap rollout list")]
    List {
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Args)]
struct StartArgs {
    /// Version, such as debian@4
    #[arg(add = crate::complete::images())]
    image: ImageRef,
    /// Canaries, the first nodes to get it: names, hostlists, groups such as @canary; repeat for more
    #[arg(long, required = true, value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Restart the nodes, after the site's drain program
    #[arg(long)]
    reboot: bool,
    /// With --reboot: nodes that may be down or drained at once: 8, or 10% of all (rounded down, at least one)
    #[arg(long, value_name = "NODES|%", default_value = "10%", requires = "reboot")]
    max_down: Share,
    /// Count a node as failed if it is not ready this long after its first boot of the version (15m, 1h)
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = seconds)]
    ready_within: u64,
    /// Stop the rollout when more nodes than this have failed
    #[arg(long, value_name = "NODES", default_value_t = 0)]
    max_failures: u32,
    /// Time for which a node must stay ready before it counts as good (10m, 1h)
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = seconds)]
    soak: u64,
    /// Remark to keep with the rollout, such as 'new driver'
    #[arg(long, short, default_value = "")]
    message: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Name of the image [default: all rollouts under way, or the last one]
    #[arg(add = crate::complete::images())]
    image: Option<String>,
    /// Show each change as it happens, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct PromoteArgs {
    /// Name of the image [default: the only one that is being rolled out]
    #[arg(add = crate::complete::images())]
    image: Option<String>,
    /// Nodes per batch: 8, or 10% of all nodes of the image (rounded down, at least one) [default: 10%]
    #[arg(long, value_name = "NODES|%")]
    batch: Option<Share>,
    /// Pause between the end of a batch and the next one (5m, 1h) [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pause_between: Option<u64>,
    /// Stop when more nodes than this have failed, of all [default: as before]
    #[arg(long, value_name = "NODES")]
    max_failures: Option<u32>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct OneArgs {
    /// Name of the image [default: the only one that is being rolled out]
    #[arg(add = crate::complete::images())]
    image: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct ResumeArgs {
    /// Name of the image [default: the only one that is being rolled out]
    #[arg(add = crate::complete::images())]
    image: Option<String>,
    /// Stop when more nodes than this have failed, of all [default: as before]
    #[arg(long, value_name = "NODES")]
    max_failures: Option<u32>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct RetryArgs {
    /// Names, hostlists or groups
    #[arg(required = true, value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    #[command(flatten)]
    format: Format,
}

/// A year, longer than any sensible time.
const LONGEST: u64 = 366 * 86_400;

fn seconds(text: &str) -> Result<u64, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 10m or 2h"))?;
    match time.as_secs() {
        secs @ 0..=LONGEST => Ok(secs),
        _ => Err("write at most a year".to_owned()),
    }
}

/// Runs the command.
pub fn run(config: &Path, args: RolloutArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    match args.command {
        RolloutCommand::Start(args) => start(&client, args)?,
        RolloutCommand::Status(args) if args.watch => show::watch(&client, args.image.as_deref(), args.format)?,
        RolloutCommand::Status(args) => show::status(&client, args.image.as_deref(), args.format)?,
        RolloutCommand::Promote(args) => {
            let pace = RolloutPace {
                batch: args.batch,
                pause_secs: args.pause_between,
                max_failures: args.max_failures,
            };
            let done: RolloutAnswer = order(&client, api::paths::ROLLOUT_PROMOTE, args.image, pace)?;
            let said = format!(
                "all nodes of {} get {} in batches of {}; the rollout stops if {}",
                done.image.name,
                done.image,
                done.batch.describe(done.all),
                match done.max_failures {
                    0 => "any node fails".to_owned(),
                    limit => format!("the number of failed nodes exceeds {limit}"),
                }
            );
            say(&done, args.format, &said)?;
        }
        RolloutCommand::Pause(args) => {
            let held: api::RolloutHeld = order(&client, api::paths::ROLLOUT_PAUSE, args.image, RolloutPace::default())?;
            let said = format!(
                "the rollout of {} is paused; to continue: rackstrap rollout resume",
                held.rollout.image
            );
            say(&held, args.format, &(said + &restarts(&held.restarts)))?;
        }
        RolloutCommand::Resume(args) => {
            let pace = RolloutPace {
                max_failures: args.max_failures,
                ..RolloutPace::default()
            };
            let done: RolloutAnswer = order(&client, api::paths::ROLLOUT_RESUME, args.image, pace)?;
            say(&done, args.format, &format!("the rollout of {} continues", done.image))?;
        }
        RolloutCommand::Abort(args) => {
            let held: api::RolloutHeld = order(&client, api::paths::ROLLOUT_ABORT, args.image, RolloutPace::default())?;
            let said = format!(
                "the rollout of {} has ended: its nodes return to {}, the current version, {}",
                held.rollout.image,
                held.rollout.from,
                match held.rollout.reboot {
                    true => "and nodes that run it are restarted for that",
                    false => "at their next boots",
                }
            );
            say(&held, args.format, &(said + &restarts(&held.restarts)))?;
        }
        RolloutCommand::Retry(args) => retry(&client, args)?,
        RolloutCommand::List { format } => show::list(&client, format)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn start(client: &Client, args: StartArgs) -> Result<()> {
    let wish = RolloutWish {
        image: args.image,
        nodes: Wanted::new(args.nodes)?.some_names(client)?,
        reboot: args.reboot,
        max_down: args.max_down,
        ready_within_secs: args.ready_within,
        max_failures: args.max_failures,
        soak_secs: args.soak,
        message: args.message,
    };
    let nodes: NodeSet = wish.nodes.iter().map(String::as_str).collect();
    let begun: api::RolloutBegun = client.post(api::paths::ROLLOUTS, &api::BeginRollout { wish })?;
    for warning in &begun.warnings {
        eprintln!("warning: {warning}");
    }
    let said = format!(
        "{} is given to {nodes} ({}) {}; the other nodes keep {}\nto watch: rackstrap rollout status --watch\nthen: rackstrap rollout \
         promote, or rackstrap rollout abort",
        begun.rollout.image,
        output::count(nodes.len(), "node"),
        when(
            begun.rollout.reboot.then_some(begun.rollout.max_down),
            begun.rollout.all
        ),
        begun.rollout.from
    );
    say(&begun, args.format, &said)
}

/// When nodes boot a version that they were given. `max_down` is none for a rollout that does not restart its nodes; `all` is
/// the number of nodes of the image.
fn when(max_down: Option<Share>, all: usize) -> String {
    match max_down {
        None => "at their next boots".to_owned(),
        Some(Share::Nodes(1)) => "by restarting them now, one at a time".to_owned(),
        Some(max_down) => format!("by restarting them now, at most {} at a time", max_down.describe(all)),
    }
}

fn retry(client: &Client, args: RetryArgs) -> Result<()> {
    let nodes = Wanted::new(args.nodes)?.some_names(client)?;
    let retried: Vec<String> = client.post(api::paths::ROLLOUT_RETRY, &api::Retry { nodes })?;
    if args.format.json {
        return output::print_json(&retried);
    }
    let nodes: NodeSet = retried.iter().map(String::as_str).collect();
    let answer: api::RolloutsAnswer = client.get(api::paths::ROLLOUTS)?;
    let (mut restarted, mut left) = (NodeSet::default(), NodeSet::default());
    for node in nodes.iter() {
        let by = answer
            .rollouts
            .iter()
            .filter(|row| row.rollout.is_on() && row.rollout.reboot);
        let is_restarted = by.flat_map(|row| &row.nodes).any(|member| member.node == node);
        match is_restarted {
            true => restarted.insert(node),
            false => left.insert(node),
        };
    }
    for (nodes, when) in [
        (restarted, "when the rollout restarts them"),
        (left, "at their next boots"),
    ] {
        if !nodes.is_empty() {
            output::print(&format!("{nodes}: try again {when}"))?;
        }
    }
    // A rollout that was stopped gives its version only to nodes that have started booting it. These nodes have not, after
    // the retry.
    for row in answer
        .rollouts
        .iter()
        .filter(|row| row.rollout.is_on() && row.rollout.is_held())
    {
        let wait = row
            .nodes
            .iter()
            .filter(|node| node.state == RolloutNodeState::Waiting && nodes.contains(&node.node));
        let wait: NodeSet = wait.map(|node| node.node.as_str()).collect();
        if !wait.is_empty() {
            output::print(&format!(
                "{wait}: not before the rollout of {} continues, which is {}; to continue it: rackstrap rollout resume {}",
                row.rollout.image,
                if row.rollout.paused { "paused" } else { "stopped" },
                row.rollout.image.name
            ))?;
        }
    }
    Ok(())
}

fn order<T: DeserializeOwned>(client: &Client, path: &str, image: Option<String>, pace: RolloutPace) -> Result<T> {
    Ok(client.post(path, &api::RolloutOrder { image, pace })?)
}

/// What happened to the restarts that a rollout had requested, as further lines; empty if there were none.
fn restarts(withdrawn: &RestartsWithdrawn) -> String {
    let fold = |names: &[String]| names.iter().map(String::as_str).collect::<NodeSet>().fold();
    let mut said = String::new();
    if !withdrawn.cancelled.is_empty() {
        let count = output::count(withdrawn.cancelled.len(), "restart");
        said += &format!("\n{count} of the rollout cancelled: {}", fold(&withdrawn.cancelled));
    }
    if !withdrawn.told.is_empty() {
        said += &format!(
            "\nalready ordered to restart, and not cancelled: {}",
            fold(&withdrawn.told)
        );
    }
    said
}

fn say(answer: &impl Serialize, format: Format, said: &str) -> Result<()> {
    match format.json {
        true => output::print_json(answer),
        false => output::print(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_that_restarts_nodes_does_not_speak_of_their_next_boots() {
        assert_eq!(when(None, 14), "at their next boots");
        assert_eq!(when(Some(Share::Nodes(1)), 14), "by restarting them now, one at a time");
        assert_eq!(
            when(Some(Share::Percent(10)), 14),
            "by restarting them now, at most 10% (1 of 14 nodes) at a time"
        );
    }
}
