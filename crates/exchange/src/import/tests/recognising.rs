//! Tests of how the format of a file is found.

use super::*;

fn format(file: &str, text: &str) -> Result<Format, Vec<String>> {
    match import(None, file, text) {
        Ok(import) => Ok(import.format),
        Err(error) => Err(told(&error.problems)),
    }
}

#[test]
fn each_format_by_its_content() {
    for (text, want) in [
        (
            "# ours\n[node.r01n01]\nhwaddrs = [\"52:54:00:01:01:01\"]\n",
            Format::Toml,
        ),
        ("node.r01n01.hwaddr = \"52:54:00:01:01:01\"\n", Format::Toml),
        ("r01n01,52:54:00:01:01:01\n", Format::Csv),
        ("hwaddr;name\n52:54:00:01:01:01;r01n01\n", Format::Csv),
        ("MAC address,Name\n52:54:00:01:01:01,r01n01\n", Format::Csv),
        ("r01n01\t52:54:00:01:01:01\n", Format::Csv),
        (
            "option x;\nhost r01n01 {\n  hardware ethernet 52:54:00:01:01:01;\n}\n",
            Format::Dhcpd,
        ),
        ("host r01n01 { hardware ethernet 52:54:00:01:01:01; }", Format::Dhcpd),
        ("interface=eth0\ndhcp-host=52:54:00:01:01:01,r01n01\n", Format::Dnsmasq),
        ("52:54:00:01:01:01,r01n01,infinite\n", Format::Dnsmasq),
        (
            "52:54:00:01:01:01 r01n01 # first\n8:0:20:1:2:3\tr01n02\n",
            Format::Ethers,
        ),
        ("\u{feff}r01n01,52:54:00:01:01:01\n", Format::Csv),
    ] {
        assert_eq!(format("nodes", text), Ok(want), "{text}");
        assert_eq!(format("/tmp/nodes.txt", text), Ok(want), "{text}");
    }
    // A switch's table alone does not show which node is on which port.
    let table = "   1    5254.0001.0101    DYNAMIC     Gi1/0/1\n   1    5254.0001.0102    DYNAMIC     Gi1/0/2\n";
    let said = format("paste", table).unwrap_err();
    assert!(
        said[0].contains("give a port map with lines such as: Gi1/0/[1-32] = r03n[01-32]"),
        "{said:?}"
    );
}

#[test]
fn a_few_faulty_lines_do_not_change_the_format() {
    let mut text: String = (1..9).map(|i| format!("52:54:00:01:01:0{i} r01n0{i}\n")).collect();
    text.push_str("52:54:00:01:01:09 r01n09 spare\n");
    assert_eq!(
        format("macs", &text).unwrap_err(),
        ["9: 'spare' is one word too many -> a line is a hardware address and one name or address"]
    );
}

#[test]
fn an_unclear_format_is_asked_for() {
    let ways = "name its format with --type toml|csv|dhcpd|dnsmasq|ethers|switch|warewulf|xcat|grendel|netbox|kea|json";
    let said = format("nodes", "hello\n").unwrap_err();
    assert!(
        said[0].starts_with("0: this looks like none of the formats") && said[0].ends_with(ways),
        "{said:?}"
    );
    assert_eq!(
        format(
            "nodes",
            "52:54:00:01:01:01 r01n01\nr01n02,52:54:00:01:01:02\nr01n03,52:54:00:01:01:03\n"
        )
        .unwrap_err(),
        [
            format!("1: 1 line looks like ethers, this one first -> {ways}"),
            format!("2: 2 lines look like csv, this one first -> {ways}"),
        ]
    );
    assert_eq!(
        format("nodes.toml", "\nr01n02,52:54:00:01:01:02\n").unwrap_err(),
        [format!(
            "2: the file is called as if it were toml, and this line looks like csv -> {ways}"
        )]
    );
    let both = "dhcp-host=52:54:00:01:01:01,r01n01\nhost r01n01 { hardware ethernet 52:54:00:01:01:01; }\n";
    assert_eq!(format("nodes", both).unwrap_err().len(), 2);
}

#[test]
fn the_name_decides_if_the_content_is_unclear() {
    let said = |file: &str| format(file, "nothing here\n").unwrap_err().join("\n");
    assert!(said("nodes.toml").contains("this is not TOML"));
    assert!(said("/etc/ethers").contains("'nothing' is not a hardware address"));
    assert!(said("/etc/dhcp/dhcpd.conf").contains("a statement without its ';'"));
    assert!(said("dnsmasq.conf").contains("it contains no nodes, read as dnsmasq"));
    assert!(said("NODES.CSV").contains("has no hardware address"));
}

#[test]
fn formats_have_names() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
        assert_eq!(serde_json::to_value(format).unwrap(), format.name());
    }
    assert_eq!(
        "yaml".parse::<Format>().unwrap_err(),
        "'yaml' is not a format; available: toml, csv, dhcpd, dnsmasq, ethers, switch, warewulf, xcat, grendel, netbox, kea, json"
    );
}

#[test]
fn a_port_map_is_for_a_switch() {
    let naming = naming();
    let options = Options {
        format: Some(Format::Csv),
        naming: &naming,
        domain: "",
        ports: Some(Ports {
            file: "ports",
            text: "Gi1/0/1 = r01n01",
        }),
    };
    let error = read("nodes", "r01n01,52:54:00:01:01:01", &options).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a port map is for a switch's MAC table, and this was said to be csv")
    );
}
