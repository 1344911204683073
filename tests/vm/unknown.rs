//! A machine that is not in the inventory waits for its name, and then boots without help. Its second card does not count as another machine.

use super::GIB2;
use testbed::{Cluster, Result, Site};

#[test]
fn an_unknown_machine_waits_and_boots_on_once_it_is_added() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?.second_card()?;
    node.plug_in()?;
    let told = format!("rackstrap discover accept {} r01n01", node.hwaddr());
    node.wait_console(&told)?;

    // `explain` shows it, with an address from the pool.
    let explained = cluster.daemon.cli(&["explain", node.hwaddr()])?;
    assert!(explained.contains("10.5.255."), "{explained}");
    let status = cluster.daemon.cli(&["status"])?;
    assert!(status.contains(node.hwaddr()), "{status}");

    // The command on the screen is run, and the same power-on ends as that node.
    cluster.daemon.cli(&["discover", "accept", node.hwaddr(), "r01n01"])?;
    node.wait_ready()?;
    assert_eq!(node.status("state")?, "ready");
    assert_eq!(node.shell("hostname")?, "r01n01");
    let status = cluster.daemon.cli(&["status"])?;
    assert!(!status.contains(node.hwaddr()), "still listed as unknown:\n{status}");
    node.pull_plug();

    // Its firmware tries the second card first while a rack is filled. That is not a new machine, and the firmware continues with the first card.
    cluster.daemon.cli(&["discover", "start", "r05"])?;
    node.second_card_first();
    node.plug_in()?;
    node.wait_console("is a further card of r01n01")?;
    assert_eq!(node.wait_disk()?, "/tmp and /var on vda (kept: scratch v1)");
    let nodes = cluster.daemon.cli(&["node", "list", "--names"])?;
    assert_eq!(nodes.trim(), "r01n01");
    let listed = cluster.daemon.cli(&["discover", "list"])?;
    assert!(
        listed.contains(node.second_hwaddr()) && listed.contains("r01n01"),
        "{listed}"
    );
    Ok(())
}
