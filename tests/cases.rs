//! The files of `tests/cases`, which administrators reported, through the real command. `04-nodes.conf` is in
//! `netns::scheduler`.

use crate::daemon::Daemon;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn case(name: &str) -> String {
    directory().join(name).display().to_string()
}

/// A site whose names and addresses are like `r01n01` and 10.5.1.1, or as `names` says (name pattern, address pattern,
/// network).
fn site(names: Option<[&str; 3]>) -> Daemon {
    Daemon::start_with(|_, text| {
        let text = text.replace("name = \"lab\"", "name = \"lab\"\ndomain = \"cluster.example\"");
        let Some([name, address, network]) = names else {
            return text;
        };
        text.replace("r{rack:02}n{slot:02}", name)
            .replace("10.5.{rack}.{slot}", address)
            .replace("10.5.0.", network)
    })
}

/// The command's exit code, its stdout, and its stderr without the quoted lines of the file.
fn run(daemon: &Daemon, words: &str) -> (Option<i32>, String, Vec<String>) {
    let output = daemon.run(words);
    let said = String::from_utf8(output.stderr).unwrap();
    let place = format!("{}/", directory().display());
    // `FILE:LINE:COLUMN: message` -> `LINE: message`
    let told = said.lines().filter_map(|line| {
        let (_, rest) = line.strip_prefix(&place)?.split_once(':')?;
        let (number, rest) = rest.split_once(':')?;
        let (_, message) = rest.split_once(": ")?;
        Some(format!("{number}: {message}"))
    });
    let told = told.collect();
    let out = String::from_utf8(output.stdout).unwrap();
    match output.status.success() {
        true => (output.status.code(), out, told),
        false => (output.status.code(), out, vec![said]),
    }
}

/// Imports a file, first with `--dry-run`: `nodes` are the added nodes and `expected` the expected warnings.
fn imports(words: &str, nodes: &[&str], expected: &[&str]) {
    let daemon = site(None);
    let (code, planned, warnings) = run(&daemon, &format!("node import {words} --dry-run"));
    assert_eq!(
        (code, warnings.as_slice()),
        (
            Some(0),
            &expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]
        )
    );
    let mut lines: Vec<&str> = planned.lines().collect();
    assert_eq!(lines.pop(), Some("nothing was changed: --dry-run"), "{planned}");
    assert_eq!(
        lines.pop(),
        Some(format!("{} added, 0 changed, 0 unchanged", nodes.len()).as_str())
    );
    assert_eq!(lines, nodes);
    assert!(daemon.says("node list").contains("the inventory has no nodes"));

    let (code, done, _) = run(&daemon, &format!("node import {words}"));
    assert_eq!(code, Some(0));
    assert_eq!(done.lines().count(), nodes.len() + 1, "{done}");
    let listed = daemon.says("node list");
    for node in nodes {
        let (name, _) = node.split_once(':').unwrap();
        assert!(listed.lines().any(|line| line.starts_with(name)), "{name}: {listed}");
    }
    assert_eq!(listed.lines().count(), nodes.len() + 1, "{listed}");
}

#[test]
fn the_port_of_a_mac_address_table_is_taken_from_its_column() {
    imports(
        &format!(
            "{} --ports {}",
            case("01-avaya-ers-mac-table.txt"),
            case("01-avaya-ers.map")
        ),
        &[
            "r04n47: added: hwaddr 52:54:00:03:01:01",
            "r04n07: added: hwaddr 52:54:00:03:01:02",
        ],
        &[],
    );
    imports(
        &format!("{} --ports {}", case("01-zyxel-mac-table.txt"), case("01-zyxel.map")),
        &[
            "r03n02: added: hwaddr 52:54:00:03:01:01",
            "r03n03: added: hwaddr 52:54:00:03:01:02",
        ],
        &[],
    );
}

#[test]
fn a_deleted_host_of_dhcpd_is_not_imported() {
    imports(
        &case("02-journal-dhcpd.leases"),
        &["r01n09: added: hwaddr 52:54:00:01:01:09"],
        &["11: left out: 1 deleted host, here first: r01n10"],
    );
}

#[test]
fn lines_of_dnsmasq_without_a_machine_are_named_and_all_others_imported() {
    imports(
        &case("03-dnsmasq.conf"),
        &[
            "r01n01: added: hwaddr 52:54:00:01:01:01",
            "r01n02: added: hwaddr 52:54:00:01:01:02, groups compute",
            "r01n03: added: hwaddr 52:54:00:01:01:03 52:54:00:01:01:83",
            "r01n05: added: hwaddr 52:54:00:01:01:05, groups a b",
            "r01n06: added: hwaddr 52:54:00:01:01:06",
            "r01n08: added: hwaddr 52:54:00:01:01:08, groups oldsyntax",
            "r01n10: added: hwaddr 52:54:00:01:01:0a",
        ],
        &[
            "8: left out: the machine is known by its client identifier (id:ff:00:01) only",
            "10: a machine that dnsmasq ignores was left out",
            "12: left out: '06-00:20:e0:3b:13:af' is not the address of an Ethernet card",
            "14: left out: the machine is known by the name that it gives itself only",
        ],
    );
}

#[test]
fn two_host_blocks_of_a_node_are_its_cards() {
    imports(
        &case("03-two-nics-dhcpd.conf"),
        &["r01n01: added: hwaddr 52:54:00:01:01:01 52:54:00:01:01:81"],
        &[
            "3: read as r01n01, because its host-name option says so; its block is called r01n01-eth0",
            "4: 1 entry is another card of a node above it, here first: r01n01",
            "4: read as r01n01, because its host-name option says so; its block is called r01n01-eth1",
        ],
    );
}

/// Here addresses follow from names, and the file has other addresses. Without an option nothing is imported; with
/// `--new-addresses` the nodes get their new addresses.
#[test]
fn addresses_that_do_not_follow_from_names_are_refused_and_can_be_left_out() {
    let daemon = site(Some(["node{n}", "10.10.1.{n}", "10.10.0."]));
    let file = case("21-offset-dnsmasq.conf");
    let (code, out, said) = run(&daemon, &format!("node import {file} --dry-run"));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let refused = |number: u8| {
        format!(
            "{file}:{number}:29: the file gives node{number} the address 10.10.1.2{number}, and its name stands for \
             10.10.1.{number}; correct one of the two, or leave the address out\n"
        )
    };
    assert_eq!(
        said[0],
        format!(
            "rackstrap: {}{}{file}:3:29: 'console-node1' is not a node name here: names follow node{{n}}, such as node1; a node that no \
             pattern names needs an address of its own: ipaddr=ADDRESS\n\
             {file}: 3 problems; nothing was imported\n\
             help: `--keep-addresses` gives these nodes the addresses of the file as their own setting ipaddr\n\
             help: `--new-addresses` gives each node the address of its name\n\
             help: `--only NODES` imports some nodes of the file and ignores errors in its other lines\n",
            refused(1),
            refused(2)
        )
    );
    // Each option alone leaves the other problems.
    let (code, _, said) = run(&daemon, &format!("node import {file} --new-addresses"));
    assert!(code == Some(1) && said[0].contains(": 1 problem; nothing"), "{said:?}");
    assert!(!said[0].contains("--new-addresses"), "{said:?}");
    let (code, _, said) = run(&daemon, &format!("node import {file} --only node[1-2]"));
    assert!(code == Some(1) && said[0].contains(": 2 problems; nothing"), "{said:?}");
    assert!(!said[0].contains("--only"), "{said:?}");
    assert!(daemon.says("node list").contains("the inventory has no nodes"));

    assert_eq!(
        daemon.says(&format!("node import {file} --new-addresses --only node[1-2]")),
        "node1: added: hwaddr ac:1f:6b:00:00:76\nnode2: added: hwaddr ac:1f:6b:00:00:6c\n2 added, 0 changed, 0 unchanged\n"
    );
    let listed = daemon.says("node list");
    assert!(listed.contains("node2  10.10.1.2  ac:1f:6b:00:00:6c"), "{listed}");

    // The names do not fit the pattern: only the option that leaves lines out helps.
    let (_, _, said) = run(&site(None), &format!("node import {file}"));
    assert!(
        said[0].contains(":2:29: 'node2' is not a node name here: names follow r{rack:02}n{slot:02}"),
        "{said:?}"
    );
    assert!(!said[0].contains("--new-addresses"), "{said:?}");
}

/// What a command prints that succeeds, whatever it lists as left out.
fn done(daemon: &Daemon, words: &str) -> String {
    let (code, out, said) = run(daemon, words);
    assert_eq!(code, Some(0), "{words}: {said:?}");
    out
}

#[test]
fn inventories_of_other_programs_are_recognised_and_imported() {
    for (name, added) in [
        (
            "27-kea-dhcp4.conf",
            "r01n01: added: hwaddr 52:54:00:01:01:01\nr01n02: added: hwaddr 52:54:00:01:01:02\n2 added",
        ),
        ("27-nodes.conf", "r01n01: added: hwaddr 52:54:00:01:01:01\n1 added"),
        (
            "27-xcat-mac.csv",
            "r01n01: added: hwaddr 52:54:00:01:01:01 52:54:00:01:01:81\nr01n02: added: hwaddr 52:54:00:01:01:02\n2 added",
        ),
    ] {
        let daemon = site(None);
        let command = format!("node import {}", case(name));
        assert_eq!(
            done(&daemon, &command),
            format!("{added}, 0 changed, 0 unchanged\n"),
            "{name}"
        );
        let again = done(&daemon, &command);
        assert!(again.starts_with("0 added, 0 changed, "), "{name}: {again}");
    }
}

/// A site of dnsmasq whose addresses do not follow from its names moves in with its names and its addresses.
#[test]
fn a_site_of_dnsmasq_moves_in_with_its_own_names_and_addresses() {
    let daemon = site(Some(["node{n}", "10.10.1.{n}", "10.10.0."]));
    let command = format!("node import {} --keep-addresses", case("21-offset-dnsmasq.conf"));
    let imported = done(&daemon, &command);
    assert!(imported.ends_with("3 added, 0 changed, 0 unchanged\n"), "{imported}");
    let dnsmasq = std::fs::read_to_string(case("21-offset-dnsmasq.conf")).unwrap();
    let hosts = daemon.says("dnsmasq");
    for line in dnsmasq.lines().filter(|line| line.starts_with("dhcp-host=")) {
        let address = line.split(',').find(|word| word.starts_with("10.10.")).unwrap();
        let name = line.split(',').find(|word| word.contains("node")).unwrap();
        assert!(
            hosts.lines().any(|line| line.ends_with(&format!(",{address},{name}"))),
            "{line}: {hosts}"
        );
    }
    assert!(done(&daemon, &command).starts_with("0 added, 0 changed, 3 unchanged"));
}

/// A site of Warewulf moves in: first its profiles, then its nodes; and from here to another server as it is.
#[test]
fn a_site_of_warewulf_moves_in_with_profiles_variables_networks_and_bmc() {
    let file = case("31-warewulf-nodes.conf");
    let (code, _, said) = run(&site(None), &format!("node import {file}"));
    assert_eq!(code, Some(1));
    assert!(
        said[0].contains("node r01n01: profile 'gpu' does not exist"),
        "{said:?}"
    );
    for option in ["--profiles", "--keep-addresses"] {
        assert!(said[0].contains(&format!("\nhelp: `{option}`")), "{said:?}");
    }
    let profiles = done(&site(None), &format!("node import {file} --profiles"));
    let moved = || {
        Daemon::start_with(|_, text| {
            let default = profiles
                .split("\n\n")
                .find(|section| section.starts_with("[profile.default]\n"))
                .unwrap();
            let rest = profiles.replacen(default, "", 1);
            text.replacen("[profile.default]", default, 1) + "\n" + &rest
        })
    };
    let daemon = moved();
    let import = format!("node import {file} --keep-addresses");
    let (code, out, left) = run(&daemon, &import);
    assert_eq!(code, Some(0), "{left:?}");
    assert!(out.ends_with("3 added, 0 changed, 0 unchanged\n"), "{out}");
    for what in ["image 'rocky-9'", "disks", "system overlay"] {
        assert!(
            left.iter()
                .any(|said| said.contains(&format!("{what} is not imported"))),
            "{left:?}"
        );
    }
    let shown = daemon.says("node show r01n01");
    for what in [
        "iommu=pt",
        "vars.bmc_ipaddr",
        "vars.rack_pdu",
        "vars.networks",
        "10.6.1.1",
        "comment=was c1",
    ] {
        assert!(shown.contains(what), "{what}: {shown}");
    }
    assert!(
        !shown.contains("calvin"),
        "the password of the BMCs is a secret: {shown}"
    );
    assert!(daemon.says("hosts login").contains("10.5.0.4\tlogin"));
    assert!(done(&daemon, &import).ends_with("0 added, 0 changed, 3 unchanged\n"));

    // Everything goes to another server of the same site, and is the same there.
    let all = daemon.says("export all --json");
    let other = moved();
    let copy = other.config().with_file_name("all.json");
    std::fs::write(&copy, &all).unwrap();
    let import = format!("node import {}", copy.display());
    assert!(other.says(&import).ends_with("3 added, 0 changed, 0 unchanged\n"));
    assert_eq!(other.says("node export"), daemon.says("node export"));
    assert_eq!(other.says("export all"), all);
    assert!(other.says(&import).ends_with("0 added, 0 changed, 3 unchanged\n"));
    let refused = daemon.complains("export hosts --json");
    assert!(refused.contains("hosts is not JSON"), "{refused}");
}

#[test]
fn sites_of_xcat_grendel_and_netbox_move_in() {
    for (name, options, added) in [
        ("31-xcat-tables.csv", "--keep-addresses", 3),
        ("31-grendel-hosts.json", "", 2),
        ("31-netbox.csv", "", 2),
    ] {
        let daemon = site(None);
        let command = format!("node import {} {options}", case(name));
        let first = done(&daemon, command.trim_end());
        assert!(
            first.ends_with(&format!("{added} added, 0 changed, 0 unchanged\n")),
            "{name}: {first}"
        );
        assert!(daemon.says("node show r01n01").contains("10.7.1.1"), "{name}: the BMC");
        let again = done(&daemon, command.trim_end());
        assert!(
            again.ends_with(&format!("0 added, 0 changed, {added} unchanged\n")),
            "{name}: {again}"
        );
        // What an administrator set in the meantime stays.
        daemon.says("node set r01n01 console=ttyS1,115200 vars.own=7 --attr x=y");
        let again = done(&daemon, command.trim_end());
        assert!(
            again.ends_with(&format!("0 added, 0 changed, {added} unchanged\n")),
            "{name}: {again}"
        );
    }
}

#[test]
fn every_case_has_a_test() {
    let tests = include_str!("cases.rs").to_owned() + include_str!("netns/scheduler.rs");
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        files.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    assert!(files.remove("README.md") && files.len() >= 12, "{files:?}");
    for file in files {
        assert!(tests.contains(&format!("{file}\"")), "{file} is in no test");
    }
}
