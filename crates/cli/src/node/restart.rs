//! `rackstrap node restart`: requests restarts, lists them and cancels them.

use crate::{
    ask,
    hostlist::Wanted,
    output::{self, Format},
};
use anyhow::{Result, bail};
use clap::Args;
use rackstrap_control::{
    Client,
    api::{self, RestartEnd, RestartRow, RestartStep, RestartWish, RestartsCancelled, RestartsWanted},
};
use rackstrap_hostlist::NodeSet;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct RestartArgs {
    /// Names or hostlists, in the order in which they are restarted
    #[arg(required_unless_present = "list", conflicts_with = "list", value_name = "NODES")]
    nodes: Vec<String>,
    /// Number of nodes that may be out of service at once, such as 4
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["list", "cancel"])]
    max_down: u32,
    /// Reason, for the drain program and the timelines, such as 'new kernel'
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["list", "cancel"])]
    reason: Option<String>,
    /// Stop the restarts if a node is not ready again after this time (15m, 1h)
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration, conflicts_with_all = ["list", "cancel"])]
    ready_within: Duration,
    /// Run neither the site's drain program nor its resume program
    #[arg(long, conflicts_with_all = ["list", "cancel"])]
    no_drain: bool,
    /// Print which nodes would restart, and restart none
    #[arg(long, conflicts_with_all = ["list", "cancel"])]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Show the restarts that are under way
    #[arg(long)]
    list: bool,
    /// Cancel the restart of these nodes, unless they have received it already
    #[arg(long, conflicts_with = "list")]
    cancel: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(client: &Client, args: RestartArgs) -> Result<()> {
    if args.list {
        return list(client, args.format);
    }
    let nodes = Wanted::new(args.nodes.clone())?.some_names_in_order(client)?;
    match args.cancel {
        true => cancel(client, nodes, args.format),
        false => request(client, nodes, &args),
    }
}

fn fold<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<NodeSet>().fold()
}

fn request(client: &Client, nodes: Vec<String>, args: &RestartArgs) -> Result<()> {
    let mut asked = api::WantRestarts {
        want: RestartWish {
            nodes,
            reason: args.reason.clone().unwrap_or_default(),
            max_down: args.max_down,
            drain: !args.no_drain,
            within_secs: u32::try_from(args.ready_within.as_secs()).unwrap_or(u32::MAX),
        },
        dry_run: true,
    };
    let planned: RestartsWanted = client.post(api::paths::RESTARTS, &asked)?;
    if args.dry_run && args.format.json {
        return output::print_json(&planned);
    }
    if args.dry_run {
        output::print(&describe(&planned, args.max_down))?;
        return output::print("nothing was changed: --dry-run");
    }
    if !args.yes && !planned.nodes.is_empty() {
        eprintln!("{}", describe(&planned, args.max_down));
        let question = format!("restart {}?", output::count(planned.nodes.len(), "node"));
        if !ask::yes(&question, false)? {
            bail!("nothing is restarted");
        }
    }
    asked.dry_run = false;
    let wanted: RestartsWanted = client.post(api::paths::RESTARTS, &asked)?;
    if args.format.json {
        return output::print_json(&wanted);
    }
    output::print(&describe(&wanted, args.max_down))?;
    match wanted.nodes.is_empty() {
        true => Ok(()),
        false => output::print("to see their progress: rackstrap node restart --list"),
    }
}

fn describe(wanted: &RestartsWanted, max_down: u32) -> String {
    let mut lines = Vec::new();
    if !wanted.nodes.is_empty() {
        let how = match wanted.drained {
            true => "drained, restarted and resumed",
            false => "restarted without being drained",
        };
        lines.push(match wanted.nodes.as_slice() {
            [one] => format!("{one} is {how}"),
            nodes => format!("{} are {how}, {max_down} at a time", fold(nodes)),
        });
    }
    if !wanted.not_up.is_empty() {
        lines.push(format!(
            "{}: not up now; only running nodes are restarted",
            fold(&wanted.not_up)
        ));
    }
    if !wanted.already.is_empty() {
        lines.push(format!("{}: already about to restart", fold(&wanted.already)));
    }
    lines.join("\n")
}

fn cancel(client: &Client, nodes: Vec<String>, format: Format) -> Result<()> {
    let asked = api::CancelRestarts { nodes };
    let done: RestartsCancelled = client.post(api::paths::RESTARTS_CANCEL, &asked)?;
    if format.json {
        return output::print_json(&done);
    }
    for (nodes, what) in [
        (&done.cancelled, "not restarted"),
        (&done.told, "has received the restart already; it cannot be cancelled"),
        (&done.none, "no restart was requested"),
    ] {
        if !nodes.is_empty() {
            output::print(&format!("{}: {what}", fold(nodes)))?;
        }
    }
    Ok(())
}

fn list(client: &Client, format: Format) -> Result<()> {
    let answer: api::RestartsAnswer = client.get(api::paths::RESTARTS)?;
    if format.json {
        return output::print_json(&answer);
    }
    if answer.requests.is_empty() {
        return output::print("no restarts are under way\nhelp: `rackstrap node restart r01n01` restarts a node");
    }
    let mut parts = Vec::new();
    for request in &answer.requests {
        let mut text = title(request, &answer, output::ago(answer.now, request.wanted));
        let mut table = output::table(["node", "restart", "since", "what went wrong"]);
        for node in request
            .nodes
            .iter()
            .filter(|node| !is_plain(&node.step) || !node.said.is_empty())
        {
            table.add_row([
                &node.name,
                node.step.as_str(),
                &output::ago(answer.now, node.since),
                &output::dash(&node.said),
            ]);
        }
        if table.row_count() > 0 {
            text += &format!("\n{}", output::render(&table));
        }
        parts.push(text);
    }
    output::print(&parts.join("\n\n"))
}

/// Whether the node is shown in a summary and needs no line of its own.
fn is_plain(step: &RestartStep) -> bool {
    let ended = [RestartEnd::Restarted, RestartEnd::Unneeded, RestartEnd::GivenUp];
    matches!(step, RestartStep::Waiting) || ended.iter().any(|end| *step == RestartStep::Ended { how: *end })
}

fn title(request: &RestartRow, answer: &api::RestartsAnswer, ago: String) -> String {
    // The limit of a rollout may be a share of its nodes.
    let bound = match (request.rollout.as_str(), answer.bounds.get(&request.rollout)) {
        ("", _) => format!("{} at a time", request.max_down),
        (_, Some(bound)) => bound.clone(),
        (image, None) => format!("the rollout of {image} is over"),
    };
    let mut lines = vec![format!(
        "{}: requested {ago} ago by {}, {bound}: {}",
        fold(request.nodes.iter().map(|node| &node.name)),
        request.by,
        request.reason
    )];
    if !request.stopped.is_empty() {
        lines.push(format!("stopped: {}", request.stopped));
    }
    let mut counts: Vec<(&str, Vec<&String>)> = Vec::new();
    for node in &request.nodes {
        let word = node.step.as_str();
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, nodes)) => nodes.push(&node.name),
            None => counts.push((word, vec![&node.name])),
        }
    }
    let counts = counts
        .into_iter()
        .map(|(word, nodes)| format!("{word}: {} ({})", nodes.len(), fold(nodes)));
    lines.extend(counts);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_base::clock::Timestamp;
    use rackstrap_control::api::RestartNode;

    #[test]
    fn one_node_has_a_singular_verb() {
        let said = |nodes: &[&str], drained| {
            let wanted = RestartsWanted {
                id: String::new(),
                nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
                not_up: Vec::new(),
                already: Vec::new(),
                drained,
            };
            describe(&wanted, 2)
        };
        assert_eq!(said(&["r05n03"], true), "r05n03 is drained, restarted and resumed");
        assert_eq!(
            said(&["r05n03", "r05n04"], false),
            "r05n[03-04] are restarted without being drained, 2 at a time"
        );
    }

    #[test]
    fn a_restart_of_a_rollout_says_what_bounds_it() {
        let request = |rollout: &str, max_down| RestartRow {
            id: "q".to_owned(),
            wanted: Timestamp(0),
            after: None,
            by: "rollout".to_owned(),
            rollout: rollout.to_owned(),
            number: 0,
            reason: "why".to_owned(),
            max_down,
            drain: true,
            within_secs: 600,
            stopped: String::new(),
            nodes: vec![RestartNode {
                name: "r01n01".to_owned(),
                step: RestartStep::Waiting,
                since: Timestamp(0),
                after: None,
                failures: 0,
                again: Timestamp(0),
                said: String::new(),
            }],
        };
        let answer = api::RestartsAnswer {
            now: Timestamp(0),
            requests: Vec::new(),
            bounds: [("debian".to_owned(), "at most 10% (1 of 14 nodes) at a time".to_owned())].into(),
        };
        let said = |request: RestartRow| {
            title(&request, &answer, "1 s".to_owned())
                .lines()
                .next()
                .unwrap()
                .to_owned()
        };
        for (request, bound) in [
            (request("", 4), "4 at a time"),
            (request("debian", 1), "at most 10% (1 of 14 nodes) at a time"),
            (request("other", 1), "the rollout of other is over"),
        ] {
            assert_eq!(
                said(request),
                format!("r01n01: requested 1 s ago by rollout, {bound}: why")
            );
        }
    }
}
