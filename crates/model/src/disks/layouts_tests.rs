use super::*;
use crate::{
    disks::{DiskRules, DiskTrouble, DiskWish, disk_effects, next_effect},
    testing::{example, node},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_site::Site;
use rackstrap_wire::{ContentOf, FileSystem, UsedSpace, testing};

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
fn the_disk_of_a_layout_that_was_renamed_is_named_as_lost_and_held() {
    let old = site(|text| text);
    let new = site(|text| {
        text.replace("\"data\"]", "\"store\"]")
            .replace("layout.data", "layout.store")
    });
    // The agent finds on the disk that the rule of `store` chooses a marker of ours, and prepares it.
    let disk = booted(&old);
    let said = effect(&new, &disk).unwrap();
    assert!(said.needs_consent());
    assert_eq!(
        said.to_string(),
        "the next boot prepares the disk for layout store v3 and loses data v3: /data 7 GB used"
    );
    let rules = DiskRules {
        site: &new,
        confirmed: Some(&old),
    };
    let (held, instead) = next_effect(rules, &node("r01n01"), Some(&disk));
    assert_eq!((held.unwrap().kind, instead), (EffectKind::Held, true));
    // Also where the first layout is gone, and another one took its place.
    let former = |names: &[&str]| -> Vec<String> {
        let all = disk.former(names).into_iter();
        all.map(|marker| marker.layout.clone()).collect()
    };
    assert_eq!(former(&["data", "store"]), ["scratch"]);
    // A first layout with another name takes the disk of the first one, which is then its own.
    assert_eq!(former(&["big", "data"]), [""; 0]);
    assert_eq!(former(&["scratch", "data"]), [""; 0]);
    // It was confirmed, and the disk has another marker. The former layout is on no disk any more.
    let mut store = one(&old, "data", "sdb", "02");
    store.layout = "store".to_owned();
    store.facts.marker = Some(marker(&new, "store", "03"));
    let state = reported(vec![one(&old, "scratch", "sda", "01"), store]);
    let disk = disk.after(None, None, Timestamp(2), &state);
    assert_eq!(effect(&new, &disk), None);
    assert_eq!(
        content(&disk),
        "scratch v1 and store v3: /tmp 5 GB used, /data 7 GB used"
    );
    let said = effect(&old, &disk).unwrap().to_string();
    assert!(
        said.contains("prepares the disk for layout data v3 and loses store v3"),
        "{said}"
    );
}

#[test]
fn a_first_layout_that_was_renamed_and_named_as_before_loses_its_disk_only_with_consent() {
    let old = site(|text| text);
    let new = site(|text| {
        text.replace("[\"scratch\", ", "[\"big\", ")
            .replace("layout.scratch", "layout.big")
    });
    let mut big = one(&old, "scratch", "sda", "01");
    big.layout = "big".to_owned();
    big.facts.marker = Some(marker(&new, "big", "04"));
    let state = reported(vec![big, one(&old, "data", "sdb", "02")]);
    let disk = booted(&old).after(None, None, Timestamp(2), &state);
    assert_eq!(effect(&new, &disk), None);
    let said = effect(&old, &disk).unwrap();
    assert!(said.needs_consent());
    assert!(said.to_string().contains("loses big v1"), "{said}");
}

#[test]
fn a_layout_that_is_no_longer_the_first_one_has_one_record() {
    let site = site(|text| text);
    let alone = state_of(&one(&site, "data", "sdb", "02"));
    let disk = NodeDisk::default().after(None, None, Timestamp(1), &alone);
    // The new first layout finds no disk, and the other one is prepared again.
    let mut missing = one(&site, "scratch", "", "");
    missing.facts.marker = None;
    let state = reported(vec![missing, one(&site, "data", "sdb", "03")]);
    let disk = disk.after(None, None, Timestamp(2), &state);
    let names = ["scratch", "data"];
    assert_eq!(disk.seen_of(&names, 1).unwrap().marker, "03");
    assert_eq!(disk.seen_of(&names, 0), None);
    assert_eq!(content(&disk), "data v3");
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
    // The setting `disk` of the node is for its first layout.
    for problem in [
        DiskProblem::NoFit,
        DiskProblem::SeveralFit,
        DiskProblem::OtherRule,
        DiskProblem::OneSerial,
        DiskProblem::OtherName,
    ] {
        let mut disk = disk.clone();
        disk.state.layouts[1].facts.problem = Some(problem);
        let remedy = DiskTrouble::of(&disk).unwrap().remedy("r01n01");
        assert!(
            remedy.contains("[layout.data]") && !remedy.contains("node set") && !remedy.contains("profile"),
            "{remedy}"
        );
    }
}

#[test]
fn an_agent_that_cannot_use_all_of_the_plan_leaves_its_node_degraded() {
    let mut plan = testing::disk();
    let state = DiskState {
        status: DiskStatus::Kept {
            layout: "scratch v1".to_owned(),
        },
        ..DiskState::default()
    };
    let reason = |plan: &DiskPlan, state: &DiskState| match older_agent(Some(plan), state.clone()).status {
        DiskStatus::Degraded { reason } => reason,
        status => format!("{status:?}"),
    };
    assert_eq!(older_agent(Some(&plan), state.clone()), state);
    plan.contents.push(ContentOf {
        label: Some("SCRATCH".to_owned()),
        ..ContentOf::new("tmp")
    });
    assert_eq!(older_agent(Some(&plan), state.clone()), state, "only its label differs");
    plan.contents.push(ContentOf {
        fs: Some(FileSystem::Btrfs),
        ..ContentOf::new("store")
    });
    let said = reason(&plan, &state);
    assert!(
        said.contains("so store is not used; ") && said.contains("seal"),
        "{said}"
    );
    plan.more.push(testing::disk());
    plan.more[0].layout.name = "data".to_owned();
    let said = reason(&plan, &state);
    assert!(
        said.contains("store is not used") && said.contains("no disk for data"),
        "{said}"
    );
    let degraded = DiskState {
        status: DiskStatus::Degraded {
            reason: "vda is missing".to_owned(),
        },
        ..DiskState::default()
    };
    let said = reason(&plan, &degraded);
    assert!(
        said.starts_with("vda is missing; ") && said.contains("no disk for data"),
        "{said}"
    );
    plan.more.clear();
    assert_eq!(older_agent(Some(&plan), degraded.clone()), degraded);
    plan.more.push(testing::disk());
    // A shell in RAM, and FreeBSD, report no disk phase.
    assert_eq!(older_agent(Some(&plan), DiskState::default()), DiskState::default());
    let site = site(|text| text);
    let newer = reported(vec![one(&site, "scratch", "sda", "01")]);
    assert_eq!(older_agent(Some(&plan), newer.clone()), newer);
}
