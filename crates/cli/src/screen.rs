//! Views that are redrawn on a terminal: `--watch`, and racks that are being filled.

use super::output::{self, Format};
use anyhow::{Context, Result};
use rackstrap_base::clock::Timestamp;
use rackstrap_control::{ClientError, Watch, api::Watchable};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::de::DeserializeOwned;
use std::{
    io::{IsTerminal, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// Columns of the terminal; none if standard output is not one, and 80 if the terminal does not report its size.
pub fn columns() -> Option<usize> {
    #[cfg(test)]
    if let Some(columns) = OF_A_TEST.get() {
        return Some(columns);
    }
    columns_of(&std::io::stdout())
}

/// Columns of the terminal that standard input, output or error is: help is often piped into a pager.
pub fn any_columns() -> Option<usize> {
    columns()
        .or_else(|| columns_of(&std::io::stderr()))
        .or_else(|| columns_of(&std::io::stdin()))
}

fn columns_of(stream: &(impl IsTerminal + AsFd)) -> Option<usize> {
    stream
        .is_terminal()
        .then(|| match rustix::termios::tcgetwinsize(stream) {
            Ok(size) if size.ws_col > 0 => size.ws_col.into(),
            _ => 80,
        })
}

#[cfg(test)]
thread_local! {
    /// Columns of the terminal that a test simulates.
    static OF_A_TEST: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// The result of `show` on a terminal of that many columns.
#[cfg(test)]
pub fn on_terminal(columns: usize, show: impl FnOnce() -> String) -> String {
    OF_A_TEST.set(Some(columns));
    let shown = show();
    OF_A_TEST.set(None);
    shown
}

/// Time between two drawings on a terminal: the view shows ages.
const INTERVAL: Duration = Duration::from_secs(1);

/// A watched answer, and its display.
pub trait Watched<T> {
    /// What to show of the answer; none to leave. `rows` is the number of lines of the terminal, if it is one.
    ///
    /// # Errors
    /// The answer has nothing to show, and a later one will not have either.
    fn draw(&mut self, answer: &T, rows: Option<usize>) -> Result<Option<View>>;

    /// Carries out a key; false to leave. Keys are read only if [`KEYS`](Watched::KEYS) is true.
    fn press(&mut self, _key: u8) -> bool {
        true
    }

    /// Whether keys are read.
    const KEYS: bool = false;
}

/// Shows each answer of `watch` as it comes, until there is nothing to show or a signal comes. A terminal is also redrawn
/// each second, because ages grow. While the daemon is restarted, the error is shown instead.
///
/// # Errors
/// Permanent errors of the daemon, errors of the terminal, and those of `watched`.
pub fn watch<T, W>(mut watch: Watch<T>, format: Format, mut watched: W) -> Result<()>
where
    T: Watchable + DeserializeOwned + Send + 'static,
    W: Watched<T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on a signal ends the loop and not the process, so that the terminal is restored.
    let mut signals = runtime.block_on(async { Signals::new(None) })?;
    let screen = Screen::open(format, W::KEYS)?;
    signals.keys = screen.keyboard.is_some().then(read_keys);
    let mut last = String::new();
    let mut current: Option<Current<T>> = None;
    loop {
        let woken = runtime.block_on(async {
            tokio::select! {
                answer = watch.next() => Wake::Answer(answer),
                wake = signals.wake() => wake,
            }
        });
        match woken {
            Wake::End | Wake::Answer(None) => return Ok(()),
            Wake::Draw if !screen.terminal => continue,
            Wake::Draw => {}
            Wake::Key(key) => {
                if !watched.press(key) {
                    return Ok(());
                }
            }
            Wake::Answer(Some(Ok(answer))) => current = Some(Current::of(answer)),
            Wake::Answer(Some(Err(error))) if error.passes() => {
                screen.show(&View::Trouble(error.to_string()), &mut last)?;
                current = None;
            }
            Wake::Answer(Some(Err(error))) => return Err(error.into()),
        }
        let Some(current) = &mut current else { continue };
        current.grow_older();
        match watched.draw(&current.answer, screen.rows())? {
            Some(view) => screen.show(&view, &mut last)?,
            None => return Ok(()),
        }
    }
}

/// The last answer, whose ages grow.
struct Current<T> {
    answer: T,
    /// When the daemon made it, by its own clock.
    made: Option<Timestamp>,
    received: Instant,
}

impl<T: Watchable> Current<T> {
    fn of(mut answer: T) -> Self {
        Current {
            made: answer.now().copied(),
            received: Instant::now(),
            answer,
        }
    }

    fn grow_older(&mut self) {
        let age = u64::try_from(self.received.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let (Some(now), Some(made)) = (self.answer.now(), self.made) {
            *now = Timestamp(made.0.saturating_add(age));
        }
    }
}

/// The view to show instead of the answer, if the error is temporary.
///
/// # Errors
/// `error`, if it is permanent.
pub fn unless_temporary(error: anyhow::Error) -> Result<View> {
    match error.downcast_ref() {
        Some(broken) if ClientError::passes(broken) => Ok(View::Trouble(error.to_string())),
        _ => Err(error),
    }
}

/// Reads the keyboard until the process ends, because a read cannot be cancelled.
fn read_keys() -> mpsc::Receiver<u8> {
    let (send, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes().map_while(|key| key.ok()) {
            if send.blocking_send(key).is_err() {
                return;
            }
        }
    });
    keys
}

/// The signals that end watching or cause a redraw.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    resized: Signal,
    keys: Option<mpsc::Receiver<u8>>,
}

/// The reason for drawing again.
enum Wake<T> {
    /// An answer, or an error; none if no further answer comes.
    Answer(Option<Result<T, ClientError>>),
    /// The interval is over, or the size of the terminal changed.
    Draw,
    /// The user pressed a key.
    Key(u8),
    /// A signal that ends watching.
    End,
}

impl Signals {
    fn new(keys: Option<mpsc::Receiver<u8>>) -> Result<Signals> {
        let listen = |kind| signal(kind).context("waiting for signals");
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            resized: listen(SignalKind::window_change())?,
            keys,
        })
    }

    async fn wake<T>(&mut self) -> Wake<T> {
        let key = async {
            match &mut self.keys {
                Some(keys) => match keys.recv().await {
                    Some(key) => key,
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Wake::End,
            _ = self.terminate.recv() => Wake::End,
            _ = self.hangup.recv() => Wake::End,
            _ = self.resized.recv() => Wake::Draw,
            key = key => Wake::Key(key),
            () = tokio::time::sleep(INTERVAL) => Wake::Draw,
        }
    }
}

/// The drawn lines.
pub enum View {
    /// Lines that are cut at the edge of the terminal.
    Table(String),
    /// Text that continues on the next line.
    Text(String),
    /// Why there is nothing to show just now. Where it is not a terminal that is drawn, programs read standard output, and expect answers
    /// there, as JSON perhaps: this goes to standard error.
    Trouble(String),
}

/// Where views are drawn: at the same place on a terminal, one after the other elsewhere.
struct Screen {
    terminal: bool,
    /// The settings of the keyboard before they were changed; none if they were not.
    keyboard: Option<Termios>,
}

impl Screen {
    fn open(format: Format, keys: bool) -> Result<Screen> {
        let terminal = std::io::stdout().is_terminal() && !format.json;
        if terminal {
            // The alternate screen without a cursor: the previous content of the terminal is restored afterwards.
            write(b"\x1b[?1049h\x1b[?25l")?;
        }
        let mut keyboard = None;
        if terminal && keys && std::io::stdin().is_terminal() {
            let before = tcgetattr(std::io::stdin()).context("asking how the keyboard is")?;
            let mut now = before.clone();
            // Each key is read at once and not echoed; Ctrl-C still interrupts.
            now.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            tcsetattr(std::io::stdin(), OptionalActions::Now, &now).context("taking keys one by one")?;
            keyboard = Some(before);
        }
        Ok(Screen { terminal, keyboard })
    }

    /// Lines of the terminal; none if standard output is not one, and 24 if the terminal does not report its size.
    fn rows(&self) -> Option<usize> {
        let size = self
            .terminal
            .then(|| rustix::termios::tcgetwinsize(std::io::stdout()))?;
        Some(size.map_or(0, |size| size.ws_row.into())).map(|rows| if rows == 0 { 24 } else { rows })
    }

    fn show(&self, view: &View, last: &mut String) -> Result<()> {
        let (View::Table(text) | View::Text(text) | View::Trouble(text)) = view;
        if self.terminal {
            // Home, each line cleared to its end, then the rest of the screen, so that it does not flicker. A line is cleared
            // before it is written: at the right edge, clearing afterwards would delete the last letter.
            let lines = text.replace('\n', "\r\n\x1b[K");
            // Without autowrap (DECAWM), a line that is too long ends at the edge, and the other lines stay in place.
            let (cut, wrap) = match view {
                View::Table(_) => ("\x1b[?7l", "\x1b[?7h"),
                View::Text(_) | View::Trouble(_) => ("", ""),
            };
            return write(format!("{cut}\x1b[H\x1b[K{lines}{wrap}\x1b[J").as_bytes());
        }
        if text != last {
            match view {
                View::Table(_) | View::Text(_) => output::print(text)?,
                // A closed pipe is no reason to end: the watch goes on, and ends with its own output.
                View::Trouble(_) => drop(writeln!(std::io::stderr(), "rackstrap: {text}")),
            }
            text.clone_into(last);
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(before) = &self.keyboard {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
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
