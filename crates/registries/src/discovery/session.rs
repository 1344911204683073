//! A session: a rack that is being filled, position by position.

use super::machine::{Machine, Place};
use ipnet::Ipv4Net;
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::naming::Naming;
use rackstrap_model::inventory::Inventory;
use rackstrap_site::Site;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// Which machines belong to a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Where {
    /// Only machines behind this relay.
    pub relay: Option<Ipv4Addr>,
    /// Only machines at this switch (remote id of option 82).
    pub switch: Option<String>,
    /// Only machines at ports whose text (circuit id of option 82) begins with this.
    pub port: Option<String>,
}

/// A request to fill a rack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The rack: a name without its last number, `r03`.
    pub rack: String,
    /// The first position, `n01` or `r03n01`.
    #[serde(default)]
    pub from: Option<String>,
    /// Positions to leave free, `n05` or `r03n05`.
    #[serde(default)]
    pub skip: Vec<String>,
    /// Profiles of the new nodes.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Groups of the new nodes.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Whether each placement waits for a confirmation.
    #[serde(default)]
    pub confirm: bool,
    /// Whether machines that are waiting already are placed first.
    #[serde(default)]
    pub waiting_too: bool,
    /// How long to fill the rack, in seconds.
    pub secs: u64,
    /// Which machines are placed.
    #[serde(default)]
    pub only: Where,
}

/// A machine that got a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The machine, as it was when it waited.
    pub machine: Machine,
    /// The name of the node that it became.
    pub node: String,
    /// Time of the placement.
    pub at: Timestamp,
}

/// A rack that is being filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The rack's name.
    pub rack: String,
    /// The subnet of its addresses.
    pub network: Ipv4Net,
    /// The interface of that subnet; none if it is behind relays.
    pub interface: Option<String>,
    /// The position from which it continues.
    pub next: String,
    /// Positions that stay free.
    pub skip: BTreeSet<String>,
    /// Profiles of the new nodes.
    pub profiles: Vec<String>,
    /// Groups of the new nodes.
    pub groups: BTreeSet<String>,
    /// Whether each placement waits for a confirmation.
    pub confirm: bool,
    /// Which machines are placed.
    pub only: Where,
    /// When it began. Machines that were first seen before are not placed.
    pub began: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// The user who began it.
    pub by: String,
    /// Placed machines, in order.
    pub placed: Vec<Placed>,
}

/// All sessions by rack.
pub type Sessions = BTreeMap<String, Session>;

/// The longest session: a week, in seconds.
pub const LONGEST_SESSION: u64 = 7 * 86_400;

impl Session {
    /// Makes a session, next to the `others` that continue.
    ///
    /// # Errors
    /// The rack or a position does not exist, or the machines cannot be told apart from those of another session.
    pub fn begin(wanted: &Wanted, site: &Site, others: &Sessions, by: &str, now: Timestamp) -> Result<Session, String> {
        let naming = &site.cluster.naming;
        let rack = wanted.rack.as_str();
        let full = |text: &str| match text.strip_prefix(rack).filter(|_| !rack.is_empty()) {
            Some(_) => text.to_owned(),
            None => format!("{rack}{text}"),
        };
        let explain = |error: rackstrap_hostlist::naming::NamingError| {
            format!(
                "rack '{rack}': {error}; a rack is a name without its last number, such as {}",
                naming.example_racks()
            )
        };
        let next = match &wanted.from {
            Some(from) => naming.position_in("", Some(&full(from))),
            None => naming.position_in(rack, None),
        }
        .map_err(explain)?;
        if naming.rack_of(&next) != rack {
            return Err(format!("{next} is not in rack '{rack}'"));
        }
        let address = naming.name_to_address(&next).map_err(explain)?;
        let subnet = site.subnet_of(address).ok_or_else(|| {
            format!("{next} would have {address}, which is in no [[subnet]] of the site file; add the subnet first")
        })?;
        let mut skip = BTreeSet::new();
        for text in &wanted.skip {
            skip.insert(naming.position_in("", Some(&full(text))).map_err(explain)?);
        }
        for profile in &wanted.profiles {
            if !site.profiles.contains_key(profile) {
                return Err(format!("profile '{profile}' is not in the site file"));
            }
        }
        if !(1..=LONGEST_SESSION).contains(&wanted.secs) {
            return Err(format!(
                "rack '{rack}': a rack can be filled for 1 second to {} days, not for {} s",
                LONGEST_SESSION / 86_400,
                wanted.secs
            ));
        }
        let session = Session {
            rack: rack.to_owned(),
            network: subnet.network,
            interface: subnet.interface.clone(),
            next,
            skip,
            profiles: wanted.profiles.clone(),
            groups: wanted.groups.clone(),
            confirm: wanted.confirm,
            only: wanted.only.clone(),
            began: if wanted.waiting_too { Timestamp(0) } else { now },
            until: now.plus_secs(wanted.secs),
            by: by.to_owned(),
            placed: Vec::new(),
        };
        if others.contains_key(rack) {
            return Err(format!(
                "rack {rack} is already being filled; to watch: rackstrap discover watch {rack}; to stop: rackstrap \
                 discover stop {rack}"
            ));
        }
        match others.values().find(|other| !session.is_apart_from(other)) {
            Some(other) => Err(format!(
                "rack {} is already being filled, and its machines cannot be told from those of {rack}: both are {}; \
                 name the relay, switch or ports of each (--relay, --switch, --port), or stop the other rack: \
                 rackstrap discover stop {}",
                other.rack,
                match &session.interface {
                    Some(interface) => format!("on {interface}"),
                    None => format!("in {}", session.network),
                },
                other.rack
            )),
            None => Ok(session),
        }
    }

    /// Whether no machine can belong to both.
    fn is_apart_from(&self, other: &Session) -> bool {
        let (a, b) = (&self.only, &other.only);
        let differ = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        let ports = matches!((&a.port, &b.port), (Some(a), Some(b)) if !a.starts_with(b.as_str()) && !b.starts_with(a.as_str()));
        let wires = match (&self.interface, &other.interface) {
            // Several subnets may share a wire.
            (Some(a), Some(b)) => a != b,
            (None, None) => self.network != other.network,
            _ => true,
        };
        wires || matches!((a.relay, b.relay), (Some(a), Some(b)) if a != b) || differ(&a.switch, &b.switch) || ports
    }

    /// Whether a machine at `place` belongs to this rack.
    pub fn covers(&self, place: &Place) -> bool {
        let only = &self.only;
        let here = match place.relay {
            Some(relay) => self.network.contains(&relay),
            None => self.interface.as_ref() == Some(&place.interface),
        };
        // A relay may be named whose own address is in another network.
        (here || only.relay.is_some())
            && only.relay.is_none_or(|relay| place.relay == Some(relay))
            && only.switch.as_ref().is_none_or(|switch| *switch == place.switch)
            && only
                .port
                .as_ref()
                .is_none_or(|port| place.port.starts_with(port.as_str()))
    }

    /// Whether the session runs at `now`. A clock that was set back before its beginning ends it, instead of prolonging it.
    pub fn is_on(&self, now: Timestamp) -> bool {
        now.is_within(self.until.since(self.began), self.began)
    }

    /// The next free position, if any: no node has its name, and a node may have its address.
    pub fn position(&self, site: &Site, inventory: &Inventory) -> Option<String> {
        let mut candidate = Some(self.next.clone());
        while let Some(name) = candidate {
            let free = !self.skip.contains(&name)
                && inventory.get(&name).is_none()
                && site
                    .cluster
                    .address_of(&name)
                    .is_ok_and(|address| self.network.contains(&address) && inventory.by_ipaddr(address).is_none());
            if free {
                return Some(name);
            }
            candidate = site.cluster.naming.after(&name);
        }
        None
    }

    /// Records that a machine was placed.
    pub fn place(&mut self, naming: &Naming, machine: Machine, node: &str, at: Timestamp) {
        if let Some(next) = naming.after(node) {
            self.next = next;
        }
        self.placed.push(Placed {
            machine,
            node: node.to_owned(),
            at,
        });
    }

    /// Removes the last placement, whose position is the next one again.
    pub fn undo(&mut self) -> Option<Placed> {
        let last = self.placed.pop()?;
        self.next = last.node.clone();
        Some(last)
    }
}
