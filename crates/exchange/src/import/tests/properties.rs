//! Properties: any input leads to an answer with its reasons, and never to a panic.

use super::*;
use proptest::prelude::*;

/// Parts of all formats, so that random texts get past the first line.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "[node.", "[node", "]", "hwaddrs = [", "hwaddr = \"", "\"", "'", "\"\"\"", "= {", "groups", "ipaddr",
            "host ", "group x ", "{", "}", ";", "hardware ethernet ", "fixed-address ", "option host-name ", "include ",
            "dhcp-host=", "--dhcp-host=", "set:a", "id:", "ignore", "infinite", "12h", "[fd00::1]", "01-",
            "read-ethers",
            ",", "|", "\t", " ", "\n", "\r\n", "#", "\\", "name,hwaddr\n", "dev ", "permanent",
            "Vlan Mac Address Ports\n",
            "nodes:\n  ", "    hwaddr: ", "network devices:", "tags: ", "&a ", "*a", "- ", "? ", ": ", "#node,interface,mac,comments,disable\n",
            "#node,ip,hostnames,otherinterfaces,comments,disable\n", "Device,Name,MAC Address\n", "[{\"name\": \"", "\", \"interfaces\": [{\"mac\": \"",
            "{\"Dhcp4\": {\"reservations\": [{\"hw-address\": \"", "{\"nodes\": [", "\"}]}]", "}]}}", "/*", "*/",
            "Gi1/0/1", "ge-0/0/1.0", "A1", "1/1/1", "Te ", "\u{1b}[24;1H", "\u{1b}", "é", "\u{feff}",
        ]).prop_map(str::to_owned),
        2 => (1u8..4, 1u8..4).prop_map(|(rack, slot)| format!("r{rack:02}n{slot:02}")),
        2 => any::<u8>().prop_map(|b| format!("52:54:00:00:00:{b:02x}")),
        1 => any::<u8>().prop_map(|b| format!("5254.0000.00{b:02x}")),
        1 => any::<u8>().prop_map(|b| format!("525400-0000{b:02x}")),
        1 => (1u8..4, 1u8..4).prop_map(|(rack, slot)| format!("10.5.{rack}.{slot}")),
        1 => ".{0,12}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn check(text: &str, result: &Result<Import, ImportError>) -> Result<(), TestCaseError> {
    match result {
        Ok(import) => {
            prop_assert!(!import.entries.is_empty());
            let lines = text.split('\n').count();
            let mut names = std::collections::HashSet::new();
            let mut hwaddrs = std::collections::HashSet::new();
            for entry in &import.entries {
                prop_assert!((1..=lines).contains(&entry.line), "{:?}", entry);
                prop_assert!(!entry.name.is_empty() && names.insert(&entry.name), "{:?}", entry);
                prop_assert!(!entry.hwaddrs.is_empty());
                prop_assert!(
                    entry.hwaddrs.iter().all(|hwaddr| hwaddrs.insert(*hwaddr)),
                    "{:?}",
                    entry
                );
            }
        }
        Err(error) => {
            prop_assert!(!error.problems.is_empty());
            prop_assert!(
                error
                    .problems
                    .iter()
                    .all(|p| !p.message.is_empty() && !p.help.is_empty())
            );
            let shown = error.to_string();
            prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{:?}", shown);
        }
    }
    Ok(())
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let list = || prop::option::of(prop::collection::vec("[a-z]{1,4}|[^\u{0}]{1,6}", 0..4));
    let entry = (
        // Valid names, and names that need quotes.
        "r[0-9]{2}n[0-9]{2}|[a-zA-Z0-9 .\"'\\]\\[#=é\\\\-]{1,8}",
        1usize..4,
        prop::option::of(any::<[u8; 4]>()),
        list(),
        list(),
    );
    prop::collection::vec(entry, 0..12).prop_map(|all| {
        let mut names = std::collections::HashSet::new();
        let mut next = 0u8;
        let fresh = |(name, count, ipaddr, profiles, groups): (String, usize, Option<[u8; 4]>, _, _)| {
            names.insert(name.clone()).then(|| Entry {
                line: 0,
                name,
                hwaddrs: (0..count)
                    .map(|_| {
                        next += 1;
                        HwAddr([0x52, 0x54, 0, 0, 0, next])
                    })
                    .collect(),
                ipaddr: ipaddr.map(Into::into),
                profiles,
                groups,
                attributes: None,
                settings: None,
                adds: false,
                places: Places::default(),
            })
        };
        all.into_iter().filter_map(fresh).collect()
    })
}

proptest! {
    #[test]
    fn any_text_in_any_format(
        text in prop_oneof![pieces(), "\\PC{0,200}", ".{0,60}"],
        format in prop::sample::select(&Format::ALL[..]),
    ) {
        let naming = naming();
        let map = Ports { file: "ports", text: "Gi1/0/{n} = r03n{n:02}\nA1 = r04n01\n" };
        let ports = (format == Format::Switch).then_some(map);
        let options = Options { format: Some(format), naming: &naming, domain: "cluster.example", ports };
        check(&text, &read("nodes", &text, &options))?;
    }

    #[test]
    fn any_text_of_no_format(
        text in prop_oneof![pieces(), "\\PC{0,200}"],
        file in "[a-z]{0,4}(\\.toml|\\.csv|)|dhcpd\\.conf|.{0,8}",
    ) {
        check(&text, &import(None, &file, &text))?;
    }

    #[test]
    fn any_port_map(map in prop_oneof![pieces(), "[Gi{}\\[\\]a:0-9/,=\\- \n]{0,80}"]) {
        let naming = naming();
        let ports = Some(Ports { file: "ports", text: &map });
        let options = Options { format: None, naming: &naming, domain: "", ports };
        let text = "1 5254.0003.0101 DYNAMIC Gi1/0/1\n1 5254.0003.0102 DYNAMIC 1/1/1\n525400-030103 7 1\n";
        check(text, &read("paste", text, &options))?;
    }

    /// `node import` reads what `node export` writes.
    #[test]
    fn toml_is_exported_and_imported_unchanged(entries in entries()) {
        let text = to_toml(&entries);
        let naming = naming();
        let options = Options { format: Some(Format::Toml), naming: &naming, domain: "", ports: None };
        if entries.is_empty() {
            prop_assert_eq!(text, "");
            return Ok(());
        }
        let mut read = match read("nodes.toml", &text, &options) {
            Ok(import) => import.entries,
            Err(error) => return Err(TestCaseError::fail(format!("{error}\n{text}"))),
        };
        read.iter_mut().for_each(|entry| (entry.line, entry.places) = Default::default());
        prop_assert_eq!(read, entries);
    }
}
