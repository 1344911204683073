//! Restarts the node by order of the server: first through init, and at last through the kernel.

use crate::command::{self, Execution, Left};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Time for a command that only asks init.
const COMMAND: Duration = Duration::from_secs(60);
/// How long the system may take to stop its services after it accepted the restart.
const STOPPING: Duration = Duration::from_secs(300);
/// How long the kernel waits if the system refused the restart.
const REFUSED: Duration = Duration::from_secs(60);

/// Orders to restart. Each is carried out once.
#[derive(Debug, Default)]
pub struct Restarts {
    obeyed: Vec<String>,
    /// Time at which the kernel restarts the machine, without asking init.
    by_force: Option<Instant>,
}

impl Restarts {
    /// True the first time that an order with this id comes.
    pub fn is_new(&mut self, id: &str) -> bool {
        // A boot gets one or two orders. A server that sends thousands must not fill the memory.
        let new = self.by_force.is_none() && self.obeyed.len() < 64 && !self.obeyed.iter().any(|o| o == id);
        if new {
            self.obeyed.push(id.to_owned());
        }
        new
    }

    /// Asks the system to restart. `report` is called before each attempt, and with its failure.
    pub fn begin(&mut self, systemd: bool, report: impl FnMut(&str), run: impl FnMut(&[&str]) -> Execution) {
        let patience = match ask(systemd, report, run) {
            true => STOPPING,
            false => REFUSED,
        };
        self.by_force = Some(Instant::now() + patience);
    }

    /// Time until the kernel restarts the machine; none without an order.
    pub fn left(&self) -> Option<Duration> {
        self.by_force.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

/// Returns true if the system accepted the restart.
fn ask(systemd: bool, mut report: impl FnMut(&str), mut run: impl FnMut(&[&str]) -> Execution) -> bool {
    let ways: [&[&str]; 2] = [&["systemctl", "reboot"], &["reboot"]];
    for words in ways.into_iter().skip(usize::from(!systemd)) {
        let command = words.join(" ");
        // Report it before the command runs: after it, this process may not exist.
        report(&format!("restarts with {command}"));
        let ran = run(words);
        if ran.ok {
            return true;
        }
        let said = if ran.output.is_empty() {
            ""
        } else {
            ", with the output: "
        };
        report(&format!("{command} {}{said}{}", ran.end, ran.output));
    }
    report(&format!(
        "the system refused to restart; the kernel restarts the machine in {} s",
        REFUSED.as_secs()
    ));
    false
}

/// Runs a command that asks this machine's system to restart.
pub fn run(words: &[&str]) -> Execution {
    // The processes that it leaves behind may be those that restart the machine.
    command::run(words, COMMAND, Left::Alone)
}

/// True if PID 1 is systemd (sd_booted(3)).
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(systemd: bool, works: &str) -> (Restarts, Vec<String>) {
        let (mut restarts, mut said) = (Restarts::default(), Vec::new());
        restarts.begin(
            systemd,
            |text| said.push(text.to_owned()),
            |words| Execution {
                ok: words.join(" ") == works,
                end: "ended with exit status 1".into(),
                output: String::new(),
            },
        );
        (restarts, said)
    }

    #[test]
    fn the_init_is_asked_before_the_kernel() {
        assert_eq!(begun(true, "systemctl reboot").1, ["restarts with systemctl reboot"]);
        assert_eq!(begun(false, "reboot").1, ["restarts with reboot"]);
        let (restarts, said) = begun(true, "nothing");
        assert_eq!(
            said,
            [
                "restarts with systemctl reboot",
                "systemctl reboot ended with exit status 1",
                "restarts with reboot",
                "reboot ended with exit status 1",
                "the system refused to restart; the kernel restarts the machine in 60 s",
            ]
        );
        assert!(
            restarts
                .left()
                .is_some_and(|left| left > Duration::from_secs(50) && left <= REFUSED)
        );
    }

    #[test]
    fn an_order_is_carried_out_once() {
        let mut restarts = Restarts::default();
        assert!(restarts.is_new("a") && !restarts.is_new("a") && restarts.is_new("b"));
        let (mut restarts, _) = begun(true, "reboot");
        assert!(!restarts.is_new("c"), "it is restarting already");
        let mut restarts = Restarts::default();
        assert_eq!((0..1000).filter(|i| restarts.is_new(&i.to_string())).count(), 64);
    }
}
