use super::*;
use crate::{
    disks::{DiskTrouble, DiskWish, disk_effects},
    testing::{example, node},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_site::Site;
use rackstrap_wire::{UsedSpace, testing};

const DATA: &str = "
[layout.data]
version = 3
disk = { transport = \"sata\" }
[[layout.data.partition]]
name = \"data\"
size = \"rest\"
fs = \"xfs\"
mount = \"/data\"
";

/// The example's site with the layouts scratch and data, after `change`.
fn site(change: impl Fn(String) -> String) -> Site {
    example(|text| {
        let text = text.replace("\nlayout = \"scratch\"\n", "\nlayout = [\"scratch\", \"data\"]\n");
        change(format!("{text}\n{DATA}"))
    })
}

fn marker(site: &Site, layout: &str, id: &str) -> DiskMarker {
    DiskMarker {
        id: id.to_owned(),
        layout: layout.to_owned(),
        version: site.layouts[layout].layout.version,
        digest: site.layouts[layout].digest.clone(),
    }
}

fn one(site: &Site, layout: &str, device: &str, id: &str) -> LayoutDisk {
    LayoutDisk {
        layout: layout.to_owned(),
        status: DiskStatus::Kept {
            layout: layout.to_owned(),
        },
        device: device.to_owned(),
        size: 1 << 40,
        partitions: vec![layout.to_owned()],
        facts: DiskFacts {
            serial: format!("S-{id}"),
            marker: Some(marker(site, layout, id)),
            ..DiskFacts::default()
        },
    }
}

/// What an agent reports that found these disks.
fn reported(layouts: Vec<LayoutDisk>) -> DiskState {
    DiskState {
        layouts: layouts.clone(),
        ..state_of(&layouts[0])
    }
}

fn booted(site: &Site) -> NodeDisk {
    let state = reported(vec![one(site, "scratch", "sda", "01"), one(site, "data", "sdb", "02")]);
    let mut disk = NodeDisk::default().after(None, None, Timestamp(1), &state);
    disk.used = [("/tmp", 5_000_000_000), ("/data", 7_000_000_000)]
        .map(|(mount, bytes)| UsedSpace {
            mount: mount.to_owned(),
            bytes,
        })
        .to_vec();
    disk
}

fn effect(site: &Site, disk: &NodeDisk) -> Option<DiskEffect> {
    let nodes = [node("r01n01")];
    disk_effects(site, nodes.iter(), |_| Some(disk.clone())).pop()
}

fn ordered(wish: DiskWish, layouts: &[&str]) -> Option<DiskOrder> {
    let order = wish.order(7, "root", Timestamp(2))?;
    Some(DiskOrder {
        layouts: layouts.iter().map(|name| (*name).to_owned()).collect(),
        ..order
    })
}

#[test]
fn each_layout_finds_its_disk_again_whatever_its_place_in_the_list() {
    let site = site(|text| text);
    let disk = booted(&site);
    let found = |names: &[&str], index| disk.seen_of(names, index).map(|seen| seen.device);
    assert_eq!(found(&["scratch", "data"], 0).as_deref(), Some("sda"));
    assert_eq!(found(&["scratch", "data"], 1).as_deref(), Some("sdb"));
    assert_eq!(found(&["data", "scratch"], 0).as_deref(), Some("sdb"));
    assert_eq!(found(&["data", "scratch"], 1).as_deref(), Some("sda"));
    assert_eq!(found(&["data"], 0).as_deref(), Some("sdb"));
    assert_eq!(found(&["scratch"], 0).as_deref(), Some("sda"));
    // A first layout with another name takes the disk of the first one; a further one has no disk yet.
    assert_eq!(found(&["big", "data"], 0).as_deref(), Some("sda"));
    assert_eq!(found(&["scratch", "big"], 1), None);
    assert_eq!(found(&["big", "scratch"], 0), None);
    assert_eq!(found(&["scratch"], 1), None);
}

#[test]
fn the_records_follow_the_disks_when_the_list_changes() {
    let site = site(|text| text);
    // The second layout is now the first one, and the other one is gone from the list. Its disk stays known.
    let alone = state_of(&one(&site, "data", "sdb", "02"));
    let disk = booted(&site).after(None, None, Timestamp(2), &alone);
    assert_eq!(disk.marker.as_ref().unwrap().id, "02");
    assert_eq!(disk.more["scratch"].seen.device, "sda");
    assert_eq!(disk.seen_of(&["scratch", "data"], 0).unwrap().device, "sda");
    // One disk is prepared for another layout: it is not the disk of the earlier one any more.
    let mut moved = one(&site, "data", "sda", "01");
    moved.facts.marker = Some(marker(&site, "data", "01"));
    let first = NodeDisk::default().after(None, None, Timestamp(1), &state_of(&one(&site, "scratch", "sda", "01")));
    let disk = first.after(None, None, Timestamp(2), &state_of(&moved));
    assert!(disk.more.is_empty(), "{disk:?}");
    // However many layouts a node had, few are kept, and never fewer than the present ones.
    let mut disk = booted(&site);
    for number in 0..50 {
        let mut other = one(&site, "data", "sdc", &format!("{number:08}"));
        other.layout = format!("l{number}");
        let state = reported(vec![one(&site, "scratch", "sda", "01"), other]);
        disk = disk.after(None, None, Timestamp(3), &state);
        assert!(disk.more.len() <= MOST_KEPT && disk.more.contains_key(&format!("l{number}")));
    }
}

#[test]
fn a_row_of_an_older_release_and_one_without_further_layouts_are_the_same() {
    let site = site(|text| text);
    let row = serde_json::to_value(NodeDisk::default().after(
        None,
        None,
        Timestamp(1),
        &state_of(&one(&site, "scratch", "sda", "01")),
    ))
    .unwrap();
    assert!(
        row.get("more").is_none() && row["state"].get("layouts").is_none(),
        "{row}"
    );
    let read: NodeDisk = serde_json::from_value(row).unwrap();
    assert_eq!(read.seen_of(&["scratch", "data"], 0).unwrap().device, "sda");
    assert_eq!(read.seen_of(&["scratch", "data"], 1), None);
}

#[test]
fn only_the_data_of_the_layout_that_changed_is_named_as_lost() {
    let old = site(|text| text);
    let disk = booted(&old);
    assert_eq!(effect(&old, &disk), None);
    let new = site(|text| text.replace("\nversion = 3\n", "\nversion = 4\n"));
    let said = effect(&new, &disk).unwrap();
    assert!(said.needs_consent());
    assert_eq!(
        said.to_string(),
        "the next boot prepares the disk for layout data v4 and loses data v3: /data 7 GB used"
    );
    let both = site(|text| {
        text.replace("\nversion = 3\n", "\nversion = 4\n")
            .replace("\nversion = 1\n", "\nversion = 2\n")
    });
    assert_eq!(
        effect(&both, &disk).unwrap().to_string(),
        "the next boot prepares the disk for layout scratch v2 and data v4 and loses scratch v1: /tmp 5 GB used and data v3: /data 7 GB used"
    );
    assert_eq!(
        content(&disk),
        "scratch v1 and data v3: /tmp 5 GB used, /data 7 GB used"
    );
}

#[test]
fn an_order_is_for_the_layouts_that_it_names() {
    let same = site(|text| text);
    let mut disk = booted(&same);
    let wish = DiskWish::Prepare { wipe_foreign: false };
    disk.wish(wish, &["data".to_owned()], ordered(wish, &["data"]));
    let said = effect(&same, &disk).unwrap();
    assert_eq!((said.kind, said.layout.as_str()), (EffectKind::Ordered, "data v3"));
    // A new version of the other layout needs a consent all the same.
    let other = site(|text| text.replace("\nversion = 1\n", "\nversion = 2\n"));
    assert!(effect(&other, &disk).unwrap().needs_consent());
    // An order for a node with one layout is not for a layout that the node gets before its next boot.
    disk.wish(wish, &[], ordered(wish, &[]));
    let orders = |names: &[&str]| -> Vec<bool> {
        (0..names.len())
            .map(|index| disk.order_for(names, index).is_some())
            .collect()
    };
    assert_eq!(orders(&["scratch"]), [true]);
    assert_eq!(orders(&["scratch", "data"]), [true, false]);
    assert_eq!(orders(&["data", "scratch"]), [false, true]);
    let new = DiskWish::NewDisk { wipe_foreign: false };
    disk.wish(new, &["data".to_owned()], None);
    let names = ["scratch", "data"];
    assert_eq!(disk.seen_of(&names, 0).unwrap().device, "sda");
    assert_eq!((disk.seen_of(&names, 1), disk.order.is_none()), (None, true));
    disk.wish(new, &["scratch".to_owned()], None);
    assert_eq!(disk.seen_of(&names, 0), None);
}

#[test]
fn a_missing_disk_of_a_further_layout_has_its_command() {
    let site = site(|text| text);
    let mut lost = one(&site, "data", "", "");
    lost.facts.marker = None;
    lost.facts.problem = Some(DiskProblem::Missing);
    let state = reported(vec![one(&site, "scratch", "sda", "01"), lost]);
    let disk = booted(&site).after(None, None, Timestamp(2), &state);
    assert_eq!(disk.more["data"].seen.device, "sdb", "it is still the disk to find");
    let remedy = DiskTrouble::of(&disk).unwrap().remedy("r01n01");
    assert!(
        remedy.contains("`rackstrap node reprep r01n01 --layout data --new-disk`"),
        "{remedy}"
    );
}

#[test]
fn an_agent_without_several_layouts_leaves_its_node_degraded() {
    let mut plan = testing::disk();
    let state = DiskState::default();
    assert_eq!(older_agent(Some(&plan), state.clone()), state);
    plan.more.push(testing::disk());
    plan.more[0].layout.name = "data".to_owned();
    let DiskStatus::Degraded { reason } = older_agent(Some(&plan), state).status else {
        panic!()
    };
    assert!(
        reason.contains("no disk for data") && reason.contains("seal"),
        "{reason}"
    );
    let site = site(|text| text);
    let newer = reported(vec![one(&site, "scratch", "sda", "01")]);
    assert_eq!(older_agent(Some(&plan), newer.clone()), newer);
}
