//! `rackstrap backup --check`: can every row of the store be read?

use super::{
    connection,
    output::{self, Format},
};
use anyhow::{Context, Result};
use rackstrap_control::{ClientError, api};
use rackstrap_store::{Look, Store};
use std::{path::Path, process::ExitCode};

/// At most this many rows of one kind are named; `--json` has all.
const NAMED: usize = 20;

/// Runs the check; fails if a row cannot be read.
pub(super) fn check(config: &Path, format: Format) -> Result<ExitCode> {
    let (answer, daemon) = match connection::connect(config)?.get::<api::StoreAnswer>(api::paths::STORE) {
        Ok(answer) => (answer, true),
        Err(ClientError::NoDaemon(_)) => (from_file(config)?, false),
        Err(error) => return Err(error.into()),
    };
    match format.json {
        true => output::print_json(&answer)?,
        false => output::print(&text(&answer, daemon))?,
    }
    Ok(match answer.look.is_sound() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Deletes the rows that were set aside.
pub(super) fn discard(config: &Path, format: Format) -> Result<ExitCode> {
    let client = connection::connect(config)?;
    let discarded: api::Discarded = client.post(api::paths::STORE_DISCARD, &())?;
    match format.json {
        true => output::print_json(&discarded)?,
        false => output::print(&format!(
            "deleted {} that the daemon had set aside",
            output::count(usize::try_from(discarded.rows).unwrap_or(usize::MAX), "row")
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn from_file(config: &Path) -> Result<api::StoreAnswer> {
    let store = connection::store(config)?;
    let look = Store::look_at_file(&store).with_context(|| format!("looking at {}", store.display()))?;
    Ok(api::StoreAnswer {
        look,
        set_aside: Vec::new(),
        backups: None,
    })
}

fn text(answer: &api::StoreAnswer, daemon: bool) -> String {
    let look = &answer.look;
    let mut lines = vec![match look.is_sound() {
        true => format!("all {} rows of the store can be read", look.total()),
        false => format!("{} rows of the store can be read, but some cannot:", look.total()),
    }];
    let tables = look.tables.iter();
    lines.extend(tables.map(|(table, error)| format!("  table {table}: {error}")));
    lines.extend(some(look.needed.iter().map(|row| format!("  {row}"))));
    lines.extend(some(look.expendable.iter().map(|row| format!("  {row} (not needed)"))));
    if !answer.set_aside.is_empty() {
        lines.push("rows that could not be read and were set aside:".to_owned());
        lines.extend(some(
            answer
                .set_aside
                .iter()
                .map(|aside| format!("  {} {}", output::local_time(aside.at), aside.row)),
        ));
        lines.push("help: `rackstrap backup --discard` deletes them".to_owned());
    }
    lines.extend(help(look, daemon).map(str::to_owned));
    if let Some(dir) = &answer.backups {
        lines.push(format!("nightly backups: {}", dir.display()));
    }
    lines.join("\n")
}

fn help(look: &Look, daemon: bool) -> Option<&'static str> {
    if !look.needed.is_empty() || !look.tables.is_empty() {
        return Some("help: stop the daemon and run `rackstrap restore FILE` with a backup; then check the disk");
    }
    let aside = "help: the daemon sets these rows aside at its next start; check the disk";
    (!look.expendable.is_empty() && daemon).then_some(aside)
}

fn some(lines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = lines.len().saturating_sub(NAMED);
    let mut lines: Vec<String> = lines.take(NAMED).collect();
    if more > 0 {
        lines.push(format!("  and {more} more (see --json)"));
    }
    lines
}
