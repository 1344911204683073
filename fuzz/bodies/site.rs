//! Any text as a site file: it is refused with its problems, or what comes out can be relied on.

use rackstrap_site::ConfigError;
use std::path::Path;

/// One run; true if the text is a site file.
pub fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    match rackstrap_site::parse(text, Path::new("/etc/rackstrap/site.toml")) {
        Err(ConfigError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty());
            for problem in problems {
                let shown = problem.to_string();
                assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            }
            false
        }
        Err(other) => panic!("nothing was to be read: {other}"),
        Ok((site, _)) => {
            let naming = &site.cluster.naming;
            for pattern in naming.patterns() {
                let name = pattern.example();
                let address = naming
                    .name_to_address(&name)
                    .expect("the first position has an address");
                assert_eq!(naming.address_to_name(address), Some(name));
            }
            for subnet in &site.subnets {
                if let Some((first, last)) = subnet.pool {
                    assert!(first <= last && subnet.network.contains(&first) && subnet.network.contains(&last));
                    for end in [first, last] {
                        let node = naming.address_to_name(end);
                        assert!(node.is_none_or(|node| site.cluster.address_of(&node).is_err()));
                    }
                }
            }
            true
        }
    }
}
