//! A node reports failed checks, recovers without help after their repair, and restarts by order.

use super::GIB2;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use testbed::{Cluster, Result, Site};

/// A program of the site that logs its calls.
fn program(dir: &Path, name: &str) -> Result<Vec<String>> {
    let path = dir.join(name);
    let script = format!(
        "#!/bin/sh\necho \"{name} $RACKSTRAP_NODES $RACKSTRAP_REASON\" >> {}/log\n",
        dir.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(vec![path.display().to_string()])
}

#[test]
fn a_failed_check_is_named_and_cleared_after_its_repair_and_a_restart_is_drained_first() -> Result {
    let holds = [
        "unit systemd-journald.service",
        "mount /tmp",
        "command /bin/test -d /tmp",
    ];
    let fails = ["unit no-such.service", "mount /mnt", "command /bin/ls /no/such"];
    let checks = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
    let mut site = Site::without_var();
    site.checks_within_secs = 4;
    site.default_profile().checks = checks(&[&holds[..], &fails].concat());
    // sshd is enabled, but its configuration prevents its start.
    let trees = ["base", "console", "deaf"].map(str::to_owned);
    site.default_profile().templates = Some(trees.to_vec());
    let cluster = Cluster::prepare(site.clone())?;
    site.drain = program(cluster.dir(), "drain")?;
    site.resume = program(cluster.dir(), "resume")?;
    cluster.daemon.write_site(&site)?;
    cluster.start_daemon()?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;

    node.power_on()?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    let error = node.status("last_error")?;
    let expected = "check failed: unit no-such.service is inactive; /mnt is not mounted; command /bin/ls /no/such ended with \
                    exit status 2, with the output: ";
    assert!(error.starts_with(expected) && error.contains("/no/such"), "{error}");
    let deaf = "ssh.service is enabled, and does not answer at 10.5.1.1:22: Connection refused (os error 111)";
    assert!(error.contains(deaf), "{error}");

    // The faults are repaired on the node one after the other. The command runs again only after a minute.
    node.shell("mount -t tmpfs none /mnt")?;
    node.wait_until("the mount to be found", || {
        Ok((!node.status("last_error")?.contains("/mnt is not mounted")).then_some(()))
    })?;
    node.wait_state("degraded")?;
    let unit = "[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\n";
    node.shell(&format!(
        "printf '{unit}' > /run/systemd/system/no-such.service; systemctl start no-such"
    ))?;
    node.shell("mkdir -p /no/such")?;
    node.wait_until("nothing but sshd to be missing", || {
        Ok((node.status("last_error")? == format!("check failed: {deaf}")).then_some(()))
    })?;
    // sshd runs, but PAM opens no session.
    node.shell("echo session required pam_deny.so >> /etc/pam.d/sshd; rm /etc/ssh/sshd_config.d/deaf.conf")?;
    node.shell("systemctl reset-failed ssh; systemctl start ssh")?;
    let no_session = "check failed: cannot open a session for root as sshd does: Cannot make/remove an entry for the \
                      specified session";
    node.wait_until("sessions to be missed", || {
        Ok((node.status("last_error")? == no_session).then_some(()))
    })?;
    // A rule for accounts that refuses root from this machine is intentional.
    node.shell("sed -i -e '$d' -e '1i account required pam_deny.so' /etc/pam.d/sshd")?;
    node.wait_state("ready")?;
    node.shell("touch /run/nologin")?;
    node.wait_state("degraded")?;
    let kept_out = "check failed: users cannot log in because /run/nologin exists; remove it";
    assert_eq!(node.status("last_error")?, kept_out);
    node.shell("rm /run/nologin")?;
    node.wait_state("ready")?;
    assert_eq!(node.status("last_error")?, "");
    node.shell("umount /mnt")?;
    node.wait_state("degraded")?;
    assert_eq!(node.status("last_error")?, "check failed: /mnt is not mounted");

    site.default_profile().checks = checks(&holds);
    site.default_profile().templates = Some(trees[..2].to_vec());
    cluster.daemon.reload(&site)?;
    let before = node.status("boot")?;
    cluster
        .daemon
        .cli(&["node", "restart", "r01n01", "--reason", "new checks", "--yes"])?;
    node.wait_until("another boot to be ready", || {
        let ready = node.status("boot")? != before && node.status("state")? == "ready";
        Ok(ready.then_some(()))
    })?;
    node.wait_event("it to be back in service", |event| {
        event.step == "restart" && event.detail == "back in service"
    })?;
    let restarts: Vec<String> = (node.events()?.into_iter())
        .filter(|event| event.step == "restart")
        .map(|event| event.detail)
        .collect();
    assert_eq!(
        restarts,
        [
            "is drained first: new checks",
            "drained; gets the order with its next heartbeat",
            "ordered to restart: new checks",
            "restarts with systemctl reboot",
            "back in service",
        ]
    );
    let log = fs::read_to_string(cluster.dir().join("log"))?;
    assert_eq!(log, "drain r01n01 new checks\nresume r01n01 new checks\n");
    let shown = &cluster.daemon.json(&["node", "show", "r01n01"])?;
    let login = (shown["checks"].as_array().into_iter().flatten()).find(|row| row["check"] == "login");
    assert_eq!(login.map(|row| &row["state"]), Some(&"holds".into()), "{shown}");
    let hardware = &shown["hardware"];
    let modules: Vec<&str> = (hardware["modules"].as_array().into_iter().flatten())
        .filter_map(|module| module.as_str())
        .collect();
    assert!(
        modules.contains(&"virtio_net") && modules.contains(&"virtio_blk"),
        "{modules:?}"
    );
    assert!(!modules.contains(&"nfs"), "no device needs nfs: {modules:?}");
    node.pull_plug();
    cluster.daemon.stop()
}
