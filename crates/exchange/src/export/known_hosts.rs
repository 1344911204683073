//! Lines for `/etc/ssh/ssh_known_hosts`, sshd(8): the host keys that the server made and keeps for each node.

use super::{ExportNode, Format, comment, header};

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let mut text = header(Format::KnownHosts, nodes);
    for node in nodes {
        let full = node.domain.iter().map(|domain| format!("{}.{domain},", node.name));
        let mut names = format!("{}{},{}", full.collect::<String>(), node.name, node.ipaddr);
        for (name, ipaddr) in &node.networks {
            let full = node.domain.iter().map(|domain| format!(",{name}.{domain}"));
            names.push_str(&format!("{},{name},{ipaddr}", full.collect::<String>()));
        }
        if node.host_keys.is_empty() {
            text.push_str(&format!(
                "# {}: its host keys are made when it boots for the first time\n",
                node.name
            ));
        }
        for key in &node.host_keys {
            // The comment of a key adds nothing to the line.
            let mut words = key.split_whitespace();
            match (words.next(), words.next()) {
                (Some(kind), Some(key)) => text.push_str(&format!("{names} {kind} {key}\n")),
                _ => text.push_str(&format!("# {}: {} is not a public key\n", node.name, comment(key))),
            }
        }
    }
    text
}
