//! Restarting the node when the server says so: the system's own way first, the kernel's at last.

use crate::command::{self, Left, Ran};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Time for a command that only asks init.
const COMMAND: Duration = Duration::from_secs(60);
/// How long a system that agreed to restart may take to stop its services.
const STOPPING: Duration = Duration::from_secs(300);
/// Without anybody who agreed: until the kernel is told to.
const REFUSED: Duration = Duration::from_secs(60);

/// Orders, of which each is obeyed once.
#[derive(Debug, Default)]
pub struct Restarts {
    obeyed: Vec<String>,
    /// When the machine is restarted without asking anybody any more.
    by_force: Option<Instant>,
}

impl Restarts {
    /// True the first time that this order comes.
    pub fn is_new(&mut self, id: &str) -> bool {
        // One boot gets one order, or two; a server that sends thousands shall not fill the memory.
        let new = self.by_force.is_none() && self.obeyed.len() < 64 && !self.obeyed.iter().any(|o| o == id);
        if new {
            self.obeyed.push(id.to_owned());
        }
        new
    }

    /// Asks the system to restart; `say` is told before each attempt, and how it failed.
    pub fn begin(&mut self, systemd: bool, say: impl FnMut(&str), run: impl FnMut(&[&str]) -> Ran) {
        let patience = match ask(systemd, say, run) {
            true => STOPPING,
            false => REFUSED,
        };
        self.by_force = Some(Instant::now() + patience);
    }

    /// Time until the machine should have restarted, if it is to at all.
    pub fn left(&self) -> Option<Duration> {
        self.by_force.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

/// True if somebody agreed.
fn ask(systemd: bool, mut say: impl FnMut(&str), mut run: impl FnMut(&[&str]) -> Ran) -> bool {
    let ways: [&[&str]; 2] = [&["systemctl", "reboot"], &["reboot"]];
    for words in ways.into_iter().skip(usize::from(!systemd)) {
        let command = words.join(" ");
        // Before it is done: afterwards there may be nobody left to say it.
        say(&format!("restarts by {command}"));
        let ran = run(words);
        if ran.ok {
            return true;
        }
        let said = if ran.said.is_empty() { "" } else { ", and said: " };
        say(&format!("{command} {}{said}{}", ran.how, ran.said));
    }
    say(&format!(
        "the system does not restart; the kernel does in {} s",
        REFUSED.as_secs()
    ));
    false
}

/// Asks this machine's system.
pub fn run(words: &[&str]) -> Ran {
    // Whatever it leaves behind may be what restarts the machine.
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
            |words| Ran {
                ok: words.join(" ") == works,
                how: "ended with exit status 1".into(),
                said: String::new(),
            },
        );
        (restarts, said)
    }

    #[test]
    fn the_systems_own_way_comes_first() {
        assert_eq!(begun(true, "systemctl reboot").1, ["restarts by systemctl reboot"]);
        assert_eq!(begun(false, "reboot").1, ["restarts by reboot"]);
        let (restarts, said) = begun(true, "nothing");
        assert_eq!(
            said,
            [
                "restarts by systemctl reboot",
                "systemctl reboot ended with exit status 1",
                "restarts by reboot",
                "reboot ended with exit status 1",
                "the system does not restart; the kernel does in 60 s",
            ]
        );
        assert!(
            restarts
                .left()
                .is_some_and(|left| left > Duration::from_secs(50) && left <= REFUSED)
        );
    }

    #[test]
    fn an_order_is_obeyed_once() {
        let mut restarts = Restarts::default();
        assert!(restarts.is_new("a") && !restarts.is_new("a") && restarts.is_new("b"));
        let (mut restarts, _) = begun(true, "reboot");
        assert!(!restarts.is_new("c"), "it is restarting already");
        let mut restarts = Restarts::default();
        assert_eq!((0..1000).filter(|i| restarts.is_new(&i.to_string())).count(), 64);
    }
}
