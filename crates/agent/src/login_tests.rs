use super::*;
use crate::command::Ran;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::TcpListener,
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 1);
const REFUSED: &str = "Connection refused (os error 111)";
const SILENT: &str = "ssh.service is enabled, and does not answer at 10.5.1.1:22: Connection refused (os error 111)";

/// A machine of files, answers of programs, and addresses that greet.
#[derive(Default)]
struct Simulated {
    other_init: bool,
    files: RefCell<BTreeMap<&'static str, String>>,
    /// Names in /etc/rc3.d.
    names: RefCell<Vec<String>>,
    units: RefCell<String>,
    /// What `systemctl show` says of them.
    shown: RefCell<String>,
    /// `sshd -T`; empty if it fails.
    sshd: RefCell<String>,
    /// In the journal of sessions that cannot be opened; empty if they can.
    refuses_sessions: RefCell<&'static str>,
    greets: RefCell<BTreeSet<SocketAddr>>,
    turns_away: Cell<bool>,
    sessions: Cell<u32>,
    greeted: Cell<u32>,
    asked: Cell<u32>,
}

impl System for Simulated {
    fn has_systemd(&self) -> bool {
        !self.other_init
    }
    fn is_active(&self, _: &str) -> Ran {
        panic!("no units are looked at")
    }
    fn mounts(&self) -> String {
        String::new()
    }
    fn run(&self, words: &[&str], _: Duration) -> Ran {
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
        Ran {
            ok,
            how: "ended with exit status 224".into(),
            said,
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
    fn greets(&self, at: SocketAddr) -> Answer {
        self.greeted.set(self.greeted.get() + 1);
        match self.greets.borrow().contains(&at) {
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
    login.look(system, when);
    assert_eq!(login.result().ok, login.result().detail.is_empty());
    login.result().detail.clone()
}

/// What a node that comes up says.
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
    system.greets.borrow_mut().insert((ADDRESS, 22).into());
    system
}

#[test]
fn a_usual_node_is_usable_and_is_asked_again_seldom() {
    let system = usual();
    let mut login = Login::new(Some(ADDRESS));
    assert!(!login.result().ok, "not before somebody looked");
    assert_eq!(look(&mut login, &system, When::ComingUp), "");
    let asked = system.asked.get();
    for when in [When::ComingUp, When::Running, When::Running] {
        assert_eq!(look(&mut login, &system, when), "");
    }
    assert_eq!(
        (system.greeted.get(), system.sessions.get(), system.asked.get()),
        (1, 1, asked)
    );
    long_ago(&mut login.well);
    long_ago(&mut login.heard);
    system.greets.borrow_mut().clear();
    // Once may be a restart of sshd's.
    assert_eq!(look(&mut login, &system, When::Running), "");
    assert_eq!(look(&mut login, &system, When::Running), SILENT);
    // What failed is looked at each time.
    system.greets.borrow_mut().insert((ADDRESS, 22).into());
    assert_eq!(look(&mut login, &system, When::Running), "");
    assert_eq!(system.sessions.get(), 1, "one session is enough");
}

#[test]
fn what_keeps_people_out_is_named() {
    let system = usual();
    let mut login = Login::new(Some(ADDRESS));
    system.has("/run/nologin", "");
    assert_eq!(
        look(&mut login, &system, When::ComingUp),
        "users cannot log in: /run/nologin is there; remove it"
    );
    system.files.borrow_mut().remove("/run/nologin");
    system
        .refuses_sessions
        .replace("PAM failed: Cannot make/remove an entry for the specified session / x");
    let none =
        "no session can be opened for root as sshd opens one: Cannot make/remove an entry for the specified session";
    for _ in 0..3 {
        assert_eq!(look(&mut login, &system, When::ComingUp), none);
    }
    assert_eq!((system.sessions.get(), system.greeted.get()), (1, 1), "not each time");
    system.refuses_sessions.replace("");
    login.session.as_mut().unwrap().0 = Instant::now().checked_sub(SESSION_RESTS.0).unwrap();
    assert_eq!(look(&mut login, &system, When::ComingUp), "");
    assert_eq!((system.sessions.get(), system.greeted.get()), (2, 1));
    // Users are kept out later: not a question of time, and not of the moment in which the system stops.
    system.has("/etc/nologin", "later");
    assert_eq!(look(&mut login, &system, When::Running), "");
    assert_eq!(
        look(&mut login, &system, When::Running),
        "users cannot log in: /etc/nologin is there; remove it"
    );
}

#[test]
fn only_what_is_meant_to_be_there_counts() {
    let nothing = Simulated::default();
    nothing
        .units
        .replace("ssh.service disabled enabled / sshd.service masked enabled".into());
    assert_eq!(first(&nothing), "");
    assert_eq!(nothing.greeted.get(), 0);
    // A rule that refuses root from here, where nobody comes from.
    let system = usual();
    system.refuses_sessions.replace("PAM failed: Permission denied");
    assert_eq!(first(&system), "");
    // Root's account is closed: its own matter, unless root has keys.
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
    // Not to run, by a condition of the unit's, or Debian's file.
    let system = usual();
    system.greets.borrow_mut().clear();
    assert_eq!(first(&system), SILENT);
    let conditions = |result: &str, time: u32| {
        let said = format!("ActiveState=inactive / ConditionResult={result} / ConditionTimestampMonotonic={time}");
        system.shown.replace(said);
        first(&system)
    };
    assert_eq!(conditions("no", 7), "");
    assert_eq!(conditions("no", 0), SILENT, "it was not tried: what it needs failed");
    assert_eq!(conditions("yes", 7), SILENT);
    // Its own options say where it listens.
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
fn without_systemd_the_inits_own_lists_count() {
    let other = Simulated {
        other_init: true,
        ..usual()
    };
    other.greets.borrow_mut().clear();
    for names in [
        vec![],
        vec!["K01ssh".into(), "S01rsyslog".into(), "sshd-monitor".into()],
    ] {
        other.names.replace(names);
        assert_eq!(first(&other), "", "sshd is not to run");
    }
    other.names.replace(vec!["S01rsyslog".into(), "S03ssh".into()]);
    assert!(first(&other).starts_with("sshd is enabled, and does not answer at 10.5.1.1:22"));
    other.greets.borrow_mut().insert((ADDRESS, 22).into());
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
        system.greets.replace([at.parse().unwrap()].into());
        assert_eq!(first(&system), "", "{said} {units}");
        system.shown.replace("ActiveState=failed".into());
        system.greets.borrow_mut().clear();
        assert!(
            first(&system).contains(" is enabled, and does not answer at "),
            "{said} {units}"
        );
    }
    // On both: what listens for IPv6 only does not stand for the node's address.
    let both = ["[::]:22", "0.0.0.0:22"].map(|at| at.parse().unwrap());
    assert_eq!(targets(ADDRESS, &both), [SocketAddr::from((ADDRESS, 22))]);
    // It runs, and nobody says where: out of reach, or turned away by a list of addresses.
    let system = usual();
    system.sshd.replace(String::new());
    system.greets.borrow_mut().clear();
    assert_eq!(first(&system), "");
    system
        .sshd
        .replace("listenaddress 10.5.1.1:22 rdomain red / listenaddress fe80::1%eth0:22".into());
    assert_eq!(first(&system), "");
    let system = usual();
    system.turns_away.set(true);
    system.has(WRAPPERS[0], "# ALL: ALL\n");
    assert!(first(&system).ends_with("10.5.1.1:22: it closes the connection before it says its version"));
    system.has(WRAPPERS[0], "ALL: ALL\n");
    assert_eq!(first(&system), "");
}

#[test]
fn who_speaks_ssh_is_told_from_who_does_not() {
    let answer = |text: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The other end may have heard enough.
            let _ = stream.write_all(text);
        });
        let result = greets(at);
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
    assert!(said.ends_with("'220 mail'"), "{said}");
    assert!(matches!(answer(&[b'x'; 20 << 10]), Answer::Not(_)));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(greets(closed), Answer::Not(_)));
}
