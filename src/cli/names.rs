//! The patterns of names and addresses in the result of `rackstrap check`.

use rackstrap_hostlist::naming::Variable;
use rackstrap_site::Site;
use serde_json::{Value, json};

/// A line for each pattern, with its ranges and its first node.
pub(super) fn summary(site: &Site) -> String {
    let mut text = String::new();
    for pattern in site.cluster.naming.patterns() {
        let first = pattern.first_address(Default::default(), &site.cluster.reserved);
        let first = first.and_then(|a| Some(format!(", the first node is {} at {a}", pattern.address_to_name(a)?)));
        text.push_str(&format!(
            "  names     {} at {}{}\n",
            pattern.name_pattern(),
            pattern.address_pattern(),
            first.unwrap_or_default()
        ));
    }
    text
}

/// All patterns, with the first and the last number of each variable.
pub(super) fn json(site: &Site) -> Vec<Value> {
    let range = |variable: &Variable| (variable.name.clone(), json!([variable.min, variable.max]));
    let patterns = site.cluster.naming.patterns().iter();
    let shown = patterns.map(|pattern| {
        json!({
            "node-name": pattern.name_pattern(),
            "node-address": pattern.address_pattern(),
            "range": pattern.variables().iter().map(range).collect::<serde_json::Map<_, _>>(),
        })
    });
    shown.collect()
}
