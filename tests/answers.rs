//! What commands say of an empty selection, of several faults in one input, and of requests without an effect.

use crate::daemon::{Daemon, packet};
use rackstrap_store::{Batch, Table};
use std::net::Ipv4Addr;

/// `r01n01` to `r01n03`.
fn nodes() -> Daemon {
    let daemon = Daemon::start_with(|_, text| text + "\n[profile.gpu]\n");
    for slot in 1..=3 {
        daemon.says(&format!("node add r01n{slot:02} --hwaddr 52:54:00:01:01:{slot:02}"));
    }
    daemon
}

/// Exit code, standard output and standard error.
pub(crate) fn run(daemon: &Daemon, words: &str) -> (Option<i32>, String, String) {
    let output = daemon.run(words);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn an_empty_selection_and_an_empty_inventory_have_different_messages() {
    let empty = Daemon::start();
    for command in ["status", "node list", "status @state:lost", "node list @state:lost"] {
        let said = empty.says(command);
        assert!(
            said.starts_with("the inventory has no nodes\nhelp: "),
            "{command}: {said}"
        );
    }
    let daemon = nodes();
    for command in [
        "status @state:lost",
        "status r02*",
        "node list @state:lost",
        "node list r02*",
    ] {
        let said = daemon.says(command);
        let nodes = command.rsplit(' ').next().unwrap();
        let want = format!("no node matches {nodes} (3 nodes in the inventory)\n");
        assert_eq!(said, want, "{command}");
    }
    // A command that changes nodes fails.
    for command in [
        "timeline @state:lost",
        "explain @state:lost",
        "node show @state:lost",
        "node set @state:lost --join x",
        "node restart @state:lost",
        "node delete @state:lost --dry-run",
        "rollout retry @state:lost",
    ] {
        assert_eq!(
            daemon.complains(command),
            "rackstrap: no node matches @state:lost (3 nodes in the inventory); nothing to do\n",
            "{command}"
        );
    }
    assert_eq!(daemon.says("node export @state:lost").trim(), "");
}

#[test]
fn suggestions_are_made_for_typing_errors_only() {
    let daemon = nodes();
    for command in [
        "node show r99n01",
        "status r99n01",
        "node restart r99n01",
        "timeline r01n04",
        "node history r01n33",
    ] {
        let said = daemon.complains(command);
        let name = command.rsplit(' ').next().unwrap();
        assert_eq!(
            said,
            format!("rackstrap: node {name} is not in the inventory; `rackstrap node list` shows all\n"),
            "{command}"
        );
    }
    let rack = daemon.complains("node show @rack:r02");
    assert!(rack.contains("there is no group @rack:r02; the groups are "), "{rack}");
    for (command, near) in [
        ("node show r1n03", "r01n03"),
        ("node show x01n02", "r01n02"),
        ("node show @rack:r1", "@rack:r01"),
        ("node set r01n01 --profile gpus", "'gpu'"),
    ] {
        let said = daemon.complains(command);
        assert!(said.contains(&format!("did you mean {near}?")), "{said}");
    }
}

#[test]
fn a_dry_run_is_refused_like_the_real_run_and_changes_nothing() {
    let daemon = nodes();
    let listed = daemon.says("node list");
    assert_eq!(
        daemon.says("node delete r01n02 --dry-run"),
        "r01n02 (10.5.1.2, hwaddr 52:54:00:01:01:02)\n1 node would be deleted, with timelines and ssh host keys\n\
         nothing was changed: --dry-run\n"
    );
    let edit = |script: &str, words: &str| {
        let mut command = daemon.command(words);
        let output = command.env_remove("VISUAL").env("EDITOR", script).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let edited = edit("sed -i s/01:01:02/01:02:02/", "node edit r01n02 --dry-run");
    let planned = "r01n02: hwaddr 52:54:00:01:01:02 -> 52:54:00:01:02:02\n0 added, 1 changed, 0 unchanged\n\
                   nothing was changed: --dry-run\n";
    assert_eq!(edited, (Some(0), planned.to_owned(), String::new()));
    // The real run refuses the same.
    let event = rackstrap_registries::timeline::Event::new(
        rackstrap_base::clock::Timestamp::now(),
        rackstrap_registries::timeline::EventKind::Ready,
        rackstrap_registries::timeline::Level::Ok,
        "up",
    );
    let node = rackstrap_registries::timeline::Subject::Node("r01n02".into());
    daemon.recorder.record(node, event);
    let refused = daemon.complains("node delete r01n02 --dry-run");
    assert_eq!(refused, daemon.complains("node delete r01n02 --yes"));
    assert!(refused.contains("runs from its root"), "{refused}");
    let (code, _, said) = edit("sed -i s/01:01:02/01:01:03/", "node edit r01n02 --dry-run");
    assert!(code == Some(1) && said.contains("already belongs to r01n03"), "{said}");
    let kept = said.trim().rsplit(' ').next().unwrap();
    std::fs::remove_file(kept).unwrap();
    assert_eq!(daemon.says("node list"), listed);
}

#[test]
fn all_faults_of_a_file_are_reported_in_one_run() {
    let daemon = nodes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nodes.csv");
    let rows =
        "name,hwaddr,profiles\nrack7,52:54:00:00:00:0g,\nr02n01,52:54:00:00:00:21,gpus\nr02n02,52:54:00:01:01:01,\n";
    std::fs::write(&path, rows).unwrap();
    let file = path.display();
    let said = daemon.complains(&format!("node import {file} --dry-run"));
    for fault in [
        ":2:7: '52:54:00:00:00:0g' is not a hardware address",
        ":2:1: 'rack7' is not a node name here: names follow r{rack:02}n{slot:02}",
        ":3:26: node r02n01: profile 'gpus' does not exist; did you mean 'gpu'?",
        ":4:8: node r02n02: hwaddr 52:54:00:01:01:01 already belongs to r01n01",
        ": 4 problems; nothing was imported\nhelp: `--only NODES`",
    ] {
        assert!(said.contains(&format!("{file}{fault}")), "{fault}\n{said}");
    }
}

#[test]
fn duplicates_are_stored_once() {
    let daemon = nodes();
    assert!(
        daemon
            .says("node add r01n04 --hwaddr 52:54:00:01:01:04 --profile gpu --profile gpu --group big --group big")
            .contains(", profiles gpu, groups big\n")
    );
    assert_eq!(
        daemon.says("node set r01n01 --profile gpu --profile gpu --join big --join big"),
        "r01n01: profiles - -> gpu, groups - -> big\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nodes.csv");
    std::fs::write(
        &path,
        "name,hwaddr,profiles,groups\nr01n02,52:54:00:01:01:02,gpu gpu,big big\n",
    )
    .unwrap();
    let import = format!("node import {}", path.display());
    assert_eq!(
        daemon.says(&import),
        "r01n02: profiles - -> gpu, groups - -> big\n0 added, 1 changed, 0 unchanged\n"
    );
    assert_eq!(daemon.says(&import), "0 added, 0 changed, 1 unchanged\n");
    assert_eq!(daemon.says("node list @profile:gpu --names"), "r01n[01-02,04]\n");
    let twice = daemon.complains("node add r01n05 --hwaddr 52:54:00:01:01:05 --hwaddr 52:54:00:01:01:05");
    assert!(twice.contains("hwaddr 52:54:00:01:01:05 is named twice"), "{twice}");
}

#[test]
fn adding_a_waiting_machine_without_an_image_warns_that_it_cannot_boot() {
    let daemon =
        Daemon::start_with(|_, text| text.replace("[profile.default]\n", "[profile.default]\nimage = \"debian\"\n"));
    let (_, added, _) = run(&daemon, "node add r01n02 --hwaddr 52:54:00:00:00:02");
    packet(&daemon, "52:54:00:00:00:01");
    let begun = std::time::Instant::now();
    let accepted = loop {
        let (code, out, _) = run(&daemon, "discover accept 52:54:00:00:00:01 r01n01");
        if code == Some(0) {
            break out;
        }
        assert!(begun.elapsed().as_secs() < 30, "the machine never waited");
    };
    let warning = added.lines().nth(1).unwrap();
    assert!(warning.starts_with("it cannot boot yet: "), "{added}");
    assert_eq!(accepted, format!("52:54:00:00:00:01 is r01n01 now\n{warning}\n"));
}

#[test]
fn releasing_names_each_lease_that_does_not_exist() {
    let daemon = Daemon::start();
    let lease = |last: u8| {
        let address = Ipv4Addr::new(10, 5, 255, last);
        let row = serde_json::json!({
            "ipaddr": address, "hwaddr": format!("52:54:00:00:00:{last:02x}"), "state": "bound", "since": 1, "expires": 2,
        });
        let key = address.octets();
        daemon
            .store
            .commit_blocking(Batch::new().put(Table::Leases, key, &row))
            .unwrap();
    };
    lease(1);
    lease(2);
    let (code, out, said) = run(
        &daemon,
        "lease release 10.5.255.1 10.5.255.9 10.5.255.9 52:54:00:00:00:08 10.5.255.[2-5]",
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(out.ends_with("2 leases released\n"), "{out}");
    assert_eq!(
        said,
        "warning: no lease found for 10.5.255.9, 52:54:00:00:00:08\nhelp: `rackstrap lease list` shows all leases\n"
    );
    let none = daemon.complains("lease release 10.5.255.8 10.5.255.9");
    assert!(
        none.starts_with("rackstrap: no lease found for 10.5.255.8, 10.5.255.9\nhelp: "),
        "{none}"
    );
}
