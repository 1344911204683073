//! `rackstrap status`

use super::{
    connection::connect,
    hostlist::Wanted,
    output::{self, Format},
    screen::{self, View},
};
use anyhow::Result;
use clap::Args;
use rackstrap_control::{
    Client,
    api::{self, DiskTrouble, NodeState, StatusRow},
};
use rackstrap_hostlist::NodeSet;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
};
use unicode_width::UnicodeWidthStr;

mod rows;

/// Arguments of `rackstrap status`.
#[derive(Debug, Args)]
#[command(after_help = "\
States: absent (never seen), loading (firmware or loader asks), agent (disk and root are being prepared), starting
(the operating system boots), ready, degraded (up, with less than asked for: see the last column), unmanaged (its own disk
or memtest: it reports nothing), off (switched off by rackstrap power off or soft), stalled (the next step of the boot is overdue), lost (no heartbeat any more), waiting (an unknown machine: give it a name with rackstrap discover accept).

Lines fit the terminal; a text that is cut ends in three dots. With more than 40 nodes, nodes with equal values share a line,
which shows the shortest time with a plus sign.

Examples:
  rackstrap status
  rackstrap status 'r[01-02]n*!@profile:gpu'
  rackstrap status @rack:r03 --watch
  rackstrap status --sort worst         (nodes with problems come first)
  rackstrap status --wide               (all columns, whole texts, a line a node)
  rackstrap status --watch              (until Ctrl-C; if not all nodes fit, nodes with problems come first)
  rackstrap status --json | jq '.nodes[] | select(.state != \"ready\") | .node'")]
pub struct StatusArgs {
    /// Show only these nodes, and no unknown machines [default: all]
    #[arg(value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Show each change as it happens, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Show all columns and uncut texts, one line per node
    #[arg(long)]
    wide: bool,
    /// Order of the lines: by name, or nodes with problems first
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    #[command(flatten)]
    format: Format,
}

/// Order of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Sort {
    /// By name, unknown machines last
    #[default]
    Name,
    /// Lost and stalled nodes first, ready ones last
    Worst,
}

/// Runs the command.
pub fn run(config: &Path, args: StatusArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    let wanted = Wanted::new(args.nodes)?;
    if args.watch {
        let look = Look {
            wide: args.wide,
            sort: args.sort,
            ..Look::default()
        };
        let watched = WatchedStatus {
            client: &client,
            wanted: &wanted,
            look,
            format: args.format,
        };
        screen::watch(client.watch(api::paths::STATUS)?, args.format, watched)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (answer, all) = ask(&client, &wanted)?;
    match args.format.json {
        true => output::print_json(&answer)?,
        false => {
            let look = Look {
                columns: screen::columns(),
                rows: None,
                wide: args.wide,
                sort: args.sort,
            };
            output::print(&describe(&answer, &wanted.matches_none(all), look))?
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The status of the wanted nodes, and the number of all nodes.
fn ask(client: &Client, wanted: &Wanted) -> Result<(api::StatusAnswer, usize)> {
    let mut answer: api::StatusAnswer = client.get(api::paths::STATUS)?;
    let all = select(client, wanted, &mut answer)?;
    Ok((answer, all))
}

/// Removes all but the wanted nodes from the answer, and returns the number of all nodes. Groups are expanded again for each
/// answer, because nodes join and leave them.
fn select(client: &Client, wanted: &Wanted, answer: &mut api::StatusAnswer) -> Result<usize> {
    let all = answer
        .nodes
        .iter()
        .filter(|row| row.state != NodeState::Waiting)
        .count();
    if !wanted.is_all() {
        let names: BTreeSet<String> = wanted.nodes(client)?.into_iter().map(|node| node.name).collect();
        answer.nodes.retain(|row| names.contains(&row.node));
    }
    Ok(all)
}

/// How the status is shown.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// Columns of the terminal; none if lines may have any length.
    columns: Option<usize>,
    /// Lines of the terminal; none if all lines are shown.
    rows: Option<usize>,
    /// Show all columns and uncut texts, one line for each node.
    wide: bool,
    sort: Sort,
}

/// A summary, and below it the table; `none` is shown if no node is. If not all lines fit, nodes with problems come first.
fn describe(answer: &api::StatusAnswer, none: &str, look: Look) -> String {
    if answer.nodes.is_empty() {
        let text = [vec![none.to_owned()], beside(answer)].concat().join("\n");
        return output::fit(&text, look.columns);
    }
    let head = output::fit(&sum(answer, look.columns), look.columns);
    let mut lines = rows::lines(answer.now, &answer.nodes, look.wide);
    if look.sort == Sort::Worst {
        lines.sort_by_key(|line| rows::urgency(line.state));
    }
    let mut hidden = String::new();
    if let Some(rows) = look.rows {
        // The summary, a blank line and the table's head.
        let room = rows.saturating_sub(2 + head.lines().count()).max(1);
        if lines.len() > room {
            lines.sort_by_key(|line| rows::urgency(line.state));
            let rest = lines.split_off(room.saturating_sub(1).max(1));
            let nodes: usize = rest.iter().map(|line| line.nodes).sum();
            hidden = format!("\n... and {nodes} more: rackstrap status");
        }
    }
    let table = match look.wide {
        true => rows::wide_table(&lines),
        false => rows::table(&lines, look.columns),
    };
    format!("{head}\n\n{}{hidden}", output::render(&table))
}

fn sum(answer: &api::StatusAnswer, columns: Option<usize>) -> String {
    let number = |state| answer.nodes.iter().filter(|row| row.state == state).count();
    let waiting = number(NodeState::Waiting);
    let nodes = answer.nodes.len() - waiting;
    let parts = NodeState::OF_NODES.into_iter().filter(|state| number(*state) > 0);
    let parts: Vec<String> = parts.map(|state| format!("{} {state}", number(state))).collect();
    let mut text = output::count(nodes, "node");
    if !parts.is_empty() {
        text = format!("{text}: {}", parts.join(", "));
    }
    if waiting > 0 {
        let mut machines = answer.nodes.iter().filter(|row| row.state == NodeState::Waiting);
        let (verb, hwaddr) = match (waiting, machines.next()) {
            (1, Some(machine)) => ("waits", machine.node.as_str()),
            _ => ("wait", "MAC"),
        };
        let them = output::count(waiting, "unknown machine");
        let them = format!("{them} {verb}: rackstrap discover accept {hwaddr} NAME");
        // A command is kept on one line if possible.
        let both = text.width() + 2 + them.width();
        let between = if columns.is_some_and(|columns| both > columns) {
            "\n"
        } else {
            "; "
        };
        text = format!("{text}{between}{them}");
    }
    [vec![text], beside(answer)].concat().join("\n")
}

/// Remarks below the rows, one line each.
fn beside(answer: &api::StatusAnswer) -> Vec<String> {
    let full = answer.full.iter().map(|pool| {
        format!(
            "{pool} (since {} ago): rack waiting machines, or enlarge 'pool' of [[subnet]] {}",
            output::ago(answer.now, pool.since),
            pool.network
        )
    });
    let ignored = (answer.ignored > 0).then(|| {
        let machines = output::count(answer.ignored, "unknown machine");
        format!("{machines} ignored: rackstrap discover list --all")
    });
    let warnings = answer
        .warnings
        .iter()
        .map(|warning| format!("{}: {}\nhelp: {}", warning.level(), warning.message, warning.help));
    full.chain(ignored)
        .chain(warnings)
        .chain(retries(&answer.nodes))
        .chain(disks(&answer.nodes))
        .collect()
}

/// The nodes whose boots needed retries: each text once, with its nodes.
fn retries(rows: &[StatusRow]) -> Vec<String> {
    /// Fewer retries of a node that is up are no reason to look at it.
    const WORTH_A_LINE: u64 = 3;
    let mut alike: BTreeMap<String, NodeSet> = BTreeMap::new();
    for row in rows {
        let total: u64 = row.retries.values().fold(0, |sum, count| sum.saturating_add(*count));
        let up = matches!(row.state, NodeState::Ready | NodeState::Degraded);
        if total == 0 || up && total < WORTH_A_LINE {
            continue;
        }
        let how = if up { ", and came up" } else { "" };
        let text = format!("retried {}{how}", api::describe_retries(&row.retries));
        alike.entry(text).or_default().insert(row.node.as_str());
    }
    let lines = alike.into_iter().map(|(text, nodes)| {
        let names = nodes.fold();
        (format!("{names} {text}: rackstrap timeline {names}"), nodes)
    });
    few(lines, "also retries")
}

/// What nodes' next boots do to their disks, and the commands for disks that were left alone: each text once, with its nodes.
fn disks(rows: &[StatusRow]) -> Vec<String> {
    let mut next: BTreeMap<&str, NodeSet> = BTreeMap::new();
    let mut left_alone: BTreeMap<&DiskTrouble, NodeSet> = BTreeMap::new();
    for row in rows {
        if !row.next_disk.is_empty() {
            next.entry(&row.next_disk).or_default().insert(row.node.as_str());
        }
        if let Some(trouble) = &row.disk_trouble {
            left_alone.entry(trouble).or_default().insert(row.node.as_str());
        }
    }
    let next = next
        .into_iter()
        .map(|(text, nodes)| (format!("warning: {}: {text}", nodes.fold()), nodes));
    let left_alone = left_alone.into_iter().map(|(trouble, nodes)| {
        let names = nodes.fold();
        (format!("disk of {names}: {}", trouble.remedy(&names)), nodes)
    });
    [few(next, "also the disks"), few(left_alone, "also the disks")].concat()
}

/// The first few lines; for the rest, the names of the nodes.
fn few(lines: impl Iterator<Item = (String, NodeSet)>, others: &str) -> Vec<String> {
    /// The table below these lines is more important.
    const MOST: usize = 4;
    let mut lines: Vec<(String, NodeSet)> = lines.collect();
    let rest = lines.split_off(MOST.min(lines.len()));
    let rest: NodeSet = rest.iter().flat_map(|(_, nodes)| nodes.iter()).collect();
    let more = (!rest.is_empty()).then(|| format!("warning: {others} of {}: rackstrap explain NODE", rest.fold()));
    lines.into_iter().map(|(text, _)| text).chain(more).collect()
}

/// `--watch`
struct WatchedStatus<'a> {
    client: &'a Client,
    wanted: &'a Wanted,
    look: Look,
    format: Format,
}

impl screen::Watched<api::StatusAnswer> for WatchedStatus<'_> {
    fn draw(&mut self, answer: &api::StatusAnswer, rows: Option<usize>) -> Result<Option<View>> {
        let mut answer = answer.clone();
        let all = match select(self.client, self.wanted, &mut answer) {
            Ok(all) => all,
            Err(error) => return screen::unless_temporary(error).map(Some),
        };
        if self.format.json {
            return Ok(Some(View::Text(serde_json::to_string(&answer)?)));
        }
        let columns = screen::columns();
        let look = Look {
            columns,
            rows,
            ..self.look
        };
        let text = describe(&answer, &self.wanted.matches_none(all), look);
        Ok(Some(match rows {
            Some(_) => View::Table(text),
            None => View::Text(text),
        }))
    }
}

#[cfg(test)]
mod tests;
