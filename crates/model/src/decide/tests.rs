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

fn version(machine: &str) -> ImageVersion {
    let manifest = Manifest {
        arch: machine.to_owned(),
        ..Manifest::bare("debian@1".parse().unwrap())
    };
    ImageVersion::new(manifest, PathBuf::new())
}

fn world(version: ImageVersion) -> World {
    let (site, _) = parse(SITE, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
    let node = Node {
        name: "r01n01".to_owned(),
        hwaddrs: vec![hwaddr()],
        ipaddr: [10, 5, 1, 1].into(),
        profiles: Vec::new(),
        groups: Default::default(),
        attributes: Default::default(),
        settings: Default::default(),
    };
    World {
        site: Arc::new(site),
        inventory: Arc::new(Inventory::new([node])),
        images: Arc::new(Catalog::new([version])),
        assignments: Arc::default(),
        confirmed: None,
    }
}

fn hwaddr() -> HwAddr {
    "52:54:00:00:01:01".parse().unwrap()
}

fn decided(machine: &str, arch: Option<u16>) -> NodeDecision {
    decided_of(version(machine), arch)
}

fn decided_of(version: ImageVersion, arch: Option<u16>) -> NodeDecision {
    let requester = Requester {
        hwaddr: Some(hwaddr()),
        arch,
        ..Requester::default()
    };
    match decide(&world(version), &requester) {
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
        "image debian@1 has no variant for arm64, and node r01n01 is an arm64 machine; it has amd64; add a variant with: \
         rackstrap image import debian@1 --arch arm64 --from TREE"
    );
    assert!(decision.why.contains(problem), "{:?}", decision.why);
    let plan = decision.plan(&world(version("x86_64")).site, hwaddr(), "x");
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
fn each_machine_boots_the_variant_for_it() {
    let both = || version("x86_64").with_variants([version("aarch64")]);
    for (arch, variant, says) in [
        (Some(7), "", "its variant amd64 for an amd64 machine"),
        (Some(11), "arm64", "its variant arm64 for an arm64 machine"),
        (Some(19), "arm64", "its variant arm64 for an arm64 machine"),
        (
            None,
            "",
            "its variant amd64, because the firmware has not reported the machine's architecture",
        ),
    ] {
        let decision = decided_of(both(), arch);
        assert_eq!(decision.image.as_ref().unwrap().variant, variant);
        assert!(decision.why.iter().any(|why| why == says), "{:?}", decision.why);
        let plan = decision.plan(&world(both()).site, hwaddr(), "x").unwrap();
        assert_eq!(
            (plan.image.to_string().as_str(), plan.variant.as_str()),
            ("debian@1", variant)
        );
        let Root::Nfs(root) = plan.root;
        assert_eq!(
            root.export,
            ["/debian@1", "/debian@1/arm64"][usize::from(!variant.is_empty())]
        );
    }
    let why = decided_of(both(), Some(27)).image.unwrap_err();
    assert!(
        why.contains("has no variant for riscv64") && why.contains("it has amd64, arm64"),
        "{why}"
    );
    // A version with one variant is explained as before.
    let alone = decided("x86_64", Some(7));
    assert!(alone.why.iter().all(|why| !why.contains("variant")), "{:?}", alone.why);
}

#[test]
fn a_trial_of_an_older_release_is_read_and_written_unchanged() {
    let old = r#"{"image":"debian@4","good":"debian@3","boots":2,"last":"b2","since":1,"back":5}"#;
    let trial: Trial = serde_json::from_str(old).unwrap();
    assert_eq!(trial.last_known_good, "debian@3".parse().unwrap());
    assert_eq!(trial.rolled_back, Some(rackstrap_base::clock::Timestamp(5)));
    assert_eq!(serde_json::to_string(&trial).unwrap(), old);
}

#[test]
fn a_layout_of_the_node_itself_that_the_site_file_lost_leaves_the_disk_alone() {
    let layout = "[layout.scratch]\nversion = 1\npartition = [{ name = \"s\", size = \"rest\", fs = \"ext4\", mount = \"/scratch\" }]\n";
    let text = format!("{SITE}layout = \"scratch\"\nkernel-args = \"a={{{{ vars.x }}}}\"\n{layout}");
    let decided = |settings: serde_json::Value| {
        let mut world = world(version("x86_64"));
        let (site, _) = parse(&text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        let node = Node {
            settings: serde_json::from_value(settings).unwrap(),
            ..Node::clone(world.inventory.get("r01n01").unwrap())
        };
        (world.site, world.inventory) = (Arc::new(site), Arc::new(Inventory::new([node])));
        let requester = Requester {
            hwaddr: Some(hwaddr()),
            ..Requester::default()
        };
        match decide(&world, &requester) {
            Decision::Node(decision) => decision,
            Decision::Unknown { why, .. } => panic!("{why:?}"),
        }
    };
    let lost = decided(serde_json::json!({ "layout": "gone", "vars.x": 1 }));
    assert!(
        lost.disk.is_none(),
        "its profile's layout could overwrite what that one kept"
    );
    let why = lost.why.join("\n");
    assert!(
        why.contains("layout gone, which the node itself has, is not in the site file: local disks are left alone"),
        "{why}"
    );
    assert!(
        why.contains("setting layout = \"gone\": layout 'gone' does not exist"),
        "{why}"
    );
    let own = decided(serde_json::json!({ "disk": "nvme0n1", "vars.x": 1, "kernel-args+": "b" }));
    assert_eq!(own.disk.as_ref().unwrap().device, "nvme0n1");
    assert_eq!((own.kernel_args.as_str(), own.image.is_ok()), ("a=1 b", true));
    // Without its arguments it would come up as another machine.
    let undefined = decided(serde_json::json!({}));
    assert_eq!(undefined.image.unwrap_err(), "kernel-args: vars.x is not defined");
}

#[test]
fn each_layout_is_planned_for_the_disk_of_its_own_rule() {
    let layout = |name: &str, disk: &str| {
        format!(
            "[layout.{name}]\nversion = 1\n{disk}partition = [{{ name = \"{name}\", size = \"rest\", fs = \"ext4\", mount = \"/{name}\" }}]\n"
        )
    };
    let rule = "disk = { transport = \"sata\" }\n";
    let text = format!(
        "{SITE}layout = [\"scratch\", \"data\"]\n{}{}{}",
        layout("scratch", "disk = \"sda\"\n"),
        layout("data", rule),
        layout("loose", "")
    );
    let planned = |settings: serde_json::Value| {
        let (site, _) = parse(&text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        let node = Node {
            settings: serde_json::from_value(settings).unwrap(),
            ..crate::testing::node("r01n01")
        };
        let mut why = Vec::new();
        let plan = choose_disk(&site, &Settings::of_node(&site, &node, |_| ()), &mut why).unwrap();
        let all = std::iter::once(&plan).chain(&plan.more);
        let all: Vec<(String, String)> = all
            .map(|plan| (plan.layout.name.clone(), plan.device.clone()))
            .collect();
        (all, why.join("\n"))
    };
    let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter()
            .map(|(layout, disk)| ((*layout).to_owned(), (*disk).to_owned()))
            .collect()
    };
    let (all, why) = planned(serde_json::json!({}));
    assert_eq!(all, pairs(&[("scratch", "sda"), ("data", "transport=sata")]));
    assert!(why.contains("disk layout data v1 on transport=sata"), "{why}");
    // The node's own disk is that of the first layout.
    let (all, _) = planned(serde_json::json!({ "disk": "sdz" }));
    assert_eq!(all, pairs(&[("scratch", "sdz"), ("data", "transport=sata")]));
    // A further layout without a rule takes no disk at all.
    let (all, why) = planned(serde_json::json!({ "layout": ["scratch", "loose"] }));
    assert_eq!(all, pairs(&[("scratch", "sda")]));
    assert!(why.contains("layout loose, which the node itself has"), "{why}");
}

/// A decision about a node whose image is FreeBSD, with these sections of the site file.
fn of_freebsd(loaders: &str, arch: Option<u16>, class: &str) -> NodeDecision {
    let manifest = Manifest {
        // The image fits the machine.
        arch: if arch == Some(41) { "aarch64" } else { "x86_64" }.to_owned(),
        system: rackstrap_catalog::System::FreeBsd,
        loaders: ["pxeboot", "loader.efi"]
            .map(|name| (name.to_owned(), String::new()))
            .into(),
        ..Manifest::bare("debian@1".parse().unwrap())
    };
    let mut world = world(ImageVersion::new(manifest, PathBuf::new()));
    let (site, _) = parse(&format!("{SITE}{loaders}"), Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
    world.site = Arc::new(site);
    let requester = Requester {
        hwaddr: Some(hwaddr()),
        arch,
        class: class.to_owned(),
        ..Requester::default()
    };
    match decide(&world, &requester) {
        Decision::Node(node) => *node,
        Decision::Unknown { why, .. } => panic!("{why:?}"),
    }
}

#[test]
fn a_loader_that_cannot_start_freebsd_is_named_in_place_of_freebsds_chain() {
    let grub = "[loader.grub]\nfile = \"shimx64.efi.signed\"\narch = [\"x86_64-efi\"]\n";
    let ipxe = "[loader.own]\nfile = \"snponly.efi\"\narch = [\"x86_64-efi\"]\n";
    for (loaders, arch, class, refused) in [
        ("", Some(0), "U-Boot", Some("PXELINUX or U-Boot")),
        ("", None, "U-Boot.x86", Some("PXELINUX or U-Boot")),
        ("", Some(41), "PXEClient:Arch:00000:UNDI:002001", Some("Raspberry Pi")),
        (grub, Some(7), "PXEClient", Some("GRUB")),
        ("", Some(0), "PXEClient", None),
        ("", Some(7), "PXEClient", None),
        (ipxe, Some(7), "PXEClient", None),
        // Nothing is known of the firmware.
        ("", None, "", None),
    ] {
        let decision = of_freebsd(loaders, arch, class);
        let chain = decision
            .why
            .iter()
            .any(|step| step.contains("its loader asks DHCP again"));
        match (refused, &decision.image) {
            (None, Ok(_)) => assert!(chain, "{class} {arch:?}: {:?}", decision.why),
            (Some(loader), Err(problem)) => {
                let says = format!("which {loader} cannot start");
                assert!(problem.contains(&says) && !chain, "{problem} {:?}", decision.why);
                assert!(decision.why.contains(problem), "explain says it: {:?}", decision.why);
            }
            (_, image) => panic!("{class} {arch:?}: {image:?}"),
        }
    }
}

#[test]
fn firmware_is_named_by_whatever_it_says() {
    let said = |arch, class: &str| {
        let requester = Requester {
            arch,
            class: class.to_owned(),
            ..Requester::default()
        };
        requester.name_of_firmware()
    };
    assert_eq!(said(None, ""), None);
    assert_eq!(said(Some(7), "").unwrap(), "x64 UEFI (architecture 7)");
    assert_eq!(
        said(Some(0), "PXEClient").unwrap(),
        "BIOS (architecture 0, vendor class PXEClient)"
    );
    assert_eq!(
        said(Some(0), "U-Boot").unwrap(),
        "U-Boot (architecture 0, vendor class U-Boot)"
    );
    assert_eq!(said(None, "U-Boot.x86").unwrap(), "U-Boot (vendor class U-Boot.x86)");
    assert_eq!(said(None, "PXEClient").unwrap(), "BIOS (vendor class PXEClient)");
}

#[test]
fn an_order_for_an_image_that_cannot_tag_is_refused_in_a_vlan() {
    use crate::orders::OnceBoot;

    let requester = Requester {
        hwaddr: Some(hwaddr()),
        ..Requester::default()
    };
    let order = OnceBoot::Image("debian@1".parse().unwrap());
    let refusal = |wire: u32, vlan: Option<u16>| {
        let mut version = version("x86_64");
        version.manifest.wire = Some(wire);
        let mut world = world(version);
        Arc::get_mut(&mut world.site).unwrap().subnets[0].vlan = vlan;
        match decide(&world, &requester) {
            Decision::Node(decision) => decision.cannot(&world, &requester, &order),
            Decision::Unknown { why, .. } => panic!("{why:?}"),
        }
    };
    let several = |wire: u32| {
        let mut version = version("x86_64");
        version.manifest.wire = Some(wire);
        let mut world = world(version);
        let site = Arc::get_mut(&mut world.site).unwrap();
        site.profiles.get_mut("default").unwrap().layout = Some("scratch data".to_owned());
        match decide(&world, &requester) {
            Decision::Node(decision) => (
                decision.image.clone().err(),
                decision.cannot(&world, &requester, &order),
            ),
            Decision::Unknown { why, .. } => panic!("{why:?}"),
        }
    };
    let (usual, once) = several(rackstrap_wire::SEVERAL_LAYOUTS - 1);
    assert!(
        usual.as_ref().is_some_and(|why| why.contains("knows one layout only")),
        "{usual:?}"
    );
    assert!(once.is_some_and(|why| why.contains("seal it again")));
    assert_eq!(several(rackstrap_wire::SEVERAL_LAYOUTS), (None, None));
    let older = rackstrap_wire::BOOT_VLAN - 1;
    let why = refusal(older, Some(5)).unwrap();
    let wanted = "image=debian@1: image debian@1 has the agent of an older release, which cannot set the tag of VLAN 5";
    assert!(why.starts_with(wanted), "{why}");
    assert_eq!(refusal(older, None), None);
    assert_eq!(refusal(rackstrap_wire::BOOT_VLAN, Some(5)), None);
}
