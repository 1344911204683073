//! How answers look: tables for people, JSON for programs, colours only where a person looks.

use crate::{
    clock::Timestamp,
    timeline::{Level, State},
};
pub use crate::{clock::duration, words::count};
use anyhow::{Context, Result};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// `--json`
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Format {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Prints a line or more.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let text = text.trim_end_matches('\n');
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.context("writing to standard output")
}

/// Prints a text as it is.
pub fn print_exactly(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("writing to standard output")
}

/// Prints `value` as JSON, a line per level.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// What `answer` says of each of `subjects`: texts with an empty line between them, or one JSON value after the other, which is
/// how `jq` reads them.
///
/// # Errors
/// The first one of `answer`, or that of writing.
pub fn each<T: Serialize>(
    subjects: Vec<String>,
    format: Format,
    mut answer: impl FnMut(&str) -> Result<(T, String)>,
) -> Result<()> {
    for (index, subject) in subjects.iter().enumerate() {
        let (value, text) = answer(subject)?;
        match format.json {
            true => print_json(&value)?,
            false if index > 0 => print(&format!("\n{text}"))?,
            false => print(&text)?,
        }
    }
    Ok(())
}

/// True where a person looks on, and wants colours (no-color.org).
pub fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A table with a head, without lines.
pub fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
    }
    if !colours() {
        table.force_no_tty();
    }
    table.set_header(head.map(|title| Cell::new(title.to_uppercase()).add_attribute(Attribute::Bold)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table as text, without blanks at the lines' ends.
pub fn render(table: &Table) -> String {
    table.trim_fmt()
}

/// A number or a duration: to the right.
pub fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A state in its colour.
pub fn state_cell(state: State) -> Cell {
    let cell = Cell::new(state);
    match state {
        State::Ready => cell.fg(Color::Green),
        State::Degraded | State::Waiting => cell.fg(Color::Yellow),
        State::Lost | State::Stalled => cell.fg(Color::Red),
        State::Loading | State::Agent | State::Starting => cell.fg(Color::Cyan),
        State::Absent => cell.add_attribute(Attribute::Dim),
    }
}

/// A text in the colour of its level.
pub fn level_cell(level: Level, text: impl ToString) -> Cell {
    let cell = Cell::new(text);
    match level {
        Level::Ok => cell,
        Level::Degraded | Level::Retry => cell.fg(Color::Yellow),
        Level::Error => cell.fg(Color::Red),
    }
}

/// `failed`, `retried`; empty for what went well.
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

/// How long ago that was, in whole units.
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
        // What does not fit on one line goes on below the first one.
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
