//! The lines of `rackstrap status`: a node each, or nodes of which all is equal.

use crate::{
    cli::output,
    control::api::{NodeState, StatusRow},
};
use comfy_table::{ContentArrangement, Table};
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::NodeSet;
use std::collections::BTreeMap;
use unicode_width::UnicodeWidthStr;

/// With more nodes, those of which all is equal share a line.
const FOLD_ABOVE: usize = 40;

/// Columns of the terminal from which addresses are shown.
const ADDRESSES_FROM: usize = 100;

/// Letters of a list of nodes that are more important than the note's end.
const NAMES: usize = 30;

/// Columns that the note has at least, however long names are; a third of what there is on a very narrow terminal.
const LEAST_NOTE: usize = 12;

/// One line.
pub(super) struct Line {
    /// A node, or several as a hostlist.
    names: String,
    /// How many nodes that is.
    pub nodes: usize,
    pub state: NodeState,
    since: String,
    address: String,
    image: String,
    disk: String,
    /// Why, or else what the disk is.
    note: String,
    last_error: String,
}

/// How early somebody has to look at a node in that state, the lowest number first.
pub(super) fn urgency(state: NodeState) -> u8 {
    match state {
        NodeState::Lost => 0,
        NodeState::Stalled => 1,
        NodeState::Degraded => 2,
        NodeState::Waiting => 3,
        NodeState::Loading | NodeState::Agent | NodeState::Starting => 4,
        NodeState::Absent => 5,
        NodeState::Ready => 6,
    }
}

/// The lines of all `nodes`, in their order. Nodes share lines if there are many and `each` is false.
pub(super) fn lines(now: Timestamp, nodes: &[StatusRow], each: bool) -> Vec<Line> {
    let fold = !each && nodes.len() > FOLD_ABOVE;
    let mut groups: Vec<Vec<&StatusRow>> = Vec::new();
    let mut places: BTreeMap<(u8, String, &str, &str, &str), usize> = BTreeMap::new();
    for row in nodes {
        let image = row.image.as_ref().map(ToString::to_string).unwrap_or_default();
        let alike = (
            urgency(row.state),
            format!("{} {image}", row.state),
            &*row.disk,
            &*row.last_error,
            &*row.remark,
        );
        // An unknown machine has no name that would fold.
        match places.get(&alike).filter(|_| fold && row.state != NodeState::Waiting) {
            Some(place) => groups[*place].push(row),
            None => {
                places.insert(alike, groups.len());
                groups.push(vec![row]);
            }
        }
    }
    groups.iter().filter_map(|group| line(now, group)).collect()
}

fn line(now: Timestamp, group: &[&StatusRow]) -> Option<Line> {
    let first = group.first()?;
    let ages = || group.iter().filter_map(|row| row.since).map(|since| now.since(since));
    let shortest = ages().min().map(output::brief);
    let longest = ages().max().map(output::brief);
    let more = if shortest == longest { "" } else { "+" };
    let mut names = NodeSet::default();
    names.extend(group.iter().map(|row| row.node.as_str()));
    // The disk says why it is degraded, and so does the last error, behind the step's name.
    let reason = first.last_error.split_once("disk: ").map(|(_, reason)| reason);
    let disk = match reason.filter(|reason| !reason.is_empty()) {
        Some(reason) => first.disk.replace(&format!("degraded: {reason}"), "degraded"),
        None => first.disk.clone(),
    };
    Some(Line {
        names: match group {
            [one] => one.node.clone(),
            _ => names.fold(),
        },
        nodes: group.len(),
        state: first.state,
        since: shortest.map_or_else(|| "-".to_owned(), |shortest| format!("{shortest}{more}")),
        address: match group {
            [one] => output::dash(&one.ipaddr.map(|ip| ip.to_string()).unwrap_or_default()),
            _ => "-".to_owned(),
        },
        image: output::dash(&first.image.as_ref().map(ToString::to_string).unwrap_or_default()),
        note: match first.last_error.is_empty() {
            true => remarked(&first.remark, &first.disk),
            false => first.last_error.clone(),
        },
        disk: output::dash(&remarked(&first.remark, &disk)),
        last_error: first.last_error.clone(),
    })
}

/// A remark stands first: it is short, and lines are cut at their ends.
fn remarked(remark: &str, text: &str) -> String {
    match (remark, text) {
        ("", text) | (text, "") => text.to_owned(),
        (remark, text) => format!("{remark}; {text}"),
    }
}

/// The table that fits `columns`.
pub(super) fn table(lines: &[Line], columns: Option<usize>) -> Table {
    let addresses = columns.is_none_or(|columns| columns >= ADDRESSES_FROM);
    let widest =
        |title: &str, text: &dyn Fn(&Line) -> usize| lines.iter().map(text).max().unwrap_or(0).max(title.len());
    let mut used =
        2 + widest("state", &|line| line.state.as_str().len()) + 2 + widest("since", &|line| line.since.len());
    if addresses {
        used += 2 + widest("address", &|line| line.address.len());
    }
    let all_names = widest("node", &|line| line.names.width());
    let all_images = widest("image", &|line| line.image.width());
    // Names and images get what they need, if that leaves something for the note, and of the rest half each otherwise.
    let (names, images) = match columns {
        Some(columns) => {
            let room = columns.saturating_sub(used + 2 + 2);
            let room = room - LEAST_NOTE.min(room / 3);
            let images = all_images.min((room / 2).max(room.saturating_sub(all_names.min(NAMES))));
            let names = all_names.min(NAMES).min(room.saturating_sub(images));
            // What the notes do not need is theirs too.
            let notes = widest("note", &|line| line.note.width());
            let left = columns.saturating_sub(used + 2 + 2 + images + notes);
            (all_names.min(names.max(left)), images)
        }
        None => (all_names, all_images),
    };
    let room = columns.map(|columns| columns.saturating_sub(used + 2 + names + 2 + images));
    let mut table = match addresses {
        true => output::table(["node", "state", "since", "image", "address", "note"]),
        false => output::table(["node", "state", "since", "image", "note"]),
    };
    table.set_content_arrangement(ContentArrangement::Disabled);
    for line in lines {
        let mut cells = vec![
            named(line, names).into(),
            output::state_cell(line.state),
            output::right(&line.since),
            image(&line.image, images).into(),
        ];
        if addresses {
            cells.push(line.address.as_str().into());
        }
        let note = room.map_or_else(|| line.note.clone(), |room| output::cut(&line.note, room));
        cells.push(note.into());
        table.add_row(cells);
    }
    table
}

/// All columns and whole texts, however long the lines become.
pub(super) fn wide_table(lines: &[Line]) -> Table {
    let mut table = output::table(["node", "address", "image", "state", "since", "disk", "last error"]);
    table.set_content_arrangement(ContentArrangement::Disabled);
    for line in lines {
        table.add_row(vec![
            line.names.as_str().into(),
            line.address.as_str().into(),
            line.image.as_str().into(),
            output::state_cell(line.state),
            output::right(&line.since),
            line.disk.as_str().into(),
            line.last_error.as_str().into(),
        ]);
    }
    table
}

/// The nodes of a line in so many columns. Of several, their number stays.
fn named(line: &Line, room: usize) -> String {
    let count = format!("... ({})", line.nodes);
    match line.names.width() > room && line.nodes > 1 && count.len() < room {
        true => line.names[..output::kept_by(&line.names, room - count.len())].to_owned() + &count,
        false => output::cut_inside(&line.names, room),
    }
}

/// An image's name in so many columns. Its version stays, as that is what differs between nodes.
fn image(image: &str, room: usize) -> String {
    match image.rsplit_once('@') {
        Some((name, version)) if image.width() > room && version.len() + 5 < room => {
            format!("{}@{version}", output::cut(name, room - version.len() - 1))
        }
        _ => output::cut(image, room),
    }
}
