//! Whether a change of the inventory may happen, and what it makes; without any effect of its own.

use super::{Inventory, Node};
use crate::config::{Site, Subnet};
use ipnet::Ipv4Net;
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, sync::Arc};
use thiserror::Error;

/// Hardware addresses that one node may have: four two-port cards.
pub const HWADDRS_PER_NODE: usize = 8;

/// A node as an administrator names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// Name by the site's pattern; the address follows from it.
    pub name: String,
    /// Hardware addresses, the one that boots first.
    pub hwaddrs: Vec<HwAddr>,
    /// Profile; `default` if none is named.
    #[serde(default)]
    pub profile: Option<String>,
}

/// Why the inventory stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InventoryError {
    /// The name is none.
    #[error("{0}")]
    Name(String),
    /// The name is taken.
    #[error(
        "node {name} exists already, with hwaddr {hwaddrs}; to see it: rackstrap node show {name}; to give it other \
         hardware: rackstrap node delete {name}, then add it again"
    )]
    Exists {
        /// The name.
        name: String,
        /// What it has.
        hwaddrs: List,
    },
    /// No hardware address at all.
    #[error(
        "node {0}: without a hardware address it would never be recognised; add --hwaddr with the address that its \
         network card shows when it boots, such as --hwaddr 52:54:00:01:01:01"
    )]
    NoHwaddr(String),
    /// Too many of them.
    #[error("node {name}: {count} hardware addresses; a node has at most {HWADDRS_PER_NODE}")]
    TooManyHwaddrs {
        /// The node.
        name: String,
        /// How many.
        count: usize,
    },
    /// The same one twice.
    #[error("node {name}: hwaddr {hwaddr} is named twice; name each once")]
    Repeated {
        /// The node.
        name: String,
        /// The address.
        hwaddr: HwAddr,
    },
    /// No card has such an address.
    #[error("node {name}: hwaddr {hwaddr} is {what}, which no network card has; look at the card's label again")]
    NoCard {
        /// The node.
        name: String,
        /// The address.
        hwaddr: HwAddr,
        /// What it is.
        what: &'static str,
    },
    /// Another node has it.
    #[error(
        "node {name}: hwaddr {hwaddr} already belongs to {owner}; to move it: rackstrap node delete {owner}, then \
         rackstrap node add {name} --hwaddr {hwaddr}"
    )]
    Taken {
        /// The node.
        name: String,
        /// The address.
        hwaddr: HwAddr,
        /// Who has it.
        owner: String,
    },
    /// The address that follows from the name cannot be used.
    #[error("node {name}: its address would be {ipaddr}, {why}")]
    Address {
        /// The node.
        name: String,
        /// The address.
        ipaddr: Ipv4Addr,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// No such profile.
    #[error("node {name}: there is no profile '{profile}'{}", hint(near, known))]
    Profile {
        /// The node.
        name: String,
        /// What was named.
        profile: String,
        /// What was probably meant.
        near: Option<String>,
        /// What there is.
        known: List,
    },
    /// No such node.
    #[error("there is no node '{name}'{}", near.as_ref().map_or(
        "; to see all: rackstrap node list".to_owned(), |near| format!("; did you mean {near}?")))]
    Unknown {
        /// What was named.
        name: String,
        /// What was probably meant.
        near: Option<String>,
    },
}

/// Several things, with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List(Vec<String>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl<T: ToString> FromIterator<T> for List {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        List(items.into_iter().map(|item| item.to_string()).collect())
    }
}

fn hint(near: &Option<String>, known: &List) -> String {
    match near {
        Some(near) => format!("; did you mean '{near}'?"),
        None => format!("; the site file has: {known}"),
    }
}

/// The node that adding `new` makes, if nothing speaks against it.
pub fn check_add(inventory: &Inventory, site: &Site, new: &NewNode) -> Result<Node, InventoryError> {
    let name = new.name.clone();
    let address = site.cluster.naming.name_to_address(&name);
    let ipaddr = address.map_err(|error| InventoryError::Name(error.to_string()))?;
    if let Some(node) = inventory.get(&name) {
        return Err(InventoryError::Exists {
            name,
            hwaddrs: node.hwaddrs.iter().collect(),
        });
    }
    check_hwaddrs(inventory, &name, &new.hwaddrs)?;
    if let Some(why) = unusable(inventory, site, ipaddr) {
        return Err(InventoryError::Address { name, ipaddr, why });
    }
    let profile = new.profile.clone().unwrap_or_else(|| "default".to_owned());
    if !site.profiles.contains_key(&profile) {
        return Err(InventoryError::Profile {
            near: nearest(&profile, site.profiles.keys().map(String::as_str)),
            known: site.profiles.keys().collect(),
            name,
            profile,
        });
    }
    Ok(Node {
        name,
        hwaddrs: new.hwaddrs.clone(),
        ipaddr,
        profile,
    })
}

/// The node of that name, or an error that says which one was probably meant.
pub fn find<'a>(inventory: &'a Inventory, name: &str) -> Result<&'a Arc<Node>, InventoryError> {
    inventory.get(name).ok_or_else(|| InventoryError::Unknown {
        near: nearest(name, inventory.iter().map(|node| node.name.as_str())),
        name: name.chars().take(64).collect(),
    })
}

fn check_hwaddrs(inventory: &Inventory, name: &str, hwaddrs: &[HwAddr]) -> Result<(), InventoryError> {
    let name = name.to_owned();
    if hwaddrs.is_empty() {
        return Err(InventoryError::NoHwaddr(name));
    }
    if hwaddrs.len() > HWADDRS_PER_NODE {
        return Err(InventoryError::TooManyHwaddrs {
            name,
            count: hwaddrs.len(),
        });
    }
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
