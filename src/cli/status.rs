//! `rackstrap status`

use super::{
    connection::connect,
    output::{self, Format},
};
use crate::{
    control::{Client, ClientError, api},
    timeline::State,
};
use anyhow::{Context, Result};
use clap::Args;
use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `rackstrap status`.
#[derive(Debug, Args)]
#[command(after_help = "\
States: absent (never heard of), loading (firmware or loader asks), agent (disk and root are being prepared), starting
(the operating system boots), ready, degraded (up, with less than asked for: see the last column), lost (no heartbeat any
more), waiting (an unknown machine: give it a name with rackstrap node add).

Examples:
  rackstrap status
  rackstrap status --watch              (until Ctrl-C)
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
        return "no nodes yet; add one: rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01".to_owned();
    }
    let mut table = output::table(["node", "address", "image", "state", "since", "disk", "last error"]);
    for row in &answer.nodes {
        let since = row.since.map(|since| output::ago(answer.now, since));
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
    format!("{}\n\n{}", output::render(&table), sum(answer))
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
        let them = output::count(waiting, "unknown machine");
        let verb = if waiting == 1 { "waits" } else { "wait" };
        text = format!("{text}; {them} {verb}: rackstrap node add NAME --hwaddr MAC");
    }
    text
}

fn watch(client: &Client, format: Format) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on Ctrl-C ends the loop and not the process: the cursor comes back.
    let mut interrupt = runtime
        .block_on(async { signal(SignalKind::interrupt()) })
        .context("waiting for Ctrl-C")?;
    let screen = Screen::open(format)?;
    let mut last = String::new();
    loop {
        let shown = match client.get::<api::StatusAnswer>(api::paths::STATUS) {
            Ok(answer) if format.json => serde_json::to_string(&answer)?,
            Ok(answer) => describe(&answer),
            // A daemon that is being restarted comes back; what else is wrong does not mend itself.
            Err(error @ (ClientError::NoDaemon(_) | ClientError::Broken { .. })) => format!("{error}"),
            Err(error) => return Err(error.into()),
        };
        screen.show(&shown, &mut last)?;
        if runtime.block_on(interrupted(&mut interrupt)) {
            return Ok(());
        }
    }
}

async fn interrupted(interrupt: &mut Signal) -> bool {
    tokio::select! {
        _ = interrupt.recv() => true,
        () = tokio::time::sleep(INTERVAL) => false,
    }
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

    fn show(&self, text: &str, last: &mut String) -> Result<()> {
        if self.terminal {
            // Home, each line cleared to its end, then the rest of the screen: redrawn without a flicker.
            let lines = text.replace('\n', "\x1b[K\r\n");
            return write(format!("\x1b[H{lines}\x1b[K\x1b[J").as_bytes());
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
            let _ = write(b"\x1b[?25h\x1b[?1049l");
        }
    }
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}
