//! Tests of an import's effect on an inventory.

use super::*;
use rackstrap_model::inventory::{Inventory, Node};
use rackstrap_site::{Site, parse};
use std::path::Path;

const SITE: &str = r#"
[cluster]
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.9.0/24"]

[[subnet]]
network = "10.5.0.0/16"
interface = "eth1"
server = "10.5.0.1"

[profile.default]
[profile.gpu]
"#;

fn site() -> Site {
    parse(SITE, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}")).0
}

fn node(name: &str, hwaddr: &str, profiles: &[&str]) -> Node {
    Node {
        name: name.into(),
        hwaddrs: vec![mac(hwaddr)],
        ipaddr: naming().name_to_address(name).unwrap(),
        profiles: profiles.iter().map(|p| (*p).to_owned()).collect(),
        groups: ["old".to_owned()].into(),
        attributes: Default::default(),
        settings: Default::default(),
    }
}

fn inventory() -> Inventory {
    Inventory::new([
        node("r01n01", "52:54:00:00:00:01", &[]),
        node("r01n02", "52:54:00:00:00:02", &["gpu"]),
        node("r01n03", "52:54:00:00:00:03", &["gpu"]),
    ])
}

fn difference(csv: &str) -> Difference {
    compare(&inventory(), &site(), &good(Format::Csv, csv).entries)
}

#[test]
fn added_changed_and_unchanged() {
    let found = difference(
        "name,hwaddr,profile,ip\nr01n01,52:54:00:00:00:01,,10.5.1.1\nr01n02,52:54:00:00:00:12 52:54:00:00:00:02,\n\
         r01n03,52:54:00:00:00:03,default\nr02n01,52:54:00:00:00:21,gpu\nr02n02,52:54:00:00:00:22,\n",
    );
    assert_eq!(
        found.to_string(),
        "r01n02: hwaddr 52:54:00:00:00:02 -> 52:54:00:00:00:12 52:54:00:00:00:02\n\
         r01n03: profiles gpu -> default\n\
         r02n01: added: hwaddr 52:54:00:00:00:21, profiles gpu\n\
         r02n02: added: hwaddr 52:54:00:00:00:22\n\
         2 added, 2 changed, 1 unchanged",
        "and what the file does not say stays"
    );
}

#[test]
fn groups_of_the_file_are_all_of_a_nodes_groups() {
    let found = difference("name,hwaddr,profiles,groups\nr01n01,52:54:00:00:00:01,gpu default,big new\n");
    assert_eq!(
        found.to_string(),
        "r01n01: profiles - -> gpu default, groups old -> big new\n0 added, 1 changed, 0 unchanged"
    );
}

#[test]
fn conflicts_give_the_reason_and_the_remedy() {
    let found = difference(
        "name,hwaddr,profile,ip\nr02n01,52:54:00:00:00:01,,\nrack7,52:54:00:00:00:71,,\n\
         r02n03,52:54:00:00:00:23,,10.5.2.4\n\
         r02n04,52:54:00:00:00:24,gpus,\nr02n05,01:00:5e:00:00:01,,\nr09n01,52:54:00:00:00:91,,\n\
         r2n6,52:54:00:00:00:26,,\nr01n02,52:54:00:00:00:02,,\n",
    );
    let said: Vec<String> = found
        .conflicts
        .iter()
        .map(|c| format!("{} {}", c.line, c.message))
        .collect();
    let starts = [
        "2 node r02n01: hwaddr 52:54:00:00:00:01 already belongs to r01n01; if the machine was moved:",
        "3 'rack7' is not a node name here: names follow r{rack:02}n{slot:02}, such as r01n01",
        "4 the file gives r02n03 the address 10.5.2.4, and its name stands for 10.5.2.3; correct one of \
         the two",
        "5 node r02n04: profile 'gpus' does not exist; did you mean 'gpu'?",
        "6 node r02n05: hwaddr 01:00:5e:00:00:01 is a multicast address",
        "7 node r09n01: its address would be 10.5.9.1, which is in the reserved network 10.5.9.0/24",
        "8 'r2n6' is not a node name here: names follow r{rack:02}n{slot:02}; did you mean r02n06?",
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    for (said, start) in said.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}\n{start}");
    }
}

#[test]
fn nodes_of_the_file_may_exchange_their_cards() {
    let found = difference("r01n01,52:54:00:00:00:02\nr01n02,52:54:00:00:00:01\n");
    assert_eq!((found.changed.len(), found.conflicts.len()), (2, 0), "{found}");
    let found = difference("r01n01,52:54:00:00:00:02\n");
    assert!(
        found.conflicts[0].message.contains("already belongs to r01n02"),
        "{found}"
    );
}

#[test]
fn entries_that_were_not_read_from_a_file_are_checked_too() {
    let entry = |line, name: &str| Entry {
        line,
        name: name.into(),
        hwaddrs: vec![mac("52:54:00:00:00:99")],
        ipaddr: None,
        profiles: None,
        groups: None,
        attributes: None,
        settings: None,
        adds: false,
        places: Places::default(),
    };
    let found = compare(
        &inventory(),
        &site(),
        &[entry(1, "r02n01"), entry(2, "r02n02"), entry(3, "r02n01")],
    );
    let lines: Vec<usize> = found.conflicts.iter().map(|c| c.line).collect();
    assert_eq!(lines, [2, 3], "{found}");
}

#[test]
fn an_unchanged_node_is_not_checked_against_a_changed_site() {
    let mut site = site();
    site.profiles.remove("gpu");
    let entries = good(Format::Csv, "r01n02,52:54:00:00:00:02\n").entries;
    assert_eq!(compare(&inventory(), &site, &entries).unchanged, 1);
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let judged = |format: Format, file: &str, text: &str| {
        let reading = reading(Some(format), file, text).unwrap();
        let error = reading.judge(file, &inventory(), &site(), None).unwrap_err();
        let problems = error
            .problems
            .iter()
            .map(|p| format!("{}:{} {}", p.line, p.column, p.message));
        (problems.collect::<Vec<_>>(), error.to_string())
    };
    let (said, text) = judged(
        Format::Csv,
        "nodes.csv",
        "name,hwaddr,profiles,groups\nr02n01,52:54:00:00:00:0g,gpus,big\nrack7,52:54:00:00:00:71,gpu none,\n\
         r02n03,52:54:00:00:00:23 52:54:00:00:00:02,,big -x\nr02n03,52:54:00:00:00:24,gpus,\nr09n01,,gpu,\n\
         r02n04,52:54:00:00:00:25,gpu,\n",
    );
    let starts = [
        "2:8 '52:54:00:00:00:0g' is not a hardware address",
        "2:26 node r02n01: profile 'gpus' does not exist; did you mean 'gpu'?",
        "3:1 'rack7' is not a node name here",
        "3:29 node rack7: profile 'none' does not exist",
        "4:26 node r02n03: hwaddr 52:54:00:00:00:02 already belongs to r01n02",
        "4:49 node r02n03: '-x' is not a group name",
        "5:1 r02n03 is on line 4 already",
        "5:26 node r02n03: profile 'gpus' does not exist",
        "6:1 r09n01 has no hardware address",
        "6:1 node r09n01: its address would be 10.5.9.1",
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    for (said, start) in said.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}\n{start}");
    }
    assert!(
        text.contains("\nnodes.csv:3:29: node rack7: profile 'none' does not exist"),
        "{text}"
    );
    assert!(
        text.ends_with("\nnodes.csv: 10 problems; nothing was imported"),
        "{text}"
    );
    let (said, _) = judged(
        Format::Toml,
        "nodes.toml",
        "[node.r02n01]\nhwaddrs = [\"52:54:00:00:00:21\"]\nprofiles = [\"gpu\",\n  \"gpus\"]\n[node.r2n2]\nhwaddrs = [\"x\"]\n",
    );
    assert!(
        said[0].starts_with("4:3 node r02n01: profile 'gpus' does not exist"),
        "{said:#?}"
    );
    assert!(said[1].starts_with("5:7 'r2n2' is not a node name here"), "{said:#?}");
    assert!(said[2].starts_with("6:12 'x' is not a hardware address"), "{said:#?}");
}

#[test]
fn a_card_of_a_node_with_a_faulty_line_may_still_move() {
    let text = "r01n01,52:54:00:00:00:02\nr01n02,52:54:00:00:00:01 52:54\n";
    let reading = reading(Some(Format::Csv), "nodes.csv", text).unwrap();
    let error = reading.judge("nodes.csv", &inventory(), &site(), None).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
}

#[test]
fn addresses_of_the_file_are_kept_on_request() {
    let csv = "name,hwaddr,ip\nr01n01,52:54:00:00:00:01,10.5.1.1\nr01n02,52:54:00:00:00:02,10.5.200.2\n\
               login01,52:54:00:00:00:09,10.5.200.4\n";
    let judged = |inventory: &Inventory, keep: bool| {
        let mut reading = reading(Some(Format::Csv), "nodes", csv).unwrap();
        if keep {
            reading.keep_addresses(&naming());
        }
        reading.judge("nodes", inventory, &site(), None)
    };
    let refused = judged(&inventory(), false).unwrap_err();
    assert_eq!((refused.addresses, refused.keepable), (1, 2), "{refused}");
    let difference = judged(&inventory(), true).unwrap().difference;
    let (after, _) = rackstrap_model::inventory::apply(&inventory(), &site(), &difference.changes).unwrap();
    assert_eq!(after.get("r01n02").unwrap().ipaddr.octets(), [10, 5, 200, 2]);
    assert_eq!(after.get("login01").unwrap().ipaddr.octets(), [10, 5, 200, 4]);
    assert!(
        after.get("r01n01").unwrap().settings.is_empty(),
        "its name stands for its address"
    );
    // The same file again: the nodes have these addresses, with and without the option.
    for keep in [true, false] {
        let again = judged(&after, keep).unwrap().difference;
        assert_eq!((again.unchanged, again.changed.len()), (3, 0), "{again}");
    }
}
