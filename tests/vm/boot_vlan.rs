//! A boot network that is a VLAN: firmware and iPXE load without its tag, and from the agent on the node is in it. Then the same on a bond.

use super::GIB2;
use testbed::{Cluster, Result, Site, Subnet, binaries::Binaries, image::Image, image::Kernel, netns::BRIDGE};

/// A bond of both cards, and a further VLAN on it.
const BOND: &str = r#"
[[network]]
name = "second"
type = "ethernet"
match = { driver = "virtio_net", port = 2 }

[[network]]
name = "bond0"
type = "bond"
members = ["boot", "second"]
mode = "active-backup"

[[network]]
name = "v6"
type = "vlan"
parent = "bond0"
id = 6
node-address = "10.8.{rack}.{slot}"
prefix = 16
"#;
/// The server's interface in the VLAN.
const INTERFACE: &str = "vlan5";

#[test]
fn a_node_boots_in_a_vlan_from_firmware_that_does_not_know_it() -> Result {
    let binaries = Binaries::get()?;
    let small = Image::small(&binaries, Kernel::Cloud, &mut |line| eprintln!("testbed: {line}"))?;
    let mut site = Site::small();
    let tagged = Subnet {
        interface: Some(INTERFACE.to_owned()),
        vlan: Some(5),
        pool: None,
        ..Subnet::of_the_bridge()
    };
    let untagged = Subnet {
        network: "10.4.0.0/24".to_owned(),
        server: "10.4.0.1".to_owned(),
        pool: Some("10.4.0.100-10.4.0.200".to_owned()),
        ..Subnet::of_the_bridge()
    };
    site.subnets = vec![tagged, untagged];
    let cluster = Cluster::with_images(&binaries, &site, vec![small])?;
    let ip = |arguments: &str| cluster.namespace.ip(&arguments.split(' ').collect::<Vec<_>>());
    ip(&format!("address flush dev {BRIDGE}"))?;
    ip(&format!("address add 10.4.0.1/24 dev {BRIDGE}"))?;
    cluster.namespace.vlan(INTERFACE, 5, "10.5.0.1/16")?;
    cluster.start_daemon()?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?.second_card()?;
    node.add()?;
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    let why =
        "its boot network is VLAN 5: its firmware and loader load without the tag, with a pool address of 10.4.0.0/24";
    assert!(explained.contains(why), "{explained}");
    node.power_on()?;
    node.wait_ready()?;

    // Loaded without the tag ...
    let events = node.events()?;
    let of = |word: &str| events.iter().any(|event| event.detail.contains(word));
    assert!(
        of("pool address to start r01n01 without a tag; in VLAN 5 it is 10.5.1.1"),
        "{events:?}"
    );
    assert!(of("is 10.5.1.1/16 in VLAN 5"), "{events:?}");
    // ... and in the VLAN since then: the card itself has no address, and the root comes through the VLAN.
    let vlans = node.shell("cat /proc/net/vlan/config")?;
    assert!(has_vlan(&vlans, ["boot", "5", "eth0"]), "{vlans}");
    let of = |interface: &str| node.shell(&format!("ip -4 address show dev {interface}"));
    assert!(of("boot")?.contains("inet 10.5.1.1/16"), "{}", of("boot")?);
    assert!(!of("eth0")?.contains("inet "), "{}", of("eth0")?);
    let known = ip(&format!("neighbour show dev {INTERFACE}"))?;
    assert!(known.contains("10.5.1.1 "), "{known}");
    node.wait_state("ready")?;
    node.pull_plug();

    // The VLAN on a bond, and another one beside it.
    site.more = BOND.to_owned();
    cluster.daemon.reload(&site)?;
    cluster.namespace.vlan("vlan6", 6, "10.8.0.1/16")?;
    node.power_on()?;
    node.wait_ready()?;
    let vlans = node.shell("cat /proc/net/vlan/config")?;
    for expected in [["boot", "5", "bond0"], ["v6", "6", "bond0"]] {
        assert!(has_vlan(&vlans, expected), "{vlans}");
    }
    node.wait_state("ready")?;
    node.link(0, false)?;
    node.wait_state("degraded")?;
    let ping = node.shell("ping -c 3 -W 20 10.8.0.1")?;
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    node.shell("echo 3 > /proc/sys/vm/drop_caches; cat /usr/sbin/* > /dev/null")?;
    node.pull_plug();
    Ok(())
}

/// Whether the kernel's list has that VLAN: its name, its id, and the interface that it is on.
fn has_vlan(list: &str, expected: [&str; 3]) -> bool {
    list.lines().any(|line| line.split('|').map(str::trim).eq(expected))
}
