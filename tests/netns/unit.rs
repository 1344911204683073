//! The daemon and its hooks with the rights and the sandbox of the shipped systemd unit.
//!
//! All other tests with a daemon give it the unit's capabilities too ([`testbed::unit`]).

use anyhow::Context;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use testbed::{Binaries, Cluster, Result, Site, process::output, timeline::poll, unit};

const LIMIT: Duration = Duration::from_secs(60);

fn script(path: &Path, text: &str) -> Result<String> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[test]
fn systemd_accepts_the_unit() -> Result {
    let dir = tempfile::tempdir()?;
    unit::verify(&Binaries::get()?.daemon, dir.path())
}

#[test]
fn the_daemon_and_its_hooks_work_in_the_units_sandbox() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::prepare(site.clone())?;
    let dir = cluster.dir().to_owned();
    let at = dir.display();
    // What hooks of sites do: change the user, ask rackstrap, write files as root; and what the sandbox must refuse.
    let rackstrap = env!("CARGO_BIN_EXE_rackstrap");
    let home = tempfile::Builder::new().tempdir_in("/root")?;
    let text = format!(
        "#!/bin/sh -e\nrunuser -u nobody -- id -u > {at}/user\nrunuser -u nobody -- sleep 1000 &\n{rackstrap} hosts > {at}/hosts\n\
         chown nobody {at}/hosts\n! touch {}/file\ntouch /tmp/of-the-hook\necho done > {at}/done\nwait\n",
        home.path().display()
    );
    site.on_change = vec![script(&dir.join("on-change"), &text)?];
    site.hook_timeout_secs = Some(3);
    cluster.daemon.write_site(&site)?;
    let programs: Vec<PathBuf> = [Path::new(rackstrap), &Binaries::get()?.daemon]
        .iter()
        .filter_map(|program| Some(program.parent()?.to_owned()))
        .chain([
            dir.clone(),
            testbed::paths::cache_dir()?,
            testbed::paths::repo_root().join("testbed"),
        ])
        .collect();
    cluster.daemon.start_in_sandbox(&cluster.namespace, &programs)?;

    // The hook did all of it, and was killed although it waits for a process of another user.
    let log = || cluster.daemon.log();
    let ended = poll(LIMIT, || Ok(log().contains("was killed after 3 s").then_some(())))?;
    ended.with_context(|| format!("the hook was not ended: {}", cluster.daemon.log_tail(20)))?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    assert_eq!(read("done"), "done\n", "{}", cluster.daemon.log_tail(20));
    let nobody = output(Command::new("id").args(["-u", "nobody"]))?;
    assert_eq!(read("user"), nobody);
    assert_eq!(home.path().read_dir()?.count(), 0);
    assert!(!Path::new("/tmp/of-the-hook").exists(), "its /tmp is not private");
    let sleeping = output(Command::new("ps").args(["-U", "nobody", "-o", "args="])).unwrap_or_default();
    assert!(!sleeping.contains("sleep 1000"), "{sleeping}");

    // The boot of a node, up to its root.
    let node = cluster.played("r01n01")?;
    node.boot()?.plan()?;
    let listed = output(
        node.namespace
            .command("nfs-ls")
            .arg("nfs://10.5.0.1/debian@1?version=3&nfsport=2049&mountport=2049"),
    )?;
    assert!(listed.contains("etc"), "{listed}");
    assert!(!log().contains("no read-only mount of its own"), "{}", log());
    cluster.daemon.stop()
}
