//! A machine and its image must have the same architecture.

use super::*;
use rackstrap_catalog::Manifest;
use rackstrap_site::parse;
use std::path::{Path, PathBuf};

const SITE: &str = r#"
[cluster]
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
[[subnet]]
network = "10.5.0.0/16"
relayed = true
server = "10.5.0.1"
[profile.default]
image = "debian"
"#;

fn world(machine: &str) -> World {
    let (site, _) = parse(SITE, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
    let manifest = Manifest {
        arch: machine.to_owned(),
        ..Manifest::bare("debian@1".parse().unwrap())
    };
    let node = Node {
        name: "r01n01".to_owned(),
        hwaddrs: vec![hwaddr()],
        ipaddr: [10, 5, 1, 1].into(),
        profiles: Vec::new(),
        groups: Default::default(),
        attributes: Default::default(),
    };
    World {
        site: Arc::new(site),
        inventory: Arc::new(Inventory::new([node])),
        images: Arc::new(Catalog::new([ImageVersion::new(manifest, PathBuf::new())])),
        assignments: Arc::default(),
        confirmed: None,
    }
}

fn hwaddr() -> HwAddr {
    "52:54:00:00:01:01".parse().unwrap()
}

fn decided(machine: &str, arch: Option<u16>) -> NodeDecision {
    let requester = Requester {
        hwaddr: Some(hwaddr()),
        arch,
        ..Requester::default()
    };
    match decide(&world(machine), &requester) {
        Decision::Node(decision) => *decision,
        Decision::Unknown { why, .. } => panic!("{why:?}"),
    }
}

#[test]
fn a_machine_boots_no_image_of_another_architecture() {
    let decision = decided("x86_64", Some(11));
    let problem = decision.image.as_ref().unwrap_err();
    assert_eq!(
        problem,
        "image debian@1 is for amd64, and node r01n01 is an arm64 machine; import a tree for arm64 (rackstrap image import \
         debian-arm64 --from TREE --agent AGENT), and give the node a profile with image = \"debian-arm64\" (rackstrap node \
         set r01n01 --profile PROFILE)"
    );
    assert!(decision.why.contains(problem), "{:?}", decision.why);
    let plan = decision.plan(&world("x86_64").site, hwaddr(), "x");
    assert_eq!(plan.unwrap_err(), *problem);
}

#[test]
fn a_machine_boots_an_image_of_its_own_architecture_or_of_an_unknown_one() {
    for (machine, arch) in [
        ("x86_64", Some(0)),
        ("x86_64", Some(7)),
        ("x86_64", Some(16)),
        ("aarch64", Some(11)),
        ("aarch64", Some(19)),
        ("x86_64", None),
        ("s390x", Some(7)),
        ("", Some(11)),
    ] {
        assert!(decided(machine, arch).image.is_ok(), "{machine} on {arch:?}");
    }
    assert!(decided("aarch64", Some(0)).image.is_err(), "a BIOS is that of a PC");
}

#[test]
fn a_trial_of_an_older_release_is_read_and_written_unchanged() {
    let old = r#"{"image":"debian@4","good":"debian@3","boots":2,"last":"b2","since":1,"back":5}"#;
    let trial: Trial = serde_json::from_str(old).unwrap();
    assert_eq!(trial.last_known_good, "debian@3".parse().unwrap());
    assert_eq!(trial.rolled_back, Some(rackstrap_base::clock::Timestamp(5)));
    assert_eq!(serde_json::to_string(&trial).unwrap(), old);
}
