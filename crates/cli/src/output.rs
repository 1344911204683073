//! The form of answers: tables for people, JSON for programs, colours only on a terminal.

use super::screen;
use anyhow::{Context, Result};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use rackstrap_base::clock::Timestamp;
pub use rackstrap_base::clock::duration;
pub use rackstrap_base::words::count;
use rackstrap_control::api::{Level, NodeState};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `--json`
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Format {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Prints one or more lines.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let text = text.trim_end_matches('\n');
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.context("writing to standard output")
}

/// Prints a text for people. On a terminal no line is wider than the terminal.
pub fn print_fitting(text: &str) -> Result<()> {
    print(&fit(text, screen::columns()))
}

/// Breaks each line that is wider than `columns` at blanks. The continuation is indented, so that it differs from the next
/// line. Only a word that is wider by itself, such as a list of nodes, is broken inside.
pub fn fit(text: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns.map(|columns| columns.max(1)) else {
        return text.to_owned();
    };
    let lines = text
        .split('\n')
        .map(|line| match line.width() <= columns || line.contains('\x1b') {
            // A coloured line belongs to a table, which fits already.
            true => line.to_owned(),
            false => broken(line, columns, hanging(line).min(columns / 2)),
        });
    lines.collect::<Vec<_>>().join("\n")
}

/// Breaks the line at blanks, without an indent.
pub fn fill(line: &str, columns: usize) -> String {
    broken(line, columns, 0)
}

fn broken(line: &str, columns: usize, indent: usize) -> String {
    let (mut done, mut now) = (String::new(), String::new());
    let begin = |done: &mut String, now: &mut String| {
        done.push_str(now.trim_end());
        done.push('\n');
        *now = " ".repeat(indent);
    };
    for (index, word) in line.split(' ').enumerate() {
        if index > 0 && now.width() + 1 + word.width() <= columns {
            now.push(' ');
            now.push_str(word);
            continue;
        }
        if index > 0 {
            begin(&mut done, &mut now);
        }
        let mut word = word;
        while now.width() + word.width() > columns {
            let room = columns.saturating_sub(now.width()).max(1);
            let (head, rest) = word.split_at(break_at(word, room));
            now.push_str(head);
            word = rest;
            begin(&mut done, &mut now);
        }
        now.push_str(word);
    }
    done + now.trim_end()
}

/// The indent of a continuation: below the value of a `key:   value` or `key   value` line, otherwise two columns more than
/// the line itself.
fn hanging(line: &str) -> usize {
    const LONGEST_KEY: usize = 14;
    if let Some((key, rest)) = line.split_once(": ")
        && key.len() <= LONGEST_KEY
        && key.chars().all(|c| c.is_ascii_lowercase() || c == ' ')
    {
        return key.len() + 2 + (rest.len() - rest.trim_start().len());
    }
    if let Some(end) = line.find("  ").filter(|end| (1..=LONGEST_KEY).contains(end)) {
        return line.len() - line[end..].trim_start().len();
    }
    line.len() - line.trim_start().len() + 2
}

/// How many bytes of `word` fit in `room` columns, at least one letter. The break is after a comma or similar if one is near.
fn break_at(word: &str, room: usize) -> usize {
    let (mut used, mut end, mut nice) = (0, 0, 0);
    for (at, letter) in word.char_indices() {
        used += letter.width().unwrap_or(0);
        if used > room && end > 0 {
            break;
        }
        end = at + letter.len_utf8();
        if matches!(letter, ',' | '/' | ']' | ';' | '=') {
            nice = end;
        }
    }
    if nice > end / 2 { nice } else { end }
}

/// The text in at most `room` columns, with dots where something is cut.
pub fn cut(text: &str, room: usize) -> String {
    match text.width() > room {
        true => {
            let kept = &text[..kept_by(text, room.saturating_sub(3))];
            let dots = ".".repeat(room.min(3));
            format!("{}{dots}", kept.trim_end())
        }
        false => text.to_owned(),
    }
}

/// The text in at most `room` columns, cut in the middle: names differ at their ends.
pub fn cut_inside(text: &str, room: usize) -> String {
    const DOTS: &str = "...";
    if text.width() <= room || room <= DOTS.len() {
        return cut(text, room);
    }
    let room = room - DOTS.len();
    let head = &text[..kept_by(text, room / 2)];
    let mut left = room - head.width();
    let mut from = text.len();
    for (at, letter) in text.char_indices().rev() {
        let Some(rest) = left.checked_sub(letter.width().unwrap_or(0)) else {
            break;
        };
        (left, from) = (rest, at);
    }
    format!("{head}{DOTS}{}", &text[from..])
}

/// How many bytes of the beginning of `text` fit in `room` columns.
pub fn kept_by(text: &str, room: usize) -> usize {
    let mut used = 0;
    let letter = text.char_indices().find(|(_, letter)| {
        used += letter.width().unwrap_or(0);
        used > room
    });
    letter.map_or(text.len(), |(at, _)| at)
}

/// Prints a text without changes.
pub fn print_exactly(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("writing to standard output")
}

/// Prints `value` as JSON, with one line for each level.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Prints the answer for each of `subjects`: texts with an empty line between them, or one JSON value after the other, as
/// `jq` reads them.
///
/// # Errors
/// The first error of `answer`, or an error of writing.
pub fn each<T: Serialize>(
    subjects: Vec<String>,
    format: Format,
    mut answer: impl FnMut(&str) -> Result<(T, String)>,
) -> Result<()> {
    for (index, subject) in subjects.iter().enumerate() {
        let (value, text) = answer(subject)?;
        match format.json {
            true => print_json(&value)?,
            false if index > 0 => print_fitting(&format!("\n{text}"))?,
            false => print_fitting(&text)?,
        }
    }
    Ok(())
}

/// Whether to print colours: standard output is a terminal, and the user wants them (no-color.org).
pub fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A table with a head, without lines. On a terminal it is at most as wide as the terminal; long texts are wrapped.
pub fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !colours() {
        table.force_no_tty();
    }
    if let Some(columns) = screen::columns() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        // The blanks after the last column are not printed.
        table.set_width(u16::try_from(columns + GAP).unwrap_or(u16::MAX));
    }
    table.set_header(head.map(|title| Cell::new(title.to_uppercase()).add_attribute(Attribute::Bold)));
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP as u16));
    }
    table
}

/// Blanks between two columns of a table.
const GAP: usize = 2;

/// The table as text, without blanks at the ends of lines.
pub fn render(table: &Table) -> String {
    table.trim_fmt()
}

/// A cell for a number or a duration, aligned to the right.
pub fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A cell with a state in its colour.
pub fn state_cell(state: NodeState) -> Cell {
    let cell = Cell::new(state);
    match state {
        NodeState::Ready => cell.fg(Color::Green),
        NodeState::Degraded | NodeState::Waiting => cell.fg(Color::Yellow),
        NodeState::Lost | NodeState::Stalled => cell.fg(Color::Red),
        NodeState::Loading | NodeState::Agent | NodeState::Starting => cell.fg(Color::Cyan),
        NodeState::Absent | NodeState::Unmanaged | NodeState::Off => cell.add_attribute(Attribute::Dim),
    }
}

/// A cell with a text in the colour of its level.
pub fn level_cell(level: Level, text: impl ToString) -> Cell {
    let cell = Cell::new(text);
    match level {
        Level::Ok => cell,
        Level::Degraded | Level::Retry => cell.fg(Color::Yellow),
        Level::Error => cell.fg(Color::Red),
    }
}

/// `failed`, `retried`; empty for a success.
pub fn level_text(level: Level) -> &'static str {
    match level {
        Level::Ok => "",
        Level::Degraded => "degraded",
        Level::Retry => "retry",
        Level::Error => "error",
    }
}

/// A duration in its largest unit: `4 s`, `12 min`, `3 h`, `5 d`.
pub fn brief(millis: u64) -> String {
    match millis / 1000 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// How long ago `then` was, in whole units.
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    match now.since(then) {
        millis @ 0..60_000 => format!("{} s", millis / 1000),
        millis => duration(millis),
    }
}

/// Local date and time, `2026-11-21 14:03:07`.
pub fn local_time(at: Timestamp) -> String {
    let zoned = i64::try_from(at.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map(|at| at.to_zoned(jiff::tz::TimeZone::system()));
    match zoned {
        Some(zoned) => zoned.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => "?".to_owned(),
    }
}

/// Items with commas, or a dash.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    dash(&items.join(", "))
}

/// The text, or a dash if there is none.
pub fn dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

/// Aligned `key: value` lines.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0) + 1;
    let lines = facts.iter().map(|(key, value)| {
        let key = format!("{key}:");
        // A value with several lines continues below its first line.
        format!("{key:width$} {}", value.replace('\n', &format!("\n{:width$} ", "")))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_matters() {
        let shown: Vec<String> = [
            0,
            999,
            1_000,
            59_999,
            60_000,
            3_599_999,
            3_600_000,
            86_400_000,
            180_000_000,
        ]
        .map(duration)
        .into();
        let want = [
            "0 ms",
            "999 ms",
            "1.0 s",
            "59.9 s",
            "1 min 0 s",
            "59 min 59 s",
            "1 h 0 min",
            "1 d 0 h",
            "2 d 2 h",
        ];
        assert_eq!(shown, want);
        assert_eq!(ago(Timestamp(5_900), Timestamp(1_000)), "4 s");
        assert_eq!(ago(Timestamp(0), Timestamp(1_000)), "0 s", "a clock that was set back");
    }

    #[test]
    fn facts_are_aligned() {
        assert_eq!(
            facts(&[("a", "1\n2".into()), ("long", "3".into())]),
            "a:    1\n      2\nlong: 3"
        );
    }

    #[test]
    fn lines_are_broken_at_blanks_and_continue_below_their_values() {
        let text = "disk:      vda holds an ext4 file system\n  - address 10.5.1.1 in subnet 10.5.0.0/16, by its position\n\
                    kernel   6.1.0-40-amd64 (x86_64, 8 MiB)\nwarning: r01n[01,03,05,07,09,11,13,15,17]: lost\nshort";
        let want = "disk:      vda holds an\n           ext4 file\n           system\n  - address 10.5.1.1 in\n    subnet 10.5.0.0/16, by\n    \
                    its position\nkernel   6.1.0-40-amd64\n         (x86_64, 8 MiB)\nwarning:\n         r01n[01,03,05,07,\n         \
                    09,11,13,15,17]:\n         lost\nshort";
        assert_eq!(fit(text, Some(26)), want);
        assert_eq!(fit(text, None), text);
        let coloured = "\x1b[31mred\x1b[0m and long";
        assert_eq!(fit(coloured, Some(4)), coloured);
        assert_eq!(cut("debian-long", 8), "debia...");
        assert_eq!(
            (cut("abc", 3), cut("abcd", 3), cut("abcd", 0)),
            ("abc".into(), "...".into(), String::new())
        );
        assert_eq!(cut("机架机架机架", 8), "机架...", "letters of two columns");
        assert_eq!(cut_inside("lab-of-chemistry-r01n07", 15), "lab-of...r01n07");
        assert_eq!(cut_inside("机架机架机架机架", 10), "机...机架");
        assert_eq!(
            (cut_inside("abcd", 4), cut_inside("abcde", 3)),
            ("abcd".into(), "...".into())
        );
    }

    proptest::proptest! {
        #[test]
        fn no_broken_line_is_wider_and_no_letter_is_lost(text in "[ a-z:,机ä\n]{0,200}", columns in 4_usize..50) {
            let shown = fit(&text, Some(columns));
            for line in shown.split('\n') {
                proptest::prop_assert!(line.width() <= columns, "{line:?}");
            }
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            proptest::prop_assert_eq!(letters(&shown), letters(&text));
        }
    }

    #[test]
    fn tables_fit_the_terminal() {
        for columns in [40, 80, 100] {
            let shown = screen::on_terminal(columns, || {
                let mut table = table(["node", "state", "detail"]);
                table.add_row(["r01n01", "ready", &"vda holds an ext4 file system ".repeat(9)]);
                table.add_row(["x".repeat(63).as_str(), "degraded", &"y".repeat(200)]);
                render(&table)
            });
            assert!(shown.lines().all(|line| line.width() <= columns), "{shown}");
        }
    }

    #[test]
    fn tables_have_neither_lines_nor_blanks_at_the_end() {
        let mut table = table(["node", "state"]);
        table.add_row(["r01n01", "ready"]).add_row(["r01n02", ""]);
        assert_eq!(render(&table), "NODE    STATE\nr01n01  ready\nr01n02");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_a_question_mark() {
        assert_eq!(local_time(Timestamp(u64::MAX)), "?");
        assert_eq!(local_time(Timestamp(1_000)).len(), 19);
    }
}
