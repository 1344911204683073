//! A thousand nodes that failed at the same moment: the daemon answers all of them, and their scripts spread them over time.

use super::rollout::fleet::Fleet;
use anyhow::{Context, ensure};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use testbed::{Result, played::Node};

/// 11 racks of 91.
const NODES: usize = 1001;
/// Nodes that ask at the same time.
const AT_ONCE: usize = 24;
/// As many nodes may begin in the same second: see `AT_ONCE` in crates/registries/src/boots/loading.rs.
const BEGIN_AT_ONCE: usize = 64;

#[test]
fn a_thousand_nodes_that_retry_are_served_in_turn() -> Result {
    let fleet = Fleet::start(11, 91)?;
    assert_eq!(fleet.nodes.len(), NODES);
    let turns: Mutex<BTreeMap<u64, Vec<(usize, String)>>> = Mutex::default();
    each(&fleet.nodes, |number, node| {
        node.dhcp()?;
        let script = retry_script(node)?;
        let turn = between(&script, "this one begins in ", " s\n").map_or(Ok(0), str::parse)?;
        let boot = between(&script, "rackstrap.plan=", " ").context("no boot in the script")?;
        ensure!(turn == 0 || script.contains(&format!("\nsleep {turn}\n")), "{script}");
        turns
            .lock()
            .unwrap()
            .entry(turn)
            .or_default()
            .push((number, boot.to_owned()));
        Ok(())
    })?;
    let turns = turns.into_inner().unwrap();
    let most = turns.values().map(Vec::len).max().unwrap_or(0);
    eprintln!(
        "of {NODES} nodes, at most {most} begin in the same second, the last after {:?} s",
        turns.keys().last()
    );
    assert!(most <= BEGIN_AT_ONCE, "{most} begin in the same second");
    assert!(*turns.keys().last().unwrap() <= 300);
    // The command line is answered in the middle of the storm, and each retry is counted.
    let status = fleet.cluster.daemon.json(&["status"])?;
    let rows = status["nodes"].as_array().context("rows")?;
    let retried = |row: &&serde_json::Value| row["retries"]["kernel"] == 1 && row["retries"]["script"] == 2;
    assert_eq!(rows.iter().filter(retried).count(), NODES);
    let counters = fleet.cluster.daemon.json(&["counters", "http"])?.to_string();
    assert!(counters.contains("paced-scripts"), "{counters}");

    for nodes in turns.values() {
        let nodes: Vec<(Node, String)> = nodes
            .iter()
            .map(|(number, boot)| (fleet.nodes[*number].clone(), boot.clone()))
            .collect();
        each(&nodes, |_, (node, boot)| {
            for file in ["kernel", "initramfs"] {
                let (status, _) = node.ask("GET", &format!("/boot/{boot}/{file}"), "", None)?;
                ensure!(status == 200, "{}: {file}: {status}", node.name);
            }
            Ok(())
        })?;
    }
    // All have loaded: the next node does not wait.
    let last = &fleet.nodes[0];
    assert!(!retry_script(last)?.contains("nodes load now"));
    let text = fleet.cluster.daemon.cli(&["timeline", &last.name])?;
    for wanted in [
        "its kernel did not load: connection timed out (iPXE error 4c0a6035); asked 2 times in vain",
        "retries of this boot: 6 times: script 4, kernel 2",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
    Ok(())
}

/// What a node gets that asks again after its kernel did not load.
fn retry_script(node: &Node) -> Result<String> {
    let path = format!(
        "/ipxe?mac={}&failed=kernel&error=0x4c0a6035&asked=2",
        node.machine.mac()
    );
    for _ in 0..50 {
        let (status, script) = node.ask("GET", &path, "", None)?;
        ensure!(status == 200, "{}: {status}: {script}", node.name);
        if !script.contains("has to ask DHCP before it boots") {
            return Ok(script);
        }
        // The daemon sends its ACK before it opens the window.
        thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("{} got no script", node.name)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// Calls `work` for each item, several at a time.
fn each<T: Sync>(items: &[T], work: impl Fn(usize, &T) -> Result + Sync) -> Result {
    let next = AtomicUsize::new(0);
    let one = || -> Result {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return Ok(()) };
            work(number, item)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE.min(items.len())).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
