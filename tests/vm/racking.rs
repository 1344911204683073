//! New machines become named nodes without typed MAC addresses.

use super::GIB2;
use testbed::{Cluster, Node, Result, Site};

#[test]
fn machines_rack_themselves_in_order_and_a_new_mainboard_keeps_its_nodes_name() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    cli(&["discover", "start", "r02", "--group", "new"])?;
    // The test names each machine after its final place; the daemon does not know these names.
    let mut nodes = Vec::new();
    for name in ["r02n01", "r02n02", "r02n03"] {
        let node = cluster.node(name).blank_disk(GIB2)?;
        node.plug_in()?;
        named(&node, name)?;
        nodes.push(node);
    }
    for node in &nodes {
        node.wait_ready()?;
        assert_eq!(node.shell("hostname")?, node.name());
        assert_eq!(node.status("state")?, "ready");
    }
    let host_key = nodes[0].shell("cat /etc/ssh/ssh_host_ed25519_key.pub")?;
    let history = cli(&["node", "history", "r02n02"])?;
    assert!(
        history.contains("filling r02") && history.contains("groups new"),
        "{history}"
    );
    for node in &nodes[1..] {
        node.pull_plug();
    }

    // The next machine is accepted after a question, then removed again, and placed elsewhere while it waits.
    cli(&["discover", "stop", "r02"])?;
    cli(&["discover", "start", "r02", "--from", "n04", "--confirm"])?;
    let elsewhere = cluster.node("r03n01").blank_disk(GIB2)?;
    elsewhere.plug_in()?;
    elsewhere.wait_console(&format!("rackstrap discover accept {} r02n04", elsewhere.hwaddr()))?;
    // The loader reports the hardware when it requests its script again.
    elsewhere.wait_until("what it is", || {
        let listed = cli(&["discover", "list"])?;
        Ok((listed.contains(elsewhere.hwaddr()) && listed.contains("QEMU")).then_some(()))
    })?;
    assert!(cli(&["discover", "accept", elsewhere.hwaddr()])?.contains("is r02n04 now"));
    assert!(cli(&["discover", "undo"])?.contains("is no longer r02n04"));
    cli(&["discover", "accept", elsewhere.hwaddr(), "r03n01"])?;
    // So the next machine gets the position.
    let fourth = cluster.node("r02n04").blank_disk(GIB2)?;
    fourth.plug_in()?;
    fourth.wait_console(&format!("rackstrap discover accept {} r02n04", fourth.hwaddr()))?;
    cli(&["discover", "accept", fourth.hwaddr()])?;
    for node in [&elsewhere, &fourth] {
        node.wait_ready()?;
        assert_eq!(node.shell("hostname")?, node.name());
        node.pull_plug();
    }

    // The first node gets a new mainboard.
    nodes[0].pull_plug();
    let board = cluster.node("r09n09");
    board.insert_disk(Some(nodes[0].disk()?));
    board.plug_in()?;
    board.wait_console("waiting to be racked")?;
    let refused = cli(&["discover", "accept", board.hwaddr(), "r02n01"]);
    assert!(
        format!("{:#}", refused.unwrap_err()).contains("r02n01 already exists"),
        "an existing node is replaced without an order"
    );
    cli(&["discover", "accept", board.hwaddr(), "r02n01", "--replace"])?;
    board.wait_console("root@r02n01")?;
    let replaced = cluster.status("r02n01")?;
    assert_eq!(replaced["disk"], "/tmp and /var on vda (kept: scratch v1)");
    assert_eq!(
        board.console().shell(
            "cat /etc/ssh/ssh_host_ed25519_key.pub",
            std::time::Duration::from_secs(120)
        )?,
        host_key
    );
    Ok(())
}

/// Waits until the daemon knows the machine as `name`.
fn named(node: &Node, name: &str) -> Result {
    node.wait_until(&format!("being called {name}"), || {
        Ok((node.status("state").is_ok()).then_some(()))
    })?;
    assert_eq!(node.name(), name);
    Ok(())
}
