//! `rackstrap status`

use super::{
    connection::connect,
    hostlist::Wanted,
    output::{self, Format},
    screen::{self, View},
};
use crate::{
    clock::Timestamp,
    control::{Client, api},
    timeline::{State, StatusRow},
};
use anyhow::Result;
use clap::Args;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use std::{collections::BTreeSet, path::Path, process::ExitCode};

const NO_NODES: &str = "no nodes yet; add one: rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01";

/// Arguments of `rackstrap status`.
#[derive(Debug, Args)]
#[command(after_help = "\
States: absent (never heard of), loading (firmware or loader asks), agent (disk and root are being prepared), starting
(the operating system boots), ready, degraded (up, with less than asked for: see the last column), lost (no heartbeat any
more), waiting (an unknown machine: give it a name with rackstrap discover accept).

Examples:
  rackstrap status
  rackstrap status 'r[01-02]n*!@profile:gpu'
  rackstrap status @rack:r03 --watch
  rackstrap status --watch              (until Ctrl-C; when not all nodes fit, those come first that need a look)
  rackstrap status --json | jq '.nodes[] | select(.state != \"ready\") | .node'")]
pub struct StatusArgs {
    /// Only these, and no unknown machines [default: all]
    #[arg(value_name = "NODES", add = crate::cli::complete::nodes())]
    nodes: Vec<String>,
    /// Look again every second, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs it.
pub fn run(config: &Path, args: StatusArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    let wanted = Wanted::new(args.nodes)?;
    if args.watch {
        watch(&client, &wanted, args.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer = ask(&client, &wanted)?;
    match args.format.json {
        true => output::print_json(&answer)?,
        false => output::print(&describe(&answer))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The status of what is wanted. Groups are asked for anew each time: nodes join and leave them.
fn ask(client: &Client, wanted: &Wanted) -> Result<api::StatusAnswer> {
    let mut answer: api::StatusAnswer = client.get(api::paths::STATUS)?;
    if !wanted.is_all() {
        let names: BTreeSet<String> = wanted.nodes(client)?.into_iter().map(|node| node.name).collect();
        answer.nodes.retain(|row| names.contains(&row.node));
    }
    Ok(answer)
}

/// The table, and a line that sums it up.
fn describe(answer: &api::StatusAnswer) -> String {
    if answer.nodes.is_empty() {
        return [vec![NO_NODES.to_owned()], beside(answer)].concat().join("\n");
    }
    let mut table = table_of(answer.now, &answer.nodes);
    // Where the terminal is too narrow for a line, the long texts are broken, and nothing else.
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_constraint(match index {
            DISK.. => ColumnConstraint::LowerBoundary(Width::Fixed(24)),
            _ => ColumnConstraint::ContentWidth,
        });
    }
    format!("{}\n\n{}", output::render(&table), sum(answer))
}

/// The same in at most `rows` lines, none of them broken. When not all nodes fit, those come first that need a look.
fn describe_within(answer: &api::StatusAnswer, rows: usize) -> String {
    if answer.nodes.is_empty() {
        return [vec![NO_NODES.to_owned()], beside(answer)].concat().join("\n");
    }
    // The head, a blank line and the sum.
    let room = rows.saturating_sub(2 + sum(answer).lines().count()).max(1);
    let mut nodes = answer.nodes.clone();
    let mut hidden = String::new();
    if nodes.len() > room {
        nodes.sort_by_key(|row| match row.state {
            State::Lost | State::Degraded | State::Waiting => 0,
            State::Loading | State::Agent | State::Starting => 1,
            State::Absent => 2,
            State::Ready => 3,
        });
        nodes.truncate(room.saturating_sub(1).max(1));
        hidden = format!("\n... and {} more: rackstrap status", answer.nodes.len() - nodes.len());
    }
    let mut table = table_of(answer.now, &nodes);
    table.set_content_arrangement(ContentArrangement::Disabled);
    format!("{}{hidden}\n\n{}", output::render(&table), sum(answer))
}

/// Index of the first column of long texts.
const DISK: usize = 5;

fn table_of(now: Timestamp, nodes: &[StatusRow]) -> Table {
    let mut table = output::table(["node", "address", "image", "state", "since", "disk", "last error"]);
    for row in nodes {
        let since = row.since.map(|since| output::ago(now, since));
        table.add_row(vec![
            row.node.as_str().into(),
            output::dash(&row.ipaddr.map(|ip| ip.to_string()).unwrap_or_default()).into(),
            output::dash(&row.image.as_ref().map(ToString::to_string).unwrap_or_default()).into(),
            output::state_cell(row.state),
            output::right(since.unwrap_or_else(|| "-".to_owned())),
            output::dash(&row.disk).into(),
            row.last_error.as_str().into(),
        ]);
    }
    table
}

fn sum(answer: &api::StatusAnswer) -> String {
    let number = |state| answer.nodes.iter().filter(|row| row.state == state).count();
    let waiting = number(State::Waiting);
    let nodes = answer.nodes.len() - waiting;
    let parts = State::OF_NODES.into_iter().filter(|state| number(*state) > 0);
    let parts: Vec<String> = parts.map(|state| format!("{} {state}", number(state))).collect();
    let mut text = output::count(nodes, "node");
    if !parts.is_empty() {
        text = format!("{text}: {}", parts.join(", "));
    }
    if waiting > 0 {
        let mut machines = answer.nodes.iter().filter(|row| row.state == State::Waiting);
        let (verb, hwaddr) = match (waiting, machines.next()) {
            (1, Some(machine)) => ("waits", machine.node.as_str()),
            _ => ("wait", "MAC"),
        };
        let them = output::count(waiting, "unknown machine");
        text = format!("{text}; {them} {verb}: rackstrap discover accept {hwaddr} NAME");
    }
    [vec![text], beside(answer)].concat().join("\n")
}

/// What is to be said beside the rows, a line each.
fn beside(answer: &api::StatusAnswer) -> Vec<String> {
    let full = answer.full.iter().map(|pool| {
        format!(
            "{pool} (since {} ago): rack who waits, or enlarge 'pool' of [[subnet]] {}",
            output::ago(answer.now, pool.since),
            pool.network
        )
    });
    let ignored = (answer.ignored > 0).then(|| {
        let machines = output::count(answer.ignored, "unknown machine");
        format!("{machines} ignored: rackstrap discover list --all")
    });
    full.chain(ignored).collect()
}

fn watch(client: &Client, wanted: &Wanted, format: Format) -> Result<()> {
    screen::watch(format, false, |rows, _| {
        Ok(Some(match ask(client, wanted) {
            Ok(answer) if format.json => View::Text(serde_json::to_string(&answer)?),
            Ok(answer) => match rows {
                Some(rows) => View::Table(describe_within(&answer, rows)),
                None => View::Text(describe(&answer)),
            },
            Err(error) => screen::unless_it_comes_back(error)?,
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(node: &str, state: State) -> StatusRow {
        StatusRow {
            node: node.to_owned(),
            state,
            since: Some(Timestamp(1_000)),
            image: None,
            ipaddr: None,
            disk: "/tmp on vda".to_owned(),
            last_error: "x".repeat(300),
            heard: None,
            boot: String::new(),
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_needs_a_look_comes_first() {
        let mut nodes: Vec<StatusRow> = (1..=40).map(|n| row(&format!("r01n{n:02}"), State::Ready)).collect();
        nodes[30].state = State::Lost;
        nodes.push(row("52:54:00:00:00:99", State::Waiting));
        let answer = api::StatusAnswer {
            cluster: "lab".to_owned(),
            now: Timestamp(2_000),
            nodes,
            ignored: 0,
            full: Vec::new(),
        };
        let text = describe_within(&answer, 10);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 10, "{text}");
        assert!(
            lines[1].starts_with("r01n31") && lines[2].starts_with("52:54:00:00:00:99"),
            "{text}"
        );
        assert_eq!(lines[7], "... and 35 more: rackstrap status");
        assert!(lines[9].ends_with("1 unknown machine waits: rackstrap discover accept 52:54:00:00:00:99 NAME"));
        assert_eq!(
            describe_within(&answer, 44).lines().count(),
            44,
            "all of them, with head and sum"
        );
        assert!(!describe_within(&answer, 44).contains("more:"));
        assert!(
            describe_within(&answer, 0).contains("and 40 more"),
            "a terminal of no height"
        );
    }
}
