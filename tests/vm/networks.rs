//! The network of the root survives the network services of distributions.

use super::GIB2;
use std::{fs, process::Command};
use testbed::{
    Cluster, Result, Site,
    binaries::Binaries,
    image::{Image, Recipe},
    process::output,
};

/// All three services at once, each configured for every card.
const GREEDY: &str = "
printf '[Match]\\nName=*\\n[Network]\\nDHCP=yes\\n' > /etc/systemd/network/80-all.network
printf 'auto eth0 ens2 enp0s2\\niface eth0 inet dhcp\\niface ens2 inet dhcp\\niface enp0s2 inet dhcp\\n' > /etc/network/interfaces
printf '[main]\\nplugins=keyfile\\n[device]\\nmanaged=1\\n' > /etc/NetworkManager/conf.d/80-all.conf
printf '[keyfile]\\nunmanaged-devices=interface-name:nothing0\\n' > /etc/NetworkManager/conf.d/99-own.conf
cp /etc/systemd/network/80-all.network /etc/systemd/network/00-all.network
systemctl enable systemd-networkd NetworkManager networking
";

/// systemd's socket starts sshd at the first connection.
const SSH_BY_SOCKET: &str = "systemctl disable ssh.service && systemctl enable ssh.socket";

/// Logs in at the node's own address.
const SSH: &str = "ssh -i /root/own -o BatchMode=yes -o StrictHostKeyChecking=no root@10.5.1.1 id -un 2> /dev/null";

/// Files that only work for unprivileged users with attributes that NFSv3 does not transfer.
const CAPABLE: &str = "
useradd -m lab && grep -q ^lab: /etc/subuid
chmod 755 /usr/bin/ping /usr/bin/newuidmap /usr/bin/newgidmap
setcap cap_net_raw+ep /usr/bin/ping
setcap cap_setuid+ep /usr/bin/newuidmap
setcap cap_setgid+ep /usr/bin/newgidmap
mkdir -m 700 /opt/shared && echo for lab > /opt/shared/file && chmod 600 /opt/shared/file
setfacl -m u:lab:rx /opt/shared && setfacl -m u:lab:r /opt/shared/file
printf 'SELINUX=enforcing\\nSELINUXTYPE=default\\n' > /etc/selinux/config
";

#[test]
fn networkd_ifupdown_and_networkmanager_leave_the_roots_card_alone() -> Result {
    let mut say = |line: &str| eprintln!("testbed: {line}");
    let binaries = Binaries::get()?;
    let recipe = Recipe::cloud()?.with_packages(&[
        "ifupdown",
        "isc-dhcp-client",
        "network-manager",
        "libcap2-bin",
        "uidmap",
        "acl",
        "passwd",
        "selinux-policy-default",
    ]);
    let image = Image::import(
        &binaries,
        "networks",
        &recipe
            .with_command(GREEDY)
            .with_command(CAPABLE)
            .with_command(SSH_BY_SOCKET)
            .tree(&mut say)?,
        &mut say,
    )?;
    let mut site = Site::demo();
    site.default_profile().image = Some("networks".to_owned());
    // Debian's kernel has SELinux, but uses AppArmor by default.
    site.default_profile().kernel_args = Some("security=selinux selinux=1".to_owned());
    let cluster = Cluster::with_images(&binaries, &site, vec![image])?;
    // The client is outside of the node, as people are.
    let key = cluster.dir().join("key");
    output(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key),
    )?;
    let public = fs::read_to_string(key.with_extension("pub"))?;
    site.default_profile().authorized_keys = Some(vec![public.trim().to_owned()]);
    cluster.daemon.write_site(&site)?;
    let log_in = |command: &str| {
        let mut ssh = cluster.namespace.command("ssh");
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ] {
            ssh.args(["-o", option]);
        }
        output(ssh.arg("-i").arg(&key).args(["root@10.5.1.1", command]))
    };
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
