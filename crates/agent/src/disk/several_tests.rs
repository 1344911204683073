use super::*;
use crate::disk::{
    inspect::Finding,
    marker::{MarkerState, Record},
};
use rackstrap_wire::{DiskFacts, PartitionTable, UnusedDisk, testing};

fn plan(layout: &str, device: &str, seen: Option<(&str, &str)>) -> DiskPlan {
    let mut plan = testing::disk();
    plan.layout.name = layout.to_owned();
    plan.device = device.to_owned();
    plan.seen = seen.map(|(serial, marker)| SeenDisk {
        device: "sdz".to_owned(),
        serial: serial.to_owned(),
        marker: marker.to_owned(),
    });
    plan
}

fn disk(name: &str, serial: &str, layout: &str, marker: &str) -> InspectedDisk {
    let record = Record {
        name: layout.to_owned(),
        version: 1,
        digest: [0; 16],
        table: PartitionTable::Gpt,
    };
    InspectedDisk {
        disk: Candidate {
            name: name.to_owned(),
            size: 1 << 30,
            serial: serial.to_owned(),
            ..Candidate::default()
        },
        finding: Ok(match layout {
            "" => Finding::Blank,
            _ => Finding::Ours {
                record: Some(record),
                state: MarkerState::Final,
            },
        }),
        marker: marker.to_owned(),
    }
}

#[test]
fn a_disk_belongs_to_the_layout_of_its_marker_and_of_the_last_boot() {
    let data = plan("data", "pick=first", Some(("D", "0d")));
    let of_scratch = |disk: &InspectedDisk, seen| is_of_another(disk, &plan("scratch", "auto", seen), &[&data]);
    assert!(of_scratch(&disk("sda", "", "data", "0d"), None));
    assert!(!of_scratch(&disk("sda", "", "scratch", "0e"), None));
    assert!(
        !of_scratch(&disk("sda", "", "older", "0e"), None),
        "a layout that the node no longer has"
    );
    assert!(!of_scratch(&disk("sda", "", "", ""), None));
    // The disk of the other layout lost its marker. Its serial number is known.
    assert!(of_scratch(&disk("sda", "D", "", ""), None));
    assert!(of_scratch(&disk("sda", "D", "older", "0d"), Some(("S", "0e"))));
    // Serial numbers that both have identify neither.
    assert!(!of_scratch(&disk("sda", "D", "", ""), Some(("D", "0e"))));
    // A disk that cannot be read belongs to the layout that had it.
    let mut unreadable = disk("sda", "D", "", "");
    unreadable.finding = Err("reading sda: Input/output error".to_owned());
    assert!(of_scratch(&unreadable, None));
}

#[test]
fn a_rule_that_fits_only_the_disk_of_another_layout_is_named_with_both() {
    let mut one = disk("sda", "S", "", "").disk;
    one.properties.model = "Samsung".to_owned();
    let taken = [Taken {
        disk: one.clone(),
        layout: "scratch".to_owned(),
    }];
    let present = [one.clone()];
    let state = |problem| DiskState {
        facts: DiskFacts {
            problem,
            ..DiskFacts::default()
        },
        ..DiskState::default()
    };
    let no_fit = state(Some(DiskProblem::NoFit));
    let said = |device: &str, state: &DiskState| fits_but_taken(&plan("data", device, None), state, &present, &taken);
    let text = "sda fits, and is the disk of the layout scratch";
    assert_eq!(said("model=Samsung", &no_fit).as_deref(), Some(text));
    assert_eq!(said("sda", &state(None)).as_deref(), Some(text));
    assert_eq!(said("model=Intel", &no_fit), None);
    assert_eq!(said("model=Samsung", &state(Some(DiskProblem::Missing))), None);
    let mut chosen = state(None);
    chosen.device = "sdb".to_owned();
    assert_eq!(said("model=Samsung", &chosen), None);
}

fn outcome(device: &str, status: DiskStatus, unused: &[&str]) -> Outcome {
    let unused = unused.iter().map(|name| UnusedDisk {
        device: (*name).to_owned(),
        size: 1,
        what: "blank".to_owned(),
        about: String::new(),
    });
    let state = DiskState {
        status,
        device: device.to_owned(),
        mounts: vec![rackstrap_wire::MountedPartition {
            name: format!("on-{device}"),
            device: format!("/dev/mapper/rackstrap-{device}"),
            fs: rackstrap_wire::FileSystem::Ext4,
            uuid: String::new(),
            mount: None,
            options: String::new(),
            size: 1,
            encrypted: true,
        }],
        facts: DiskFacts {
            unused: unused.collect(),
            ..DiskFacts::default()
        },
        ..DiskState::default()
    };
    (state, format!("{device} done"))
}

#[test]
fn the_node_is_degraded_if_any_of_its_layouts_is() {
    let kept = |layout: &str| DiskStatus::Kept {
        layout: layout.to_owned(),
    };
    let (scratch, data) = (plan("scratch", "auto", None), plan("data", "sdb", None));
    let good = vec![
        (&scratch, outcome("sda", kept("scratch v1"), &["sdb", "sdc"])),
        (&data, outcome("sdb", kept("data v3"), &["sdc"])),
    ];
    let (state, text) = together(good);
    assert_eq!(
        (state.status, text.as_str()),
        (kept("scratch v1"), "sda done; sdb done")
    );
    assert_eq!(state.facts.unused.len(), 1, "the disk of no layout");
    let devices: Vec<&str> = state.layouts.iter().map(|one| one.device.as_str()).collect();
    assert_eq!(devices, ["sda", "sdb"]);
    let partitions: Vec<&[String]> = state.layouts.iter().map(|one| &one.partitions[..]).collect();
    assert_eq!(partitions, [["on-sda"], ["on-sdb"]]);
    assert_eq!(state.mounts.len(), 2);
    let degraded = DiskStatus::Degraded {
        reason: "no disk fits".to_owned(),
    };
    let bad = vec![
        (&scratch, outcome("sda", kept("scratch v1"), &[])),
        (&data, outcome("", degraded.clone(), &[])),
    ];
    let (state, _) = together(bad);
    let all = "layout data: no disk fits".to_owned();
    assert_eq!(state.status, DiskStatus::Degraded { reason: all });
    // The first layout is not: the network loader of its disk is updated.
    assert_eq!(state.first_status(), &kept("scratch v1"));
    assert_eq!(state.layouts[1].status, degraded);
}

/// Boots a node with these plans, without any disk of them, among `disks`, and returns the devices that each layout looked at.
fn devices(plans: &[DiskPlan], disks: &[Candidate]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut first = plans[0].clone();
    first.more = plans[1..].to_vec();
    let context = Context {
        node: "r01n01",
        image: dir.path(),
        list: &rackstrap_wire::ImageList::default(),
        mounts: dir.path(),
        on_step: &mut |_| (),
        on_line: &mut |_| (),
    };
    let (state, _) = run_all(&first, &|| disks.to_vec(), context);
    state.layouts.into_iter().map(|one| one.device).collect()
}

#[test]
fn no_disk_is_that_of_two_layouts_even_over_another_path() {
    // None of these can be opened, so nothing is written.
    let [first, mut second, mut third] = ["nosuch0", "nosuch1", "nosuch2"].map(|name| disk(name, "", "", "").disk);
    for path in [&mut second, &mut third] {
        path.serial = "naa.5".to_owned();
        path.properties.wwn = "5".to_owned();
    }
    let plans = ["scratch", "data"].map(|layout| plan(layout, "auto", None));
    assert_eq!(
        devices(&plans, &[first.clone(), second.clone()]),
        ["nosuch0", "nosuch1"]
    );
    assert_eq!(devices(&plans, &[second, third, first]), ["nosuch0", "nosuch1"]);
}
