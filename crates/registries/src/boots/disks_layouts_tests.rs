//! The disks of nodes with several layouts.

use super::{
    tests::{boot_with, kept, plan, told},
    *,
};
use crate::{boots::Boots, testing::store};
use rackstrap_wire::{DiskMarker, LayoutDisk, testing};

#[tokio::test]
async fn each_layout_has_its_own_disk_to_find_and_its_own_orders() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    let several = |node: &str| {
        let mut plan = plan(node);
        let mut data = testing::disk();
        data.layout.name = "data".to_owned();
        data.wipe = Wipe::Always;
        plan.disk.as_mut().unwrap().more.push(data);
        plan
    };
    let state = |data: Option<&str>| {
        let mut state = kept("A", "01");
        let one = |layout: &str, device: &str, facts: DiskFacts| LayoutDisk {
            layout: layout.to_owned(),
            device: device.to_owned(),
            facts,
            ..LayoutDisk::default()
        };
        let mut facts = state.facts.clone();
        facts.serial = "B".to_owned();
        facts.marker = data.map(|id| DiskMarker {
            id: id.to_owned(),
            layout: "data".to_owned(),
            version: 1,
            digest: "0".repeat(32),
        });
        let data = one("data", "sda", facts);
        state.layouts = vec![one("scratch", "nvme0n1", state.facts.clone()), data];
        state
    };
    let boot = async |boots: &Boots, at: u64, state: &DiskState| {
        let boot = boot_with(boots, at, several("r01n01"), state).await;
        told(&boot)
    };
    let seen = |plan: &DiskPlan| {
        plan.seen
            .as_ref()
            .map(|seen| (seen.device.clone(), seen.marker.clone()))
    };
    let both = |plan: &DiskPlan| (seen(plan), seen(&plan.more[0]));
    assert_eq!(both(&boot(&boots, 1, &state(Some("02"))).await), (None, None));
    let (first, second) = (
        Some(("nvme0n1".to_owned(), "01".to_owned())),
        Some(("sda".to_owned(), "02".to_owned())),
    );
    // The disk of the second layout is missing for a while, and the daemon restarts.
    assert_eq!(
        both(&boot(&boots, 2, &state(None)).await),
        (first.clone(), second.clone())
    );
    drop(boots);
    let boots = Boots::load(store).unwrap();
    assert_eq!(
        both(&boot(&boots, 3, &state(Some("02"))).await),
        (first.clone(), second.clone())
    );
    let data = Parts {
        layouts: vec!["data".to_owned()],
        ..Parts::default()
    };
    let node = ["r01n01".to_owned()];
    let wish = DiskWish::Prepare { wipe_foreign: true };
    boots.disks().wish_of(&node, wish, &data, "root", Timestamp(4)).unwrap();
    let ordered = boot(&boots, 5, &state(Some("02"))).await;
    assert_eq!((ordered.again, ordered.wipe), (false, Wipe::Ours));
    assert_eq!((ordered.more[0].again, ordered.more[0].wipe), (true, Wipe::Always));
    // An order that is taken back before the plan is sent leaves each layout its own `wipe`.
    boots.disks().wish_of(&node, wish, &data, "root", Timestamp(6)).unwrap();
    let pinned = boots.open(Timestamp(7), |_| several("r01n01")).await.unwrap();
    boots
        .disks()
        .wish(&node, DiskWish::Cancel, "root", Timestamp(8))
        .unwrap();
    let sent = boots.send_plan(&pinned.plan.id).unwrap().plan.disk.clone().unwrap();
    assert_eq!((sent.again, sent.wipe), (false, Wipe::Ours));
    assert_eq!((sent.more[0].again, sent.more[0].wipe), (false, Wipe::Always));
    assert_eq!(both(&sent), (first.clone(), second));
    // The disk of the second layout was replaced: the first one stays the disk to find.
    let new = DiskWish::NewDisk { wipe_foreign: false };
    boots.disks().wish_of(&node, new, &data, "root", Timestamp(9)).unwrap();
    assert_eq!(both(&boot(&boots, 10, &state(Some("03"))).await), (first, None));
    // An order for a partition is none for a disk, whatever came with it.
    let tmp = Parts {
        partitions: vec!["tmp".to_owned()],
        ..Parts::default()
    };
    boots.disks().wish_of(&node, wish, &tmp, "root", Timestamp(11)).unwrap();
    let ordered = boot(&boots, 12, &state(Some("03"))).await;
    assert_eq!(
        (ordered.again, ordered.wipe, ordered.more[0].again),
        (false, Wipe::Ours, false)
    );
}
