//! Nodes of a rollout that carry out an order for one boot meanwhile.

use super::fleet::Fleet;
use anyhow::Context;
use serde_json::{Value, json};
use std::time::Duration;
use testbed::{
    Result,
    played::{no_disk, no_hardware},
    timeline::poll,
};

/// The row of a node in `rollout status`.
fn row(fleet: &Fleet, node: &str) -> Result<Value> {
    let status = fleet.cluster.daemon.json(&["rollout", "status", "debian"])?;
    let nodes = status[0]["nodes"].as_array().context("nodes")?;
    let found = nodes.iter().find(|row| row["node"] == node);
    found.cloned().with_context(|| format!("no {node} in {status}"))
}

/// Waits until `rollout status` has that row.
fn wait_for(fleet: &Fleet, node: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = poll(Duration::from_secs(60), || {
        Ok(Some(row(fleet, node)?).filter(|row| fits(row)))
    })?;
    match found {
        Some(row) => Ok(row),
        None => anyhow::bail!("{}", row(fleet, node)?),
    }
}

#[test]
fn an_order_for_one_boot_is_no_failed_canary_and_no_finished_one() -> Result {
    let fleet = Fleet::start(1, 3)?;
    let cli = |words: &[&str]| fleet.cluster.daemon.cli(words);
    let nodes = ["r01n01", "r01n02", "r01n03"].map(|name| fleet.node(name));
    let [first, second, third] = nodes;
    let (first, second, third) = (first?, second?, third?);
    let all = [first, second, third];
    fleet.boot(&all, "debian@1")?;
    fleet.add_version(2)?;
    // The second node runs a rescue shell when the rollout with restarts begins.
    cli(&["node", "boot", "r01n02", "--once", "rescue"])?;
    let rescue = second.boot_into_kernel()?;
    assert_eq!(rescue.plan()?["init"], "/bin/sh");
    rescue.overlay(&no_disk(), &no_hardware())?;
    rescue.ready(&json!([]))?;
    cli(&[
        "rollout",
        "start",
        "debian@2",
        "--nodes",
        "r01n[01-02]",
        "--soak",
        "1h",
        "--reboot",
    ])?;
    let shell = wait_for(&fleet, "r01n02", |row| row["ordered"] == "rescue")?;
    assert_eq!((&shell["state"], &shell["good"]), (&json!("waiting"), &json!(false)));
    let text = cli(&["rollout", "status", "debian"])?;
    assert!(text.contains("runs rescue, by an order for one boot"), "{text}");
    assert!(
        text.contains("does not wait for r01n02: an order for one boot"),
        "{text}"
    );
    // The first is restarted for the rollout, and the shell is not.
    poll(Duration::from_secs(60), || {
        Ok(cli(&["node", "restart", "--list"])?.contains("r01n01").then_some(()))
    })?
    .context("r01n01 is not restarted")?;
    assert!(!cli(&["node", "restart", "--list"])?.contains("r01n02"));

    // A canary that soaks boots another version by an order, and has not failed.
    fleet.boot(&[first], "debian@2")?;
    wait_for(&fleet, "r01n01", |row| row["state"] == "ready")?;
    cli(&["node", "boot", "r01n01", "--once", "image=debian@1"])?;
    let other = first.boot_into_kernel()?;
    assert_eq!(other.version, "debian@1");
    let held = wait_for(&fleet, "r01n01", |row| row["ordered"] == "image=debian@1")?;
    assert_eq!((&held["state"], &held["good"]), (&json!("ready"), &json!(false)));
    other.overlay(&no_disk(), &no_hardware())?;
    other.ready(&json!([]))?;
    let held = wait_for(&fleet, "r01n01", |row| row["ordered"] == "image=debian@1")?;
    assert_eq!(held["state"], "ready");

    // The version of the rollout by an order, on a node that has not got it, is no success either.
    cli(&["node", "boot", "r01n02", "--once", "image=debian@2"])?;
    let tried = second.boot_into_kernel()?;
    assert_eq!(tried.version, "debian@2");
    tried.overlay(&no_disk(), &no_hardware())?;
    tried.ready(&json!([]))?;
    let tried = wait_for(&fleet, "r01n02", |row| row["ordered"] == "image=debian@2")?;
    assert_eq!(tried["state"], "waiting");

    // The boots after the orders are those of the rollout.
    fleet.boot(&[first, second], "debian@2")?;
    for node in ["r01n01", "r01n02"] {
        let row = wait_for(&fleet, node, |row| {
            row["state"] == "ready" && row.get("ordered").is_none()
        })?;
        assert_eq!(row["good"], false, "{row}");
    }
    fleet.cluster.daemon.stop()
}
