use super::*;
use crate::disk::marker::{MarkerState, Record};
use proptest::prelude::*;
use rackstrap_wire::{Layout, PartitionTable, Transport, Wipe};

fn disk(name: &str) -> Candidate {
    Candidate {
        name: name.to_owned(),
        size: 1 << 30,
        ..Candidate::default()
    }
}

fn looked(name: &str, serial: &str, finding: Finding, marker: &str) -> InspectedDisk {
    InspectedDisk {
        disk: Candidate {
            serial: serial.to_owned(),
            ..disk(name)
        },
        finding: Ok(finding),
        marker: marker.to_owned(),
    }
}

fn ours() -> Finding {
    let record = Record {
        name: "scratch".to_owned(),
        version: 1,
        digest: [1; 16],
        table: PartitionTable::Gpt,
    };
    Finding::Ours {
        record: Some(record),
        state: MarkerState::Final,
    }
}

fn plan(device: &str, seen: Option<(&str, &str, &str)>) -> DiskPlan {
    DiskPlan {
        layout: Layout {
            name: "scratch".to_owned(),
            version: 1,
            table: PartitionTable::Gpt,
            partitions: Vec::new(),
        },
        digest: String::new(),
        device: device.to_owned(),
        // The rule is the same whatever the plan allows to overwrite.
        wipe: Wipe::Always,
        wipe_known: false,
        roots: Vec::new(),
        seen: seen.map(|(device, serial, marker)| SeenDisk {
            device: device.to_owned(),
            serial: serial.to_owned(),
            marker: marker.to_owned(),
        }),
        again: false,
        remake: Vec::new(),
        more: Vec::new(),
        loader: None,
        esp: Vec::new(),
        layout_esp: None,
        contents: Vec::new(),
    }
}

fn order(names: &[&str], wanted: &str) -> Vec<String> {
    let all = names.iter().map(|name| disk(name)).collect();
    of_interest(all, wanted).into_iter().map(|disk| disk.name).collect()
}

#[test]
fn fast_disks_come_before_slow_ones() {
    assert_eq!(
        order(&["sdaa", "sdb", "loop0", "dm-0", "md127"], "auto"),
        ["sdb", "sdaa"]
    );
    assert_eq!(
        order(
            &["vda", "mmcblk0", "sda", "nvme1n1", "mmcblk0boot0", "nvme0n1", "sr0"],
            "auto"
        ),
        ["nvme0n1", "nvme1n1", "sda", "vda", "mmcblk0"]
    );
    assert!(order(&["zram0", "ram0", "nbd3", "fd0", "mmcblk0rpmb"], "auto").is_empty());
    assert_eq!(
        order(&["nvme0n1", "sdb", "loop3"], "loop3"),
        ["loop3", "nvme0n1", "sdb"]
    );
    let mut all = vec![disk("sda"), disk("mmcblk0"), disk("sdb"), disk("sdc")];
    all[0].usb = true;
    all[3].removable = true;
    let names: Vec<String> = of_interest(all, "auto").into_iter().map(|disk| disk.name).collect();
    assert_eq!(names, ["sdb", "mmcblk0", "sda"]);
}

#[test]
fn the_marked_disk_is_chosen_under_any_kernel_name() {
    let foreign = || Finding::Foreign("ext2/3/4".to_owned());
    let all = [
        looked("nvme0n1", "B", foreign(), ""),
        looked("nvme1n1", "A", ours(), "01"),
    ];
    for plan in [
        plan("auto", None),
        plan("auto", Some(("nvme0n1", "A", "01"))),
        plan("nvme0n1", Some(("nvme0n1", "A", "01"))),
        // An older agent reported neither number.
        plan("auto", Some(("nvme0n1", "", ""))),
    ] {
        assert_eq!(choose(&all, &plan), Ok(Some(1)), "{plan:?}");
    }
    // If a profile changed its disk, it is unclear which of the two holds the node's data.
    let refused = choose(&all, &plan("nvme0n1", None)).unwrap_err();
    assert_eq!(refused.problem, DiskProblem::OtherName);
    assert_eq!(
        refused.text,
        "nvme0n1 is the profile's disk, but nvme1n1 (scratch v1) carries the marker"
    );
}

#[test]
fn two_marked_disks_are_named() {
    let all = [looked("nvme0n1", "A", ours(), "01"), looked("sda", "B", ours(), "02")];
    // The last boot's disk is not among them, or is unknown.
    for seen in [None, Some(("nvme0n1", "C", "03")), Some(("nvme0n1", "", ""))] {
        let refused = choose(&all, &plan("auto", seen)).unwrap_err();
        assert_eq!(refused.problem, DiskProblem::SeveralMarkers);
        assert_eq!(
            refused.text,
            "several disks carry a rackstrap marker: nvme0n1 (scratch v1), sda (scratch v1)"
        );
    }
    // The other disk was prepared for another node, and was moved here.
    assert_eq!(choose(&all, &plan("auto", Some(("nvme0n1", "A", "01")))), Ok(Some(0)));
    assert_eq!(choose(&all, &plan("auto", Some(("nvme0n1", "B", "02")))), Ok(Some(1)));
    // A copy is not the same disk; a disk with two paths is.
    let copy = [looked("sda", "A", ours(), "01"), looked("sdb", "B", ours(), "01")];
    for seen in [None, Some(("sda", "A", "01"))] {
        let refused = choose(&copy, &plan("auto", seen)).unwrap_err();
        assert_eq!(refused.problem, DiskProblem::SeveralMarkers);
    }
    let twice = [looked("sda", "A", ours(), "01"), looked("sdb", "A", ours(), "01")];
    assert_eq!(choose(&twice, &plan("auto", None)), Ok(Some(0)));
}

#[test]
fn no_other_disk_replaces_a_missing_one() {
    let seen = Some(("nvme1n1", "A", "01"));
    let refused = choose(&[looked("nvme0n1", "B", Finding::Blank, "")], &plan("auto", seen)).unwrap_err();
    assert_eq!(refused.problem, DiskProblem::Missing);
    assert_eq!(refused.text, "the disk of the last boot (nvme1n1, A) is missing");
    let refused = choose(&[], &plan("auto", seen)).unwrap_err();
    assert_eq!((refused.problem, refused.may_pass), (DiskProblem::Missing, true));
    let refused = choose(&[looked("nvme0n1", "B", ours(), "02")], &plan("auto", seen)).unwrap_err();
    assert_eq!(refused.problem, DiskProblem::OtherMarker);
    // Nothing is known that identifies it: a blank disk may be any disk.
    assert!(
        choose(
            &[looked("vda", "", Finding::Blank, "")],
            &plan("auto", Some(("vda", "", "")))
        )
        .is_err()
    );
    // The same disk, wiped by its administrator.
    let wiped = [
        looked("sda", "B", Finding::Blank, ""),
        looked("sdb", "A", Finding::Blank, ""),
    ];
    assert_eq!(choose(&wiped, &plan("auto", seen)), Ok(Some(1)));
    assert_eq!(choose(&wiped, &plan("auto", None)), Ok(Some(0)));
    assert_eq!(choose(&wiped, &plan("sdb", None)), Ok(Some(1)));
    assert_eq!(choose(&wiped, &plan("sdc", None)), Ok(None));
}

#[test]
fn the_last_boots_disk_is_chosen_though_it_was_wiped_and_another_nodes_disk_is_present() {
    let seen = Some(("nvme0n1", "A", "01"));
    // A spare disk that was prepared for another node, and the node's own disk: wiped, overwritten, or failing.
    let foreign = Finding::Foreign("ext2/3/4".to_owned());
    for found in [
        Ok(Finding::Blank),
        Ok(foreign),
        Err("reading nvme0n1: I/O error".to_owned()),
    ] {
        let own = InspectedDisk {
            finding: found,
            ..looked("nvme0n1", "A", Finding::Blank, "")
        };
        for all in [
            vec![own.clone(), looked("nvme1n1", "B", ours(), "02")],
            vec![looked("nvme1n1", "B", ours(), "02"), own.clone()],
            vec![
                looked("sda", "C", ours(), "03"),
                own.clone(),
                looked("sdb", "B", ours(), "02"),
            ],
        ] {
            let index = choose(&all, &plan("auto", seen)).unwrap().unwrap();
            assert_eq!(all[index].disk.name, "nvme0n1");
            assert!(is_certain(&all[index], &plan("auto", seen)));
        }
    }
    // A copy of it carries its marker, so the copy has the node's data.
    let all = [
        looked("nvme0n1", "A", Finding::Blank, ""),
        looked("nvme1n1", "B", ours(), "01"),
    ];
    assert_eq!(choose(&all, &plan("auto", seen)), Ok(Some(1)));
}

fn any_disk() -> impl Strategy<Value = InspectedDisk> {
    let finding = prop_oneof![
        Just(Ok(Finding::Blank)),
        Just(Ok(ours())),
        Just(Ok(Finding::Foreign("xfs".to_owned()))),
        Just(Err("cannot be read".to_owned())),
    ];
    (0..6u8, 0..4u8, 0..4u8, finding).prop_map(|(name, serial, marker, finding)| {
        let text = |n: u8| if n == 0 { String::new() } else { n.to_string() };
        let marked = matches!(finding, Ok(Finding::Ours { .. }));
        InspectedDisk {
            disk: Candidate {
                serial: text(serial),
                ..disk(&format!("nvme{name}n1"))
            },
            finding,
            marker: if marked { text(marker) } else { String::new() },
        }
    })
}

proptest! {
    /// No disk without a marker is chosen if another disk has a marker, or replaces the last boot's disk, unless its serial number is
    /// that of the last boot's disk.
    #[test]
    fn a_disk_without_a_marker_never_takes_the_place_of_one_that_has_it(
        all in proptest::collection::vec(any_disk(), 0..5),
        seen in proptest::option::of((0..4u8, 0..4u8)),
        named: bool,
    ) {
        let text = |n: u8| if n == 0 { String::new() } else { n.to_string() };
        let seen = seen.map(|(serial, marker)| (text(serial), text(marker)));
        let device = if named { "nvme0n1" } else { "auto" };
        let plan = plan(device, seen.as_ref().map(|(serial, marker)| ("nvme0n1", serial.as_str(), marker.as_str())));
        if let Ok(Some(index)) = choose(&all, &plan) {
            let disk = &all[index];
            let is_marked = |disk: &InspectedDisk| matches!(disk.finding, Ok(Finding::Ours { .. }));
            if !is_marked(disk) {
                match &seen {
                    Some((serial, marker)) => {
                        prop_assert!(!serial.is_empty() && *serial == disk.disk.serial);
                        let has = |disk: &InspectedDisk| is_marked(disk) && !marker.is_empty() && disk.marker == *marker;
                        prop_assert!(!all.iter().any(has));
                    }
                    None => prop_assert!(!all.iter().any(is_marked)),
                }
            }
        }
    }
}

#[test]
fn the_agent_waits_for_later_disks_unless_the_last_boots_disk_is_present() {
    let certain = |disk: &InspectedDisk, seen| is_certain(disk, &plan("auto", seen));
    let marked = looked("sda", "A", ours(), "01");
    assert!(certain(&marked, Some(("sda", "A", "01"))));
    assert!(certain(&marked, Some(("sda", "", "01"))) && certain(&marked, Some(("sda", "A", ""))));
    // A copy whose original may appear later; another disk; a first boot; a disk that an older agent reported.
    for seen in [
        Some(("sda", "B", "01")),
        Some(("sda", "A", "02")),
        None,
        Some(("sda", "", "")),
    ] {
        assert!(!certain(&marked, seen), "{seen:?}");
    }
    let wiped = looked("sda", "A", Finding::Blank, "");
    assert!(certain(&wiped, Some(("sda", "A", "01"))));
    assert!(!certain(
        &looked("sda", "", Finding::Blank, ""),
        Some(("sda", "", "01"))
    ));
}

fn nvme(name: &str, serial: &str, gb: u64) -> InspectedDisk {
    let mut disk = looked(name, serial, Finding::Blank, "");
    disk.disk.size = gb * 1_000_000_000;
    disk.disk.properties.serial = serial.to_owned();
    disk.disk.properties.transport = Some(Transport::Nvme);
    disk
}

fn marked(mut disk: InspectedDisk, marker: &str) -> InspectedDisk {
    disk.finding = Ok(ours());
    disk.marker = marker.to_owned();
    disk
}

#[test]
fn a_rule_chooses_the_disk_that_fits_it() {
    let all = [
        nvme("nvme0n1", "A", 1000),
        nvme("nvme1n1", "B", 500),
        nvme("nvme2n1", "C", 2000),
    ];
    for (rule, index) in [
        ("serial=B", 1),
        ("pick=smallest", 1),
        ("pick=largest", 2),
        ("pick=first", 0),
        ("size=800GB..1500GB, transport=nvme", 0),
        ("size=800GB.., pick=smallest", 0),
    ] {
        assert_eq!(choose(&all, &plan(rule, None)), Ok(Some(index)), "{rule}");
    }
    // Whatever their order, the rule chooses the same disk.
    let turned = [all[2].clone(), all[1].clone(), all[0].clone()];
    assert_eq!(choose(&turned, &plan("serial=A", None)), Ok(Some(2)));
}

#[test]
fn a_rule_that_fits_no_disk_or_several_is_refused_with_what_the_node_has() {
    let all = [nvme("nvme0n1", "A", 1000), nvme("nvme1n1", "B", 1000)];
    let refused = |all: &[InspectedDisk], rule: &str| {
        let refused = choose(all, &plan(rule, None)).unwrap_err();
        (refused.problem, refused.text)
    };
    assert_eq!(
        refused(&all, "transport=sata"),
        (
            DiskProblem::NoFit,
            "no disk fits the rule transport=sata; the node has nvme0n1 (1 TB, nvme, A), nvme1n1 (1 TB, nvme, B)"
                .to_owned()
        )
    );
    assert_eq!(
        refused(&[], "serial=A").1,
        "no disk fits the rule serial=A; the node has no disk"
    );
    for rule in ["transport=nvme", "pick=smallest", "pick=largest"] {
        let (problem, text) = refused(&all, rule);
        assert_eq!(problem, DiskProblem::SeveralFit);
        assert_eq!(
            text,
            format!("2 disks fit the rule {rule}: nvme0n1 (1 TB, nvme, A), nvme1n1 (1 TB, nvme, B)")
        );
    }
    // Adapters with one serial number for all disks behind them.
    let twins = [nvme("sda", "0123", 1000), nvme("sdb", "0123", 1000)];
    assert_eq!(refused(&twins, "serial=0123").0, DiskProblem::SeveralFit);
    // A world-wide name says that both are one disk.
    let paths = twins.map(|mut disk| {
        disk.disk.properties.wwn = "5000c500a1b2c3d4".to_owned();
        disk
    });
    assert_eq!(choose(&paths, &plan("serial=0123", None)), Ok(Some(0)));
    // A newer daemon's rule.
    let (problem, text) = refused(&all, "colour=red");
    assert_eq!(problem, DiskProblem::NoFit);
    assert!(text.contains("cannot read the rule 'colour=red'"), "{text}");
    let many: Vec<InspectedDisk> = (0..200)
        .map(|n| nvme(&format!("nvme{n}n1"), &"S".repeat(128), 1000))
        .collect();
    assert!(refused(&many, "transport=nvme").1.len() < 500);
}

#[test]
fn among_the_disks_that_fit_a_rule_the_marked_one_is_the_nodes() {
    let all = [nvme("nvme0n1", "A", 500), marked(nvme("nvme1n1", "B", 1000), "01")];
    // The rule alone would choose the other one.
    assert_eq!(choose(&all, &plan("pick=smallest", None)), Ok(Some(1)));
    assert_eq!(
        choose(&all, &plan("pick=smallest", Some(("nvme0n1", "B", "01")))),
        Ok(Some(1))
    );
    // A marked disk that does not fit belongs to another rule.
    assert_eq!(choose(&all, &plan("serial=A", None)), Ok(Some(0)));
    // If that is the disk of the last boot, an administrator decides. Its marker may be lost.
    let wiped = [all[0].clone(), nvme("nvme1n1", "B", 1000)];
    for all in [&all, &wiped] {
        let refused = choose(all, &plan("serial=A", Some(("nvme0n1", "B", "01")))).unwrap_err();
        assert_eq!(refused.problem, DiskProblem::OtherRule);
        assert!(
            refused
                .text
                .contains("is the disk of the last boot, and does not fit the rule serial=A"),
            "{}",
            refused.text
        );
    }
    // No other disk that fits replaces a missing one.
    let refused = choose(&all[..1], &plan("pick=smallest", Some(("nvme0n1", "B", "01")))).unwrap_err();
    assert_eq!(refused.problem, DiskProblem::Missing);
}

#[test]
fn a_serial_number_that_two_disks_have_identifies_neither() {
    let seen = Some(("sda", "0123", "01"));
    let own = marked(nvme("sda", "0123", 1000), "01");
    let other = marked(nvme("sdb", "0123", 1000), "02");
    for device in ["auto", "serial=0123"] {
        assert_eq!(choose(&[own.clone(), other.clone()], &plan(device, seen)), Ok(Some(0)));
        assert_eq!(choose(&[other.clone(), own.clone()], &plan(device, seen)), Ok(Some(1)));
        // The node's disk lost its marker, so it is not known which of the two it is.
        let wiped = [nvme("sda", "0123", 1000), nvme("sdb", "0123", 1000)];
        let refused = choose(&wiped, &plan(device, seen)).unwrap_err();
        assert_eq!(refused.problem, DiskProblem::OneSerial);
        assert_eq!(
            refused.text,
            "sda (blank), sdb (blank) have the serial number 0123 of the disk of the last boot, and none of them has its marker"
        );
    }
}

proptest! {
    /// Whatever disks there are, and whatever is known of the last boot, a disk that does not fit the rule is never chosen.
    #[test]
    fn a_disk_that_does_not_fit_the_rule_is_never_chosen(
        mut all in proptest::collection::vec(any_disk(), 0..5),
        transports in proptest::collection::vec(0..7usize, 5),
        sizes in proptest::collection::vec(1..4u64, 5),
        seen in proptest::option::of((0..4u8, 0..4u8)),
        rule in 0..7usize,
    ) {
        for ((disk, transport), size) in all.iter_mut().zip(transports).zip(sizes) {
            disk.disk.properties.transport = Transport::ALL.get(transport).copied();
            disk.disk.properties.serial = disk.disk.serial.clone();
            disk.disk.usb = disk.disk.properties.transport == Some(Transport::Usb);
            disk.disk.size = size * 1_000_000_000;
        }
        let rule = ["transport=nvme", "transport=usb", "serial=1", "size=2GB..", "size=..2GB, pick=largest", "pick=smallest", "pick=first"][rule];
        let text = |n: u8| if n == 0 { String::new() } else { n.to_string() };
        let seen = seen.map(|(serial, marker)| (text(serial), text(marker)));
        let plan = plan(rule, seen.as_ref().map(|(serial, marker)| ("nvme0n1", serial.as_str(), marker.as_str())));
        if let Ok(chosen) = choose(&all, &plan) {
            let disk = &all[chosen.unwrap()];
            prop_assert!(disk.disk.fits(&rule.parse().unwrap()), "{disk:?}");
        }
    }
}
