//! Versions that are given to no node any more and that a node runs or may be rolled back to: they are kept.

use super::fleet::{Fleet, come_up};
use std::time::Duration;
use testbed::{Result, played::Node, timeline::poll};

/// The limit of every wait, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checks that `image delete` and `image gc` keep that version, and name `holder` as the reason.
fn is_held(fleet: &Fleet, version: &str, holder: &str) -> Result {
    let daemon = &fleet.cluster.daemon;
    let refused = daemon.cli(&["image", "delete", version]).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(
        refused.contains("nothing was deleted, because these are in use") && refused.contains(holder),
        "{refused}"
    );
    let said = daemon.cli(&["image", "gc", "--keep", "1", "--yes"])?;
    assert!(said.contains(&format!("{version} stays: {holder}")), "{said}");
    let (name, number) = version.split_once('@').unwrap();
    let dir = daemon.state_dir().join("images").join(name).join(number);
    assert!(dir.join("kernel").is_file(), "{}", dir.display());
    Ok(())
}

#[test]
fn the_version_that_a_node_runs_is_kept_until_it_runs_another() -> Result {
    let fleet = Fleet::start(1, 3)?;
    let daemon = &fleet.cluster.daemon;
    let all: Vec<&Node> = fleet.nodes.iter().collect();
    fleet.boot(&all, "debian@1")?;
    fleet.add_version(2)?;
    daemon.cli(&["image", "promote", "debian@2"])?;
    let (one, two) = (fleet.node("r01n01")?, fleet.node("r01n02")?);
    fleet.boot(&[one], "debian@2")?;

    let running = "r01n02, r01n03 run it or are booting it";
    is_held(&fleet, "debian@1", running)?;
    daemon.kill();
    is_held(&fleet, "debian@1", running)?;
    fleet.cluster.start_daemon()?;
    is_held(&fleet, "debian@1", running)?;

    // A removed node, and a node that is booting the other version.
    daemon.cli(&["node", "delete", "r01n03", "--yes", "--running"])?;
    let boot = two.boot_into_kernel()?;
    assert_eq!(boot.version, "debian@2");
    let held = "r01n02 run it or are booting it; r01n02 would go back to it";
    is_held(&fleet, "debian@1", held)?;
    daemon.kill();
    fleet.cluster.start_daemon()?;
    is_held(&fleet, "debian@1", held)?;
    come_up(&boot)?;
    // The answer to `ready` comes before it is certain that the node will not be rolled back.
    let gone = poll(PATIENCE, || Ok(daemon.cli(&["image", "delete", "debian@1"]).ok()))?;
    let said = gone.unwrap_or_else(|| format!("{:#}", daemon.cli(&["image", "delete", "debian@1"]).unwrap_err()));
    assert!(said.starts_with("deleted debian@1"), "{said}");
    fleet.boot(&[one, two], "debian@2")?;
    daemon.stop()
}

#[test]
fn the_last_known_good_version_is_kept() -> Result {
    let fleet = Fleet::start(1, 2)?;
    let daemon = &fleet.cluster.daemon;
    let (one, two) = (fleet.node("r01n01")?, fleet.node("r01n02")?);
    fleet.boot(&[one, two], "debian@1")?;
    fleet.add_version(2)?;
    fleet.add_version(3)?;
    daemon.cli(&["rollout", "start", "debian@2", "--nodes", "r01n01"])?;
    let refused = format!("{:#}", daemon.cli(&["image", "delete", "debian@2"]).unwrap_err());
    assert!(refused.contains("a rollout gives it (canary)"), "{refused}");
    // The node is up, and its checks fail. After a few more boots, no recorded boot names its last known good version.
    let failed =
        serde_json::json!([{"check": "unit sshd.service", "ok": false, "detail": "unit sshd.service is failed"}]);
    let boot = one.boot_into_kernel()?;
    boot.ready(&failed)?;
    fleet.boot(&[two], "debian@1")?;
    daemon.cli(&["rollout", "abort"])?;
    daemon.cli(&["image", "promote", "debian@3"])?;
    fleet.boot(&[two], "debian@3")?;
    for _ in 0..3 {
        let boot = one.boot_into_kernel()?;
        assert_eq!(boot.version, "debian@3");
        is_held(&fleet, "debian@1", "r01n01 would go back to it")?;
    }
    daemon.kill();
    fleet.cluster.start_daemon()?;
    is_held(&fleet, "debian@1", "r01n01 would go back to it")?;
    fleet.boot(&[one], "debian@1")?;
    daemon.stop()
}
