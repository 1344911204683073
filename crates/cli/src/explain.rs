//! `rackstrap explain`

use super::{
    connection::connect,
    hostlist::Wanted,
    output::{self, Format},
};
use anyhow::Result;
use clap::Args;
use rackstrap_control::{
    api::{self, Level},
    segment,
};
use rackstrap_wire::DiskPlan;
use std::{path::Path, process::ExitCode};

/// Arguments of `rackstrap explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Shows the decision that DHCP, TFTP, HTTP and NFS act on now, with its reasons.

Examples:
  rackstrap explain r01n01
  rackstrap explain 'r01n[01-04]'
  rackstrap explain 52:54:00:01:01:01
  rackstrap explain 10.5.1.1")]
pub struct ExplainArgs {
    /// Names, hostlists, MAC addresses or IP addresses
    #[arg(required = true, value_name = "NODES|MAC|IP", add = crate::complete::nodes())]
    about: Vec<String>,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: ExplainArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    output::each(Wanted::new(args.about)?.subjects(&client)?, args.format, |about| {
        let answer: api::ExplainAnswer = client.get(&format!("{}{}", api::paths::EXPLAIN, segment(about)))?;
        let text = describe(&answer);
        Ok((answer, text))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn describe(answer: &api::ExplainAnswer) -> String {
    let mut text = format!("{}:\n", answer.about);
    for step in &answer.why {
        text.push_str(&format!("  - {step}\n"));
    }
    text.push('\n');
    text.push_str(&match &answer.decision {
        Some(decision) => decided(decision),
        None => unknown(answer),
    });
    let settings = answer.decision.iter().map(|decision| &decision.settings);
    for settings in settings.filter(|settings| !settings.is_empty()) {
        let table = crate::node::settings_table(settings);
        text.push_str(&format!(
            "\n\nsettings, where each is from, and what it hides:\n{table}\n"
        ));
    }
    let disks = answer.decision.iter().map(|decision| &decision.disks);
    for disks in disks.filter(|disks| !disks.is_empty()) {
        let table = disks_table(disks);
        text.push_str(&format!("\n\ndisks that its last boot found:\n{table}\n"));
    }
    for rollout in &answer.rollouts {
        text.push_str(&format!("\n{rollout}"));
    }
    for warning in &answer.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    if let Some(pinned) = &answer.pinned {
        let ready = match pinned.ready {
            Some(at) => format!("ready at {}", output::local_time(at)),
            None => "not ready yet".to_owned(),
        };
        text.push_str(&format!(
            "\n\npinned: boot {} of {} has {}, {}; the above is for its next boot",
            pinned.id,
            output::local_time(pinned.opened),
            pinned.image,
            ready
        ));
        if !pinned.checks.is_empty() {
            text.push_str(&format!("\nits checks:\n{}", checks_table(&pinned.checks)));
        }
    }
    text.push_str(&crate::timeline::retries(&answer.retries));
    text
}

fn decided(decision: &api::ExplainDecision) -> String {
    let image = match (&decision.image, &decision.image_problem) {
        (Some(image), _) => image.to_string(),
        (None, problem) => format!("none: {}", problem.as_deref().unwrap_or("unknown reason")),
    };
    let disk = decision.disk.as_ref().map(|disk| {
        let one = |disk: &DiskPlan| {
            let layout = &disk.layout;
            format!(
                "{} v{} on {}, digest {}",
                layout.name, layout.version, disk.device, disk.digest
            )
        };
        let all: Vec<String> = std::iter::once(disk).chain(&disk.more).map(one).collect();
        all.join("; ")
    });
    let mut facts = vec![
        ("node", decision.node.name.clone()),
        ("address", decision.node.ipaddr.to_string()),
        ("profiles", output::list(&decision.node.profiles)),
        ("image", image),
        ("disk", disk.unwrap_or_else(|| "left alone".to_owned())),
        ("init", decision.init.clone()),
        ("kernel args", output::dash(&decision.kernel_args)),
        ("console", output::dash(&decision.console)),
        ("templates", output::list(&decision.templates)),
        ("ram size", decision.ram_size.clone()),
        (
            "mtu",
            decision.mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string()),
        ),
        ("dhcp options", output::list(&decision.dhcp_options)),
        ("checks", output::list(&decision.checks)),
    ];
    facts.extend(decision.vlan.map(|vlan| ("boot vlan", vlan.to_string())));
    facts.extend(crate::node::network_facts(&decision.networks));
    if !decision.bmc.is_empty() {
        facts.push(("bmc", decision.bmc.clone()));
    }
    if !decision.boot_order.is_empty() {
        facts.push(("boot order", decision.boot_order.clone()));
    }
    if !decision.started_by.is_empty() {
        facts.push(("started by", decision.started_by.clone()));
    }
    output::facts(&facts)
}

/// One row for each disk.
fn disks_table(disks: &[api::FoundDisk]) -> String {
    let mut table = output::table(["disk", "size", "used", "holds", "properties"]);
    for disk in disks {
        table.add_row([
            disk.device.as_str(),
            &rackstrap_model::disks::disk_size(disk.size),
            if disk.chosen { "yes" } else { "no" },
            &output::dash(&disk.holds),
            &output::dash(&disk.properties),
        ]);
    }
    output::render(&table)
}

/// One row for each check.
pub fn checks_table(checks: &[api::CheckRow]) -> String {
    let mut table = output::table(["check", "state", "seen"]);
    for row in checks {
        let level = match row.state {
            api::CheckState::Unknown | api::CheckState::Holds => Level::Ok,
            api::CheckState::Waits => Level::Retry,
            api::CheckState::Failed => Level::Error,
        };
        table.add_row(vec![
            row.check.as_str().into(),
            output::level_cell(level, row.state.as_str()),
            output::dash(&row.detail).into(),
        ]);
    }
    output::render(&table)
}

fn unknown(answer: &api::ExplainAnswer) -> String {
    let mut text = "not a node, so it boots nothing".to_owned();
    if let Some(lease) = &answer.lease {
        let hwaddr = lease.hwaddr;
        text.push_str(&format!("\nit has {} from the temporary pool", lease.ipaddr));
        text.push_str(&format!(
            ", as {hwaddr}\nto make it a node: rackstrap node add NAME --hwaddr {hwaddr}"
        ));
    } else if answer.about.parse::<rackstrap_wire::HwAddr>().is_ok() {
        text.push_str(&format!(
            "\nto make it one: rackstrap node add NAME --hwaddr {}",
            answer.about
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen;

    #[test]
    fn the_disks_of_a_node_fit_the_terminal_with_all_that_a_rule_can_name() {
        let disk = |device: &str, chosen, holds: &str| {
            api::FoundDisk {
            device: device.to_owned(),
            size: 1_000_204_886_016,
            chosen,
            holds: holds.to_owned(),
            properties: "serial=S4EMNX0R, model=Samsung SSD 980 PRO 1TB, by-path=pci-0000:3b:00.0-nvme-1, transport=nvme, rotational=no"
                .to_owned(),
        }
        };
        let disks = [
            disk("nvme0n1", true, "scratch v1"),
            disk("nvme1n1", false, "GPT with 3 partitions (LVM physical volume)"),
        ];
        let shown = screen::on_terminal(100, || disks_table(&disks));
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
        for part in [
            "nvme0n1",
            "1 TB",
            "yes",
            "scratch v1",
            "serial=S4EMNX0R",
            "transport=nvme",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
