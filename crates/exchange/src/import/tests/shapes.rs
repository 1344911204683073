//! The same files as other editors and programs write them: with a byte order mark, with CR LF, in one line; and damaged.

use super::*;

const CASES: [(Format, &str); 4] = [
    (
        Format::Warewulf,
        include_str!("../../../../../tests/cases/31-warewulf-nodes.conf"),
    ),
    (
        Format::Xcat,
        include_str!("../../../../../tests/cases/31-xcat-tables.csv"),
    ),
    (
        Format::Grendel,
        include_str!("../../../../../tests/cases/31-grendel-hosts.json"),
    ),
    (Format::Netbox, include_str!("../../../../../tests/cases/31-netbox.csv")),
];

/// What is read, without the places.
fn content(text: &str) -> Vec<Entry> {
    let read = import(None, "-", text).unwrap_or_else(|error| panic!("{error}"));
    let plain = |entry: Entry| Entry {
        line: 0,
        places: Places::default(),
        ..entry
    };
    read.entries.into_iter().map(plain).collect()
}

#[test]
fn a_byte_order_mark_and_cr_lf_change_nothing() {
    for (format, text) in CASES {
        let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(content(&windows), content(text), "{format}");
    }
}

#[test]
fn json_in_one_line_is_the_same() {
    let (_, text) = CASES[2];
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let line = value.to_string();
    // Of a whole cluster it is longer than any line of the other formats.
    let many = format!("[{}{}", " ".repeat(2 * LINE_BYTES), &line[1..]);
    assert_eq!(content(&many), content(text));
}

#[test]
fn a_text_with_nul_bytes_is_refused_with_the_likely_reason() {
    for (format, text) in CASES {
        let wide: String = text.chars().flat_map(|c| [c, '\0']).collect();
        for (format, text, line) in [
            (None, &wide, 1),
            (Some(format), &format!("{text}\0"), text.lines().count() + 1),
        ] {
            let said = told(&import(format, "-", text).unwrap_err().problems);
            assert_eq!(said.len(), 1);
            let want = format!("{line}: a NUL byte: this is no text -> save the file as UTF-8");
            assert!(said[0].starts_with(&want), "{want}: {said:?}");
        }
    }
}

/// A file that was cut, by a full disk or a broken copy, is read as a shorter one or refused; never as other nodes.
#[test]
fn a_file_that_was_cut_has_no_other_nodes() {
    for (format, text) in CASES {
        // The flag that disables r01n03 is at the end of its row.
        let mut whole = vec!["r01n03".to_owned()];
        whole.extend(content(text).into_iter().map(|entry| entry.name));
        for at in (0..text.len()).step_by(5).filter(|at| text.is_char_boundary(*at)) {
            let Ok(read) = import(Some(format), "-", &text[..at]) else {
                continue;
            };
            for entry in &read.entries {
                let known = whole.iter().any(|name| name.starts_with(&entry.name));
                assert!(known, "{format} at {at}: {}", entry.name);
            }
        }
    }
}
