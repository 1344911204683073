//! `rackstrap status`

use super::{
    connection::connect,
    output::{self, Format},
};
use crate::{
    clock::Timestamp,
    control::{Client, ClientError, api},
    timeline::{State, StatusRow},
};
use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

const NO_NODES: &str = "no nodes yet; add one: rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01";

/// Arguments of `rackstrap status`.
#[derive(Debug, Args)]
#[command(after_help = "\
States: absent (never heard of), loading (firmware or loader asks), agent (disk and root are being prepared), starting
(the operating system boots), ready, degraded (up, with less than asked for: see the last column), lost (no heartbeat any
more), waiting (an unknown machine: give it a name with rackstrap node add).

Examples:
  rackstrap status
  rackstrap status --watch              (until Ctrl-C; when not all nodes fit, those come first that need a look)
  rackstrap status --json | jq '.nodes[] | select(.state != \"ready\") | .node'")]
pub struct StatusArgs {
    /// Look again every second, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs it.
pub fn run(config: &Path, args: StatusArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    if args.watch {
        watch(&client, args.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer: api::StatusAnswer = client.get(api::paths::STATUS)?;
    match args.format.json {
        true => output::print_json(&answer)?,
        false => output::print(&describe(&answer))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The table, and a line that sums it up.
fn describe(answer: &api::StatusAnswer) -> String {
    if answer.nodes.is_empty() {
        return NO_NODES.to_owned();
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
    // The head, a blank line and the sum.
    let room = rows.saturating_sub(3).max(1);
    if answer.nodes.is_empty() {
        return NO_NODES.to_owned();
    }
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
    const ORDER: [State; 7] = [
        State::Ready,
        State::Degraded,
        State::Starting,
        State::Agent,
        State::Loading,
        State::Lost,
        State::Absent,
    ];
    let number = |state| answer.nodes.iter().filter(|row| row.state == state).count();
    let waiting = number(State::Waiting);
    let nodes = answer.nodes.len() - waiting;
    let parts = ORDER.into_iter().filter(|state| number(*state) > 0);
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
        text = format!("{text}; {them} {verb}: rackstrap node add NAME --hwaddr {hwaddr}");
    }
    text
}

fn watch(client: &Client, format: Format) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on a signal ends the loop and not the process: the terminal becomes what it was.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let screen = Screen::open(format)?;
    let mut last = String::new();
    loop {
        let view = match client.get::<api::StatusAnswer>(api::paths::STATUS) {
            Ok(answer) if format.json => View::Text(serde_json::to_string(&answer)?),
            Ok(answer) => match screen.rows() {
                Some(rows) => View::Table(describe_within(&answer, rows)),
                None => View::Text(describe(&answer)),
            },
            // A daemon that is being restarted comes back; what else is wrong does not mend itself.
            Err(error @ (ClientError::NoDaemon(_) | ClientError::Broken { .. })) => View::Text(format!("{error}")),
            Err(error) => return Err(error.into()),
        };
        screen.show(&view, &mut last)?;
        if runtime.block_on(signals.ended()) {
            return Ok(());
        }
    }
}

/// What ends `--watch`, or has it draw again.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    resized: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        let listen = |kind| signal(kind).context("waiting for signals");
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            resized: listen(SignalKind::window_change())?,
        })
    }

    /// True if it is to end; false if it is time to draw.
    async fn ended(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.hangup.recv() => true,
            _ = self.resized.recv() => false,
            () = tokio::time::sleep(INTERVAL) => false,
        }
    }
}

/// What is drawn.
enum View {
    /// Lines that are cut where the terminal ends.
    Table(String),
    /// Text that goes on in the next line.
    Text(String),
}

/// Where `--watch` draws: over and over on a terminal, one after the other anywhere else.
struct Screen {
    terminal: bool,
}

impl Screen {
    fn open(format: Format) -> Result<Screen> {
        let terminal = std::io::stdout().is_terminal() && !format.json;
        if terminal {
            // The alternate screen, without a cursor: what was on the terminal is there again afterwards.
            write(b"\x1b[?1049h\x1b[?25l")?;
        }
        Ok(Screen { terminal })
    }

    /// Lines of the terminal, if it is one; 24 where it does not say.
    fn rows(&self) -> Option<usize> {
        let size = self
            .terminal
            .then(|| rustix::termios::tcgetwinsize(std::io::stdout()))?;
        Some(size.map_or(0, |size| size.ws_row.into())).map(|rows| if rows == 0 { 24 } else { rows })
    }

    fn show(&self, view: &View, last: &mut String) -> Result<()> {
        let (View::Table(text) | View::Text(text)) = view;
        if self.terminal {
            // Home, each line cleared to its end, then the rest of the screen: redrawn without a flicker. Cleared
            // before it is written: at the right edge, clearing afterwards would take the last letter.
            let lines = text.replace('\n', "\r\n\x1b[K");
            // Without autowrap (DECAWM), a line that is too long ends at the edge and the others stay where they are.
            let (cut, wrap) = match view {
                View::Table(_) => ("\x1b[?7l", "\x1b[?7h"),
                View::Text(_) => ("", ""),
            };
            return write(format!("{cut}\x1b[H\x1b[K{lines}{wrap}\x1b[J").as_bytes());
        }
        if text != last {
            output::print(text)?;
            text.clone_into(last);
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write(b"\x1b[?7h\x1b[?25h\x1b[?1049l");
        }
    }
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.context("writing to the terminal")
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
        };
        let text = describe_within(&answer, 10);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 10, "{text}");
        assert!(
            lines[1].starts_with("r01n31") && lines[2].starts_with("52:54:00:00:00:99"),
            "{text}"
        );
        assert_eq!(lines[7], "... and 35 more: rackstrap status");
        assert!(lines[9].ends_with("1 unknown machine waits: rackstrap node add NAME --hwaddr 52:54:00:00:00:99"));
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
