//! Tests of inventory changes: their effect on the next packet and on the next start of the daemon.

use super::*;
use crate::testing::{self, cluster};
use rackstrap_model::{
    decide::{Decision, Requester, decide},
    inventory::{InventoryError, NewNode, Patch, differences},
};
use rackstrap_wire::HwAddr;

/// Who changes things here.
fn change(nodes: &Nodes, change: Change) -> Result<Vec<Changed>, ChangeError> {
    nodes.change(&[change], "tests", Timestamp(7))
}

fn delete(nodes: &Nodes, name: &str) -> Result<Vec<Changed>, ChangeError> {
    change(nodes, Change::Delete { name: name.into() })
}

fn world() -> SharedWorld {
    testing::world(cluster("")).shared()
}

fn mac(text: &str) -> HwAddr {
    text.parse().unwrap()
}

fn new(name: &str, hwaddrs: &[&str]) -> NewNode {
    NewNode {
        name: name.into(),
        hwaddrs: hwaddrs.iter().map(|text| mac(text)).collect(),
        ..NewNode::default()
    }
}

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = testing::store(dir.path());
    (dir, store)
}

#[test]
fn a_change_applies_to_the_next_packet_and_the_next_start() {
    let (dir, store) = open();
    let world = world();
    let nodes = Nodes::new(store.clone(), world.clone());
    let hwaddr = mac("52:54:00:01:01:01");
    let known = || {
        let requester = Requester {
            hwaddr: Some(hwaddr),
            ..Requester::default()
        };
        match decide(&world.load(), &requester) {
            Decision::Node(decided) => Some(decided.node.name.clone()),
            Decision::Unknown { .. } => None,
        }
    };
    assert_eq!(known(), None);
    change(&nodes, Change::Add(new("r01n10", &["52:54:00:01:01:01"]))).unwrap();
    assert_eq!(known().as_deref(), Some("r01n10"));
    change(&nodes, Change::Add(new("r01n11", &["52:54:00:01:01:02"]))).unwrap();
    store.secret("r01n10", "ssh", || 1).unwrap();
    store.secret("r01n11", "ssh", || 2).unwrap();
    delete(&nodes, "r01n10").unwrap();
    assert_eq!(known(), None);
    assert!(matches!(
        delete(&nodes, "r01n10"),
        Err(ChangeError::Refused(Refusals(why))) if matches!(why[..], [(0, InventoryError::Unknown { .. })])
    ));
    let secrets = store.scan::<u32>(Table::Secrets, b"").unwrap();
    assert_eq!(
        secrets,
        [(b"r01n11/ssh".to_vec(), 2)],
        "only the deleted node's are gone"
    );
    drop((nodes, store));
    let store = testing::store(dir.path());
    let names: Vec<String> = load(&store).unwrap().into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["r01n11"]);
}

#[test]
fn two_racks_racked_at_once_do_not_collide() {
    let (_dir, store) = open();
    let world = world();
    let nodes = Nodes::new(store.clone(), world.clone());
    let won: usize = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..16u8)
            .map(|i| {
                let nodes = nodes.clone();
                // All changes want one of four names, with one of eight cards.
                let wanted = new(&format!("r01n1{}", i % 4), &[&format!("52:54:00:00:00:0{}", i % 8)]);
                scope.spawn(move || change(&nodes, Change::Add(wanted)).is_ok())
            })
            .collect();
        tasks.into_iter().map(|task| usize::from(task.join().unwrap())).sum()
    });
    assert_eq!(won, 4);
    let stored = load(&store).unwrap();
    assert_eq!(stored.len(), 4);
    assert_eq!(world.load().inventory.len(), 4);
}

#[test]
fn a_renamed_node_keeps_its_secrets_and_each_change_is_remembered() {
    let (_dir, store) = open();
    let nodes = Nodes::new(store.clone(), world());
    change(&nodes, Change::Add(new("r01n10", &["52:54:00:01:01:01"]))).unwrap();
    store.secret("r01n10", "ssh", || 1).unwrap();
    let rename = Change::Rename {
        from: "r01n10".into(),
        to: "r01n12".into(),
    };
    nodes.change(&[rename], "alice\u{7} as root", Timestamp(9)).unwrap();
    assert_eq!(store.secret("r01n12", "ssh", || 2).unwrap(), 1);
    // A change without an effect is not recorded.
    let same = Change::Set {
        name: "r01n12".into(),
        patch: Patch::default(),
    };
    assert_eq!(change(&nodes, same).unwrap(), []);
    delete(&nodes, "r01n12").unwrap();
    let told = |name: &str| {
        let entries = history(&store, name).unwrap();
        let told = entries
            .iter()
            .map(|e| (e.at.0, e.by.clone(), differences(&e.changed).join(", ")));
        told.collect::<Vec<_>>()
    };
    let by = |at, by: &str, what: &str| (at, by.to_owned(), what.to_owned());
    let renamed = by(
        9,
        // A control character was between the two blanks.
        "alice  as root",
        "name r01n10 -> r01n12, address 10.5.1.10 -> 10.5.1.12",
    );
    assert_eq!(
        told("r01n10"),
        [by(7, "tests", "added: hwaddr 52:54:00:01:01:01"), renamed.clone()]
    );
    assert_eq!(
        told("r01n12"),
        [renamed, by(7, "tests", "deleted: hwaddr 52:54:00:01:01:01")]
    );
    assert_eq!(told("r01n1"), [], "a name that another one begins with");
}

#[test]
fn the_history_of_a_name_is_bounded() {
    let (_dir, store) = open();
    let nodes = Nodes::new(store.clone(), world());
    change(&nodes, Change::Add(new("r01n10", &["52:54:00:01:01:01"]))).unwrap();
    for i in 0..110u8 {
        let patch = Patch {
            hwaddrs: Some(vec![HwAddr([0x52, 0x54, 0, 0, 1, i])]),
            ..Patch::default()
        };
        let set = Change::Set {
            name: "r01n10".into(),
            patch,
        };
        change(&nodes, set).unwrap();
    }
    let entries = history(&store, "r01n10").unwrap();
    assert_eq!(entries.len(), 100);
    assert!(differences(&entries[99].changed)[0].ends_with("-> 52:54:00:00:01:6d"));
}

#[test]
fn rows_as_the_store_migrates_them_are_nodes() {
    let (_dir, store) = open();
    let row = serde_json::json!({"name": "r01n02", "hwaddrs": ["52:54:00:00:00:02"], "ipaddr": "10.1.0.2", "profiles": ["gpu"]});
    store
        .commit_blocking(Batch::new().put(Table::Nodes, *b"r01n02", &row))
        .unwrap();
    assert_eq!(load(&store).unwrap()[0].profiles, ["gpu"]);
}
