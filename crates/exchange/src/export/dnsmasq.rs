//! dnsmasq's `dhcp-host`: several cards may be in one line and share the address; one of them has it at a time. A tag puts each
//! node into its network, and the boot options belong to that tag.

use super::{
    ExportNode, Format,
    boot::{BootSubnet, DISCOVERY_CONTROL, by_subnet, loaders},
    header,
};
use std::fmt::Write as _;

const IPXE: &str = "rackstrap-ipxe";
const HTTP: &str = "rackstrap-http";
const PXE: &str = "rackstrap-pxe";

pub(super) fn write(nodes: &[&ExportNode], subnets: &[BootSubnet]) -> String {
    let mut text = header(Format::Dnsmasq, nodes);
    let parts = by_subnet(nodes, subnets);
    let boots = |subnet: &Option<(usize, &BootSubnet)>| subnet.is_some_and(|(_, subnet)| !subnet.is_proxy);
    if parts.iter().any(|(subnet, _)| boots(subnet)) {
        text.push_str(&kinds());
    }
    for (subnet, nodes) in parts {
        let mut tag = String::new();
        if let Some((number, subnet)) = subnet.filter(|(_, subnet)| !subnet.is_proxy) {
            text.push_str(&boot(number, subnet));
            tag = format!("set:rackstrap{number},");
        }
        for node in nodes {
            let cards: String = node.hwaddrs.iter().map(|hwaddr| format!("{hwaddr},")).collect();
            text.push_str(&match cards.is_empty() {
                true => format!("# {}: no hardware address yet\n", node.name),
                false => format!("dhcp-host={cards}{tag}{},{}\n", node.ipaddr, node.name),
            });
        }
    }
    text
}

/// Tags of clients by what they are.
fn kinds() -> String {
    let mut text = format!(
        "dhcp-userclass=set:{IPXE},iPXE\ndhcp-vendorclass=set:{HTTP},HTTPClient\ndhcp-vendorclass=set:{PXE},PXEClient\n"
    );
    for http in [false, true] {
        for (loader, archs) in loaders(http) {
            for arch in archs {
                let _ = writeln!(text, "dhcp-match=set:rackstrap-{loader},option:client-arch,{arch}");
            }
        }
    }
    text
}

fn boot(number: usize, subnet: &BootSubnet) -> String {
    let (node, server) = (format!("tag:rackstrap{number}"), subnet.server);
    let mut text = format!("dhcp-boot={node},tag:{IPXE},{},{server},{server}\n", subnet.script);
    for (kind, http) in [(PXE, false), (HTTP, true)] {
        for loader in loaders(http).into_keys() {
            let file = if http { subnet.url(loader) } else { loader.to_owned() };
            let tags = format!("{node},tag:!{IPXE},tag:{kind},tag:rackstrap-{loader}");
            let _ = writeln!(text, "dhcp-boot={tags},{file},{server},{server}");
        }
    }
    for (kind, class) in [(PXE, "PXEClient"), (HTTP, "HTTPClient")] {
        let _ = writeln!(
            text,
            "dhcp-option-force={node},tag:!{IPXE},tag:{kind},option:vendor-class,{class}"
        );
    }
    let control = DISCOVERY_CONTROL.map(|byte| format!("{byte:02x}")).join(":");
    let _ = writeln!(text, "dhcp-option-force={node},tag:!{IPXE},tag:{PXE},43,{control}");
    text
}
