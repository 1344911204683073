//! Any text as a site file: it is refused with its problems, or what comes out can be relied on.

use rackstrap_site::{ConfigError, NodeSettings, kernel_args, meant_setting, vars::expand};
use std::path::Path;

/// One run; true if the text is a site file.
pub fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    own(text);
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

/// The same text as a value of a node's own setting: what is taken is kept as it is, and taken away again.
fn own(text: &str) {
    for key in [
        "kernel-args+",
        "checks+",
        "console",
        "check-login",
        "vars.x",
        "vars-secret.x",
    ] {
        let mut own = NodeSettings::default();
        let value = meant_setting(key, text);
        if own.change(key, &value).is_ok() {
            assert_eq!(NodeSettings::from(own.written().clone()), own);
            assert!(own.remove(key.trim_end_matches('+')) && own.is_empty());
        }
    }
    if let Ok(expanded) = expand(text, |_| None) {
        assert_eq!(expanded, text, "no variable has a value");
        let _ = kernel_args::check(text);
    }
}
