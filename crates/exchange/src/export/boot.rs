//! What other DHCP servers need to know, so that they give machines what rackstrap's own answers do.

use super::ExportNode;
use ipnet::Ipv4Net;
use rackstrap_base::firmware;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Option 43 for the firmware of a BIOS: PXE_DISCOVERY_CONTROL (PXE 2.1, table 2-1, tag 6), bit 3: load the boot file, ask no
/// boot server.
pub(super) const DISCOVERY_CONTROL: [u8; 4] = [6, 1, 8, 255];

/// A network of nodes.
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
    /// Whether rackstrap itself answers the boot part there, so that the other server has only addresses to give.
    pub is_proxy: bool,
}

impl BootSubnet {
    /// The URL of a loader, for UEFI that boots by HTTP.
    pub(super) fn url(&self, loader: &str) -> String {
        format!("{}/loader/{loader}", self.base)
    }
}

/// First loaders, each with the architectures (option 93) that get it: by TFTP, or with `http` by HTTP.
pub(super) fn loaders(http: bool) -> BTreeMap<&'static str, Vec<u16>> {
    let mut all: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for (arch, loader, _) in firmware::with_loader().filter(|(_, _, by_http)| *by_http == http) {
        all.entry(loader).or_default().push(arch);
    }
    all
}

/// A subnet with its number, none for the nodes that are in no subnet, and its nodes.
pub(super) type Part<'a> = (Option<(usize, &'a BootSubnet)>, Vec<&'a ExportNode>);

/// The nodes of each subnet, in the order of both; first those in none of them.
pub(super) fn by_subnet<'a>(nodes: &[&'a ExportNode], subnets: &'a [BootSubnet]) -> Vec<Part<'a>> {
    let mut parts: Vec<Part> = vec![(None, Vec::new())];
    parts.extend(subnets.iter().enumerate().map(|numbered| (Some(numbered), Vec::new())));
    for node in nodes {
        let at = subnets.iter().position(|subnet| subnet.network.contains(&node.ipaddr));
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
