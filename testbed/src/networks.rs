//! A Debian with the network services, SELinux and file capabilities of distributions. It is made before the tests start, because it
//! takes half a minute and a download.

use crate::{Result, image};
use std::path::PathBuf;

const PACKAGES: [&str; 8] = [
    "acl",
    "ifupdown",
    "isc-dhcp-client",
    "libcap2-bin",
    "network-manager",
    "passwd",
    "selinux-policy-default",
    "uidmap",
];

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

/// The tree, made now if it is not in the cache.
pub fn tree(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let commands = [GREEDY, CAPABLE, SSH_BY_SOCKET];
    image::more_debian("networks", &PACKAGES, &commands, say)
}
