//! Rules for nodes, checked when a node is added, and for what changes about it.

use super::{
    Inventory, Node,
    refusal::{InventoryError, List},
};
use ipnet::Ipv4Net;
use rackstrap_base::{subnet::Subnet, text::quoted, words::meant};
use rackstrap_hostlist::naming::NamingError;
use rackstrap_site::{IPADDR, NodeSettings, Site, own_keys, value::to_toml};
use rackstrap_wire::HwAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

/// At most this many hardware addresses for one node: four two-port cards.
const HWADDRS_PER_NODE: usize = 8;
/// At most this many profiles, groups and attributes each for one node.
const LABELS_PER_NODE: usize = 64;
/// At most this many bytes of own settings for one node, and of variables.
pub(super) const SETTINGS_BYTES: usize = 16 << 10;
/// Longest name of a group, in bytes.
pub(super) const GROUP_NAME: usize = 64;
/// Longest name of an attribute, in bytes.
pub(super) const ATTRIBUTE_NAME: usize = 64;
/// Longest value of an attribute, in bytes.
pub(super) const ATTRIBUTE_VALUE: usize = 1024;

/// The node with that name, or an error that names the node that was probably meant.
pub fn find<'a>(inventory: &'a Inventory, name: &str) -> Result<&'a Arc<Node>, InventoryError> {
    inventory.get(name).ok_or_else(|| InventoryError::Unknown {
        near: meant(name, inventory.iter().map(|node| node.name.as_str())).map(str::to_owned),
        name: quoted(name, 64),
    })
}

/// The address of a new node: `own`, or the one that belongs to its name; if a new node can have both.
pub(super) fn check_place(
    inventory: &Inventory,
    site: &Site,
    name: &str,
    own: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, InventoryError> {
    let ipaddr = address_of(site, name, own)?;
    if let Some(node) = inventory.get(name) {
        return Err(InventoryError::Exists {
            name: name.to_owned(),
            hwaddrs: node.hwaddrs.iter().collect(),
        });
    }
    check_address(inventory, site, name, ipaddr, own.is_some())
}

/// The address of an existing node after its own address has changed.
pub(super) fn check_new_address(
    inventory: &Inventory,
    site: &Site,
    name: &str,
    own: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, InventoryError> {
    let ipaddr = address_of(site, name, own)?;
    check_address(inventory, site, name, ipaddr, own.is_some())
}

/// The node's own address, or the one that belongs to its name.
fn address_of(site: &Site, name: &str, own: Option<Ipv4Addr>) -> Result<Ipv4Addr, InventoryError> {
    let named = site.cluster.naming.name_to_address(name);
    let wrong = |error: NamingError| InventoryError::Name(error.to_string());
    match (own, named) {
        (None, Ok(ipaddr)) => Ok(ipaddr),
        (Some(own), Ok(_)) => Ok(own),
        // Another spelling of a name would be mistaken for the node with that name.
        (_, Err(error @ NamingError::Spelling { .. })) => Err(wrong(error)),
        (Some(own), Err(_)) => match name_problem(site, name) {
            None => Ok(own),
            Some(problem) => Err(InventoryError::Name(problem)),
        },
        (None, Err(error)) => Err(InventoryError::Name(format!(
            "{error}; a node that no pattern names needs an address of its own: {IPADDR}=ADDRESS"
        ))),
    }
}

/// Why a node cannot have a name that follows no pattern; none if it can.
fn name_problem(site: &Site, name: &str) -> Option<String> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let right = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(label)
        && !name.ends_with('-');
    let shown = quoted(name, 64);
    if !right {
        return Some(format!(
            "{shown} is not a node name; write lower-case letters, digits and -, a letter first, at most 63 of them"
        ));
    }
    let taken = if name.parse::<HwAddr>().is_ok() {
        "it looks like a hardware address"
    } else if own_keys().any(|key| key == name) {
        "it is the key of a setting"
    } else if name == "localhost" || site.dns.as_ref().is_some_and(|dns| dns.name == name) {
        "it is the server's own name"
    } else {
        return None;
    };
    Some(format!("no node can be called {shown}: {taken}; choose another name"))
}

fn check_address(
    inventory: &Inventory,
    site: &Site,
    name: &str,
    ipaddr: Ipv4Addr,
    is_own: bool,
) -> Result<Ipv4Addr, InventoryError> {
    match unusable(inventory, site, name, ipaddr, is_own) {
        Some(why) => Err(InventoryError::Address {
            name: name.to_owned(),
            ipaddr,
            why,
        }),
        None => Ok(ipaddr),
    }
}

/// Problems of profiles: they do not exist, or are too many.
pub(super) fn check_profiles(site: &Site, name: &str, profiles: &[String]) -> Vec<InventoryError> {
    let unknown = profiles.iter().filter(|profile| !site.profiles.contains_key(*profile));
    let unknown = unknown.map(|profile| InventoryError::Profile {
        near: meant(profile, site.profiles.keys().map(String::as_str)).map(str::to_owned),
        known: site.profiles.keys().collect(),
        name: name.to_owned(),
        profile: profile.clone(),
    });
    too_many(name, profiles.len(), "profiles", LABELS_PER_NODE)
        .into_iter()
        .chain(unknown)
        .collect()
}

/// Problems of groups: other programs do not accept their names, or they are too many.
pub(super) fn check_groups(name: &str, groups: &BTreeSet<String>) -> Vec<InventoryError> {
    let right = |group: &String| {
        group.len() <= GROUP_NAME
            && group.starts_with(|c: char| c.is_ascii_alphanumeric())
            && group.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let wrong = groups.iter().filter(|group| !right(group));
    let wrong = wrong.map(|group| InventoryError::Group {
        name: name.to_owned(),
        group: group.chars().take(GROUP_NAME).collect(),
    });
    too_many(name, groups.len(), "groups", LABELS_PER_NODE)
        .into_iter()
        .chain(wrong)
        .collect()
}

/// Problems of attributes: templates cannot read their names, values are not one line of text, or they are too many.
pub(super) fn check_attributes(name: &str, attributes: &BTreeMap<String, String>) -> Vec<InventoryError> {
    let is_name = |text: &str| {
        text.len() <= ATTRIBUTE_NAME
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_value = |text: &str| text.len() <= ATTRIBUTE_VALUE && !text.chars().any(char::is_control);
    let shown = |attribute: &str| {
        attribute
            .chars()
            .take(ATTRIBUTE_NAME)
            .flat_map(char::escape_debug)
            .collect()
    };
    let wrong = attributes.iter().filter_map(|(attribute, value)| {
        if !is_name(attribute) {
            return Some(InventoryError::AttributeName {
                name: name.to_owned(),
                attribute: shown(attribute),
            });
        }
        (!is_value(value)).then(|| InventoryError::AttributeValue {
            name: name.to_owned(),
            attribute: shown(attribute),
        })
    });
    too_many(name, attributes.len(), "attributes", LABELS_PER_NODE)
        .into_iter()
        .chain(wrong)
        .collect()
}

/// Problems of a node's own settings: the site file would not accept them in a profile, or they are too long.
pub(super) fn check_settings(site: &Site, name: &str, settings: &NodeSettings) -> Vec<InventoryError> {
    let problems = settings.problems(site).into_iter();
    let bytes = settings
        .written()
        .iter()
        .map(|(key, value)| key.len() + to_toml(value).len())
        .sum();
    too_many(name, bytes, "bytes of settings", SETTINGS_BYTES)
        .into_iter()
        .chain(problems.map(|problem| InventoryError::setting(name, problem)))
        .collect()
}

fn too_many(name: &str, count: usize, what: &'static str, most: usize) -> Option<InventoryError> {
    (count > most).then(|| InventoryError::TooMany {
        name: name.to_owned(),
        count,
        what,
        most,
    })
}

/// Problems of cards: there are none, their addresses are impossible or repeated, or belong to another node.
pub(super) fn check_hwaddrs(inventory: &Inventory, name: &str, hwaddrs: &[HwAddr]) -> Vec<InventoryError> {
    let name = name.to_owned();
    if hwaddrs.is_empty() {
        return vec![InventoryError::NoHwaddr(name)];
    }
    let mut wrong = Vec::from_iter(too_many(&name, hwaddrs.len(), "hardware addresses", HWADDRS_PER_NODE));
    for (i, &hwaddr) in hwaddrs.iter().enumerate() {
        let name = name.clone();
        let impossible = match hwaddr.0 {
            [0, 0, 0, 0, 0, 0] => Some("all zeros"),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Some("the broadcast address"),
            _ if hwaddr.is_multicast() => Some("a multicast address"),
            _ => None,
        };
        if let Some(what) = impossible {
            wrong.push(InventoryError::NoCard { name, hwaddr, what });
        } else if hwaddrs[..i].contains(&hwaddr) {
            wrong.push(InventoryError::Repeated { name, hwaddr });
        } else if let Some(owner) = inventory.by_hwaddr(hwaddr).filter(|owner| owner.name != name) {
            // If the node exists already, the error names it.
            let owner = owner.name.clone();
            wrong.push(InventoryError::Taken { name, hwaddr, owner });
        }
    }
    wrong
}

/// Why the node cannot have that address; none if it can. `is_own` = it is the node's own setting.
fn unusable(inventory: &Inventory, site: &Site, name: &str, ipaddr: Ipv4Addr, is_own: bool) -> Option<String> {
    if let Some(problem) = address_problem(site, ipaddr, is_own) {
        return Some(problem);
    }
    let naming = &site.cluster.naming;
    let others = |node: &&Arc<Node>| node.name != name;
    if let Some(other) = inventory.by_ipaddr(ipaddr).filter(others) {
        let other = &other.name;
        let why = match naming.name_to_address(other) == Ok(ipaddr) {
            true => "choose another",
            false => "its own setting, or by a naming of before",
        };
        return Some(format!("which {other} already has; {why}"));
    }
    if !is_own {
        return None;
    }
    // Names and addresses would convert to different nodes.
    let of_name = naming.address_to_name(ipaddr).filter(|other| other != name);
    if let Some(other) = of_name.filter(|other| inventory.get(other).is_some()) {
        return Some(format!(
            "which is the address that the name of {other} stands for; choose another address"
        ));
    }
    let own_place = naming.name_to_address(name).ok().filter(|place| *place != ipaddr)?;
    let other = inventory.by_ipaddr(own_place).filter(others)?;
    Some(format!(
        "and {own_place}, which its name stands for, belongs to {}; choose another name",
        other.name
    ))
}

/// Why no node can have that address in `site`; none if one can. A node's own address (`is_own`) may be in a reserved network, which
/// is free of the addresses of names.
pub fn address_problem(site: &Site, ipaddr: Ipv4Addr, is_own: bool) -> Option<String> {
    let choose = if is_own { "another address" } else { "another position" };
    let reserved = |net: &&Ipv4Net| net.contains(&ipaddr);
    if let Some(net) = site.cluster.reserved.iter().find(reserved).filter(|_| !is_own) {
        return Some(format!("which is in the reserved network {net}; choose {choose}"));
    }
    let Some(subnet) = site.subnet_of(ipaddr) else {
        let networks: List = site.subnets.iter().map(|s| s.network).collect();
        return Some(format!(
            "which is in none of the site's networks ({networks}); add a [[subnet]] to the site file, or choose {choose}"
        ));
    };
    claimed(subnet, ipaddr).map(|what| format!("which is {what}; choose {choose}"))
}

/// Other uses of that address in its subnet; none if it is free.
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
