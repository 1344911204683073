use super::*;
use crate::command::Execution;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::TcpListener,
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 1);
const REFUSED: &str = "Connection refused (os error 111)";
const SILENT: &str = "ssh.service is enabled, and does not answer at 10.5.1.1:22: Connection refused (os error 111)";

/// A machine made of files, programs' outputs, and addresses with an SSH server.
#[derive(Default)]
struct Simulated {
    other_init: bool,
    files: RefCell<BTreeMap<&'static str, String>>,
    /// Names in /etc/rc3.d.
    names: RefCell<Vec<String>>,
    units: RefCell<String>,
    /// The output of `systemctl show` about them.
    shown: RefCell<String>,
    /// The output of `sshd -T`; empty if it fails.
    sshd: RefCell<String>,
    /// The journal of sessions that cannot be opened; empty if they can.
    refuses_sessions: RefCell<&'static str>,
    ssh_answer: RefCell<BTreeSet<SocketAddr>>,
    turns_away: Cell<bool>,
    sessions: Cell<u32>,
    connections: Cell<u32>,
    asked: Cell<u32>,
}

impl System for Simulated {
    fn has_systemd(&self) -> bool {
        !self.other_init
    }
    fn is_active(&self, _: &str) -> Execution {
        panic!("the login check reads no units")
    }
    fn mounts(&self) -> String {
        String::new()
    }
    fn run(&self, words: &[&str], _: Duration) -> Execution {
        assert!(!self.other_init || words[0].ends_with("sshd"), "{words:?}");
        self.asked.set(self.asked.get() + 1);
        let (ok, said) = match words {
            ["systemctl", "list-unit-files", ..] => (true, self.units.borrow().clone()),
            ["systemctl", "show", "--property=Listen", ..] => {
                (true, "Listen=0.0.0.0:2222 (Stream) / Listen=/run/x (Stream)".to_owned())
            }
            ["systemctl", "show", ..] => (true, self.shown.borrow().clone()),
            [_, "-T", "-C", _] => (!self.sshd.borrow().is_empty(), self.sshd.borrow().clone()),
            ["systemd-run", ..] => {
                self.sessions.set(self.sessions.get() + 1);
                (self.refuses_sessions.borrow().is_empty(), String::new())
            }
            ["journalctl", ..] => (true, (*self.refuses_sessions.borrow()).to_owned()),
            other => panic!("{other:?}"),
        };
        Execution {
            ok,
            end: "ended with exit status 224".into(),
            output: said,
        }
    }
    fn exists(&self, path: &str) -> bool {
        self.files.borrow().contains_key(path)
    }
    fn read(&self, path: &str) -> String {
        self.files.borrow().get(path).cloned().unwrap_or_default()
    }
    fn list(&self, dir: &str) -> Vec<String> {
        match dir {
            "/etc/rc3.d" => self.names.borrow().clone(),
            _ => Vec::new(),
        }
    }
    fn ssh_answer(&self, at: SocketAddr) -> Answer {
        self.connections.set(self.connections.get() + 1);
        match self.ssh_answer.borrow().contains(&at) {
            true if self.turns_away.get() => Answer::Closed,
            true => Answer::Ssh,
            false => Answer::Not(REFUSED.to_owned()),
        }
    }
}

impl Simulated {
    fn has(&self, path: &'static str, text: &str) {
        self.files.borrow_mut().insert(path, text.to_owned());
    }
}

fn look(login: &mut Login, system: &Simulated, when: When) -> String {
    login.run_due(system, when);
    assert_eq!(login.result().ok, login.result().detail.is_empty());
    login.result().detail.clone()
}

/// The first result of a node that comes up.
fn first(system: &Simulated) -> String {
    look(&mut Login::new(Some(ADDRESS)), system, When::ComingUp)
}

fn long_ago(at: &mut Option<Instant>) {
    *at = Instant::now().checked_sub(REST);
}

fn usual() -> Simulated {
    let system = Simulated::default();
    system
        .units
        .replace("ssh.service enabled enabled / ssh.socket disabled enabled".into());
    let said =
        "port 22 / listenaddress [::]:22 / listenaddress 0.0.0.0:22 / usepam yes / permitrootlogin without-password";
    system.sshd.replace(said.into());
    system
        .shown
        .replace("ActiveState=active / ConditionResult=yes / ConditionTimestampMonotonic=7".into());
    system.has("/usr/sbin/sshd", "");
    system.has(KEYS, "# ours\nssh-ed25519 AAAA admin\n");
    system.has(PAM[0], "");
    system.ssh_answer.borrow_mut().insert((ADDRESS, 22).into());
    system
}

#[test]
fn a_usual_node_passes_and_is_rarely_checked_again() {
    let system = usual();
    let mut login = Login::new(Some(ADDRESS));
    assert!(!login.result().ok, "it passes before it was checked");
    assert_eq!(look(&mut login, &system, When::ComingUp), "");
    let asked = system.asked.get();
    for when in [When::ComingUp, When::Running, When::Running] {
        assert_eq!(look(&mut login, &system, when), "");
    }
    assert_eq!(
        (system.connections.get(), system.sessions.get(), system.asked.get()),
        (1, 1, asked)
    );
    long_ago(&mut login.passed);
    long_ago(&mut login.answered);
    system.ssh_answer.borrow_mut().clear();
    // A single failure may be a restart of sshd.
    assert_eq!(look(&mut login, &system, When::Running), "");
    assert_eq!(look(&mut login, &system, When::Running), SILENT);
    // After a failure the check runs each time.
    system.ssh_answer.borrow_mut().insert((ADDRESS, 22).into());
    assert_eq!(look(&mut login, &system, When::Running), "");
    assert_eq!(system.sessions.get(), 1, "one session is enough");
}

#[test]
fn the_cause_of_a_failed_login_is_named() {
    let system = usual();
    let mut login = Login::new(Some(ADDRESS));
    system.has("/run/nologin", "");
    assert_eq!(
        look(&mut login, &system, When::ComingUp),
        "users cannot log in because /run/nologin exists; remove it"
    );
    system.files.borrow_mut().remove("/run/nologin");
    system
        .refuses_sessions
        .replace("PAM failed: Cannot make/remove an entry for the specified session / x");
    let none = "cannot open a session for root as sshd does: Cannot make/remove an entry for the specified session";
    for _ in 0..3 {
        assert_eq!(look(&mut login, &system, When::ComingUp), none);
    }
    assert_eq!(
        (system.sessions.get(), system.connections.get()),
        (1, 1),
        "not each time"
    );
    system.refuses_sessions.replace("");
    login.session.as_mut().unwrap().0 = Instant::now().checked_sub(SESSION_RESTS.0).unwrap();
    assert_eq!(look(&mut login, &system, When::ComingUp), "");
    assert_eq!((system.sessions.get(), system.connections.get()), (2, 1));
    // /etc/nologin appears later. It counts after a second look, because a system that stops creates it too.
    system.has("/etc/nologin", "later");
    assert_eq!(look(&mut login, &system, When::Running), "");
    assert_eq!(
        look(&mut login, &system, When::Running),
        "users cannot log in because /etc/nologin exists; remove it"
    );
}

#[test]
fn only_services_that_the_image_enables_count() {
    let nothing = Simulated::default();
    nothing
        .units
        .replace("ssh.service disabled enabled / sshd.service masked enabled".into());
    assert_eq!(first(&nothing), "");
    assert_eq!(nothing.connections.get(), 0);
    // A rule refuses root from this machine, from where no person logs in.
    let system = usual();
    system.refuses_sessions.replace("PAM failed: Permission denied");
    assert_eq!(first(&system), "");
    // Root's account is closed. That is allowed unless root has keys.
    system.refuses_sessions.replace("PAM failed: User account has expired");
    assert!(first(&system).ends_with("User account has expired"));
    for keys in ["", "# none\n \n"] {
        system.has(KEYS, keys);
        assert_eq!(first(&system), "");
    }
    system.has(KEYS, "ssh-ed25519 AAAA");
    let said = system.sshd.borrow().clone();
    for more in ["permitrootlogin no", "usepam no"] {
        system.sshd.replace(format!("{said} / {more}"));
        assert_eq!(first(&system), "", "{more}");
    }
    // The unit is disabled by a condition or by Debian's file.
    let system = usual();
    system.ssh_answer.borrow_mut().clear();
    assert_eq!(first(&system), SILENT);
    let conditions = |result: &str, time: u32| {
        let said = format!("ActiveState=inactive / ConditionResult={result} / ConditionTimestampMonotonic={time}");
        system.shown.replace(said);
        first(&system)
    };
    assert_eq!(conditions("no", 7), "");
    assert_eq!(
        conditions("no", 0),
        SILENT,
        "systemd did not try to start it, because a dependency failed"
    );
    assert_eq!(conditions("yes", 7), SILENT);
    // The options of the unit contain addresses.
    system
        .shown
        .replace("ActiveState=active / ConditionResult=yes / ConditionTimestampMonotonic=7 / MainPID=400".into());
    system.has(
        "/proc/400/cmdline",
        "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\0",
    );
    assert_eq!(first(&system), SILENT);
    for options in ["-D -p 2222", "-D -p2222", "-D -oPort=2222", "-f /etc/ssh/own"] {
        system.has(
            "/proc/400/cmdline",
            &format!("/usr/sbin/sshd\0{}\0", options.replace(' ', "\0")),
        );
        assert_eq!(first(&system), "", "{options}");
        system.has(
            "/proc/400/cmdline",
            &format!("sshd: /usr/sbin/sshd {options} [listener] 0 of 10-100 startups\0"),
        );
        assert_eq!(first(&system), "", "{options}");
    }
    system.has(NOT_TO_BE_RUN, "");
    assert_eq!(first(&system), "");
}

#[test]
fn without_systemd_the_other_inits_files_count() {
    let other = Simulated {
        other_init: true,
        ..usual()
    };
    other.ssh_answer.borrow_mut().clear();
    for names in [
        vec![],
        vec!["K01ssh".into(), "S01rsyslog".into(), "sshd-monitor".into()],
    ] {
        other.names.replace(names);
        assert_eq!(first(&other), "", "sshd is not enabled");
    }
    other.names.replace(vec!["S01rsyslog".into(), "S03ssh".into()]);
    assert!(first(&other).starts_with("sshd is enabled, and does not answer at 10.5.1.1:22"));
    other.ssh_answer.borrow_mut().insert((ADDRESS, 22).into());
    assert_eq!(first(&other), "");
    assert_eq!(other.sessions.get(), 0);
}

#[test]
fn sshd_is_asked_where_it_listens() {
    for (said, units, at) in [
        ("listenaddress 0.0.0.0:2022", "sshd.service enabled x", "10.5.1.1:2022"),
        ("listenaddress 10.9.0.1:22", "sshd.service enabled x", "10.9.0.1:22"),
        (
            "listenaddress 10.9.0.1:22 / listenaddress 10.5.1.1:23",
            "sshd.service enabled x",
            "10.5.1.1:23",
        ),
        ("listenaddress [::]:24", "sshd.service enabled x", "10.5.1.1:24"),
        ("listenaddress [::]:24", "sshd.service enabled x", "[::1]:24"),
        ("listenaddress 127.0.0.1:22", "sshd.service enabled x", "127.0.0.1:22"),
        ("", "sshd.service enabled x", "10.5.1.1:22"),
        ("listenaddress 0.0.0.0:22", "ssh.socket enabled x", "10.5.1.1:2222"),
        (
            "listenaddress 0.0.0.0:22",
            "ssh.service enabled-runtime x / ssh.socket enabled x",
            "10.5.1.1:2222",
        ),
    ] {
        let system = usual();
        system.sshd.replace(said.into());
        system.units.replace(units.into());
        system.ssh_answer.replace([at.parse().unwrap()].into());
        assert_eq!(first(&system), "", "{said} {units}");
        system.shown.replace("ActiveState=failed".into());
        system.ssh_answer.borrow_mut().clear();
        assert!(
            first(&system).contains(" is enabled, and does not answer at "),
            "{said} {units}"
        );
    }
    // Listeners for both: a listener for IPv6 alone does not stand for the node's address.
    let both = ["[::]:22", "0.0.0.0:22"].map(|at| at.parse().unwrap());
    assert_eq!(targets(ADDRESS, &both), [SocketAddr::from((ADDRESS, 22))]);
    // sshd runs at an unknown address, or refuses this machine by a list of addresses.
    let system = usual();
    system.sshd.replace(String::new());
    system.ssh_answer.borrow_mut().clear();
    assert_eq!(first(&system), "");
    system
        .sshd
        .replace("listenaddress 10.5.1.1:22 rdomain red / listenaddress fe80::1%eth0:22".into());
    assert_eq!(first(&system), "");
    let system = usual();
    system.turns_away.set(true);
    system.has(WRAPPERS[0], "# ALL: ALL\n");
    assert!(first(&system).ends_with("10.5.1.1:22: it closes the connection before it sends its version"));
    system.has(WRAPPERS[0], "ALL: ALL\n");
    assert_eq!(first(&system), "");
}

#[test]
fn ssh_servers_are_told_from_other_servers() {
    let answer = |text: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The other end may have closed the connection already.
            let _ = stream.write_all(text);
        });
        let result = ssh_answer(at);
        server.join().unwrap();
        result
    };
    for text in [
        &b"SSH-2.0-OpenSSH_9.2p1\r\n"[..],
        b"be careful\r\nSSH-2.0-x\r\n",
        b"Exceeded MaxStartups\r\n",
    ] {
        assert_eq!(answer(text), Answer::Ssh);
    }
    assert_eq!(answer(b""), Answer::Closed);
    let Answer::Not(said) = answer(b"220 mail\x07\r\n") else {
        panic!("not a mail server")
    };
    assert_eq!(said, "it answers '220 mail' instead of a version of SSH");
    assert!(matches!(answer(&[b'x'; 20 << 10]), Answer::Not(_)));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(ssh_answer(closed), Answer::Not(_)));
}
