//! Mounts of the site file and users of the server, on a node that boots.

use super::GIB2;
use anyhow::ensure;
use std::{fs, path::Path};
use testbed::{Cluster, Partition, Result, Site};

const MOUNTS: &str = r#"
# Written in the wrong order: what lies below another mount comes after it all the same.
[[mount]]
what = "tmpfs"
where = "/srv/data/fast"
type = "tmpfs"
options = "size=16m"

[[mount]]
what = "LABEL=data"
where = "/srv/data"
type = "ext4"

# There is no such file system at first.
[[mount]]
what = "LABEL=late"
where = "/srv/late"
type = "ext4"
options = "x-systemd.device-timeout=5s"
required = true

# The image has no mount.nfs.
[[mount]]
what = "10.5.0.9:/home"
where = "/mnt/far"
type = "nfs"

[users]
uid = "1000-1999"
shadow = true
from = "accounts"
"#;

const HASH: &str = "$6$abcdefgh$notreallyahash";

fn accounts(dir: &Path, more: &str) -> Result {
    fs::create_dir_all(dir)?;
    let passwd =
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:1100:Alice:/srv/data/alice:/bin/bash\nsync:x:1002:1100::/:/bin/sh\n";
    fs::write(dir.join("passwd"), format!("{passwd}{more}"))?;
    fs::write(dir.join("group"), "people:x:1100:\nlab:x:1101:alice\n")?;
    fs::write(
        dir.join("shadow"),
        format!("root:{HASH}:1::::::\nalice:{HASH}:19000:0:99999:7:::\n"),
    )?;
    Ok(())
}

#[test]
fn a_node_has_the_sites_mounts_and_users_and_waits_for_required_mounts() -> Result {
    let mut site = Site::without_var();
    site.scratch()
        .partitions
        .insert(2, Partition::new("data", "128MiB", "ext4", ""));
    site.scratch()
        .partitions
        .insert(3, Partition::new("free", "64MiB", "raw", ""));
    site.more = MOUNTS.to_owned();
    // A slow machine must not give up before the test has repaired the fault.
    site.checks_within_secs = 1800;
    let cluster = Cluster::prepare(site)?;
    let dir = cluster.daemon.state_dir().join("accounts");
    accounts(&dir, "")?;
    cluster.start_daemon()?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    node.power_on()?;

    // The system is up, but the node is not ready: it keeps trying, and reports that.
    node.wait_until("a report of the checks for which it waits", || {
        Ok(node
            .status("last_error")?
            .contains("/srv/late is not mounted")
            .then_some(()))
    })?;
    node.wait_state("starting")?;
    let shown = cluster.daemon.cli(&["node", "show", "r01n01"])?;
    ensure!(
        shown.contains("mount /srv/late") && shown.contains("waits") && shown.contains("the device does not exist"),
        "{shown}"
    );
    // No boot waits for optional mounts, so this one may come later.
    let fast = "findmnt -no FSTYPE,SIZE /srv/data/fast | tr -s ' '";
    node.wait_until("the RAM below the disk", || {
        Ok((node.shell(fast)?.trim() == "tmpfs 16M").then_some(()))
    })?;
    assert_eq!(node.shell("findmnt -no LABEL /srv/data")?, "data");
    node.shell("mkfs.ext4 -q -L late /dev/disk/by-partlabel/free")?;
    node.wait_ready()?;
    assert_eq!(node.shell("findmnt -no LABEL /srv/late")?, "late");

    // The missing mount is reported, and does not prevent work on the node.
    node.wait_state("degraded")?;
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    ensure!(
        explained.contains("debian@1 has no mount.nfs, so /mnt/far (nfs) is not mounted"),
        "{explained}"
    );
    assert_eq!(node.shell("stat -c %a:%U /mnt/far")?, "755:root");

    // alice is a new user; sync belongs to the image, with another number.
    assert_eq!(
        node.shell("getent passwd alice")?,
        "alice:x:1000:1100:Alice:/srv/data/alice:/bin/bash"
    );
    assert_eq!(node.shell("getent group lab")?, "lab:x:1101:alice");
    assert_eq!(
        node.shell("getent shadow alice")?,
        format!("alice:{HASH}:19000:0:99999:7:::")
    );
    assert_eq!(node.shell("stat -c %a:%U:%G /etc/shadow")?, "640:root:shadow");
    assert_eq!(
        node.shell("su alice -c 'id -un; id -Gn'")?.replace("\r\n", "\n"),
        "alice\npeople lab"
    );
    assert_eq!(node.shell("id -u sync")?, "4");
    node.shell("! getent shadow root | grep notreally")?;

    let synced = cluster.daemon.cli(&["sync-users"])?;
    ensure!(
        synced.contains("user sync (1002) is left out") && synced.contains("all running nodes have these users"),
        "{synced}"
    );
    // A user that is added on the server appears on the running node soon, and a removed one disappears. Users that were made on the node
    // stay. No command informs the daemon.
    node.shell("useradd --system --no-create-home local")?;
    accounts(&dir, "bob:x:1001:1100::/srv/data/bob:/bin/sh\n")?;
    node.wait_until("bob to be known", || {
        Ok((node.shell("id -u bob; true")? == "1001").then_some(()))
    })?;
    node.wait_event("the report of the new user", |event| {
        event.step == "users" && event.detail.contains("bob is new")
    })?;
    assert_eq!(node.shell("stat -c %a:%U:%G /etc/shadow")?, "640:root:shadow");
    assert_eq!(node.shell("stat -c %a:%U:%G /etc/passwd")?, "644:root:root");
    assert_eq!(
        node.shell("getent shadow alice")?,
        format!("alice:{HASH}:19000:0:99999:7:::")
    );
    let passwd = fs::read_to_string(dir.join("passwd"))?;
    let without: String = passwd
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("alice"))
        .collect();
    fs::write(dir.join("passwd"), without)?;
    cluster.daemon.cli(&["users", "sync"])?;
    node.wait_until("alice to be gone", || {
        Ok((node.shell("id alice >/dev/null 2>&1 || echo gone")? == "gone").then_some(()))
    })?;
    assert_eq!(node.shell("getent group lab")?, "lab:x:1101:");
    node.shell("id bob && id local && id -u sync && getent shadow local")?;
    // A user of the node can read the boot's token, but gets no hashes with it.
    assert_eq!(node.shell("su bob -c 'grep -c rackstrap.token= /proc/cmdline'")?, "1");
    ensure!(
        node.shell("su bob -c 'cat /usr/lib/rackstrap/boot.json' 2>&1; true")?
            .contains("Permission denied")
    );
    let current = cluster.daemon.json(&["users", "list"])?["current"].clone();
    assert_eq!(current, serde_json::json!(["r01n01"]));
    let passwd = cluster.daemon.cli(&["overlay", "render", "r01n01", "etc/passwd"])?;
    ensure!(
        passwd.trim_end().ends_with("bob:x:1001:1100::/srv/data/bob:/bin/sh"),
        "{passwd}"
    );
    node.pull_plug();
    cluster.daemon.stop()
}
