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
    api::{self, BootSummary, DiskHealthRow, Level, NodeRow, NodeState, SettingRow},
    segment,
};
use rackstrap_model::decide::describe_network;
use rackstrap_wire::NetworkPlan;

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
    facts.extend(network_facts(&answer.networks));
    if !answer.bmc.is_empty() {
        facts.push(("bmc", answer.bmc.clone()));
    }
    if !status.last_error.is_empty() {
        facts.push(("last error", status.last_error.clone()));
    }
    if let Some(order) = &status.order {
        facts.push((
            "order",
            format!(
                "{} (by {}, {})",
                order.describe(),
                order.by,
                output::local_time(order.at)
            ),
        ));
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
    if !answer.disks.is_empty() {
        text.push_str("\n\ndisks:\n");
        text.push_str(&disks_table(&answer.disks));
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

/// One line for each network.
pub fn network_facts(networks: &[NetworkPlan]) -> impl Iterator<Item = (&'static str, String)> {
    networks
        .iter()
        .map(|plan| ("network", format!("{}: {}", plan.name, describe_network(plan))))
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

/// One row for each disk, with its faults and since when they are there.
fn disks_table(disks: &[DiskHealthRow]) -> String {
    let mut table = output::table(["disk", "serial", "health", "life used", "temperature", "hours"]);
    for row in disks {
        let disk = &row.health;
        let faults = disk.faults.iter().map(|fault| {
            let since = row.since.get(&fault.kind).map(|since| output::local_time(*since));
            let since = since.map(|since| format!(", since {since}")).unwrap_or_default();
            format!("{}: {}{since}", fault.kind.describe(), fault.detail)
        });
        let faults = faults.collect::<Vec<_>>().join("; ");
        // A disk that reports nothing is not called healthy.
        let says = disk.celsius.is_some() || disk.hours.is_some() || disk.used_percent.is_some();
        let (level, health) = match (faults.is_empty(), says) {
            (false, _) => (Level::Degraded, faults),
            (true, true) => (Level::Ok, "good".to_owned()),
            (true, false) => (Level::Ok, "no faults seen; it reports nothing".to_owned()),
        };
        let text = |value: Option<String>| output::dash(&value.unwrap_or_default());
        table.add_row(vec![
            disk.device.as_str().into(),
            output::dash(&disk.serial).into(),
            output::level_cell(level, health),
            text(disk.used_percent.map(|percent| format!("{percent}%"))).into(),
            text(disk.celsius.map(|celsius| format!("{celsius} °C"))).into(),
            text(disk.hours.map(|hours| hours.to_string())).into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::{DiskFault, DiskHealth, FaultKind};

    #[test]
    fn a_disk_with_a_fault_says_what_it_is_and_a_silent_one_is_not_called_good() {
        let health = |device: &str| DiskHealth {
            device: device.to_owned(),
            ..DiskHealth::default()
        };
        let row = |health| DiskHealthRow {
            health,
            since: [].into(),
        };
        let failing = DiskHealth {
            serial: "S1".to_owned(),
            faults: vec![DiskFault {
                kind: FaultKind::Failing,
                detail: "SMART predicts a failure".to_owned(),
            }],
            celsius: Some(41),
            used_percent: Some(7),
            hours: Some(23_000),
            ..health("sda")
        };
        let good = DiskHealth {
            celsius: Some(30),
            ..health("sdb")
        };
        insta::assert_snapshot!(disks_table(&[row(failing), row(good), row(health("vda"))]), @r"
        DISK  SERIAL  HEALTH                                LIFE USED  TEMPERATURE  HOURS
        sda   S1      is failing: SMART predicts a failure  7%         41 °C        23000
        sdb   -       good                                  -          30 °C        -
        vda   -       no faults seen; it reports nothing    -          -            -
        ");
    }
}
