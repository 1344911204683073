//! `[[network]]`: the networks of nodes besides the boot network.

use super::{
    Network, Profile,
    cluster::{self, read_network},
    diagnostic::{Report, quote},
    mount::read_profile,
    network_card as card,
    network_checks::{self, Rest},
    section::{Section, article},
};
use ipnet::Ipv4Net;
use rackstrap_base::{subnet::Subnet, words::closest};
use rackstrap_hostlist::naming::{Naming, Pattern, Variable};
use rackstrap_wire::{BOND_MODES, BOOT_NETWORK, NetworkKind, NetworkRoute};
use std::{collections::BTreeMap, net::Ipv4Addr, ops::Range, ops::RangeInclusive};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// At most this many networks: the patterns of each are compared with those of each other.
const MOST: usize = 32;
/// At most this many patterns of addresses in all networks.
const MOST_PATTERNS: usize = 48;
/// At most this many name servers, search domains, members and routes each.
const MOST_ITEMS: usize = 16;
/// `IFNAMSIZ` of linux/if.h is 16, including the final NUL.
const LONGEST_NAME: usize = 15;
/// Ethernet as in `mtu` of a subnet; IP over InfiniBand in connected mode takes 65,520 bytes (drivers/infiniband/ulp/ipoib/ipoib.h).
const MTU: RangeInclusive<u64> = 576..=9216;
const MTU_INFINIBAND: RangeInclusive<u64> = 576..=65520;
const TYPES: [&str; 5] = ["ethernet", "infiniband", "bond", "vlan", "bridge"];
/// The modes of bonds in the order in which messages list them.
const MODES: [&str; 7] = [
    "active-backup",
    "802.3ad",
    "balance-rr",
    "balance-xor",
    "broadcast",
    "balance-tlb",
    "balance-alb",
];
const EXAMPLE: &str = "write [[network]], and below it name = \"storage\", type = \"ethernet\", match = { driver = \"ixgbe\" }, \
                       node-address = \"10.6.{rack}.{slot}\" and prefix = 16";

type Problem = (String, String);

/// A network, with the places of its values.
pub(super) struct Read {
    pub value: Network,
    pub at: Range<usize>,
    pub name_at: Range<usize>,
    pub address_at: Range<usize>,
    /// The places of its other keys.
    keys: BTreeMap<String, Range<usize>>,
    /// Of its names `NODE-NETWORK` and their addresses; one for each of the cluster's patterns whose nodes have an address.
    pub patterns: Vec<Pattern>,
}

impl Read {
    /// The place of `key`; the section's header if the key is missing.
    pub fn key_at(&self, key: &str) -> Range<usize> {
        self.keys.get(key).unwrap_or(&self.at).clone()
    }
}

/// All `[[network]]` sections, each after those that it is made of.
pub(super) fn read_all(
    document: &DeTable<'_>,
    report: &mut Report<'_>,
    cluster: &cluster::Read,
    subnets: &[Subnet],
    profiles: &BTreeMap<String, Profile>,
) -> Vec<Network> {
    let Some((key, value)) = document.get_key_value("network") else {
        return Vec::new();
    };
    let tables = match value.get_ref() {
        DeValue::Array(all) if all.len() > MOST => {
            let message = format!("there are {} networks, at most {MOST}", all.len());
            report.error(key.span(), message, "leave out what no node uses");
            return Vec::new();
        }
        DeValue::Array(all) => all,
        DeValue::Table(_) => {
            let message = "[network] has one pair of brackets, but there may be several";
            report.error(key.span(), message, "write [[network]]");
            return Vec::new();
        }
        other => {
            let message = format!("'network' is a section, not {}", article(other));
            report.error(value.span(), message, EXAMPLE);
            return Vec::new();
        }
    };
    let mut all: Vec<Read> = Vec::new();
    let mut complete = true;
    for table in tables.iter() {
        let title = "[[network]]".to_owned();
        let section = Section::new(report, "[[network]]", title, table.span(), table);
        match section.and_then(|section| read(report, &section, &cluster.value.naming, profiles)) {
            Some(network) => all.push(network),
            None => complete = false,
        }
    }
    if all.iter().map(|network| network.patterns.len()).sum::<usize>() > MOST_PATTERNS {
        let message = format!("the networks have more than {MOST_PATTERNS} patterns of addresses");
        report.error(key.span(), message, "leave out what no node uses");
        return Vec::new();
    }
    let rest = Rest {
        cluster: &cluster.value,
        subnets,
        complete,
    };
    network_checks::check(report, &mut all, &rest);
    all.into_iter().map(|read| read.value).collect()
}

fn read(
    report: &mut Report<'_>,
    section: &Section<'_>,
    naming: &Naming,
    profiles: &BTreeMap<String, Profile>,
) -> Option<Read> {
    section.require(report, "name", "\"storage\"");
    section.require(report, "type", "\"ethernet\"");
    let name = section.parsed(report, "name", "\"storage\"", read_name);
    let kind = section.parsed(report, "type", "\"ethernet\"", read_type);
    let (name, kind) = (name?, kind?.into_inner());
    unfit_keys(report, section, kind);
    let made_of = made_of(report, section, kind);
    let range = if kind == "infiniband" { MTU_INFINIBAND } else { MTU };
    let mtu = section.integer(report, "mtu", range, 9000);
    let speed = section.parsed(report, "speed", "\"10G\"", read_speed);
    let patterns = addresses(report, section, "node-address", naming, name.get_ref());
    let prefix = section.integer(report, "prefix", 8..=30, 16);
    if section.get("node-address").is_some() {
        section.require(report, "prefix", "16");
    } else if let Some(key) = ["prefix", "router", "routes", "dns", "search"]
        .into_iter()
        .find(|key| section.get(key).is_some())
    {
        let message = format!("a network without 'node-address' has no '{key}'");
        let help = format!("remove '{key}', or write node-address = \"10.6.{{rack}}.{{slot}}\"");
        report.error(section.key_at(key), message, help);
    }
    let router = section.parsed(report, "router", "\"10.6.0.1\"", read_address);
    let routes = bounded(report, section, "routes", "[\"10.8.0.0/16 via 10.6.0.1\"]", read_route);
    let dns = bounded(report, section, "dns", "[\"10.6.0.1\"]", read_address);
    let search = bounded(report, section, "search", "[\"storage.example\"]", cluster::read_domain);
    let only = section.list(report, "profiles", "[\"compute\"]", |text| read_profile(text, profiles));
    if only.as_ref().is_some_and(Vec::is_empty) && report.is_clean() {
        let help = "name a profile, or leave 'profiles' out for all nodes";
        report.error(
            section.key_at("profiles"),
            "a network for no profile reaches no node",
            help,
        );
    }
    let narrow = |number: Option<Spanned<u64>>| number.and_then(|n| u16::try_from(n.into_inner()).ok());
    let inner = |all: Vec<Spanned<Ipv4Addr>>| all.into_iter().map(Spanned::into_inner).collect();
    Some(Read {
        at: section.at.clone(),
        name_at: name.span(),
        address_at: section.key_at("node-address"),
        keys: section.places(),
        patterns: patterns?,
        value: Network {
            name: name.into_inner(),
            kind: made_of?,
            // Filled in when the patterns are known to be disjoint.
            hosts: None,
            prefix: narrow(prefix)
                .and_then(|prefix| u8::try_from(prefix).ok())
                .unwrap_or(24),
            mtu: narrow(mtu),
            router: router.map(Spanned::into_inner),
            routes: routes.into_iter().map(Spanned::into_inner).collect(),
            dns: inner(dns),
            search: search
                .into_iter()
                .map(Spanned::into_inner)
                .filter(|s| !s.is_empty())
                .collect(),
            profiles: only.map(|all| all.into_iter().map(Spanned::into_inner).collect()),
            speed: speed.map(Spanned::into_inner),
        },
    })
}

/// Reports keys that this type of network does not have.
fn unfit_keys(report: &mut Report<'_>, section: &Section<'_>, kind: &str) {
    const OF: [(&str, &[&str]); 6] = [
        ("match", &["ethernet", "infiniband"]),
        ("speed", &["ethernet", "infiniband", "bond"]),
        ("members", &["bond", "bridge"]),
        ("mode", &["bond"]),
        ("parent", &["vlan"]),
        ("id", &["vlan"]),
    ];
    for (key, kinds) in OF {
        if section.get(key).is_some() && !kinds.contains(&kind) {
            let message = format!("a network of type \"{kind}\" has no '{key}'");
            let help = format!("remove it, or write type = \"{}\"", kinds.join("\" or \""));
            report.error(section.key_at(key), message, help);
        }
    }
}

fn made_of(report: &mut Report<'_>, section: &Section<'_>, kind: &str) -> Option<NetworkKind> {
    match kind {
        "ethernet" | "infiniband" => {
            section.require(report, "match", card::EXAMPLE);
            let card = card::read(report, section)?;
            Some(match kind {
                "ethernet" => NetworkKind::Ethernet { card },
                _ => NetworkKind::Infiniband { card },
            })
        }
        "vlan" => {
            section.require(report, "parent", "\"storage\"");
            section.require(report, "id", "100");
            let parent = section.parsed(report, "parent", "\"storage\"", |text| match text {
                BOOT_NETWORK => Ok(text.to_owned()),
                text => read_name(text),
            });
            let id = section.integer(report, "id", 1..=4094, 100);
            Some(NetworkKind::Vlan {
                parent: parent?.into_inner(),
                id: u16::try_from(id?.into_inner()).ok()?,
            })
        }
        _ => {
            let example = "[\"left\", \"right\"]";
            section.require(report, "members", example);
            let members = bounded(report, section, "members", example, |text| match text {
                BOOT_NETWORK => Ok(text.to_owned()),
                text => read_name(text),
            });
            let written = section.get("members").and_then(|value| value.get_ref().as_array());
            if kind == "bond" && written.is_some_and(|all| all.is_empty()) {
                let help = format!("name the networks that it joins, such as members = {example}");
                report.error(
                    section.key_at("members"),
                    "a bond without members carries nothing",
                    help,
                );
            }
            let members = members.into_iter().map(Spanned::into_inner).collect();
            if kind == "bridge" {
                return Some(NetworkKind::Bridge { members });
            }
            section.require(report, "mode", "\"802.3ad\" or \"active-backup\"");
            let mode = section.parsed(report, "mode", "\"802.3ad\"", read_mode)?;
            Some(NetworkKind::Bond {
                members,
                mode: mode.into_inner(),
            })
        }
    }
}

/// A list of a few items.
fn bounded<T>(
    report: &mut Report<'_>,
    section: &Section<'_>,
    key: &str,
    example: &str,
    read: impl Fn(&str) -> Result<T, Problem>,
) -> Vec<Spanned<T>> {
    let mut all = section.list(report, key, example, read).unwrap_or_default();
    if all.len() > MOST_ITEMS {
        let message = format!("there are {} entries in '{key}', at most {MOST_ITEMS}", all.len());
        report.error(section.key_at(key), message, "leave some out");
        all.truncate(MOST_ITEMS);
    }
    all
}

fn read_name(text: &str) -> Result<String, Problem> {
    let wrong = |why: &str| {
        let help = format!(
            "write lower-case letters, digits and -, a letter first, at most {LONGEST_NAME} of them, such as name = \"storage\""
        );
        Err((format!("{} {why}", quote(text)), help))
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let first = text.starts_with(|c: char| c.is_ascii_lowercase());
    if !first || text.ends_with('-') || text.len() > LONGEST_NAME || !text.bytes().all(plain) {
        return wrong("is not the name of a network, which is also the name of its interface on the nodes");
    }
    if text == BOOT_NETWORK {
        return wrong("means the boot network, which [[subnet]] describes");
    }
    // The kernel gives these names itself in the order in which it finds cards.
    let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = stem.len() < text.len();
    if text == "lo" || text == "default" || text == "all" || numbered && ["eth", "ib", "wlan", "usb"].contains(&stem) {
        return wrong("is a name that the kernel gives itself");
    }
    Ok(text.to_owned())
}

fn read_type(text: &str) -> Result<&'static str, Problem> {
    if let Some(kind) = TYPES.into_iter().find(|kind| *kind == text) {
        return Ok(kind);
    }
    let help = match closest(text, TYPES) {
        Some(near) => format!("did you mean type = \"{near}\"?"),
        None => format!("the types are {}", TYPES.join(", ")),
    };
    Err((format!("{} is not a type of network", quote(text)), help))
}

fn read_mode(text: &str) -> Result<String, Problem> {
    if MODES.contains(&text) {
        return Ok(text.to_owned());
    }
    // Some write the number of a mode, as Documentation/networking/bonding.rst does, or the other name of 802.3ad.
    let likely = match text {
        "lacp" => Some("802.3ad"),
        text => text
            .parse::<usize>()
            .ok()
            .and_then(|number| BOND_MODES.get(number).copied())
            .or_else(|| closest(text, MODES)),
    };
    let help = match likely {
        Some(mode) => format!("did you mean mode = \"{mode}\"?"),
        None => format!("the modes are {}", MODES.join(", ")),
    };
    Err((format!("{} is not a mode of bonds", quote(text)), help))
}

/// `10G`, `2.5G` or `100M`, in Mb/s.
fn read_speed(text: &str) -> Result<u32, Problem> {
    let wrong = || {
        let help = "write it with M or G, such as speed = \"10G\", \"2.5G\" or \"100M\"";
        (format!("{} is not a speed", quote(text)), help.to_owned())
    };
    let (number, unit) = match text.strip_suffix('G') {
        Some(number) => (number, 1000),
        None => (text.strip_suffix('M').ok_or_else(wrong)?, 1),
    };
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(tenths) || tenths.len() > 1 || tenths != "0" && unit == 1 {
        return Err(wrong());
    }
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let speed = number(whole)? * unit + number(tenths)? * unit / 10;
    // 1.6 Tb/s is the fastest Ethernet (IEEE 802.3dj).
    (1..=1_600_000).contains(&speed).then_some(speed).ok_or_else(wrong)
}

pub(super) fn read_address(text: &str) -> Result<Ipv4Addr, Problem> {
    let help = || "write one address, such as \"10.6.0.1\"".to_owned();
    match text.parse::<Ipv4Addr>() {
        Ok(a) if a.is_unspecified() || a.is_multicast() || a.is_broadcast() || a.is_loopback() => {
            Err((format!("no host can have the address {a}"), help()))
        }
        Ok(address) => Ok(address),
        Err(_) => Err((format!("{} is not an IPv4 address", quote(text)), help())),
    }
}

/// `10.8.0.0/16 via 10.6.0.1`
fn read_route(text: &str) -> Result<NetworkRoute, Problem> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [to, "via", via] = words[..] else {
        let help = "write NETWORK via ROUTER, such as \"10.8.0.0/16 via 10.6.0.1\"";
        return Err((format!("{} is not a route", quote(text)), help.to_owned()));
    };
    let to: Ipv4Net = read_network(to, "10.8.0.0/16")?;
    if to.prefix_len() == 0 {
        let help = format!("write router = \"{via}\"");
        return Err(("the default route is not in 'routes'".to_owned(), help));
    }
    Ok(NetworkRoute {
        to: (to.network(), to.prefix_len()),
        via: read_address(via)?,
    })
}

/// The names `NODE-NETWORK` with their addresses, one pattern for each of the cluster's; empty without 'node-address'. None if
/// there was a problem.
pub(super) fn addresses(
    report: &mut Report<'_>,
    section: &Section<'_>,
    key: &str,
    naming: &Naming,
    network: &str,
) -> Option<Vec<Pattern>> {
    let Some(value) = section.get(key) else {
        return Some(Vec::new());
    };
    let patterns = naming.patterns();
    let one = patterns.len() == 1;
    let texts: Vec<Spanned<String>> = match value.get_ref() {
        DeValue::Array(_) => section.list(report, key, "[\"10.6.{rack}.{slot}\"]", |text| Ok(text.to_owned()))?,
        _ => vec![section.string(report, key, "\"10.6.{rack}.{slot}\"")?],
    };
    if texts.len() != patterns.len() {
        let message = format!(
            "'{key}' has {} patterns, and [cluster] has {} of names",
            texts.len(),
            patterns.len()
        );
        let names: Vec<String> = patterns.iter().map(|pattern| quote(pattern.name_pattern())).collect();
        let help = match one {
            true => format!("write one pattern, such as {key} = \"10.6.{{rack}}.{{slot}}\""),
            false => format!(
                "write one for each of {} in this order; \"\" for nodes that have no address in this network",
                names.join(", ")
            ),
        };
        report.error(value.span(), message, help);
        return None;
    }
    let (mut all, mut complete) = (Vec::new(), true);
    for (text, pattern) in texts
        .iter()
        .zip(patterns)
        .filter(|(text, _)| !text.get_ref().is_empty())
    {
        let range = |variable: &'_ Variable| (variable.name.clone(), variable.min..=variable.max);
        let ranges: Vec<(String, RangeInclusive<u32>)> = pattern.variables().iter().map(range).collect();
        let given: Vec<(&str, RangeInclusive<u32>)> =
            ranges.iter().map(|(name, r)| (name.as_str(), r.clone())).collect();
        match Pattern::new(&format!("{}-{network}", pattern.name_pattern()), text.get_ref(), &given) {
            Ok(pattern) => all.push(pattern),
            Err(errors) => {
                complete = false;
                for error in errors {
                    let message = format!(
                        "{}-{network} and {}: {}",
                        pattern.name_pattern(),
                        quote(text.get_ref()),
                        error.message
                    );
                    report.error(text.span(), message, error.help);
                }
            }
        }
    }
    if complete && all.is_empty() {
        report.error(
            value.span(),
            format!("'{key}' gives no node an address"),
            "write a pattern, or remove the key",
        );
        return None;
    }
    complete.then_some(all)
}
