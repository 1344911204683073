//! A blank machine becomes a node, boots again from the same disk, and survives a restart of the daemon.

use super::{GIB2, LOADER_ON_GPT, expect_scratch};
use std::{process::Command, thread, time::Duration};
use testbed::{Cluster, Node, Result, Site, process::output};

#[test]
fn a_blank_machine_boots_keeps_its_disk_and_outlives_the_daemon() -> Result {
    let cluster = Cluster::start_whole(Site::demo())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;

    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(
        node.status("disk")?,
        "/tmp and /var on vda (prepared: blank -> scratch v1)"
    );
    assert_eq!(node.status("state")?, "ready");
    assert_eq!(node.status("image")?, "debian@1");
    expect_no_wait_for_a_router(&cluster, &node)?;
    expect_a_node_of_its_own(&node)?;
    let host_keys = node.shell("cat /etc/ssh/ssh_host_*_key.pub")?;
    let machine_id = node.shell("cat /etc/machine-id")?;
    node.shell("echo kept > /var/kept; echo lost > /root/lost; sync")?;
    node.pull_plug();
    let disk = node.disk()?;
    let slices = expect_scratch(&disk)?;
    assert_eq!(disk.read(LOADER_ON_GPT, 4)?, *b"RKSB");
    let untouched = disk.fingerprint()?;

    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(node.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
    assert_eq!(node.shell("cat /var/kept")?, "kept");
    assert_eq!(
        node.shell("test ! -e /root/lost && echo gone")?,
        "gone",
        "a change of the root survived the restart"
    );
    assert_eq!(node.shell("cat /etc/ssh/ssh_host_*_key.pub")?, host_keys);
    assert_eq!(node.shell("cat /etc/machine-id")?, machine_id);
    assert_eq!(
        disk.fingerprint()?,
        untouched,
        "the second boot wrote to the table or the marker"
    );
    assert_eq!(disk.slices()?, slices, "the second boot made file systems again");

    outlive_the_daemon(&cluster, &node)?;
    node.pull_plug();
    cluster.daemon.stop()
}

/// iPXE delays its script until an IPv6 router has answered or 15 s have passed, which is a quarter of a boot here.
fn expect_no_wait_for_a_router(cluster: &Cluster, node: &Node) -> Result {
    let counters = cluster.daemon.json(&["counters"])?;
    let answered = counters["ndp solicitations-answered"].as_u64().unwrap_or_default();
    // Both iPXEs get an answer: that of the card, and the one that it loads.
    assert!(answered >= 2, "{counters}");
    let events = node.events()?;
    let at = |step: &str| {
        events
            .iter()
            .rev()
            .find(|event| event.step == step)
            .map(|event| event.at)
    };
    let (Some(address), Some(script), Some(ready)) = (at("dhcp request"), at("script"), at("ready")) else {
        panic!("{events:?}");
    };
    let (waited, began) = (script.saturating_sub(address), events[0].at);
    assert!(
        waited * 8 < ready - began,
        "{waited} of {} ms between address and script",
        ready - began
    );
    // The running system has no default route from it either.
    assert_eq!(node.shell("ip -6 route show default")?, "");
    Ok(())
}

/// Checks that name, address, root, disk and files are this node's.
fn expect_a_node_of_its_own(node: &Node) -> Result {
    assert_eq!(node.shell("hostname")?, "r01n01");
    let address = node.shell("ip -4 -br address show scope global")?;
    assert!(address.contains("10.5.1.1/16"), "{address}");
    assert_eq!(node.shell("findmnt -no FSTYPE /")?, "overlay");
    let mounts = node.shell("cat /proc/mounts")?;
    let nfs = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("nfs"))
        .unwrap_or_default();
    // The device names of file systems that the agent mounted must still work after they were moved.
    if !nfs.is_empty() {
        assert!(nfs.starts_with("10.5.0.1:/debian@1 ") && nfs.contains("ro,"), "{nfs}");
    }
    for (mount, fs) in [("/tmp", "ext4"), ("/var", "ext4")] {
        let found = node.shell(&format!("findmnt -no SOURCE,FSTYPE {mount}"))?;
        assert!(found.starts_with("/dev/vda") && found.ends_with(fs), "{mount}: {found}");
    }
    assert_eq!(node.shell("stat -c %a /tmp")?, "1777");
    assert!(node.shell("cat /proc/swaps")?.contains("/dev/vda"));
    assert!(
        node.shell("test -s /var/lib/dpkg/status && echo seeded")?
            .contains("seeded"),
        "/var does not have the image's files"
    );
    assert!(node.shell("cat /etc/hosts")?.contains("r01n01"));
    assert_eq!(node.shell("stat -c %a /etc/ssh/ssh_host_ed25519_key")?, "600");
    assert_eq!(node.shell("stat -c %a /usr/bin/su")?, "4755", "the suid bit is lost");
    // overlayfs reads ACLs from the layer below before it allows access to users other than the owner.
    let nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups /bin/cat";
    assert_eq!(node.shell(&format!("{nobody} /etc/hostname"))?, "r01n01");
    node.shell(&format!("! {nobody} /etc/shadow"))?;
    assert_eq!(node.shell("systemctl is-failed '*' --quiet || echo none")?, "none");
    // The node became ready after sshd had answered, and PAM had opened a session as for sshd.
    let opened = node.shell("journalctl -b -o cat | grep -c 'pam_unix(sshd:session): session opened for user root'")?;
    assert_eq!(opened, "1");
    Ok(())
}

/// Without the daemon, a read from the root hangs. It continues when the daemon is back.
fn outlive_the_daemon(cluster: &Cluster, node: &Node) -> Result {
    let sums = "find usr/sbin -xdev -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum";
    let root = cluster.daemon.state_dir().join("images/debian/1/root");
    let expected = output(Command::new("sh").args(["-c", sums]).current_dir(root))?;
    node.shell("cd /; echo 3 > /proc/sys/vm/drop_caches")?;

    cluster.daemon.kill();
    let typed = node.begin_command(sums)?;
    // After this time the client has failed, and retransmits.
    thread::sleep(Duration::from_secs(5));
    cluster.start_daemon()?;
    assert_eq!(node.finish_command(typed)?, expected.trim());

    let heard = cluster.status("r01n01")?["heard"].as_u64().unwrap_or_default();
    node.wait_until("heartbeats after the restart", || {
        Ok((cluster.status("r01n01")?["heard"].as_u64() > Some(heard)).then_some(()))
    })?;
    node.wait_state("ready")
}
