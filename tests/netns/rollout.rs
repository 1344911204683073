//! A rollout to a thousand nodes, with a whole daemon and simulated nodes (DHCP, script, kernel, plan, overlay, ready). Some
//! of them never become ready on the new version.

#[path = "rollout/fleet.rs"]
pub(super) mod fleet;
#[path = "rollout/flips.rs"]
mod flips;
#[path = "rollout/holders.rs"]
mod holders;
#[path = "rollout/ordered.rs"]
mod ordered;
#[path = "rollout/withdrawals.rs"]
mod withdrawals;

use anyhow::{Context, ensure};
use fleet::{Boots, Fleet};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};
use testbed::{Result, played::Node};

/// The limit of every wait. The whole test takes half a minute on an idle machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The pause between two queries of the rollout when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(300);

/// A node of `rackstrap rollout status`.
struct Row {
    state: String,
    round: u64,
    image: String,
    why: String,
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The rollout, and its nodes by name.
fn status(fleet: &Fleet) -> Result<(Value, BTreeMap<String, Row>)> {
    let mut rows = fleet.cluster.daemon.json(&["rollout", "status", "debian"])?;
    let mut rollout = rows[0].take();
    let nodes = rollout["nodes"].take();
    let nodes = nodes.as_array().context("no nodes")?.iter().map(|node| {
        let row = Row {
            state: text(node, "state"),
            round: node["round"].as_u64().unwrap_or(u64::MAX),
            image: text(node, "image"),
            why: text(node, "why"),
        };
        (text(node, "node"), row)
    });
    let nodes = nodes.collect();
    Ok((rollout, nodes))
}

/// The number of nodes in that state.
fn count(rows: &BTreeMap<String, Row>, state: &str) -> usize {
    rows.values().filter(|row| row.state == state).count()
}

/// 3 % fail: most never become ready in three boots, and five of the last batch hang in their first.
fn lot(name: &str) -> Boots {
    let (rack, slot): (u32, u32) = (name[1..3].parse().unwrap(), name[4..].parse().unwrap());
    match (rack - 1) * 250 + slot {
        996.. => Boots::Hangs,
        number if number % 40 == 20 => Boots::Never,
        _ => Boots::Well,
    }
}

#[test]
fn a_thousand_nodes_are_promoted_in_batches_and_three_percent_fail() -> Result {
    let fleet = Fleet::start(4, 250)?;
    let daemon = &fleet.cluster.daemon;
    let all: Vec<&Node> = fleet.nodes.iter().collect();
    let failing = all.iter().filter(|node| lot(&node.name) != Boots::Well).count();
    assert_eq!((all.len(), failing), (1000, 30));
    fleet.boot(&all, "debian@1")?;
    let said = fleet.add_version(2)?;
    assert!(said.is_empty(), "{said}");
    let outsider = fleet.node("r04n250")?;
    fleet.boot(&[outsider], "debian@1")?;

    let start = [
        "rollout",
        "start",
        "debian@2",
        "--nodes",
        "r01n[01-04]",
        "--ready-within",
        "20s",
    ];
    let said = daemon.cli(&[&start[..], &["--max-failures", "10"]].concat())?;
    assert!(said.contains("debian@2 is given to r01n[01-04] (4 nodes)"), "{said}");
    let refused = daemon.cli(&start).unwrap_err().to_string();
    assert!(
        refused.contains("debian@2 is being rolled out (canary: 0 of 4 ready)"),
        "{refused}"
    );
    daemon.cli(&["rollout", "promote", "--batch", "10%"])?;
    fleet.boot(&[outsider], "debian@1")?;

    let end = Instant::now() + PATIENCE;
    let (mut round, mut stops) = (0, 0);
    let mut killed = false;
    let rows = loop {
        ensure!(
            Instant::now() < end,
            "it does not end:\n{}",
            daemon.cli(&["rollout", "status"])?
        );
        let (rollout, rows) = status(&fleet)?;
        let now = rollout["round"].as_u64().context("no round")?;
        assert!(now == round || now == round + 1, "from batch {round} to {now}");
        assert!(
            rows.len() <= 4 + 100 * now as usize,
            "{} nodes in batch {now}",
            rows.len()
        );
        for (name, row) in rows.iter().filter(|(_, row)| row.round < now) {
            // None of them was switched off, so the rollout waited for all.
            assert!(
                ["ready", "failed", "gone-back"].contains(&row.state.as_str()),
                "{name} of batch {} is {} in batch {now}",
                row.round,
                row.state
            );
        }
        round = now;
        if rollout["stage"] == "done" {
            break rows;
        }
        if !text(&rollout, "stopped").is_empty() {
            // Failures have exceeded the limit: no further node gets the version until the rollout is resumed.
            stops += 1;
            assert_eq!(stops, 1, "{rollout}");
            let failed = count(&rows, "failed") + count(&rows, "gone-back");
            assert!(failed > 10, "{failed} failed");
            if let Some(name) = rows
                .iter()
                .find(|(_, row)| row.state == "waiting")
                .map(|(name, _)| name)
            {
                fleet.boot(&[fleet.node(name)?], "debian@1")?;
            }
            let limit = ["rollout", "resume", "debian", "--max-failures"];
            assert!(daemon.cli(&[&limit[..], &["10"]].concat()).is_err());
            daemon.cli(&[&limit[..], &["30"]].concat())?;
            continue;
        }
        if now == 5 && !killed {
            daemon.kill();
            fleet.cluster.start_daemon()?;
            killed = true;
        }
        let due = rows
            .iter()
            .filter(|(_, row)| row.state == "waiting")
            .map(|(name, _)| fleet.node(name));
        let due = due.collect::<Result<Vec<&Node>>>()?;
        if due.is_empty() {
            // In a build without optimisation, the status of a thousand nodes takes as long as ten boots.
            thread::sleep(PAUSE);
            continue;
        }
        let others = fleet.boot_into(&due, "debian@2", |node| lot(&node.name))?;
        if !others.is_empty() {
            let (rollout, _) = status(&fleet)?;
            assert!(
                !text(&rollout, "stopped").is_empty(),
                "{others:?} were given debian@1 in {rollout}"
            );
        }
    };

    assert!(killed && stops == 1, "{stops} stops");
    assert_eq!((rows.len(), count(&rows, "ready")), (1000, 970));
    assert_eq!((count(&rows, "gone-back"), count(&rows, "failed")), (25, 5));
    for (name, row) in &rows {
        let (state, image, why) = match lot(name) {
            Boots::Well => ("ready", "debian@2", ""),
            Boots::Never => ("gone-back", "debian@1", "debian@2 did not get ready in 3 boots"),
            Boots::Hangs => ("failed", "debian@2", "not ready within 20 s (1 boots)"),
        };
        assert_eq!(
            (row.state.as_str(), row.image.as_str(), row.why.as_str()),
            (state, image, why),
            "{name}"
        );
    }
    // The version is current for all nodes, and those that were rolled back keep theirs.
    fleet.boot(&[outsider], "debian@2")?;
    fleet.boot(&[fleet.node("r01n20")?], "debian@1")?;
    let explained = daemon.cli(&["explain", "r01n20"])?;
    assert!(
        explained.contains("image debian@1: rolled back because debian@2 did not get ready in 3 boots (wanted: "),
        "{explained}"
    );
    assert!(
        explained.contains("and rolled back: debian@2 did not get ready in 3 boots")
            && explained.contains("\nrolled back to debian@1: debian@2 did not get ready in 3 boots"),
        "{explained}"
    );
    let said = daemon.cli(&["image", "rollback", "debian"])?;
    assert!(said.contains("debian@1 is current"), "{said}");
    fleet.boot(&[outsider], "debian@1")?;
    daemon.stop()
}
