//! dnsmasq's `dhcp-host`: several cards may be in one line and share the address; one of them has it at a time.

use super::{ExportNode, Format, header};

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let mut text = header(Format::Dnsmasq, nodes);
    for node in nodes {
        let cards: String = node.hwaddrs.iter().map(|hwaddr| format!("{hwaddr},")).collect();
        text.push_str(&match cards.is_empty() {
            true => format!("# {}: no hardware address yet\n", node.name),
            false => format!("dhcp-host={cards}{},{}\n", node.ipaddr, node.name),
        });
    }
    text
}
