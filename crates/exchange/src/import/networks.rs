//! Suggestions of `[[network]]` for the site file, made of the networks that nodes have in a file of another program (`vars.networks`).
//!
//! They are commented out, because a file of addresses does not say which card a network is on, and which nodes of later days have it.

use super::Entry;
use rackstrap_hostlist::{NodeSet, naming::Naming};
use rackstrap_site::value::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// More networks are not suggested: a site has at most so many.
const MOST: usize = 32;
/// The kernel's limit of the names of interfaces, which the site file has, too.
const LONGEST_NAME: usize = 15;

/// One network of one node, as the file has it.
struct Of<'e> {
    node: &'e str,
    value: &'e Value,
}

impl<'e> Of<'e> {
    fn text(&self, key: &str) -> Option<&'e str> {
        self.value.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    fn address(&self) -> Option<Ipv4Addr> {
        let text = self.text("ipaddr")?;
        text.split('/').next()?.parse().ok()
    }

    /// The prefix length of `10.6.1.1/16`, or of the mask 255.255.0.0.
    fn prefix(&self) -> Option<u8> {
        let of_address = self
            .text("ipaddr")
            .and_then(|text| text.split_once('/')?.1.parse().ok());
        of_address.or_else(|| {
            let mask: Ipv4Addr = self.text("netmask")?.parse().ok()?;
            ipnet::ipv4_mask_to_prefix(mask).ok()
        })
    }
}

/// The sections, commented out; empty if no entry has networks.
pub(super) fn suggest(entries: &[Entry], naming: &Naming) -> String {
    let mut all: BTreeMap<&str, Vec<Of<'_>>> = BTreeMap::new();
    for entry in entries {
        let networks = entry.settings.as_ref().and_then(|all| all.get("vars.networks"));
        for (key, value) in networks.and_then(Value::as_object).into_iter().flatten() {
            let of = Of {
                node: &entry.name,
                value,
            };
            // A BMC is a machine of its own, which no network service of the node sets up.
            if !["bmc", "ipmi"].contains(&key.as_str()) && of.address().is_some() {
                all.entry(key).or_default().push(of);
            }
        }
    }
    let followers = entries
        .iter()
        .filter(|entry| naming.name_to_address(&entry.name).is_ok());
    let followers: BTreeSet<&str> = followers.map(|entry| entry.name.as_str()).collect();
    let mut names = BTreeSet::new();
    let sections = all.iter().take(MOST).filter_map(|(key, nodes)| {
        let name = name_of(key).filter(|name| names.insert(name.clone()))?;
        Some(section(key, &name, nodes, naming, &followers))
    });
    sections.collect()
}

fn section(key: &str, name: &str, nodes: &[Of<'_>], naming: &Naming, followers: &BTreeSet<&str>) -> String {
    let same = |text: &dyn Fn(&Of<'_>) -> Option<String>| {
        let first = text(nodes.first()?)?;
        nodes
            .iter()
            .all(|node| text(node).as_ref() == Some(&first))
            .then_some(first)
    };
    let text_of = |key: &'static str| same(&|node| node.text(key).map(str::to_owned));
    let have: NodeSet = nodes.iter().map(|node| node.node).collect();
    let mut notes = Vec::new();
    let mut lines = vec!["[[network]]".to_owned(), format!("name = \"{name}\"")];

    let kind = match text_of("type").as_deref() {
        Some("infiniband") => "infiniband",
        Some(other @ ("bond" | "vlan" | "bridge")) => {
            notes.push(format!(
                "it is a {other} in the file: write type = \"{other}\" with the keys of that type instead of match"
            ));
            "ethernet"
        }
        None if key.to_ascii_lowercase().starts_with("ib") => "infiniband",
        _ => "ethernet",
    };
    lines.push(format!("type = \"{kind}\""));
    let has_cards = kind == "ethernet" && nodes.iter().all(|node| node.text("hwaddr").is_some());
    let device = text_of("device").filter(|device| is_from_place(device));
    lines.push(match (has_cards, device) {
        (true, _) => format!("match = {{ mac = \"{{{{ vars.networks.{key}.hwaddr }}}}\" }}"),
        (false, Some(device)) => format!("match = {{ name = \"{device}\" }}"),
        (false, None) => {
            notes.push(
                "the file does not say which card it is: correct the driver, and add port if there are several"
                    .to_owned(),
            );
            let driver = if kind == "infiniband" { "mlx5_core" } else { "ixgbe" };
            format!("match = {{ driver = \"{driver}\" }}")
        }
    });

    match pattern(nodes, naming) {
        Some(pattern) => lines.push(format!("node-address = \"{pattern}\"")),
        None => {
            let example = nodes
                .iter()
                .find_map(|node| Some(format!("{} has {}", node.node, node.address()?)));
            notes.push(format!(
                "its addresses do not follow from the nodes' names as those of the boot network do: {}; write their pattern",
                example.unwrap_or_default()
            ));
            lines.push("node-address = \"\"".to_owned());
        }
    }
    let prefix = same(&|node| node.prefix().map(|prefix| prefix.to_string()));
    lines.push(format!("prefix = {}", prefix.as_deref().unwrap_or("16")));
    if prefix.is_none() {
        notes.push("the file does not name one prefix: correct it".to_owned());
    }
    lines.extend(
        text_of("mtu")
            .filter(|mtu| mtu.parse::<u16>().is_ok())
            .map(|mtu| format!("mtu = {mtu}")),
    );
    let router = text_of("gateway").filter(|router| router.parse::<Ipv4Addr>().is_ok());
    lines.extend(router.map(|router| format!("router = \"{router}\"")));
    let without: NodeSet = followers.iter().copied().filter(|name| !have.contains(name)).collect();
    if !without.is_empty() {
        notes.push(format!(
            "{without} does not have it: give its nodes a profile, and write profiles = [\"NAME\"]"
        ));
    }
    let notes: String = notes.iter().map(|note| format!("# - {note}\n")).collect();
    let lines: String = lines.iter().map(|line| format!("#{line}\n")).collect();
    format!("# Network {key} of {have}: check it, and remove # from the lines of its section.\n{notes}{lines}\n")
}

/// The name of the network of a device: `ib` of `ib0`. Names of the kernel's own get a hyphen: `eth-1`. None if nothing can be made of it.
fn name_of(key: &str) -> Option<String> {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = key.chars().map(plain).collect();
    let name = name.trim_matches('-');
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = &name[stem.len()..];
    let name = match (stem, number) {
        ("eth" | "ib" | "wlan" | "usb", "0") => stem.to_owned(),
        ("eth" | "ib" | "wlan" | "usb", number) if !number.is_empty() => format!("{stem}-{number}"),
        ("lo" | "boot" | "default" | "all", "") => format!("{name}-net"),
        _ => name.to_owned(),
    };
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= LONGEST_NAME;
    fits.then_some(name)
}

/// Whether systemd gave the name by the place of the card: `eno2`. The kernel's own names move.
fn is_from_place(device: &str) -> bool {
    let rest = device.strip_prefix("en").or_else(|| device.strip_prefix("ib"));
    let fits = rest.is_some_and(|rest| rest.starts_with(['o', 's', 'p', 'P']));
    fits && device.len() <= LONGEST_NAME && device.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The cluster's pattern of addresses with the numbers of this network, if all its addresses follow it.
fn pattern(nodes: &[Of<'_>], naming: &Naming) -> Option<String> {
    let [pattern] = naming.patterns() else { return None };
    let parts: Vec<&str> = pattern.address_pattern().split('.').collect();
    let [_, _, _, _] = parts[..] else { return None };
    let first = nodes.first()?.address()?.octets();
    let is_fixed = |part: &str| !part.contains('{');
    for node in nodes {
        let (own, boot) = (
            node.address()?.octets(),
            naming.name_to_address(node.node).ok()?.octets(),
        );
        let same = parts.iter().enumerate().all(|(at, part)| {
            let expected = if is_fixed(part) { first[at] } else { boot[at] };
            own[at] == expected
        });
        if !same {
            return None;
        }
    }
    let parts = parts.iter().zip(first).map(|(part, octet)| match is_fixed(part) {
        true => octet.to_string(),
        false => (*part).to_owned(),
    });
    Some(parts.collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_get_names_that_the_site_file_takes() {
        for (device, name) in [
            ("ib0", Some("ib")),
            ("ib1", Some("ib-1")),
            ("eth1", Some("eth-1")),
            ("Storage_Net", Some("storage-net")),
            ("default", Some("default-net")),
            ("_lan_", Some("lan")),
            ("10g", None),
            ("", None),
            ("a-name-of-sixteen", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(name_of(device).as_deref(), name, "{device}");
        }
        assert!(is_from_place("eno2") && is_from_place("enp129s0f1np1") && is_from_place("ibp1s0"));
        for moving in ["eth1", "ib0", "en", "eno1\"", "enp1s0.100"] {
            assert!(!is_from_place(moving), "{moving}");
        }
    }
}
