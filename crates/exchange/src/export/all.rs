//! Everything about nodes, as JSON that `rackstrap node import` reads: an import into an empty inventory makes the same nodes.
//!
//! Values of secret variables are not in it; their names are.

use super::ExportNode;
use rackstrap_site::{value::Value, variable};
use rackstrap_wire::{Hardware, HwAddr};
use serde::Serialize;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// The form of the file: it changes when a reader of an older form would take it wrongly.
const FORM: u32 = 1;

#[derive(Serialize)]
struct All<'n> {
    /// First, so that an import recognises the file by it.
    rackstrap: u32,
    nodes: Vec<Node<'n>>,
}

#[derive(Serialize)]
struct Node<'n> {
    name: &'n str,
    ipaddr: Ipv4Addr,
    hwaddrs: &'n [HwAddr],
    profiles: &'n [String],
    groups: &'n [String],
    attributes: &'n BTreeMap<String, String>,
    settings: BTreeMap<&'n String, &'n Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<&'n String>,
    // What follows are facts, which an import does not read.
    domain: &'n Option<String>,
    rack: &'n str,
    state: &'n str,
    image: &'n Option<String>,
    vars: &'n BTreeMap<String, Value>,
    host_keys: &'n [String],
    /// Addresses by names, `r01n03-ib`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<&'n String, Ipv4Addr>,
    hardware: &'n Option<Hardware>,
}

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let is_secret = |key: &str| variable(key).is_some_and(|(_, secret)| secret);
    let rows = nodes.iter().map(|node| Node {
        name: &node.name,
        ipaddr: node.ipaddr,
        hwaddrs: &node.hwaddrs,
        profiles: &node.profiles,
        groups: &node.groups,
        attributes: &node.attributes,
        settings: node.settings.iter().filter(|(key, _)| !is_secret(key)).collect(),
        secrets: node.settings.keys().filter(|key| is_secret(key)).collect(),
        domain: &node.domain,
        rack: &node.rack,
        state: &node.state,
        image: &node.image,
        vars: &node.vars,
        host_keys: &node.host_keys,
        networks: node.networks.iter().map(|(name, ipaddr)| (name, *ipaddr)).collect(),
        hardware: &node.hardware,
    });
    super::json_text(&All {
        rackstrap: FORM,
        nodes: rows.collect(),
    })
}
