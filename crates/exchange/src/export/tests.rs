use super::*;
use proptest::prelude::*;
use rackstrap_hostlist::{NoGroups, NodeSet, expand};
use std::collections::BTreeMap;

fn node(rack: u8, slot: u8) -> ExportNode {
    ExportNode {
        name: format!("r{rack:02}n{slot:02}"),
        ipaddr: Ipv4Addr::new(10, 5, rack, slot),
        hwaddrs: vec![HwAddr([0x52, 0x54, 0, 0, rack, slot])],
        domain: None,
        profiles: vec!["compute".to_owned()],
        groups: vec![format!("rack{rack}")],
        hardware: Some(hardware(16, 64_302)),
        scratch: None,
        networks: Vec::new(),
        rack: format!("r{rack:02}"),
        state: "ready".to_owned(),
        image: Some("debian@2".to_owned()),
        attributes: BTreeMap::new(),
        settings: BTreeMap::new(),
        vars: BTreeMap::new(),
        host_keys: Vec::new(),
    }
}

/// The nodes' network with the default loaders, where one node has another one for a vendor's machines, and a network in which rackstrap
/// answers the boot part.
fn subnets() -> Vec<BootSubnet> {
    let file = |class: &str, archs: &[u16], file: &str| BootFile {
        class: class.to_owned(),
        archs: archs.to_vec(),
        file: file.to_owned(),
    };
    let defaults = || {
        vec![
            file("HTTPClient", &[19], "snponly-arm64.efi"),
            file("HTTPClient", &[16], "snponly.efi"),
            file("PXEClient", &[11], "snponly-arm64.efi"),
            file("PXEClient", &[7, 9], "snponly.efi"),
            file("PXEClient", &[0], "undionly.kpxe"),
        ]
    };
    let own = file("PXEClient:Arch:00007:UNDI:009", &[7], "loader.own/own.efi");
    let subnet = |second: u8, is_proxy, files: Vec<BootFile>, nodes: &[&str]| BootSubnet {
        network: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, second, 0, 0), 16),
        server: Ipv4Addr::new(10, second, 0, 1),
        base: format!("http://10.{second}.0.1:80"),
        script: format!("http://10.{second}.0.1:80/ipxe?mac=${{netX/mac:hexhyp}}&arch=${{buildarch}}&tried=${{tried}}"),
        is_proxy,
        files,
        nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
    };
    let most = [
        "r01n01", "r01n02", "r01n03", "r01n04", "r02n01", "r02n02", "r02n03", "r02n04",
    ];
    vec![
        subnet(5, false, defaults(), &most),
        subnet(5, false, [vec![own], defaults()].concat(), &["r2n1"]),
        subnet(6, true, Vec::new(), &["r11n01"]),
    ]
}

fn hardware(cpus: u32, memory_mib: u64) -> Hardware {
    Hardware {
        cpus,
        memory_mib,
        vendor: "Dell Inc.".to_owned(),
        product: "PowerEdge R640".to_owned(),
        ..Hardware::default()
    }
}

fn sample() -> Vec<ExportNode> {
    let mut nodes: Vec<ExportNode> = (1..=2)
        .flat_map(|rack| (1..=4).map(move |slot| node(rack, slot)))
        .collect();
    // One node with two cards, a domain and a further network, one that never booted, and one for each kind of problem.
    nodes[0].hwaddrs.push(HwAddr([0x52, 0x54, 0, 1, 1, 1]));
    nodes[0].domain = Some("cluster.example".to_owned());
    nodes[0].networks = vec![("r01n01-ib".to_owned(), Ipv4Addr::new(10, 6, 1, 1))];
    nodes[1].networks = vec![("r01n02-ib".to_owned(), Ipv4Addr::new(10, 6, 1, 2))];
    nodes[1].hardware = None;
    nodes[1].hwaddrs.clear();
    nodes[1].groups = vec!["two words".to_owned(), "gpu".to_owned(), "gpu".to_owned()];
    nodes[1].profiles.push("login".to_owned());
    nodes[2].hardware = Some(hardware(16, 64_300));
    nodes[4].hardware = Some(hardware(16, 128_000));
    nodes[5].scratch = Some(480_103_981_056);
    nodes[6].hardware = Some(Hardware {
        vendor: "Evil\nNodeName=r66n66 CPUs=1".to_owned(),
        product: String::new(),
        ..hardware(8, 0)
    });
    nodes[7].hardware = Some(hardware(0, 64_000));
    nodes[7].groups.clear();
    nodes[7].profiles.clear();
    // The export must sort these nodes.
    nodes.push(node(10, 1));
    nodes[8].name = "r2n1".to_owned();
    nodes.push(node(11, 1));
    nodes[9].ipaddr = Ipv4Addr::new(10, 6, 11, 1);
    nodes.push(node(12, 1));
    nodes[10].ipaddr = Ipv4Addr::new(10, 7, 12, 1);
    nodes.reverse();
    nodes
}

#[test]
fn writes_every_format() {
    let nodes = sample();
    let all = Format::ALL.map(|format| format!("== {format}\n{}", format.write(&nodes, &subnets())));
    insta::assert_snapshot!(all.concat());
}

/// The classes of Kea for one network with these files.
fn kea_classes(files: &[(&str, &str)]) -> Vec<serde_json::Value> {
    let mut all = subnets();
    all.truncate(1);
    all[0].files = (files.iter())
        .map(|(class, file)| BootFile {
            class: (*class).to_owned(),
            archs: vec![7],
            file: (*file).to_owned(),
        })
        .collect();
    let text = Format::Kea.write(&[node(1, 1)], &all);
    let members: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let map: serde_json::Value = serde_json::from_str(&format!("{{{}}}", members.concat())).expect(&text);
    map["client-classes"].as_array().expect(&text).clone()
}

#[test]
fn kea_gets_no_empty_list_of_classes() {
    let mut all = subnets();
    all.truncate(1);
    all[0].is_proxy = true;
    for nodes in [[node(1, 1)].as_slice(), &[]] {
        let text = Format::Kea.write(nodes, &all);
        assert!(!text.contains("client-classes"), "{text}");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let map: serde_json::Value = serde_json::from_str(&format!("{{{}}}", lines.concat())).expect(&text);
        let reservations = map["reservations"].as_array().expect(&text);
        assert_eq!(reservations.len(), nodes.len(), "{text}");
        assert!(
            reservations
                .iter()
                .all(|one| one["next-server"] == all[0].server.to_string()),
            "{text}"
        );
    }
}

#[test]
fn classes_of_kea_have_different_names() {
    let files = [
        ("PXEClient", "ipxe"),
        ("PXEClient", "http-x"),
        ("PXEClient", "3a-x"),
        ("PXEClient:", "x"),
        ("PXEClient", "x"),
        ("HTTPClient", "x"),
    ];
    let classes = kea_classes(&files);
    let names: std::collections::BTreeSet<String> = classes.iter().map(|class| class["name"].to_string()).collect();
    assert_eq!(
        (names.len(), classes.len()),
        (files.len() + 2, files.len() + 2),
        "{names:?}"
    );
}

#[test]
fn a_url_that_is_too_long_for_the_field_is_in_option_67_only() {
    // http://10.5.0.1:80/loader/ has 26 bytes.
    for (length, fits) in [(101, true), (102, false)] {
        let file = "x".repeat(length);
        let classes = kea_classes(&[("HTTPClient", file.as_str())]);
        let class = &classes[2];
        assert_eq!(class.get("boot-file-name").is_some(), fits, "{class}");
        assert!(class["option-data"][1]["data"].to_string().contains(&file), "{class}");
        let mut all = subnets();
        all[0].files = vec![BootFile {
            class: "HTTPClient".to_owned(),
            archs: vec![16],
            file: file.clone(),
        }];
        let text = Format::Dhcpd.write(&[node(1, 1)], &all);
        let word = if fits { "filename" } else { "option bootfile-name" };
        assert!(
            text.contains(&format!("{{ {word} \"http://10.5.0.1:80/loader/{file}\"; }}")),
            "{text}"
        );
    }
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let nodes = sample();
    let mut turned = nodes.clone();
    turned.rotate_left(3);
    for format in Format::ALL {
        assert_eq!(
            format.write(&nodes, &subnets()),
            format.write(&turned, &subnets()),
            "{format}"
        );
        assert_eq!(format.as_str().parse(), Ok(format));
    }
    assert!("json".parse::<Format>().unwrap_err().contains("hosts, ethers"));
}

#[test]
fn slurm_reads_nodes_in_several_racks_at_one_position() {
    let text = Format::Slurm.write(&[node(1, 1), node(2, 1)], &[]);
    assert!(text.contains("\nNodeName=r[01-02]n[01] CPUs=16 "), "{text}");
    assert_eq!(
        Format::Hostlist.write(&[node(1, 1), node(2, 1)], &[]),
        "r[01-02]n[01]\n"
    );
}

#[test]
fn an_empty_inventory_is_a_header() {
    for format in Format::ALL {
        let text = format.write(&[], &subnets());
        if format.is_json() {
            let empty: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(!text.contains("null") && empty.to_string().len() < 50, "{text}");
            continue;
        }
        let (lines, comments) = (text.lines().count(), text.matches("(0 nodes)").count());
        let want = match format {
            Format::Hostlist => (1, 0),
            // The definition of an option, and the empty list of reservations.
            Format::Dhcpd => (2, 1),
            Format::Kea => (3, 1),
            _ => (1, 1),
        };
        assert_eq!((lines, comments), want, "{text}");
    }
}

/// The settings of each node in slurm's lines.
fn slurm_nodes(text: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut nodes = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.len() < 4000, "{} bytes", line.len());
        let mut words = line.split(' ');
        let names = words
            .next()
            .and_then(|word| word.strip_prefix("NodeName="))
            .expect(line);
        let settings: BTreeMap<String, u64> = words
            .filter_map(|word| word.split_once('='))
            .filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?)))
            .collect();
        for name in expand(names, &NoGroups).expect(line) {
            assert!(nodes.insert(name.clone(), settings.clone()).is_none(), "{name} twice");
        }
    }
    nodes
}

#[test]
fn long_lists_continue_in_another_line() {
    let mut nodes: Vec<ExportNode> = (0..2000).map(|_| node(1, 1)).collect();
    for (i, node) in nodes.iter_mut().enumerate() {
        node.name = format!("n{}", i * 3);
    }
    let text = Format::Slurm.write(&nodes, &subnets());
    assert!(text.lines().count() > 3);
    assert_eq!(slurm_nodes(&text).len(), 2000);
}

proptest! {
    #[test]
    fn slurm_lines_promise_no_more_than_each_node_has(
        found in proptest::collection::btree_map(
            (1u8..4, 1u8..40),
            proptest::option::of((0u32..3, prop_oneof![Just(0), 60_000u64..66_000], proptest::option::of(1u64 << 30..1 << 40))),
            0..60,
        )
    ) {
        let nodes: Vec<ExportNode> = found.iter().map(|(&(rack, slot), found)| ExportNode {
            hardware: found.map(|(cpus, memory, _)| hardware(cpus, memory)),
            scratch: found.and_then(|(_, _, scratch)| scratch),
            networks: Vec::new(),
            ..node(rack, slot)
        }).collect();
        let text = Format::Slurm.write(&nodes, &subnets());
        let said = slurm_nodes(&text);
        for node in &nodes {
            let said = said.get(&node.name);
            let Some(hardware) = node.hardware.as_ref().filter(|hardware| hardware.cpus > 0) else {
                prop_assert_eq!(said, None);
                continue;
            };
            let said = said.ok_or_else(|| TestCaseError::fail(format!("{} is missing", node.name)))?;
            prop_assert_eq!(said["CPUs"], u64::from(hardware.cpus));
            let memory = said.get("RealMemory").copied().unwrap_or(0);
            prop_assert!(memory <= hardware.memory_mib && hardware.memory_mib - memory <= hardware.memory_mib / 256);
            let tmp = said.get("TmpDisk").copied().unwrap_or(0) << 20;
            let scratch = node.scratch.unwrap_or(0);
            prop_assert!(tmp <= scratch / 100 * 95 && tmp >= scratch / 100 * 94);
        }
    }

    #[test]
    fn a_hostlist_is_all_names(slots in proptest::collection::btree_set((1u8..30, 1u8..30), 1..100)) {
        let nodes: Vec<ExportNode> = slots.iter().map(|&(rack, slot)| node(rack, slot)).collect();
        let names: NodeSet = nodes.iter().map(|node| node.name.as_str()).collect();
        let text = Format::Hostlist.write(&nodes, &subnets());
        prop_assert_eq!(expand(text.trim(), &NoGroups).unwrap(), names);
    }
}

/// A node with all that the formats of inventories have, and one that never booted and has nothing.
fn described() -> Vec<ExportNode> {
    let json = |value: serde_json::Value| serde_json::from_value(value).unwrap();
    let full = ExportNode {
        domain: Some("cluster.example".to_owned()),
        groups: vec![
            "big".to_owned(),
            "rack-1".to_owned(),
            "rack_1".to_owned(),
            "all".to_owned(),
        ],
        attributes: [("location".to_owned(), "row 3".to_owned())].into(),
        settings: json(serde_json::json!({
            "image": "debian@2", "kernel-args+": "quiet", "mtu": 9000, "check-login": false, "vars.nics": ["ib0"],
            "vars-secret.pin": "(hidden)", "ipaddr": "10.5.1.1",
        })),
        vars: json(serde_json::json!({ "nics": ["ib0"], "pdu": "pdu1" })),
        host_keys: vec![
            "ssh-ed25519 AAAAC3Nza root@r01n01".to_owned(),
            "ecdsa-sha2-nistp256 AAAAE2Vj root@r01n01".to_owned(),
        ],
        networks: vec![("r01n01-ib".to_owned(), Ipv4Addr::new(10, 6, 1, 1))],
        ..node(1, 1)
    };
    let bare = ExportNode {
        profiles: Vec::new(),
        groups: Vec::new(),
        hardware: None,
        image: None,
        state: "absent".to_owned(),
        ..node(1, 2)
    };
    vec![full, bare]
}

#[test]
fn inventories_of_ansible_and_prometheus_and_known_hosts() {
    let nodes = described();
    insta::assert_snapshot!("ansible", Format::Ansible.write(&nodes, &[]));
    insta::assert_snapshot!("prometheus", Format::Prometheus.write(&nodes, &[]));
    insta::assert_snapshot!("known_hosts", Format::KnownHosts.write(&nodes, &[]));
    insta::assert_snapshot!("all", Format::All.write(&nodes, &[]));
    assert_eq!(
        Format::Ansible.write(&[], &[]),
        "{\n  \"all\": {\n    \"children\": {},\n    \"hosts\": {}\n  }\n}\n"
    );
    assert_eq!(Format::Prometheus.write(&[], &[]), "[]\n");
}

#[test]
fn what_export_all_prints_is_imported_unchanged() {
    let nodes = described();
    let naming = rackstrap_hostlist::naming::Naming::new("r{rack:02}n{slot:02}", "10.5.{rack}.{slot}").unwrap();
    let options = crate::import::Options {
        format: None,
        naming: &naming,
        domain: "",
        ports: None,
    };
    let read = crate::import::read("-", &Format::All.write(&nodes, &[]), &options).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((read.format, read.entries.len()), (crate::import::Format::Json, 2));
    for (entry, node) in read.entries.iter().zip(&nodes) {
        assert_eq!(
            (&entry.name, &entry.hwaddrs, entry.ipaddr),
            (&node.name, &node.hwaddrs, Some(node.ipaddr))
        );
        assert_eq!(
            (&entry.profiles, &entry.groups),
            (&Some(node.profiles.clone()), &Some(node.groups.clone()))
        );
        assert_eq!(entry.attributes, Some(node.attributes.clone()));
        let mut open = node.settings.clone();
        open.remove("vars-secret.pin");
        assert_eq!(entry.settings, Some(open));
    }
}

/// Values of settings: what TOML, JSON and the store have.
fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        "\\PC{0,20}|[\"\\\\\n\t\u{7f}é{}]{0,6}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-z_]{1,6}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Another server gets every setting, group and attribute as it was, and no secret.
    #[test]
    fn any_node_goes_through_export_all_and_import(
        settings in prop::collection::btree_map("vars\\.[a-z_]{1,8}|vars-secret\\.[a-z]{1,4}|console|mtu|kernel-args\\+", values(), 0..6),
        attributes in prop::collection::btree_map("[a-z]{1,6}", "\\PC{0,20}", 0..3),
        groups in prop::collection::btree_set("[a-z]{1,6}", 0..3),
    ) {
        let groups: Vec<String> = groups.into_iter().collect();
        let one = ExportNode { settings, attributes, groups, ..node(1, 1) };
        let naming = rackstrap_hostlist::naming::Naming::new("r{rack:02}n{slot:02}", "10.5.{rack}.{slot}").unwrap();
        let options = crate::import::Options { format: None, naming: &naming, domain: "", ports: None };
        let text = Format::All.write(std::slice::from_ref(&one), &[]);
        let read = crate::import::read("-", &text, &options).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let [entry] = &read.entries[..] else { return Err(TestCaseError::fail(text)) };
        let mut open = one.settings.clone();
        open.retain(|key, _| !key.starts_with("vars-secret."));
        prop_assert_eq!(entry.settings.clone().unwrap_or_default(), open);
        prop_assert_eq!(entry.attributes.clone().unwrap_or_default(), one.attributes);
        prop_assert_eq!(entry.groups.clone().unwrap_or_default(), one.groups);
    }
}
