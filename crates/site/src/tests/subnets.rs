//! `dhcp` of `[[subnet]]`, and what it excludes.

use super::*;
use rackstrap_base::subnet::DhcpPart;

/// The small file with further lines in its subnet.
fn with(lines: &str) -> String {
    SMALL.replace("server = \"10.5.0.1\"\n", &format!("server = \"10.5.0.1\"\n{lines}\n"))
}

#[test]
fn each_part_of_dhcp_is_read() {
    for part in DhcpPart::ALL {
        let (site, warnings) = check(&with(&format!("dhcp = \"{part}\""))).unwrap();
        assert_eq!((site.subnets[0].dhcp, warnings.len()), (part, 0));
    }
    assert_eq!(check(SMALL).unwrap().0.subnets[0].dhcp, DhcpPart::Full);
}

#[test]
fn another_word_is_refused_with_the_ones_that_exist() {
    assert!(said(&with("dhcp = \"proxi\"")).contains("did you mean dhcp = \"proxy\"?"));
    let text = said(&with("dhcp = \"relay-agent\""));
    assert!(
        text.contains("'relay-agent' is not a part of DHCP") && text.contains("write \"full\": the daemon gives"),
        "{text}"
    );
    let text = said(&with("dhcp = false"));
    assert!(text.contains("dhcp"), "{text}");
    assert_ne!(text, "ok");
}

#[test]
fn settings_of_a_server_of_addresses_are_refused_or_have_no_effect() {
    for part in ["proxy", "off"] {
        let text = said(&with(&format!("dhcp = \"{part}\"\npool = \"10.5.255.1-10.5.255.254\"")));
        let why =
            format!("with dhcp = \"{part}\" unknown machines get no address from rackstrap, so 'pool' cannot be used");
        assert!(text.contains(&why) && text.contains("remove the pool"), "{text}");
        for key in ["lease-time", "pool-lease-time"] {
            let text = said(&with(&format!("dhcp = \"{part}\"\n{key} = \"5m\"")));
            assert!(text.contains(&format!("so '{key}' has no effect")), "{text}");
        }
    }
}

/// The small file as a VLAN on eth1.5, beside the untagged network with these lines.
fn vlan(lines: &str) -> String {
    let tagged = with("vlan = 5").replace("\"eth1\"", "\"eth1.5\"");
    format!("{tagged}\n[[subnet]]\nnetwork = \"10.4.0.0/16\"\nserver = \"10.4.0.1\"\n{lines}\n")
}

#[test]
fn a_vlan_has_an_interface_of_its_own_and_an_untagged_subnet_that_starts_its_nodes() {
    let pool = "interface = \"eth1\"\npool = \"10.4.255.1-10.4.255.254\"";
    assert_eq!(said(&vlan(pool)), "ok");
    let site = site(&vlan(pool));
    assert_eq!((site.subnets[0].vlan, site.subnets[1].vlan), (Some(5), None));
    assert!(!site.subnets[0].starts_untagged() && site.subnets[1].starts_untagged());

    for lines in ["interface = \"eth1\"", "interface = \"eth1\"\ndhcp = \"proxy\""] {
        let text = said(&vlan(lines));
        let why = "nodes of 10.5.0.0/16 start only if their firmware itself sets the tag of VLAN 5";
        assert!(
            text.starts_with("warning: ") && text.contains(why) && text.ends_with("ok"),
            "{text}"
        );
    }
    let text = said(&vlan(&pool.replace("eth1", "eth1.5")));
    assert!(
        text.contains("10.5.0.0/16 and 10.4.0.0/16 share the interface eth1.5, and are not in the same VLAN"),
        "{text}"
    );
    assert!(
        text.contains("ip link add link eth1.5 name eth1.5.5 type vlan id 5"),
        "{text}"
    );
    for (line, why) in [
        ("vlan = 0", "vlan = 0 is out of range"),
        ("vlan = 4095", "vlan = 4095 is out of range"),
        ("vlan = \"5\"", "'vlan' is a whole number, not a string"),
    ] {
        assert!(said(&with(line)).contains(why), "{}", said(&with(line)));
    }
}

#[test]
fn subnets_of_one_interface_have_the_same_server_of_addresses() {
    let second = |interface: &str, dhcp: &str| {
        format!(
            "{}\n[[subnet]]\nnetwork = \"10.6.0.0/16\"\n{interface}\nserver = \"10.6.0.1\"\ndhcp = \"{dhcp}\"\n",
            with("dhcp = \"proxy\"")
        )
    };
    let same = SMALL.lines().find(|line| line.starts_with("interface")).unwrap();
    for other in ["full", "off"] {
        let text = said(&second(same, other));
        let why = format!(
            "10.5.0.0/16 and 10.6.0.0/16 share an interface, and one has dhcp = \"proxy\", the other dhcp = \"{other}\""
        );
        assert!(text.contains(&why), "{text}");
        assert!(!said(&second("interface = \"eth7\"", other)).contains("share an interface"));
    }
    assert!(!said(&second(same, "proxy")).contains("share an interface"));
}

#[test]
fn next_server_is_the_address_of_this_server_and_stated_only_of_another_dhcp_server() {
    for part in ["proxy", "off"] {
        let stated = |address: &str| with(&format!("dhcp = \"{part}\"\nnext-server = \"{address}\""));
        let (site, warnings) = check(&stated("10.5.0.1")).unwrap();
        assert_eq!((site.subnets[0].next_server, warnings.len()), (true, 0));
        let (site, _) = check(&with(&format!("dhcp = \"{part}\""))).unwrap();
        assert!(!site.subnets[0].next_server);
        let text = said(&stated("10.5.0.9"));
        assert!(
            text.contains("10.5.0.9 is not the server 10.5.0.1")
                && text.contains("set next-server to 10.5.0.1 in your DHCP server"),
            "{text}"
        );
        let text = said(&stated("10.5.0"));
        assert!(text.contains("'10.5.0'"), "{text}");
    }
    let text = said(&with("next-server = \"10.5.0.1\""));
    assert!(text.contains("so 'next-server' cannot be used"), "{text}");
}
