//! `[[subnet]]`: the networks, and whether they fit together and to the nodes' addresses.

use super::{
    cluster::{self, read_network},
    dhcp_options,
    diagnostic::{Report, quote},
    section::Section,
};
use ipnet::{Ipv4Net, Ipv4Subnets};
use rackstrap_base::subnet::{DhcpPart, Subnet};
use rackstrap_base::words::closest;
use rackstrap_hostlist::naming::Pattern;
use std::{net::Ipv4Addr, ops::Range};
use toml::Spanned;

pub(super) const EXAMPLE: &str =
    "write [[subnet]], and below it network = \"10.5.0.0/16\", interface = \"eth1\" and server = \"10.5.0.1\"";

/// `IFNAMSIZ` of linux/if.h is 16, including the final NUL.
const INTERFACE_NAME: usize = 15;
/// Limit of name servers and time servers: a DHCP option has 255 bytes (RFC 2132 section 2), and resolvers use three.
const MOST_SERVERS: usize = 8;
const VLAN_KEY: &str = "vlan";
/// 0 and 4095 are not VLANs (IEEE 802.1Q-2022, table 9-2).
const VLANS: std::ops::RangeInclusive<u64> = 1..=4094;

/// A checked subnet, with the places of its values.
pub(super) struct Read {
    pub value: Subnet,
    network_at: Range<usize>,
    server_at: Range<usize>,
    router_at: Range<usize>,
    pool_at: Range<usize>,
    dns: Vec<Spanned<Ipv4Addr>>,
    dhcp_at: Range<usize>,
    vlan_at: Range<usize>,
    /// Whether the subnet has a list of name servers, even an empty one.
    pub dns_given: bool,
}

pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>) -> Option<Read> {
    section.require(report, "network", "\"10.5.0.0/16\"");
    section.require(report, "server", "\"10.5.0.1\"");
    let network = section.parsed(report, "network", "\"10.5.0.0/16\"", |text| {
        if let Ok(net) = text.parse::<Ipv4Net>()
            && !(8..=30).contains(&net.prefix_len())
        {
            let help = "write a prefix of 8 to 30 bits, such as \"10.5.0.0/16\"";
            return Err((format!("'{net}' is not the size of a subnet"), help.to_owned()));
        }
        let network = read_network(text, "10.5.0.0/16")?;
        let first = network.addr().octets()[0];
        if first == 0 || first >= 224 {
            let help = "write a network that hosts can be in, such as \"10.5.0.0/16\"";
            return Err((format!("hosts cannot have addresses in {network}"), help.to_owned()));
        }
        if !(8..=30).contains(&network.prefix_len()) {
            let help = format!("write its prefix too, such as \"{}/16\"", network.addr());
            return Err((format!("{} is an address without a prefix", network.addr()), help));
        }
        Ok(network)
    });
    let server = section.parsed(report, "server", "\"10.5.0.1\"", read_address);
    let router = section.parsed(report, "router", "\"10.5.0.1\"", read_address);
    let pool = section.parsed(report, "pool", "\"10.5.255.1-10.5.255.254\"", read_pool);
    let interface = read_interface(report, section);
    let servers = |report: &mut Report<'_>, key| {
        let all = section
            .list(report, key, "[\"10.5.0.1\"]", read_address)
            .unwrap_or_default();
        if all.len() > MOST_SERVERS {
            let message = format!("there are {} servers in '{key}', at most {MOST_SERVERS}", all.len());
            report.error(section.key_at(key), message, "keep the nearest ones");
        }
        all
    };
    let (dns, ntp) = (servers(report, "dns"), servers(report, "ntp"));
    let dhcp_servers = servers(report, "dhcp-servers");
    let next_server = section.parsed(report, "next-server", "\"10.5.0.1\"", read_address);
    let lease_secs = section
        .seconds(report, "lease-time", 60..=30 * 86400, "12h")
        .unwrap_or(12 * 3600);
    let pool_lease_secs = section
        .seconds(report, "pool-lease-time", 30..=86400, "2m")
        .unwrap_or(120);

    let dhcp = read_dhcp(report, section);
    let mtu = dhcp_options::read_mtu(report, section);
    let options = dhcp_options::read(report, section).unwrap_or_default();
    if dhcp.is_of_another_server() && !options.is_empty() {
        report.warn(
            section.key_at(dhcp_options::KEY),
            format!(
                "with dhcp = \"{dhcp}\" another server's answers count, so '{}' has no effect",
                dhcp_options::KEY
            ),
            "remove it, and set the options in your DHCP server",
        );
    }

    let vlan = section.integer(report, VLAN_KEY, VLANS, 5);

    let (network, server) = (network?, server?);
    let (net, relayed) = (*network.get_ref(), interface.is_none());
    if relayed && section.get("interface").is_none() && !net.contains(server.get_ref()) && router.is_none() {
        let message = format!(
            "nodes in {net} cannot reach the server {} without a router",
            server.get_ref()
        );
        let first = Ipv4Addr::from(u32::from(net.network()) + 1);
        report.error(
            section.at.clone(),
            message,
            format!("write router = \"{first}\", with the relay's address there"),
        );
    }
    if !relayed || net.contains(server.get_ref()) {
        inside(report, &server, net, "server");
    }
    if let Some(router) = &router {
        inside(report, router, net, "router");
    }
    if let Some(next) = next_server.as_ref().filter(|next| next.get_ref() != server.get_ref()) {
        let (next, server) = (next.get_ref(), server.get_ref());
        report.error(
            section.key_at("next-server"),
            format!("GRUB and U-Boot ask 'next-server' for their files: {next} is not the server {server}"),
            format!("set next-server to {server} in your DHCP server, and write next-server = \"{server}\""),
        );
    }
    dhcp_options::check_routers(report, section, &options, net);
    if let Some(pool) = &pool {
        check_pool(
            report,
            pool,
            net,
            *server.get_ref(),
            router.as_ref().map(|r| *r.get_ref()),
        );
    }
    let plain = |all: &[Spanned<Ipv4Addr>]| all.iter().map(|a| *a.get_ref()).take(MOST_SERVERS).collect();
    Some(Read {
        network_at: network.span(),
        server_at: server.span(),
        router_at: section.key_at("router"),
        pool_at: pool.as_ref().map_or(section.at.clone(), Spanned::span),
        value: Subnet {
            network: net,
            interface,
            server: server.into_inner(),
            vlan: vlan.and_then(|vlan| u16::try_from(vlan.into_inner()).ok()),
            dhcp,
            dhcp_servers: plain(&dhcp_servers),
            next_server: next_server.is_some(),
            router: router.map(Spanned::into_inner),
            dns: plain(&dns),
            ntp: plain(&ntp),
            mtu,
            options,
            pool: pool.map(Spanned::into_inner),
            lease_secs,
            pool_lease_secs,
        },
        dhcp_at: section.key_at("dhcp"),
        vlan_at: section.key_at(VLAN_KEY),
        dns,
        dns_given: section.get("dns").is_some(),
    })
}

/// `dhcp`, and the settings that only a server of addresses has.
fn read_dhcp(report: &mut Report<'_>, section: &Section<'_>) -> DhcpPart {
    let part: Option<Spanned<DhcpPart>> = section.parsed(report, "dhcp", "\"proxy\"", |text| {
        text.parse().map_err(|()| {
            let all = DhcpPart::ALL.map(|part| format!("\"{part}\""));
            let near = closest(text, DhcpPart::ALL.map(DhcpPart::as_str));
            let help = match near {
                Some(near) => format!("did you mean dhcp = \"{near}\"?"),
                None => format!(
                    "write {}: the daemon gives addresses and boot files; or {}: boot files only; or {}: neither",
                    all[0], all[1], all[2]
                ),
            };
            (format!("{} is not a part of DHCP", quote(text)), help)
        })
    });
    let part = part.map(Spanned::into_inner).unwrap_or_default();
    if !part.is_of_another_server() {
        for key in ["dhcp-servers", "next-server"] {
            if section.get(key).is_some() {
                report.error(
                    section.key_at(key),
                    format!("with dhcp = \"full\" rackstrap itself gives the addresses, so '{key}' cannot be used"),
                    "remove it; or write dhcp = \"proxy\" or \"off\", if your DHCP server gives the addresses",
                );
            }
        }
        return part;
    }
    if section.get("pool").is_some() {
        report.error(
            section.key_at("pool"),
            format!("with dhcp = \"{part}\" unknown machines get no address from rackstrap, so 'pool' cannot be used"),
            "remove the pool; your DHCP server gives unknown machines their addresses. Or write dhcp = \"full\"",
        );
    }
    for key in ["lease-time", "pool-lease-time"] {
        if section.get(key).is_some() {
            report.warn(
                section.key_at(key),
                format!("with dhcp = \"{part}\" the daemon leases no addresses, so '{key}' has no effect"),
                "remove it; your DHCP server has its own",
            );
        }
    }
    part
}

/// `interface = "…"` or `relayed = true`, but not both.
fn read_interface(report: &mut Report<'_>, section: &Section<'_>) -> Option<String> {
    let relayed = section.boolean(report, "relayed");
    let interface = section.parsed(report, "interface", "\"eth1\"", |text| {
        // The names that the kernel accepts: dev_valid_name() in net/core/dev.c.
        let fits = (1..=INTERFACE_NAME).contains(&text.len()) && text != "." && text != "..";
        let clean = text.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
        match fits && clean {
            true => Ok(text.to_owned()),
            false => Err((
                format!("{} is not the name of a network interface", quote(text)),
                format!("write it as `ip link` shows it, at most {INTERFACE_NAME} bytes, such as interface = \"eth1\""),
            )),
        }
    });
    let both = "write interface = \"eth1\" if the server has a card in this network, \
                relayed = true if requests come through a DHCP relay";
    match relayed {
        Some(yes) if *yes.get_ref() && section.get("interface").is_some() => {
            report.error(
                yes.span(),
                "a subnet is attached to an interface or relayed, not both",
                both,
            );
        }
        None if section.get("relayed").is_some() => {}
        Some(yes) if *yes.get_ref() => {}
        _ if section.get("interface").is_none() => {
            report.error(
                section.at.clone(),
                "[[subnet]] has neither 'interface' nor 'relayed'",
                both,
            );
        }
        _ => {}
    }
    interface.map(Spanned::into_inner)
}

fn read_address(text: &str) -> Result<Ipv4Addr, (String, String)> {
    let help = || "write one address, such as \"10.5.0.1\"".to_owned();
    match text.parse::<Ipv4Addr>() {
        Ok(a) if a.is_unspecified() || a.is_multicast() || a.is_broadcast() => {
            Err((format!("no host can have the address {a}"), help()))
        }
        Ok(address) => Ok(address),
        Err(_) => Err((format!("{} is not an IPv4 address", quote(text)), help())),
    }
}

fn read_pool(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), (String, String)> {
    let help = || "write the first and the last address, such as \"10.5.255.1-10.5.255.254\"".to_owned();
    let ends = text
        .split_once('-')
        .map(|(a, b)| (a.trim().parse::<Ipv4Addr>(), b.trim().parse::<Ipv4Addr>()));
    match ends {
        Some((Ok(first), Ok(last))) if first <= last => Ok((first, last)),
        Some((Ok(first), Ok(last))) => Err((
            "the pool ends before it begins".to_owned(),
            format!("write \"{last}-{first}\""),
        )),
        _ => Err((format!("{} is not a range of addresses", quote(text)), help())),
    }
}

/// Checks that `address` may belong to a host in `net`.
fn inside(report: &mut Report<'_>, address: &Spanned<Ipv4Addr>, net: Ipv4Net, what: &str) {
    let a = *address.get_ref();
    let help = format!("write an address from {} to {}", edge(net, 1), edge(net, -1));
    if !net.contains(&a) {
        report.error(address.span(), format!("the {what} {a} is not in {net}"), help);
    } else if a == net.network() || a == net.broadcast() {
        let which = if a == net.network() { "network" } else { "broadcast" };
        report.error(
            address.span(),
            format!("the {what} {a} is the {which} address of {net}"),
            help,
        );
    }
}

/// The first or last host address.
fn edge(net: Ipv4Net, step: i32) -> Ipv4Addr {
    let from = if step > 0 { net.network() } else { net.broadcast() };
    Ipv4Addr::from(u32::from(from).wrapping_add_signed(step))
}

/// The smallest network that holds both addresses.
fn smallest_around(first: Ipv4Addr, last: Ipv4Addr) -> Ipv4Net {
    let prefix = (u32::from(first) ^ u32::from(last)).leading_zeros() as u8;
    Ipv4Net::new(first, prefix).map_or(first.into(), |net| net.trunc())
}

fn check_pool(
    report: &mut Report<'_>,
    pool: &Spanned<(Ipv4Addr, Ipv4Addr)>,
    net: Ipv4Net,
    server: Ipv4Addr,
    router: Option<Ipv4Addr>,
) {
    let (first, last) = *pool.get_ref();
    if !net.contains(&first) || !net.contains(&last) || first == net.network() || last == net.broadcast() {
        let help = format!("write a part of {}-{}", edge(net, 1), edge(net, -1));
        report.error(
            pool.span(),
            format!("the pool is not within the host addresses of {net}"),
            help,
        );
    }
    for (what, address) in [("server", Some(server)), ("router", router)] {
        if let Some(address) = address.filter(|a| (first..=last).contains(a)) {
            let message = format!("the pool holds the {what}'s own address {address}");
            report.error(pool.span(), message, "begin the pool after it, or move the pool");
        }
    }
}

/// Checks the VLAN of `this`, the subnet number `index`.
fn check_vlan(report: &mut Report<'_>, this: &Read, subnets: &[Read], index: usize) {
    let shares = |other: &&Read| {
        let (one, other) = (&this.value, &other.value);
        one.interface.is_some() && one.interface == other.interface && one.vlan != other.vlan
    };
    if let Some(other) = subnets[..index].iter().find(shares) {
        let interface = this.value.interface.as_deref().unwrap_or_default();
        let (read, id) = match (this.value.vlan, other.value.vlan) {
            (Some(id), _) => (this, id),
            (None, id) => (other, id.unwrap_or_default()),
        };
        report.error(
            read.vlan_at.clone(),
            format!(
                "{} and {} share the interface {interface}, and are not in the same VLAN",
                other.value.network, this.value.network
            ),
            format!(
                "give the VLAN its own interface on this server (ip link add link {interface} name {interface}.{id} type vlan id {id}), \
                 and write it in 'interface'"
            ),
        );
    }
    if let Some(id) = this.value.vlan
        && !subnets.iter().any(|other| other.value.starts_untagged())
    {
        let message = format!(
            "nodes of {} start only if their firmware itself sets the tag of VLAN {id}: no other [[subnet]] can start them without it",
            this.value.network
        );
        let help = "add a [[subnet]] without 'vlan' and with a 'pool' for the untagged network, from which firmware and loaders load";
        report.warn(this.vlan_at.clone(), message, help);
    }
}

/// The checks that need all subnets and the naming.
pub(super) fn check_all(report: &mut Report<'_>, subnets: &[Read], cluster: &cluster::Read) {
    let (naming, reserved) = (&cluster.value.naming, &cluster.value.reserved[..]);
    for (i, this) in subnets.iter().enumerate() {
        let net = this.value.network;
        let overlaps = |other: &&Read| other.value.network.contains(&net) || net.contains(&other.value.network);
        if let Some(other) = subnets[..i].iter().find(overlaps) {
            let message = match other.value.network == net {
                true => format!("the subnet {net} is written twice"),
                false => format!("the subnet {net} overlaps {}", other.value.network),
            };
            report.error(this.network_at.clone(), message, "give each subnet its own addresses");
        }

        // All machines on a wire hear the same servers.
        let other = |other: &&Read| {
            let (one, other) = (&this.value, &other.value);
            one.interface.is_some() && one.interface == other.interface && one.dhcp != other.dhcp
        };
        if let Some(other) = subnets[..i].iter().find(other) {
            let at = match this.value.dhcp.is_of_another_server() {
                true => this.dhcp_at.clone(),
                false => other.dhcp_at.clone(),
            };
            let message = format!(
                "{} and {} share an interface, and one has dhcp = \"{}\", the other dhcp = \"{}\"",
                other.value.network, net, other.value.dhcp, this.value.dhcp
            );
            report.error(at, message, "write the same dhcp in both");
        }

        check_vlan(report, this, subnets, i);

        // These addresses are used already, so no node may have one of them.
        let node_at = |address: Ipv4Addr| {
            let free = naming.first_address(address.into(), reserved)?;
            naming.address_to_name(free)
        };
        let reserve = |address: Ipv4Addr| {
            let range = smallest_around(address, Ipv4Addr::from(u32::from(address) ^ 128));
            format!("add it to reserved in [cluster], such as \"{address}/32\" or \"{range}\"")
        };
        let server = ("server", this.value.server, &this.server_at);
        let router = this.value.router.filter(|r| *r != this.value.server);
        let router = router.map(|r| ("router", r, &this.router_at));
        for (what, address, at) in [Some(server), router].into_iter().flatten() {
            if let Some(node) = node_at(address) {
                let message = format!("the {what}'s address {address} is also that of the node {node}");
                report.error(at.clone(), message, reserve(address));
            }
        }
        // A node may be a name server for the other nodes, so this is probably, but not certainly, an error.
        for dns in &this.dns {
            let address = *dns.get_ref();
            let known = address == this.value.server || this.value.router == Some(address);
            if let Some(node) = node_at(address).filter(|_| !known) {
                let message = format!("the name server's address {address} is also that of the node {node}");
                let help = format!("if that node is not the name server, {}", reserve(address));
                report.warn(dns.span(), message, help);
            }
        }
        if let Some((first, last)) = this.value.pool {
            let taken = Ipv4Subnets::new(first, last, 0).find_map(|part| naming.first_address(part, reserved));
            if let Some((address, node)) = taken.and_then(|a| Some((a, naming.address_to_name(a)?))) {
                let message = format!("the pool's address {address} is also that of the node {node}");
                let range = smallest_around(first, last);
                let help = format!("add the pool to reserved in [cluster], such as reserved = [\"{range}\"]");
                report.error(this.pool_at.clone(), message, help);
            }
        }
    }
    if subnets.is_empty() {
        return;
    }

    let networks: Vec<Ipv4Net> = subnets.iter().map(|s| s.value.network).collect();
    let outside: Vec<Ipv4Net> = networks.iter().chain(reserved).copied().collect();
    let named = |pattern: &Pattern, address: Ipv4Addr| pattern.address_to_name(address).unwrap_or_default();
    for (pattern, at) in naming.patterns().iter().zip(&cluster.node_addresses) {
        if !networks
            .iter()
            .any(|net| pattern.first_address(*net, reserved).is_some())
        {
            let message = match pattern.first_address(Ipv4Net::default(), reserved) {
                Some(address) => format!(
                    "no node address is in a subnet: {} would be {address}",
                    named(pattern, address)
                ),
                None => "all node addresses are reserved".to_owned(),
            };
            let help = "choose node-address so that addresses are in a [[subnet]] and not all in 'reserved'";
            report.error(at.clone(), message, help);
        } else if let Some(address) = pattern.first_address(Ipv4Net::default(), &outside) {
            let message = format!(
                "not every node address is in a subnet: {} would be {address}",
                named(pattern, address)
            );
            report.warn(
                at.clone(),
                message,
                "such nodes are refused when they are added; enlarge a subnet to allow them",
            );
        }
    }
}
