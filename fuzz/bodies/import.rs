//! Files of other programs, as each of the formats and as what they look like; behind a NUL may stand a port map. The same
//! bytes as a hostlist.

use rackstrap_exchange::import::{ENTRIES, Format, Options, Ports, read};
use rackstrap_hostlist::{Dialect, Membership, expand, naming::Naming};
use std::sync::LazyLock;

static NAMING: LazyLock<Naming> =
    LazyLock::new(|| Naming::new("r{rack:02}n{slot:02}", "10.5.{rack}.{slot}").unwrap_or_else(|_| unreachable!()));

/// True if some format found nodes in it.
pub fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let (text, ports) = text.split_once('\0').unwrap_or((text, ""));
    let ports = (!ports.is_empty()).then_some(Ports {
        file: "ports",
        text: ports,
    });
    let mut found = false;
    for format in Format::ALL.map(Some).into_iter().chain([None]) {
        let options = Options {
            format,
            naming: &NAMING,
            domain: "cluster.example",
            ports,
        };
        match read("file", text, &options) {
            Ok(read) => {
                assert!(read.entries.len() <= ENTRIES);
                found |= !read.entries.is_empty();
            }
            // It must be possible to say what is wrong.
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let mut groups = Membership::default();
    groups.node("r01n01", ["gpu"]);
    match expand(text, &groups) {
        Ok(set) => {
            for dialect in [Dialect::Short, Dialect::Slurm] {
                let again = expand(&set.fold_as(dialect), &groups);
                assert_eq!(again.as_ref(), Ok(&set), "what is folded expands to the same");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    found
}
