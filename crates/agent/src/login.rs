//! Checks whether people and programs can log in to the running node. A node on which no user can work is not ready.
//!
//! Three things are checked, each only if the image is meant to have it: `nologin` keeps no users out; if sshd is enabled, it
//! answers with its version at the node's address; and a session of root can be opened as sshd opens one. None of them needs a
//! secret, so a wrong key is not noticed. If a check cannot be made, it counts as passed: a healthy node is never `degraded` by it.

use crate::{
    checks::{System, When},
    session,
};
use rackstrap_wire::{
    CheckResult, LOGIN,
    text::{cut, one_line},
};
use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Files that keep users out (pam_nologin(8), sshd(8)).
const NOLOGIN: [&str; 2] = ["/run/nologin", "/etc/nologin"];
/// Units of sshd: Debian's names and those of other distributions.
const UNITS: [&str; 4] = ["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"];
/// With this file Debian has sshd installed but not running.
const NOT_TO_BE_RUN: &str = "/etc/ssh/sshd_not_to_be_run";
/// Files of other inits that start sshd: sysvinit, OpenRC, runit.
const STARTED_BY: [&str; 6] = [
    "/etc/rc2.d",
    "/etc/rc3.d",
    "/etc/rc5.d",
    "/etc/runlevels/default",
    "/etc/service",
    "/var/service",
];
/// Paths of sshd, which requires to be called by its full path.
const SSHD: [&str; 3] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];
const KEYS: &str = "/root/.ssh/authorized_keys";
/// Debian's sshd silently refuses the addresses in these files (hosts_access(5)).
const WRAPPERS: [&str; 2] = ["/etc/hosts.deny", "/etc/hosts.allow"];
const PAM: [&str; 2] = ["/etc/pam.d/sshd", "/usr/lib/pam.d/sshd"];
/// Port of sshd if its configuration names none.
const PORT: u16 = 22;
/// Time for a program to answer; the machine may be busy coming up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two checks while all is well: sshd logs each of them.
const REST: Duration = Duration::from_secs(600);
/// Time between two failed sessions, while the node comes up and later: each starts processes.
const SESSION_RESTS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// Bytes of a result's detail (the wire's limit).
const DETAIL: usize = 200;

/// The login check and its result.
#[derive(Debug)]
pub struct Login {
    address: Option<Ipv4Addr>,
    result: CheckResult,
    /// Time at which the whole check last passed.
    passed: Option<Instant>,
    /// Time at which sshd last answered.
    answered: Option<Instant>,
    /// Result of the last session. After one success no other is opened.
    session: Option<(Instant, Result<(), String>)>,
    sessions: u32,
    /// The last check failed for the first time: sshd may have been restarted at that moment.
    doubt: bool,
}

/// The configuration of sshd as `sshd -T` prints it.
#[derive(Debug, PartialEq, Eq)]
struct Configured {
    /// Addresses at which it listens; none if it does not say.
    listens: Option<Vec<SocketAddr>>,
    /// Whether root may log in.
    root: bool,
    /// Whether it uses PAM.
    pam: bool,
}

/// The program at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An SSH server, possibly too busy for this connection.
    Ssh,
    /// A program that closed the connection at once.
    Closed,
    /// No SSH server; the text says why.
    Not(String),
}

impl Login {
    /// The check of a node with that address; none from a boot that did not record it.
    pub fn new(address: Option<Ipv4Addr>) -> Self {
        Login {
            address,
            result: CheckResult {
                check: LOGIN.to_owned(),
                ok: false,
                detail: "login was not checked yet".to_owned(),
            },
            passed: None,
            answered: None,
            session: None,
            sessions: 0,
            doubt: false,
        }
    }

    /// The last result.
    pub fn result(&self) -> &CheckResult {
        &self.result
    }

    /// Makes the parts of the check that are due.
    pub fn run_due(&mut self, system: &impl System, when: When) {
        let found = self.check(system, when);
        let doubted = std::mem::replace(&mut self.doubt, found.is_err());
        if found.is_err() {
            self.passed = None;
            if self.result.ok && when == When::Running && !doubted {
                return;
            }
        }
        self.result.ok = found.is_ok();
        self.result.detail = match found {
            Ok(()) => String::new(),
            Err(why) => cut(&why, DETAIL).to_owned(),
        };
    }

    fn check(&mut self, system: &impl System, when: When) -> Result<(), String> {
        if let Some(file) = NOLOGIN.into_iter().find(|file| system.exists(file)) {
            return Err(format!("users cannot log in because {file} exists; remove it"));
        }
        if is_within(self.passed, REST) {
            return Ok(());
        }
        let rest = match when {
            When::ComingUp => SESSION_RESTS.0,
            When::Running => SESSION_RESTS.1,
        };
        if let Some((at, failed @ Err(_))) = &self.session
            && at.elapsed() < rest
        {
            return failed.clone();
        }
        let units = enabled(system);
        if !units.is_empty() {
            let configured = configure(system, self.address);
            if !is_within(self.answered, REST) {
                self.check_answer(system, &units, configured.listens.as_deref())?;
                self.answered = Some(Instant::now());
            }
            let opened = self.session.as_ref().is_some_and(|(_, result)| result.is_ok());
            let wanted = configured.pam && system.has_systemd() && PAM.into_iter().any(|file| system.exists(file));
            if wanted && !opened {
                self.sessions += 1;
                let root = configured.root && has_rules(&system.read(KEYS));
                let result = session::open(system, self.sessions, root);
                self.session = Some((Instant::now(), result.clone()));
                result?;
            }
        }
        self.passed = Some(Instant::now());
        Ok(())
    }

    /// Checks that sshd answers at an address of its units.
    fn check_answer(
        &self,
        system: &impl System,
        units: &[String],
        listens: Option<&[SocketAddr]>,
    ) -> Result<(), String> {
        let Some(address) = self.address else { return Ok(()) };
        let mut places = Vec::new();
        for unit in units {
            let own = [SocketAddr::from((address, PORT))];
            let more = match unit.ends_with(".socket") {
                true => targets(address, &sockets(system, unit)),
                false => listens.map_or(own.to_vec(), |listens| targets(address, listens)),
            };
            places.extend(more);
        }
        let mut failed = None;
        for at in places {
            let why = match system.ssh_answer(at) {
                Answer::Ssh => return Ok(()),
                Answer::Closed if WRAPPERS.iter().any(|file| has_rules(&system.read(file))) => return Ok(()),
                Answer::Closed => "it closes the connection before it sends its version".to_owned(),
                Answer::Not(why) => why,
            };
            failed.get_or_insert((at, why));
        }
        let Some((at, why)) = failed else { return Ok(()) };
        match units.iter().find(|unit| should_answer(system, unit, listens.is_some())) {
            Some(unit) => Err(format!("{unit} is enabled, and does not answer at {at}: {why}")),
            None => Ok(()),
        }
    }
}

fn is_within(since: Option<Instant>, rest: Duration) -> bool {
    since.is_some_and(|at| at.elapsed() < rest)
}

/// True if a file has a line that is not a comment.
fn has_rules(text: &str) -> bool {
    text.lines()
        .any(|line| !matches!(line.trim().chars().next(), None | Some('#')))
}

/// The units or scripts that start sshd; empty if none does.
fn enabled(system: &impl System) -> Vec<String> {
    if system.exists(NOT_TO_BE_RUN) {
        return Vec::new();
    }
    if system.has_systemd() {
        let list = ["systemctl", "list-unit-files", "--no-legend", "--no-pager", "--"];
        let said = system.run(&[&list[..], &UNITS].concat(), PATIENCE).output;
        return lines(&said)
            .filter(|words| {
                words
                    .get(1)
                    .is_some_and(|state| state.starts_with("enabled") || *state == "generated")
            })
            .filter_map(|words| words.first().map(|unit| (*unit).to_owned()))
            .filter(|unit| UNITS.contains(&unit.as_str()))
            .collect();
    }
    let is_sshd = |name: &String| {
        let plain = name
            .trim_start_matches('S')
            .trim_start_matches(|c: char| c.is_ascii_digit());
        matches!(plain, "ssh" | "sshd")
    };
    let found = STARTED_BY.iter().flat_map(|dir| system.list(dir)).find(is_sshd);
    found.map(|_| "sshd".to_owned()).into_iter().collect()
}

/// Whether a unit that does not answer should: systemd did not skip it because of a condition, and its addresses are known.
fn should_answer(system: &impl System, unit: &str, known: bool) -> bool {
    if !system.has_systemd() {
        return true;
    }
    let properties = "--property=ActiveState,ConditionResult,ConditionTimestampMonotonic,MainPID";
    let said = system
        .run(&["systemctl", "show", properties, "--", unit], PATIENCE)
        .output;
    let has = |line: &str| lines(&said).any(|words| words.first() == Some(&line));
    // Until systemd has evaluated the conditions, it shows them as not met.
    let left_out = has("ConditionResult=no") && !has("ConditionTimestampMonotonic=0");
    let known = known && !has_own_options(system, &said);
    !left_out && (known || unit.ends_with(".socket") || !has("ActiveState=active"))
}

/// True if sshd was started with options for its addresses or its configuration, of which `sshd -T` knows nothing. Debian has them
/// in /etc/default/ssh, Red Hat in /etc/sysconfig/sshd.
fn has_own_options(system: &impl System, shown: &str) -> bool {
    let id = lines(shown).find_map(|words| words.first()?.strip_prefix("MainPID=").map(str::to_owned));
    let Some(id) = id.filter(|id| id != "0") else {
        return false;
    };
    let command = system.read(&format!("/proc/{id}/cmdline"));
    // sshd replaces its arguments by a title, `sshd: /usr/sbin/sshd -D -p 2222 [listener]`.
    command
        .split(['\0', ' '])
        .any(|word| ["-p", "-f", "-o"].iter().any(|option| word.starts_with(option)))
}

/// The lines of a program's output, as words; [`crate::command::Execution`] joins lines with ` / `.
fn lines(said: &str) -> impl Iterator<Item = Vec<&str>> {
    said.split(" / ").map(|line| line.split_whitespace().collect())
}

fn configure(system: &impl System, address: Option<Ipv4Addr>) -> Configured {
    let Some(sshd) = SSHD.into_iter().find(|file| system.exists(file)) else {
        return configured("");
    };
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST);
    // Without these, older versions fail if their configuration has a Match block.
    let connection = format!("user=root,host=localhost,addr={address},laddr={address},lport={PORT}");
    let ran = system.run(&[sshd, "-T", "-C", &connection], PATIENCE);
    configured(if ran.ok { &ran.output } else { "" })
}

/// Reads the output of `sshd -T`; all defaults if it is empty (pure).
fn configured(said: &str) -> Configured {
    let mut configured = Configured {
        listens: None,
        root: true,
        pam: true,
    };
    for line in lines(said) {
        match line.as_slice() {
            ["listenaddress", at, more @ ..] => {
                let listens = configured.listens.get_or_insert_default();
                // An address in another routing domain cannot be reached from this one.
                listens.extend(at.parse::<SocketAddr>().ok().filter(|_| more.is_empty()));
            }
            ["permitrootlogin", "no"] => configured.root = false,
            ["usepam", "no"] => configured.pam = false,
            _ => {}
        }
    }
    configured
}

/// Addresses at which a socket unit listens.
fn sockets(system: &impl System, unit: &str) -> Vec<SocketAddr> {
    let ran = system.run(&["systemctl", "show", "--property=Listen", "--", unit], PATIENCE);
    lines(&ran.output)
        .filter_map(|words| words.first()?.strip_prefix("Listen=")?.parse().ok())
        .collect()
}

/// Addresses of which one must answer: the node's address if sshd listens there, else those at which it listens (pure).
fn targets(address: Ipv4Addr, listens: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut targets = Vec::new();
    let mut also = Vec::new();
    for at in listens {
        let own = SocketAddr::from((address, at.port()));
        match at.ip() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                targets.push(own);
                // A socket of sshd for IPv6 does not accept IPv4, but one of systemd does.
                also.push(SocketAddr::from((Ipv6Addr::LOCALHOST, at.port())));
            }
            ip if ip.is_unspecified() || ip == address => targets.push(own),
            _ => {}
        }
    }
    if !listens
        .iter()
        .any(|at| at.is_ipv4() && targets.contains(&SocketAddr::from((address, at.port()))))
    {
        targets.extend(also);
    }
    if targets.is_empty() {
        targets.extend(listens);
    }
    targets.dedup();
    targets
}

/// Connects, and waits for the version that an SSH server sends first (RFC 4253, 4.2 allows other lines before it).
pub fn ssh_answer(at: SocketAddr) -> Answer {
    const MOST_WAITED: Duration = Duration::from_secs(10);
    /// Most bytes before the version.
    const MOST: u64 = 8 << 10;
    /// OpenSSH's answers when it refuses a connection because it is busy; so it runs.
    const BUSY: [&str; 2] = ["Exceeded MaxStartups", "Not allowed at this time"];
    let ended = Instant::now() + MOST_WAITED;
    let stream = TcpStream::connect_timeout(&at, MOST_WAITED).and_then(|stream| {
        stream.set_read_timeout(Some(MOST_WAITED))?;
        Ok(stream.take(MOST))
    });
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(e) => return Answer::Not(e.to_string()),
    };
    let mut said = Vec::new();
    let mut buffer = [0; 512];
    while Instant::now() < ended {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
            Err(_) => return Answer::Not(format!("no version within {} s", MOST_WAITED.as_secs())),
        }
        let known =
            |line: &[u8]| line.starts_with(b"SSH-") || BUSY.iter().any(|busy| line.starts_with(busy.as_bytes()));
        if said.split(|byte| *byte == b'\n').any(known) {
            return Answer::Ssh;
        }
    }
    if said.is_empty() {
        return Answer::Closed;
    }
    let text = String::from_utf8_lossy(&said);
    let said = one_line(text.trim_matches(|c: char| c.is_whitespace() || c.is_control()), 60);
    Answer::Not(format!("it answers '{said}' instead of a version of SSH"))
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
