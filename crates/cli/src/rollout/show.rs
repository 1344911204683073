//! `rackstrap rollout status` and `rackstrap rollout list`.

use crate::{
    output::{self, Format},
    screen::{self, View},
};
use anyhow::{Result, bail};
use comfy_table::{Cell, Color, ContentArrangement};
use rackstrap_base::clock::Timestamp;
use rackstrap_control::{
    Client,
    api::{self, RolloutNode, RolloutNodeState},
};

/// The state of a node that waited for a version which it will not get.
const NOT_BOOTED: &str = "not booted";

/// Prints the progress.
pub fn status(client: &Client, image: Option<&str>, format: Format) -> Result<()> {
    let answer = client.get(api::paths::ROLLOUTS)?;
    let rows = chosen(&answer, image)?;
    match format.json {
        true => output::print_json(&rows),
        false => output::print_fitting(&describe(&answer, &rows, None)),
    }
}

/// Prints the progress again with each change.
pub fn watch(client: &Client, image: Option<&str>, format: Format) -> Result<()> {
    screen::watch(
        client.watch(api::paths::ROLLOUTS)?,
        format,
        WatchedRollouts { image, format },
    )
}

struct WatchedRollouts<'a> {
    image: Option<&'a str>,
    format: Format,
}

impl screen::Watched<api::RolloutsAnswer> for WatchedRollouts<'_> {
    fn draw(&mut self, answer: &api::RolloutsAnswer, lines: Option<usize>) -> Result<Option<View>> {
        let rows = chosen(answer, self.image)?;
        Ok(Some(match (self.format.json, lines) {
            (true, _) => View::Text(serde_json::to_string(&rows)?),
            (false, Some(_)) => View::Table(describe(answer, &rows, lines)),
            (false, None) => View::Text(describe(answer, &rows, None)),
        }))
    }
}

/// The rollouts to show: the active or last one of `image`; without an image all active ones, or else the last one.
fn chosen<'a>(answer: &'a api::RolloutsAnswer, image: Option<&str>) -> Result<Vec<&'a api::RolloutRow>> {
    let newest = answer.rollouts.iter().rev();
    if let Some(image) = image {
        let named = |row: &&api::RolloutRow| row.rollout.image.name == image || row.rollout.image.to_string() == image;
        return match newest.clone().find(named) {
            Some(row) => Ok(vec![row]),
            None => bail!("no version of {image} was ever rolled out; all rollouts: rackstrap rollout list"),
        };
    }
    let on: Vec<&api::RolloutRow> = newest.clone().filter(|row| row.rollout.is_on()).collect();
    Ok(match on.is_empty() {
        true => newest.take(1).collect(),
        false => on,
    })
}

fn describe(answer: &api::RolloutsAnswer, rows: &[&api::RolloutRow], lines: Option<usize>) -> String {
    if rows.is_empty() {
        let current: Vec<String> = answer.current.iter().map(|current| current.image.to_string()).collect();
        return format!(
            "no rollout yet; current: {}\nhelp: `rackstrap rollout start IMAGE@VERSION --nodes NODES` starts one",
            output::list(current)
        );
    }
    // Lines around the table of each rollout: two of text, a blank, the head, the number of hidden rows, a blank.
    let room = lines.map(|lines| (lines / rows.len()).saturating_sub(6).max(1));
    let texts = rows.iter().map(|row| one(row, answer.now, room));
    texts.collect::<Vec<_>>().join("\n\n")
}

fn one(row: &api::RolloutRow, now: Timestamp, room: Option<usize>) -> String {
    let rollout = &row.rollout;
    let mut text = format!(
        "{} · {}{} · {} of {} · {}",
        rollout.image,
        rollout.stage,
        match rollout.last_batch {
            0 => String::new(),
            batch => format!(", batch {batch}"),
        },
        output::count(row.nodes.len(), "node"),
        rollout.all,
        tally(row)
    );
    if !row.waits_for.is_empty() {
        text += &format!("\n{}", row.waits_for);
    } else if let Some(last) = rollout.remarks.last() {
        text += &format!("\n{}, {} ago", last.what, output::ago(now, last.at));
    }
    let mut nodes: Vec<&RolloutNode> = row.nodes.iter().collect();
    let mut hidden = String::new();
    if let Some(room) = room.filter(|room| nodes.len() > *room) {
        nodes.sort_by_key(|node| match node.state {
            RolloutNodeState::Failed { .. } => 0,
            RolloutNodeState::RolledBack { .. } => 1,
            RolloutNodeState::Booting => 2,
            RolloutNodeState::Waiting => 3,
            RolloutNodeState::Ready => 4,
        });
        nodes.truncate(room.saturating_sub(1).max(1));
        hidden = format!(
            "\n... and {} more: rackstrap rollout status",
            row.nodes.len() - nodes.len()
        );
    }
    let mut table = output::table(["node", "batch", "state", "version", "since", "boots", "why"]);
    for node in nodes {
        table.add_row(vec![
            Cell::new(&node.node),
            output::right(match node.batch {
                0 => "canary".to_owned(),
                batch => batch.to_string(),
            }),
            state_cell(&node.state, node.proven, rollout.stage.is_taken_back()),
            Cell::new(output::dash(
                &node.image.as_ref().map(ToString::to_string).unwrap_or_default(),
            )),
            output::right(output::ago(now, node.since)),
            output::right(node.boots),
            Cell::new(why(node)),
        ]);
    }
    if room.is_some() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    format!("{text}\n\n{}{hidden}", output::render(&table))
}

/// Why the node failed, or why it does not progress.
fn why(node: &RolloutNode) -> String {
    match (node.stalled.as_str(), node.ordered.as_str()) {
        ("", "") => node.state.why().to_owned(),
        ("", order) => format!("runs {order}, by an order for one boot"),
        (stalled, _) => format!("stalled at {stalled}"),
    }
}

fn state_cell(state: &RolloutNodeState, proven: bool, taken_back: bool) -> Cell {
    let cell = match state {
        RolloutNodeState::Ready if !proven => Cell::new("ready, soaks"),
        RolloutNodeState::Waiting if taken_back => Cell::new(NOT_BOOTED),
        state => Cell::new(state),
    };
    match state {
        RolloutNodeState::Ready => cell.fg(Color::Green),
        RolloutNodeState::Booting => cell.fg(Color::Cyan),
        RolloutNodeState::Waiting => cell,
        RolloutNodeState::Failed { .. } | RolloutNodeState::RolledBack { .. } => cell.fg(Color::Red),
    }
}

fn tally(row: &api::RolloutRow) -> String {
    let tally = &row.rollout.tally;
    let counts = [
        (tally.ready, "ready"),
        (tally.booting, "booting"),
        (
            tally.waiting,
            match row.rollout.stage.is_taken_back() {
                true => NOT_BOOTED,
                false => "waiting",
            },
        ),
        (tally.failed, "failed"),
        (tally.rolled_back, "rolled back"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    output::list(counts.map(|(count, state)| format!("{count} {state}")))
}

/// Prints all rollouts, the newest last.
pub fn list(client: &Client, format: Format) -> Result<()> {
    let answer: api::RolloutsAnswer = client.get(api::paths::ROLLOUTS)?;
    if format.json {
        return output::print_json(&answer.rollouts);
    }
    if answer.rollouts.is_empty() {
        return output::print(&describe(&answer, &[], None));
    }
    let mut table = output::table(["version", "from", "began", "stage", "nodes", "by", "message"]);
    for row in &answer.rollouts {
        let rollout = &row.rollout;
        let held = match (rollout.is_on(), rollout.paused, rollout.stopped.is_empty()) {
            (true, _, false) => ", stopped",
            (true, true, _) => ", paused",
            _ => "",
        };
        table.add_row([
            rollout.image.to_string(),
            rollout.from.to_string(),
            output::local_time(rollout.began),
            format!("{}{held}", rollout.stage),
            tally(row),
            rollout.by.clone(),
            rollout.message.clone(),
        ]);
    }
    output::print(&output::render(&table))
}
