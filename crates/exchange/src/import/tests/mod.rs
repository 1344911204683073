//! Tests of imports: the entries read from each format, and the refusals.

mod cases;
mod comparing;
mod formats;
mod hostile;
mod programs;
mod properties;
mod recognising;
mod shapes;
mod switches;

use super::*;
use rackstrap_wire::HwAddr;

fn naming() -> Naming {
    Naming::new("r{rack:02}n{slot:02}", "10.5.{rack}.{slot}").unwrap()
}

/// What can be read of `text` as `format`, or in the format that is found.
fn reading(format: Option<Format>, file: &str, text: &str) -> Result<Reading, ImportError> {
    let naming = naming();
    let options = Options {
        format,
        naming: &naming,
        domain: "cluster.example",
        ports: None,
    };
    read_some(file, text, &options)
}

/// The same for a text without problems.
fn import(format: Option<Format>, file: &str, text: &str) -> Result<Import, ImportError> {
    reading(format, file, text)?.all()
}

fn good(format: Format, text: &str) -> Import {
    import(Some(format), "nodes", text).unwrap_or_else(|error| panic!("{error}"))
}

/// All problems of a faulty file, each as `line: message -> help`.
fn said(format: Format, text: &str) -> Vec<String> {
    match import(Some(format), "nodes", text) {
        Ok(import) => panic!("{import:?}"),
        Err(error) => told(&error.problems),
    }
}

fn told(diagnostics: &[Diagnostic]) -> Vec<String> {
    let tell = |d: &Diagnostic| format!("{}: {} -> {}", d.line, d.message, d.help);
    diagnostics.iter().map(tell).collect()
}

/// Each entry as `line name hwaddrs ipaddr profiles groups`, without missing values.
fn listed(import: &Import) -> Vec<String> {
    let list = |(label, all): (&str, &Option<Vec<String>>)| match all {
        Some(all) => format!(" {label}={}", all.join("+")),
        None => String::new(),
    };
    let one = |entry: &Entry| {
        let hwaddrs: Vec<String> = entry.hwaddrs.iter().map(ToString::to_string).collect();
        let ipaddr = entry.ipaddr.map(|ipaddr| format!(" {ipaddr}")).unwrap_or_default();
        let (profiles, groups) = (list(("p", &entry.profiles)), list(("g", &entry.groups)));
        format!(
            "{} {} {}{ipaddr}{profiles}{groups}",
            entry.line,
            entry.name,
            hwaddrs.join(",")
        )
    };
    import.entries.iter().map(one).collect()
}

fn mac(text: &str) -> HwAddr {
    text.parse().unwrap()
}

#[test]
fn every_notation_of_a_hardware_address() {
    let want = mac("52:54:00:0a:cd:ef");
    for text in [
        "52:54:00:0A:cd:ef",
        "52-54-00-0a-cd-ef",
        "5254.000a.cdef",
        "5254-000a-cdef",
        "525400-0acdef",
        "5254000acdef",
        "52:54:0:a:cd:ef",
    ] {
        assert_eq!(super::mac::hwaddr(text), Some(want), "{text}");
    }
    for text in [
        "",
        "52:54",
        "52-54:00:0a:cd:ef",
        "525400-0acdeg",
        "5254.000a",
        "52:54:00:0a:cd:",
        "::::::",
        "52.54.00.0a.cd.ef",
        "é2:54:00:ab:cd:e",
    ] {
        assert_eq!(super::mac::hwaddr(text), None, "{text}");
    }
    assert_eq!(super::mac::in_table("202611210433"), None);
    assert_eq!(
        super::mac::wrong("52:54:00:01:01"),
        "'52:54:00:01:01' is not a hardware address: it has 5 bytes, and needs 6"
    );
    assert!(super::mac::wrong("52:54:0O:01:01:01").ends_with("it has the letter O for a zero"));
    assert!(super::mac::wrong("52:54:00:*:*:*").contains("wildcard"));
}

#[test]
fn one_faulty_line_among_five_hundred_prevents_the_import_and_is_named() {
    let mut rows: Vec<String> = (0..500)
        .map(|i| {
            format!(
                "r{:02}n{:02},52:54:00:00:{:02x}:{:02x}",
                i / 50 + 1,
                i % 50 + 1,
                i / 256,
                i % 256
            )
        })
        .collect();
    assert_eq!(good(Format::Csv, &rows.join("\n")).entries.len(), 500);
    rows[320] = "r07n21,52:54:00:00:01:4g".into();
    let error = import(None, "nodes.csv", &rows.join("\r\n")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nodes.csv:321:8: '52:54:00:00:01:4g' is not a hardware address: 'g' is not a hex digit\n    |\n321 | \
         r07n21,52:54:00:00:01:4g\n    |        ^^^^^^^^^^^^^^^^^\n\
         \x20   = write six bytes in hex, such as 52:54:00:01:01:01\n\n\
         nodes.csv: 1 problem; nothing was imported"
    );
}

#[test]
fn all_faulty_lines_are_reported_at_once_up_to_a_limit() {
    let error = import(Some(Format::Ethers), "ethers", &"52:54:00:00:00:01\n".repeat(1500)).unwrap_err();
    assert_eq!((error.problems.len(), error.omitted), (1000, 500));
    assert!(
        error
            .to_string()
            .ends_with("ethers: 1500 problems, 500 not shown; nothing was imported")
    );
}

#[test]
fn names_and_cards_occur_once() {
    let all = said(
        Format::Csv,
        "r01n01,52:54:00:00:00:01\nr01n01,52:54:00:00:00:02\nr01n03,52:54:00:00:00:01\n",
    );
    assert!(
        all[0].starts_with("2: r01n01 is on line 1 already -> name each node once;"),
        "{all:?}"
    );
    assert_eq!(
        all[1],
        "3: hwaddr 52:54:00:00:00:01 is on line 1 already, as r01n01's -> a card is in one machine: check which of \
         the two has it"
    );
    assert_eq!(all.len(), 2);
}

#[test]
fn names_come_with_the_domain_and_from_addresses() {
    let read = good(
        Format::Ethers,
        "52:54:00:00:00:01 r01n01.cluster.example\n52:54:00:00:00:02 10.5.1.2\n52:54:00:00:00:03 r01n03.example",
    );
    assert_eq!(
        listed(&read),
        [
            "1 r01n01 52:54:00:00:00:01",
            "2 r01n02 52:54:00:00:00:02 10.5.1.2",
            "3 r01n03.example 52:54:00:00:00:03"
        ]
    );
    assert_eq!(
        said(Format::Ethers, "52:54:00:00:00:02 192.168.1.2"),
        [
            "1: 192.168.1.2 is not a node's address here: addresses follow 10.5.{rack}.{slot} -> write a name, such as \
          r01n01, or delete the line if it is not a node"
        ]
    );
}

#[test]
fn everything_is_bounded() {
    let say = |text: &str| said(Format::Ethers, text).join("\n");
    let big = "#".repeat(FILE_BYTES + 1);
    assert_eq!(
        say(&big),
        "0: the file is 4194305 bytes long; at most 4194304 are read -> split it into several files, and import one \
         after the other"
    );
    let long = format!("52:54:00:00:00:01 r01n01\n{}\n", "x".repeat(LINE_BYTES + 1));
    assert_eq!(
        say(&long),
        "2: the line is 8193 bytes long; at most 8192 are read -> is this the right file? A node is described in a \
         line or a few"
    );
    let many: String = (0..=ENTRIES)
        .map(|i| format!("52:54:0:{:x}:{:x}:{:x} n{i}\n", i >> 16, i >> 8 & 255, i & 255))
        .collect();
    assert_eq!(
        say(&many),
        "0: 65537 nodes in one file; at most 65536 are read -> split it into several files, and import one after the \
         other"
    );
    let most = many.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(good(Format::Ethers, &most).entries.len(), ENTRIES);
}

#[test]
fn control_characters_of_the_file_do_not_reach_the_terminal() {
    let error = import(Some(Format::Ethers), "a\u{1b}[2Jb", "\u{1b}[31m52:54 r01\u{202e}n01\n").unwrap_err();
    let text = error.to_string();
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
}
