//! A boot card in a bond: the root survives the loss of the card's link, and the bond can need a switch that knows it.

use super::GIB2;
use testbed::{Cluster, Nic, Node, Result, Site, netns::BRIDGE};

/// A bond of the boot card and the second card, in this mode; `port` counts the second card.
fn networks(mode: &str, port: u16) -> String {
    format!(
        "[[network]]\nname = \"second\"\ntype = \"ethernet\"\nmatch = {{ driver = \"virtio_net\", port = {port} }}\n\
         [[network]]\nname = \"bond0\"\ntype = \"bond\"\nmembers = [\"boot\", \"second\"]\nmode = \"{mode}\"\n"
    )
}

fn site(mode: &str) -> Site {
    let mut site = Site::small();
    site.more = networks(mode, 2);
    // A check that fails makes a node that boots degraded after this time.
    site.checks_within_secs = 20;
    site
}

#[test]
fn a_node_keeps_its_root_while_its_boot_card_has_no_link() -> Result {
    let mut site = site("active-backup");
    let cluster = Cluster::start_small(site.clone())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?.second_card()?;
    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(of_bond(&node, "mode")?, "active-backup 1");
    assert_eq!(of_bond(&node, "slaves")?, "eth0 second");
    assert_eq!(of_bond(&node, "active_slave")?, "eth0");
    assert_eq!(node.shell("cat /sys/class/net/bond0/address")?, node.hwaddr());
    let of = |interface: &str| node.shell(&format!("ip -4 address show dev {interface}"));
    assert!(of("bond0")?.contains("inet 10.5.1.1/16"), "{}", of("bond0")?);
    for member in ["eth0", "second"] {
        assert!(!of(member)?.contains("inet "), "{}", of(member)?);
    }
    node.wait_state("ready")?;

    node.link(0, false)?;
    node.wait_state("degraded")?;
    let why = node.status("last_error")?;
    assert!(why.contains("bond0: its member eth0 has no link"), "{why}");
    assert_eq!(of_bond(&node, "active_slave")?, "second");
    // From the server, not from the cache.
    node.shell("echo 3 > /proc/sys/vm/drop_caches; cat /usr/sbin/* > /dev/null")?;
    node.link(0, true)?;
    node.wait_state("ready")?;

    // A rule that fits no card: the bond has the boot card alone.
    site.more = networks("active-backup", 9);
    cluster.daemon.reload(&site)?;
    start_again(&node)?;
    node.wait_state("degraded")?;
    assert_eq!(of_bond(&node, "slaves")?, "eth0");
    let why = node.status("last_error")?;
    assert!(why.contains("port 9 does not exist"), "{why}");
    node.pull_plug();
    Ok(())
}

#[test]
fn a_bond_by_lacp_has_both_cards_and_without_lacp_it_has_one() -> Result {
    let cluster = Cluster::start_small(site("802.3ad"))?;
    // The mode needs cards with a known speed.
    let node = cluster.node("r01n01").nic(Nic::VirtioWithSpeed).blank_disk(GIB2)?;
    let node = node.second_card()?;
    node.power_on()?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    let why = node.status("last_error")?;
    assert!(why.contains("bond0: the switch does not speak LACP"), "{why}");

    let ports = cluster.namespace.ip(&["-o", "link", "show", "master", BRIDGE])?;
    let ports = ports
        .lines()
        .filter_map(|line| Some(line.split_whitespace().nth(1)?.trim_end_matches(':').to_owned()));
    cluster.namespace.lacp(&ports.collect::<Vec<_>>())?;
    start_again(&node)?;
    node.wait_state("ready")?;
    assert_eq!(of_bond(&node, "mode")?, "802.3ad 4");
    assert_eq!(of_bond(&node, "ad_partner_mac")?, "52:54:00:05:00:02");
    assert_eq!(of_bond(&node, "ad_num_ports")?, "2");
    node.pull_plug();
    Ok(())
}

fn of_bond(node: &Node<'_>, file: &str) -> Result<String> {
    node.shell(&format!("cat /sys/class/net/bond0/bonding/{file}"))
}

fn start_again(node: &Node<'_>) -> Result {
    node.pull_plug();
    node.power_on()?;
    node.wait_ready()?;
    Ok(())
}
