//! The network of the root survives the network services of distributions.

use super::GIB2;
use testbed::{Cluster, Result, Site, binaries::Binaries, image::Image, networks, ssh::SshKey};

/// Logs in at the node's own address.
const SSH: &str = "ssh -i /root/own -o BatchMode=yes -o StrictHostKeyChecking=no root@10.5.1.1 id -un 2> /dev/null";

#[test]
fn networkd_ifupdown_and_networkmanager_leave_the_roots_card_alone() -> Result {
    let mut say = |line: &str| eprintln!("testbed: {line}");
    let binaries = Binaries::get()?;
    let image = Image::import(&binaries, "networks", &networks::tree(&mut say)?, &mut say)?;
    let mut site = Site::without_var();
    site.default_profile().image = Some("networks".to_owned());
    // Debian's kernel has SELinux, but uses AppArmor by default.
    site.default_profile().kernel_args = Some("security=selinux selinux=1".to_owned());
    let cluster = Cluster::with_images(&binaries, &site, vec![image])?;
    // The client is outside of the node, as people are.
    let key = SshKey::make(cluster.dir())?;
    site.default_profile().authorized_keys = Some(vec![key.public()?]);
    cluster.daemon.write_site(&site)?;
    let log_in = |command: &str| key.log_in(&cluster.namespace, "10.5.1.1", command);
    cluster.start_daemon()?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    node.power_on()?;
    node.wait_ready()?;

    let card = node.shell("ip -o link show | grep -v ' lo:' | cut -d: -f2 | tr -d ' '")?;
    for service in ["systemd-networkd", "NetworkManager"] {
        let wait = format!("timeout 120 sh -c 'until systemctl -q is-active {service}; do sleep 1; done'");
        let status = format!("systemctl --no-pager --full status {service} systemd-networkd.socket");
        node.shell(&format!("{wait} || {{ {status}; false; }}"))?;
    }
    assert!(
        node.shell(&format!("networkctl list --no-legend {card}"))?
            .contains("unmanaged")
    );
    assert!(
        node.shell(&format!("nmcli -t -f DEVICE,STATE device | grep ^{card}:"))?
            .contains("unmanaged")
    );
    assert_eq!(
        node.shell(&format!("ifquery --state {card} || echo not up by ifupdown"))?,
        "not up by ifupdown"
    );
    let address = node.shell(&format!("ip -4 -o address show dev {card}"))?;
    assert!(
        address.contains("10.5.1.1/16") && !address.contains("dynamic"),
        "{address}"
    );
    // A connection that an administrator makes for the card and starts does not get it either.
    let connect = format!("nmcli connection add type ethernet ifname {card} con-name own && nmcli connection up own");
    let refused = node.shell(&format!("if {connect}; then echo taken; else echo refused; fi"))?;
    assert!(refused.ends_with("refused"), "{refused}");
    assert_eq!(node.shell(&format!("ip -4 -o address show dev {card}"))?, address);
    // A restart of these services, as in an upgrade of their packages, changes nothing.
    node.shell("systemctl restart systemd-networkd NetworkManager networking; sleep 5")?;
    node.shell("echo 3 > /proc/sys/vm/drop_caches; cat /usr/sbin/* > /dev/null")?;
    assert_eq!(node.shell(&format!("ip -4 -o address show dev {card}"))?, address);
    node.wait_state("ready")?;

    // An image that enforces SELinux boots permissive, because files on an NFS root have no labels.
    assert_eq!(node.shell("cat /sys/fs/selinux/enforce; echo")?, "0");
    assert_eq!(node.status("remark")?, "SELinux permissive");
    node.shell("ssh-keygen -q -t ed25519 -N '' -f /root/own && cat /root/own.pub >> /root/.ssh/authorized_keys")?;
    let enabled = node.shell("systemctl is-enabled ssh.socket ssh.service || true")?;
    assert_eq!(enabled, "enabled\ndisabled", "sshd is not started by the socket");
    assert_eq!(node.shell(SSH)?, "root");
    // This checks capabilities for an unprivileged user. Without the first line the kernel would allow ping to all users.
    node.shell("sysctl -qw net.ipv4.ping_group_range='1 0'")?;
    let lab = |command: &str| node.shell(&format!("runuser -u lab -- sh -c '{command}'"));
    assert!(lab("ping -c 1 -W 20 10.5.0.1")?.contains(" 0% packet loss"));
    lab("unshare -U sleep 60 & sleep 2; newuidmap $! 0 100000 10 && newgidmap $! 0 100000 10 && cat /proc/$!/uid_map")?;
    assert_eq!(lab("cat /opt/shared/file")?, "for lab");
    assert_eq!(
        node.shell("runuser -u nobody -- cat /opt/shared/file 2> /dev/null || echo refused")?,
        "refused"
    );

    assert_eq!(log_in("id -un; cat /sys/fs/selinux/enforce")?, "root\n0");

    // The site's own argument takes precedence: SELinux enforces. Because files have no labels, the policy lets no user in, and such a node
    // is not ready.
    site.default_profile().kernel_args = Some("security=selinux selinux=1 enforcing=1".to_owned());
    site.checks_within_secs = 20;
    cluster.daemon.reload(&site)?;
    node.pull_plug();
    node.power_on()?;
    node.wait_state("degraded")?;
    let why = node.status("last_error")?;
    assert!(why.contains("SELinux enforces") && why.contains("enforcing=1"), "{why}");
    assert!(log_in("true").is_err());
    Ok(())
}
