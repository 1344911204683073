//! Reports a running node to the server: ready once, then a heartbeat for ever.

use crate::{
    checks::{Checks, Machine, System, When},
    console::uptime_ms,
    disk_health::{self, Watched},
    facts::{self, BootFacts},
    fail::Res,
    http::Server,
    networks::watch::WatchedNetwork,
    restart::{self, Restarts},
    retry::random_seed,
    sys,
    usage::Usage,
    users::Users,
};
use rackstrap_wire::{
    CheckResult, DiskHealth, FileSystem, Heartbeat, HeartbeatAnswer, MountedPartition, Ready, RestartReport, UsedSpace,
    Waiting, backoff::Backoff, failures, paths, text::cut, users::UsersReport,
};
use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// A disk that does not say within this time how much of it is used hangs.
const USAGE: Duration = Duration::from_secs(5);
/// Time between two runs of checks that fail while the node comes up.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Runs for ever. Returns only if the boot left no facts.
pub fn run(wait_for_init: bool) -> Res<()> {
    // Read this first: another init than systemd removes /run/rackstrap when it mounts its own /run.
    let facts = BootFacts::read()?;
    let detail = match wait_for_init {
        true => {
            // Start a session, so that no terminal of the init ends this process.
            let _ = rustix::process::setsid();
            wait_until_up()
        }
        false if restart::has_systemd() => "systemd reached multi-user.target".to_owned(),
        false => "the system is up".to_owned(),
    };
    let server = facts.server();
    let seed = random_seed();
    let period = Duration::from_secs(facts.heartbeat_secs.max(1).into());
    let mut checks = Checks::new(&facts.health, facts.address)
        .with_networks(facts.networks.iter().map(|line| WatchedNetwork::of_line(line)));
    wait_for_checks(
        &mut checks,
        &Machine,
        Duration::from_secs(facts.health.within_secs.into()),
        period,
        |results| {
            let waiting = Waiting {
                token: server.token.clone(),
                uptime_ms: uptime_ms(),
                checks: results.to_vec(),
            };
            // An older server does not know this path. A server that is away gets the checks in `ready`.
            server.report(paths::WAITING, &waiting, TIMEOUT).is_ok()
        },
    );
    report_ready(&server, &detail, &checks.results(), seed);
    let found = Arc::new(Mutex::new(checks.results()));
    let (changed, changes) = channel();
    let disks = Watched::start(changed.clone());
    // Keep one sender, so that the channel stays open if there are no checks.
    let _kept = changed.clone();
    if !checks.is_empty() {
        let found = found.clone();
        std::thread::spawn(move || run_checks_forever(checks, &found, &changed, period));
    }
    send_heartbeats(
        &facts,
        &server,
        &found,
        &disks,
        &changes,
        Backoff::new(period, period, seed.rotate_left(17)),
    )
}

/// Runs the checks until all pass or `patience` is over. `report` gets the failed checks each time that they change, and each `period`:
/// users may be on the node, and a server without these reports would believe a DHCP relay about its state.
fn wait_for_checks(
    checks: &mut Checks,
    system: &impl System,
    patience: Duration,
    period: Duration,
    report: impl Fn(&[CheckResult]) -> bool,
) {
    let began = Instant::now();
    let (mut reported, mut when) = (Vec::new(), began);
    loop {
        checks.run_due(system, When::ComingUp);
        if checks.pass() || began.elapsed() >= patience {
            return;
        }
        let results = checks.results();
        if (reported != results || when.elapsed() >= period) && report(&results) {
            (reported, when) = (results, Instant::now());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Runs the checks in a thread of their own, so that a slow check does not delay the heartbeats.
fn run_checks_forever(mut checks: Checks, found: &Mutex<Vec<CheckResult>>, changed: &Sender<()>, period: Duration) {
    loop {
        std::thread::sleep(period);
        checks.run_due(&Machine, When::Running);
        let results = checks.results();
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if *found != results {
            *found = results;
            let _ = changed.send(());
        }
    }
}

fn send_heartbeats(
    facts: &BootFacts,
    server: &Server,
    found: &Mutex<Vec<CheckResult>>,
    watched: &Watched,
    changes: &Receiver<()>,
    mut backoff: Backoff,
) -> ! {
    let mut restarts = Restarts::default();
    let mut users = Users::open(server, facts.secret.as_deref());
    // `ready` has reported these results.
    let mut reported = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let usage = Usage::default();
    let mut told: Vec<DiskHealth> = Vec::new();
    let heartbeat =
        |restart: Option<RestartReport>, users: Option<UsersReport>, reported: &[CheckResult], told: &[DiskHealth]| {
            let (used, hangs) = match usage.of(&facts.mounts, USAGE, used) {
                Ok(used) => (used, String::new()),
                Err(text) => (Vec::new(), text),
            };
            let disk = faults(&facts.mounts, &read("/proc/self/mounts"), &read("/proc/swaps"));
            let results = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let disks = watched.now();
            Heartbeat {
                token: server.token.clone(),
                uptime_ms: uptime_ms(),
                trouble: join(&[
                    failures(&results),
                    facts.left_out.clone(),
                    disk,
                    hangs,
                    disk_health::faults(&disks),
                ]),
                healthy: (!results.is_empty()).then(|| results.iter().all(|result| result.ok)),
                restart,
                checks: (results != reported).then_some(results),
                users,
                used,
                disks: (disks != told).then_some(disks),
            }
        };
    loop {
        // Wait between half and all of the period: the heartbeats of a rack spread, and none is late. A changed check is reported at once.
        let wait = backoff.next_wait().min(restarts.left().unwrap_or(Duration::MAX));
        let _ = changes.recv_timeout(wait);
        // If a heartbeat is lost, the next one repeats its content.
        let sent = heartbeat(None, users.report(), &reported, &told);
        let mut answer = server.post_optional::<HeartbeatAnswer>(paths::HEARTBEAT, &sent, TIMEOUT);
        if answer.is_ok() {
            reported = sent.checks.unwrap_or(reported);
            told = sent.disks.unwrap_or(told);
        }
        let wanted = answer.as_mut().ok().and_then(|answer| answer.as_mut()?.users.take());
        if let Some(changes) = wanted.and_then(|digest| users.get(&digest)) {
            let _ = server.report(
                paths::HEARTBEAT,
                &heartbeat(None, Some(changes), &reported, &told),
                TIMEOUT,
            );
        }
        let order = answer.ok().flatten().and_then(|answer| answer.restart);
        if let Some(order) = order.filter(|order| restarts.is_new(&order.id)) {
            eprintln!("rackstrap: the server orders a restart: {}", cut(&order.reason, 200));
            let report = |text: &str| {
                eprintln!("rackstrap: {text}");
                let progress = RestartReport {
                    id: order.id.clone(),
                    detail: cut(text, 200).to_owned(),
                };
                let _ = server.report(
                    paths::HEARTBEAT,
                    &heartbeat(Some(progress), None, &reported, &told),
                    TIMEOUT,
                );
            };
            restarts.begin(restart::has_systemd(), report, restart::run);
        }
        if restarts.left().is_some_and(|left| left.is_zero()) {
            eprintln!("rackstrap: {}", sys::restart());
        }
    }
}

/// Used space of the disk's file systems.
fn used(mounts: &[MountedPartition]) -> Vec<UsedSpace> {
    let full = |partition: &MountedPartition| {
        let mount = partition.mount.clone()?;
        let stat = rustix::fs::statvfs(&mount).ok()?;
        let bytes = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
        Some(UsedSpace { mount, bytes })
    };
    mounts.iter().filter_map(full).collect()
}

/// Joins the texts that are not empty into one line.
fn join(troubles: &[String]) -> String {
    let some: Vec<&str> = troubles.iter().map(String::as_str).filter(|t| !t.is_empty()).collect();
    some.join("; ")
}

fn report_ready(server: &Server, detail: &str, checks: &[CheckResult], seed: u64) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed);
    loop {
        let ready = Ready {
            token: server.token.clone(),
            uptime_ms: uptime_ms(),
            detail: detail.to_owned(),
            checks: checks.to_vec(),
        };
        match server.report(paths::READY, &ready, TIMEOUT) {
            Ok(()) => return,
            // This goes to the journal, which has few of these lines because the waits grow.
            Err(e) => eprintln!("rackstrap: cannot report that the node is ready: {e}"),
        }
        std::thread::sleep(backoff.next_wait());
    }
}

/// Waits until PID 1 is the operating system's init and has started a program through which a user can log in.
fn wait_until_up() -> String {
    /// After this time, PID 1 counts as up even without such a program.
    const PATIENCE: Duration = Duration::from_secs(120);
    let ours = fs::read_link("/proc/self/exe").ok();
    let began = std::time::Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let init = fs::read_link("/proc/1/exe").ok();
        // Before the hand-over PID 1 is the agent: /init of the initramfs, whose link has that name or `(deleted)`.
        let replaced = init.is_some() && init != ours && init.as_deref() != Some(Path::new("/init (deleted)"));
        if !replaced || init.as_deref() == Some(Path::new("/init")) {
            continue;
        }
        let name = read("/proc/1/comm").trim().to_owned();
        if let Some(login) = login_process() {
            return format!("{name} started {login}");
        }
        if began.elapsed() > PATIENCE {
            return format!("{name} has run for {} s", PATIENCE.as_secs());
        }
    }
}

/// The name of a process through which a user can log in.
fn login_process() -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter(|p| p.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .find_map(|p| login_in(&fs::read_to_string(p.path().join("stat")).ok()?))
}

/// The name of the process with this `/proc/PID/stat`, if a user can log in through it: a login program, or a shell that PID 1 itself
/// started on a terminal. Scripts of the system's start have the names of their files and no terminal (pure).
fn login_in(stat: &str) -> Option<String> {
    const PROGRAMS: &[&str] = &[
        "getty", "agetty", "mingetty", "mgetty", "fgetty", "login", "sulogin", "sshd", "dropbear",
    ];
    const SHELLS: &[&str] = &["sh", "ash", "bash", "dash", "ksh", "mksh", "zsh"];
    let (before, fields) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    // proc(5): state, parent, process group, session, terminal.
    let mut fields = fields.split_ascii_whitespace().skip(1);
    let (parent, terminal) = (fields.next()?, fields.nth(2)?);
    // The name of a login shell begins with a dash.
    let is_shell = SHELLS.contains(&name.trim_start_matches('-')) && parent == "1" && terminal != "0";
    (PROGRAMS.contains(&name) || is_shell).then(|| name.to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Faults of the disk's file systems, as text; empty for a disk without faults (pure).
fn faults(wanted: &[MountedPartition], mounts: &str, swaps: &str) -> String {
    let mut wrong = Vec::new();
    for partition in wanted {
        let device = partition.device.as_str();
        if partition.fs == FileSystem::Swap {
            if !swaps.lines().any(|l| l.split_whitespace().next() == Some(device)) {
                wrong.push(format!("swap on {device} is off"));
            }
            continue;
        }
        let Some(mount) = &partition.mount else { continue };
        // The last line for a mount point is the file system on top.
        let top = mounts
            .lines()
            .rev()
            .map(|l| l.split(' ').collect::<Vec<_>>())
            .find(|f| f.get(1) == Some(&mount.as_str()));
        match top.as_deref() {
            Some([source, _, _, options, ..]) if *source == device => {
                let has = |list: &str| list.split(',').any(|o| o == "ro");
                if has(options) && !has(&partition.options) {
                    wrong.push(format!("{mount} has become read-only: {device} has errors"));
                }
            }
            Some([source, ..]) => wrong.push(format!("{mount} is {source} instead of {device}")),
            _ => wrong.push(format!("{mount} is not mounted")),
        }
    }
    wrong.join("; ")
}

/// Runs the reporter with the program's arguments. Returns the exit status.
pub fn main(arguments: &[String]) -> i32 {
    let wait = arguments.iter().any(|a| a == "--wait-for-init");
    match run(wait) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("rackstrap: {e}; {} was not started by rackstrap", facts::AGENT);
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_can_log_in_through_a_getty_or_a_shell_on_a_terminal() {
        for (stat, login) in [
            ("812 (agetty) S 1 812 812 1025 812 4194304 87", Some("agetty")),
            ("97 (sh) S 1 97 97 1088 97 4194560 1", Some("sh")),
            ("97 (-bash) S 1 97 97 1088 97 4194560 1", Some("-bash")),
            // A shell below a service, one without a terminal, and the script that starts the system.
            ("97 (sh) S 55 55 55 1088 97 4194560 1", None),
            ("97 (sh) S 1 97 97 0 -1 4194560 1", None),
            ("90 (rcS) S 1 90 90 1088 90 4194560 1", None),
            ("90 (a) (sh) S 1 90 90 1088 90 4194560 1", None),
            ("90 (sh", None),
        ] {
            assert_eq!(login_in(stat).as_deref(), login, "{stat}");
        }
    }

    #[test]
    fn missing_and_broken_mounts_are_named() {
        let partition = |device: &str, fs, mount: Option<&str>| MountedPartition {
            name: "x".into(),
            device: device.into(),
            fs,
            uuid: String::new(),
            mount: mount.map(str::to_owned),
            options: String::new(),
            size: 0,
            encrypted: false,
        };
        let wanted = [
            partition("/dev/vda2", FileSystem::Swap, None),
            partition("/dev/vda3", FileSystem::Ext4, Some("/var")),
            partition("/dev/vda4", FileSystem::Xfs, Some("/tmp")),
        ];
        let mounts = "rackstrap / overlay rw 0 0\n/dev/vda3 /var ext4 rw,relatime 0 0\n/dev/vda4 /tmp xfs rw 0 0\n";
        let swaps = "Filename Type Size Used Priority\n/dev/vda2 partition 1 0 -2\n";
        assert_eq!(faults(&wanted, mounts, swaps), "");
        assert_eq!(faults(&[], "", ""), "");
        assert_eq!(
            faults(&wanted, &mounts.replace("ext4 rw", "ext4 ro"), ""),
            "swap on /dev/vda2 is off; /var has become read-only: /dev/vda3 has errors"
        );
        assert_eq!(
            faults(
                &wanted,
                &format!("{mounts}tmpfs /tmp tmpfs rw 0 0\n").replace("/var", "/srv"),
                swaps
            ),
            "/var is not mounted; /tmp is tmpfs instead of /dev/vda4"
        );
    }
}
