//! What must be true of a node: checked when it comes in, and of what is changed about it.

use super::{
    Inventory, Node,
    refusal::{InventoryError, List},
};
use crate::config::{Site, Subnet};
use ipnet::Ipv4Net;
use rackstrap_wire::HwAddr;
use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

/// Hardware addresses that one node may have: four two-port cards.
pub const HWADDRS_PER_NODE: usize = 8;
/// Profiles and groups that one node may have.
const LABELS_PER_NODE: usize = 64;
/// Longest name of a group, bytes.
pub(super) const GROUP_NAME: usize = 64;

/// The node of that name, or an error that says which one was probably meant.
pub fn find<'a>(inventory: &'a Inventory, name: &str) -> Result<&'a Arc<Node>, InventoryError> {
    inventory.get(name).ok_or_else(|| InventoryError::Unknown {
        near: nearest(name, inventory.iter().map(|node| node.name.as_str())),
        name: name.chars().take(64).collect(),
    })
}

/// The address that belongs to a name, if a new node can have both.
pub(super) fn check_place(inventory: &Inventory, site: &Site, name: &str) -> Result<Ipv4Addr, InventoryError> {
    let address = site.cluster.naming.name_to_address(name);
    let ipaddr = address.map_err(|error| InventoryError::Name(error.to_string()))?;
    if let Some(node) = inventory.get(name) {
        return Err(InventoryError::Exists {
            name: name.to_owned(),
            hwaddrs: node.hwaddrs.iter().collect(),
        });
    }
    match unusable(inventory, site, ipaddr) {
        Some(why) => Err(InventoryError::Address {
            name: name.to_owned(),
            ipaddr,
            why,
        }),
        None => Ok(ipaddr),
    }
}

/// The profiles exist, none is named twice.
pub(super) fn check_profiles(site: &Site, name: &str, profiles: &[String]) -> Result<(), InventoryError> {
    bounded(name, profiles.len(), "profiles", LABELS_PER_NODE)?;
    match profiles.iter().find(|profile| !site.profiles.contains_key(*profile)) {
        Some(profile) => Err(InventoryError::Profile {
            near: nearest(profile, site.profiles.keys().map(String::as_str)),
            known: site.profiles.keys().collect(),
            name: name.to_owned(),
            profile: profile.clone(),
        }),
        None => Ok(()),
    }
}

/// Groups have names that hostlists and other programs take.
pub(super) fn check_groups(name: &str, groups: &BTreeSet<String>) -> Result<(), InventoryError> {
    bounded(name, groups.len(), "groups", LABELS_PER_NODE)?;
    let right = |group: &String| {
        group.len() <= GROUP_NAME
            && group.starts_with(|c: char| c.is_ascii_alphanumeric())
            && group.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match groups.iter().find(|group| !right(group)) {
        Some(group) => Err(InventoryError::Group {
            name: name.to_owned(),
            group: group.chars().take(GROUP_NAME).collect(),
        }),
        None => Ok(()),
    }
}

fn bounded(name: &str, count: usize, what: &'static str, most: usize) -> Result<(), InventoryError> {
    match count > most {
        true => Err(InventoryError::TooMany {
            name: name.to_owned(),
            count,
            what,
            most,
        }),
        false => Ok(()),
    }
}

/// Cards that exist, each once, and nobody else's.
pub(super) fn check_hwaddrs(inventory: &Inventory, name: &str, hwaddrs: &[HwAddr]) -> Result<(), InventoryError> {
    let name = name.to_owned();
    if hwaddrs.is_empty() {
        return Err(InventoryError::NoHwaddr(name));
    }
    bounded(&name, hwaddrs.len(), "hardware addresses", HWADDRS_PER_NODE)?;
    for (i, &hwaddr) in hwaddrs.iter().enumerate() {
        let impossible = match hwaddr.0 {
            [0, 0, 0, 0, 0, 0] => Some("all zeros"),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Some("the broadcast address"),
            _ if hwaddr.is_multicast() => Some("a multicast address"),
            _ => None,
        };
        if let Some(what) = impossible {
            return Err(InventoryError::NoCard { name, hwaddr, what });
        }
        if hwaddrs[..i].contains(&hwaddr) {
            return Err(InventoryError::Repeated { name, hwaddr });
        }
        if let Some(owner) = inventory.by_hwaddr(hwaddr) {
            return Err(InventoryError::Taken {
                name,
                hwaddr,
                owner: owner.name.clone(),
            });
        }
    }
    Ok(())
}

/// Why no node can have that address, if so.
fn unusable(inventory: &Inventory, site: &Site, ipaddr: Ipv4Addr) -> Option<String> {
    let reserved = |net: &&Ipv4Net| net.contains(&ipaddr);
    if let Some(net) = site.cluster.reserved.iter().find(reserved) {
        return Some(format!(
            "which is in the reserved network {net}; choose another position"
        ));
    }
    let Some(subnet) = site.subnet_of(ipaddr) else {
        let networks: List = site.subnets.iter().map(|s| s.network).collect();
        return Some(format!(
            "which is in none of the site's networks ({networks}); add a [[subnet]] to the site file, or choose another position"
        ));
    };
    if let Some(what) = claimed(subnet, ipaddr) {
        return Some(format!("which is {what}; choose another position"));
    }
    let other = inventory.by_ipaddr(ipaddr)?;
    Some(format!(
        "which {} has already; the site's naming has changed since it was added",
        other.name
    ))
}

/// What else that address is in its subnet.
fn claimed(subnet: &Subnet, ipaddr: Ipv4Addr) -> Option<String> {
    if ipaddr == subnet.server {
        return Some("the daemon's own".to_owned());
    }
    if Some(ipaddr) == subnet.router {
        return Some("the router's".to_owned());
    }
    if ipaddr == subnet.network.network() || ipaddr == subnet.network.broadcast() {
        return Some(format!("no host's in {}", subnet.network));
    }
    let (first, last) = subnet.pool?;
    (first..=last)
        .contains(&ipaddr)
        .then(|| format!("in the temporary pool ({first} to {last})"))
}

/// The candidate that looks most like `text`, if one does.
fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let text = text.chars().take(64).collect::<String>();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(text.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}
