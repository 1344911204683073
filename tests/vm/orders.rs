//! A node that an order boots into a shell, with its disk untouched, and the boots after it: as usual, and with one partition made again.

use super::GIB2;
use testbed::{
    Cluster, Result, Site,
    disk::Slice,
    ssh::{SshKey, log_in_without_key},
};

#[test]
fn a_rescue_shell_is_on_the_console_and_by_ssh_and_the_next_boot_is_as_usual() -> Result {
    // Debian, because the small root has no sshd.
    let mut site = Site::without_var();
    let cluster = Cluster::prepare(site.clone())?;
    let key = SshKey::make(cluster.dir())?;
    site.default_profile().authorized_keys = Some(vec![key.public()?]);
    cluster.daemon.write_site(&site)?;
    cluster.start_daemon()?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    let disk = node.disk()?;
    // It is blank, so that a usual boot prepares it.
    disk.write(GIB2 / 2, b"in the middle of a blank disk")?;
    let before = disk.copy("before.raw")?;
    node.add()?;
    cluster.daemon.cli(&["node", "boot", "r01n01", "--once", "rescue"])?;

    node.power_on()?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    assert!(node.status("last_error")?.contains("runs rescue, by the order of"));
    node.wait_console("a shell in RAM on r01n01")?;
    assert_eq!(node.shell("id -un")?, "root");
    let init = node.shell("tr '\\0' ' ' < /proc/1/cmdline")?;
    assert_eq!(init, "/bin/sh /usr/lib/rackstrap/rescue");
    assert_eq!(node.shell("grep -c ^/dev/vda /proc/mounts || true")?, "0");
    // A terminal of its own: Ctrl-C ends a command, and not the shell.
    assert_eq!(node.shell("tty")?, "/dev/ttyS0");
    let command = "id -un; hostname; head -c 5 /dev/vda | wc -c";
    let said = key.log_in(&cluster.namespace, "10.5.1.1", command)?;
    assert_eq!(said.trim(), "root\nr01n01\n5");
    assert!(log_in_without_key(&cluster.namespace, "10.5.1.1", "true").is_err());
    disk.expect_same(&before)?;

    node.pull_plug();
    node.power_on()?;
    assert!(node.wait_disk()?.contains("vda (prepared: "));
    node.pull_plug();
    assert!(disk.expect_same(&before).is_err());

    // One partition again, once.
    let prepared = disk.slices()?;
    let said = cluster
        .daemon
        .cli(&["node", "reprep", "r01n01", "--partition", "tmp", "--yes"])?;
    assert!(
        said.contains("the next boot makes the file system of tmp again"),
        "{said}"
    );
    let uuids = |slices: &[Slice]| -> Vec<(String, String)> {
        let all = slices.iter().map(|slice| (slice.name.clone(), slice.uuid.clone()));
        all.collect()
    };
    let mut before = uuids(&prepared);
    for again in [true, false] {
        node.power_on()?;
        assert!(node.wait_disk()?.contains("vda (kept: scratch v1)"));
        node.pull_plug();
        let now = uuids(&disk.slices()?);
        for (old, new) in before.iter().zip(&now) {
            assert_eq!(old == new, !(again && old.0 == "tmp"), "{old:?} and {new:?}");
        }
        before = now;
    }
    Ok(())
}
