//! The lines of `rackstrap status`: one node each, or several nodes with equal values.

use crate::output;
use comfy_table::{ContentArrangement, Table};
use rackstrap_base::clock::Timestamp;
use rackstrap_control::api::{NodeState, StatusRow};
use rackstrap_hostlist::NodeSet;
use std::collections::BTreeMap;
use unicode_width::UnicodeWidthStr;

/// With more nodes than this, nodes with equal values share a line.
const FOLD_ABOVE: usize = 40;

/// Addresses are shown if the terminal has at least this many columns.
const ADDRESSES_FROM: usize = 100;

/// Up to this many letters, a list of nodes is more important than the end of the note.
const NAMES: usize = 30;

/// The least number of columns of a note, however long names are; a third of the columns on a very narrow terminal.
const LEAST_NOTE: usize = 12;

/// One line of the table.
pub(super) struct Line {
    /// The name of a node, or several names as a hostlist.
    names: String,
    /// The number of nodes in `names`.
    pub nodes: usize,
    pub state: NodeState,
    since: String,
    address: String,
    image: String,
    disk: String,
    /// The last error; if there is none, the disk.
    note: String,
    last_error: String,
}

/// Rank of a state for `--sort worst`: the lowest number comes first.
pub(super) fn urgency(state: NodeState) -> u8 {
    match state {
        NodeState::Lost => 0,
        NodeState::Stalled => 1,
        NodeState::Degraded => 2,
        NodeState::Waiting => 3,
        NodeState::Loading | NodeState::Agent | NodeState::Starting => 4,
        NodeState::Absent | NodeState::Unmanaged | NodeState::Off => 5,
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
        // Unknown machines have no names that could be folded.
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
    // If the disk is the reason, the last error repeats it after the name of the step.
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

/// Puts a remark before the text: it is short, and lines are cut at their ends.
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
    // Names and images get the columns that they need if enough is left for the note; otherwise each gets half of the rest.
    let (names, images) = match columns {
        Some(columns) => {
            let room = columns.saturating_sub(used + 2 + 2);
            let room = room - LEAST_NOTE.min(room / 3);
            let images = all_images.min((room / 2).max(room.saturating_sub(all_names.min(NAMES))));
            let names = all_names.min(NAMES).min(room.saturating_sub(images));
            // Columns that the notes do not need are for names and images, too.
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

/// All columns and uncut texts, whatever the length of the lines.
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

/// The names of a line in so many columns. If there are several, their number is kept.
fn named(line: &Line, room: usize) -> String {
    let count = format!("... ({})", line.nodes);
    match line.names.width() > room && line.nodes > 1 && count.len() < room {
        true => line.names[..output::kept_by(&line.names, room - count.len())].to_owned() + &count,
        false => output::cut_inside(&line.names, room),
    }
}

/// The name of an image in so many columns. Its version is kept, because nodes differ in it.
fn image(image: &str, room: usize) -> String {
    match image.rsplit_once('@') {
        Some((name, version)) if image.width() > room && version.len() + 5 < room => {
            format!("{}@{version}", output::cut(name, room - version.len() - 1))
        }
        _ => output::cut(image, room),
    }
}
