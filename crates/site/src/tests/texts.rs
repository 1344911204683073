//! The site file's documentation in docs/reference/site-file.md and in the example agrees with the code.

use super::*;

const REFERENCE: &str = include_str!("../../../../docs/reference/site-file.md");

/// What a file with these lines means; none if it is invalid.
fn meaning(text: &str) -> Option<String> {
    // The value that holds if no profile has one is defined by the decision about nodes.
    let site = check(text).ok().map(|(site, _)| format!("{site:?}"))?;
    Some(site.replace("check_login: Some(true)", "check_login: None"))
}

/// The `key = value` of a line, also of one that is commented out.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    plain.then_some((key, value))
}

#[test]
fn commented_lines_of_the_example_are_defaults_or_marked_examples() {
    const MARK: &str = "  # an example";
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    // The example with these of its lines active.
    let with = |chosen: &[usize]| {
        let shown = lines.iter().enumerate().map(|(at, line)| match chosen.contains(&at) {
            true => line.strip_prefix("# ").unwrap_or(line),
            false => line,
        });
        shown.collect::<Vec<_>>().join("\n") + "\n[profile.compute]\n"
    };
    let mut defaults = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("# ")) {
        let Some((key, _)) = setting(line) else { continue };
        let header = |line: &&str| line.strip_prefix("# ").unwrap_or(line).starts_with('[');
        let section = lines[..at].iter().rposition(header).unwrap();
        if lines[section].contains("[dns]") && cfg!(not(feature = "dns")) {
            continue;
        }
        // If a section is commented out as a whole, it needs some of its keys.
        let mut base = vec![section];
        if lines[section].starts_with("# ") {
            let required = |line: &str| {
                setting(line).is_some_and(|(key, _)| {
                    [
                        "what",
                        "where",
                        "type",
                        "uid",
                        "file",
                        "arch",
                        "node-name",
                        "node-address",
                        "match",
                        "prefix",
                    ]
                    .contains(&key)
                        || key == "name" && lines[section].contains("[[network]]")
                })
            };
            let end = lines[section..]
                .iter()
                .position(|line| line.is_empty())
                .map_or(lines.len(), |end| section + end);
            base.extend((section..end).filter(|at| required(lines[*at])));
        }
        // The range of the first pattern leaves addresses for a further one.
        if lines[section].contains("[[cluster.naming]]") {
            base.extend(lines.iter().position(|line| line.starts_with("# range = ")));
        }
        let before = meaning(&with(&base)).unwrap_or_else(|| panic!("{key}: {}", check(&with(&base)).unwrap_err()));
        let same = !base.contains(&at) && meaning(&with(&[&base[..], &[at]].concat())) == Some(before);
        assert_eq!(same, !line.ends_with(MARK), "{line}");
        defaults += usize::from(same);
    }
    assert!(defaults >= 5, "{defaults}");
}

#[test]
fn the_defaults_in_the_reference_are_those_of_the_code() {
    let small = SMALL
        .lines()
        .filter(|line| !line.starts_with("reserved"))
        .collect::<Vec<_>>()
        .join("\n");
    let below = |section: &str| format!("{small}\n{section}\nKEY\n");
    let layout = "[layout.s]\nversion = 1\nKEY\n[[layout.s.partition]]\nname = \"a\"\nsize = \"rest\"\nfs = \"raw\"";
    let mut section = None;
    let mut compared = 0;
    for line in REFERENCE.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            section = title.split('`').nth(1).filter(|title| title.starts_with('['));
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let (Some(title), [keys, default, _, ..]) = (section, &cells[..]) else {
            continue;
        };
        let value = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let Some(value) = value.filter(|value| !value.contains('`')) else {
            continue;
        };
        let text = match title {
            "[cluster]" => small.replace("[cluster]", "[cluster]\nKEY"),
            "[[subnet]]" => format!("{small}\nKEY\n"),
            "[layout.NAME]" => format!("{small}\n{layout}\n"),
            "[[mount]]" => below("[[mount]]\nwhat = \"10.5.0.2:/home\"\nwhere = \"/home\"\ntype = \"nfs\""),
            "[users]" => below("[users]\nuid = \"1000-1999\""),
            "[dns]" if cfg!(not(feature = "dns")) => continue,
            "[dns]" => below("[dns]").replace("[cluster]", "[cluster]\ndomain = \"cluster.example\""),
            plain => below(plain),
        };
        let without = meaning(&text.replace("KEY\n", "")).unwrap_or_else(|| panic!("{title}"));
        for key in keys.split('`').skip(1).step_by(2) {
            let with = meaning(&text.replace("KEY", &format!("{key} = {value}")));
            assert_eq!(with.as_ref(), Some(&without), "{title} {key} = {value}");
            compared += 1;
        }
    }
    assert!(compared >= 30, "only {compared} were found");
}

#[test]
fn every_key_is_in_the_reference() {
    let mut keys_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut section = "";
    for line in REFERENCE.lines() {
        if line.starts_with('#') {
            section = line.split('`').nth(1).unwrap_or_default();
        }
        // A row describes one key, or several similar ones.
        if let Some(cell) = line.strip_prefix("| ").and_then(|row| row.split(" | ").next()) {
            let keys = keys_of.entry(section).or_default();
            keys.extend(cell.split('`').skip(1).step_by(2));
        }
    }
    for (title, known) in crate::section::KEYS {
        let said = keys_of.get(title).map(Vec::as_slice).unwrap_or_default();
        // Partitions and further patterns are tables of their own.
        for key in known.iter().filter(|key| !["partition", "naming"].contains(key)) {
            assert!(
                said.contains(key),
                "docs/reference/site-file.md does not say {title} {key}"
            );
        }
    }
}

#[test]
fn all_texts_agree_on_where_a_partition_may_be_mounted() {
    let words = |text: &str| {
        text.replace("\n# ", " ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let rule = layout::MAY_BE_MOUNTED;
    for (name, text) in [("docs/reference/site-file.md", REFERENCE), ("the example", EXAMPLE)] {
        assert!(words(text).contains(rule), "{name} does not say: {rule}");
    }
    let (refused, allowed) = rule.split_once(';').unwrap();
    let places = |text: &str| {
        let words = text
            .split([' ', ','])
            .filter(|word| word.len() > 1 && word.starts_with('/'));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let said = |place: &str| {
        said(&format!(
            "{SMALL}\n[layout.s]\nversion = 1\n[[layout.s.partition]]\nname = \"a\"\nsize = \"rest\"\nfs = \"ext4\"\nmount = \"{place}\"\n\
             [profile.default]\nlayout = \"s\"\n"
        ))
    };
    let refused = places(refused);
    assert_eq!(refused.len(), 12);
    assert!(said("/").contains(rule));
    for place in &refused {
        assert!(
            said(place).contains(rule) && said(&format!("{place}/x")).contains(rule),
            "{place}"
        );
    }
    let others = [
        "/tmp", "/var", "/var/tmp", "/opt", "/srv", "/home", "/root", "/scratch", "/boot",
    ]
    .map(str::to_owned);
    for place in places(allowed).into_iter().chain(others) {
        assert_eq!(
            (said(&place), said(&format!("{place}/x"))),
            ("ok".to_owned(), "ok".to_owned()),
            "{place}"
        );
    }
}

#[test]
fn a_name_that_is_almost_default_is_warned_of() {
    for near in ["defualt", "defaults", "default2", "dfault", "defautl"] {
        let text = said(&format!("{SMALL}\n[profile.{near}]\nimage = \"debian\"\n"));
        let warning = format!("[profile.{near}] is only for nodes that name it; all nodes have [profile.default]\n");
        assert!(
            text.contains(&warning) && text.contains("= did you mean [profile.default]?"),
            "{text}"
        );
    }
    for other in ["gpu", "fault-finding", "compute"] {
        assert_eq!(said(&format!("{SMALL}\n[profile.{other}]\nimage = \"debian\"\n")), "ok");
    }
    // If [profile.default] exists, a name that extends it is intended.
    assert_eq!(said(&format!("{SMALL}\n[profile.default]\n[profile.default2]\n")), "ok");
    assert!(said(&format!("{SMALL}\n[profile.default]\n[profile.defualt]\n")).contains("did you mean"));

    let layout = |name: &str| {
        format!("[layout.{name}]\nversion = 1\npartition = [{{ name = \"a\", size = \"rest\", fs = \"raw\" }}]\n")
    };
    let text = said(&format!(
        "{SMALL}\n{}{}[profile.default]\nlayout = \"scratch\"\n",
        layout("scratch"),
        layout("scrath")
    ));
    assert!(
        text.contains(
            "= did you mean [layout.scratch], which a profile uses? else write layout = \"scrath\" in a profile"
        ),
        "{text}"
    );
}
