//! The node's voice, once its operating system runs: ready, then a heartbeat for ever.

use crate::{
    console::uptime_ms,
    facts::{self, BootFacts},
    fail::Res,
    http::Server,
    retry::{Backoff, random_seed},
};
use rackstrap_wire::{FileSystem, Heartbeat, MountedPartition, Ready, paths};
use std::{fs, path::Path, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs for ever; returns only if the boot left no facts.
pub fn run(wait_for_init: bool) -> Res<()> {
    // Before anything: with another init, /run/rackstrap goes away when it mounts its own /run.
    let facts = BootFacts::read()?;
    let detail = match wait_for_init {
        true => {
            // Its own session: no terminal of the init's takes it down.
            let _ = rustix::process::setsid();
            wait_until_up()
        }
        false if Path::new("/run/systemd/system").exists() => "systemd reached multi-user.target".to_owned(),
        false => "the system is up".to_owned(),
    };
    let server = facts.server();
    let seed = random_seed();
    say_ready(&server, &detail, seed);
    let period = Duration::from_secs(facts.heartbeat_secs.max(1).into());
    let mut backoff = Backoff::new(period, period, seed.rotate_left(17));
    loop {
        // Between half and all of the period: the beats of a rack spread, and none is late.
        std::thread::sleep(backoff.next_wait());
        let heartbeat = Heartbeat {
            token: server.token.clone(),
            uptime_ms: uptime_ms(),
            trouble: trouble(&facts.mounts, &read("/proc/self/mounts"), &read("/proc/swaps")),
        };
        // A beat that is lost is made good by the next one.
        let _ = server.tell(paths::HEARTBEAT, &heartbeat, TIMEOUT);
    }
}

fn say_ready(server: &Server, detail: &str, seed: u64) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed);
    loop {
        let ready = Ready {
            token: server.token.clone(),
            uptime_ms: uptime_ms(),
            detail: detail.to_owned(),
        };
        match server.tell(paths::READY, &ready, TIMEOUT) {
            Ok(()) => return,
            // To the journal, which keeps the last word and not a thousand of them.
            Err(e) => eprintln!("rackstrap: reporting ready: {e}"),
        }
        std::thread::sleep(backoff.next_wait());
    }
}

/// Waits until PID 1 is the operating system's and has started something that a person or a program can log in to.
fn wait_until_up() -> String {
    /// Without any such process after this long, a living PID 1 counts as up.
    const PATIENCE: Duration = Duration::from_secs(120);
    let ours = fs::read_link("/proc/self/exe").ok();
    let began = std::time::Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let init = fs::read_link("/proc/1/exe").ok();
        // Before the hand-over PID 1 is the agent: the initramfs' /init, whose link has another name or none.
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

/// The name of a process that one logs in through.
fn login_process() -> Option<String> {
    const NAMES: &[&str] = &[
        "getty", "agetty", "mingetty", "mgetty", "fgetty", "login", "sulogin", "sshd", "dropbear",
    ];
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter(|p| p.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .map(|p| {
            fs::read_to_string(p.path().join("comm"))
                .unwrap_or_default()
                .trim()
                .to_owned()
        })
        .find(|comm| NAMES.contains(&comm.as_str()))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What is wrong with the disk's file systems, for people; empty if nothing is (pure).
fn trouble(wanted: &[MountedPartition], mounts: &str, swaps: &str) -> String {
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
        // The last line for a mount point is the one on top.
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

/// True if the arguments are the voice's.
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
    fn missing_and_broken_mounts_are_named() {
        let partition = |device: &str, fs, mount: Option<&str>| MountedPartition {
            name: "x".into(),
            device: device.into(),
            fs,
            uuid: String::new(),
            mount: mount.map(str::to_owned),
            options: String::new(),
            size: 0,
        };
        let wanted = [
            partition("/dev/vda2", FileSystem::Swap, None),
            partition("/dev/vda3", FileSystem::Ext4, Some("/var")),
            partition("/dev/vda4", FileSystem::Xfs, Some("/tmp")),
        ];
        let mounts = "rackstrap / overlay rw 0 0\n/dev/vda3 /var ext4 rw,relatime 0 0\n/dev/vda4 /tmp xfs rw 0 0\n";
        let swaps = "Filename Type Size Used Priority\n/dev/vda2 partition 1 0 -2\n";
        assert_eq!(trouble(&wanted, mounts, swaps), "");
        assert_eq!(trouble(&[], "", ""), "");
        assert_eq!(
            trouble(&wanted, &mounts.replace("ext4 rw", "ext4 ro"), ""),
            "swap on /dev/vda2 is off; /var has become read-only: /dev/vda3 has errors"
        );
        assert_eq!(
            trouble(
                &wanted,
                &format!("{mounts}tmpfs /tmp tmpfs rw 0 0\n").replace("/var", "/srv"),
                swaps
            ),
            "/var is not mounted; /tmp is tmpfs instead of /dev/vda4"
        );
    }
}
