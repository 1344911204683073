//! Progress of long work, for people.

use indicatif::{ProgressBar, ProgressStyle};
use rackstrap_base::{sync::lock, text::one_line, words::count};
use rackstrap_image::{Progress, Step, show_bytes};
use std::{
    io::IsTerminal,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

/// Without a terminal: how often a step that is still running prints a line.
const STILL: Duration = Duration::from_secs(10);

/// Shows progress on standard error: a moving line on a terminal, otherwise one line for each step and one each ten seconds.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    now: Arc<Mutex<Now>>,
    notes: Vec<String>,
    /// Dropping this ends the thread that prints the lines.
    _speaks: Option<Sender<()>>,
}

/// The current step.
#[derive(Default)]
struct Now {
    step: Option<(Step, Instant)>,
    files: u64,
    bytes: u64,
    doing: String,
}

impl Now {
    /// `copying: 12 files, 3.4 MB, 10 s so far`, with the last output of the program that does the work.
    fn still(&self) -> Option<String> {
        let (step, begun) = self.step.as_ref()?;
        let time = format!("{} s so far", begun.elapsed().as_secs());
        let doing = Some(self.doing.clone()).filter(|doing| !doing.is_empty());
        let words: Vec<String> = self.done().into_iter().chain([time]).chain(doing).collect();
        Some(format!("{}: {}", step.as_str(), words.join(", ")))
    }

    fn ended(&mut self) -> Option<String> {
        let (step, begun) = self.step.take()?;
        let what = self.done().map_or_else(String::new, |done| format!(": {done}"));
        Some(format!(
            "{}{what}, {:.1} s",
            step.as_str(),
            begun.elapsed().as_secs_f64()
        ))
    }

    fn done(&self) -> Option<String> {
        match (self.files, self.bytes) {
            (0, 0) => None,
            (files, 0) => Some(count(usize::try_from(files).unwrap_or(usize::MAX), "file")),
            (files, bytes) => {
                let files = count(usize::try_from(files).unwrap_or(usize::MAX), "file");
                Some(format!("{files}, {}", show_bytes(bytes)))
            }
        }
    }
}

/// Calls `say` with the progress every `period`, until the result is dropped.
fn speak(now: Arc<Mutex<Now>>, period: Duration, mut say: impl FnMut(&str) + Send + 'static) -> Sender<()> {
    let (speaks, ends) = channel();
    std::thread::spawn(move || {
        while ends.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            let line = lock(&now).still();
            if let Some(line) = line {
                say(&line);
            }
        }
    });
    speaks
}

impl Shown {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        let now = Arc::<Mutex<Now>>::default();
        let speaks = bar
            .is_none()
            .then(|| speak(now.clone(), STILL, |line| eprintln!("{line}")));
        Shown {
            bar,
            now,
            notes: Vec::new(),
            _speaks: speaks,
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        lock(&self.now)
    }

    fn finish_step(&mut self) {
        let Some(line) = self.now().ended() else { return };
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Ends the last step, and prints the notes.
    pub fn end(&mut self) {
        self.finish_step();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        for note in self.notes.drain(..) {
            eprintln!("note: {note}");
        }
    }
}

impl Progress for Shown {
    fn begin(&mut self, step: Step, bytes: Option<u64>) {
        self.finish_step();
        *self.now() = Now {
            step: Some((step, Instant::now())),
            ..Now::default()
        };
        let Some(bar) = &self.bar else { return };
        let template = match bytes {
            Some(_) => "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {msg} {eta}",
            None => "{spinner} {prefix} {elapsed} {wide_msg}",
        };
        // The templates are constants. If one were wrong, the default would be used.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        match bytes {
            Some(bytes) => bar.set_length(bytes),
            None => bar.unset_length(),
        }
        bar.set_position(0);
        bar.set_prefix(step.as_str());
        bar.set_message("");
        bar.enable_steady_tick(Duration::from_millis(120));
    }

    fn advance(&mut self, files: u64, bytes: u64) {
        let all = {
            let mut now = self.now();
            now.files += files;
            now.bytes += bytes;
            now.files
        };
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            if files > 0 && all.is_multiple_of(64) {
                bar.set_message(format!("{all} files"));
            }
        }
    }

    fn doing(&mut self, line: &str) {
        let line = one_line(line, 200);
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => self.now().doing = line,
        }
    }

    fn remark(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_shows_its_progress_until_it_ends() {
        let now = Arc::<Mutex<Now>>::default();
        let (said, heard) = channel();
        let speaks = speak(now.clone(), Duration::from_millis(5), move |line| {
            // The receiver is gone at the end.
            let _ = said.send(line.to_owned());
        });
        *now.lock().unwrap() = Now {
            step: Some((Step::Bootstrap, Instant::now())),
            doing: "installing packages".to_owned(),
            ..Now::default()
        };
        let line = heard.recv().unwrap();
        assert!(
            line.starts_with("bootstrapping: ") && line.ends_with(" s so far, installing packages"),
            "{line}"
        );
        now.lock().unwrap().files = 1;
        while !heard.recv().unwrap().starts_with("bootstrapping: 1 file, ") {}
        drop(speaks);
        // The thread drops its sender.
        while heard.recv().is_ok() {}
    }
}
