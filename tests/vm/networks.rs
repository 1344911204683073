//! The network that carries the root survives what distributions do to networks.

use super::GIB2;
use testbed::{
    Cluster, Result, Site,
    binaries::Binaries,
    image::{Image, Recipe},
};

/// All three at once, each told to take every card that it sees.
const GREEDY: &str = "
printf '[Match]\\nName=*\\n[Network]\\nDHCP=yes\\n' > /etc/systemd/network/80-all.network
printf 'auto eth0 ens2 enp0s2\\niface eth0 inet dhcp\\niface ens2 inet dhcp\\niface enp0s2 inet dhcp\\n' > /etc/network/interfaces
printf '[main]\\nplugins=keyfile\\n[device]\\nmanaged=1\\n' > /etc/NetworkManager/conf.d/80-all.conf
systemctl enable systemd-networkd NetworkManager networking
";

#[test]
fn networkd_ifupdown_and_networkmanager_leave_the_roots_card_alone() -> Result {
    let mut say = |line: &str| eprintln!("testbed: {line}");
    let binaries = Binaries::get()?;
    let recipe = Recipe::debian()?.with_packages(&["ifupdown", "isc-dhcp-client", "network-manager"]);
    let image = Image::import(
        &binaries,
        "networks",
        &recipe.with_command(GREEDY).tree(&mut say)?,
        &mut say,
    )?;
    let mut site = Site::demo();
    site.default_profile().image = Some("networks".to_owned());
    let cluster = Cluster::with_images(&binaries, &site, vec![image])?;
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
    // Restarting them, as an upgrade of their packages does, changes nothing.
    node.shell("systemctl restart systemd-networkd NetworkManager networking; sleep 5")?;
    node.shell("echo 3 > /proc/sys/vm/drop_caches; cat /usr/sbin/* > /dev/null")?;
    assert_eq!(node.shell(&format!("ip -4 -o address show dev {card}"))?, address);
    node.wait_state("ready")
}
