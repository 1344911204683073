//! Tests of inventory changes: results, refusals and their messages.

use super::*;
use proptest::prelude::*;
use rackstrap_site::{Site, parse};
use rackstrap_wire::HwAddr;
use std::{collections::BTreeMap, path::Path};

const SITE: &str = r#"
[cluster]
node-name = "r{rack:02}n{slot:02}"
node-address = "10.{rack}.0.{slot}"
reserved = ["10.3.0.0/24", "10.1.0.0/29", "10.1.0.192/27"]

[[subnet]]
network = "10.1.0.0/24"
interface = "eth1"
server = "10.1.0.1"
router = "10.1.0.2"
pool = "10.1.0.200-10.1.0.220"

[[subnet]]
network = "10.3.0.0/24"
relayed = true
server = "10.3.0.1"

[profile.default]
[profile.gpu]
"#;

pub(super) fn site() -> Site {
    let mut site = parse(SITE, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}")).0;
    // A checked site reserves the addresses of the daemon, the router and the pool. A node is refused there even without
    // that.
    site.cluster.reserved.truncate(1);
    site
}

fn mac(text: &str) -> HwAddr {
    text.parse().unwrap()
}

pub(super) fn new(name: &str, hwaddrs: &[&str]) -> NewNode {
    NewNode {
        name: name.into(),
        hwaddrs: hwaddrs.iter().map(|text| mac(text)).collect(),
        ..NewNode::default()
    }
}

/// The node that adding `new` makes.
fn added(inventory: &Inventory, new: &NewNode) -> Result<Node, Refusals> {
    let (_, changed) = apply(inventory, &site(), &[Change::Add(new.clone())])?;
    Ok(changed.into_iter().find_map(|changed| changed.after).unwrap())
}

#[test]
fn refusals_give_the_reason_and_the_remedy() {
    let one = added(&Inventory::default(), &new("r01n10", &["52:54:00:01:01:01"])).unwrap();
    assert_eq!(one.ipaddr, std::net::Ipv4Addr::new(10, 1, 0, 10));
    let inventory = Inventory::new([one]);
    let said = |new: &NewNode| added(&inventory, new).unwrap_err().to_string();
    let other = "52:54:00:00:00:99";
    assert_eq!(
        said(&new("r01n07", &["52:54:00:01:01:01"])),
        "node r01n07: hwaddr 52:54:00:01:01:01 already belongs to r01n10; if the machine was moved: rackstrap node rename \
         r01n10 r01n07; if r01n10 is gone: rackstrap node delete r01n10, then try again"
    );
    assert!(
        said(&new("r01n10", &[other])).starts_with("node r01n10 already exists, with hwaddr 52:54:00:01:01:01; to")
    );
    let name = said(&new("rack1", &[other]));
    assert!(
        name.contains("rack1") && name.contains("r{rack:02}n{slot:02}"),
        "{name}"
    );
    assert!(said(&new("r01n11", &[])).contains("add --hwaddr"));
    assert!(said(&new("r01n11", &["01:00:5e:00:00:01"])).contains("is a multicast address, which no network card has"));
    assert!(said(&new("r01n11", &["ff:ff:ff:ff:ff:ff"])).contains("is the broadcast address"));
    assert!(said(&new("r01n11", &["00:00:00:00:00:00"])).contains("is all zeros"));
    assert!(said(&new("r01n11", &[other, "52-54-00-00-00-99"])).contains("is named twice"));
    let many: Vec<String> = (0..9).map(|i| format!("52:54:00:00:00:0{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(said(&new("r01n11", &many)).contains("9 hardware addresses; a node has at most 8"));
    let address = |name: &str| said(&new(name, &[other]));
    assert_eq!(
        address("r01n01"),
        "node r01n01: its address would be 10.1.0.1, which is the daemon's own; choose another position"
    );
    assert!(address("r01n02").contains("10.1.0.2, which is the router's"));
    assert!(address("r01n210").contains("in the temporary pool (10.1.0.200 to 10.1.0.220)"));
    assert!(address("r03n05").contains("in the reserved network 10.3.0.0/24"));
    assert!(address("r02n05").contains("in none of the site's networks (10.1.0.0/24, 10.3.0.0/24)"));
    let profile = |name: &str| {
        said(&NewNode {
            profiles: vec!["gpu".into(), name.into()],
            ..new("r01n11", &[other])
        })
    };
    assert!(profile("gpus").ends_with("profile 'gpus' does not exist; did you mean 'gpu'?"));
    assert!(profile("storage").ends_with("profile 'storage' does not exist; the site file has: default, gpu"));
    let found = |name: &str| find(&inventory, name).unwrap_err().to_string();
    assert_eq!(
        found("r1n10"),
        "node r1n10 is not in the inventory; did you mean r01n10?"
    );
    for other in ["r01n1", "r99n10", "x"] {
        let none = format!("node {other} is not in the inventory; `rackstrap node list` shows all");
        assert_eq!(found(other), none);
    }
    // All problems are reported at once.
    let all = NewNode {
        profiles: vec!["storage".into(), "gpus".into()],
        groups: ["rack one".to_owned()].into(),
        ..new("r01n01", &["52:54:00:01:01:01", "ff:ff:ff:ff:ff:ff"])
    };
    assert_eq!(said(&all).lines().count(), 6, "{}", said(&all));
}

#[test]
fn a_profile_that_is_named_twice_is_kept_once() {
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let twice = NewNode {
        profiles: words(&["gpu", "default", "gpu"]),
        ..new("r01n10", &["52:54:00:00:00:0a"])
    };
    let node = added(&Inventory::default(), &twice).unwrap();
    assert_eq!(node.profiles, ["default", "gpu"], "the last of several wins");
    let patch = Patch {
        profiles: Some(words(&["gpu", "gpu"])),
        ..Patch::default()
    };
    let set = Change::Set {
        name: "r01n10".into(),
        patch,
    };
    let (_, changed) = apply(&Inventory::new([node]), &site(), &[set]).unwrap();
    assert_eq!(changed[0].after.as_ref().unwrap().profiles, ["gpu"]);
}

#[test]
fn changes_are_made_together_or_not_at_all() {
    let inventory = Inventory::new([
        added(&Inventory::default(), &new("r01n10", &["52:54:00:00:00:0a"])).unwrap(),
        added(&Inventory::default(), &new("r01n11", &["52:54:00:00:00:0b"])).unwrap(),
    ]);
    let set = |name: &str, hwaddr: &str| Change::Set {
        name: name.into(),
        patch: Patch {
            hwaddrs: Some(vec![mac(hwaddr)]),
            ..Patch::default()
        },
    };
    let rename = |from: &str, to: &str| Change::Rename {
        from: from.into(),
        to: to.into(),
    };
    // Two machines were mixed up: their nodes exchange their cards.
    let swapped = [set("r01n10", "52:54:00:00:00:0b"), set("r01n11", "52:54:00:00:00:0a")];
    let (after, changed) = apply(&inventory, &site(), &swapped).unwrap();
    assert_eq!(after.by_hwaddr(mac("52:54:00:00:00:0a")).unwrap().name, "r01n11");
    assert_eq!(
        differences(&changed[0]),
        ["hwaddr 52:54:00:00:00:0a -> 52:54:00:00:00:0b"]
    );
    let (after, changed) = apply(
        &inventory,
        &site(),
        &[rename("r01n10", "r01n11"), rename("r01n11", "r01n10")],
    )
    .unwrap();
    assert_eq!(after.by_hwaddr(mac("52:54:00:00:00:0a")).unwrap().name, "r01n11");
    assert_eq!(after.len(), 2);
    assert_eq!(
        differences(&changed[0]),
        ["name r01n10 -> r01n11", "address 10.1.0.10 -> 10.1.0.11"]
    );
    // All problems are reported at once, and nothing is changed.
    let wrong = [
        set("r01n10", "52:54:00:00:00:0b"),
        rename("r01n11", "r01n01"),
        Change::Delete { name: "r01n99".into() },
        Change::Delete { name: "r01n11".into() },
        Change::Add(new("r01n12", &["52:54:00:00:00:0c"])),
    ];
    let why = apply(&inventory, &site(), &wrong).unwrap_err().to_string();
    let lines: Vec<&str> = why.lines().collect();
    assert_eq!(lines.len(), 3, "{why}");
    assert!(lines[0].contains("10.1.0.1, which is the daemon's own"), "{why}");
    assert!(lines[1].starts_with("node r01n99 is not in the inventory"), "{why}");
    assert!(lines[2].starts_with("node r01n11 is named twice"), "{why}");
    let group = Change::Set {
        name: "r01n10".into(),
        patch: Patch {
            join: ["rack one".to_owned()].into(),
            ..Patch::default()
        },
    };
    let why = apply(&inventory, &site(), &[group]).unwrap_err().to_string();
    assert!(why.contains("'rack one' is not a group name"), "{why}");
}

#[test]
fn a_node_that_is_renamed_to_its_own_name_gets_the_address_of_the_present_pattern() {
    let inventory = Inventory::new([Node {
        ipaddr: [10, 1, 0, 77].into(),
        ..added(&Inventory::default(), &new("r01n10", &["52:54:00:00:00:0a"])).unwrap()
    }]);
    let again = Change::Rename {
        from: "r01n10".into(),
        to: "r01n10".into(),
    };
    let (after, changed) = apply(&inventory, &site(), &[again]).unwrap();
    assert_eq!(after.get("r01n10").unwrap().ipaddr.octets(), [10, 1, 0, 10]);
    assert_eq!(differences(&changed[0]), ["address 10.1.0.77 -> 10.1.0.10"]);
}

#[test]
fn later_profiles_override_and_each_value_names_its_profile() {
    let text = format!("{SITE}image = \"gpu\"\n[profile.compute]\nimage = \"debian\"\ninit = \"/sbin/runit\"\n")
        .replace(
            "[profile.default]",
            "[profile.default]\nconsole = \"ttyS0,9600\"\nimage = \"base\"",
        );
    let site = parse(&text, Path::new("/site.toml"))
        .unwrap_or_else(|e| panic!("{e}"))
        .0;
    let of = |profiles: &[&str]| {
        let profiles: Vec<String> = profiles.iter().map(|p| (*p).to_owned()).collect();
        let mut missing = Vec::new();
        let settings = Settings::of(&site, &profiles, |name| missing.push(name.to_owned()));
        let all = settings
            .all()
            .into_iter()
            .map(|s| format!("{}={} ({})", s.key, s.value, s.from));
        (all.collect::<Vec<_>>().join(" "), missing)
    };
    assert_eq!(
        of(&["compute", "gpu"]).0,
        "image=gpu (profile gpu) console=ttyS0,9600 (default) init=/sbin/runit (profile compute)"
    );
    assert_eq!(
        of(&["gpu", "compute"]).0,
        "image=debian (profile compute) console=ttyS0,9600 (default) init=/sbin/runit (profile compute)"
    );
    assert_eq!(of(&[]).0, "image=base (default) console=ttyS0,9600 (default)");
    assert_eq!(of(&["default", "gone"]), (of(&[]).0, vec!["gone".to_owned()]));
}

proptest! {
    /// Whatever is requested in whatever order, names, addresses and cards stay unique.
    #[test]
    fn an_inventory_never_has_duplicates(
        wanted in prop::collection::vec((1u8..4, 1u8..12, prop::collection::vec(0u8..12, 0..4)), 0..40)
    ) {
        let site = site();
        let mut nodes: Vec<Node> = Vec::new();
        for (rack, slot, cards) in wanted {
            let hwaddrs = cards.iter().map(|card| HwAddr([0x52, 0x54, 0, 0, 0, *card])).collect();
            let wanted = NewNode { name: format!("r{rack:02}n{slot:02}"), hwaddrs, ..NewNode::default() };
            if let Ok(node) = added(&Inventory::new(nodes.clone()), &wanted) {
                prop_assert_eq!(site.cluster.naming.address_to_name(node.ipaddr), Some(node.name.clone()));
                nodes.push(node);
            }
        }
        let mut cards: Vec<HwAddr> = nodes.iter().flat_map(|node| node.hwaddrs.clone()).collect();
        let (all, inventory) = (cards.len(), Inventory::new(nodes.clone()));
        cards.sort();
        cards.dedup();
        prop_assert_eq!(cards.len(), all);
        prop_assert_eq!(inventory.len(), nodes.len());
        for node in &nodes {
            prop_assert_eq!(&inventory.by_ipaddr(node.ipaddr).unwrap().name, &node.name);
        }
    }
}

#[test]
fn a_node_of_an_older_release_has_no_attributes() {
    let row =
        r#"{"name":"r01n10","hwaddrs":["52:54:00:01:01:01"],"ipaddr":"10.1.0.10","profiles":["gpu"],"groups":["big"]}"#;
    let node: Node = serde_json::from_str(row).unwrap();
    assert!(node.attributes.is_empty());
    assert_eq!(serde_json::to_string(&node).unwrap(), row, "and its row stays as it is");
}

#[test]
fn attributes_are_set_replaced_and_removed() {
    let bag = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
        let all = all
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        all.collect()
    };
    let add = Change::Add(NewNode {
        attributes: bag(&[("location", "row 3"), ("owner", "physics")]),
        ..new("r01n10", &["52:54:00:01:01:01"])
    });
    let (inventory, _) = apply(&Inventory::default(), &site(), &[add]).unwrap();
    let set = |attributes: &[(&str, &str)], drop: &[&str]| Change::Set {
        name: "r01n10".to_owned(),
        patch: Patch {
            attributes: bag(attributes),
            drop_attributes: drop.iter().map(|name| (*name).to_owned()).collect(),
            ..Patch::default()
        },
    };
    let (inventory, changed) = apply(
        &inventory,
        &site(),
        &[set(&[("location", "row 4")], &["owner", "none"])],
    )
    .unwrap();
    assert_eq!(
        inventory.get("r01n10").unwrap().attributes,
        bag(&[("location", "row 4")])
    );
    assert_eq!(
        differences(&changed[0]),
        ["attribute location row 3 -> row 4", "attribute owner physics -> -"]
    );
    let refused = |name: &str, value: &str| {
        apply(&inventory, &site(), &[set(&[(name, value)], &[])])
            .unwrap_err()
            .to_string()
    };
    let long = "x".repeat(1025);
    for name in ["", "1st", "a-b", "a.b", &long[..65], "\u{e4}"] {
        assert!(
            refused(name, "x").contains("is not an attribute name; write letters"),
            "{name}"
        );
    }
    for value in ["two\nlines", &long] {
        assert!(refused("location", value).contains("'location' is not one line of at most 1024 bytes"));
    }
    let many: Vec<String> = (0..65).map(|n| format!("a{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "x")).collect();
    let problem = apply(&inventory, &site(), &[set(&many, &[])]).unwrap_err().to_string();
    assert!(problem.contains("66 attributes; a node has at most 64"), "{problem}");
}

/// The site of the tests with values for `default` and for `gpu`.
fn site_with(default: &str, gpu: &str) -> Site {
    let text = SITE
        .replace("[profile.default]", &format!("[profile.default]\n{default}"))
        .replace("[profile.gpu]", &format!("[profile.gpu]\n{gpu}"));
    parse(&text, Path::new("/site.toml"))
        .unwrap_or_else(|e| panic!("{e}"))
        .0
}

fn with_settings(profiles: &[&str], settings: serde_json::Value) -> Node {
    Node {
        profiles: profiles.iter().map(|name| (*name).to_owned()).collect(),
        settings: serde_json::from_value(settings).unwrap(),
        ..added(&Inventory::default(), &new("r01n10", &["52:54:00:01:01:01"])).unwrap()
    }
}

#[test]
fn a_nodes_own_value_wins_and_says_what_it_hides_and_adds() {
    let site = site_with(
        "image = \"base\"\nkernel-args = \"quiet\"",
        "image = \"gpu\"\ntemplates = [\"gpu\"]",
    );
    let own = serde_json::json!({ "image": "own@2", "kernel-args+": "a b", "templates+": ["site", "gpu"], "checks+": ["mount /x"] });
    let node = with_settings(&["gpu"], own);
    let settings = Settings::of_node(&site, &node, |_| ());
    let of = |key: &str| settings.all().into_iter().find(|setting| setting.key == key).unwrap();
    let image = of("image");
    assert_eq!(
        (image.value.as_str(), image.from, image.added),
        ("own@2", Origin::Node, None)
    );
    let hidden = |from: &str, value: &str| Hidden {
        from: Origin::Profile(from.to_owned()),
        value: value.to_owned(),
    };
    assert_eq!(image.hides, [hidden("gpu", "gpu"), hidden("default", "base")]);
    let args = of("kernel-args");
    assert_eq!(
        (args.value.as_str(), args.from.to_string().as_str()),
        ("quiet a b", "default")
    );
    assert_eq!((args.added.as_deref(), args.hides.len()), (Some("a b"), 0));
    assert_eq!(of("templates").value, "gpu, site", "each once");
    assert_eq!(settings.templates(), ["base", "gpu", "site"]);
    let checks = of("checks");
    assert_eq!(
        (checks.from, checks.added.as_deref()),
        (Origin::Node, Some("mount /x")),
        "no profile has any"
    );
    // What the profile gains later, the node has too.
    let later = site_with("image = \"base\"\nkernel-args = \"splash\"", "");
    assert_eq!(
        Settings::of_node(&later, &node, |_| ()).text(|p| &p.kernel_args),
        Some("splash a b")
    );
    assert_ne!(settings.digest(), Settings::of_node(&later, &node, |_| ()).digest());
    let plain = with_settings(&["gpu"], serde_json::json!({}));
    let same = Settings::of(&site, &plain.profiles, |_| ()).digest();
    assert_eq!(Settings::of_node(&site, &plain, |_| ()).digest(), same);
}

#[test]
fn settings_are_changed_for_all_nodes_or_for_none_and_only_what_changes_is_checked() {
    let site = site();
    let inventory = Inventory::new([
        with_settings(
            &[],
            serde_json::json!({ "image": "a", "gone-in-this-release": 7, "layout": "removed" }),
        ),
        added(&Inventory::default(), &new("r01n11", &["52:54:00:01:01:02"])).unwrap(),
    ]);
    let set = |settings: serde_json::Value, drop: &[&str]| -> Result<Vec<String>, String> {
        let patch = Patch {
            settings: serde_json::from_value(settings).unwrap(),
            drop_settings: drop.iter().map(|key| (*key).to_owned()).collect(),
            ..Patch::default()
        };
        let change = |name: &str| Change::Set {
            name: name.to_owned(),
            patch: patch.clone(),
        };
        let (_, changed) =
            apply(&inventory, &site, &[change("r01n10"), change("r01n11")]).map_err(|e| e.to_string())?;
        Ok(changed.iter().map(|changed| differences(changed).join(", ")).collect())
    };
    assert_eq!(
        set(serde_json::json!({ "image": "b", "kernel-args+": "x" }), &[]).unwrap(),
        [
            "sets image a -> b, adds to kernel-args - -> x",
            "sets image - -> b, adds to kernel-args - -> x"
        ]
    );
    assert_eq!(
        set(serde_json::json!({}), &["image", "gone-in-this-release", "layout"]).unwrap(),
        [
            "sets gone-in-this-release 7 -> -, sets image a -> -, sets layout removed -> -",
            ""
        ]
    );
    assert_eq!(
        set(serde_json::json!({ "layout": "none" }), &[]).unwrap_err(),
        "node r01n10: layout = \"none\": layout 'none' does not exist; add [layout.none], or remove the key: without a layout disks are \
         left alone\nnode r01n11: layout = \"none\": layout 'none' does not exist; add [layout.none], or remove the key: without a \
         layout disks are left alone"
    );
    let many = "x".repeat(17_000);
    let why = set(serde_json::json!({ "authorized-keys": [many] }), &[]).unwrap_err();
    assert!(why.contains("bytes of settings; a node has at most 16384"), "{why}");
}

proptest! {
    /// The value of a key is the strongest one that is written; the others are hidden, in their order.
    #[test]
    fn the_strongest_section_wins_and_hides_the_rest(
        written in prop::collection::vec((any::<bool>(), "[a-c]"), 4), order in Just(["default", "compute", "gpu"])
    ) {
        let profile = |at: usize| match &written[at] {
            (true, image) => format!("image = \"{image}{at}\"\n"),
            _ => String::new(),
        };
        let text = format!("{}[profile.compute]\n{}", SITE.replace("[profile.default]", &format!("[profile.default]\n{}", profile(0))).replace("[profile.gpu]", &format!("[profile.gpu]\n{}", profile(2))), profile(1));
        let site = parse(&text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}")).0;
        let own = match &written[3] {
            (true, image) => serde_json::json!({ "image": image }),
            _ => serde_json::json!({}),
        };
        let node = with_settings(&order[1..], own);
        let all = Settings::of_node(&site, &node, |_| ()).all();
        let expected: Vec<String> = (0..4).rev().filter(|at| written[*at].0).map(|at| match at {
            3 => format!("node {}", written[3].1),
            0 => format!("default {}0", written[0].1),
            at => format!("profile {} {}{at}", order[at], written[at].1),
        }).collect();
        let found: Vec<String> = all.iter().flat_map(|setting| {
            let own = format!("{} {}", setting.from, setting.value);
            std::iter::once(own).chain(setting.hides.iter().map(|hidden| format!("{} {}", hidden.from, hidden.value)))
        }).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_row_of_the_release_before_has_no_settings_and_stays_as_it_is() {
    let row = r#"{"name":"r01n10","hwaddrs":["52:54:00:01:01:01"],"ipaddr":"10.1.0.10","profiles":[],"attributes":{"a":"b"}}"#;
    let node: Node = serde_json::from_str(row).unwrap();
    assert!(node.settings.is_empty());
    assert_eq!(serde_json::to_string(&node).unwrap(), row);
}
