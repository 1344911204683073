//! The timeline of this boot: shown on the console at once, and reported to the server as soon as possible.

use crate::{
    console::{Console, uptime_ms},
    fail::{Failure, Res},
    guards,
    http::{self, Server},
    kernel_log::KernelLog,
    retry::Policy,
};
use rackstrap_wire::{AgentEvent, ConsoleLine, Outcome, Phase, backoff::Backoff, text::cut};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Events kept while the server does not answer. Of more, the oldest are dropped.
const MOST_QUEUED: usize = 1024;
/// Most events of a report (the wire's limit).
const BATCH: usize = 256;
/// Timeout of a report, short because a report must not delay the boot.
const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a detail (the wire's limit).
const DETAIL: usize = 500;

/// The console, and the queue of events that the server has not received.
#[derive(Debug)]
pub struct Timeline {
    console: Console,
    kernel: Option<KernelLog>,
    queue: VecDeque<AgentEvent>,
    /// Number of the newest event.
    seq: u64,
    server: Option<Server>,
    seed: u64,
    phase: Phase,
    attempt: u32,
    began: Instant,
}

/// The result of a phase, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    /// It succeeded.
    Done(String),
    /// It succeeded in part.
    Degraded(String),
}

impl Timeline {
    /// An empty timeline. `seed` makes the retries of this machine differ from those of others.
    pub fn new(seed: u64) -> Self {
        Timeline {
            console: Console::default(),
            kernel: None,
            queue: VecDeque::new(),
            seq: 0,
            server: None,
            seed,
            phase: Phase::EarlyMounts,
            attempt: 1,
            began: Instant::now(),
        }
    }

    /// Opens the consoles; called when /dev and /sys exist. Later lines go there.
    pub fn open_console(&mut self) {
        self.console = Console::open();
        self.kernel = Some(KernelLog::open());
    }

    /// Starts to report; called when the network is up. Earlier events are reported too.
    pub fn attach(&mut self, server: Server) {
        self.server = Some(server);
    }

    /// Prints a line that is not reported.
    pub fn print(&mut self, text: &str) {
        self.console.line(text);
    }

    /// Records a step inside the running phase: printed, queued, and reported now if that is quick.
    pub fn step(&mut self, detail: &str) {
        self.push(Outcome::Step, self.began.elapsed(), detail);
        self.print(&format!("{}: {detail}", self.phase));
        self.flush();
    }

    /// Runs a phase with all its attempts. Its start, failures and end are recorded.
    pub fn run<T>(
        &mut self,
        phase: Phase,
        policy: Policy,
        mut attempt: impl FnMut(&mut Timeline) -> Res<(T, Summary)>,
    ) -> Res<T> {
        let mut backoff = Backoff::new(
            Duration::from_millis(500),
            Duration::from_secs(15),
            self.seed ^ uptime_ms().rotate_left(32),
        );
        self.phase = phase;
        self.began = Instant::now();
        self.attempt = 1;
        self.push(Outcome::Started, Duration::ZERO, "");
        self.flush();
        loop {
            let result = attempt(self);
            let took = self.began.elapsed();
            let seconds = took.as_secs_f64();
            let failure = match result {
                Ok((value, summary)) => {
                    let (outcome, detail) = match summary {
                        Summary::Done(detail) => (Outcome::Done, detail),
                        Summary::Degraded(detail) => (Outcome::Degraded, detail),
                    };
                    let mark = if outcome == Outcome::Degraded { "DEGRADED: " } else { "" };
                    self.push(outcome, took, &detail);
                    self.print(&format!("{phase}: {mark}{detail} ({seconds:.1} s)"));
                    self.flush();
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            let wait = backoff.next_wait();
            if !policy.again(took, wait, failure.permanent) {
                self.failed(&failure);
                self.print(&format!("{phase}: FAILED: {failure} ({seconds:.1} s)"));
                return Err(failure);
            }
            self.push(Outcome::Retrying, took, &failure.to_string());
            self.kernel_lines(false);
            self.print(&format!(
                "{phase}: attempt {} failed: {failure}; the next in {:.1} s",
                self.attempt,
                wait.as_secs_f64()
            ));
            self.flush();
            std::thread::sleep(wait);
            self.attempt += 1;
        }
    }

    /// Records that the running phase failed for good, with the kernel's last messages.
    pub fn failed(&mut self, failure: &Failure) {
        self.push(Outcome::Failed, self.began.elapsed(), &failure.to_string());
        self.kernel_lines(true);
        self.flush();
    }

    /// Records lines of a kernel that crashed before this boot.
    pub fn crashed(&mut self, lines: &[String]) {
        self.lines(ConsoleLine::Crash, lines);
        self.flush();
    }

    /// Whether the server has everything.
    pub fn is_sent(&self) -> bool {
        self.queue.is_empty()
    }

    fn kernel_lines(&mut self, last: bool) {
        let lines = self.kernel.as_mut().map(|log| log.news(last)).unwrap_or_default();
        self.lines(ConsoleLine::Kernel, &lines);
    }

    fn lines(&mut self, from: ConsoleLine, lines: &[String]) {
        for line in lines {
            self.push(Outcome::Step, self.began.elapsed(), line);
            if let Some(event) = self.queue.back_mut() {
                event.console = Some(from);
            }
        }
    }

    fn push(&mut self, outcome: Outcome, took: Duration, detail: &str) {
        guards::progress();
        if self.queue.len() == MOST_QUEUED {
            self.queue.pop_front();
        }
        self.seq += 1;
        self.queue.push_back(AgentEvent {
            seq: self.seq,
            phase: self.phase,
            outcome,
            uptime_ms: uptime_ms(),
            took_ms: took.as_millis() as u64,
            attempt: self.attempt,
            detail: cut(detail, DETAIL).to_owned(),
            console: None,
        });
    }

    /// Sends queued events until the server refuses; the rest stays queued.
    pub fn flush(&mut self) {
        let Some(server) = &self.server else { return };
        while !self.queue.is_empty() {
            let events: Vec<AgentEvent> = self.queue.iter().take(BATCH).cloned().collect();
            let sent: Result<(), Failure> = http::report_events(server, &events, REPORT_TIMEOUT);
            if sent.is_err() {
                return;
            }
            self.queue.drain(..events.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_the_failures_and_the_end_of_a_phase_are_recorded() {
        let mut timeline = Timeline::new(1);
        let mut left = 2;
        let value = timeline.run(Phase::Plan, Policy::For(Duration::from_secs(60)), |t| {
            left -= 1;
            if left > 0 {
                return Err(Failure::new("connection refused"));
            }
            t.step("halfway");
            Ok((42, Summary::Degraded("less".into())))
        });
        assert_eq!(value, Ok(42));
        let seen: Vec<_> = timeline
            .queue
            .iter()
            .map(|e| (e.outcome, e.attempt, e.detail.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                (Outcome::Started, 1, ""),
                (Outcome::Retrying, 1, "connection refused"),
                (Outcome::Step, 2, "halfway"),
                (Outcome::Degraded, 2, "less"),
            ]
        );
    }

    #[test]
    fn a_failure_that_no_retry_overcomes_ends_a_phase_at_once() {
        let mut timeline = Timeline::new(1);
        let failed: Res<()> = timeline.run(Phase::Plan, Policy::For(Duration::from_secs(600)), |_| {
            Err(Failure::permanent("wire version 9"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "wire version 9");
        assert_eq!(timeline.queue.back().unwrap().outcome, Outcome::Failed);
    }

    #[test]
    fn the_queue_and_its_details_have_limits() {
        let mut timeline = Timeline::new(1);
        for _ in 0..MOST_QUEUED + 10 {
            timeline.push(Outcome::Step, Duration::ZERO, &"é".repeat(400));
        }
        assert_eq!(timeline.queue.len(), MOST_QUEUED);
        assert!(timeline.queue.iter().all(|e| e.detail.len() == DETAIL));
    }
}
