//! `rackstrap timeline`

use super::{
    connection::connect,
    hostlist::Wanted,
    node::boots_table,
    output::{self, Format},
    watching::next_answer,
};
use anyhow::{Result, bail};
use clap::Args;
use rackstrap_control::{
    Client,
    api::{self, BootSummary, EventRow, Level},
    segment,
};
use std::{path::Path, process::ExitCode};

/// Arguments of `rackstrap timeline`.
#[derive(Debug, Args)]
#[command(after_help = "\
Times count from the first packet of each boot. Repeated steps are one row with a count.

Examples:
  rackstrap timeline r01n01
  rackstrap timeline r01n01 --boot last
  rackstrap timeline r01n01 --follow
  rackstrap timeline @state:lost --boot last
  rackstrap timeline 52:54:00:01:01:01        (an unknown machine)
  rackstrap timeline r01n01 --json | jq '.events[] | select(.level != \"ok\")'")]
pub struct TimelineArgs {
    /// Names, hostlists, MAC addresses or IP addresses
    #[arg(required = true, value_name = "NODES|MAC|IP", add = crate::complete::nodes())]
    subjects: Vec<String>,
    /// Show only one boot: 'last' or its id
    #[arg(long, value_name = "last|ID")]
    boot: Option<String>,
    /// Print further events as they happen, until Ctrl-C; of one node or machine
    #[arg(long, short, conflicts_with = "boot")]
    follow: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: TimelineArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    let subjects = Wanted::new(args.subjects)?.subjects(&client)?;
    if args.follow {
        let [subject] = subjects.as_slice() else {
            bail!(
                "--follow shows one timeline, but {} are named",
                output::count(subjects.len(), "timeline")
            );
        };
        follow(&client, subject, args.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::each(subjects, args.format, |subject| {
        let mut answer: api::TimelineAnswer = client.get(&format!("{}{}", api::paths::TIMELINE, segment(subject)))?;
        if let Some(wanted) = &args.boot
            && !only(&mut answer, wanted)?
        {
            let text = format!("{}: never booted", answer.subject);
            return Ok((answer, text));
        }
        let text = format!("{}\n{}", answer.subject, describe(&answer));
        Ok((answer, text))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the timeline, and then each event as it happens. A restart of the daemon is reported on standard error.
fn follow(client: &Client, subject: &str, format: Format) -> Result<()> {
    let mut watch = client.watch::<api::TimelineAnswer>(&format!("{}{}", api::paths::TIMELINE, segment(subject)))?;
    let mut before: Option<api::TimelineAnswer> = None;
    while let Some(answer) = next_answer(&mut watch) {
        let answer = answer?;
        match (&before, format.json) {
            (None, false) => output::print(&format!("{}\n{}", answer.subject, describe(&answer)))?,
            (before, _) => {
                let known = before.as_ref().map_or(&[][..], |before| &before.events);
                for event in answer.events.iter().filter(|event| !known.contains(event)) {
                    match format.json {
                        true => output::print(&serde_json::to_string(event)?)?,
                        false => output::print(&followed(event))?,
                    }
                }
            }
        }
        before = Some(answer);
    }
    Ok(())
}

/// An event as a line: `2026-11-28 12:00:00  kernel  debian@4`.
fn followed(event: &EventRow) -> String {
    let times = match event.count {
        1 => String::new(),
        count => format!(" ({count} times)"),
    };
    let level = match event.level {
        Level::Ok => String::new(),
        level => format!("{}: ", output::level_text(level)),
    };
    let at = output::local_time(event.latest());
    format!("{at}  {}{times}  {level}{}", event.step, event.detail)
}

/// Keeps one boot of the timeline. False if the last one is wanted and the node never booted: that is not an error, because
/// some of many nodes may never have booted.
fn only(answer: &mut api::TimelineAnswer, wanted: &str) -> Result<bool> {
    if wanted == "last" && answer.boots.is_empty() {
        answer.events.clear();
        return Ok(false);
    }
    let position = match wanted {
        "last" => answer.boots.len().checked_sub(1),
        id => answer.boots.iter().rposition(|boot| boot.boot == id),
    };
    let Some(position) = position else {
        let known: Vec<&str> = answer
            .boots
            .iter()
            .map(|boot| boot.boot.as_str())
            .filter(|id| !id.is_empty())
            .collect();
        bail!(
            "{}: boot '{wanted}' does not exist; its timeline has: {}",
            answer.subject,
            output::list(known)
        );
    };
    let from = answer.boots[position].began;
    let until = answer.boots.get(position + 1).map(|next| next.began);
    answer
        .events
        .retain(|event| event.at >= from && until.is_none_or(|until| event.at < until));
    answer.boots = vec![answer.boots.swap_remove(position)];
    Ok(true)
}

fn describe(answer: &api::TimelineAnswer) -> String {
    if answer.events.is_empty() {
        return format!("{}: never seen", answer.subject);
    }
    let mut table = output::table(["time", "at", "step", "times", "took", "level", "detail"]);
    for event in &answer.events {
        let began = began(&answer.boots, event);
        table.add_row(vec![
            output::local_time(event.at).into(),
            output::right(
                began
                    .map(|b| format!("+{}", output::duration(event.at.since(b.began))))
                    .unwrap_or_default(),
            ),
            output::level_cell(event.level, event.step.to_string()),
            output::right(if event.count > 1 {
                event.count.to_string()
            } else {
                String::new()
            }),
            output::right(event.took_ms.map(output::duration).unwrap_or_default()),
            output::level_cell(event.level, output::level_text(event.level)),
            output::level_cell(event.level, &event.detail),
        ]);
    }
    format!(
        "{}\n\n{}{}",
        output::render(&table),
        boots_table(&answer.boots),
        retries(&answer.retries)
    )
}

/// The retries of a node, each line after a line break; empty if there were none.
pub(crate) fn retries(retries: &api::RetriesRow) -> String {
    let mut text = String::new();
    for (counts, of) in [(&retries.current, "this boot"), (&retries.all, "all boots")] {
        if !counts.is_empty() {
            text.push_str(&format!("\nretries of {of}: {}", api::describe_retries(counts)));
        }
    }
    text
}

/// The boot that an event belongs to.
fn began<'a>(boots: &'a [BootSummary], event: &EventRow) -> Option<&'a BootSummary> {
    boots.iter().rev().find(|boot| boot.began <= event.at)
}
