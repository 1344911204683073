//! The checks of a running node: units, mounts, commands, and whether users can log in.

use crate::{
    command::{self, Execution, Left},
    login::{self, Answer, Login},
    networks::watch::{self, WatchedNetwork},
};
use rackstrap_wire::{Check, CheckResult, Health, network_check, text::cut};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

/// Time between two runs of a command while the node runs: checks must not keep the node busy.
const COMMAND_REST: Duration = Duration::from_secs(60);
/// Time between two attempts at a mount while the node comes up: its file server may come up at the same time.
const MOUNT_REST: Duration = Duration::from_secs(10);
/// Bytes of a result's detail (the wire's limit).
const DETAIL: usize = 200;
/// `systemctl` waits for systemd, which may be busy.
const UNIT_TIMEOUT: Duration = Duration::from_secs(20);

/// The parts of the machine that checks examine; tests simulate them.
pub trait System {
    /// True if PID 1 is systemd.
    fn has_systemd(&self) -> bool;
    /// `systemctl is-active UNIT`.
    fn is_active(&self, unit: &str) -> Execution;
    /// `/proc/self/mounts`.
    fn mounts(&self) -> String;
    /// Runs a command and waits for its end.
    fn run(&self, words: &[&str], timeout: Duration) -> Execution;

    /// True if the path exists.
    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    /// The text of a file; empty if the file cannot be read.
    fn read(&self, path: &str) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    /// The names in a directory; empty if it cannot be read.
    fn list(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Connects to the address and looks for an SSH server.
    fn ssh_answer(&self, at: SocketAddr) -> Answer {
        login::ssh_answer(at)
    }
}

/// The machine that the agent runs on.
#[derive(Debug)]
pub struct Machine;

impl System for Machine {
    fn has_systemd(&self) -> bool {
        crate::restart::has_systemd()
    }

    fn is_active(&self, unit: &str) -> Execution {
        command::run(&["systemctl", "is-active", "--", unit], UNIT_TIMEOUT, Left::Killed)
    }

    fn mounts(&self) -> String {
        fs::read_to_string("/proc/self/mounts").unwrap_or_default()
    }

    fn run(&self, words: &[&str], timeout: Duration) -> Execution {
        command::run(words, timeout, Left::Killed)
    }
}

/// The occasion on which checks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The node comes up: checks that failed so far run again.
    ComingUp,
    /// The node runs: all checks run, commands less often.
    Running,
}

/// The checks of a node, with their results.
#[derive(Debug)]
pub struct Checks {
    all: Vec<One>,
    command_timeout: Duration,
    login: Option<Login>,
    networks: Vec<(WatchedNetwork, CheckResult)>,
}

#[derive(Debug)]
struct One {
    check: Result<Check, String>,
    result: CheckResult,
    /// How it failed, without the program's output.
    how: String,
    /// End of the last command, or of the last attempt to mount.
    ran: Option<Instant>,
    /// Whether a file system that is not mounted is mounted by the check.
    mounts: bool,
}

impl Checks {
    /// The checks of a plan for a node with that address. None has run yet.
    pub fn new(health: &Health, address: Option<Ipv4Addr>) -> Self {
        let all = health.checks.iter().map(|text| One {
            mounts: health
                .mounts
                .iter()
                .any(|place| *text == Check::Mount(place.clone()).to_string()),
            check: text.parse::<Check>().map_err(|e| e.message),
            result: CheckResult {
                check: text.clone(),
                ok: false,
                detail: format!("{text} was not checked yet"),
            },
            how: String::new(),
            ran: None,
        });
        Checks {
            all: all.collect(),
            command_timeout: Duration::from_secs(health.command_secs.max(1).into()),
            login: health.login.then(|| Login::new(address)),
            networks: Vec::new(),
        }
    }

    /// The same, and a check for each network besides the boot network.
    pub fn with_networks(mut self, networks: impl Iterator<Item = WatchedNetwork>) -> Self {
        let one = |network: WatchedNetwork| {
            let result = CheckResult {
                check: network_check(&network.name),
                ok: false,
                detail: format!("network {} was not checked yet", network.name),
            };
            (network, result)
        };
        self.networks = networks.map(one).collect();
        self
    }

    /// True if the node has no checks.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.login.is_none() && self.networks.is_empty()
    }

    /// True if the last result of every check was good.
    pub fn pass(&self) -> bool {
        let networks = self.networks.iter().all(|(_, result)| result.ok);
        networks && self.all.iter().all(|one| one.result.ok) && self.login.iter().all(|login| login.result().ok)
    }

    /// The last results.
    pub fn results(&self) -> Vec<CheckResult> {
        let login = self.login.iter().map(Login::result);
        let networks = self.networks.iter().map(|(_, result)| result);
        let all = self.all.iter().map(|one| &one.result);
        all.chain(login).chain(networks).cloned().collect()
    }

    /// Runs the checks that are due.
    pub fn run_due(&mut self, system: &impl System, when: When) {
        for one in &mut self.all {
            one.run_due(system, when, self.command_timeout);
        }
        if let Some(login) = &mut self.login {
            login.run_due(system, when);
        }
        for (network, result) in &mut self.networks {
            let problem = watch::problem(network, system);
            result.ok = problem.is_none();
            cut(&problem.unwrap_or_default(), DETAIL).clone_into(&mut result.detail);
        }
    }
}

impl One {
    fn run_due(&mut self, system: &impl System, when: When, timeout: Duration) {
        let text = self.result.check.clone();
        match &self.check {
            Err(problem) => {
                // The check is from a newer server: a failure is safer than a pass.
                self.failed(&format!("{text} cannot be checked by this agent: {problem}"), "");
            }
            Ok(Check::Unit(unit)) if !system.has_systemd() => {
                self.failed(&format!("unit {unit} cannot be checked: the init is not systemd"), "");
            }
            Ok(Check::Unit(unit)) => {
                let ran = system.is_active(unit);
                let word = ran.output.split_whitespace().next().unwrap_or_default();
                match (ran.ok, word) {
                    (true, _) => self.passed(),
                    // The states of systemd's units: inactive, failed, activating, deactivating, maintenance.
                    (false, "inactive" | "failed" | "activating" | "deactivating" | "maintenance" | "unknown") => {
                        self.failed(&format!("unit {unit} is {word}"), "");
                    }
                    (false, _) => {
                        let how = format!("unit {unit} cannot be checked: systemctl {}", ran.end);
                        self.failed(&how, &ran.output);
                    }
                }
            }
            Ok(Check::Mount(path)) => {
                let path = path.clone();
                self.check_mount(system, when, timeout, &path);
            }
            Ok(Check::Command(words)) => {
                let rests = self.ran.is_some_and(|ran| match when {
                    When::ComingUp => self.result.ok,
                    When::Running => ran.elapsed() < COMMAND_REST,
                });
                if rests {
                    return;
                }
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let ran = system.run(&words, timeout);
                self.ran = Some(Instant::now());
                match ran.ok {
                    true => self.passed(),
                    false => self.failed(&format!("{text} {}", ran.end), &ran.output),
                }
            }
        }
    }

    fn check_mount(&mut self, system: &impl System, when: When, timeout: Duration, path: &str) {
        if is_mounted(&system.mounts(), path) {
            return self.passed();
        }
        let rest = match when {
            When::ComingUp => MOUNT_REST,
            When::Running => COMMAND_REST,
        };
        if !self.mounts {
            return self.failed(&format!("{path} is not mounted"), "");
        }
        if self.ran.is_some_and(|ran| ran.elapsed() < rest) {
            // The result of the last attempt still holds, unless the file system was mounted since.
            if self.result.ok {
                self.failed(&format!("{path} is no longer mounted"), "");
            }
            return;
        }
        // mount(8) reads the rest from fstab. Init has tried it already, once.
        let ran = system.run(&["mount", "--", path], timeout);
        self.ran = Some(Instant::now());
        match (is_mounted(&system.mounts(), path), ran.ok) {
            (true, _) => self.passed(),
            // With nofail, mount(8) succeeds though the device does not exist.
            (false, true) => self.failed(&format!("{path} is not mounted: the device does not exist"), ""),
            (false, false) => self.failed(&format!("{path} is not mounted: mount {}", ran.end), &ran.output),
        }
    }

    fn passed(&mut self) {
        self.result.ok = true;
        self.result.detail.clear();
        self.how.clear();
    }

    /// A check that fails as before keeps its detail: the output of a program that prints the time would change every heartbeat.
    fn failed(&mut self, how: &str, said: &str) {
        self.result.ok = false;
        if self.how == how {
            return;
        }
        how.clone_into(&mut self.how);
        let detail = match said {
            "" => how.to_owned(),
            said => format!("{how}, with the output: {said}"),
        };
        cut(&detail, DETAIL).clone_into(&mut self.result.detail);
    }
}

/// True if a file system is mounted at `path` (pure). An automounter's mount point that was never used does not count.
fn is_mounted(mounts: &str, path: &str) -> bool {
    // fstab(5) writes blanks and backslashes in octal; the path of a check has no blanks.
    let path = path.replace('\\', "\\134");
    let top = mounts
        .lines()
        .rev()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(1) == Some(&path.as_str()));
    top.is_some_and(|fields| fields.get(2) != Some(&"autofs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[derive(Default)]
    struct Simulated {
        other_init: bool,
        units: RefCell<String>,
        mounts: RefCell<String>,
        exit: Cell<i32>,
        runs: Cell<u32>,
    }

    impl System for Simulated {
        fn has_systemd(&self) -> bool {
            !self.other_init
        }

        fn is_active(&self, _: &str) -> Execution {
            let said = self.units.borrow().clone();
            Execution {
                ok: said == "active",
                end: "ended with exit status 3".into(),
                output: said,
            }
        }

        fn mounts(&self) -> String {
            self.mounts.borrow().clone()
        }

        fn run(&self, words: &[&str], timeout: Duration) -> Execution {
            assert_eq!((words, timeout.as_secs()), (&["/bin/x", "-q"][..], 30));
            self.runs.set(self.runs.get() + 1);
            Execution {
                ok: self.exit.get() == 0,
                end: format!("ended with exit status {}", self.exit.get()),
                output: format!("run {}", self.runs.get()),
            }
        }
    }

    fn checks(texts: &[&str]) -> Checks {
        let health = Health {
            checks: texts.iter().map(|&text| text.to_owned()).collect(),
            ..Health::default()
        };
        Checks::new(&health, None)
    }

    fn details(checks: &Checks) -> Vec<String> {
        checks.results().into_iter().map(|result| result.detail).collect()
    }

    #[test]
    fn each_kind_holds_or_says_why_not() {
        let system = Simulated::default();
        system.units.replace("failed".into());
        system.mounts.replace("x /scratch autofs rw 0 0\n".into());
        system.exit.set(3);
        let mut checks = checks(&["unit a.service", "mount /scratch", "command /bin/x -q", "moon full"]);
        assert!(!checks.pass());
        checks.run_due(&system, When::ComingUp);
        let said = details(&checks);
        assert_eq!(said[0], "unit a.service is failed");
        assert_eq!(said[1], "/scratch is not mounted");
        assert_eq!(
            said[2],
            "command /bin/x -q ended with exit status 3, with the output: run 1"
        );
        assert!(said[3].contains("cannot be checked by this agent"), "{said:?}");
        system.units.replace("active".into());
        let mounts = "x /scratch autofs rw 0 0\nfs:/s /scratch nfs rw 0 0\n";
        system.mounts.replace(mounts.into());
        system.exit.set(0);
        checks.all.pop();
        checks.run_due(&system, When::ComingUp);
        assert!(checks.pass(), "{checks:?}");
        assert_eq!(details(&checks), ["", "", ""]);
        system.units.replace("Failed to connect to bus".into());
        checks.run_due(&system, When::Running);
        assert!(details(&checks)[0].starts_with("unit a.service cannot be checked: systemctl ended"));
    }

    #[test]
    fn a_required_mount_is_tried_until_it_is_mounted() {
        let (mounts, exit) = (RefCell::new(String::new()), Cell::new(32));
        struct Late<'a>(&'a RefCell<String>, &'a Cell<i32>, Cell<u32>);
        impl System for Late<'_> {
            fn has_systemd(&self) -> bool {
                false
            }
            fn is_active(&self, _: &str) -> Execution {
                panic!("no units")
            }
            fn mounts(&self) -> String {
                self.0.borrow().clone()
            }
            fn run(&self, words: &[&str], _: Duration) -> Execution {
                assert_eq!(words, ["mount", "--", "/home"]);
                self.2.set(self.2.get() + 1);
                if self.1.get() == 0 && self.2.get() > 2 {
                    self.0.replace("fs:/home /home nfs rw 0 0\n".into());
                }
                Execution {
                    ok: self.1.get() == 0,
                    end: "ended with exit status 32".into(),
                    output: "mount.nfs: Connection refused".into(),
                }
            }
        }
        let system = Late(&mounts, &exit, Cell::new(0));
        let health = Health {
            checks: vec!["mount /home".into(), "mount /other".into()],
            mounts: vec!["/home".into()],
            ..Health::default()
        };
        let mut checks = Checks::new(&health, None);
        checks.run_due(&system, When::ComingUp);
        checks.run_due(&system, When::ComingUp);
        assert_eq!(system.2.get(), 1, "not each time");
        assert_eq!(
            details(&checks),
            [
                "/home is not mounted: mount ended with exit status 32, with the output: mount.nfs: Connection refused",
                "/other is not mounted"
            ]
        );
        exit.set(0);
        checks.all[0].ran = Instant::now().checked_sub(MOUNT_REST);
        checks.run_due(&system, When::ComingUp);
        assert_eq!(details(&checks)[0], "/home is not mounted: the device does not exist");
        checks.all[0].ran = Instant::now().checked_sub(MOUNT_REST);
        checks.run_due(&system, When::ComingUp);
        assert_eq!(details(&checks)[0], "");
        mounts.replace(String::new());
        checks.run_due(&system, When::Running);
        assert_eq!(details(&checks)[0], "/home is no longer mounted");
        assert_eq!(system.2.get(), 3);
    }

    #[test]
    fn without_systemd_units_cannot_be_checked() {
        let system = Simulated {
            other_init: true,
            ..Simulated::default()
        };
        let mut checks = checks(&["unit a.service"]);
        checks.run_due(&system, When::ComingUp);
        assert_eq!(
            details(&checks),
            ["unit a.service cannot be checked: the init is not systemd"]
        );
    }

    #[test]
    fn commands_run_once_a_minute_and_keep_their_first_output() {
        let system = Simulated::default();
        let mut checks = checks(&["command /bin/x -q"]);
        system.exit.set(1);
        checks.run_due(&system, When::ComingUp);
        checks.run_due(&system, When::ComingUp);
        assert_eq!(system.runs.get(), 2);
        assert!(details(&checks)[0].ends_with("output: run 1"), "{checks:?}");
        system.exit.set(0);
        checks.run_due(&system, When::ComingUp);
        checks.run_due(&system, When::ComingUp);
        assert_eq!(system.runs.get(), 3, "it held: not run again before the node is ready");
        checks.run_due(&system, When::Running);
        assert_eq!(system.runs.get(), 3, "within the minute");
        checks.all[0].ran = Instant::now().checked_sub(COMMAND_REST);
        system.exit.set(2);
        checks.run_due(&system, When::Running);
        assert_eq!(system.runs.get(), 4);
        assert!(details(&checks)[0].ends_with("output: run 4"), "{checks:?}");
    }

    #[test]
    fn mounts_are_found() {
        assert!(is_mounted("a / ext4 rw 0 0\nb /x xfs rw 0 0\n", "/x"));
        assert!(!is_mounted(
            "a / ext4 rw 0 0\nb /xy xfs rw 0 0\n/x /z xfs rw 0 0\nbroken",
            "/x"
        ));
        assert!(is_mounted("a /a\\134b ext4 rw 0 0", "/a\\b"));
    }
}
