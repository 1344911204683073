//! Nodes with three network cards: they boot from the first one; the others are a bond, which carries a VLAN.

use testbed::{Cluster, Nic, Node, Profile, Result, Site, binaries::Binaries, image::Image, networks};

/// The second and the third card in a bond of jumbo frames, and a VLAN on it. Members come after the bond that they belong to.
const NETWORKS: &str = r#"
[[network]]
name = "v100"
type = "vlan"
parent = "fast"
id = 100
mtu = 9000
node-address = "10.8.{rack}.{slot}"
prefix = 16

[[network]]
name = "fast"
type = "bond"
members = ["left", "right"]
mode = "active-backup"
mtu = 9000
node-address = "10.7.{rack}.{slot}"
prefix = 16
routes = ["10.9.0.0/16 via 10.7.0.1"]

[[network]]
name = "left"
type = "ethernet"
match = { driver = "virtio_net", port = 2 }
speed = "10G"

[[network]]
name = "right"
type = "ethernet"
match = { driver = "virtio_net", port = 3 }
speed = "10G"
"#;

/// The service of each node. It is also the name of its profile, and of the template that prevents the other services from starting.
const SERVICES: [(&str, &str); 3] = [
    ("r01n01", "networkd"),
    ("r01n02", "network-manager"),
    ("r01n03", "ifupdown"),
];
/// The switch of the bonds, which is not connected to the boot network.
const SWITCH: &str = "fast-switch";

#[test]
fn a_bond_of_jumbo_frames_and_a_vlan_come_up_by_networkd_networkmanager_and_ifupdown() -> Result {
    let mut say = |line: &str| eprintln!("testbed: {line}");
    let binaries = Binaries::get()?;
    // The three services are in one image, whose tree is made during the build.
    let image = Image::import(&binaries, "networks", &networks::tree(&mut say)?, &mut say)?;
    let mut site = Site::demo();
    site.default_profile().image = Some("networks".to_owned());
    site.default_profile().layout = None;
    for (_, service) in SERVICES {
        let templates = ["base", "console", service].map(str::to_owned).to_vec();
        let profile = Profile {
            templates: Some(templates),
            ..Profile::default()
        };
        site.profiles.insert(service.to_owned(), profile);
    }
    site.more += NETWORKS;
    let cluster = Cluster::with_images(&binaries, &site, vec![image])?;
    let ip = |arguments: &str| cluster.namespace.ip(&arguments.split(' ').collect::<Vec<_>>());
    ip(&format!("link add {SWITCH} type bridge"))?;
    cluster.start_daemon()?;
    let mut nodes = Vec::new();
    for (name, service) in SERVICES {
        let node = cluster.node(name).nic(Nic::VirtioWithSpeed);
        let node = node.further_card(SWITCH)?.further_card(SWITCH)?;
        node.add()?;
        cluster.daemon.cli(&["node", "set", name, "--profile", service])?;
        nodes.push((node, service));
    }
    // The server's side of the bond. The peers of the VLAN are the other nodes: the switch forwards its packets as they are.
    cluster.namespace.set_mtu_of(SWITCH, 9000)?;
    ip(&format!("address add 10.7.0.1/16 dev {SWITCH}"))?;
    ip(&format!("link set {SWITCH} up"))?;
    for (node, _) in &nodes {
        node.power_on()?;
    }
    for (node, service) in &nodes {
        node.wait_ready()?;
        expect_networks(node, service)?;
    }
    for (node, service) in &nodes {
        node.wait_state("ready")?;
        // All are up: packets of 8,900 bytes, which no interface on the way may cut, from node to node.
        for peer in peers(node) {
            expect_ping(node, service, &format!("-M do -s 8872 {peer}-v100"))?;
        }
    }

    for (node, _) in &nodes {
        node.link(1, false)?;
    }
    for (node, service) in &nodes {
        node.wait_state("degraded")?;
        let why = node.status("last_error")?;
        assert!(
            why.contains("network left: left is down: it has no link"),
            "{service}: {why}"
        );
        let active = node.shell("cat /sys/class/net/fast/bonding/active_slave")?;
        assert_eq!(active, "right", "{service}");
        expect_ping(node, service, "-M do -s 8872 10.7.0.1")?;
        expect_ping(node, service, &format!("-M do -s 8872 {}-v100", peers(node)[0]))?;
    }
    for (node, _) in &nodes {
        node.link(1, true)?;
    }
    for (node, _) in &nodes {
        node.wait_state("ready")?;
    }
    Ok(())
}

/// Fails unless the node's networks are as [`NETWORKS`] has them.
fn expect_networks(node: &Node<'_>, service: &str) -> Result {
    let slot = node.name().trim_start_matches("r01n0");
    // The names are those of the site file. The boot card keeps its name.
    let links = node.shell("ls /sys/class/net | tr '\\n' ' '")?;
    for interface in ["eth0", "fast", "left", "right", "v100"] {
        assert!(links.split(' ').any(|link| link == interface), "{service}: {links}");
    }
    // As many as those, and lo: the kernel's bonding module makes no bond of its own.
    let interfaces = links
        .split_whitespace()
        .filter(|link| *link != "bonding_masters")
        .count();
    assert_eq!(interfaces, 6, "{service}: {links}");
    let bond = node.shell("cd /sys/class/net/fast/bonding; cat slaves mode miimon")?;
    assert!(bond.contains("left") && bond.contains("right"), "{service}: {bond}");
    assert!(
        bond.contains("active-backup") && bond.contains("100"),
        "{service}: {bond}"
    );
    let mtu = node.shell("cd /sys/class/net; cat fast/mtu v100/mtu left/mtu right/mtu eth0/mtu | tr '\\n' ' '")?;
    assert_eq!(mtu.trim(), "9000 9000 9000 9000 1500", "{service}");
    let vlan = node.shell("ip -d link show v100")?;
    assert!(
        vlan.contains("v100@fast") && vlan.contains("vlan protocol 802.1Q id 100 "),
        "{service}: {vlan}"
    );
    let addresses = node.shell("ip -4 -o address show")?;
    for address in [
        format!("eth0    inet 10.5.1.{slot}/16"),
        format!("fast    inet 10.7.1.{slot}/16"),
        format!("v100    inet 10.8.1.{slot}/16"),
    ] {
        assert!(addresses.contains(&address), "{service}: {addresses}");
    }
    assert_eq!(addresses.lines().count(), 4, "{service}: {addresses}");
    let route = node.shell("ip route show 10.9.0.0/16")?;
    assert!(route.contains("via 10.7.0.1 dev fast"), "{service}: {route}");
    expect_ping(node, service, "-M do -s 8872 10.7.0.1")?;
    let hosts = node.shell("getent hosts r01n01-fast r01n03-v100")?;
    assert!(
        hosts.contains("10.7.1.1") && hosts.contains("10.8.1.3"),
        "{service}: {hosts}"
    );
    Ok(())
}

/// The names of the other nodes.
fn peers(node: &Node<'_>) -> Vec<&'static str> {
    let names = SERVICES.map(|(name, _)| name);
    names.into_iter().filter(|name| *name != node.name()).collect()
}

fn expect_ping(node: &Node<'_>, service: &str, arguments: &str) -> Result {
    let ping = node.shell(&format!("ping -c 3 -W 20 {arguments}"))?;
    assert!(ping.contains(" 0% packet loss"), "{service}: {ping}");
    Ok(())
}
