//! `[[cluster.naming]]` and `range`.

use super::*;

/// A site with these lines instead of the pattern in [`SMALL`].
fn with(lines: &str) -> String {
    let rest = SMALL
        .lines()
        .filter(|line| !line.starts_with("node-") && !line.starts_with("reserved"));
    let rest: Vec<&str> = rest.collect();
    rest.join("\n")
        .replace("[cluster]", "[cluster]\nreserved = [\"10.5.0.0/24\"]\nLINES")
        .replace("LINES", lines)
        + "\n"
}

/// Sections for such patterns.
fn patterns(all: &[(&str, &str, &str)]) -> String {
    let sections = all.iter().map(|(name, address, range)| {
        let range = if range.is_empty() {
            String::new()
        } else {
            format!("range = {range}\n")
        };
        format!("[[cluster.naming]]\nnode-name = \"{name}\"\nnode-address = \"{address}\"\n{range}")
    });
    sections.collect()
}

#[test]
fn a_site_has_several_patterns() {
    let site = site(&with(&patterns(&[
        ("node-{n}", "10.5.1.{n}", "{ n = \"1-100\" }"),
        ("gpu-{n}", "10.5.1.{n+200}", "{ n = \"0-7\" }"),
        ("big{n:04}", "10.5.{n/250+2}.{n%250+1}", "{ n = \"1-2000\" }"),
    ])));
    for (name, address) in [
        ("node-100", "10.5.1.100"),
        ("gpu-0", "10.5.1.200"),
        ("big2000", "10.5.10.1"),
    ] {
        assert_eq!(site.address_of(name).unwrap().to_string(), address);
    }
    assert!(site.address_of("gpu-8").is_err());
    // With the pattern of [cluster] itself.
    let lines =
        "node-name = \"r{rack:02}n{slot:02}\"\nnode-address = \"10.5.{rack}.{slot}\"\nrange = { rack = \"2-9\" }\n";
    let both = self::site(&with(&format!(
        "{lines}{}",
        patterns(&[("node0", "10.5.1.{n}", "")].map(|(_, a, r)| ("node{n}", a, r)))
    )));
    let patterns: Vec<&str> = both
        .cluster
        .naming
        .patterns()
        .iter()
        .map(|p| p.name_pattern())
        .collect();
    assert_eq!(patterns, ["r{rack:02}n{slot:02}", "node{n}"]);
}

#[test]
fn says_what_is_wrong_with_several_patterns() {
    let mut all = String::new();
    let one = ("node{n}", "10.5.1.{n}", "{ n = \"1-50\" }");
    let many: Vec<_> = (0..16)
        .map(|i| (format!("x{i}n{{n}}"), format!("10.5.{}.{{n}}", i + 1)))
        .collect();
    let many: Vec<(&str, &str, &str)> = many
        .iter()
        .map(|(name, address)| (name.as_str(), address.as_str(), ""))
        .collect();
    for lines in [
        String::new(),
        "range = { n = \"1-5\" }\n".to_owned(),
        "naming = []\n".to_owned(),
        "naming = 3\n".to_owned(),
        "naming = [3]\n".to_owned(),
        "[cluster.naming]\nnode-name = \"n{n}\"\n".to_owned(),
        patterns(&[one, ("gpu{n}", "10.5.1.{n+40}", "{ n = \"1-9\" }")]),
        patterns(&[one, ("node{n:02}", "10.5.2.{n}", "")]),
        patterns(&[("node{n}", "10.5.1.{n}", "{ n = \"0-5\" }")]),
        patterns(&[("node{n}", "10.5.1.{n}", "{ m = \"1-5\" }")]),
        patterns(&[("node{n}", "10.5.1.{n}", "{ n = \"5-1\" }")]),
        patterns(&[("node{n}", "10.5.1.{n}", "{ n = 5 }")]),
        patterns(&[("node{n}", "10.5.1.{n}", "\"1-5\"")]),
        patterns(&[("node{n}", "10.5.1.{n}", "{ n = \"1-99999999\" }")]),
        patterns(&[("node{n}", "10.5.1.{n*2}", "")]),
        patterns(&[one, ("far{n}", "10.9.1.{n}", "")]),
        patterns(&[one, ("near{n}", "10.5.0.{n}", "")]),
        patterns(&[one, ("wide{n}", "10.{n}.7.1", "")]),
        patterns(&many),
    ] {
        all.push_str(&format!("{}\n{}\n\n", lines.trim_end(), said(&with(&lines))));
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(all) });
}
