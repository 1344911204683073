//! No output is wider than the terminal: tables with long values, and the help of every command.

use crate::{
    daemon::{Daemon, packet},
    terminal::{Terminal, no_line_is_wider},
};
use clap::CommandFactory;
use rackstrap::parts::cli::Cli;
use rackstrap_base::clock::Timestamp;
use rackstrap_lifecycle::rollout::{Remark, Tally};
use rackstrap_registries::{
    discovery::{LoaderReport, Observation, Place},
    rollout::{Member, Rollout, Share, Stage, State},
};
use rackstrap_store::{Batch, Store, Table};
use std::{net::Ipv4Addr, process::Command};

/// The nodes of a rollout, with a long hostlist.
const NODES: std::ops::RangeInclusive<usize> = 1..=24;

fn name(slot: usize) -> String {
    format!("lab-of-chemistry-rack{:02}-node{:02}", slot % 5 + 1, slot)
}

/// A stopped rollout with long reasons.
fn rollout(store: &Store) {
    let why = "debian-13-with-a-long-name@2 did not get ready in 3 boots: check failed: command /usr/local/sbin/check-gpu \
               --quick --with-all-of-its-options ended with 3";
    let version = |version: u32| format!("debian-13-with-a-long-name@{version}").parse().unwrap();
    let names: Vec<String> = NODES.map(name).collect();
    let now = Timestamp::now();
    let rollout = Rollout {
        number: 1,
        image: version(2),
        from: version(1),
        by: "an-administrator-with-a-long-name as root".into(),
        began: now,
        message: "the version with the drivers for the new network cards of rack three, as tried in the laboratory"
            .into(),
        stage: Stage::Promoting,
        paused: false,
        stopped: format!("24 failed, and none may: {} ({why})", names.join(",")),
        batch: Share::Percent(10),
        pause_secs: 0,
        ready_within_secs: 900,
        max_failures: 0,
        soak_secs: 0,
        reboot: false,
        max_down: Share::Percent(10),
        last_batch: 3,
        settled: None,
        ended: None,
        finished: None,
        all: 1000,
        remarks: vec![Remark {
            at: now,
            what: why.into(),
            kind: Default::default(),
        }],
        tally: Tally {
            failed: 12,
            rolled_back: 12,
            ..Tally::default()
        },
        nodes: Default::default(),
    };
    let member = |slot: usize| Member {
        state: match slot % 2 {
            0 => State::Failed { why: why.into() },
            _ => State::RolledBack { why: why.into() },
        },
        since: Timestamp(now.0 - 90_000_000),
        batch: 3,
        counts: true,
        was_degraded: false,
        proven: false,
        boots: 3,
        boot: "0123456789abcdef0123456789abcdef".into(),
        first: None,
        before_planner: Default::default(),
        stalled: String::new(),
        ordered: String::new(),
    };
    let number = 1_u64.to_be_bytes();
    let mut batch = Batch::new().put(Table::Rollouts, number, &rollout);
    for slot in NODES {
        let key = [&number[..], name(slot).as_bytes()].concat();
        batch = batch.put(Table::RolloutNodes, key, &member(slot));
    }
    for last in [9_u8, 117, 254] {
        let address = Ipv4Addr::new(10, 105, 255, last);
        let row = serde_json::json!({
            "ipaddr": address, "hwaddr": format!("52:54:00:00:00:{last:02x}"), "state": "declined",
            "since": now.0, "expires": now.0 + 86_400_000,
        });
        batch = batch.put(Table::Leases, address.octets(), &row);
    }
    store.commit_blocking(batch).unwrap();
}

/// Unknown machines with long firmware descriptions, at ports with long names.
fn machines(daemon: &Daemon) {
    packet(daemon, "52:54:00:00:00:98");
    for last in 1..=3 {
        let hwaddr = format!("52:54:00:00:00:{last:02}").parse().unwrap();
        daemon.discovery.observe(Observation {
            at: Timestamp::now(),
            hwaddr,
            uuid: None,
            arch: Some(7),
            class: String::new(),
            booting: last > 1,
            confirmed: last > 2,
            offered: true,
            no_room: None,
            place: Place {
                interface: "enp129s0f0np0".into(),
                relay: Some(Ipv4Addr::new(10, 105, 255, 254)),
                network: None,
                switch: "switch-of-the-second-row-in-the-computing-centre".into(),
                port: "HundredGigE1/0/48:2.subinterface-of-the-uplink".into(),
            },
        });
        daemon.discovery.report(
            hwaddr,
            LoaderReport {
                uuid: None,
                serial: "SN-2026-11-0123456789-ABCDEF-0123456789".into(),
                vendor: "International Company of Computing Machinery (Holdings) Incorporated".into(),
                product: "ProMachine-9000-Gen12-Second-Edition-with-water-cooling".into(),
            },
        );
    }
}

#[test]
fn wide_content_fits_the_terminal() {
    let daemon = Daemon::start_with(|dir, text| {
        rollout(&Store::open(&dir.join("store.redb")).unwrap());
        text.replace("\"r{rack:02}n", "\"lab-of-chemistry-rack{rack:02}-node")
    });
    let rows: Vec<String> = NODES
        .map(|slot| format!("{},52:54:00:00:01:{slot:02}\n", name(slot)))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nodes.csv");
    std::fs::write(&file, rows.concat()).unwrap();
    daemon.says(&format!("node import {}", file.display()));
    machines(&daemon);
    let begun = std::time::Instant::now();
    while !daemon.says("discover list --json").contains("International Company") {
        assert!(begun.elapsed().as_secs() < 30, "the machines were never seen");
    }
    assert!(daemon.says("rollout status").contains("check-gpu"));
    assert!(daemon.says("lease list").contains("10.105.255.254"));
    no_line_is_wider(
        &daemon,
        &[
            "rollout status",
            "rollout list",
            "lease list",
            "discover list",
            "status",
            "node groups",
            "counters",
        ],
    );
}

/// Every command, as an administrator types it.
fn commands() -> Vec<String> {
    fn walk(command: &clap::Command, words: &str, found: &mut Vec<String>) {
        found.push(words.to_owned());
        for sub in command.get_subcommands() {
            walk(sub, format!("{words} {}", sub.get_name()).trim(), found);
        }
    }
    let mut found = Vec::new();
    walk(&Cli::command(), "", &mut found);
    found
}

/// Columns before the text of an option. A line with less indentation is an example.
const OPTIONS: usize = 10;

/// Checks that no line is too wide, and that no line of a paragraph ends where the next word would fit: such lines show text
/// that was wrapped twice.
fn fits(command: &str, help: &str, columns: usize) {
    assert!(help.contains("Usage: "), "{command}: {help}");
    let lines: Vec<&str> = help.lines().collect();
    for pair in lines.windows(2) {
        let (line, next) = (pair[0].chars().count(), pair[1]);
        assert!(
            line <= columns,
            "{command} at {columns}: {line} columns\n{}\n{help}",
            pair[0]
        );
        let prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
        let word = next.split(' ').next().unwrap_or_default().chars().count();
        let indent = next.len() - next.trim_start().len();
        let first = next.trim_start();
        // Options, and commands in a list: continuation lines start in the column of the text.
        let goes_on = indent >= OPTIONS
            && !first.is_empty()
            && !first.starts_with(['-', '('])
            && pair[0].get(..indent).is_some_and(|head| head.ends_with("  "))
            && pair[0]
                .get(indent..)
                .is_some_and(|text| !text.starts_with([' ', '-']) && !text.is_empty());
        let word_of_option = first.split(' ').next().unwrap_or_default().chars().count();
        assert!(
            !goes_on || pair[0].ends_with(':') || line + 1 + word_of_option > columns,
            "{command} at {columns}: an option's text is broken before its time\n{}\n{next}\n{help}",
            pair[0]
        );
        assert!(
            !prose(pair[0]) || !prose(next) || pair[0].ends_with(':') || line + 1 + word > columns,
            "{command} at {columns}: broken before its time\n{}\n{next}\n{help}",
            pair[0]
        );
    }
}

#[test]
#[should_panic(expected = "an option's text is broken before its time")]
fn an_option_that_is_wrapped_twice_is_found() {
    fits(
        "node add",
        "Usage: x\n\n      --hwaddr <MAC>  Hardware address of the\n                      card",
        80,
    );
}

#[test]
fn help_fits_where_there_is_no_terminal() {
    let found = commands();
    assert!(found.len() > 60, "{found:?}");
    let asked = found
        .iter()
        .flat_map(|words| ["-h", "--help"].map(|flag| (words, flag)));
    for (words, flag) in asked {
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(env!("CARGO_BIN_EXE_rackstrap"));
        let output = command
            .args(words.split_whitespace())
            .arg(flag)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
        fits(words, &String::from_utf8(output.stdout).unwrap(), 100);
    }
}

#[test]
fn help_fits_the_terminal() {
    let asked: Vec<String> = commands()
        .iter()
        .flat_map(|words| ["-h", "--help"].map(|flag| format!("{words} {flag}")))
        .collect();
    for columns in [80, 100, 140] {
        let terminal = Terminal::open(columns, 50);
        let dir = tempfile::tempdir().unwrap();
        // Through a pipe, as with a pager, and a part of it on the screen itself.
        let script = dir.path().join("all.sh");
        let mut text = format!("r={}\n", env!("CARGO_BIN_EXE_rackstrap"));
        for (number, words) in asked.iter().enumerate() {
            text += &format!("$r {words} | cat > {}/{number}\n", dir.path().display());
        }
        std::fs::write(&script, text).unwrap();
        terminal.type_line(&format!("sh {}; echo all o''f it", script.display()));
        terminal.wait("the end", |screen| screen.lines().any(|line| line == "all of it"));
        let most = usize::from(columns).min(100);
        for (number, words) in asked.iter().enumerate() {
            let help = std::fs::read_to_string(dir.path().join(number.to_string())).unwrap();
            fits(words, &help, most);
        }
        for words in ["", "node", "node set", "rollout start", "status"] {
            terminal.type_line(&format!(
                "clear; {} {words} --help; echo end o''f it",
                env!("CARGO_BIN_EXE_rackstrap")
            ));
            terminal.wait(words, |screen| screen.lines().any(|line| line == "end of it"));
            let shown = terminal.tmux(&["capture-pane", "-p", "-J", "-S", "-"]);
            let help = shown
                .rsplit_once("prompt> clear; ")
                .map_or(shown.as_str(), |(_, help)| help);
            for line in help.lines().skip(1).filter(|line| !line.starts_with("prompt> ")) {
                let width = line.trim_end().chars().count();
                assert!(width <= most, "{words} at {columns}: {width} columns\n{line}");
            }
        }
    }
}
