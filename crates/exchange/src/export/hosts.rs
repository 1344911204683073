//! `/etc/hosts`: the full name is first, because `hostname -f` prints the first name.

use super::{ExportNode, Format, header};

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let mut text = header(Format::Hosts, nodes);
    for ExportNode {
        name,
        ipaddr,
        domain,
        networks,
        ..
    } in nodes.iter().copied()
    {
        let further = networks.iter().map(|(name, ipaddr)| (name, ipaddr));
        for (name, ipaddr) in [(name, ipaddr)].into_iter().chain(further) {
            text.push_str(&match domain {
                Some(domain) => format!("{ipaddr}\t{name}.{domain} {name}\n"),
                None => format!("{ipaddr}\t{name}\n"),
            });
        }
    }
    text
}
