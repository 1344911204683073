//! What people see while something takes its time.

use crate::image::{Progress, Step, show_bytes};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Shows progress on standard error: a moving line on a terminal, one line a step otherwise.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    step: Option<(Step, Instant)>,
    files: u64,
    bytes: u64,
    notes: Vec<String>,
}

impl Shown {
    pub fn new() -> Self {
        Shown {
            bar: std::io::stderr().is_terminal().then(ProgressBar::new_spinner),
            step: None,
            files: 0,
            bytes: 0,
            notes: Vec::new(),
        }
    }

    fn finish_step(&mut self) {
        let Some((step, begun)) = self.step.take() else { return };
        let what = match (self.files, self.bytes) {
            (0, 0) => String::new(),
            (files, 0) => format!(": {files} files"),
            (files, bytes) => format!(": {files} files, {}", show_bytes(bytes)),
        };
        let line = format!("{}{what}, {:.1} s", step.as_str(), begun.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Ends the last step, and says what was to be noted.
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
        self.step = Some((step, Instant::now()));
        (self.files, self.bytes) = (0, 0);
        let Some(bar) = &self.bar else { return };
        let template = match bytes {
            Some(_) => "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {msg} {eta}",
            None => "{spinner} {prefix} {elapsed} {wide_msg}",
        };
        // The templates are constants; should one be wrong, the default serves.
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
        self.files += files;
        self.bytes += bytes;
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            if files > 0 && self.files.is_multiple_of(64) {
                bar.set_message(format!("{} files", self.files));
            }
        }
    }

    fn doing(&mut self, line: &str) {
        if let Some(bar) = &self.bar {
            let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
            bar.set_message(line);
        }
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}
