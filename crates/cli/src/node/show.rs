//! `rackstrap node show`, and the tables of boots and steps.

use crate::{
    explain::checks_table,
    hostlist::Wanted,
    output::{self, Format},
};
use anyhow::Result;
use clap::Args;
use rackstrap_control::{
    Client,
    api::{self, BootSummary, NodeRow, NodeState, SettingRow},
    segment,
};

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Names, hostlists, MAC addresses or IP addresses
    #[arg(required = true, value_name = "NODES|MAC|IP", add = crate::complete::nodes())]
    nodes: Vec<String>,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(client: &Client, args: &ShowArgs) -> Result<()> {
    output::each(
        Wanted::new(args.nodes.clone())?.subjects(client)?,
        args.format,
        |name| {
            let answer: api::NodeAnswer = client.get(&format!("{}{}", api::paths::NODE, segment(name)))?;
            let text = describe(&answer);
            Ok((answer, text))
        },
    )
}

fn describe(answer: &api::NodeAnswer) -> String {
    let (node, status) = (&answer.node, &answer.status);
    let state = match status.since {
        Some(since) if status.state != NodeState::Absent => {
            format!("{} since {}", status.state, output::local_time(since))
        }
        _ => format!("{} (never seen)", status.state),
    };
    let image = status.image.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut facts = vec![
        ("node", node.name.clone()),
        ("address", node.ipaddr.to_string()),
        ("hwaddr", output::list(&node.hwaddrs)),
        ("profiles", output::list(&node.profiles)),
        ("groups", output::list(&node.groups)),
        ("attributes", attributes(node)),
        ("state", state),
        ("image", output::dash(&image)),
        ("disk", output::dash(&status.disk)),
    ];
    if !status.last_error.is_empty() {
        facts.push(("last error", status.last_error.clone()));
    }
    if !status.retries.is_empty() {
        facts.push(("retries", api::describe_retries(&status.retries)));
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
    if !answer.boot_order.is_empty() {
        facts.push(("boot order", answer.boot_order.clone()));
    }
    if !answer.started_by.is_empty() {
        facts.push(("started by", answer.started_by.clone()));
    }
    facts.extend(answer.warnings.iter().map(|warning| ("warning", warning.clone())));
    if node.attributes.is_empty() {
        facts.retain(|(fact, _)| *fact != "attributes");
    }
    let mut text = output::facts(&facts);
    if !answer.settings.is_empty() {
        text.push_str("\n\nsettings, where each is from, and what it hides:\n");
        text.push_str(&settings_table(&answer.settings));
    }
    if !answer.checks.is_empty() {
        text.push_str("\n\nchecks:\n");
        text.push_str(&checks_table(&answer.checks));
    }
    let Some(last) = answer.boots.last() else {
        return text;
    };
    text.push_str("\n\nboots, the newest last:\n");
    text.push_str(&boots_table(&answer.boots));
    text.push_str("\n\nthe last boot:\n");
    text.push_str(&steps_table(last));
    text
}

/// `location=row 3, owner=physics`
fn attributes(node: &NodeRow) -> String {
    let pairs = node.attributes.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join(", ")
}

/// One row for each setting.
pub fn settings_table(settings: &[SettingRow]) -> String {
    let mut table = output::table(["setting", "value", "from", "hides"]);
    for setting in settings {
        let from = match (&setting.added, setting.from.as_str()) {
            (Some(_), "node") | (None, _) => setting.from.clone(),
            (Some(added), from) => format!("{from}, and node: {added}"),
        };
        let hides = setting.hides.iter();
        let hides: Vec<String> = hides
            .map(|hidden| format!("{} ({})", output::dash(&hidden.value), hidden.from))
            .collect();
        table.add_row([
            &setting.key,
            &output::dash(&setting.value),
            &from,
            &output::dash(&hides.join(", ")),
        ]);
    }
    output::render(&table)
}

/// One row for each boot.
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

/// One row for each step.
fn steps_table(boot: &BootSummary) -> String {
    let mut table = output::table(["at", "took", "step", "times", "detail"]);
    for step in &boot.steps {
        table.add_row(vec![
            output::right(format!("+{}", output::duration(step.at_ms))),
            output::right(output::duration(step.took_ms)),
            output::level_cell(step.level, step.step.to_string()),
            output::right(step.count),
            output::level_cell(step.level, &step.detail),
        ]);
    }
    output::render(&table)
}
