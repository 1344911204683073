use super::*;
use proptest::prelude::*;

fn racks() -> Naming {
    Naming::new("r{rack:02}n{slot:02}", "10.5.{rack}.{slot}").unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn racks_and_slots() {
    let naming = racks();
    assert_eq!(naming.name_to_address("r01n03"), Ok(Ipv4Addr::new(10, 5, 1, 3)));
    assert_eq!(naming.name_to_address("r255n254"), Ok(Ipv4Addr::new(10, 5, 255, 254)));
    assert_eq!(
        naming.address_to_name(Ipv4Addr::new(10, 5, 1, 3)).as_deref(),
        Some("r01n03")
    );
    for outside in [[10, 5, 0, 1], [10, 5, 1, 0], [10, 5, 1, 255], [10, 6, 1, 3]] {
        assert_eq!(naming.address_to_name(outside.into()), None, "{outside:?}");
    }
    assert_eq!(naming.position("r100n07"), Some(vec![("rack", 100), ("slot", 7)]));
    assert_eq!(naming.position("r1n7"), None);
    assert_eq!(naming.example(), "r01n01");
}

#[test]
fn names_and_addresses_convert_both_ways_for_other_patterns() {
    for (name, address, one, at) in [
        ("node{n:03}", "10.5.1.{n}", "node007", [10, 5, 1, 7]),
        ("node{n}", "192.168.7.{n}", "node254", [192, 168, 7, 254]),
        ("n{n:04}x", "10.{n}.0.1", "n0255x", [10, 255, 0, 1]),
        ("r{rack:03}{slot:03}", "10.5.{rack}.{slot}", "r001254", [10, 5, 1, 254]),
        (
            "{slot:02}-{rack:02}-c{row}",
            "10.{row}.{rack}.{slot}",
            "03-09-c12",
            [10, 12, 9, 3],
        ),
        ("b{b:03}7", "10.0.0.{b}", "b0127", [10, 0, 0, 12]),
    ] {
        let naming = Naming::new(name, address).unwrap();
        assert_eq!(naming.name_to_address(one), Ok(at.into()), "{name}");
        assert_eq!(naming.address_to_name(at.into()).as_deref(), Some(one), "{name}");
    }
}

#[test]
fn says_what_is_wrong_with_a_name() {
    let naming = racks();
    let say = |name: &str| naming.name_to_address(name).unwrap_err().to_string();
    let follow = "is not a node name here: names follow r{rack:02}n{slot:02}";
    assert_eq!(say("r1n3"), format!("'r1n3' {follow}; did you mean r01n03?"));
    assert_eq!(say("r001n03"), format!("'r001n03' {follow}; did you mean r01n03?"));
    assert_eq!(say("R01N03"), format!("'R01N03' {follow}; did you mean r01n03?"));
    assert_eq!(
        say("r01n03.cluster.example"),
        format!("'r01n03.cluster.example' {follow}; did you mean r01n03?")
    );
    assert_eq!(say(""), format!("'' {follow}, such as r01n01"));
    assert_eq!(say("node3"), format!("'node3' {follow}, such as r01n01"));
    assert_eq!(
        say("r01n03\n\u{1b}[2J"),
        format!("'r01n03\\n\\u{{1b}}[2J' {follow}, such as r01n01")
    );
    assert_eq!(
        say("r00n03"),
        "'r00n03' is not a node name here: rack is 0, and goes from 1 to 255"
    );
    assert_eq!(
        say("r01n255"),
        "'r01n255' is not a node name here: slot is 255, and goes from 1 to 254"
    );
    assert_eq!(
        say(&"r".repeat(500)),
        format!("'{}…' {follow}, such as r01n01", "r".repeat(64))
    );
    assert_eq!(
        say("r01n99999999999999999999"),
        format!("'r01n99999999999999999999' {follow}, such as r01n01")
    );
}

#[test]
fn says_what_is_wrong_with_the_patterns() {
    let mut all = String::new();
    for (name, address) in [
        ("r{rack}{slot}", "10.5.{rack}.{slot}"),
        ("r{rack:02}1n{slot}", "10.5.{rack}.{slot}"),
        ("r{rack}n{slot}", "10.5.1.{slot}"),
        ("n{slot}", "10.5.{rack}.{slot}"),
        ("n{slot}s{slot}", "10.5.1.{slot}"),
        ("node", "10.5.1.1"),
        ("node{n:04}", "10.5.{n/250}.{n%250+1}"),
        ("Node{n}", "10.5.1.{n}"),
        ("node{n}.site", "10.5.1.{n}"),
        ("node_{n}", "10.5.1.{n}"),
        ("-n{n}", "10.5.1.{n}"),
        ("{a}-{b}", "10.5.{a}.{b}"),
        ("n{n", "10.5.1.{n}"),
        ("n}{n}", "10.5.1.{n}"),
        ("n{n:2}", "10.5.1.{n}"),
        ("n{N}", "10.5.1.{n}"),
        ("n{n}", "10.5.1.{n:02}"),
        ("n{n}", "10.5.1{n}.1"),
        ("n{n}", "10.5.{n}"),
        ("n{n}", "10.05.300.{n}"),
        ("n{n}", "10.5.{n}.0"),
        (
            "averyveryveryveryveryveryveryveryveryveryveryverylongprefix{n:05}",
            "10.5.1.{n}",
        ),
    ] {
        let errors = Naming::new(name, address).expect_err(name);
        for e in errors {
            let pattern = if e.pattern == PatternKind::Name { name } else { address };
            all.push_str(&format!(
                "{pattern}\n{}{}\n",
                " ".repeat(e.at.start),
                "^".repeat(e.at.len().max(1))
            ));
            all.push_str(&format!("  {}\n  {}\n\n", e.message, e.help));
        }
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(all) });
}

#[test]
fn finds_the_first_free_address() {
    let naming = racks();
    let world = net("0.0.0.0/0");
    let at = |a, b, c, d| Some(Ipv4Addr::new(a, b, c, d));
    assert_eq!(naming.first_address(world, &[]), at(10, 5, 1, 1));
    assert_eq!(naming.first_address(world, &[net("10.5.0.0/16")]), None);
    assert_eq!(naming.first_address(world, &[net("10.5.0.0/22")]), at(10, 5, 4, 1));
    assert_eq!(
        naming.first_address(net("10.5.255.0/24"), &[net("10.5.255.0/24")]),
        None
    );
    assert_eq!(
        naming.first_address(net("10.5.255.0/24"), &[net("10.5.255.0/25")]),
        at(10, 5, 255, 128)
    );
    assert_eq!(naming.first_address(net("10.5.0.0/24"), &[]), None);
    assert_eq!(naming.first_address(world, &[net("10.5.1.1/32")]), at(10, 5, 1, 2));
}

#[test]
fn every_position_converts_both_ways() {
    let naming = racks();
    let mut seen = std::collections::HashSet::new();
    for (rack, slot) in (0..=255).flat_map(|rack| (0..=255).map(move |slot| (rack, slot))) {
        let address = Ipv4Addr::new(10, 5, rack, slot);
        let valid = rack >= 1 && (1..=254).contains(&slot);
        let Some(name) = naming.address_to_name(address) else {
            assert!(!valid, "{address}");
            continue;
        };
        assert!(valid, "{address}");
        assert_eq!(naming.name_to_address(&name), Ok(address));
        assert!(seen.insert(name));
    }
    assert_eq!(seen.len(), 255 * 254);
}

proptest! {
    /// Patterns that are accepted at all are bijective, whatever they look like.
    #[test]
    fn accepted_patterns_convert_both_ways(
        name in "(-|[a-c]{0,2}|[0-9]|\\{(a|b|c)(:0[1-5])?\\}){1,6}",
        order in Just(vec!["{a}", "{b}", "{c}", "10"]).prop_shuffle(),
        bytes in any::<[[u8; 4]; 8]>(),
    ) {
        let octets: Vec<&str> = order.iter().map(|o| if name.contains(&o[..o.len() - 1]) || *o == "10" { *o } else { "7" }).collect();
        if let Ok(naming) = Naming::new(&name, &octets.join(".")) {
            for four in bytes {
                let mut address = four;
                for (i, octet) in octets.iter().enumerate() {
                    if let Ok(fixed) = octet.parse() { address[i] = fixed; }
                }
                let Some(made) = naming.address_to_name(address.into()) else { continue };
                prop_assert_eq!(naming.name_to_address(&made), Ok(address.into()), "{}", made);
                prop_assert!(made.len() <= 63);
                prop_assert_eq!(naming.position(&made).unwrap().len(), naming.variables().len());
            }
        }
    }

    /// A text that is taken for a name is the very name of its address.
    #[test]
    fn one_spelling_only(name in "[rR]?[0-9]{0,4}n[0-9]{0,4}|.{0,80}") {
        let naming = racks();
        match naming.name_to_address(&name) {
            Ok(address) => prop_assert_eq!(naming.address_to_name(address), Some(name)),
            Err(NamingError::Spelling { canonical, .. }) => prop_assert!(naming.name_to_address(&canonical).is_ok()),
            Err(e) => prop_assert!(e.to_string().len() < 2000),
        }
    }

    #[test]
    fn no_pattern_panics(name in ".{0,250}", address in "[0-9.{}a-z:%/]{0,40}|.{0,40}") {
        let _ = Naming::new(&name, &address);
        let _ = Naming::new(&name, "10.5.{rack}.{slot}");
        let _ = Naming::new("r{rack}n{slot}", &address);
    }

    /// The search by networks finds what a search by addresses finds.
    #[test]
    fn first_address_is_the_first(
        prefix in 22u8..=32, third in 0u8..8, fourth: u8,
        holes in prop::collection::vec((22u8..=32, 0u8..8, any::<u8>()), 0..4),
    ) {
        let naming = racks();
        let made = |p, c, d| Ipv4Net::new(Ipv4Addr::new(10, 5, c, d), p).unwrap().trunc();
        let within = made(prefix, third, fourth);
        let except: Vec<_> = holes.into_iter().map(|(p, c, d)| made(p, c, d)).collect();
        let slow = (u32::from(within.network())..=u32::from(within.broadcast()))
            .map(Ipv4Addr::from)
            .find(|a| naming.address_to_name(*a).is_some() && !except.iter().any(|e| e.contains(a)));
        prop_assert_eq!(naming.first_address(within, &except), slow);
    }
}

#[test]
fn racks_are_filled_in_order() {
    let naming = Naming::new("r{rack:02}n{slot:02}", "10.5.{rack}.{slot}").unwrap();
    assert_eq!(naming.position_in("r03", None).unwrap(), "r03n01");
    assert_eq!(naming.position_in("r03", Some("n07")).unwrap(), "r03n07");
    assert!(naming.position_in("r03", Some("07")).is_err());
    assert!(naming.position_in("r3", None).is_err());
    assert_eq!(naming.rack_of("r03n07"), "r03");
    assert_eq!(naming.after("r03n09").unwrap(), "r03n10");
    assert_eq!(naming.after("r03n99").unwrap(), "r03n100");
    assert_eq!(naming.after("r03n254"), None);
    // One variable is one long rack.
    let flat = Naming::new("node{n:03}", "10.5.1.{n}").unwrap();
    assert_eq!(flat.position_in("", None).unwrap(), "node001");
    assert_eq!(
        (flat.rack_of("node017"), flat.after("node017").unwrap().as_str()),
        ("", "node018")
    );
    let suffixed = Naming::new("c{rack}-{slot:02}-ib", "10.{rack}.0.{slot}").unwrap();
    assert_eq!(suffixed.position_in("c12", None).unwrap(), "c12-01-ib");
    assert_eq!(suffixed.rack_of("c12-03-ib"), "c12");
    assert_eq!(suffixed.after("c12-03-ib").unwrap(), "c12-04-ib");
}
