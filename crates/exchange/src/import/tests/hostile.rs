//! Tests with long files that are made to take much time: work that grows with the square of the length would not end.

use super::*;

/// A file of a quarter of the largest size.
fn filled(line: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for i in 0.. {
        let line = line(i);
        if text.len() + line.len() > FILE_BYTES / 4 {
            break;
        }
        text.push_str(&line);
    }
    text
}

fn hwaddr(i: usize) -> String {
    format!("52:54:00:{:02x}:{:02x}:{:02x}", i >> 16 & 255, i >> 8 & 255, i & 255)
}

fn refused(format: Format, map: Option<&str>, text: &str) -> ImportError {
    let naming = naming();
    let options = Options {
        format: Some(format),
        naming: &naming,
        domain: "cluster.example",
        ports: map.map(|text| Ports { file: "ports", text }),
    };
    read("nodes", text, &options).unwrap_err()
}

#[test]
fn tables_in_tables() {
    let dotted = format!("{}b", "a.".repeat(LINE_BYTES / 2 - 4));
    let inline = format!("x = {}1{}", "{a = ".repeat(1500), "}".repeat(600));
    let arrays = format!("x = {}", "[".repeat(8000));
    for text in [
        format!("[{dotted}]\n{} = 1\n", dotted),
        format!("node.{} = 1", &dotted[10..]),
        inline,
        arrays,
    ] {
        assert!(!refused(Format::Toml, None, &text).problems.is_empty());
    }
    let again = filled(|i| match i % 2 {
        0 => format!("[node.\"r{i}\"]\n"),
        _ => format!("[node.r{i}.x]\n"),
    });
    refused(Format::Toml, None, &again);
    refused(Format::Toml, None, &filled(|i| format!("node.r{i}.hwaddr=1\n")));
}

#[test]
fn everything_on_one_port() {
    let text = filled(|i| format!("1 {} DYNAMIC Gi1/0/1\n", hwaddr(i)));
    let error = refused(Format::Switch, Some("Gi1/0/1 = r01n01\n"), &text);
    assert!(error.problems[0].message.contains("an uplink?"), "{error}");
}

#[test]
fn port_maps_without_end() {
    let text = "1 52:54:00:00:00:01 DYNAMIC Gi1/0/1\n";
    let ranges = filled(|_| "a[1-65536]=b[1-65536]\n".into());
    let error = refused(Format::Switch, Some(&ranges), text);
    assert!(
        error
            .problems
            .iter()
            .any(|p| p.message.contains("more than 65536 ports or 64 lines")),
        "{error}"
    );
    let patterns = filled(|i| format!("a{{a}}x{i}={{a}}\n"));
    let error = refused(Format::Switch, Some(&patterns), text);
    assert_eq!(error.problems[0].line, 65, "{error}");
    let long = format!("{}[1-60000] = n[1-60000]\n", "x".repeat(4000));
    assert!(
        refused(Format::Switch, Some(&long), text).problems[0]
            .message
            .contains("longer than 200 bytes")
    );
}

#[test]
fn quotes_without_end() {
    let quotes = filled(|_| format!("{}\n", "\"a\"\"b\",".repeat(1000)));
    assert!(!refused(Format::Csv, None, &quotes).problems.is_empty());
    let short = filled(|_| "\"a\",b\n".into());
    assert!(refused(Format::Csv, None, &short).omitted > 10_000);
}

#[test]
fn words_without_end() {
    let words = filled(|_| format!("{}\n", "Gi1/0/1,".repeat(1000)));
    for format in [Format::Dnsmasq, Format::Ethers, Format::Dhcpd] {
        assert!(!refused(format, None, &words).problems.is_empty());
    }
}

#[test]
fn hosts_without_end() {
    let hosts = filled(|i| {
        format!(
            "host n{i} {{ hardware ethernet {}; option host-name \"x{i}\"; ",
            hwaddr(i)
        )
    });
    assert!(!refused(Format::Dhcpd, None, &hosts).problems.is_empty());
}

#[test]
fn ports_without_end() {
    let macs = filled(|i| format!("{} {}\n", hwaddr(i), "Gi1/0/1,Gi1/0/2 ".repeat(400)));
    assert!(
        !refused(Format::Switch, Some("Gi1/0/{n} = r{n}\n"), &macs)
            .problems
            .is_empty()
    );
}
