//! Three nodes that are switched on together, with different network cards, get their own addresses, disks and keys, and the MTU of
//! their subnet. One of them has settings and variables of its own.

use super::GIB2;
use std::collections::BTreeSet;
use testbed::{Cluster, Nic, Result, Site};

#[test]
fn three_nodes_boot_at_once() -> Result {
    let mut site = Site::small();
    site.subnets[0].mtu = Some(9000);
    let cluster = Cluster::start_small_whole(site)?;
    let mut nodes = Vec::new();
    for (name, nic) in [("r01n01", Nic::Virtio), ("r01n02", Nic::E1000), ("r02n01", Nic::Virtio)] {
        let node = cluster.node(name).nic(nic).blank_disk(GIB2)?;
        node.add()?;
        if name == "r02n01" {
            let own = [
                "templates=[\"base\", \"console\", \"own\"]",
                "vars.pdu=pdu2",
                "vars.slots=4",
                "kernel-args+=own.pdu={{ vars.pdu }}",
            ];
            cluster.daemon.cli(&[&["node", "set", name][..], &own].concat())?;
        }
        node.power_on()?;
        nodes.push(node);
    }
    let mut keys = BTreeSet::new();
    for (node, address) in nodes.iter().zip(["10.5.1.1", "10.5.1.2", "10.5.2.1"]) {
        node.wait_ready()?;
        assert_eq!(node.shell("hostname")?, node.name());
        assert!(node.shell("ip -4 address")?.contains(&format!("{address}/16")));
        assert_eq!(
            node.status("disk")?,
            "/tmp and /var on vda (prepared: blank -> scratch v1)"
        );
        keys.insert(node.shell("cat /etc/ssh/ssh_host_ed25519_key.pub /etc/machine-id")?);
    }
    cluster.namespace.set_mtu(9000)?;
    for node in &nodes {
        assert_eq!(node.shell("cat /sys/class/net/eth0/mtu")?, "9000", "{}", node.name());
    }
    let answer = nodes[0].shell("ping -c 1 -W 60 -s 8900 10.5.2.1")?;
    assert!(answer.contains(" 0% packet loss"), "{answer}");
    // FragCreates, the last column of the second line of IP.
    let fragments = nodes[0].shell("grep ^Ip: /proc/net/snmp | tail -n 1 | awk '{print $NF}'")?;
    assert_eq!(fragments, "0", "the packets of 8,900 bytes were cut");
    // Its own kernel argument and its own file, with its variables; the others have neither.
    let own = "cat /proc/cmdline; cat /etc/own";
    let (has, lacks) = (nodes[2].shell(own)?, nodes[1].shell(&format!("{own} 2>&1 || true"))?);
    assert!(has.contains(" own.pdu=pdu2") && has.contains("\npdu2 4"), "{has}");
    assert!(!lacks.contains("own.pdu=") && !lacks.contains("pdu2"), "{lacks}");
    assert_eq!(keys.len(), 3, "nodes share host keys or a machine id");
    // The nodes resolve each other's names.
    let answer = nodes[0].shell("ping -c 1 -W 60 r02n01")?;
    assert!(
        answer.contains("(10.5.2.1)") && answer.contains(" 0% packet loss"),
        "{answer}"
    );
    Ok(())
}
