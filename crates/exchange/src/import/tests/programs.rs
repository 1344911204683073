//! Inventories of other provisioning systems: what becomes what, and what is listed.

use super::*;
use serde_json::{Value, json};

const WAREWULF: &str = include_str!("../../../../../tests/cases/31-warewulf-nodes.conf");
const XCAT: &str = include_str!("../../../../../tests/cases/31-xcat-tables.csv");
const GRENDEL: &str = include_str!("../../../../../tests/cases/31-grendel-hosts.json");
const NETBOX: &str = include_str!("../../../../../tests/cases/31-netbox.csv");

/// The entries, read without a name that says the format.
fn recognised(format: Format, text: &str) -> Import {
    let read = import(None, "-", text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read.format, format);
    assert!(read.entries.iter().all(|entry| entry.adds));
    read
}

fn settings(import: &Import, name: &str) -> Value {
    let entry = import.entries.iter().find(|entry| entry.name == name).unwrap();
    json!(entry.settings.clone().unwrap_or_default())
}

/// The warnings without places and help.
fn left(import: &Import) -> Vec<&str> {
    import.warnings.iter().map(|warning| warning.message.as_str()).collect()
}

#[test]
fn warewulf_nodes_keep_profiles_tags_networks_and_bmc() {
    let read = recognised(Format::Warewulf, WAREWULF);
    assert_eq!(
        listed(&read),
        [
            "27 r01n01 52:54:00:01:01:01 10.5.1.1 p=gpu",
            "50 r01n02 52:54:00:01:01:02 10.5.1.2 p=",
            "66 login 52:54:00:01:00:04,52:54:00:01:00:05 10.5.0.4 p="
        ]
    );
    let addresses: Vec<String> = read
        .entries
        .iter()
        .filter_map(|e| Some(e.ipaddr?.to_string()))
        .collect();
    assert_eq!(addresses, ["10.5.1.1", "10.5.1.2", "10.5.0.4"]);
    assert_eq!(
        settings(&read, "r01n01"),
        json!({
            "mtu": 9000, "vars.bmc_ipaddr": "10.7.1.1", "vars.rack_pdu": "pdu2", "vars.owner": "physics",
            "vars.networks": { "ib0": { "type": "infiniband", "device": "ib0", "ipaddr": "10.6.1.1", "netmask": "255.255.0.0" } },
        })
    );
    assert_eq!(
        settings(&read, "r01n02"),
        json!({ "kernel-args": "quiet hugepages=64" })
    );
    assert_eq!(
        json!(read.entries[0].attributes),
        json!({ "asset_key": "A-1001", "comment": "was c1" })
    );
    assert_eq!(
        read.profiles,
        "[profile.default]\ninit = \"/sbin/init\"\nkernel-args = \"quiet crashkernel=no net.ifnames=1\"\n\
         vars-secret.bmc_password = \"calvin\"\nvars.bmc_user = \"admin\"\n\
         # comment: This profile is automatically included for each node\n\n\
         [profile.gpu]\nkernel-args = \"quiet iommu=pt\"\nvars.gpus = \"2\"\n# comment: Nodes with two accelerators\n\n\
         # Network ib0 of r01n01: check it, and remove # from the lines of its section.\n\
         # - the file does not say which card it is: correct the driver, and add port if there are several\n\
         # - r01n02 does not have it: give its nodes a profile, and write profiles = [\"NAME\"]\n\
         #[[network]]\n#name = \"ib\"\n#type = \"infiniband\"\n#match = { driver = \"mlx5_core\" }\n\
         #node-address = \"10.6.{rack}.{slot}\"\n#prefix = 16\n\n\
         # Network lan of login: check it, and remove # from the lines of its section.\n\
         # - its addresses do not follow from the nodes' names as those of the boot network do: login has 192.0.2.10; write their pattern\n\
         # - the file does not name one prefix: correct it\n\
         # - r01n[01-02] does not have it: give its nodes a profile, and write profiles = [\"NAME\"]\n\
         #[[network]]\n#name = \"lan\"\n#type = \"ethernet\"\n#match = { mac = \"{{ vars.networks.lan.hwaddr }}\" }\n#node-address = \"\"\n#prefix = 16\n\n"
    );
    assert_eq!(
        left(&read),
        [
            "image 'rocky-9' is not imported",
            "runtime overlay is not imported",
            "system overlay is not imported",
            "network device 'default' of profiles is not imported",
            "device of the boot network is not imported (3 times, here first)",
            "disks is not imported",
        ]
    );
    // The sections are what the site file accepts.
    let site = format!(
        "[cluster]\nnode-name = \"n{{n}}\"\nnode-address = \"10.5.1.{{n}}\"\nreserved = [\"10.5.1.250\"]\n[[subnet]]\n\
         network = \"10.5.1.0/24\"\ninterface = \"eth1\"\nserver = \"10.5.1.250\"\n{}",
        read.profiles
    );
    let (site, _) = rackstrap_site::parse(&site, std::path::Path::new("site.toml")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(site.profiles["gpu"].vars.plain["gpus"], "2");
}

/// The lines of sections without their `#`; comments have a blank after it.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(code) if !code.starts_with(' ') => code,
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn networks_of_all_nodes_are_suggested_as_the_site_file_takes_them() {
    let site = |more: &str| {
        let text = format!(
            "[cluster]\nnode-name = \"r{{rack:02}}n{{slot:02}}\"\nnode-address = \"10.5.{{rack}}.{{slot}}\"\n\
             reserved = [\"10.5.0.0/24\", \"10.5.255.0/24\"]\n[[subnet]]\nnetwork = \"10.5.0.0/16\"\ninterface = \"eth1\"\n\
             server = \"10.5.0.1\"\n{more}"
        );
        rackstrap_site::parse(&text, std::path::Path::new("site.toml"))
            .unwrap_or_else(|e| panic!("{e}"))
            .0
    };
    let node = |slot: u8| {
        format!(
            "  r01n0{slot}:\n    network devices:\n      default: {{hwaddr: '52:54:00:01:01:0{slot}', primary: 'true'}}\n      \
             eth1: {{hwaddr: '52:54:00:02:01:0{slot}', ipaddr: 10.7.1.{slot}, netmask: 255.255.0.0, gateway: 10.7.0.1, mtu: '9000'}}\n      \
             ib0: {{type: infiniband, ipaddr: 10.6.1.{slot}/20}}\n"
        )
    };
    let text = format!("nodeprofiles: {{}}\nnodes:\n{}{}", node(1), node(2));
    let read = recognised(Format::Warewulf, &text);
    let site = site(&uncommented(&read.profiles));
    let [eth, ib] = &site.networks[..] else {
        panic!("{}", read.profiles)
    };
    assert_eq!((eth.name.as_str(), eth.mtu, eth.prefix), ("eth-1", Some(9000), 16));
    assert_eq!(eth.router, Some([10, 7, 0, 1].into()));
    assert_eq!(eth.address_of("r01n02"), Some([10, 7, 1, 2].into()));
    assert_eq!(
        eth.kind.card().unwrap().mac.as_deref(),
        Some("{{vars.networks.eth1.hwaddr}}")
    );
    assert_eq!((ib.name.as_str(), ib.prefix), ("ib", 20));
    assert!(!read.profiles.contains("does not have it"), "{}", read.profiles);
    // The variable is in the settings that the import gives the nodes.
    assert_eq!(
        settings(&read, "r01n02")["vars.networks"]["eth1"]["hwaddr"],
        "52:54:00:02:01:02"
    );
}

#[test]
fn warewulf_before_4_3_has_flat_keys() {
    let text = "nodeprofiles: {}\nnodes:\n  n1:\n    ipmi ipaddr: 10.7.1.1\n    kernel args: quiet\n    keys: {a: b}\n    network devices:\n      \
                eth0: {hwaddr: 52-54-00-01-01-01, default: 'true'}\n";
    let read = recognised(Format::Warewulf, text);
    assert_eq!(
        settings(&read, "n1"),
        json!({ "kernel-args": "quiet", "vars.a": "b", "vars.bmc_ipaddr": "10.7.1.1" })
    );
}

#[test]
fn warewulf_4_6_has_profiles_in_profiles_lists_of_arguments_and_profiles_taken_away() {
    let text = "WW_INTERNAL: 46\nnodeprofiles:\n  default: {}\n  base: {}\n  gpu:\n    profiles: [base]\n    kernel:\n      args: [quiet, vga=791]\n\
                nodes:\n  n1:\n    profiles: [default, gpu, ~base]\n    image name: rockylinux-9\n    ipmi: {ipaddr: 10.7.1.1, write: true}\n    \
                network devices:\n      default: {device: wwnet0, onboot: true, hwaddr: 'e6:92:39:49:7b:03', ipaddr: 10.5.1.1}\n      \
                tertiary: {device: wwnet3, ipaddr6: '2001:db8::3', prefixlen6: 64, tags: {DNS1: 10.5.0.1}}\n";
    let read = recognised(Format::Warewulf, text);
    assert_eq!(listed(&read), ["10 n1 e6:92:39:49:7b:03 10.5.1.1 p=gpu"]);
    assert_eq!(
        settings(&read, "n1"),
        json!({
            "vars.bmc_ipaddr": "10.7.1.1", "vars.bmc_write": "true",
            "vars.networks": { "tertiary": {
                "device": "wwnet3", "ipaddr6": "2001:db8::3", "prefixlen6": "64", "tags": { "DNS1": "10.5.0.1" },
            } },
        })
    );
    assert!(
        read.profiles
            .contains("[profile.gpu]\nkernel-args = \"quiet vga=791\"\n")
    );
    let all = left(&read).join("\n");
    for what in [
        "the profile 'base' of profiles",
        "the profile '~base', which takes a profile away,",
    ] {
        assert!(all.contains(&format!("{what} is not imported")), "{what}: {all}");
    }
}

#[test]
fn xcat_tables_are_joined_by_node() {
    let read = recognised(Format::Xcat, XCAT);
    assert_eq!(
        listed(&read),
        [
            "3 r01n01 52:54:00:01:01:01,52:54:00:01:01:81 10.5.1.1 g=compute+gpu",
            "4 r01n02 52:54:00:01:01:02 10.5.1.2 g=compute",
            "6 login 52:54:00:01:00:04 10.5.0.4",
        ]
    );
    assert_eq!(
        settings(&read, "r01n01"),
        json!({
            "vars.networks": { "ib0": { "ipaddr": "10.6.1.1", "name": "r01n01-ib0" }, "bmc": { "ipaddr": "10.7.1.1", "name": "r01n01-bmc" } },
            "vars.bmc_ipaddr": "10.7.1.1", "vars.bmc_user": "ADMIN", "vars-secret.bmc_password": "calvin",
        })
    );
    assert_eq!(
        settings(&read, "r01n02"),
        json!({ "vars.networks": {
            "ib0": { "ipaddr": "10.6.1.2", "type": "infiniband", "network": "10_6_0_0-255_255_0_0" },
            "eth1": { "ipaddr": "192.0.2.12", "type": "ethernet" },
        } })
    );
    assert_eq!(
        json!(read.entries[0].attributes),
        json!({ "comment": "first of its rack", "rack": "rack1", "room": "cellar", "u": "3" })
    );
    assert_eq!(
        json!(read.entries[1].attributes),
        json!({ "comment": "said \"slow\", twice" })
    );
    assert_eq!(
        left(&read),
        [
            "the row of 'compute' in table mac, which stands for several nodes, is not imported",
            "mac.interface is not imported",
            "a disabled row of table mac is not imported",
            "the row of 'compute' in table hosts, which stands for several nodes, is not imported",
            "hosts.hostnames is not imported",
            "a machine without a row in table mac is not imported",
            "a second value of nics.nicips is not imported",
        ]
    );
    // Without table mac there is nothing by which a machine can be recognised.
    let hosts = &XCAT[XCAT.find("#node,ip").unwrap()..];
    let said = told(&import(None, "hosts.csv", hosts).unwrap_err().problems);
    assert!(
        said.iter().any(|said| said.contains("the file has no table mac")),
        "{said:?}"
    );
}

#[test]
fn grendel_hosts_have_tags_cards_and_bmc() {
    let read = recognised(Format::Grendel, GRENDEL);
    assert_eq!(
        listed(&read),
        [
            "4 r01n01 52:54:00:01:01:01,52:54:00:01:01:81 10.5.1.1 g=compute+rack1",
            "18 r01n02 52:54:00:01:01:02 10.5.1.2 g=compute+rack1"
        ]
    );
    assert_eq!(read.entries[0].ipaddr.unwrap().to_string(), "10.5.1.1");
    assert_eq!(
        settings(&read, "r01n01"),
        json!({
            "mtu": 9000, "vars.bmc_ipaddr": "10.7.1.1", "vars.bmc_hwaddr": "52:54:00:07:01:01", "vars.bmc_name": "r01n01-bmc.cluster.example",
            "vars.networks": { "eno2": { "ipaddr": "192.0.2.11/24", "hwaddr": "52:54:00:01:01:81" } },
        })
    );
    // The boot interface has no address: it is a member of the bond that has it. A tag with a value is a variable.
    assert_eq!(
        settings(&read, "r01n02"),
        json!({
            "vars.owner": "physics",
            "vars.networks": { "bond0": {
                "type": "bond", "peers": ["52:54:00:01:01:02", "52:54:00:01:01:82"], "ipaddr": "10.5.1.2/16", "mtu": 9000,
            } },
        })
    );
    let all = left(&read);
    assert!(
        !all.iter()
            .any(|said| said.contains("kickstart") || said.contains("'_id'")),
        "{all:?}"
    );
    for what in [
        "firmware",
        "boot_image 'compute-rocky9'",
        "provision = false",
        "the group 'node type=gpu'",
    ] {
        assert!(
            all.iter()
                .any(|said| said.starts_with(&format!("{what} is not imported"))),
            "{what}: {all:?}"
        );
    }
    // A dump of the database, and a host by itself.
    for text in [
        format!("{{\"hosts\": {GRENDEL}, \"images\": [{{}}]}}"),
        GRENDEL[1..GRENDEL.find("  },").unwrap() + 3].to_owned(),
    ] {
        let read = import(None, "-", &text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.entries[0].name, "r01n01");
    }
}

#[test]
fn netbox_interfaces_and_devices_are_joined() {
    let read = recognised(Format::Netbox, NETBOX);
    assert_eq!(
        listed(&read),
        [
            "2 r01n01 52:54:00:01:01:01,52:54:00:01:01:81 10.5.1.1 g=compute-node+gpu",
            "4 r01n02 52:54:00:01:01:02 10.5.1.2 g=compute-node"
        ]
    );
    assert_eq!(
        settings(&read, "r01n02"),
        json!({ "vars.networks": { "bond0": { "ipaddr": "192.0.2.12/24", "mtu": "9000" } } }),
        "a bond has no hardware address of its own"
    );
    assert_eq!(
        settings(&read, "r01n01"),
        json!({
            "mtu": 9000, "vars.bmc_ipaddr": "10.7.1.1", "vars.bmc_hwaddr": "52:54:00:07:01:01",
            "vars.networks": { "eno2": { "ipaddr": "192.0.2.11/24", "hwaddr": "52:54:00:01:01:81" } },
        })
    );
    assert_eq!(
        json!(read.entries[1].attributes),
        json!({ "position": "4", "rack": "Rack 1", "serial": "SN-0002", "site": "Cellar" })
    );
    let all = left(&read).join("\n");
    for what in [
        "a device without an interface with a MAC address",
        "the column status of devices",
        "the column type of devices",
    ] {
        assert!(all.contains(what), "{what}: {all}");
    }
    // The names of NetBox's import forms, and interfaces without devices.
    let read = recognised(
        Format::Netbox,
        "device,name,type,mac_address,mgmt_only\nr01n01,eno1,1000base-t,52:54:00:01:01:01,false\n",
    );
    assert_eq!(listed(&read), ["2 r01n01 52:54:00:01:01:01"]);
    // A site that prefers IPv6 shows such an address in the column of the primary one; the other column has the IPv4 one.
    let read = recognised(
        Format::Netbox,
        "Name,Role,Type,IP Address,IPv4 Address\nr01n01,Node,X1,2001:db8::1/64,10.5.1.1/16\nDevice,Name,MAC Address\n\
         r01n01,eno1,52:54:00:01:01:01\n",
    );
    assert_eq!(listed(&read), ["2 r01n01 52:54:00:01:01:01 10.5.1.1 g=node"]);
    assert!(left(&read).contains(&"an IPv6 address is not imported"));
    let devices = &NETBOX[..NETBOX.find("Device,Name").unwrap()];
    let said = told(&import(None, "devices.csv", devices).unwrap_err().problems);
    assert!(said.iter().any(|said| said.contains("has only devices")), "{said:?}");
}

#[test]
fn kea_reservations_of_all_levels_and_with_comments() {
    let text = "// made by hand\n{ \"Dhcp4\": { # all\n \"reservations\": [ { \"hw-address\": \"52:54:00:01:01:01\", \"hostname\": \"r01n01\", \
                \"next-server\": \"10.5.0.2\" } ],\n \"shared-networks\": [ { \"subnet4\": [ { \"reservations\": [ /* \" */ { \"hw-address\": \
                \"52:54:00:01:01:02\", \"ip-address\": \"10.5.1.2\" }, { \"client-id\": \"01:02\" } ] } ] } ],\n \"subnet4\": [ {} ] } }\n";
    let read = recognised(Format::Kea, text);
    assert_eq!(
        listed(&read),
        ["3 r01n01 52:54:00:01:01:01", "4 r01n02 52:54:00:01:01:02 10.5.1.2"]
    );
    assert_eq!(
        left(&read),
        [
            "'next-server' of reservations is not imported",
            "a reservation without hw-address is not imported"
        ]
    );
}

#[test]
fn columns_of_csv_may_be_settings() {
    let text = "name,hwaddr,image,kernel-args+,vars.pdu,check-login,mtu,console,colour\n\
                r01n01,52:54:00:01:01:01,debian@2,hugepages=64,pdu2,false,9000,,red\nr01n02,52:54:00:01:01:02,,,,,,,\n";
    let read = good(Format::Csv, text);
    assert_eq!(
        settings(&read, "r01n01"),
        json!({ "image": "debian@2", "kernel-args+": "hugepages=64", "vars.pdu": "pdu2", "check-login": false, "mtu": 9000 })
    );
    assert_eq!(read.entries[1].settings, None);
    assert!(left(&read)[0].contains("the column 'colour' is not read"));
}

#[test]
fn hostile_documents_are_refused_with_a_reason() {
    let bomb = "nodes:\n  a: &a [x, x]\n  b: &b [*a, *a]\n  c: [*b, *b]\n";
    let nested = |levels: usize| format!("nodes:\n  a: {}{}\n", "[".repeat(levels), "]".repeat(levels));
    let (deep, deeper) = (nested(40), nested(3000));
    let twice = "nodes:\n  a:\n    comment: x\n    comment: y\n";
    let listy = "nodes:\n  ? [a]\n  : b\n";
    for (text, why) in [
        (bomb, "repeats another part of the file (*), which is not read"),
        (deep.as_str(), "more than 32 levels of nesting"),
        (deeper.as_str(), "this is not YAML: "),
        (twice, "'comment' is here twice"),
        (listy, "the key of a map is a list or map"),
        ("nodes:\n  a: [\n", "this is not YAML: "),
    ] {
        let said = told(&import(Some(Format::Warewulf), "nodes.conf", text).unwrap_err().problems);
        assert!(said.iter().any(|said| said.contains(why)), "{why}: {said:?}");
    }
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for (format, text, why) in [
        (
            Format::Grendel,
            deep.as_str(),
            "this is not JSON: recursion limit exceeded",
        ),
        (Format::Grendel, "[{\"name\": \"a\"", "this is not JSON: EOF"),
        (Format::Grendel, "[]", "it contains no nodes"),
        (Format::Kea, "{\"Dhcp4\": 7} /* x", "it contains no nodes"),
        (
            Format::Json,
            "{\"nodes\": [7, {\"name\": [], \"hwaddrs\": [\"x\"]}]}",
            "is not a hardware address",
        ),
        (Format::Xcat, "r01n01,x\n", "no header of a table is above this row"),
        (Format::Netbox, "r01n01,x\n", "no header of a table is above this row"),
    ] {
        let said = told(&import(Some(format), "file", text).unwrap_err().problems);
        assert!(said.iter().any(|said| said.contains(why)), "{why}: {said:?}");
    }
    let wide = format!("#node,interface,mac,comments,disable\n{}\n", "x,".repeat(300));
    let said = told(&import(Some(Format::Xcat), "file", &wide).unwrap_err().problems);
    assert!(said[0].contains("301 fields in a row; at most 256"), "{said:?}");
}

/// Files at the limit of what is read, of which everything is at one node, or refers to everything else.
#[test]
fn everything_at_one_node_is_refused_without_comparing_it_all() {
    let interface = |i: usize| {
        format!(
            "r01n01,e{i},52:54:00:{:02x}:{:02x}:{:02x}\n",
            i >> 16,
            i >> 8 & 255,
            i & 255
        )
    };
    let interfaces: String = (0..60_000).map(interface).collect();
    let netbox = format!("Device,Name,MAC Address\n{interfaces}");
    let said = told(&import(None, "-", &netbox).unwrap_err().problems);
    assert!(
        said[0].contains("more than 64 hardware addresses of one node"),
        "{:?}",
        said[0]
    );
    assert_eq!(said.len(), 1);
    let profiles: String = (0..40_000).map(|i| format!("  p{i}: {{}}\n")).collect();
    let nodes: String = (0..40_000)
        .map(|i| format!("  n{i}: {{profiles: [p39999]}}\n"))
        .collect();
    let text = format!("nodeprofiles:\n{profiles}nodes:\n{nodes}");
    assert!(
        import(None, "-", &text).unwrap_err().omitted > 30_000,
        "no node has a card"
    );
    let groups: String = (0..2_000).map(|i| format!("g{i},")).collect();
    let text = format!(
        "#node,interface,mac,comments,disable\nr01n01,,52:54:00:01:01:01,,\n#node,groups,status,statustime,comments,disable\nr01n01,\"{}\",,,,\n",
        &groups[..8000]
    );
    let read = import(None, "-", &text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read.entries[0].groups.as_ref().map(Vec::len), Some(256));
}
