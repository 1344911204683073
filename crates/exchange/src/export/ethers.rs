//! `/etc/ethers`: one line for each card, first the card that boots.

use super::{ExportNode, Format, header};

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let mut text = header(Format::Ethers, nodes);
    for node in nodes {
        if node.hwaddrs.is_empty() {
            text.push_str(&format!("# {}: no hardware address yet\n", node.name));
        }
        for hwaddr in &node.hwaddrs {
            text.push_str(&format!("{hwaddr} {}\n", node.name));
        }
    }
    text
}
