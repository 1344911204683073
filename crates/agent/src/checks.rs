//! Whether what the site wants of a running node is true of it.

use crate::{
    command::{self, Left, Ran},
    login::{self, Answer, Login},
};
use rackstrap_wire::{Check, CheckResult, Health, text::cut};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

/// Between two runs of a command while the node runs: a check is not to be what the node is busy with.
const COMMAND_REST: Duration = Duration::from_secs(60);
/// Between two attempts at a mount while the node comes up: whoever serves it may come up at the same time.
const MOUNT_REST: Duration = Duration::from_secs(10);
/// Bytes of a result's detail (the wire's limit).
const DETAIL: usize = 200;
/// `systemctl` asks a daemon that may be busy.
const UNIT_TIMEOUT: Duration = Duration::from_secs(20);

/// What checks look at.
pub trait System {
    /// True if PID 1 is systemd.
    fn has_systemd(&self) -> bool;
    /// `systemctl is-active UNIT`.
    fn is_active(&self, unit: &str) -> Ran;
    /// `/proc/self/mounts`.
    fn mounts(&self) -> String;
    /// Runs a command.
    fn run(&self, words: &[&str], timeout: Duration) -> Ran;

    /// Something is at this path.
    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    /// The text of a file, or nothing if the file cannot be read.
    fn read(&self, path: &str) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Names in a directory.
    fn list(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// What answers there.
    fn greets(&self, at: SocketAddr) -> Answer {
        login::greets(at)
    }
}

/// This machine.
#[derive(Debug)]
pub struct Machine;

impl System for Machine {
    fn has_systemd(&self) -> bool {
        crate::restart::has_systemd()
    }

    fn is_active(&self, unit: &str) -> Ran {
        command::run(&["systemctl", "is-active", "--", unit], UNIT_TIMEOUT, Left::Killed)
    }

    fn mounts(&self) -> String {
        fs::read_to_string("/proc/self/mounts").unwrap_or_default()
    }

    fn run(&self, words: &[&str], timeout: Duration) -> Ran {
        command::run(words, timeout, Left::Killed)
    }
}

/// When checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The node comes up: what did not hold yet is looked at again.
    ComingUp,
    /// The node runs: all are looked at, commands now and then.
    Running,
}

/// The checks of a node, with what came of them.
#[derive(Debug)]
pub struct Checks {
    all: Vec<One>,
    command_timeout: Duration,
    login: Option<Login>,
}

#[derive(Debug)]
struct One {
    check: Result<Check, String>,
    result: CheckResult,
    /// How it failed, apart from what it said.
    how: String,
    /// When a command, or an attempt to mount, ended.
    ran: Option<Instant>,
    /// What is not mounted is to be.
    mounts: bool,
}

impl Checks {
    /// Those of a plan, none of them made yet, on a node with that address.
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
                detail: format!("{text} was not looked at yet"),
            },
            how: String::new(),
            ran: None,
        });
        Checks {
            all: all.collect(),
            command_timeout: Duration::from_secs(health.command_secs.max(1).into()),
            login: health.login.then(|| Login::new(address)),
        }
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.login.is_none()
    }

    /// True if all hold, as far as is known.
    pub fn hold(&self) -> bool {
        self.all.iter().all(|one| one.result.ok) && self.login.iter().all(|login| login.result().ok)
    }

    /// What came of them.
    pub fn results(&self) -> Vec<CheckResult> {
        let login = self.login.iter().map(Login::result);
        self.all.iter().map(|one| &one.result).chain(login).cloned().collect()
    }

    /// Makes those that are due.
    pub fn look(&mut self, system: &impl System, when: When) {
        for one in &mut self.all {
            one.look(system, when, self.command_timeout);
        }
        if let Some(login) = &mut self.login {
            login.look(system, when);
        }
    }
}

impl One {
    fn look(&mut self, system: &impl System, when: When, timeout: Duration) {
        let text = self.result.check.clone();
        match &self.check {
            Err(problem) => {
                // A newer server's: better said than taken for well.
                self.failed(&format!("{text} cannot be checked by this agent: {problem}"), "");
            }
            Ok(Check::Unit(unit)) if !system.has_systemd() => {
                self.failed(&format!("unit {unit} cannot be checked: the init is not systemd"), "");
            }
            Ok(Check::Unit(unit)) => {
                let ran = system.is_active(unit);
                let word = ran.said.split_whitespace().next().unwrap_or_default();
                match (ran.ok, word) {
                    (true, _) => self.holds(),
                    // systemd's words: inactive, failed, activating, deactivating, maintenance.
                    (false, "inactive" | "failed" | "activating" | "deactivating" | "maintenance" | "unknown") => {
                        self.failed(&format!("unit {unit} is {word}"), "");
                    }
                    (false, _) => {
                        let how = format!("unit {unit} cannot be checked: systemctl {}", ran.how);
                        self.failed(&how, &ran.said);
                    }
                }
            }
            Ok(Check::Mount(path)) => {
                let path = path.clone();
                self.look_at_mount(system, when, timeout, &path);
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
                    true => self.holds(),
                    false => self.failed(&format!("{text} {}", ran.how), &ran.said),
                }
            }
        }
    }

    fn look_at_mount(&mut self, system: &impl System, when: When, timeout: Duration, path: &str) {
        if is_mounted(&system.mounts(), path) {
            return self.holds();
        }
        let rest = match when {
            When::ComingUp => MOUNT_REST,
            When::Running => COMMAND_REST,
        };
        if !self.mounts {
            return self.failed(&format!("{path} is not mounted"), "");
        }
        if self.ran.is_some_and(|ran| ran.elapsed() < rest) {
            // What the last attempt said still holds, unless it was mounted since.
            if self.result.ok {
                self.failed(&format!("{path} is not mounted any more"), "");
            }
            return;
        }
        // As its line of fstab says. Init has tried it already, once.
        let ran = system.run(&["mount", "--", path], timeout);
        self.ran = Some(Instant::now());
        match (is_mounted(&system.mounts(), path), ran.ok) {
            (true, _) => self.holds(),
            // With nofail, mount(8) calls it a success that there is no such device.
            (false, true) => self.failed(&format!("{path} is not mounted: there is no such device"), ""),
            (false, false) => self.failed(&format!("{path} is not mounted: mount {}", ran.how), &ran.said),
        }
    }

    fn holds(&mut self) {
        self.result.ok = true;
        self.result.detail.clear();
        self.how.clear();
    }

    /// A check that fails as before keeps its words: a program that says the time would make each heartbeat news.
    fn failed(&mut self, how: &str, said: &str) {
        self.result.ok = false;
        if self.how == how {
            return;
        }
        how.clone_into(&mut self.how);
        let detail = match said {
            "" => how.to_owned(),
            said => format!("{how}, and said: {said}"),
        };
        cut(&detail, DETAIL).clone_into(&mut self.result.detail);
    }
}

/// True if a file system is mounted at `path` (pure). An automounter's trap that nobody has touched is none.
fn is_mounted(mounts: &str, path: &str) -> bool {
    // fstab(5): blanks and backslashes are written in octal; a check's path has no blanks.
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

        fn is_active(&self, _: &str) -> Ran {
            let said = self.units.borrow().clone();
            Ran {
                ok: said == "active",
                how: "ended with exit status 3".into(),
                said,
            }
        }

        fn mounts(&self) -> String {
            self.mounts.borrow().clone()
        }

        fn run(&self, words: &[&str], timeout: Duration) -> Ran {
            assert_eq!((words, timeout.as_secs()), (&["/bin/x", "-q"][..], 30));
            self.runs.set(self.runs.get() + 1);
            Ran {
                ok: self.exit.get() == 0,
                how: format!("ended with exit status {}", self.exit.get()),
                said: format!("run {}", self.runs.get()),
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
        assert!(!checks.hold());
        checks.look(&system, When::ComingUp);
        let said = details(&checks);
        assert_eq!(said[0], "unit a.service is failed");
        assert_eq!(said[1], "/scratch is not mounted");
        assert_eq!(said[2], "command /bin/x -q ended with exit status 3, and said: run 1");
        assert!(said[3].contains("cannot be checked by this agent"), "{said:?}");
        system.units.replace("active".into());
        let mounts = "x /scratch autofs rw 0 0\nfs:/s /scratch nfs rw 0 0\n";
        system.mounts.replace(mounts.into());
        system.exit.set(0);
        checks.all.pop();
        checks.look(&system, When::ComingUp);
        assert!(checks.hold(), "{checks:?}");
        assert_eq!(details(&checks), ["", "", ""]);
        system.units.replace("Failed to connect to bus".into());
        checks.look(&system, When::Running);
        assert!(details(&checks)[0].starts_with("unit a.service cannot be checked: systemctl ended"));
    }

    #[test]
    fn what_the_node_cannot_do_without_is_mounted_again_and_again() {
        let (mounts, exit) = (RefCell::new(String::new()), Cell::new(32));
        struct Late<'a>(&'a RefCell<String>, &'a Cell<i32>, Cell<u32>);
        impl System for Late<'_> {
            fn has_systemd(&self) -> bool {
                false
            }
            fn is_active(&self, _: &str) -> Ran {
                panic!("no units")
            }
            fn mounts(&self) -> String {
                self.0.borrow().clone()
            }
            fn run(&self, words: &[&str], _: Duration) -> Ran {
                assert_eq!(words, ["mount", "--", "/home"]);
                self.2.set(self.2.get() + 1);
                if self.1.get() == 0 && self.2.get() > 2 {
                    self.0.replace("fs:/home /home nfs rw 0 0\n".into());
                }
                Ran {
                    ok: self.1.get() == 0,
                    how: "ended with exit status 32".into(),
                    said: "mount.nfs: Connection refused".into(),
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
        checks.look(&system, When::ComingUp);
        checks.look(&system, When::ComingUp);
        assert_eq!(system.2.get(), 1, "not each time");
        assert_eq!(
            details(&checks),
            [
                "/home is not mounted: mount ended with exit status 32, and said: mount.nfs: Connection refused",
                "/other is not mounted"
            ]
        );
        exit.set(0);
        checks.all[0].ran = Instant::now().checked_sub(MOUNT_REST);
        checks.look(&system, When::ComingUp);
        assert_eq!(details(&checks)[0], "/home is not mounted: there is no such device");
        checks.all[0].ran = Instant::now().checked_sub(MOUNT_REST);
        checks.look(&system, When::ComingUp);
        assert_eq!(details(&checks)[0], "");
        mounts.replace(String::new());
        checks.look(&system, When::Running);
        assert_eq!(details(&checks)[0], "/home is not mounted any more");
        assert_eq!(system.2.get(), 3);
    }

    #[test]
    fn without_systemd_units_cannot_be_checked() {
        let system = Simulated {
            other_init: true,
            ..Simulated::default()
        };
        let mut checks = checks(&["unit a.service"]);
        checks.look(&system, When::ComingUp);
        assert_eq!(
            details(&checks),
            ["unit a.service cannot be checked: the init is not systemd"]
        );
    }

    #[test]
    fn commands_are_run_now_and_then_and_keep_their_words() {
        let system = Simulated::default();
        let mut checks = checks(&["command /bin/x -q"]);
        system.exit.set(1);
        checks.look(&system, When::ComingUp);
        checks.look(&system, When::ComingUp);
        assert_eq!(system.runs.get(), 2);
        assert!(details(&checks)[0].ends_with("said: run 1"), "{checks:?}");
        system.exit.set(0);
        checks.look(&system, When::ComingUp);
        checks.look(&system, When::ComingUp);
        assert_eq!(system.runs.get(), 3, "it held: not run again before the node is ready");
        checks.look(&system, When::Running);
        assert_eq!(system.runs.get(), 3, "within the minute");
        checks.all[0].ran = Instant::now().checked_sub(COMMAND_REST);
        system.exit.set(2);
        checks.look(&system, When::Running);
        assert_eq!(system.runs.get(), 4);
        assert!(details(&checks)[0].ends_with("said: run 4"), "{checks:?}");
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
