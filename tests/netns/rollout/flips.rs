//! The version for a node changes between the node's script and its plan: the boot keeps its version.

use super::fleet::{Fleet, come_up};
use anyhow::ensure;
use testbed::{Result, played::Node};

/// The version that all nodes run before.
const RUNNING: &str = "debian@1";

/// Boots `node`, which runs [`RUNNING`], calls `flip` after its script, and boots the node again.
fn boot_over(node: &Node, pinned: &str, next: &str, flip: impl FnOnce() -> Result) -> Result {
    let mut boot = node.boot()?;
    flip()?;
    boot.take_kernel()?;
    let plan = boot.plan()?;
    let export = plan["root"]["export"].as_str().unwrap_or_default();
    ensure!(
        boot.version == pinned && plan["image"] == pinned && export == format!("/{pinned}"),
        "kernel of {}, and {plan}",
        boot.version
    );
    ensure!(node.mount(export)? == 0, "{} cannot mount {export}", node.name);
    // The node may not mount the version of its next boot yet, unless it is the one that it ran until now.
    let may = node.mount(&format!("/{next}"))? == 0;
    ensure!(
        may == (next == RUNNING),
        "{} boots {pinned}, may mount {next}: {may}",
        node.name
    );
    come_up(&boot)?;
    let boot = node.boot_into_kernel()?;
    ensure!(boot.version == next, "{} boots {} then", node.name, boot.version);
    // The previous system may still read its root.
    ensure!(node.mount(&format!("/{pinned}"))? == 0 && node.mount(&format!("/{next}"))? == 0);
    come_up(&boot)?;
    ensure!(node.mount(&format!("/{pinned}"))? != 0, "it is up on {next}");
    Ok(())
}

#[test]
fn a_boot_keeps_its_version_from_script_to_plan() -> Result {
    let fleet = Fleet::start(1, 4)?;
    let daemon = &fleet.cluster.daemon;
    let all: Vec<&Node> = fleet.nodes.iter().collect();
    fleet.boot(&all, "debian@1")?;
    fleet.add_version(2)?;
    let (one, two, three) = (fleet.node("r01n01")?, fleet.node("r01n02")?, fleet.node("r01n03")?);

    boot_over(one, "debian@1", "debian@2", || {
        daemon.cli(&["rollout", "start", "debian@2", "--nodes", "r01n01"])?;
        daemon.kill();
        fleet.cluster.start_daemon()
    })?;
    boot_over(two, "debian@1", "debian@2", || {
        daemon.cli(&["rollout", "promote", "--batch", "100%"]).map(drop)
    })?;
    boot_over(three, "debian@2", "debian@1", || {
        daemon.cli(&["rollout", "abort"]).map(drop)
    })?;
    fleet.boot(&all, "debian@1")?;
    // Without a rollout.
    boot_over(one, "debian@1", "debian@2", || {
        daemon.cli(&["image", "promote", "debian@2"]).map(drop)
    })?;
    boot_over(two, "debian@2", "debian@1", || {
        daemon.cli(&["image", "rollback", "debian"])?;
        daemon.kill();
        fleet.cluster.start_daemon()
    })?;
    // With a rollout that is rolled back while it runs.
    daemon.cli(&["rollout", "start", "debian@2", "--nodes", "r01n03"])?;
    boot_over(three, "debian@2", "debian@1", || {
        daemon.cli(&["image", "rollback", "debian"]).map(drop)
    })?;
    daemon.stop()
}
