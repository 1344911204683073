//! Whether the networks of `[[network]]` fit together, to the subnets, and to the nodes' names and addresses.

use super::{
    Cluster, Network,
    diagnostic::{Report, quote},
    network::Read,
    vars::has_variables,
};
use ipnet::Ipv4Net;
use rackstrap_base::{subnet::Subnet, words::closest};
use rackstrap_hostlist::naming::{Naming, Pattern};
use rackstrap_wire::{BOOT_NETWORK, NetworkKind};
use std::net::Ipv4Addr;

/// The parts of the site that networks depend on.
pub(super) struct Rest<'a> {
    pub cluster: &'a Cluster,
    pub subnets: &'a [Subnet],
    /// Whether all networks could be read. If not, names of networks are not reported as unknown.
    pub complete: bool,
}

/// Reports what does not fit, and puts each network after those that it is made of.
pub(super) fn check(report: &mut Report<'_>, all: &mut Vec<Read>, rest: &Rest<'_>) {
    for (i, this) in all.iter().enumerate() {
        if all[..i].iter().any(|other| other.value.name == this.value.name) {
            let message = format!("two networks have the name {}", quote(&this.value.name));
            report.error(
                this.name_at.clone(),
                message,
                "give each its own name; it names the interface",
            );
            return;
        }
    }
    for this in all.iter() {
        references(report, all, this, rest);
    }
    for this in all.iter() {
        sizes(report, all, this);
        beside_boot_network(report, all, this, rest.subnets);
        unused(report, all, this);
        addresses(report, this);
    }
    cards(report, all);
    overlaps(report, all, rest);
    patterns(report, all, rest.cluster);
    in_order(report, all);
}

fn find<'a>(all: &'a [Read], name: &str) -> Option<&'a Read> {
    all.iter().find(|read| read.value.name == name)
}

/// The key that names what a network is made of.
fn key_below(kind: &NetworkKind) -> &'static str {
    match kind {
        NetworkKind::Vlan { .. } => "parent",
        _ => "members",
    }
}

/// Members and parents.
fn references(report: &mut Report<'_>, all: &[Read], this: &Read, rest: &Rest<'_>) {
    let kind = &this.value.kind;
    let at = this.key_at(key_below(kind));
    for (i, name) in kind.below().iter().enumerate() {
        let error = |report: &mut Report<'_>, message: String, help: String| report.error(at.clone(), message, help);
        if kind.below()[..i].contains(name) {
            error(
                report,
                format!("{} is a member twice", quote(name)),
                "name it once".to_owned(),
            );
            continue;
        }
        if name == BOOT_NETWORK {
            on_boot_card(report, all, this);
            continue;
        }
        let Some(below) = find(all, name) else {
            if rest.complete {
                let names = all.iter().map(|read| read.value.name.as_str());
                let help = match closest(name, names.filter(|other| *other != this.value.name)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("add a [[network]] with name = \"{name}\""),
                };
                error(report, format!("the network {} does not exist", quote(name)), help);
            }
            continue;
        };
        if is_made_by_agent(all, below) && !(is_on_boot_card(below) && matches!(kind, NetworkKind::Vlan { .. })) {
            let message = format!(
                "'{name}' is on the boot card, so only the agent makes it, and it cannot be below '{}'",
                this.value.name
            );
            let help = "name other cards; the boot card can be in a bond, and it and the bond can have VLANs";
            error(report, message, help.to_owned());
            continue;
        }
        if !covers(&below.value, &this.value) {
            let message = format!(
                "nodes may have the network '{}' without '{name}', which it is made of",
                this.value.name
            );
            let help = format!("give '{name}' the same 'profiles', or none");
            error(report, message, help);
        }
        if matches!(kind, NetworkKind::Vlan { .. }) {
            if matches!(below.value.kind, NetworkKind::Infiniband { .. }) {
                let message = format!("'{name}' is an InfiniBand network, which carries partitions and no VLANs");
                error(
                    report,
                    message,
                    "name an Ethernet network, a bond or a bridge".to_owned(),
                );
            }
            continue;
        }
        let fits = match (kind, &below.value.kind) {
            (NetworkKind::Bond { mode, .. }, NetworkKind::Infiniband { .. }) => mode == "active-backup",
            (NetworkKind::Bond { .. }, kind) => matches!(kind, NetworkKind::Ethernet { .. }),
            (_, kind) => !matches!(kind, NetworkKind::Infiniband { .. } | NetworkKind::Bridge { .. }),
        };
        if !fits {
            let message = format!(
                "'{name}' of type {} cannot be a member of this {}",
                below.value.kind.as_str(),
                kind.as_str()
            );
            let help = match kind {
                NetworkKind::Bond { .. } => {
                    "bonds have members of type ethernet, and with mode = \"active-backup\" of type infiniband"
                }
                _ => "bridges have members of type ethernet, bond and vlan",
            };
            error(report, message, help.to_owned());
        }
        if !below.patterns.is_empty() {
            let message = format!(
                "'{name}' is a member of '{}', and has addresses of its own",
                this.value.name
            );
            report.error(
                below.address_at.clone(),
                message,
                format!("move node-address to '{}'", this.value.name),
            );
        }
        let others = all.iter().filter(|other| other.value.name != this.value.name);
        let mut joined = others.filter(|other| !matches!(other.value.kind, NetworkKind::Vlan { .. }));
        if let Some(other) =
            joined.find(|other| other.value.kind.below().contains(name) && other.at.start < this.at.start)
        {
            let message = format!(
                "'{name}' is a member of '{}' and of '{}'",
                other.value.name, this.value.name
            );
            error(
                report,
                message,
                "a network is a member of one bond or bridge".to_owned(),
            );
        }
    }
}

/// The root is mounted through the boot card: it can be in a bond, which the agent makes before, and in nothing else.
fn on_boot_card(report: &mut Report<'_>, all: &[Read], this: &Read) {
    let at = this.key_at(key_below(&this.value.kind));
    let mode = match &this.value.kind {
        NetworkKind::Bond { mode, .. } => mode,
        NetworkKind::Vlan { .. } => return,
        kind => {
            return report.error(
                at,
                format!(
                    "the boot card cannot be in a {}: the root is mounted through it",
                    kind.as_str()
                ),
                "leave \"boot\" out, and name other cards",
            );
        }
    };
    let name = &this.value.name;
    let earlier = all.iter().find(|other| {
        let joins = matches!(other.value.kind, NetworkKind::Bond { .. });
        joins && is_on_boot_card(other) && other.at.start < this.at.start && meet(&other.value, &this.value)
    });
    if let Some(other) = earlier {
        let message = format!("the boot card is a member of '{}' and of '{name}'", other.value.name);
        report.error(at.clone(), message, "a card is a member of one bond");
    }
    for (key, instead) in [
        ("node-address", "the bond has the nodes' addresses of [[subnet]]"),
        ("mtu", "write mtu in [[subnet]]"),
    ] {
        let has = if key == "mtu" {
            this.value.mtu.is_some()
        } else {
            !this.patterns.is_empty()
        };
        if has {
            let message = format!("'{name}' has the boot card, so it is the boot network, and has no '{key}'");
            report.error(this.key_at(key), message, format!("remove '{key}': {instead}"));
        }
    }
    if !NEEDS_NO_SWITCH.contains(&mode.as_str()) {
        let help = match mode.as_str() {
            "802.3ad" => {
                "make a group with LACP of the ports on the switch, in which a port forwards without LACP, too ('lacp fallback', 'force-up' or \
                          'no suspend-individual'); or write mode = \"active-backup\", which needs nothing on the switch"
            }
            _ => {
                "make a group of the ports on the switch; or write mode = \"active-backup\", which needs nothing on the switch"
            }
        };
        let message =
            format!("the switch must know the bond '{name}', and firmware boots through one port of it without a bond");
        report.warn(this.key_at("mode"), message, help);
    }
}

/// The modes for which switches need no group of ports (Documentation/networking/bonding.rst of the kernel).
const NEEDS_NO_SWITCH: [&str; 3] = ["active-backup", "balance-tlb", "balance-alb"];

/// Whether it is that bond, or a VLAN on it or on the boot card: the agent makes them.
fn is_made_by_agent(all: &[Read], read: &Read) -> bool {
    let parent = match &read.value.kind {
        NetworkKind::Vlan { parent, .. } => parent,
        _ => return is_on_boot_card(read),
    };
    parent == BOOT_NETWORK || find(all, parent).is_some_and(is_on_boot_card)
}

/// A further VLAN on the boot card, and the boot network itself: their numbers and sizes.
fn beside_boot_network(report: &mut Report<'_>, all: &[Read], this: &Read, subnets: &[Subnet]) {
    let NetworkKind::Vlan { id, .. } = this.value.kind else {
        return;
    };
    if !is_made_by_agent(all, this) {
        return;
    }
    if let Some(subnet) = subnets.iter().find(|subnet| subnet.vlan == Some(id)) {
        let message = format!("VLAN {id} is the boot network {} itself", subnet.network);
        report.error(this.key_at("id"), message, "choose another id, or remove the network");
    }
    let most = subnets.iter().map(|subnet| subnet.mtu.unwrap_or(1500)).min();
    if let (Some(mtu), Some(most)) = (this.value.mtu, most)
        && mtu > most
    {
        let message = format!("mtu = {mtu} is more than the {most} of the boot network, on whose card it is");
        report.error(this.key_at("mtu"), message, format!("write mtu = {mtu} in [[subnet]]"));
    }
}

/// Whether it is the bond with the boot card.
fn is_on_boot_card(read: &Read) -> bool {
    read.value.kind.is_boot_bond()
}

/// Whether each node that has `this` also has `below`.
fn covers(below: &Network, this: &Network) -> bool {
    match (&below.profiles, &this.profiles) {
        (None, _) => true,
        (Some(below), _) if below.iter().any(|name| name == "default") => true,
        (Some(below), Some(this)) => this.iter().all(|name| below.contains(name)),
        (Some(_), None) => false,
    }
}

/// Whether a node may have both. Two lists without a common name meet only on nodes that have profiles of both.
fn meet(one: &Network, other: &Network) -> bool {
    match (&one.profiles, &other.profiles) {
        (Some(a), Some(b)) => {
            a.iter().any(|name| b.contains(name) || name == "default") || b.iter().any(|b| b == "default")
        }
        _ => true,
    }
}

/// The MTU of what a network is made of.
fn sizes(report: &mut Report<'_>, all: &[Read], this: &Read) {
    let Some(mtu) = this.value.mtu else { return };
    for below in this.value.kind.below().iter().filter_map(|name| find(all, name)) {
        let name = &below.value.name;
        match (&this.value.kind, below.value.mtu) {
            // The kernel refuses a VLAN whose packets its parent does not carry (vlan_dev_change_mtu in net/8021q/vlan_dev.c).
            (NetworkKind::Vlan { .. }, other) if mtu > other.unwrap_or(1500) => {
                let message = format!(
                    "mtu = {mtu} is more than the {} of '{name}' below it",
                    other.unwrap_or(1500)
                );
                report.error(this.key_at("mtu"), message, format!("write mtu = {mtu} in '{name}'"));
            }
            (NetworkKind::Bond { .. } | NetworkKind::Bridge { .. }, Some(other)) if other != mtu => {
                let message = format!(
                    "'{name}' has mtu = {other}, and '{}', whose member it is, {mtu}",
                    this.value.name
                );
                report.error(
                    below.key_at("mtu"),
                    message,
                    "remove it: members take the MTU of their bond or bridge",
                );
            }
            _ => {}
        }
    }
}

/// A network that carries nothing is probably an error.
fn unused(report: &mut Report<'_>, all: &[Read], this: &Read) {
    let name = &this.value.name;
    let used = all.iter().any(|other| other.value.kind.below().contains(name));
    if this.patterns.is_empty() && !used && !is_on_boot_card(this) {
        let message = format!("the network '{name}' has no addresses, and no other network is made of it");
        report.warn(
            this.name_at.clone(),
            message,
            "write node-address = \"10.6.{rack}.{slot}\" and prefix = 16",
        );
    }
    let card = this.value.kind.card();
    let mac = card
        .and_then(|card| card.mac.as_ref())
        .filter(|mac| !has_variables(mac));
    if let Some(mac) = mac.filter(|_| this.value.profiles.is_none()) {
        let message = format!("all nodes have the network '{name}', and one node has a card with the address {mac}");
        let help =
            "write mac = \"{{ vars.NAME }}\" and set that variable on each node, or choose the card by driver or place";
        report.warn(this.key_at("match"), message, help);
    }
}

/// Two networks of one node on one card.
fn cards(report: &mut Report<'_>, all: &[Read]) {
    for (i, this) in all.iter().enumerate() {
        let Some(card) = this.value.kind.card() else { continue };
        let same = |other: &&Read| other.value.kind.card() == Some(card) && meet(&other.value, &this.value);
        if let Some(other) = all[..i].iter().find(same) {
            let message = format!(
                "'{}' and '{}' are for the same card: {card}",
                other.value.name, this.value.name
            );
            report.error(
                this.key_at("match"),
                message,
                "give each its own card, such as by port = 1 and port = 2",
            );
        }
    }
}

/// Routers, and addresses that no host can have.
fn addresses(report: &mut Report<'_>, this: &Read) {
    let prefix = this.value.prefix;
    for pattern in &this.patterns {
        let named = |address: Ipv4Addr| pattern.address_to_name(address).unwrap_or_default();
        if let Some(address) = pattern.edge_address(prefix) {
            let message = format!(
                "{} would have {address}, the first or the last address of its network of {prefix} bits",
                named(address)
            );
            report.error(
                this.address_at.clone(),
                message,
                "choose another prefix or another node-address",
            );
        }
        let routers = this.value.router.iter().map(|router| ("router", *router));
        let routers = routers.chain(this.value.routes.iter().map(|route| ("routes", route.via)));
        for (key, router) in routers {
            let around = Ipv4Net::new(router, prefix).map(|net| net.trunc());
            let outside = around
                .ok()
                .and_then(|net| pattern.first_address(Ipv4Net::default(), &[net]));
            if let Some(address) = outside {
                let message = format!(
                    "{router} is not in the network of {}, {address}/{prefix}",
                    named(address)
                );
                report.error(
                    this.key_at(key),
                    message,
                    "name a router in the network, or choose a shorter prefix",
                );
            } else if let Some(name) = pattern.address_to_name(router) {
                let message = format!("the router's address {router} is also that of {name}");
                let help =
                    "name another address, or choose a node-address with an offset, such as 10.6.{rack}.{slot+10}";
                report.error(this.key_at(key), message, help);
            }
        }
    }
}

/// Networks that overlap a subnet or each other.
fn overlaps(report: &mut Report<'_>, all: &[Read], rest: &Rest<'_>) {
    for (i, this) in all.iter().enumerate() {
        let prefix = this.value.prefix;
        for subnet in rest.subnets {
            let mut near = this.patterns.iter().filter_map(|pattern| {
                let address = pattern.address_near(prefix, subnet.network)?;
                Some((address, pattern.address_to_name(address)?))
            });
            if let Some((address, name)) = near.next() {
                let message = format!(
                    "the network of {name}, {address}/{prefix}, overlaps the subnet {}",
                    subnet.network
                );
                report.error(
                    this.address_at.clone(),
                    message,
                    "give the network addresses of its own",
                );
                break;
            }
        }
        for other in &all[..i] {
            let pairs = this
                .patterns
                .iter()
                .flat_map(|a| other.patterns.iter().map(move |b| (a, b)));
            let common = |(a, b): (&Pattern, &Pattern)| a.common_network(prefix, b, other.value.prefix);
            if let Some(network) = pairs.filter_map(common).next() {
                let message = format!(
                    "the networks '{}' and '{}' overlap in {network}",
                    other.value.name, this.value.name
                );
                report.error(this.address_at.clone(), message, "give each network its own addresses");
            }
        }
    }
}

/// Names and addresses of all nodes in all networks are disjoint.
fn patterns(report: &mut Report<'_>, all: &mut [Read], cluster: &Cluster) {
    // Clashes between addresses of networks are overlaps, which were reported.
    let clean = report.is_clean();
    let nodes = cluster.naming.patterns();
    let owners: Vec<usize> = (all.iter().enumerate())
        .flat_map(|(i, read)| read.patterns.iter().map(move |_| i))
        .collect();
    let of_networks = all.iter().flat_map(|read| read.patterns.iter().cloned());
    let clashes = Naming::of(nodes.iter().cloned().chain(of_networks).collect()).err();
    let mut reported = None;
    for clash in clashes.into_iter().flatten().filter(|_| clean) {
        let owner = clash.second.checked_sub(nodes.len()).and_then(|at| owners.get(at));
        if let Some(owner) = owner.filter(|owner| reported != Some(**owner)) {
            let message = format!("{}: {}", clash.kind, clash.message);
            let help = "give the nodes of each network their own names and addresses: another name of the network, another node-address";
            report.error(all[*owner].address_at.clone(), message, help);
            reported = Some(*owner);
        }
    }
    for read in all {
        read.value.hosts = match read.patterns.is_empty() {
            true => None,
            false => Naming::of(read.patterns.clone()).ok(),
        };
    }
}

/// Puts each network after those that it is made of; reports a circle.
fn in_order(report: &mut Report<'_>, all: &mut Vec<Read>) {
    let mut rest = std::mem::take(all);
    while !rest.is_empty() {
        let waits = |read: &Read| {
            let below = read.value.kind.below().iter();
            let mut below = below.filter(|name| rest.iter().any(|other| other.value.name == **name));
            below.next().is_some()
        };
        match rest.iter().position(|read| !waits(read)) {
            Some(at) => all.push(rest.remove(at)),
            None => {
                let names: Vec<String> = rest.iter().map(|read| format!("'{}'", read.value.name)).collect();
                let at = rest[0].key_at(key_below(&rest[0].value.kind));
                let message = format!("the networks {} are made of each other", names.join(", "));
                report.error(at, message, "name a network below each that is made of cards");
                all.append(&mut rest);
            }
        }
    }
}
