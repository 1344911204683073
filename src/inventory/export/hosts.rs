//! `/etc/hosts`: the full name first, as `hostname -f` gives the first one.

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
