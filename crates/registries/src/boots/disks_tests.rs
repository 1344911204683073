use super::*;
use crate::{
    boots::{Boot, Boots},
    testing::{node_with_card as node, store},
};
use rackstrap_model::inventory::Node;
use rackstrap_wire::{
    DiskFacts, DiskMarker, DiskProblem, DiskStatus, FileSystem, Hardware, MountedPartition, OverlayRequest, Plan,
    testing,
};

pub(super) fn plan(node: &str) -> Plan {
    let tmp = "{\"name\":\"tmp\",\"size\":\"rest\",\"fs\":\"ext4\",\"mount\":\"/tmp\"}";
    let mut disk = testing::disk();
    disk.layout.partitions.push(serde_json::from_str(tmp).unwrap());
    testing::plan(node).disk(disk).build()
}

fn changed(before: Option<Node>, after: Option<Node>) -> Changed {
    Changed { before, after }
}

pub(super) fn kept(serial: &str, id: &str) -> DiskState {
    DiskState {
        status: DiskStatus::Kept {
            layout: "scratch v1".to_owned(),
        },
        device: "nvme0n1".to_owned(),
        size: 1 << 40,
        mounts: vec![MountedPartition {
            name: "tmp".to_owned(),
            device: "/dev/nvme0n1p2".to_owned(),
            fs: FileSystem::Ext4,
            uuid: String::new(),
            mount: Some("/tmp".to_owned()),
            options: String::new(),
            size: 1 << 39,
            encrypted: false,
        }],
        facts: DiskFacts {
            serial: serial.to_owned(),
            marker: (!id.is_empty()).then(|| DiskMarker {
                id: id.to_owned(),
                layout: "scratch".to_owned(),
                version: 1,
                digest: "0".repeat(32),
            }),
            ..DiskFacts::default()
        },
        layouts: Vec::new(),
    }
}

fn missing() -> DiskState {
    DiskState {
        status: DiskStatus::Degraded {
            reason: "the disk of the last boot (nvme0n1, A) is missing".to_owned(),
        },
        facts: DiskFacts {
            problem: Some(DiskProblem::Missing),
            ..DiskFacts::default()
        },
        ..DiskState::default()
    }
}

async fn boot(boots: &Boots, at: u64, state: &DiskState) -> std::sync::Arc<Boot> {
    boot_with(boots, at, plan("r01n01"), state).await
}

pub(super) async fn boot_with(boots: &Boots, at: u64, plan: Plan, state: &DiskState) -> std::sync::Arc<Boot> {
    let boot = boots.open(Timestamp(at), |_| plan).await.unwrap();
    let request = OverlayRequest {
        networks: true,
        token: boot.token.clone(),
        disk: state.clone(),
        hardware: Hardware::default(),
    };
    boots.redeem(&boot.plan.id, &request, None).await.unwrap();
    boot
}

pub(super) fn told(boot: &std::sync::Arc<Boot>) -> DiskPlan {
    boot.plan.disk.clone().unwrap()
}

/// Follows a change of the inventory, as the registry of nodes does.
fn follow(boots: &Boots, changes: &[Changed]) {
    boots
        .disks()
        .store
        .commit_blocking(boots.followed_rows(changes))
        .unwrap();
    boots.publish_followed(changes);
}

#[tokio::test]
async fn the_plan_names_the_disk_of_the_last_boot_that_had_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    assert_eq!(
        told(&boot(&boots, 1, &kept("A", "01")).await).seen,
        None,
        "the first boot"
    );
    let seen = Some(SeenDisk {
        device: "nvme0n1".to_owned(),
        serial: "A".to_owned(),
        marker: "01".to_owned(),
    });
    // More boots without the disk than are remembered, and a restart of the daemon.
    for at in 2..8 {
        assert_eq!(told(&boot(&boots, at, &missing()).await).seen, seen, "boot {at}");
    }
    drop(boots);
    let boots = Boots::load(store.clone()).unwrap();
    assert_eq!(told(&boot(&boots, 9, &missing()).await).seen, seen);
    // The administrator reports that the disk is gone.
    let wish = DiskWish::NewDisk { wipe_foreign: false };
    boots
        .disks()
        .wish(&["r01n01".to_owned()], wish, "root", Timestamp(10))
        .unwrap();
    let free = told(&boot(&boots, 11, &kept("B", "02")).await);
    assert_eq!((free.seen, free.again, free.wipe), (None, false, Wipe::Ours));
    assert_eq!(told(&boot(&boots, 12, &missing()).await).seen.unwrap().serial, "B");
    // The row follows the node's name, and is deleted with the node.
    let disks = boots.disks();
    follow(&boots, &[changed(Some(node("r01n01", 1)), Some(node("r02n01", 1)))]);
    assert_eq!((disks.get("r01n01"), disks.get("r02n01").is_some()), (None, true));
    follow(&boots, &[changed(Some(node("r02n01", 1)), None)]);
    assert_eq!(Boots::load(store).unwrap().disks().get("r02n01"), None);
}

#[tokio::test]
async fn an_order_is_for_one_boot() {
    let dir = tempfile::tempdir().unwrap();
    let boots = Boots::load(store(dir.path())).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    let node = ["r01n01".to_owned()];
    // A boot that was opened before the order does not carry it out.
    let early = boots.open(Timestamp(2), |_| plan("r01n01")).await.unwrap();
    let wish = DiskWish::Prepare { wipe_foreign: true };
    boots.disks().wish(&node, wish, "root", Timestamp(3)).unwrap();
    let request = OverlayRequest {
        networks: true,
        token: early.token.clone(),
        disk: kept("A", "01"),
        hardware: Hardware::default(),
    };
    boots.redeem(&early.plan.id, &request, None).await.unwrap();
    // If a boot does not reach its disk phase, the next one carries the order out.
    let lost = boots.open(Timestamp(4), |_| plan("r01n01")).await.unwrap();
    assert!(told(&lost).again);
    let ordered = told(&boot(&boots, 5, &kept("A", "01")).await);
    assert_eq!((ordered.again, ordered.wipe), (true, Wipe::Always));
    assert_eq!(
        ordered.seen.unwrap().marker,
        "01",
        "the rule for the choice is the same"
    );
    let next = told(&boot(&boots, 6, &kept("A", "01")).await);
    assert_eq!((next.again, next.wipe), (false, Wipe::Ours));
    boots
        .disks()
        .wish(&node, DiskWish::Prepare { wipe_foreign: false }, "root", Timestamp(7))
        .unwrap();
    boots
        .disks()
        .wish(&node, DiskWish::Cancel, "root", Timestamp(8))
        .unwrap();
    assert!(!told(&boot(&boots, 9, &kept("A", "01")).await).again);
}

#[tokio::test]
async fn an_order_for_a_partition_keeps_the_disk_and_is_for_one_boot() {
    let dir = tempfile::tempdir().unwrap();
    let boots = Boots::load(store(dir.path())).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    let (node, tmp) = (
        ["r01n01".to_owned()],
        Parts {
            partitions: vec!["tmp".to_owned()],
            ..Parts::default()
        },
    );
    let wish = DiskWish::Prepare { wipe_foreign: false };
    boots.disks().wish_of(&node, wish, &tmp, "root", Timestamp(2)).unwrap();
    let ordered = told(&boot(&boots, 3, &kept("A", "01")).await);
    assert_eq!(
        (ordered.again, ordered.remake.as_slice(), ordered.wipe),
        (false, &tmp.partitions[..], Wipe::Ours)
    );
    let next = told(&boot(&boots, 4, &kept("A", "01")).await);
    assert_eq!((next.again, next.remake), (false, Vec::new()), "it is done");
    // It is taken back after a boot was pinned and before its plan was sent.
    boots.disks().wish_of(&node, wish, &tmp, "root", Timestamp(5)).unwrap();
    let pinned = boots.open(Timestamp(6), |_| plan("r01n01")).await.unwrap();
    boots
        .disks()
        .wish(&node, DiskWish::Cancel, "root", Timestamp(7))
        .unwrap();
    let sent = boots.send_plan(&pinned.plan.id).unwrap();
    assert_eq!(sent.plan.disk.unwrap().remake, [""; 0]);
}

#[tokio::test]
async fn an_order_is_carried_out_once_for_any_clock() {
    let dir = tempfile::tempdir().unwrap();
    let boots = Boots::load(store(dir.path())).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    let node = ["r01n01".to_owned()];
    let wish = DiskWish::Prepare { wipe_foreign: false };
    // The clock was ahead when the order was given, and is set back before the boot.
    boots.disks().wish(&node, wish, "root", Timestamp(9000)).unwrap();
    assert!(told(&boot(&boots, 10, &kept("A", "01")).await).again);
    assert!(!told(&boot(&boots, 11, &kept("A", "01")).await).again, "it is done");
    // The boot begins, the clock is set back, and the order comes: the boot does not have the order.
    let early = boots.open(Timestamp(500), |_| plan("r01n01")).await.unwrap();
    boots.disks().wish(&node, wish, "root", Timestamp(20)).unwrap();
    let request = OverlayRequest {
        networks: true,
        token: early.token.clone(),
        disk: kept("A", "01"),
        hardware: Hardware::default(),
    };
    boots.redeem(&early.plan.id, &request, None).await.unwrap();
    assert!(
        told(&boot(&boots, 21, &kept("A", "01")).await).again,
        "it is still to be done"
    );
    assert!(!told(&boot(&boots, 22, &kept("A", "01")).await).again);
}

#[tokio::test]
async fn an_order_that_was_withdrawn_does_not_come_back_with_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    // One node's disk is known, and the other node never booted.
    let nodes = ["r01n01", "r01n02"].map(str::to_owned);
    for wish in [DiskWish::Prepare { wipe_foreign: true }, DiskWish::Cancel] {
        boots.disks().wish(&nodes, wish, "root", Timestamp(2)).unwrap();
        let boots = Boots::load(store.clone()).unwrap();
        for node in &nodes {
            let order = boots.disks().get(node).and_then(|row| row.order);
            assert_eq!(order.is_some(), wish != DiskWish::Cancel, "{node} {wish:?}");
        }
    }
}

#[tokio::test]
async fn an_order_of_an_older_release_is_for_the_boots_that_began_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let row = serde_json::json!({
        "state": kept("A", "01"),
        "order": { "wipe_foreign": false, "by": "root", "at": 5 },
    });
    store
        .commit_blocking(Batch::new().put(Table::Disks, *b"r01n01", &row))
        .unwrap();
    let boots = Boots::load(store).unwrap();
    assert!(told(&boot(&boots, 6, &kept("A", "01")).await).again);
    assert!(!told(&boot(&boots, 7, &kept("A", "01")).await).again);
}

#[tokio::test]
async fn an_order_can_be_withdrawn_until_the_node_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    let node = ["r01n01".to_owned()];
    let order = |at| {
        let wish = DiskWish::Prepare { wipe_foreign: true };
        boots.disks().wish(&node, wish, "root", Timestamp(at)).unwrap();
    };
    let cancel = |at| {
        let withdrawn = boots
            .disks()
            .wish(&node, DiskWish::Cancel, "root", Timestamp(at))
            .unwrap();
        boots.has_order("r01n01", withdrawn[0].1.id)
    };
    // The script was sent, but not the plan: an order that is cancelled now is not in the plan.
    order(2);
    let pinned = boots.open(Timestamp(3), |_| plan("r01n01")).await.unwrap();
    assert!(told(&pinned).again);
    assert!(!cancel(4));
    let sent = told(&Arc::new(boots.send_plan(&pinned.plan.id).unwrap()));
    assert_eq!((sent.again, sent.wipe), (false, Wipe::Ours));
    assert_eq!(sent.seen.unwrap().serial, "A");
    // The plan was sent. This survives a restart of the daemon.
    order(5);
    let pinned = boots.open(Timestamp(6), |_| plan("r01n01")).await.unwrap();
    let sent = told(&Arc::new(boots.send_plan(&pinned.plan.id).unwrap()));
    assert_eq!((sent.again, sent.wipe), (true, Wipe::Always));
    store.flush().unwrap();
    assert!(
        Boots::load(store.clone())
            .unwrap()
            .get(&pinned.plan.id)
            .unwrap()
            .ordered
            .as_ref()
            .unwrap()
            .sent
    );
    assert!(cancel(7), "too late");
    // After its disk phase a node has no order left to carry out.
    order(8);
    let done = boots.open(Timestamp(9), |_| plan("r01n01")).await.unwrap();
    let id = boots.disks().get("r01n01").unwrap().order.unwrap().id;
    boots.send_plan(&done.plan.id).unwrap();
    let request = OverlayRequest {
        networks: true,
        token: done.token.clone(),
        disk: kept("A", "01"),
        hardware: Hardware::default(),
    };
    boots.redeem(&done.plan.id, &request, None).await.unwrap();
    assert!(!boots.has_order("r01n01", id));
}

#[tokio::test]
async fn an_order_is_for_the_machine_that_it_was_given_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    let names = ["r01n01".to_owned()];
    let wish = DiskWish::Prepare { wipe_foreign: true };
    boots.disks().wish(&names, wish, "root", Timestamp(2)).unwrap();
    // A node with a new name is the same machine.
    follow(&boots, &[changed(Some(node("r01n01", 1)), Some(node("r01n02", 1)))]);
    assert!(boots.disks().get("r01n02").unwrap().order.is_some());
    // A new mainboard is a different machine, with an unknown disk.
    let replaced = changed(Some(node("r01n02", 1)), Some(node("r01n02", 9)));
    follow(&boots, std::slice::from_ref(&replaced));
    assert_eq!(boots.disks().get("r01n02").unwrap().order, None);
}

#[tokio::test]
async fn a_name_that_is_used_again_starts_empty_also_after_a_stop_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    let old = boot(&boots, 1, &kept("A", "01")).await;
    let gone = changed(Some(node("r01n01", 1)), None);
    // The rows on disk together with the change, before memory is changed.
    store
        .commit_blocking(boots.followed_rows(std::slice::from_ref(&gone)))
        .unwrap();
    drop(boots);
    let boots = Boots::load(store.clone()).unwrap();
    assert_eq!((boots.disks().get("r01n01"), boots.get(&old.plan.id)), (None, None));
    // What a release left that wrote the two one after the other.
    boot(&boots, 2, &kept("A", "01")).await;
    boots.retain_nodes(|name| name == "r01n02");
    assert_eq!(boots.disks().get("r01n01"), None);
    assert!(boots.of_node("r01n01").is_empty());
    store.flush().unwrap();
    let boots = Boots::load(store).unwrap();
    assert_eq!(boots.disks().get("r01n01"), None);
    assert!(boots.of_node("r01n01").is_empty());
}

#[tokio::test]
async fn rows_of_older_agents_and_older_releases_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    boot(&boots, 1, &kept("", "")).await;
    // The state of a store that lacks the table.
    store
        .commit_blocking(Batch::new().delete(Table::Disks, *b"r01n01"))
        .unwrap();
    drop(boots);
    let boots = Boots::load(store).unwrap();
    let known = boots.disks().get("r01n01").unwrap();
    assert_eq!(known.marker.unwrap().layout, "scratch");
    assert_eq!(
        told(&boot(&boots, 2, &missing()).await).seen,
        Some(SeenDisk {
            device: "nvme0n1".to_owned(),
            ..SeenDisk::default()
        })
    );
}

#[tokio::test]
async fn used_space_counts_mounts_of_the_nodes_disk_only() {
    let dir = tempfile::tempdir().unwrap();
    let boots = Boots::load(store(dir.path())).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    let space = |mount: &str, bytes| UsedSpace {
        mount: mount.to_owned(),
        bytes,
    };
    let used = || boots.disks().get("r01n01").unwrap().used;
    boots
        .disks()
        .record_used("r01n01", vec![space("/tmp", 1000), space("/etc", 7)]);
    assert_eq!(used(), [space("/tmp", 1000)]);
    boots.disks().record_used("r01n01", vec![space("/tmp", 1010)]);
    assert_eq!(used(), [space("/tmp", 1000)], "no write for a little more");
    boots.disks().record_used("r01n01", vec![space("/tmp", 2000)]);
    assert_eq!(used(), [space("/tmp", 2000)]);
    boots.disks().record_used("r01n01", Vec::new());
    assert_eq!(
        used(),
        [space("/tmp", 2000)],
        "an older agent, or a boot without its disk, says nothing of it"
    );
    boots.disks().record_used("r01n02", vec![space("/tmp", 1)]);
    assert_eq!(boots.disks().get("r01n02"), None);
}

#[tokio::test]
async fn disks_follow_renamed_deleted_and_replaced_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    let serial = |name: &str| {
        // What is confirmed is on disk.
        let row: Option<NodeDisk> = store.get(Table::Disks, name.as_bytes()).unwrap();
        assert_eq!(row, boots.disks().get(name));
        row.and_then(|row| row.seen).map(|seen| seen.serial)
    };
    let follow = |changes: &[Changed]| follow(&boots, changes);
    // Two nodes exchange their names in one change, and only one of them has a disk.
    follow(&[
        changed(Some(node("r01n01", 1)), Some(node("r01n02", 1))),
        changed(Some(node("r01n02", 2)), Some(node("r01n01", 2))),
    ]);
    assert_eq!((serial("r01n01"), serial("r01n02").as_deref()), (None, Some("A")));
    assert_eq!(boots.disks().get("r01n01"), None);
    // A name becomes free, and another node takes it in the same change.
    follow(&[
        changed(Some(node("r01n02", 1)), Some(node("r01n03", 1))),
        changed(Some(node("r01n03", 3)), None),
    ]);
    assert_eq!((serial("r01n02"), serial("r01n03").as_deref()), (None, Some("A")));
    // A second card does not make it a different machine; a new mainboard does.
    let mut cards = node("r01n03", 1);
    cards.hwaddrs.extend(node("r01n03", 4).hwaddrs);
    follow(&[changed(Some(node("r01n03", 1)), Some(cards.clone()))]);
    assert_eq!(serial("r01n03").as_deref(), Some("A"));
    follow(&[changed(Some(cards), Some(node("r01n03", 9)))]);
    assert_eq!(serial("r01n03"), None);
    assert!(
        boots.disks().get("r01n03").is_some(),
        "its state is still what was heard last"
    );
}

#[tokio::test]
async fn an_order_to_wipe_foreign_data_concerns_the_disk_that_was_shown() {
    let dir = tempfile::tempdir().unwrap();
    let boots = Boots::load(store(dir.path())).unwrap();
    for (at, serial, pinned) in [(1, "F", true), (10, "", false)] {
        let foreign = DiskState {
            status: DiskStatus::Degraded {
                reason: "nvme0n1 holds foreign data (xfs)".to_owned(),
            },
            device: "nvme0n1".to_owned(),
            facts: DiskFacts {
                serial: serial.to_owned(),
                problem: Some(DiskProblem::Foreign),
                foreign: "xfs".to_owned(),
                ..DiskFacts::default()
            },
            ..DiskState::default()
        };
        assert_eq!(told(&boot(&boots, at, &foreign).await).seen, None);
        let wish = DiskWish::Prepare { wipe_foreign: true };
        let node = ["r01n01".to_owned()];
        boots.disks().wish(&node, wish, "root", Timestamp(at + 1)).unwrap();
        let ordered = told(&boot(&boots, at + 2, &foreign).await);
        assert_eq!(ordered.wipe, Wipe::Always);
        let seen = pinned.then(|| SeenDisk {
            device: "nvme0n1".to_owned(),
            serial: serial.to_owned(),
            marker: String::new(),
        });
        assert_eq!(
            ordered.seen, seen,
            "of a disk that says nothing of itself, nothing else is known"
        );
        assert_eq!(
            told(&boot(&boots, at + 3, &foreign).await).seen,
            None,
            "for that boot only"
        );
    }
}

#[tokio::test]
async fn an_order_that_comes_while_a_boot_is_recorded_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    let first = boot(&boots, 1, &kept("A", "01")).await;
    // The steps of `redeem`, with an order between the record and the write.
    let row = boots.disks().record(&first, &kept("A", "01"));
    let wish = DiskWish::Prepare { wipe_foreign: false };
    boots
        .disks()
        .wish(&["r01n01".to_owned()], wish, "root", Timestamp(5))
        .unwrap();
    store
        .commit(Batch::new().put(Table::Disks, "r01n01", &row))
        .await
        .unwrap();
    boots.disks().settle("r01n01", &row);
    store.flush().unwrap();
    let kept: Option<NodeDisk> = store.get(Table::Disks, b"r01n01").unwrap();
    assert!(kept.unwrap().order.is_some());
}

#[tokio::test]
async fn an_order_and_a_change_of_the_inventory_do_not_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    boot(&boots, 1, &kept("A", "01")).await;
    let orders = {
        let boots = boots.clone();
        std::thread::spawn(move || {
            for at in 0..100 {
                let wish = match at % 2 {
                    0 => DiskWish::Prepare { wipe_foreign: true },
                    _ => DiskWish::Cancel,
                };
                boots
                    .disks()
                    .wish(&["r01n01".to_owned()], wish, "root", Timestamp(at))
                    .unwrap();
            }
        })
    };
    let mut used = UsedSpace {
        mount: "/tmp".to_owned(),
        bytes: 1,
    };
    // A change reads the rows of disks and waits for the store's writer, and so does an order.
    while !orders.is_finished() {
        let none: &[Changed] = &[];
        store.commit_blocking(boots.followed_rows(none)).unwrap();
        store.flush().unwrap();
        used.bytes ^= 1 << 30;
        boots.disks().record_used("r01n01", vec![used.clone()]);
    }
    orders.join().unwrap();
    boots
        .disks()
        .wish(
            &["r01n01".to_owned()],
            DiskWish::Prepare { wipe_foreign: false },
            "root",
            Timestamp(200),
        )
        .unwrap();
    let on_disk = Boots::load(store).unwrap();
    assert_eq!(on_disk.disks().get("r01n01"), boots.disks().get("r01n01"));
}
