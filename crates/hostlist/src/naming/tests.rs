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
        ("node{n+1}", "10.5.1.{n}"),
        ("node{n}", "10.5.1.{n*2}"),
        ("node{n}", "10.5.1.{n+}"),
        ("node{n}", "10.5.1.{n+1+2}"),
        ("node{n}", "10.5.1.{n+99999999}"),
        ("node{n}", "10.5.1.{n+20/256}"),
        ("node{n}", "10.5.{n/1}.{n%1}"),
        ("node{n}", "10.5.1.{n/256}"),
        ("node{n}", "10.5.1.{n%250+1}"),
        ("node{n}", "10.5.{n/250}.{n%251}"),
        ("node{n}", "10.5.{n/250}.{(n+1)%250}"),
        ("node{n}", "10.5.{n/256}.{n%256+1}"),
        ("node{n}", "10.5.{n}.{n%250}"),
        ("node{n}", "10.{n}.{n/250}.{n%250}"),
        ("r{a}n{b}", "{a/250}.{a%250}.{b/250}.{b%250}"),
        ("node{n}", "10.5.1.{n+255}"),
        ("node{n}", "10.5.1.{0-n}"),
        ("rack{n:03}{r:03}", "10.{r}.{n/256}.{n%256}"),
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
            let pattern = match &e.pattern {
                PatternKind::Name => name,
                PatternKind::Address => address,
                PatternKind::Range(variable) => variable,
            };
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
                prop_assert_eq!(naming.position(&made).unwrap().len(), naming.patterns()[0].variables().len());
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

/// The pattern with one range.
fn ranged(name: &str, address: &str, variable: &str, range: std::ops::RangeInclusive<u32>) -> Pattern {
    Pattern::new(name, address, &[(variable, range)]).unwrap_or_else(|errors| panic!("{name} {address}: {errors:?}"))
}

/// The naming of one pattern.
fn alone(pattern: Pattern) -> Naming {
    Naming::of(vec![pattern]).unwrap()
}

#[test]
fn names_and_addresses_of_existing_clusters() {
    for (name, address, range, pairs) in [
        (
            "node{n}",
            "10.10.1.{n+20}",
            1..=60,
            &[("node1", [10, 10, 1, 21]), ("node60", [10, 10, 1, 80])][..],
        ),
        (
            "c{n:02}",
            "10.0.0.{n-100}",
            101..=150,
            &[("c101", [10, 0, 0, 1]), ("c150", [10, 0, 0, 50])],
        ),
        (
            "node{n}",
            "10.1.1.{n+10}",
            0..=63,
            &[("node0", [10, 1, 1, 10]), ("node63", [10, 1, 1, 73])],
        ),
        (
            "n{n:03}",
            "10.1.1.{254-n}",
            1..=100,
            &[("n001", [10, 1, 1, 253]), ("n100", [10, 1, 1, 154])],
        ),
        (
            "node{n:04}",
            "10.5.{n/256}.{n%256}",
            1..=1000,
            &[
                ("node0001", [10, 5, 0, 1]),
                ("node0256", [10, 5, 1, 0]),
                ("node1000", [10, 5, 3, 232]),
            ],
        ),
        (
            "node{n}",
            "10.5.{(n-1)/254+1}.{(n-1)%254+1}",
            1..=1024,
            &[
                ("node1", [10, 5, 1, 1]),
                ("node254", [10, 5, 1, 254]),
                ("node255", [10, 5, 2, 1]),
            ],
        ),
        (
            "gpu-{n}",
            "10.5.{(1000-n)/250}.{(1000-n)%250+1}",
            0..=1000,
            &[
                ("gpu-0", [10, 5, 4, 1]),
                ("gpu-1000", [10, 5, 0, 1]),
                ("gpu-1", [10, 5, 3, 250]),
            ],
        ),
    ] {
        let variable = "n";
        let naming = alone(ranged(name, address, variable, range.clone()));
        for (one, at) in pairs {
            assert_eq!(naming.name_to_address(one), Ok((*at).into()), "{name} {address}");
        }
        let mut seen = std::collections::HashSet::new();
        for number in range.clone() {
            let one = naming.patterns()[0].format(&[number]);
            let at = naming.name_to_address(&one).unwrap();
            assert!(seen.insert(at), "{at} twice");
            assert_eq!(naming.address_to_name(at), Some(one));
        }
        let (first, last) = (range.start().checked_sub(1), range.end() + 1);
        for outside in first.into_iter().chain([last]) {
            let one = naming.patterns()[0].format(&[outside]);
            assert!(naming.name_to_address(&one).is_err(), "{one}");
        }
        let whole = net("0.0.0.0/0");
        assert_eq!(naming.first_address(whole, &[]), seen.iter().min().copied());
    }
}

#[test]
fn the_default_range_is_what_has_an_address() {
    let range = |address: &str| {
        let naming = Naming::new("node{n}", address).unwrap();
        let variable = &naming.patterns()[0].variables()[0];
        (variable.min, variable.max)
    };
    assert_eq!(range("10.5.1.{n}"), (1, 254));
    assert_eq!(range("10.5.{n}.7"), (1, 255));
    assert_eq!(range("10.5.1.{n+20}"), (1, 234));
    assert_eq!(range("10.5.1.{n-5}"), (6, 259));
    assert_eq!(range("10.5.1.{255-n}"), (1, 254));
    assert_eq!(range("10.5.{n/256}.{n%256}"), (1, 65_535));
    assert_eq!(range("10.5.{n/250+10}.{n%250+1}"), (1, 61_499));
}

#[test]
fn says_what_is_wrong_with_the_ranges() {
    let mut all = String::new();
    for (address, ranges) in [
        ("10.5.1.{n}", vec![("n", 0..=9)]),
        ("10.5.1.{n}", vec![("n", 1..=255)]),
        ("10.5.1.{n+20}", vec![("n", 1..=235)]),
        ("10.5.1.{100-n}", vec![("n", 1..=100)]),
        ("10.5.{n/256}.{n%256}", vec![("n", 1..=65_536)]),
        ("10.5.1.{n}", vec![("m", 1..=2)]),
        ("10.5.1.{n}", vec![("n", 1..=2), ("n", 3..=4)]),
    ] {
        let errors = Pattern::new("node{n}", address, &ranges).expect_err(address);
        all.push_str(&format!("{address} {ranges:?}\n"));
        for e in errors {
            assert!(matches!(e.pattern, PatternKind::Range(_)));
            all.push_str(&format!("  {}\n  {}\n", e.message, e.help));
        }
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(all) });
}

#[test]
fn several_kinds_of_names_in_one_site() {
    let naming = Naming::of(vec![
        ranged("node-{n}", "10.5.1.{n}", "n", 1..=100),
        ranged("gpu-{n}", "10.5.1.{n+200}", "n", 0..=7),
        ranged("r{rack:02}n{slot:02}", "10.5.{rack}.{slot}", "rack", 2..=9),
    ])
    .unwrap();
    for (name, address) in [
        ("node-100", [10, 5, 1, 100]),
        ("gpu-0", [10, 5, 1, 200]),
        ("r09n254", [10, 5, 9, 254]),
    ] {
        assert_eq!(naming.name_to_address(name), Ok(address.into()));
        assert_eq!(naming.address_to_name(address.into()).as_deref(), Some(name));
    }
    assert_eq!(naming.address_to_name([10, 5, 1, 150].into()), None);
    assert_eq!(
        naming.first_address(net("10.5.1.128/25"), &[]),
        Some([10, 5, 1, 200].into())
    );
    let say = |name: &str| naming.name_to_address(name).unwrap_err().to_string();
    let follow = "names follow node-{n} or gpu-{n} or r{rack:02}n{slot:02}";
    assert_eq!(
        say("gpu-8"),
        "'gpu-8' is not a node name here: n is 8, and goes from 0 to 7"
    );
    assert_eq!(
        say("gpu-07"),
        format!("'gpu-07' is not a node name here: {follow}; did you mean gpu-7?")
    );
    assert_eq!(
        say("master"),
        format!("'master' is not a node name here: {follow}, such as node-1")
    );
    // Racks: the text before the only number tells the patterns apart.
    assert_eq!((naming.rack_of("gpu-3"), naming.rack_of("r02n07")), ("gpu-", "r02"));
    assert_eq!(naming.position_in("gpu-", None).unwrap(), "gpu-0");
    assert_eq!(naming.position_in("node-", None).unwrap(), "node-1");
    assert_eq!(naming.position_in("r02", None).unwrap(), "r02n01");
    assert!(naming.position_in("r01", None).is_err(), "racks begin at 2");
    assert!(naming.position_in("", None).is_err());
    assert_eq!(
        (naming.after("gpu-6").as_deref(), naming.after("gpu-7")),
        (Some("gpu-7"), None)
    );
    assert_eq!(naming.example_racks(), "node- or gpu- or r02");
    // One row of names with two ranges of addresses is one rack.
    let halves = Naming::of(vec![
        ranged("c{n}", "10.5.1.{n}", "n", 1..=50),
        ranged("c{n}", "10.5.9.{n}", "n", 51..=60),
    ])
    .unwrap();
    assert_eq!(
        (halves.after("c50").as_deref(), halves.after("c60")),
        (Some("c51"), None)
    );
    assert_eq!(halves.position_in("c", None).unwrap(), "c1");
}

#[test]
fn patterns_that_share_a_name_or_an_address_are_refused() {
    let mut all = String::new();
    for (one, other) in [
        (
            ranged("node{n}", "10.5.1.{n}", "n", 1..=50),
            ranged("gpu{n}", "10.5.1.{n+40}", "n", 1..=8),
        ),
        (
            ranged("node{n}", "10.5.1.{n}", "n", 1..=50),
            ranged("node{n:02}", "10.5.2.{n}", "n", 50..=60),
        ),
        (
            ranged("n{n}", "10.5.1.{n}", "n", 1..=20),
            ranged("n1{m:03}", "10.5.2.{m}", "m", 1..=9),
        ),
        (
            ranged("n{n}", "10.5.0.{n-1000}", "n", 1001..=1020),
            ranged("n1{m:03}", "10.5.2.{m}", "m", 9..=9),
        ),
        (
            ranged("n{n}", "10.5.{n/256}.{n%256}", "n", 1..=300),
            ranged("g{n}", "10.5.1.{n+40}", "n", 1..=9),
        ),
    ] {
        match Naming::of(vec![one, other]) {
            Ok(naming) => all.push_str(&format!("{} apart\n", naming.name_pattern())),
            Err(clashes) => clashes
                .iter()
                .for_each(|clash| all.push_str(&format!("{}: {}\n", clash.kind, clash.message))),
        }
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(all) });
}

/// One pattern of the kinds that meet often: short names, few addresses.
fn small_patterns() -> impl Strategy<Value = Pattern> {
    let name = prop::sample::select(vec![
        "a{n}", "a{n:02}", "a{n:03}", "a1{n:03}", "a{n:03}1", "a{n}b", "a0{n:03}", "a{n:04}",
    ]);
    let address = prop::sample::select(vec![
        "10.0.0.{n}",
        "10.0.0.{n+9}",
        "10.0.0.{n+100}",
        "10.0.0.{150-n}",
        "10.0.{n/16}.{n%16}",
        "10.0.{(n+5)/16}.{(n+5)%16+3}",
        "10.0.{n%16}.{n/16}",
        "10.0.{(130-n)/32}.{(130-n)%32}",
    ]);
    (name, address, 0u32..120, 0u32..120).prop_filter_map("no such range", |(name, address, from, length)| {
        Pattern::new(name, address, &[("n", from..=from + length / 4)]).ok()
    })
}

/// All names of a pattern with one variable, with their addresses.
fn all_of(pattern: &Pattern) -> Vec<(String, Ipv4Addr)> {
    let variable = &pattern.variables()[0];
    let naming = alone(pattern.clone());
    let name = |number| pattern.format(&[number]);
    let numbers = variable.min..=variable.max;
    numbers
        .map(|number| (name(number), naming.name_to_address(&name(number)).unwrap()))
        .collect()
}

proptest! {
    /// Patterns are refused if and only if they share a name or an address.
    #[test]
    fn two_patterns_are_apart_if_and_only_if_their_names_and_addresses_are(one in small_patterns(), other in small_patterns()) {
        let (a, b) = (all_of(&one), all_of(&other));
        let names = a.iter().any(|(name, _)| b.iter().any(|(other, _)| name == other));
        let addresses = a.iter().any(|(_, at)| b.iter().any(|(_, other)| at == other));
        match Naming::of(vec![one, other]) {
            Ok(naming) => {
                prop_assert!(!names && !addresses);
                for (name, at) in a.iter().chain(&b) {
                    prop_assert_eq!(naming.name_to_address(name), Ok(*at));
                    let back = naming.address_to_name(*at);
                    prop_assert_eq!(back.as_ref(), Some(name));
                }
            }
            Err(clashes) => {
                let of = |kind: PatternKind| clashes.iter().any(|clash| clash.kind == kind);
                prop_assert_eq!((of(PatternKind::Name), of(PatternKind::Address)), (names, addresses), "{:?}", clashes);
            }
        }
    }

    /// What arithmetic is accepted converts both ways, over its whole range.
    #[test]
    fn accepted_arithmetic_converts_both_ways(
        scaled in "n|\\(n[+-][0-9]{1,3}\\)|\\([0-9]{2,4}-n\\)", divisor in 2u32..=256, added in [0u32..20, 0..20],
        swap: bool, from in 0u32..2000, length in 0u32..3000,
    ) {
        let quotient = format!("{{{scaled}/{divisor}+{}}}", added[0]);
        let remainder = format!("{{{scaled}%{divisor}+{}}}", added[1]);
        let (third, fourth) = if swap { (&remainder, &quotient) } else { (&quotient, &remainder) };
        let address = format!("10.5.{third}.{fourth}");
        if let Ok(pattern) = Pattern::new("x{n}", &address, &[("n", from..=from + length)]) {
            let mut seen = std::collections::HashSet::new();
            for (name, at) in all_of(&pattern) {
                prop_assert!(seen.insert(at), "{} {}", address, at);
                prop_assert_eq!(pattern.address_to_name(at), Some(name));
            }
            let lowest = pattern.first_address(net("0.0.0.0/0"), &[]);
            prop_assert_eq!(lowest, seen.iter().min().copied());
            for other in (0..=255u8).flat_map(|c| (0..=255u8).map(move |d| Ipv4Addr::new(10, 5, c, d))).step_by(7) {
                prop_assert_eq!(pattern.address_to_name(other).is_some(), seen.contains(&other), "{}", other);
            }
        }
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
