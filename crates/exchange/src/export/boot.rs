//! What other DHCP servers need to know, so that they give machines what rackstrap's own answers do.

use super::ExportNode;
use ipnet::Ipv4Net;
pub(super) use rackstrap_base::firmware::{DISCOVERY_CONTROL, HTTP_CLIENT as HTTP, PXE_CLIENT as PXE};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// Bytes of the field `file` of a DHCP message, without the NUL at its end (RFC 2131 section 2). A longer URL has room in option 67 only.
pub(super) const FILE_FIELD: usize = 127;

/// The architecture type of a BIOS. Firmware that sends none counts as one here.
pub(super) const BIOS: u16 = 0;

/// A file that firmware loads first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    /// How the vendor class (option 60) of the firmware begins: `PXEClient` or `HTTPClient`, or more of it.
    pub class: String,
    /// Its architecture types (option 93).
    pub archs: Vec<u16>,
    /// The name by which it is served.
    pub file: String,
}

/// Nodes of a network that boot the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootSubnet {
    /// Network address and prefix length.
    pub network: Ipv4Net,
    /// The daemon's address there.
    pub server: Ipv4Addr,
    /// The beginning of all URLs there: `http://10.5.0.1:80`.
    pub base: String,
    /// The URL of iPXE's script, with the settings that iPXE inserts.
    pub script: String,
    /// Whether rackstrap itself answers the boot part there, so that the other server has only addresses and `next-server` to give: GRUB (as
    /// `dhcp_ack` of its `net/bootp.c` has it) and U-Boot take the TFTP server from that answer. Other firmware takes both from rackstrap's.
    pub is_proxy: bool,
    /// What the nodes' firmware loads first. Of those that match, the first one counts: that of the longest class.
    pub files: Vec<BootFile>,
    /// Names of the nodes.
    pub nodes: BTreeSet<String>,
}

impl BootSubnet {
    /// What firmware whose class begins with `kind` is told about a file: its name, or its URL.
    pub(super) fn location(&self, kind: &str, file: &BootFile) -> String {
        match kind == HTTP {
            true => format!("{}/loader/{}", self.base, file.file),
            false => file.file.clone(),
        }
    }

    /// The files for firmware whose class begins with `kind`.
    pub(super) fn files_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a BootFile> {
        self.files.iter().filter(move |file| file.class.starts_with(kind))
    }

    /// The files that count instead of `file` where their longer classes match.
    pub(super) fn before<'a>(&'a self, file: &'a BootFile) -> impl Iterator<Item = &'a BootFile> {
        self.files.iter().filter(move |other| {
            let longer = other.class.len() > file.class.len() && other.class.starts_with(&file.class);
            longer && other.archs.iter().any(|arch| file.archs.contains(arch))
        })
    }
}

/// The bytes of a text, each in two hexadecimal digits: a class may have quotes.
pub(super) fn hex(text: &str, between: &str) -> String {
    let bytes: Vec<String> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(between)
}

/// A subnet with its number, none for the nodes that are in none, and its nodes.
pub(super) type Part<'a> = (Option<(usize, &'a BootSubnet)>, Vec<&'a ExportNode>);

/// The nodes of each subnet, in the order of both; first those in none of them.
pub(super) fn by_subnet<'a>(nodes: &[&'a ExportNode], subnets: &'a [BootSubnet]) -> Vec<Part<'a>> {
    let mut parts: Vec<Part> = vec![(None, Vec::new())];
    parts.extend(subnets.iter().enumerate().map(|numbered| (Some(numbered), Vec::new())));
    for node in nodes {
        let at = subnets.iter().position(|subnet| subnet.nodes.contains(&node.name));
        parts[at.map_or(0, |at| at + 1)].1.push(node);
    }
    parts.retain(|(_, nodes)| !nodes.is_empty());
    parts
}

/// `r01n03` for the first card of a node, `r01n03-2` for the second: these programs want one name for each.
pub(super) fn card_name(node: &ExportNode, card: usize) -> String {
    match card {
        0 => node.name.clone(),
        _ => format!("{}-{}", node.name, card + 1),
    }
}
