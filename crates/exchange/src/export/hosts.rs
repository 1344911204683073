//! `/etc/hosts`: the full name is first, because `hostname -f` prints the first name.

use super::{ExportNode, Format, header};

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let mut text = header(Format::Hosts, nodes);
    for ExportNode {
        name, ipaddr, domain, ..
    } in nodes.iter().copied()
    {
        text.push_str(&match domain {
            Some(domain) => format!("{ipaddr}\t{name}.{domain} {name}\n"),
            None => format!("{ipaddr}\t{name}\n"),
        });
    }
    text
}
