//! Health checks and restarts, with simulated nodes: what they report, which orders they get, and what survives a restart of
//! the daemon.

use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};
use testbed::{
    Cluster, Result, Site,
    played::{Boot, no_disk, no_hardware},
    timeline::poll,
};

/// The limit of every wait, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

fn wait_for_order(boot: &Boot) -> Result<Value> {
    let order = poll(PATIENCE, || boot.heartbeat())?;
    Ok(order.expect("the node never gets the order to restart"))
}

/// The timeline's rows of one step.
fn said(cluster: &Cluster, node: &str, step: &str) -> Result<Vec<String>> {
    let timeline = cluster.daemon.json(&["timeline", node])?;
    let events = timeline["events"].as_array().cloned().unwrap_or_default();
    let of_step = events.iter().filter(|event| event["step"] == step);
    Ok(of_step
        .filter_map(|event| event["detail"].as_str().map(str::to_owned))
        .collect())
}

#[test]
fn a_node_is_degraded_while_its_checks_fail() -> Result {
    let mut site = Site::demo();
    site.heartbeat_secs = 60;
    site.default_profile().checks = Some(vec!["unit sshd.service".to_owned(), "mount /scratch".to_owned()]);
    let cluster = Cluster::start(site)?;
    let node = cluster.played("r01n01")?.boot()?;
    let plan = node.plan()?;
    assert_eq!(plan["health"]["checks"], json!(["unit sshd.service", "mount /scratch"]));
    let shown = cluster.daemon.json(&["node", "show", "r01n01"])?;
    let settings = shown["settings"].as_array().cloned().unwrap_or_default();
    assert!(
        (settings.iter()).any(|row| row["key"] == "checks"
            && row["value"] == "unit sshd.service, mount /scratch"
            && row["profile"] == "default"),
        "{settings:?}"
    );

    let result = |check: &str, ok: bool, detail: &str| json!({"check": check, "ok": ok, "detail": detail});
    let many = vec![result("mount /", true, ""); rackstrap_wire::MOST_RESULTS + 1];
    assert_eq!(node.post("ready", json!({"detail": "a test", "checks": many}))?.0, 400);
    node.ready(&json!([
        result("unit sshd.service", false, "unit sshd.service is failed"),
        result("mount /scratch", true, ""),
    ]))?;
    let trouble = "check failed: unit sshd.service is failed";
    let row = cluster.status("r01n01")?;
    assert_eq!(
        (row["state"].as_str(), row["last_error"].as_str()),
        (Some("degraded"), Some(trouble))
    );
    assert_eq!(said(&cluster, "r01n01", "ready")?, [trouble]);
    // A repeated report makes no event. When the check passes again, the node is ready; when it fails again, it is degraded.
    assert_eq!(
        node.post("heartbeat", json!({"trouble": trouble, "healthy": false}))?.0,
        204
    );
    assert!(said(&cluster, "r01n01", "heartbeat")?.is_empty());
    assert_eq!(node.post("heartbeat", json!({"trouble": "", "healthy": true}))?.0, 204);
    let row = cluster.status("r01n01")?;
    assert_eq!(
        (row["state"].as_str(), row["last_error"].as_str()),
        (Some("ready"), Some(""))
    );
    let trouble = "check failed: /scratch is not mounted";
    assert_eq!(
        node.post("heartbeat", json!({"trouble": trouble, "healthy": false}))?.0,
        204
    );
    let row = cluster.status("r01n01")?;
    assert_eq!(
        (row["state"].as_str(), row["last_error"].as_str()),
        (Some("degraded"), Some(trouble))
    );
    cluster.daemon.stop()
}

#[test]
fn pending_and_failed_checks_are_reported_everywhere() -> Result {
    let mut site = Site::demo();
    site.heartbeat_secs = 60;
    site.default_profile().checks = Some(vec!["unit sshd.service".to_owned()]);
    site.more = "[[mount]]\nwhat = \"10.5.0.9:/home\"\nwhere = \"/home\"\ntype = \"nfs\"\nrequired = true\n\
                 [[mount]]\nwhat = \"tmpfs\"\nwhere = \"/mnt/fast\"\ntype = \"tmpfs\"\n"
        .to_owned();
    let cluster = Cluster::start(site.clone())?;
    let daemon = &cluster.daemon;
    let node = cluster.played("r01n01")?.boot()?;
    let plan = node.plan()?;
    // Only the checks that are required.
    assert_eq!(plan["health"]["checks"], json!(["unit sshd.service", "mount /home"]));
    assert_eq!(plan["health"]["mounts"], json!(["/home"]));
    let states = || -> Result<Vec<(String, String)>> {
        let shown = daemon.json(&["node", "show", "r01n01"])?;
        let checks = shown["checks"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(checks
            .iter()
            .map(|row| (text(&row["check"]), text(&row["state"])))
            .collect())
    };
    let are = |unit: &str, mount: &str| {
        vec![
            ("unit sshd.service".to_owned(), unit.to_owned()),
            ("mount /home".to_owned(), mount.to_owned()),
        ]
    };
    assert_eq!(states()?, are("unknown", "unknown"));

    let result = |check: &str, ok: bool, detail: &str| json!({"check": check, "ok": ok, "detail": detail});
    let seen = "/home is not mounted: mount ended with exit status 32, with the output: mount.nfs: Connection refused";
    let waits = json!({"checks": [
        result("unit sshd.service", true, ""),
        result("mount /home", false, seen),
        result("command /not/in/the/plan", false, "\u{1b}[2J"),
    ]});
    assert_eq!(node.post("waiting", waits.clone())?.0, 204);
    let row = cluster.status("r01n01")?;
    assert_ne!(row["state"], "ready");
    let error = row["last_error"].as_str().unwrap_or_default();
    assert!(
        error.contains("waits, because this does not hold yet") && error.contains(seen),
        "{error}"
    );
    assert_eq!(states()?, are("holds", "waits"));
    for command in [["node", "show"], ["explain", ""]] {
        let words: Vec<&str> = command
            .into_iter()
            .chain(["r01n01"])
            .filter(|word| !word.is_empty())
            .collect();
        let text = daemon.cli(&words)?;
        assert!(
            text.contains("mount /home") && text.contains("waits") && text.contains("mount.nfs: Connection refused"),
            "{text}"
        );
        assert!(!text.contains("/not/in/the/plan"), "{text}");
    }
    let explained = daemon.json(&["explain", "r01n01"])?;
    assert_eq!(
        explained["decision"]["checks"],
        json!(["unit sshd.service", "mount /home", "login"])
    );
    assert_eq!(explained["pinned"]["checks"][1]["detail"], seen);
    let (stranger, _) = node.post("waiting", json!({"checks": [], "token": "0"}))?;
    assert_eq!(stranger, 403);

    // The time limit for the checks is over.
    let checks = json!([
        result("unit sshd.service", true, ""),
        result("mount /home", false, seen)
    ]);
    node.ready(&checks)?;
    assert_eq!(states()?, are("holds", "failed"));
    let row = cluster.status("r01n01")?;
    assert_eq!(
        (row["state"].as_str(), row["last_error"].as_str()),
        (Some("degraded"), Some(format!("check failed: {seen}").as_str()))
    );
    // A report that was sent before and arrives now changes nothing.
    assert_eq!(node.post("waiting", waits)?.0, 204);
    assert_eq!(states()?, are("holds", "failed"));
    let checks = json!([result("unit sshd.service", true, ""), result("mount /home", true, "")]);
    let well = json!({"trouble": "", "healthy": true, "checks": checks});
    assert_eq!(node.post("heartbeat", well)?.0, 204);
    assert_eq!(states()?, are("holds", "holds"));
    assert_eq!(cluster.status("r01n01")?["state"], "ready");

    // The check that agents run by themselves; an older agent does not report it.
    assert_eq!(plan["health"]["login"], true);
    let kept_out = "users cannot log in because /run/nologin exists; remove it";
    let trouble = format!("check failed: {kept_out}");
    let checks = json!([result("login", false, kept_out)]);
    let ill = json!({"trouble": trouble, "healthy": false, "checks": checks});
    assert_eq!(node.post("heartbeat", ill)?.0, 204);
    assert_eq!(states()?.pop(), Some(("login".to_owned(), "failed".to_owned())));
    let row = cluster.status("r01n01")?;
    assert_eq!(
        (row["state"].as_str(), row["last_error"].as_str()),
        (Some("degraded"), Some(trouble.as_str()))
    );
    for text in [
        daemon.cli(&["node", "show", "r01n01"])?,
        daemon.cli(&["explain", "r01n01"])?,
    ] {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(kept_out)).collect();
        assert!(
            lines.iter().any(|line| line.trim_start().starts_with("login")),
            "{text}"
        );
    }
    site.default_profile().check_login = Some(false);
    daemon.reload(&site)?;
    let node = cluster.played("r01n02")?.boot()?;
    let plan = node.plan()?;
    assert!(plan["health"].get("login").is_none(), "{plan}");
    node.ready(&json!([result("login", false, kept_out)]))?;
    let shown = daemon.json(&["node", "show", "r01n02"])?;
    assert!(!shown["checks"].to_string().contains("nologin"), "{shown}");
    assert!(
        shown["settings"]
            .to_string()
            .contains(r#""key":"check-login","profile":"default","value":"false""#),
        "{shown}"
    );
    cluster.daemon.stop()
}

#[test]
fn a_network_that_is_slower_or_smaller_than_in_the_site_file_makes_its_node_degraded() -> Result {
    let mut site = Site::demo();
    site.heartbeat_secs = 60;
    site.default_profile().check_login = Some(false);
    site.more =
        "[[network]]\nname = \"fast\"\ntype = \"ethernet\"\nmatch = { name = \"eno2\" }\nspeed = \"10G\"\nmtu = 9000\n\
                 node-address = \"10.7.{rack}.{slot}\"\nprefix = 16\n"
            .to_owned();
    let cluster = Cluster::start(site.clone())?;
    let daemon = &cluster.daemon;
    let node = cluster.played("r01n01")?.boot()?;
    let plan = node.plan()?;
    assert_eq!(
        plan["networks"],
        json!(["fast type=ethernet card=eno2 address=10.7.1.1/16 mtu=9000 speed=10000"])
    );
    let result = |ok: bool, detail: &str| json!([{"check": "network fast", "ok": ok, "detail": detail}]);
    let shows = |state: &str, error: &str, check: &str| -> Result {
        let row = cluster.status("r01n01")?;
        assert_eq!(
            (row["state"].as_str(), row["last_error"].as_str()),
            (Some(state), Some(error))
        );
        let shown = daemon.json(&["node", "show", "r01n01"])?;
        let rows = shown["checks"].as_array().cloned().unwrap_or_default();
        let states: Vec<Option<&str>> = rows.iter().map(|row| row["state"].as_str()).collect();
        assert_eq!(states, [Some(check)], "{shown}");
        Ok(())
    };
    // As the agent writes them (`problem` in crates/agent/src/networks/watch.rs).
    let slow = "network fast: fast came up at 100 Mb/s, not at 10000 Mb/s";
    node.ready(&result(false, slow))?;
    shows("degraded", &format!("check failed: {slow}"), "failed")?;
    assert_eq!(said(&cluster, "r01n01", "ready")?, [format!("check failed: {slow}")]);
    for command in [["node", "show"], ["explain", "--"]] {
        let text = daemon.cli(&[&command[..], &["r01n01"]].concat())?;
        assert!(text.contains("network fast") && text.contains("100 Mb/s"), "{text}");
    }
    let well = json!({"trouble": "", "healthy": true, "checks": result(true, "")});
    assert_eq!(node.post("heartbeat", well.clone())?.0, 204);
    shows("ready", "", "holds")?;
    // While it runs.
    let small = "network fast: fast has the MTU 1500, not 9000";
    let trouble = format!("check failed: {small}");
    let ill = json!({"trouble": trouble, "healthy": false, "checks": result(false, small)});
    assert_eq!(node.post("heartbeat", ill)?.0, 204);
    shows("degraded", &trouble, "failed")?;
    let listed = daemon.cli(&["status"])?;
    assert!(listed.contains("degraded") && listed.contains("MTU 1500"), "{listed}");
    assert_eq!(node.post("heartbeat", well)?.0, 204);
    shows("ready", "", "holds")?;
    // A result about a network that the plan does not have counts for nothing.
    let unknown = json!([{"check": "network slow", "ok": false, "detail": "?"}]);
    let stranger = json!({"trouble": "", "healthy": true, "checks": unknown});
    assert_eq!(node.post("heartbeat", stranger)?.0, 204);
    assert!(!daemon.cli(&["node", "show", "r01n01"])?.contains("network slow"));
    cluster.daemon.stop()
}

/// A program that writes its arguments to `log`, and fails while `busy` exists.
fn program(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let path = cluster.dir().join(name);
    let dir = cluster.dir().display();
    let script = format!(
        "#!/bin/sh\necho \"{name} $RACKSTRAP_NODES $RACKSTRAP_REASON\" >> {dir}/log\n\
         if [ -e {dir}/busy ]; then echo jobs run; exit 1; fi\n"
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(vec![path.display().to_string()])
}

/// A daemon with programs that log, and two ready nodes.
fn two_nodes() -> Result<(Cluster, PathBuf, [Boot; 2])> {
    let mut site = Site::demo();
    site.heartbeat_secs = 60;
    let cluster = Cluster::start(site.clone())?;
    site.drain = program(&cluster, "drain")?;
    site.resume = program(&cluster, "resume")?;
    cluster.daemon.reload(&site)?;
    let one = cluster.played("r01n01")?.boot()?;
    let two = cluster.played("r01n02")?.boot()?;
    one.ready(&json!([]))?;
    two.ready(&json!([]))?;
    let log = cluster.dir().join("log");
    Ok((cluster, log, [one, two]))
}

#[test]
fn nodes_are_drained_ordered_once_and_resumed_one_at_a_time_across_restarts_of_the_daemon() -> Result {
    let (cluster, log, [one, two]) = two_nodes()?;
    let busy = cluster.dir().join("busy");
    fs::write(&busy, "")?;
    let want = ["node", "restart", "r01n[01-02]", "--reason", "new kernel"];
    let planned = cluster.daemon.json(&[&want[..], &["--dry-run"]].concat())?;
    assert_eq!(planned["nodes"], json!(["r01n01", "r01n02"]));
    assert!(!log.exists(), "--dry-run");
    cluster.daemon.cli(&[&want[..], &["--yes"]].concat())?;

    let failed = poll(PATIENCE, || {
        let error = cluster.status("r01n01")?["last_error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(error
            .contains("ended with exit status: 1, with the output: jobs run")
            .then_some(error))
    })?;
    assert!(failed.is_some(), "{}", cluster.status("r01n01")?);
    assert_eq!(
        (one.heartbeat()?, two.heartbeat()?),
        (None, None),
        "it could not be drained"
    );
    let (stranger, _) = two.post("heartbeat", json!({"trouble": "", "token": one.token}))?;
    assert_eq!(stranger, 403);
    cluster.daemon.kill();
    fs::remove_file(&busy)?;
    cluster.start_daemon()?;

    let order = wait_for_order(&one)?;
    assert_eq!(order["reason"], "new kernel");
    assert_eq!(
        (one.heartbeat()?, two.heartbeat()?),
        (None, None),
        "told once, and one at a time"
    );
    // This is read before the daemon is killed, as the timeline is written with a delay.
    let restarts = said(&cluster, "r01n01", "restart")?;
    assert!(
        restarts.contains(&"ordered to restart: new kernel".to_owned()),
        "{restarts:?}"
    );
    cluster.daemon.kill();
    cluster.start_daemon()?;
    assert_eq!(
        (one.heartbeat()?, two.heartbeat()?),
        (None, None),
        "not even by another daemon"
    );
    let note = json!({"trouble": "", "restart": {"id": order["id"], "detail": "restarts with systemctl reboot"}});
    assert_eq!(one.post("heartbeat", note)?.0, 204);
    let restarts = said(&cluster, "r01n01", "restart")?;
    assert_eq!(
        restarts.last().map(String::as_str),
        Some("restarts with systemctl reboot"),
        "{restarts:?}"
    );

    let before = one;
    let one = before.node.boot()?;
    assert_eq!(two.heartbeat()?, None, "the first is not ready yet");
    one.ready(&json!([]))?;
    let second = wait_for_order(&two)?;
    assert_eq!(second["id"], order["id"]);
    assert_eq!(one.heartbeat()?, None);
    assert_eq!(
        before.post("heartbeat", json!({"trouble": ""}))?.0,
        204,
        "a boot that is over"
    );
    let two = two.node.boot()?;
    two.ready(&json!([]))?;
    let over = poll(PATIENCE, || {
        let list = cluster.daemon.json(&["node", "restart", "--list"])?;
        let nodes = list["requests"][0]["nodes"].as_array().cloned().unwrap_or_default();
        let over = nodes
            .iter()
            .filter(|node| node["step"] == json!({"is": "ended", "how": "restarted"}))
            .count();
        Ok((over == 2).then_some(()))
    })?;
    assert!(
        over.is_some(),
        "{}",
        cluster.daemon.cli(&["node", "restart", "--list"])?
    );
    assert_eq!((one.heartbeat()?, two.heartbeat()?), (None, None));
    let mut lines: Vec<String> = fs::read_to_string(&log)?.lines().map(str::to_owned).collect();
    // It failed once, or several times on a slow machine.
    lines.dedup();
    let expected = ["drain r01n01", "resume r01n01", "drain r01n02", "resume r01n02"];
    assert_eq!(lines, expected.map(|line| format!("{line} new kernel")));
    let shown = cluster.daemon.cli(&["node", "restart", "--list"])?;
    assert!(shown.contains("restarted: 2 (r01n[01-02])"), "{shown}");
    cluster.daemon.stop()
}

#[test]
fn a_node_that_does_not_boot_stops_the_restart() -> Result {
    let (cluster, log, [one, two]) = two_nodes()?;
    let nodes = [
        "node",
        "restart",
        "r01n[01-02]",
        "--max-down",
        "1",
        "--ready-within",
        "10s",
    ];
    cluster
        .daemon
        .cli(&[&nodes[..], &["--reason", "x", "--yes"]].concat())?;
    wait_for_order(&one)?;
    let stopped = poll(PATIENCE, || {
        let list = cluster.daemon.json(&["node", "restart", "--list"])?;
        let stopped = list["requests"][0]["stopped"].as_str().unwrap_or_default().to_owned();
        Ok((!stopped.is_empty()).then_some(stopped))
    })?;
    assert_eq!(
        stopped.as_deref(),
        Some("r01n01 not ready within 10s of the order to restart")
    );
    let error = cluster.status("r01n01")?["last_error"].clone();
    assert!(
        error.as_str().is_some_and(|error| error.contains("not ready in time")),
        "{error}"
    );
    assert_eq!(two.heartbeat()?, None);
    assert_eq!(fs::read_to_string(&log)?, "drain r01n01 x\n");
    let shown = cluster.daemon.cli(&["node", "restart", "--list"])?;
    assert!(
        shown.contains("late: 1 (r01n01)") && shown.contains("not restarted: 1 (r01n02)"),
        "{shown}"
    );
    let cancelled = cluster.daemon.json(&["node", "restart", "--cancel", "r01n01"])?;
    assert_eq!(cancelled["cancelled"], json!(["r01n01"]));
    cluster.daemon.stop()
}

#[test]
fn the_running_system_of_a_renamed_node_reports_under_its_new_name() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let node = cluster.played("r01n01")?.boot()?;
    node.overlay(&no_disk(), &no_hardware())?;
    node.ready(&json!([]))?;
    let rename = ["node", "rename", "r01n01", "r01n02"];
    let refused = format!("{:#}", cluster.daemon.cli(&rename).expect_err("it runs"));
    assert!(refused.contains("--running"), "{refused}");
    cluster.daemon.cli(&[&rename[..], &["--running"]].concat())?;
    // Its system keeps the old address, and knows nothing of the change.
    assert_eq!(node.heartbeat()?, None);
    assert_eq!(cluster.status("r01n02")?["state"], "ready");
    let trouble = "/tmp is full";
    assert_eq!(node.post("heartbeat", json!({"trouble": trouble}))?.0, 204);
    assert_eq!(cluster.status("r01n02")?["last_error"], trouble);
    // And is reached from the server, also after a restart of the daemon.
    cluster.daemon.stop()?;
    cluster.start_daemon()?;
    cluster.daemon.cli(&["node", "restart", "r01n02", "--yes"])?;
    wait_for_order(&node)?;
    cluster.daemon.stop()
}
