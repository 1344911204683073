//! `rackstrap node`

use super::{
    connection::connect,
    output::{self, Format},
};
use crate::{
    control::{Client, api, segment},
    inventory::{NewNode, Node},
    timeline::{BootSummary, State},
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rackstrap_wire::HwAddr;
use std::{
    io::{BufRead, IsTerminal},
    path::Path,
    process::ExitCode,
};

/// Arguments of `rackstrap node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Add a node: its name says where it is, its MAC which machine it is
    #[command(after_help = "\
Takes effect with the machine's next packet; a machine that waits is picked up by itself.

Examples:
  rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01
  rackstrap node add r01n02 --hwaddr 52-54-00-01-01-02 --hwaddr 5254.0002.0102   (two cards)
  rackstrap node add r02n01 --hwaddr 52:54:00:02:01:01 --profile gpu")]
    Add(AddArgs),
    /// List all nodes
    #[command(after_help = "\
Examples:
  rackstrap node list
  rackstrap node list --json | jq -r '.[].ipaddr'")]
    List(Format),
    /// Show one node: hardware, state, boots
    #[command(after_help = "\
Example:
  rackstrap node show r01n01")]
    Show(ShowArgs),
    /// Delete a node, with its timeline and its ssh host keys
    #[command(after_help = "\
The machine itself is left alone: it runs on until it is restarted, and is unknown then.

Examples:
  rackstrap node delete r01n01
  rackstrap node delete r01n01 --yes     (does not ask)")]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Name by the site's pattern; its address follows from it
    name: String,
    /// Hardware address of its network card, the one that boots first; repeat it for further cards
    #[arg(long, value_name = "MAC", required = true)]
    hwaddr: Vec<HwAddr>,
    /// Profile of the site file [default: default]
    #[arg(long)]
    profile: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// A node's name, or its hardware address or address
    #[arg(value_name = "NODE|MAC|IP")]
    name: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// Name
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs it.
pub fn run(config: &Path, args: NodeArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    match args.command {
        NodeCommand::Add(args) => add(&client, args)?,
        NodeCommand::List(format) => list(&client, format)?,
        NodeCommand::Show(args) => show(&client, &args)?,
        NodeCommand::Delete(args) => delete(&client, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn add(client: &Client, args: AddArgs) -> Result<()> {
    let new = NewNode {
        name: args.name,
        hwaddrs: args.hwaddr,
        profile: args.profile,
    };
    let node: Node = client.post(api::paths::NODES, &new)?;
    if args.format.json {
        return output::print_json(&node);
    }
    output::print(&format!(
        "{} added: address {}, hwaddr {}, profile {}",
        node.name,
        node.ipaddr,
        output::list(&node.hwaddrs),
        node.profile
    ))?;
    // What it will get, so that a missing image is seen now and not when somebody stands before a dark screen.
    let explained: api::ExplainAnswer = client.get(&format!("{}{}", api::paths::EXPLAIN, segment(&node.name)))?;
    match explained.decision {
        Some(api::ExplainDecision { image: Some(image), .. }) => output::print(&format!(
            "it boots {image}, when you switch it on or at once if it waits already; look: rackstrap status --watch"
        )),
        Some(decision) => {
            let problem = decision.image_problem.unwrap_or_default();
            output::print(&format!("it cannot boot yet: {problem}"))
        }
        None => output::print(&format!("it cannot boot yet: rackstrap explain {}", node.name)),
    }
}

fn list(client: &Client, format: Format) -> Result<()> {
    let nodes: Vec<Node> = client.get(api::paths::NODES)?;
    if format.json {
        return output::print_json(&nodes);
    }
    if nodes.is_empty() {
        return output::print("no nodes yet; add one: rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01");
    }
    let mut table = output::table(["node", "address", "hwaddr", "profile"]);
    for node in &nodes {
        let hwaddrs = output::list(&node.hwaddrs);
        table.add_row([&node.name, &node.ipaddr.to_string(), &hwaddrs, &node.profile]);
    }
    output::print(&output::render(&table))
}

fn show(client: &Client, args: &ShowArgs) -> Result<()> {
    let answer: api::NodeAnswer = client.get(&format!("{}{}", api::paths::NODE, segment(&args.name)))?;
    if args.format.json {
        return output::print_json(&answer);
    }
    output::print(&describe(&answer))
}

fn describe(answer: &api::NodeAnswer) -> String {
    let (node, status) = (&answer.node, &answer.status);
    let state = match status.since {
        Some(since) if status.state != State::Absent => {
            format!("{} since {}", status.state, output::local_time(since))
        }
        _ => format!("{} (never heard of)", status.state),
    };
    let image = status.image.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut facts = vec![
        ("node", node.name.clone()),
        ("address", node.ipaddr.to_string()),
        ("hwaddr", output::list(&node.hwaddrs)),
        ("profile", node.profile.clone()),
        ("state", state),
        ("image", output::dash(&image)),
        ("disk", output::dash(&status.disk)),
    ];
    if !status.last_error.is_empty() {
        facts.push(("last error", status.last_error.clone()));
    }
    if let Some(hardware) = &answer.hardware {
        let words = [&hardware.vendor, &hardware.product, &hardware.serial];
        let words: Vec<&str> = words
            .into_iter()
            .map(|w| w.as_str())
            .filter(|w| !w.is_empty())
            .collect();
        let size = format!(
            "{}, {} MiB",
            output::count(hardware.cpus as usize, "CPU"),
            hardware.memory_mib
        );
        facts.push(("machine", [words.as_slice(), &[&size]].concat().join(", ")));
    }
    let mut text = output::facts(&facts);
    let Some(last) = answer.boots.last() else {
        return text;
    };
    text.push_str("\n\nboots, the newest last:\n");
    text.push_str(&boots_table(&answer.boots));
    text.push_str("\n\nthe last one:\n");
    text.push_str(&steps_table(last));
    text
}

/// One row a boot.
pub fn boots_table(boots: &[BootSummary]) -> String {
    let mut table = output::table(["began", "boot", "result", "retries", "lacks"]);
    for boot in boots {
        let result = match boot.ready {
            Some(_) => format!("ready in {}", output::duration(boot.total_ms)),
            None => format!("not ready after {}", output::duration(boot.total_ms)),
        };
        table.add_row([
            output::local_time(boot.began),
            output::dash(&boot.boot),
            result,
            boot.retries.to_string(),
            output::list(&boot.lacks),
        ]);
    }
    output::render(&table)
}

/// One row a step.
pub fn steps_table(boot: &BootSummary) -> String {
    let mut table = output::table(["at", "took", "step", "times", "detail"]);
    for step in &boot.steps {
        table.add_row(vec![
            output::right(format!("+{}", output::duration(step.at_ms))),
            output::right(output::duration(step.took_ms)),
            output::level_cell(step.level, &step.step),
            output::right(step.count),
            output::level_cell(step.level, &step.detail),
        ]);
    }
    output::render(&table)
}

fn delete(client: &Client, args: &DeleteArgs) -> Result<()> {
    let path = format!("{}{}", api::paths::NODE, segment(&args.name));
    if !args.yes {
        let answer: api::NodeAnswer = client.get(&path)?;
        if !std::io::stdin().is_terminal() {
            bail!(
                "node {}: nobody is there to be asked; add --yes to delete it",
                args.name
            );
        }
        eprint!(
            "delete {} ({}, hwaddr {}), which is {}, with its timeline and ssh host keys? [y/N] ",
            answer.node.name,
            answer.node.ipaddr,
            output::list(&answer.node.hwaddrs),
            answer.status.state
        );
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        if !matches!(line.trim(), "y" | "Y" | "yes") {
            bail!("node {}: not deleted", args.name);
        }
    }
    let node: Node = client.delete(&path)?;
    output::print(&format!(
        "{} deleted; hwaddr {} is free again",
        node.name,
        output::list(&node.hwaddrs)
    ))
}
