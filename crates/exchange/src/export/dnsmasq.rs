//! dnsmasq's `dhcp-host`: several cards may be in one line and share the address; one of them has it at a time. A tag puts each
//! node into its network, and the boot options belong to that tag.

use super::{
    ExportNode, Format,
    boot::{BIOS, BootFile, BootSubnet, DISCOVERY_CONTROL, HTTP, PXE, by_subnet},
    header,
};
use std::{collections::BTreeSet, fmt::Write as _};

const IPXE_TAG: &str = "rackstrap-ipxe";
/// Of clients that send option 93.
const ARCH_TAG: &str = "rackstrap-arch";
/// Kinds of firmware by their vendor class, with their tags.
const KINDS: [(&str, &str); 2] = [(PXE, "rackstrap-pxe"), (HTTP, "rackstrap-http")];

pub(super) fn write(nodes: &[&ExportNode], subnets: &[BootSubnet]) -> String {
    let mut text = header(Format::Dnsmasq, nodes);
    let parts = by_subnet(nodes, subnets);
    let booting = parts.iter().filter_map(|(subnet, _)| subnet.map(|(_, subnet)| subnet));
    let files: Vec<&BootFile> = booting
        .filter(|subnet| !subnet.is_proxy)
        .flat_map(|subnet| &subnet.files)
        .collect();
    let longer = files.iter().map(|file| file.class.as_str());
    let longer: BTreeSet<&str> = longer.filter(|class| ![PXE, HTTP].contains(class)).collect();
    let classes: Vec<&str> = longer.into_iter().collect();
    if !files.is_empty() {
        text.push_str(&kinds(&files, &classes));
    }
    for (subnet, nodes) in parts {
        let mut tag = String::new();
        if let Some((number, subnet)) = subnet {
            text.push_str(&match subnet.is_proxy {
                // The third value is next-server.
                true => format!("dhcp-boot=tag:rackstrap{number},,,{}\n", subnet.server),
                false => boot(number, subnet, &classes),
            });
            tag = format!("set:rackstrap{number},");
        }
        for node in nodes {
            let cards: String = node.hwaddrs.iter().map(|hwaddr| format!("{hwaddr},")).collect();
            text.push_str(&match cards.is_empty() {
                true => format!("# {}: no hardware address yet\n", node.name),
                false => format!("dhcp-host={cards}{tag}{},{}\n", node.ipaddr, node.name),
            });
            // These addresses are not given by DHCP, so only the name server of dnsmasq knows them.
            for (name, ipaddr) in &node.networks {
                let full = node.domain.as_ref().map(|domain| format!("{name}.{domain},"));
                let _ = writeln!(text, "host-record={}{name},{ipaddr}", full.unwrap_or_default());
            }
        }
    }
    text
}

/// Tags of clients by what they are.
fn kinds(files: &[&BootFile], classes: &[&str]) -> String {
    let mut text = format!("dhcp-userclass=set:{IPXE_TAG},iPXE\n");
    for (kind, tag) in KINDS {
        let _ = writeln!(text, "dhcp-vendorclass=set:{tag},{kind}");
    }
    for (number, class) in classes.iter().enumerate() {
        let quoted = class.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(text, "dhcp-vendorclass=set:{},\"{quoted}\"", class_tag(number));
    }
    let archs: BTreeSet<u16> = files.iter().flat_map(|file| file.archs.iter().copied()).collect();
    for arch in &archs {
        let _ = writeln!(text, "dhcp-match=set:{ARCH_TAG}{arch},option:client-arch,{arch}");
    }
    if archs.contains(&BIOS) {
        let _ = writeln!(text, "dhcp-match=set:{ARCH_TAG},option:client-arch");
        let _ = writeln!(text, "tag-if=set:{ARCH_TAG}{BIOS},tag:!{ARCH_TAG}");
    }
    text
}

fn class_tag(number: usize) -> String {
    format!("rackstrap-class{number}")
}

fn boot(number: usize, subnet: &BootSubnet, classes: &[&str]) -> String {
    let (node, server) = (format!("tag:rackstrap{number}"), subnet.server);
    let mut text = format!("dhcp-boot={node},tag:{IPXE_TAG},{},{server},{server}\n", subnet.script);
    let tag_of = |file: &BootFile| Some(class_tag(classes.iter().position(|class| *class == file.class)?));
    for (kind, tag) in KINDS {
        for file in subnet.files_of(kind) {
            let location = subnet.location(kind, file);
            for arch in &file.archs {
                let mut tags = format!("{node},tag:!{IPXE_TAG},tag:{tag},tag:{ARCH_TAG}{arch}");
                if let Some(class) = tag_of(file) {
                    let _ = write!(tags, ",tag:{class}");
                }
                // No two lines match one machine, so that their order does not matter.
                let before = subnet.before(file).filter(|other| other.archs.contains(arch));
                for class in before.filter_map(tag_of) {
                    let _ = write!(tags, ",tag:!{class}");
                }
                let _ = writeln!(text, "dhcp-boot={tags},{location},{server},{server}");
            }
        }
    }
    for (kind, tag) in KINDS {
        let _ = writeln!(
            text,
            "dhcp-option-force={node},tag:!{IPXE_TAG},tag:{tag},option:vendor-class,{kind}"
        );
    }
    let (_, pxe) = KINDS[0];
    let control = DISCOVERY_CONTROL.map(|byte| format!("{byte:02x}")).join(":");
    let _ = writeln!(text, "dhcp-option-force={node},tag:!{IPXE_TAG},tag:{pxe},43,{control}");
    text
}
