//! Files of administrators that were once read wrongly, or refused with unclear messages.

use super::*;

fn with_ports(map: &str, text: &str) -> Result<Import, ImportError> {
    let naming = naming();
    let options = Options {
        format: None,
        naming: &naming,
        domain: "cluster.example",
        ports: Some(Ports {
            file: "ports",
            text: map,
        }),
    };
    read("table", text, &options)
}

const AVAYA: &str = "   MAC Address    Vid   Type       Source    \n\
----------------- ---- ------- -------------- \n\
52-54-00-03-01-01   15 Dynamic Port:47\n\
52-54-00-03-01-02   15 Dynamic Port: 7\n";

#[test]
fn the_port_is_the_number_after_port() {
    let named = with_ports("{n} = r03n{n:02}\nPort:{p} = r04n{p:02}\n", AVAYA).unwrap();
    assert_eq!(
        listed(&named),
        ["3 r04n47 52:54:00:03:01:01", "4 r04n07 52:54:00:03:01:02"]
    );
    // In a map of plain numbers, these are the ports and never the VLAN.
    let plain = with_ports("{n} = r03n{n:02}\n", AVAYA).unwrap();
    assert_eq!(
        listed(&plain),
        ["3 r03n47 52:54:00:03:01:01", "4 r03n07 52:54:00:03:01:02"]
    );
}

#[test]
fn the_port_may_precede_the_address() {
    let zyxel = "Port      VLAN ID    MAC Address         Type\n\
                 2         1          52:54:00:03:01:01   Dynamic\n\
                 3         1          52:54:00:03:01:02   Dynamic\n";
    let read = with_ports("{p} = r03n{p:02}\n", zyxel).unwrap();
    assert_eq!(
        listed(&read),
        ["2 r03n02 52:54:00:03:01:01", "3 r03n03 52:54:00:03:01:02"]
    );
    let vlan_first = "VLAN Port MAC Type\n1 2 52:54:00:03:01:01 Dynamic\n";
    let read = with_ports("{p} = r03n{p:02}\n", vlan_first).unwrap();
    assert_eq!(listed(&read), ["2 r03n02 52:54:00:03:01:01"]);
}

#[test]
fn a_number_that_may_be_a_vlan_is_not_taken_for_a_port() {
    for text in [
        "52:54:00:03:01:01 15 Dynamic\n",
        "MAC Address Vid Type Source\n52:54:00:03:01:01 15 Dynamic 3\n",
    ] {
        let error = with_ports("{p} = r03n{p:02}\n", text).unwrap_err();
        let said = told(&error.problems);
        assert!(
            said[0].contains("a line has a number that may be a port or a VLAN, here first"),
            "{said:?}"
        );
    }
}

#[test]
fn the_journal_of_dhcpd_is_read_as_dhcpd_does() {
    let journal = "lease 10.5.255.3 {\n  starts 4 2026/11/26 10:00:00;\n  hardware ethernet 52:54:00:09:01:01;\n\
                   \x20 on expiry { set x = \"y\"; }\n}\n\
                   lease 10.5.255.4 {\n  hardware ethernet 52:54:00:09:01:02;\n}\n\
                   host r01n09 {\n  dynamic;\n  hardware ethernet 52:54:00:01:01:09;\n  fixed-address 10.5.1.9;\n}\n\
                   host r01n10 {\n  dynamic;\n  hardware ethernet 52:54:00:01:01:10;\n  fixed-address 10.5.1.10;\n}\n\
                   host r01n11 {\n  dynamic;\n  hardware ethernet 52:54:00:01:01:11;\n}\n\
                   host r01n10 {\n  dynamic;\n  deleted;\n}\n\
                   host r01n11 {\n  dynamic;\n  hardware ethernet 52:54:00:01:01:99;\n}\n";
    let read = import(None, "dhcpd.leases", journal).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        listed(&read),
        ["9 r01n09 52:54:00:01:01:09 10.5.1.9", "27 r01n11 52:54:00:01:01:99"]
    );
    let said = told(&read.warnings);
    assert!(said[0].starts_with("1: left out: 2 leases, here first"), "{said:?}");
    assert!(
        said[1].starts_with("23: left out: 1 deleted host, here first: r01n10"),
        "{said:?}"
    );
    assert_eq!(said.len(), 2);
    // A host that was added again after its deletion exists.
    let again =
        "host r01n10 {\n dynamic;\n deleted;\n}\nhost r01n10 {\n dynamic;\n hardware ethernet 52:54:00:01:01:10;\n}\n";
    assert_eq!(listed(&good(Format::Dhcpd, again)), ["5 r01n10 52:54:00:01:01:10"]);
}

#[test]
fn several_hosts_of_a_node_are_its_cards() {
    let two = "subnet 10.5.0.0 netmask 255.255.0.0 {\n\
      host r01n01-eth0 { hardware ethernet 52:54:00:01:01:01; fixed-address 10.5.1.1; option host-name \"r01n01\"; }\n\
      host r01n01-eth1 { hardware ethernet 52:54:00:01:01:81; fixed-address 10.5.1.1; option host-name \"r01n01\"; }\n}\n";
    let read = import(None, "dhcpd.conf", two).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(listed(&read), ["2 r01n01 52:54:00:01:01:01,52:54:00:01:01:81 10.5.1.1"]);
    let said = told(&read.warnings).join("\n");
    assert!(
        said.contains("1 entry is another card of a node above it, here first: r01n01"),
        "{said}"
    );
    // Two addresses mean two machines with one name.
    let error = import(None, "dhcpd.conf", &two.replacen("10.5.1.1;", "10.5.1.2;", 1)).unwrap_err();
    assert!(error.to_string().contains("r01n01 is on line 2 already"), "{error}");
    // What `export ethers` writes for a node with two cards.
    let ethers = "52:54:00:01:01:01 r01n01\n52:54:00:01:01:81 r01n01\n";
    assert_eq!(
        listed(&good(Format::Ethers, ethers)),
        ["1 r01n01 52:54:00:01:01:01,52:54:00:01:01:81"]
    );
}

const DNSMASQ: &str = "dhcp-host=52:54:00:01:01:01,10.5.1.1,r01n01.cluster.example,infinite\n\
dhcp-host=id:ff:00:01,r01n04,10.5.1.4\n\
dhcp-host=id:*,52:54:00:01:01:05,r01n05,10.5.1.5,set:a,set:b,tag:!c,45m\n\
dhcp-host=52:54:00:01:*:*,set:wild,ignore\n\
dhcp-host=52:54:00:02:*:*,set:wild\n\
dhcp-host=06-00:20:e0:3b:13:af,r01n07,10.5.1.7\n\
dhcp-host=r01n09,10.5.1.9\n\
dhcp-host=52:54:00:01:01:0a,10.5.1.10\n";

#[test]
fn lines_of_dnsmasq_without_a_machine_are_ignored() {
    let read = import(None, "dnsmasq.conf", DNSMASQ).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        listed(&read),
        [
            "1 r01n01 52:54:00:01:01:01 10.5.1.1",
            "3 r01n05 52:54:00:01:01:05 10.5.1.5 g=a+b",
            "8 r01n10 52:54:00:01:01:0a 10.5.1.10",
        ]
    );
    let said = told(&read.warnings);
    let lines: Vec<&str> = said.iter().filter_map(|said| said.split(':').next()).collect();
    assert_eq!(lines, ["2", "4", "5", "6", "7"], "{said:#?}");
}

#[test]
fn some_nodes_can_be_read_of_a_file_with_faults_elsewhere() {
    let text = "name,hwaddr\nr01n01,52:54:00:01:01:01\nr01n02,52:54:00:01:01:0g\n52:54:00:01:01:03,r01n03\n\
                r01n04,52:54:00:01:01:04\nr01n04,52:54:00:01:01:05\n";
    let naming = naming();
    let options = Options {
        format: Some(Format::Csv),
        naming: &naming,
        domain: "",
        ports: None,
    };
    let only = |wanted: &str| {
        read_some("nodes.csv", text, &options)
            .unwrap()
            .only(|name| name == wanted)
    };
    let (read, passed_over) = only("r01n01").unwrap();
    assert_eq!(listed(&read), ["2 r01n01 52:54:00:01:01:01"]);
    assert_eq!(passed_over.len(), 3);
    for (wanted, line) in [("r01n02", "3:"), ("r01n04", "6:")] {
        let said = told(&only(wanted).unwrap_err().problems);
        assert!(said.len() == 1 && said[0].starts_with(line), "{said:?}");
    }
    let reading = read_some("nodes.csv", text, &options).unwrap();
    let names: Vec<&str> = reading.names().collect();
    assert_eq!(names, ["r01n01", "r01n02", "r01n04", "r01n04"]);
    assert_eq!(reading.all().unwrap_err().problems.len(), 3);
    // Blocks of several lines.
    let blocks =
        "host r01n01 {\n hardware ethernet 52:54:00:01:01:01;\n}\nhost r01n02 {\n hardware ethernet 52:54;\n}\n";
    let options = Options {
        format: Some(Format::Dhcpd),
        ..options
    };
    let only = |wanted: &str| {
        read_some("dhcpd.conf", blocks, &options)
            .unwrap()
            .only(|name| name == wanted)
    };
    assert_eq!(listed(&only("r01n01").unwrap().0), ["1 r01n01 52:54:00:01:01:01"]);
    assert!(only("r01n02").is_err());
}
