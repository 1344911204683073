//! The real `rackstrap` command against a control socket that this process serves.

use crate::daemon::{Daemon, packet, rackstrap};
use rackstrap_base::clock::Timestamp;
use rackstrap_registries::timeline::{DhcpMessage, Event, EventKind, Level, Subject};
use std::{
    io::{BufRead, BufReader},
    process::{Output, Stdio},
};

#[test]
fn racking_a_node_by_hand() {
    let daemon = Daemon::start();
    assert!(
        daemon
            .says("status")
            .contains("the inventory has no nodes\nhelp: `rackstrap node add")
    );
    assert!(daemon.says("node list").contains("the inventory has no nodes"));
    let said = daemon.says("node add r01n01 --hwaddr 52-54-00-01-01-01");
    assert!(
        said.starts_with("r01n01 added: address 10.5.1.1, hwaddr 52:54:00:01:01:01\n"),
        "{said}"
    );
    assert!(
        said.contains("it cannot boot yet: its profile names no image"),
        "{said}"
    );
    assert_eq!(
        daemon.says("node list"),
        "NODE    ADDRESS   HWADDR             PROFILES  GROUPS\nr01n01  10.5.1.1  52:54:00:01:01:01  -         -\n"
    );
    assert_eq!(
        daemon.complains("node add r01n07 --hwaddr 52:54:00:01:01:01"),
        "rackstrap: node r01n07: hwaddr 52:54:00:01:01:01 already belongs to r01n01; if the machine was moved: rackstrap \
         node rename r01n01 r01n07; if r01n01 is gone: rackstrap node delete r01n01, then try again\n"
    );
    assert!(
        daemon
            .complains("node show r01n02")
            .contains("node r01n02 is not in the inventory")
    );
    let shown = daemon.says("node show r01n01");
    assert!(shown.contains("state:    absent (never seen)"), "{shown}");
    let explained = daemon.says("explain 10.5.1.1");
    assert!(explained.contains("- disk layout scratch v1 on auto"), "{explained}");
    change_nodes(&daemon);
    assert!(daemon.complains("node delete r01n02").contains("add --yes"));
    assert_eq!(
        daemon.says("node delete r01n02 --yes"),
        "r01n02 deleted; hwaddr 52:54:00:01:01:02 is free again\n"
    );
    let history = daemon.says("node history r01n01");
    let who = history.lines().filter(|line| line.contains("root")).count();
    assert_eq!(who, 7, "{history}");
    daemon.cancel.cancel();
    daemon.runtime.shutdown_background();
}

/// Changes everything that can be changed of r01n01, whose name is r01n02 afterwards.
fn change_nodes(daemon: &Daemon) {
    assert_eq!(
        daemon.says("node set r01n01 --join big --join new --dry-run"),
        "r01n01: groups - -> big new\nnothing was changed: --dry-run\n"
    );
    assert_eq!(
        daemon.says("node set r01n01 --join big --join new"),
        "r01n01: groups - -> big new\n"
    );
    assert_eq!(
        daemon.says("node set r01n01 --join big"),
        "nothing to change: the nodes already have these settings\n"
    );
    assert!(daemon.says("node show r01n01").contains("groups:   big, new"));
    assert_eq!(
        daemon.says("node set r01n01 --attr location=row3 --attr owner=a=b"),
        "r01n01: attribute location - -> row3, attribute owner - -> a=b\n"
    );
    let shown = daemon.says("node show r01n01");
    assert!(shown.contains("location=row3, owner=a=b"), "{shown}");
    let exported = daemon.says("node export r01n01");
    assert!(exported.contains("attributes = { location = \"row3\", owner = \"a=b\" }"));
    let refused = daemon.complains("node set r01n01 --attr a-b=x");
    assert!(refused.contains("not an attribute name"), "{refused}");
    assert_eq!(
        daemon.says("node unset r01n01 --attr location --attr owner"),
        "r01n01: attribute location row3 -> -, attribute owner a=b -> -\n"
    );
    assert!(
        daemon
            .complains("node set r01n01 --profile x")
            .contains("profile 'x' does not exist")
    );
    assert_eq!(
        daemon.says("node unset r01n01 --groups"),
        "r01n01: groups big new -> -\n"
    );
    assert_eq!(
        daemon.says("node replace r01n01 --hwaddr 52:54:00:01:01:02"),
        "r01n01: hwaddr 52:54:00:01:01:01 -> 52:54:00:01:01:02\n"
    );
    assert_eq!(
        daemon.says("node rename r01n01 r01n02"),
        "r01n01: name r01n01 -> r01n02, address 10.5.1.1 -> 10.5.1.2\n"
    );
    let settings = daemon.says("node show r01n02");
    assert!(settings.contains("layout"), "{settings}");
}

/// Repeats the command until its output contains `text`.
fn until(daemon: &Daemon, command: &str, text: &str) -> String {
    for _ in 0..600 {
        let said = daemon.says(command);
        if said.contains(text) {
            return said;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{command} never said {text}: {}", daemon.says(command));
}

#[test]
fn nodes_come_from_files_and_go_to_files() {
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let csv = file(
        "nodes.csv",
        "name,hwaddr,groups\nr01n01,52:54:00:00:00:01,big\nr01n02,52:54:00:00:00:02,\n",
    );
    let planned = daemon.says(&format!("node import {csv} --dry-run"));
    assert!(
        planned.contains("r01n01: added: hwaddr 52:54:00:00:00:01, groups big") && planned.contains("--dry-run"),
        "{planned}"
    );
    assert!(daemon.says("node list").contains("the inventory has no nodes"));
    let done = daemon.says(&format!("node import {csv}"));
    assert!(done.ends_with("2 added, 0 changed, 0 unchanged\n"), "{done}");
    let dhcpd = file(
        "dhcpd.conf",
        "host r01n01 { hardware ethernet 52:54:00:00:00:01; fixed-address 10.5.1.1; }\n\
         host r01n03 { hardware ethernet 52:54:00:00:00:03; }\n",
    );
    let done = daemon.says(&format!("node import {dhcpd}"));
    assert!(done.ends_with("1 added, 0 changed, 1 unchanged\n"), "{done}");
    // One bad line among many: nothing is imported, and the message names the line.
    let mut text = String::from("name,hwaddr\n");
    for n in 1..=250 {
        text += &format!("r02n{n:02},52:54:00:00:02:{n:02x}\n");
    }
    text += "r03n01,52:54:00:00:00:02\n";
    let bad = file("bad.csv", &text);
    let why = daemon.complains(&format!("node import {bad}"));
    assert!(
        why.contains("bad.csv:252:8: node r03n01: hwaddr 52:54:00:00:00:02 already belongs to r01n02"),
        "{why}"
    );
    assert_eq!(daemon.says("node list").lines().count(), 4);
    // An export is imported again.
    let exported = daemon.says("node export");
    assert!(exported.contains("52:54:00:00:00:03"), "{exported}");
    let toml = file("nodes.toml", &exported);
    let same = daemon.says(&format!("node import {toml}"));
    assert_eq!(same, "0 added, 0 changed, 3 unchanged\n");
    assert!(
        daemon
            .complains("node export r09n09")
            .contains("node r09n09 is not in the inventory")
    );
}

#[test]
fn racking_in_order_and_single_machines() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says("discover list"), "no machine is waiting\n");
    packet(&daemon, "52:54:00:00:00:01");
    let listed = until(&daemon, "discover list", "52:54:00:00:00:01");
    assert!(
        listed.contains("x64 UEFI") && listed.contains("switch sw1 port 7"),
        "{listed}"
    );
    let accepted = daemon.says("discover accept 52:54:00:00:00:01 r01n01");
    let cannot = "52:54:00:00:00:01 is r01n01 now\nit cannot boot yet: its profile names no image;";
    assert!(accepted.starts_with(cannot), "{accepted}");
    assert!(
        daemon
            .complains("discover accept 52:54:00:00:00:01 r01n02")
            .contains("is already r01n01")
    );
    assert!(
        daemon
            .complains("discover accept 52:54:00:00:00:02 r01n02")
            .contains("52:54:00:00:00:02 is not waiting to be racked")
    );

    assert!(
        daemon
            .complains("discover stop")
            .contains("no rack is being filled\nhelp: `rackstrap discover start")
    );
    let begun = daemon.says("discover start r03 --from n04 --group new --for 90m");
    assert!(
        begun.starts_with("rack r03 is being filled from r03n04 on, until "),
        "{begun}"
    );
    assert!(
        daemon
            .complains("discover start r04")
            .contains("its machines cannot be told from those of r04")
    );
    for (hwaddr, name) in [("52:54:00:00:00:02", "r03n04"), ("52:54:00:00:00:03", "r03n05")] {
        packet(&daemon, hwaddr);
        until(&daemon, "node list", name);
    }
    let history = daemon.says("node history r03n05");
    assert!(
        history.contains("filling r03, root") && history.contains("groups new"),
        "{history}"
    );
    assert_eq!(
        daemon.says("discover undo"),
        "52:54:00:00:00:03 is no longer r03n05 and waits; the next position is r03n05 again\n"
    );
    let listed = daemon.says("discover list");
    assert!(
        listed.contains("undone; place it: rackstrap discover accept") && listed.contains("next: r03n05"),
        "{listed}"
    );
    assert_eq!(
        daemon.says("discover ignore 52:54:00:00:00:03"),
        "52:54:00:00:00:03 is ignored\n"
    );
    assert!(
        daemon
            .says("discover list")
            .contains("1 machine ignored; --all shows them")
    );
    assert_eq!(
        daemon.says("discover stop r03"),
        "stopped filling rack r03; 1 machine placed\n"
    );
}

#[test]
fn status_and_timelines() {
    let daemon = Daemon::start();
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01");
    let node = Subject::Node("r01n01".into());
    let now = Timestamp::now();
    for _ in 0..3 {
        daemon.recorder.record(
            node.clone(),
            Event::new(now, EventKind::Dhcp(DhcpMessage::Discover), Level::Ok, "offer 10.5.1.1"),
        );
    }
    let failed = Event::new(now, EventKind::Script, Level::Error, "no image");
    daemon.recorder.record(node, failed.of_boot("abc"));
    let stranger = Subject::Machine("52:54:00:00:00:99".parse().unwrap());
    daemon.recorder.record(
        stranger,
        Event::new(now, EventKind::Dhcp(DhcpMessage::Discover), Level::Ok, "unknown"),
    );
    packet(&daemon, "52:54:00:00:00:98");
    packet(&daemon, "52:54:00:00:00:99");
    until(&daemon, "discover list", "52:54:00:00:00:99");
    daemon.says("discover ignore 52:54:00:00:00:98");
    let status = daemon.says("status");
    assert!(
        status.contains("\n1 unknown machine ignored: rackstrap discover list --all\n\nNODE"),
        "{status}"
    );
    assert!(
        status.contains("r01n01") && status.contains("loading") && status.contains("script: no image"),
        "{status}"
    );
    assert!(
        status.contains("1 node: 1 loading; 1 unknown machine waits: rackstrap discover accept 52:54:00:00:00:99 NAME"),
        "{status}"
    );
    assert!(!status.contains('\u{1b}'), "no colours in a pipe: {status:?}");
    let json: serde_json::Value = serde_json::from_str(&daemon.says("status --json")).unwrap();
    assert_eq!(json["nodes"][0]["state"], "loading");
    let timeline = daemon.says("timeline r01n01");
    assert!(
        timeline.contains("dhcp discover") && timeline.contains("not ready after"),
        "{timeline}"
    );
    let json: serde_json::Value = serde_json::from_str(&daemon.says("timeline r01n01 --boot last --json")).unwrap();
    assert_eq!(json["events"][0]["count"], 3);
    assert!(
        daemon
            .complains("timeline r01n01 --boot nope")
            .contains("boot 'nope' does not exist; its timeline has: abc")
    );
    assert!(daemon.says("timeline 52:54:00:00:00:99").contains("unknown"));
    assert!(daemon.says("layout list").contains("tmp, var"));
    assert!(daemon.says("layout show scratch").contains("/var"));
    assert!(
        daemon
            .complains("layout show scrach")
            .contains("the site file has: scratch")
    );
    assert!(daemon.says("lease list").contains("no leases"));
    assert_eq!(daemon.says("counters dhcp"), "COUNTER      COUNT\ndhcp offers      3\n");
    assert_eq!(daemon.says("reload"), "site.toml taken over\n");
    let reloaded: serde_json::Value = serde_json::from_str(&daemon.says("reload --json")).unwrap();
    assert_eq!(
        (&reloaded["done"], &reloaded["message"]),
        (&true.into(), &"site.toml taken over".into())
    );
    daemon.runtime.shutdown_background();
}

#[test]
fn watch_ends_on_an_interrupt_and_survives_a_stop_of_the_daemon() {
    let daemon = Daemon::start();
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01");
    let watch = |words: &str| {
        let mut command = daemon.command(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = watch("status --watch");
    let mut json = watch("status --watch --json");
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut troubles = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.contains("r01n01") && line.contains("absent")));
    let event = Event::new(Timestamp::now(), EventKind::Ready, Level::Ok, "up");
    daemon.recorder.record(Subject::Node("r01n01".into()), event);
    assert!(lines.any(|line| line.contains("r01n01") && line.contains("ready")));
    daemon.cancel.cancel();
    assert!(troubles.any(|line| line.contains("no rackstrap daemon answers")));
    let mut troubles = BufReader::new(json.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(troubles.any(|line| line.contains("no rackstrap daemon answers")));
    for child in [&mut child, &mut json] {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(child.wait().unwrap().success());
    }
    assert!(!lines.any(|line| line.contains("no rackstrap daemon answers")));
    let answers = json.wait_with_output().unwrap().stdout;
    let answers: Vec<serde_json::Value> = (String::from_utf8(answers).unwrap().lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.last().unwrap()["nodes"][0]["state"], "ready");
    daemon.runtime.shutdown_background();
}

#[test]
fn errors_are_lines_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("site.toml");
    let run = |words: &str| rackstrap(&config).args(words.split_whitespace()).output().unwrap();
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let missing = run("status");
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing).starts_with("rackstrap: site file"), "{}", text(&missing));
    std::fs::write(
        &config,
        format!("[server]\nsocket = \"{}/none\"\n", dir.path().display()),
    )
    .unwrap();
    let absent = run("status");
    assert_eq!(absent.status.code(), Some(1));
    assert!(
        text(&absent).contains("no rackstrap daemon answers on"),
        "{}",
        text(&absent)
    );
    for usage in [
        "stat",
        "node",
        "node add r01n01",
        "node add r01n01 --hwaddr 1:2",
        "completion tcl",
    ] {
        let output = run(usage);
        assert_eq!(output.status.code(), Some(2), "{usage}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{usage}");
    }
    assert!(text(&run("node add r01n01 --hwaddr 1:2")).contains("write six bytes in hex, such as 52:54:00:01:01:01"));
    let help = run("--help");
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("rackstrap node add r01n01 --hwaddr"));
    let completion = run("completion bash");
    assert!(String::from_utf8_lossy(&completion.stdout).contains("COMPLETE=\"bash\""));
}
