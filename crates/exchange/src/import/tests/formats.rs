//! Tests of TOML, CSV, dhcpd, dnsmasq and ethers, with files as they occur in practice.

use super::*;

#[test]
fn toml_tables() {
    let read = good(
        Format::Toml,
        r#"# racks 1 and 2
[node.r01n01]
hwaddrs = ["52:54:00:01:01:01", "52-54-00-01-01-02"]
profiles = ["compute", "gpu"]
groups = []

[node."r01n02"]
hwaddr = "5254.0001.0103"
profile = "compute"
ipaddr = "10.5.1.2"

[node]
r01n03 = { hwaddr = "52:54:00:01:01:04", groups = ["big"] }
"#,
    );
    assert_eq!(
        listed(&read),
        [
            "2 r01n01 52:54:00:01:01:01,52:54:00:01:01:02 p=compute+gpu g=",
            "7 r01n02 52:54:00:01:01:03 10.5.1.2 p=compute",
            "13 r01n03 52:54:00:01:01:04 g=big",
        ]
    );
}

#[test]
fn toml_problems_have_their_lines() {
    let all = said(
        Format::Toml,
        r#"hwaddrs = ["52:54:00:01:01:01"]
[node.r01n01]
hwadrs = ["52:54:00:01:01:01"]
[node.r01n02]
hwaddrs = ["52:54:00:01:01", 7]
[node.r01n03]
hwaddrs = "52:54:00:01:01:03"
groups = "gpu"
ipaddr = "10.5.1"
[node.r01n04]
hwaddr = "52:54:00:01:01:03"
hwaddrs = ["52:54:00:01:01:04"]
[ node.r01n02 ]
[site]
x = = 2
"#,
    );
    let starts = [
        "1: 'hwaddrs' is not read here -> write [node.r01n01], and below it",
        "2: r01n01 has no hardware address -> write hwaddrs = [",
        "3: a node has no key 'hwadrs' -> did you mean hwaddrs?",
        "5: '52:54:00:01:01' is not a hardware address: it has 5 bytes, and needs 6 -> write six",
        "5: 'hwaddrs' is not made of strings",
        "8: 'groups' is not a list -> write groups = [",
        "9: 'ipaddr' is not an IPv4 address",
        "11: 'hwaddrs' and 'hwaddr' in one table -> keep hwaddrs",
        "11: hwaddr 52:54:00:01:01:03 is on line 7 already, as r01n03's",
        "13: [node.r01n02] is on line 4 already -> name each node once",
        "14: 'site' is not read here",
        "15: this is not TOML: ",
    ];
    assert_eq!(all.len(), starts.len(), "{all:#?}");
    for (said, start) in all.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}\n{start}");
    }
    assert!(said(Format::Toml, "node = 3")[0].starts_with("1: 'node' is not a table of nodes"));
    assert!(
        said(Format::Toml, "[[node]]\nhwaddr = \"52:54:00:01:01:01\"\n[[node]]")[0].contains("not a table of nodes")
    );
    assert!(said(Format::Toml, "[node]\nr01n01 = 3")[0].starts_with("2: 'node.r01n01' is not a table"));
    let doubled = said(Format::Toml, &"[node.r01n01]\n".repeat(5000));
    assert!(doubled[0].starts_with("2: [node.r01n01] is on line 1 already"));
    let spelt = said(
        Format::Toml,
        "[node.r01n01] # ]\n[ node . \"r01n01\" ]\n[node.'r\\u0030']\n[node.\"r\\u0030\"]\n",
    );
    assert!(
        spelt[0].starts_with("2: [node.r01n01] is on line 1 already"),
        "{spelt:#?}"
    );
    assert!(!spelt.iter().any(|said| said.starts_with("4: [node")), "{spelt:#?}");
    let deep: String = (0..200).map(|i| format!("[node.r01n01.x{i}]\n")).collect();
    assert!(said(Format::Toml, &deep)[0].starts_with("200: 200 tables inside of nodes, this one last"));
}

#[test]
fn the_output_of_export_is_imported() {
    let entry = |name: &str, hwaddrs: &[&str]| Entry {
        line: 0,
        name: name.into(),
        hwaddrs: hwaddrs.iter().map(|text| mac(text)).collect(),
        ipaddr: None,
        profiles: None,
        groups: None,
        attributes: None,
        settings: None,
        adds: false,
        places: Places::default(),
    };
    let one = Entry {
        profiles: Some(vec!["compute".into()]),
        groups: Some(vec![]),
        attributes: Some([("location".to_owned(), "row 3".to_owned())].into()),
        ..entry("r01n01", &["52:54:00:01:01:01", "52:54:00:01:01:02"])
    };
    assert_eq!(
        to_toml(&[one, entry("r01n02", &["52:54:00:01:01:03"])]),
        "[node.r01n01]\nhwaddrs = [\"52:54:00:01:01:01\", \"52:54:00:01:01:02\"]\nprofiles = [\"compute\"]\n\
         groups = []\nattributes = { location = \"row 3\" }\n\n[node.r01n02]\nhwaddrs = [\"52:54:00:01:01:03\"]\n"
    );
    assert_eq!(to_toml(&[]), "");
}

#[test]
fn csv_rows() {
    let plain = good(
        Format::Csv,
        "# from the label printer\nr01n01,52:54:00:01:01:01\n\n\
         r01n02 , 52-54-00-01-01-02|5254.0001.0103 ,compute\n\
         r01n03,52:54:00:01:01:04 52:54:00:01:01:05,,gpu|big,,\n,,,\n",
    );
    assert_eq!(
        listed(&plain),
        [
            "2 r01n01 52:54:00:01:01:01",
            "4 r01n02 52:54:00:01:01:02,52:54:00:01:01:03 p=compute",
            "5 r01n03 52:54:00:01:01:04,52:54:00:01:01:05 g=gpu+big",
        ]
    );
    let excel = good(
        Format::Csv,
        "Serial;MAC Address;Name;IP\r\nX1;\"52:54:00:01:01:01\";\"r01n01\";10.5.1.1\r\n\
         X2;52:54:00:01:01:02;r01n02;\r\n;;;\r\n",
    );
    assert_eq!(
        listed(&excel),
        ["2 r01n01 52:54:00:01:01:01 10.5.1.1", "3 r01n02 52:54:00:01:01:02"]
    );
    assert_eq!(
        told(&excel.warnings),
        [
            "1: the column 'Serial' is not read -> known columns: name, hwaddr, ipaddr, profile, groups, keys of settings (image, console), \
         vars.NAME"
        ]
    );
    let tabs = good(Format::Csv, "name\thwaddr\tgroups\nr01n01\t52:54:00:01:01:01\ta b\n");
    assert_eq!(listed(&tabs), ["2 r01n01 52:54:00:01:01:01 g=a+b"]);
    let quoted = good(
        Format::Csv,
        "\"r01n01\",\"52:54:00:01:01:01 52:54:00:01:01:02\",\"comp,ute\"\n",
    );
    assert_eq!(
        listed(&quoted),
        ["1 r01n01 52:54:00:01:01:01,52:54:00:01:01:02 p=comp,ute"]
    );
}

#[test]
fn csv_problems_have_their_lines() {
    let all = said(
        Format::Csv,
        "r01n01,52:54:00:01:01:01\n52:54:00:01:01:02,r01n02\nr01n03\nr01n04,52:54:00:01:01:0x\n\
         \"r01n05,52:54:00:01:01:05\nr01n06,52:54:00:01:01:06,compute,gpu,more\n,52:54:00:01:01:07\n\
         r01n08,52:54:00:01:01:08 52:54\n",
    );
    let want = [
        "2: '52:54:00:01:01:02' is where the name should be -> write r01n02,52:54:00:01:01:02",
        "3: r01n03 has no hardware address -> write it after the name: r01n03,52:54:00:01:01:01",
        "4: '52:54:00:01:01:0x' is not a hardware address: 'x' is not a hex digit -> write six bytes in hex, \
         such as 52:54:00:01:01:01",
        "5: a quote is opened and not closed -> close it in the same line, or leave the quotes out: names and \
         addresses need none",
        "6: 'more' is one field too many: there are 4 columns -> several addresses or groups go into one field, \
         with spaces: r01n01,52:54:00:01:01:01 52:54:00:01:01:02,compute,gpu big",
        "7: the name is empty -> write the node's name, such as r01n01",
        "8: '52:54' is not a hardware address -> write six bytes in hex, such as 52:54:00:01:01:01",
    ];
    assert_eq!(all, want);
    assert_eq!(
        said(Format::Csv, "name,profile\nr01n01,compute\n"),
        ["1: the header has no column 'hwaddr' -> write the header as name,hwaddr or name,hwaddr,profile,groups"]
    );
    assert!(said(Format::Csv, "name,mac,hwaddr\n")[0].starts_with("1: 'hwaddr' is a second column for hwaddr"));
    assert!(
        said(Format::Csv, "name,mac,ip\nr01n01,52:54:00:01:01:01,10.5\n")[0].starts_with("2: '10.5' is not an IPv4")
    );
    assert!(said(Format::Csv, "name,hwaddr\n")[0].starts_with("0: it contains no nodes, read as csv"));
}

const DHCPD: &str = r#"# dhcpd.conf of the old head node
option domain-name "cluster.example";   # host fake { hardware ethernet 00:00:00:00:00:00; }
option vendor-text "a { brace; and \"quotes\" } # no comment";
include "/etc/dhcp/printers.conf";
class "pxe" {
  match if substring (option vendor-class-identifier, 0, 9) = "PXEClient";
}
subnet 10.5.0.0 netmask 255.255.0.0 {
  range 10.5.255.1 10.5.255.254;
  group compute {
    next-server 10.5.0.1;
    if exists user-class and option user-class = "iPXE" { filename "boot.ipxe"; } else { filename "ipxe.pxe"; }
    host r01n01 { hardware ethernet 52:54:00:01:01:01; fixed-address 10.5.1.1; }
    host "r01n02"
    {
      hardware ethernet 52:54:0:1:1:2;
      fixed-address r01n02.cluster.example;
      option host-name "r01n02";
      if known { filename "x;y}"; }
    }
  }
  host node-seventeen {
    option host-name "r01n17";
    fixed-address 10.5.1.17, 10.6.1.17;
    HARDWARE Ethernet 52:54:00:01:01:17;
  }
}
host gone { dynamic; deleted; hardware ethernet 52:54:00:01:01:01; }
"#;

#[test]
fn dhcpd_host_blocks() {
    let read = import(None, "dhcpd.conf", DHCPD).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        listed(&read),
        [
            "13 r01n01 52:54:00:01:01:01 10.5.1.1 g=compute",
            "14 r01n02 52:54:00:01:01:02 g=compute",
            "22 r01n17 52:54:00:01:01:17",
        ]
    );
    assert_eq!(
        told(&read.warnings),
        [
            "4: further hosts may be in /etc/dhcp/printers.conf, which was not read -> import that as well",
            "17: fixed-address is the name 'r01n02.cluster.example', which was not looked up -> its address will be \
             the one that follows from the node's name",
            "23: read as r01n17, because its host-name option says so; its block is called node-seventeen -> if that is \
             wrong, delete the option",
            "24: several addresses, none of which was compared with the one that follows from the name -> a node has \
             the address of its name",
            "28: left out: 1 deleted host, here first: gone -> dhcpd has deleted them",
        ]
    );
}

#[test]
fn dhcpd_problems_have_their_lines() {
    let all = said(
        Format::Dhcpd,
        r#"host r01n01 { hardware ethernet 52:54:00:01:01:01 fixed-address 10.5.1.1; }
host r01n02 { hardware ethernet 52:54:00:01:01; }
host r01n03 { hardware token-ring 52:54:00:01:01:03; }
host r01n04 { fixed-address 10.5.1.4; }
host r01n05 { hardware ethernet 52:54:00:01:01:05; fixed-address 10.5.1.500; }
host r01n06 { hardware ethernet 52:54:00:01:01:06 }
hardware ethernet 52:54:00:01:01:07;
host r01n08 { hardware ethernet 52:54:00:01:01:08;
host r01n09 { hardware ethernet 52:54:00:01:01:09; }
}
}
host { hardware ethernet 52:54:00:01:01:10; }
option x "never closed;
host r01n11 { hardware; }
subnet 10.5.0.0 netmask 255.255.0.0 {
"#,
    );
    let starts = [
        "1: 'fixed-address' belongs to no statement -> write ; before it",
        "2: '52:54:00:01:01' is not a hardware address",
        "3: 'token-ring' is not Ethernet",
        "4: host r01n04 has no hardware address -> write hardware ethernet",
        "5: '10.5.1.500' is not an IPv4 address",
        "6: a statement without its ';' -> write ; at its end, before the }",
        "7: 'hardware' outside of a host block",
        "9: a host block inside the one of r01n08 -> close the block of r01n08 with a } before it",
        "11: a } without its {",
        "12: a host block has one name -> write host r01n01 {",
        "12: 'hardware' outside of a host block",
        "13: a quote that is not closed in its line",
        "14: hardware without an address",
        "15: a block that is not closed -> write } at its end",
    ];
    assert_eq!(all.len(), starts.len(), "{all:#?}");
    for (said, start) in all.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}\n{start}");
    }
    for (hardware, start) in [
        (
            "infiniband 80:00:00:48:fe:80",
            "1: the card is InfiniBand, and rackstrap boots machines by Ethernet",
        ),
        (
            "ethernet 00:02:c9:03:00:0a:0b:0c",
            "1: '00:02:c9:03:00:0a:0b:0c' is the address of an InfiniBand port, and rackstrap boots machines by Ethernet",
        ),
    ] {
        let all = said(Format::Dhcpd, &format!("host r01n01 {{ hardware {hardware}; }}\n"));
        assert!(all.len() == 1 && all[0].starts_with(start), "{all:?}");
    }
    let deep = said(Format::Dhcpd, &"group {\n".repeat(100));
    assert!(
        deep[0].starts_with("65: blocks are nested more than 64 deep"),
        "{deep:?}"
    );
}

#[test]
fn dnsmasq_lines() {
    let read = import(
        None,
        "dnsmasq.conf",
        "# nodes\ninterface=eth1\ndhcp-range=10.5.255.1,10.5.255.250,1h\nconf-dir=/etc/dnsmasq.d/,*.conf\n\
         dhcp-host=52:54:00:01:01:01,r01n01\n\
         dhcp-host=52:54:00:01:01:02,52:54:00:01:01:12,set:gpu,10.5.1.2,r01n02,infinite\n\
         dhcp-host = id:01:52:54:00:01:01:03 , 12h, r01n03 ,52:54:00:01:01:03, tag:pxe # behind the door\n\
         --dhcp-host=01-52:54:00:01:01:04,[fd00::4],10.5.1.4,45m\n\
         dhcp-host=52:54:00:01:01:aa,ignore\n\
         dhcp-host=52:54:00:01:01:bb,set:printer\n\
         dhcp-mac=set:odd,52:54:00:01:01:cc\nread-ethers\n",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        listed(&read),
        [
            "5 r01n01 52:54:00:01:01:01",
            "6 r01n02 52:54:00:01:01:02,52:54:00:01:01:12 10.5.1.2 g=gpu",
            "7 r01n03 52:54:00:01:01:03",
            "8 r01n04 52:54:00:01:01:04 10.5.1.4",
        ]
    );
    assert_eq!(
        told(&read.warnings),
        [
            "4: further hosts may be in /etc/dnsmasq.d/,*.conf, which was not read -> import that as well",
            "9: a machine that dnsmasq ignores was left out -> if it is a node, delete ',ignore'",
            "10: left out: the line gives a machine neither a name nor an address -> if it is a node, add its name",
            "11: 'dhcp-mac' names a hardware address, and was not read -> if it is a node's, write it as dhcp-host=",
            "12: dnsmasq reads /etc/ethers too, which was not read -> import that as well: rackstrap node import \
             /etc/ethers",
        ]
    );
    let hosts = good(
        Format::Dnsmasq,
        "set:gpu,52:54:00:01:01:01,r01n01,2d\n52:54:00:01:01:02,10.5.1.2\n",
    );
    assert_eq!(
        listed(&hosts),
        [
            "1 r01n01 52:54:00:01:01:01 g=gpu",
            "2 r01n02 52:54:00:01:01:02 10.5.1.2"
        ]
    );
}

#[test]
fn dnsmasq_problems_have_their_lines() {
    let all = said(
        Format::Dnsmasq,
        "dhcp-host=52:54:00:01:01:*:*,r01n01\n\ndhcp-host=52:54:00:01:01:zz,r01n03\n\ndhcp-host=52:54:00:01:01:05,r01n05,r01n06\n\
         dhcp-host=52:54:00:01:01:07,10.5.1.7,10.5.1.8\ndhcp-hosts=52:54:00:01:01:09,r01n09\n\
         dhcp-host=52-54-00-01-01,r01n10\n",
    );
    let starts = [
        "1: '52:54:00:01:01:*:*' is not a hardware address: it has a wildcard, and a node is one machine",
        "3: '52:54:00:01:01:zz' is not a hardware address",
        "5: a second name, 'r01n06', after 'r01n05'",
        "6: a second address, 10.5.1.8, after 10.5.1.7",
        "7: 'dhcp-hosts' is not an option of dnsmasq -> write dhcp-host=",
        "8: '52-54-00-01-01' is not a hardware address: it has 5 bytes, and needs 6",
    ];
    assert_eq!(all.len(), starts.len(), "{all:#?}");
    for (said, start) in all.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}\n{start}");
    }
}

#[test]
fn ethers_lines() {
    let read = import(
        None,
        "/etc/ethers",
        "# ethers(5)\n\n52:54:00:01:01:01\tr01n01\n8:0:20:1:2:3  10.5.1.2# a Sun\n  52:54:00:01:01:03 r01n03   # x y\n",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        listed(&read),
        [
            "3 r01n01 52:54:00:01:01:01",
            "4 r01n02 08:00:20:01:02:03 10.5.1.2",
            "5 r01n03 52:54:00:01:01:03",
        ]
    );
    assert_eq!(
        said(
            Format::Ethers,
            "r01n01 52:54:00:01:01:01\n52:54:00:01:01:02\n52:54:00:01:01 r01n03\n"
        ),
        [
            "1: 'r01n01' is where the hardware address should be -> write 52:54:00:01:01:01 r01n01",
            "2: a hardware address without a name -> write whose it is: 52:54:00:01:01:02 r01n01",
            "3: '52:54:00:01:01' is not a hardware address: it has 5 bytes, and needs 6 -> write six bytes in \
             hex, such as 52:54:00:01:01:01",
        ]
    );
}
