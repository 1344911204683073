//! `/etc/genders`: groups and profiles are attributes, spelt as in hostlists: `pdsh -g gpu`, `pdsh -g profile:compute`.

use super::{ExportNode, Format, comment, header};

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let mut text = header(Format::Genders, nodes);
    for node in nodes {
        let profiles = node.profiles.iter().map(|profile| format!("profile:{profile}"));
        let mut attributes: Vec<String> = node.groups.iter().cloned().chain(profiles).collect();
        attributes.sort();
        // A repeated attribute makes the whole file unreadable.
        attributes.dedup();
        let (good, bad): (Vec<String>, Vec<String>) = attributes.into_iter().partition(|name| is_attribute(name));
        for name in bad {
            text.push_str(&format!(
                "# {}: genders has no attribute '{}'\n",
                node.name,
                comment(&name)
            ));
        }
        let blank = if good.is_empty() { "" } else { " " };
        text.push_str(&format!("{}{blank}{}\n", node.name, good.join(",")));
    }
    text
}

/// Whether the name contains no separators of attributes, values, comments and query operators.
fn is_attribute(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    !name.is_empty() && name.bytes().all(plain) && !name.contains("--")
}
