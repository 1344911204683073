//! Restarts that a rollout requested, and that are cancelled with it.

use super::fleet::{Fleet, come_up};
use anyhow::Context;
use rackstrap_hostlist::{NoGroups, expand};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};
use testbed::{Result, Site, played::Boot, timeline::poll};

/// The limit of every wait, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program that writes its arguments to `log`, and fails for the nodes that `busy` names, and for several nodes at once.
fn program(dir: &Path, name: &str) -> Result<Vec<String>> {
    let (path, at) = (dir.join(name), dir.display());
    let script = format!(
        "#!/bin/sh\necho \"{name} $RACKSTRAP_NODES\" >> {at}/log\n\
         case $RACKSTRAP_NODES in *[[,]*) several=yes ;; esac\n\
         if [ {name} = drain ] && [ -s {at}/busy ]; then\n\
         if [ $several ] || grep -qx $RACKSTRAP_NODES {at}/busy; then echo jobs run; exit 1; fi\nfi\n"
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(vec![path.display().to_string()])
}

/// Three nodes that run debian@1, the new debian@2, and a directory with `log` and `busy`.
struct Scene {
    fleet: Fleet,
    boots: Vec<Boot>,
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Result<Scene> {
        let dir = tempfile::tempdir()?;
        let mut site = Site::demo();
        site.heartbeat_secs = 3600;
        site.drain = program(dir.path(), "drain")?;
        site.resume = program(dir.path(), "resume")?;
        let fleet = Fleet::of_site(&site, 1, 3)?;
        let boots = fleet.nodes.iter().map(|node| {
            let boot = node.boot_into_kernel()?;
            come_up(&boot)?;
            Ok(boot)
        });
        let boots = boots.collect::<Result<Vec<Boot>>>()?;
        fleet.add_version(2)?;
        Ok(Scene { fleet, boots, dir })
    }

    /// Sets the nodes on which jobs run.
    fn busy(&self, nodes: &str) -> Result {
        Ok(fs::write(self.dir.path().join("busy"), nodes.replace(' ', "\n"))?)
    }

    fn cli(&self, words: &[&str]) -> Result<String> {
        self.fleet.cluster.daemon.cli(words)
    }

    /// Sends a heartbeat of the node with that index; true if the answer is the order to restart.
    fn beat(&self, node: usize) -> Result<bool> {
        Ok(self.boots[node].heartbeat()?.is_some())
    }

    fn wait_for_order(&self, node: usize) -> Result {
        let told = poll(PATIENCE, || Ok(self.beat(node)?.then_some(())))?;
        told.with_context(|| format!("node {node} never gets the order to restart"))
    }

    /// Sends heartbeats until the node has the step `step` in its newest request.
    fn wait_for_step(&self, node: usize, step: &str) -> Result {
        let name = &self.fleet.nodes[node].name;
        let mut last = Value::Null;
        let there = poll(PATIENCE, || {
            self.beat(node)?;
            last = self.fleet.cluster.daemon.json(&["node", "restart", "--list"])?;
            let requests = last["requests"].as_array().cloned().unwrap_or_default();
            // The newest request with that node.
            let mut members = requests
                .iter()
                .flat_map(|r| r["nodes"].as_array().cloned().unwrap_or_default());
            let newest = members.rfind(|member| member["name"] == name.as_str());
            Ok(newest.filter(|member| member["step"]["is"] == step).map(drop))
        })?;
        there.with_context(|| format!("{name} does not get to {step}: {last}"))
    }

    /// How often `PROGRAM NODE` ran, for this node alone or for several at once.
    fn logged(&self, run: &str) -> usize {
        let (program, node) = run.split_once(' ').unwrap();
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let runs = log.lines().filter_map(|line| line.strip_prefix(program));
        let nobody = NoGroups;
        runs.filter(|nodes| expand(nodes.trim(), &nobody).is_ok_and(|nodes| nodes.contains(node)))
            .count()
    }

    fn wait_for_log(&self, line: &str, times: usize) -> Result {
        let said = poll(PATIENCE, || Ok((self.logged(line) >= times).then_some(())))?;
        said.with_context(|| format!("the log never says {line} {times} times"))
    }

    /// Restarts the node into `version`; it becomes ready.
    fn restart(&mut self, node: usize, version: &str) -> Result {
        self.boots[node] = self.fleet.nodes[node].boot_into_kernel()?;
        come_up(&self.boots[node])?;
        assert_eq!(self.boots[node].version, version);
        Ok(())
    }
}

const START: [&str; 8] = [
    "rollout",
    "start",
    "debian@2",
    "--nodes",
    "r01n[01-03]",
    "--reboot",
    "--max-down",
    "3",
];

#[test]
fn pause_abort_and_rollback_cancel_the_restarts_of_a_rollout() -> Result {
    let mut scene = Scene::new()?;
    scene.busy("r01n02 r01n03")?;
    scene.cli(&START)?;
    scene.wait_for_order(0)?;
    scene.wait_for_step(1, "draining")?;
    scene.wait_for_step(2, "draining")?;

    let held = scene.fleet.cluster.daemon.json(&["rollout", "pause"])?;
    let expected = json!({"cancelled": ["r01n02", "r01n03"], "told": ["r01n01"]});
    assert_eq!(held["restarts"], expected, "{held}");
    assert_eq!((&held["paused"], &held["image"]), (&json!(true), &json!("debian@2")));
    scene.wait_for_log("resume r01n02", 1)?;
    scene.wait_for_log("resume r01n03", 1)?;
    scene.busy("")?;
    for _ in 0..3 {
        assert!(!scene.beat(1)? && !scene.beat(2)?, "paused");
    }
    assert_eq!(scene.logged("resume r01n01"), 0, "it is on its way");
    scene.restart(0, "debian@1")?;
    scene.wait_for_log("resume r01n01", 1)?;

    // The rollout continues, one node after the other.
    scene.busy("r01n01 r01n03")?;
    scene.cli(&["rollout", "resume"])?;
    scene.wait_for_order(1)?;
    scene.restart(1, "debian@2")?;
    scene.wait_for_step(2, "draining")?;
    let said = scene.cli(&["rollout", "abort"])?;
    assert!(
        said.contains("2 restarts of the rollout cancelled: r01n[01,03]"),
        "{said}"
    );
    scene.wait_for_log("resume r01n03", 2)?;
    // The nodes that run the version leave it, and no other node restarts.
    scene.busy("")?;
    scene.wait_for_order(1)?;
    assert!(!scene.beat(0)? && !scene.beat(2)?);
    scene.restart(1, "debian@1")?;
    scene.wait_for_log("resume r01n02", 3)?;

    scene.busy("r01n01 r01n02 r01n03")?;
    scene.cli(&START)?;
    scene.wait_for_step(0, "draining")?;
    scene.wait_for_step(2, "draining")?;
    scene.fleet.cluster.daemon.kill();
    scene.fleet.cluster.start_daemon()?;
    let done = scene.fleet.cluster.daemon.json(&["image", "rollback", "debian"])?;
    assert_eq!(
        done["restarts"]["cancelled"],
        json!(["r01n01", "r01n02", "r01n03"]),
        "{done}"
    );
    assert_eq!(
        (&done["image"], &done["ended"]),
        (&json!("debian@1"), &json!("debian@2"))
    );
    scene.wait_for_log("resume r01n03", 3)?;
    scene.fleet.cluster.daemon.stop()
}

#[test]
fn a_rollout_that_stops_by_itself_restarts_no_further_node() -> Result {
    let scene = Scene::new()?;
    scene.busy("r01n01 r01n02 r01n03")?;
    scene.cli(&START)?;
    scene.wait_for_step(1, "draining")?;
    let failed = json!([{"check": "unit sshd.service", "ok": false, "detail": "unit sshd.service is failed"}]);
    scene.fleet.nodes[0].boot_into_kernel()?.ready(&failed)?;
    let stopped = poll(PATIENCE, || {
        let rollouts = scene.fleet.cluster.daemon.json(&["rollout", "status"])?;
        let stopped = rollouts[0]["stopped"].as_str().unwrap_or_default().to_owned();
        Ok((!stopped.is_empty()).then_some(stopped))
    })?;
    assert!(
        stopped
            .context("it goes on")?
            .starts_with("1 failed, and none may: r01n01")
    );
    scene.wait_for_step(1, "ended")?;
    scene.wait_for_log("resume r01n02", 1)?;
    scene.busy("")?;
    for _ in 0..3 {
        assert!(!scene.beat(1)? && !scene.beat(2)?);
    }
    scene.fleet.cluster.daemon.stop()
}
