//! Whether people and programs can log in to the running node: without that, `ready` would be a word.
//!
//! Three things are looked at, and only what the image is meant to have counts: `nologin` keeps nobody out; where sshd is enabled, it
//! answers with its version at the node's address; and a session of root's can be opened as sshd opens one. No secret is needed for any
//! of them, so a wrong key is not noticed. What cannot be told counts as well: a healthy node is never `degraded` for this.

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
/// Units of sshd: Debian's names, and everybody else's.
const UNITS: [&str; 4] = ["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"];
/// Debian's way to have sshd installed and not running.
const NOT_TO_BE_RUN: &str = "/etc/ssh/sshd_not_to_be_run";
/// Where other inits say that sshd is to run: sysvinit, OpenRC, runit.
const STARTED_BY: [&str; 6] = [
    "/etc/rc2.d",
    "/etc/rc3.d",
    "/etc/rc5.d",
    "/etc/runlevels/default",
    "/etc/service",
    "/var/service",
];
/// sshd wants to be called by its whole path.
const SSHD: [&str; 3] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];
const KEYS: &str = "/root/.ssh/authorized_keys";
/// Whom Debian's sshd turns away without a word (hosts_access(5)).
const WRAPPERS: [&str; 2] = ["/etc/hosts.deny", "/etc/hosts.allow"];
const PAM: [&str; 2] = ["/etc/pam.d/sshd", "/usr/lib/pam.d/sshd"];
/// Where sshd listens unless it is told otherwise.
const PORT: u16 = 22;
/// Of a program that is asked; the machine may be busy coming up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks while all is well: sshd writes each of them to its log.
const REST: Duration = Duration::from_secs(600);
/// Between two sessions that cannot be opened, while the node comes up and later: each starts processes.
const SESSION_RESTS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// Bytes of a result's detail (the wire's limit).
const DETAIL: usize = 200;

/// The check, and what came of it.
#[derive(Debug)]
pub struct Login {
    address: Option<Ipv4Addr>,
    result: CheckResult,
    /// When all was well last.
    well: Option<Instant>,
    /// When sshd answered last.
    heard: Option<Instant>,
    /// What came of the last session; one that was opened is enough.
    session: Option<(Instant, Result<(), String>)>,
    sessions: u32,
    /// Something was amiss at the last look, and not before: sshd may have been restarted at that moment.
    doubt: bool,
}

/// What sshd says of its own configuration.
#[derive(Debug, PartialEq, Eq)]
struct Configured {
    /// Where it listens; none if it does not say.
    listens: Option<Vec<SocketAddr>>,
    /// Root may log in.
    root: bool,
    /// PAM has a say.
    pam: bool,
}

/// What is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An SSH server, which may be too busy for us.
    Ssh,
    /// Somebody who turned us away without a word.
    Closed,
    /// Nobody, or somebody else: why.
    Not(String),
}

impl Login {
    /// The check of a node with that address; none from a boot that did not note it.
    pub fn new(address: Option<Ipv4Addr>) -> Self {
        Login {
            address,
            result: CheckResult {
                check: LOGIN.to_owned(),
                ok: false,
                detail: "whether one can log in was not looked at yet".to_owned(),
            },
            well: None,
            heard: None,
            session: None,
            sessions: 0,
            doubt: false,
        }
    }

    /// What came of it.
    pub fn result(&self) -> &CheckResult {
        &self.result
    }

    /// Looks again, at what is due.
    pub fn look(&mut self, system: &impl System, when: When) {
        let found = self.find(system, when);
        let doubted = std::mem::replace(&mut self.doubt, found.is_err());
        if found.is_err() {
            self.well = None;
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

    fn find(&mut self, system: &impl System, when: When) -> Result<(), String> {
        if let Some(file) = NOLOGIN.into_iter().find(|file| system.exists(file)) {
            return Err(format!("users cannot log in: {file} is there; remove it"));
        }
        if rests(self.well, REST) {
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
            if !rests(self.heard, REST) {
                self.ask(system, &units, configured.listens.as_deref())?;
                self.heard = Some(Instant::now());
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
        self.well = Some(Instant::now());
        Ok(())
    }

    /// That sshd answers where one of its units listens.
    fn ask(&self, system: &impl System, units: &[String], listens: Option<&[SocketAddr]>) -> Result<(), String> {
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
            let why = match system.greets(at) {
                Answer::Ssh => return Ok(()),
                Answer::Closed if WRAPPERS.iter().any(|file| has_rules(&system.read(file))) => return Ok(()),
                Answer::Closed => "it closes the connection before it says its version".to_owned(),
                Answer::Not(why) => why,
            };
            failed.get_or_insert((at, why));
        }
        let Some((at, why)) = failed else { return Ok(()) };
        match units.iter().find(|unit| is_to_answer(system, unit, listens.is_some())) {
            Some(unit) => Err(format!("{unit} is enabled, and does not answer at {at}: {why}")),
            None => Ok(()),
        }
    }
}

fn rests(since: Option<Instant>, rest: Duration) -> bool {
    since.is_some_and(|at| at.elapsed() < rest)
}

/// True if a file of lines says anything.
fn has_rules(text: &str) -> bool {
    text.lines()
        .any(|line| !matches!(line.trim().chars().next(), None | Some('#')))
}

/// What is to start sshd; empty if nothing is.
fn enabled(system: &impl System) -> Vec<String> {
    if system.exists(NOT_TO_BE_RUN) {
        return Vec::new();
    }
    if system.has_systemd() {
        let list = ["systemctl", "list-unit-files", "--no-legend", "--no-pager", "--"];
        let said = system.run(&[&list[..], &UNITS].concat(), PATIENCE).said;
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

/// A unit that does not answer ought to: systemd did not leave it out by one of its conditions, and where it listens is known.
fn is_to_answer(system: &impl System, unit: &str, known: bool) -> bool {
    if !system.has_systemd() {
        return true;
    }
    let properties = "--property=ActiveState,ConditionResult,ConditionTimestampMonotonic,MainPID";
    let said = system
        .run(&["systemctl", "show", properties, "--", unit], PATIENCE)
        .said;
    let says = |line: &str| lines(&said).any(|words| words.first() == Some(&line));
    // Before its conditions were looked at, they count as not met.
    let left_out = says("ConditionResult=no") && !says("ConditionTimestampMonotonic=0");
    let known = known && !is_told_otherwise(system, &said);
    !left_out && (known || unit.ends_with(".socket") || !says("ActiveState=active"))
}

/// True if sshd was started with options that say where it listens, or where that is written: `sshd -T` knows nothing of them. Debian
/// has them in /etc/default/ssh, Red Hat in /etc/sysconfig/sshd.
fn is_told_otherwise(system: &impl System, shown: &str) -> bool {
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

/// A program's lines, as words; [`crate::command::Ran`] has them in one, with strokes between them.
fn lines(said: &str) -> impl Iterator<Item = Vec<&str>> {
    said.split(" / ").map(|line| line.split_whitespace().collect())
}

fn configure(system: &impl System, address: Option<Ipv4Addr>) -> Configured {
    let Some(sshd) = SSHD.into_iter().find(|file| system.exists(file)) else {
        return configured("");
    };
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST);
    // Without these, older ones refuse to speak where there is a Match in their configuration.
    let connection = format!("user=root,host=localhost,addr={address},laddr={address},lport={PORT}");
    let ran = system.run(&[sshd, "-T", "-C", &connection], PATIENCE);
    configured(if ran.ok { &ran.said } else { "" })
}

/// Reads what `sshd -T` says; nothing if it said nothing (pure).
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
                // Another routing domain is not reached from this one.
                listens.extend(at.parse::<SocketAddr>().ok().filter(|_| more.is_empty()));
            }
            ["permitrootlogin", "no"] => configured.root = false,
            ["usepam", "no"] => configured.pam = false,
            _ => {}
        }
    }
    configured
}

/// Where a socket unit listens.
fn sockets(system: &impl System, unit: &str) -> Vec<SocketAddr> {
    let ran = system.run(&["systemctl", "show", "--property=Listen", "--", unit], PATIENCE);
    lines(&ran.said)
        .filter_map(|words| words.first()?.strip_prefix("Listen=")?.parse().ok())
        .collect()
}

/// Where sshd is to answer, one of them being enough: at the node's address if it listens there, else where it listens (pure).
fn targets(address: Ipv4Addr, listens: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut targets = Vec::new();
    let mut also = Vec::new();
    for at in listens {
        let own = SocketAddr::from((address, at.port()));
        match at.ip() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                targets.push(own);
                // sshd's socket of IPv6 takes nothing of IPv4, one of systemd's does.
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

/// Connects, and waits for the version that an SSH server says first (RFC 4253, 4.2: lines before it are allowed).
pub fn greets(at: SocketAddr) -> Answer {
    const MOST_WAITED: Duration = Duration::from_secs(10);
    /// Most bytes before the version.
    const MOST: u64 = 8 << 10;
    /// What OpenSSH says instead to those for whom it has no time; it is there.
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
    Answer::Not(format!("it does not say a version of SSH, but '{said}'"))
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
