use super::*;
use crate::{
    disks::{Confirmed, DiskOrder},
    testing::{example, node},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::{DiskFacts, DiskMarker, DiskState, DiskStatus, UsedSpace};

fn marked(site: &Site) -> NodeDisk {
    NodeDisk {
        marker: Some(DiskMarker {
            id: "01".to_owned(),
            layout: "scratch".to_owned(),
            version: 1,
            digest: site.layouts["scratch"].digest.clone(),
        }),
        used: vec![UsedSpace {
            mount: "/tmp".to_owned(),
            bytes: 38_400_000_000,
        }],
        ..NodeDisk::default()
    }
}

fn foreign() -> NodeDisk {
    NodeDisk {
        state: DiskState {
            status: DiskStatus::Degraded {
                reason: "vda holds foreign data (xfs)".to_owned(),
            },
            device: "vda".to_owned(),
            facts: DiskFacts {
                problem: Some(DiskProblem::Foreign),
                foreign: "xfs".to_owned(),
                ..DiskFacts::default()
            },
            ..DiskState::default()
        },
        ..NodeDisk::default()
    }
}

/// The same, from an agent that says whether the data has known formats only.
fn reported(leftover: bool) -> NodeDisk {
    let mut disk = foreign();
    disk.state.facts.about = "transport=virtio, rotational=no".to_owned();
    disk.state.facts.leftover = leftover;
    disk
}

fn order() -> DiskOrder {
    DiskOrder {
        id: 7,
        wipe_foreign: true,
        layouts: Vec::new(),
        partitions: Vec::new(),
        by: "root".to_owned(),
        at: Timestamp(1),
    }
}

fn version_2(text: String) -> String {
    text.replace("\nversion = 1\n", "\nversion = 2\n")
}

#[test]
fn a_new_layout_version_names_the_nodes_and_their_lost_data() {
    let (old, new) = (example(|text| text), example(version_2));
    assert_eq!(new.layouts["scratch"].layout.version, 2);
    let disk = marked(&old);
    assert_eq!(disk_effect(&old, &node("r01n01"), Some(&disk)), None);
    let nodes = ["r01n01", "r01n02", "r01n03"].map(node);
    let effects = disk_effects(&new, nodes.iter(), |name| (name != "r01n03").then(|| disk.clone()));
    assert!(effects.iter().all(DiskEffect::loses_data));
    assert_eq!(
        describe_effects(&effects, 9),
        ["r01n[01-02]: the next boot prepares the disk for layout scratch v2 and loses scratch v1: /tmp 38 GB used"]
    );
}

#[test]
fn all_nodes_are_named_however_many_lines_that_would_be() {
    let (old, new) = (example(|text| text), example(version_2));
    let nodes: Vec<Node> = (1..=9).map(|n| node(&format!("r01n{n:02}"))).collect();
    let effects = disk_effects(&new, nodes.iter(), |name| {
        let mut disk = marked(&old);
        disk.used[0].bytes = name[4..].parse::<u64>().unwrap() * 1_000_000_000;
        Some(disk)
    });
    let lines = describe_effects(&effects, 2);
    assert_eq!(lines.len(), 3);
    assert!(
        lines[1].starts_with("r01n02: ") && lines[1].ends_with("loses scratch v1: /tmp 2 GB used"),
        "{lines:?}"
    );
    assert_eq!(
        lines[2],
        "r01n[03-09]: their disks too; for each: rackstrap explain NODE"
    );
}

#[test]
fn data_that_an_older_agent_reported_as_text_counts() {
    let always = example(|text| text.replace("wipe = \"ours\"", "wipe = \"always\""));
    let mut disk = foreign();
    disk.state.facts = DiskFacts::default();
    let effect = disk_effect(&always, &node("r01n01"), Some(&disk)).unwrap();
    assert_eq!(
        (effect.kind, effect.now.as_str()),
        (EffectKind::Wipe, "what is on vda (vda holds foreign data (xfs))")
    );
    // Without a disk no data is lost.
    disk.state.device.clear();
    assert_eq!(disk_effect(&always, &node("r01n01"), Some(&disk)), None);
}

#[test]
fn a_change_under_the_same_version_is_named() {
    let old = example(|text| text);
    let changed = example(|text| text.replace("size = \"512MiB\"", "size = \"1GiB\""));
    let effect = disk_effect(&changed, &node("r01n01"), Some(&marked(&old))).unwrap();
    assert_eq!((effect.kind, effect.loses_data()), (EffectKind::Changed, false));
    let in_use = |site: &Site| vec![("scratch".to_owned(), 1, site.layouts["scratch"].digest.clone())];
    let said = |rows: &[(String, u32, String)], site: &Site| {
        changed_layouts(
            site,
            rows.iter()
                .map(|(name, version, digest)| (name.as_str(), *version, digest.as_str())),
        )
    };
    assert_eq!(said(&in_use(&old), &old), Vec::<String>::new());
    assert!(said(&in_use(&old), &changed)[0].contains("write version = 2"));
    assert_eq!(said(&in_use(&old), &example(version_2)), Vec::<String>::new());
}

#[test]
fn foreign_data_is_lost_only_by_an_order_or_a_layout_that_wipes() {
    let ours = example(|text| text);
    let always = example(|text| text.replace("wipe = \"ours\"", "wipe = \"always\""));
    let mut disk = foreign();
    assert_eq!(disk_effect(&ours, &node("r01n01"), Some(&disk)), None);
    let effect = disk_effect(&always, &node("r01n01"), Some(&disk)).unwrap();
    assert_eq!((effect.kind, effect.now.as_str()), (EffectKind::Wipe, "xfs on vda"));
    disk.order = Some(order());
    let effect = disk_effect(&ours, &node("r01n01"), Some(&disk)).unwrap();
    assert_eq!(effect.kind, EffectKind::Ordered);
    // No boot of the node had a layout so far.
    let unknown = Some(NodeDisk::default());
    assert_eq!(disk_effect(&ours, &node("r01n01"), unknown.as_ref()), None);
    assert_eq!(
        disk_effect(&always, &node("r01n01"), unknown.as_ref()).unwrap().kind,
        EffectKind::Wipe
    );
    assert_eq!(disk_effect(&always, &node("r01n01"), None), None, "a new node");
    let bare = example(|text| text.replace("layout = \"scratch\"", "layout = \"\""));
    assert_eq!(disk_effect(&bare, &node("r01n01"), Some(&marked(&ours))), None);
}

#[test]
fn each_problem_that_a_person_can_correct_has_its_command() {
    let remedy = |problem| {
        let mut disk = foreign();
        disk.state.facts.problem = problem;
        DiskTrouble::of(&disk).map(|trouble| trouble.remedy("r01n01"))
    };
    let said = remedy(Some(DiskProblem::Foreign)).unwrap();
    assert!(said.contains("`wipefs -a /dev/vda`") && said.contains("rackstrap node reprep r01n01 --wipe-foreign"));
    for problem in [DiskProblem::Missing, DiskProblem::OtherMarker] {
        assert!(
            remedy(Some(problem))
                .unwrap()
                .contains("rackstrap node reprep r01n01 --new-disk")
        );
    }
    for problem in [DiskProblem::SeveralMarkers, DiskProblem::OtherName] {
        assert!(remedy(Some(problem)).unwrap().contains("wipefs -a"));
    }
    assert_eq!((remedy(None), remedy(Some(DiskProblem::Unknown))), (None, None));
    let mut ordered = foreign();
    ordered.order = Some(order());
    assert_eq!(DiskTrouble::of(&ordered), None, "it is mended by the next boot");
}

#[test]
fn sizes_are_short() {
    for (bytes, want) in [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (38_400_000_000, "38 GB"),
        (1_920_000_000_000, "1.9 TB"),
        (2_000_000, "2 MB"),
    ] {
        assert_eq!(size(bytes), want);
    }
}

#[test]
fn an_order_is_shown_for_every_record_of_the_disk() {
    let site_of = |wipe: &str| example(|text| text.replace("wipe = \"ours\"", &format!("wipe = \"{wipe}\"")));
    let (ours, known, always) = (site_of("ours"), site_of("known"), site_of("always"));
    let without = example(|text| text.replace("\nlayout = \"scratch\"\n", "\n"));
    assert!(policies_of(&without, &node("r01n01")).is_empty());
    let ordered = |wipe_foreign, disk: NodeDisk| NodeDisk {
        order: Some(DiskOrder {
            wipe_foreign,
            partitions: Vec::new(),
            ..order()
        }),
        ..disk
    };
    let blank = NodeDisk {
        state: DiskState {
            status: DiskStatus::Degraded {
                reason: "there is no disk".to_owned(),
            },
            ..DiskState::default()
        },
        ..NodeDisk::default()
    };
    let told = |site: &Site, disk: &NodeDisk| {
        let effect = disk_effect(site, &node("r01n01"), Some(disk)).unwrap();
        (effect.kind, effect.to_string())
    };
    for (site, disk, kind, says) in [
        (
            &ours,
            NodeDisk::default(),
            EffectKind::Standing,
            "it loses data that no boot has inspected yet, unless rackstrap did not write",
        ),
        (
            &ours,
            foreign(),
            EffectKind::Standing,
            "xfs on vda is data that rackstrap did not write, and is kept",
        ),
        (
            &ours,
            blank.clone(),
            EffectKind::Standing,
            "layout scratch v1: nothing is known to be lost",
        ),
        (&always, foreign(), EffectKind::Wipe, "overwrites xfs on vda"),
        (&known, reported(true), EffectKind::Wipe, "overwrites xfs on vda"),
        (&known, reported(false), EffectKind::Standing, "and is kept"),
        // The node's next agent may be newer than the one that reported it.
        (&known, foreign(), EffectKind::Wipe, "overwrites xfs on vda"),
        (
            &without,
            marked(&ours),
            EffectKind::Standing,
            "no layout for it: the disk is left alone",
        ),
    ] {
        assert!(disk_effect(site, &node("r01n01"), Some(&disk)).is_none_or(|effect| effect.kind == kind));
        let (found, text) = told(site, &ordered(false, disk));
        assert_eq!(found, kind, "{text}");
        assert!(text.contains(says), "{text}");
        assert!(text.ends_with("rackstrap node reprep r01n01 --cancel"), "{text}");
    }
    // No known data is lost, so no confirmation is needed.
    let effect = disk_effect(&ours, &node("r01n01"), Some(&ordered(false, blank))).unwrap();
    assert!(!effect.loses_data() && !effect.needs_consent());
    assert_eq!(told(&ours, &ordered(true, NodeDisk::default())).0, EffectKind::Ordered);
}

#[test]
fn an_efi_system_partition_changes_a_layout_and_rules_from_before_have_none() {
    let old = example(|text| text);
    let with_esp = |version: &str| {
        let lines = format!("\nversion = {version}\nesp = \"16MiB\"\n");
        example(move |text| text.replace("\nversion = 1\n", &lines))
    };
    let disk = marked(&old);
    let raised = disk_effect(&with_esp("2"), &node("r01n01"), Some(&disk)).unwrap();
    assert!(raised.loses_data(), "a new version prepares the disk again");
    let forgotten = disk_effect(&with_esp("1"), &node("r01n01"), Some(&disk)).unwrap();
    assert!(
        !forgotten.loses_data() && forgotten.kind == EffectKind::Changed,
        "{forgotten:?}"
    );
    // As the release before wrote them.
    let text = serde_json::to_string(&Confirmed::of(&old)).unwrap();
    assert!(!text.contains("esp"), "{text}");
    assert_eq!(serde_json::from_str::<Confirmed>(&text).unwrap(), Confirmed::of(&old));
    let text = serde_json::to_string(&Confirmed::of(&with_esp("2"))).unwrap();
    assert_eq!(
        serde_json::from_str::<Confirmed>(&text).unwrap(),
        Confirmed::of(&with_esp("2"))
    );
}
