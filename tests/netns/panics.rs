//! A panic of a thread that keeps state ends the whole daemon, and the next one goes on from what was confirmed.

use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::{
    fs::{self, File},
    process::Stdio,
    time::Duration,
};
use testbed::{Binaries, Cluster, Result, Site, timeline::poll};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_daemon_ends_with_a_thread_that_panics_and_the_unit_starts_it_again() -> Result {
    let cluster = Cluster::with_images(&Binaries::get()?, &Site::demo(), Vec::new())?;
    cluster.start_daemon()?;
    cluster
        .daemon
        .cli(&["node", "add", "r01n01", "--hwaddr", "52:54:00:00:01:01"])?;
    cluster.daemon.stop()?;
    for thread in ["racking", "rollouts", "dhcp-leases"] {
        let (pipe, log) = (cluster.dir().join(thread), cluster.dir().join(format!("{thread}.log")));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0)?;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let mut command = cluster.namespace.command(&Binaries::get()?.daemon);
        command.args(["serve", "--config"]).arg(cluster.daemon.config());
        command.env("RACKSTRAP_DEBUG_PANIC", format!("{thread}={}", pipe.display()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let mut daemon = testbed::process::Running::start("the daemon", &mut command)?;
        let ready = poll(LIMIT, || Ok(said().contains("rackstrap: ready").then_some(())))?;
        assert!(ready.is_some(), "{}", said());
        assert_eq!(daemon.ended()?, None, "{}", said());
        fs::write(&pipe, "now")?;
        let status = poll(LIMIT, || daemon.ended())?;
        let status = status.unwrap_or_else(|| panic!("it goes on without {thread}:\n{}", said()));
        assert_eq!(status.code(), Some(1), "{status}:\n{}", said());
        let last = said().lines().rev().take(3).collect::<Vec<_>>().join("\n");
        assert!(
            last.contains(&format!("thread {thread} panicked: RACKSTRAP_DEBUG_PANIC wants it")),
            "{}",
            said()
        );
    }
    // An end that is not well is one after which the shipped unit starts it again, however often.
    let unit = fs::read_to_string(testbed::paths::repo_root().join("systemd/rackstrap.service"))?;
    assert!(unit.contains("\nRestart=on-failure\n") && unit.contains("\nStartLimitIntervalSec=0\n"));
    cluster.start_daemon()?;
    assert!(cluster.daemon.cli(&["node", "list"])?.contains("r01n01"));
    Ok(())
}
