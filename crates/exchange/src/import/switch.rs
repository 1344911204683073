//! A switch's MAC address table, pasted from its terminal, with a map from ports to nodes.
//!
//! The table needs no particular format: a line counts if it has a hardware address in any notation and a port. So tables of
//! Cisco IOS and NX-OS, Arista EOS, Junos, ProCurve, Comware, AOS-CX and `bridge fdb show` can be read, including headings
//! and footers.

use super::{
    Draft, mac,
    ports::{Map, canonical},
    report::{Report, shown, words},
};
use rackstrap_base::words::count;
use rackstrap_wire::HwAddr;
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

/// At most this many ports and nodes are named in one warning.
const NAMED: usize = 8;

/// Short forms of interface names, as [`canonical`] returns them.
const INTERFACES: [&str; 28] = [
    "gi", "te", "tw", "fi", "twe", "fo", "hu", "fa", "et", "po", "ge", "xe", "mge", "ae", "bagg", "swp", "lan", "port",
    "trk", "lag", "sfp", "sfpplus", "qsfp", "ether", "bond", "eno", "ens", "slot",
];

/// The content of a table.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub drafts: Vec<Draft>,
    pub unmapped_hwaddrs: usize,
    pub unmapped_ports: usize,
}

/// A port and the hardware addresses on it.
struct SeenPort {
    port: String,
    at: Range<usize>,
    hwaddrs: Vec<(Range<usize>, HwAddr)>,
}

pub(super) fn read(report: &mut Report<'_>, map: &Map) -> Table {
    let mut ports: Vec<SeenPort> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut heard: HashSet<(usize, HwAddr)> = HashSet::new();
    let mut portless: Option<(Range<usize>, usize)> = None;
    let mut heading: Option<Heading> = None;
    let mut unsure: Option<(Range<usize>, usize)> = None;
    for (offset, line) in report.lines() {
        let cleaned = cleaned(line);
        let all: Vec<(Range<usize>, &str)> = words(&cleaned, offset).collect();
        let mut hwaddrs = all
            .iter()
            .enumerate()
            .filter_map(|(i, (at, word))| Some((i, at.clone(), mac::in_table(word.trim_end_matches(','))?)));
        let Some((position, mac_at, hwaddr)) = hwaddrs.next() else {
            heading = Heading::of(&all).or(heading);
            continue;
        };
        // Multicast addresses belong to no machine, and a bridge lists the addresses of its own ports as permanent.
        if hwaddr.is_multicast() || all.iter().any(|(_, word)| *word == "permanent") {
            continue;
        }
        if let Some((_, at, second)) = hwaddrs.next() {
            let message = format!("two hardware addresses in one line, {hwaddr} and {second}");
            report.error(at, message, "put each on its own line, with its port");
            continue;
        }
        let (at, port) = match port(report, &all, position, heading, map) {
            Found::Port(at, port) => (at, port),
            Found::Number => {
                unsure.get_or_insert((mac_at, 0)).1 += 1;
                continue;
            }
            Found::Nothing => {
                portless.get_or_insert((mac_at, 0)).1 += 1;
                continue;
            }
        };
        let seen = *index.entry(canonical(&port)).or_insert(ports.len());
        if seen == ports.len() {
            ports.push(SeenPort {
                port,
                at,
                hwaddrs: Vec::new(),
            });
        }
        // A machine is in the table once for each of its VLANs.
        if heard.insert((seen, hwaddr)) {
            ports[seen].hwaddrs.push((mac_at, hwaddr));
        }
    }
    if let Some((at, count)) = portless {
        let lines = if count == 1 {
            "a line has".to_owned()
        } else {
            format!("{count} lines have")
        };
        let message = format!("left out: {lines} a hardware address and no port, here first");
        report.warn(
            at,
            message,
            "most of them are the switch's own; if one is a node's, write its port after it",
        );
    }
    if let Some((at, count)) = unsure {
        let lines = if count == 1 {
            "a line has".to_owned()
        } else {
            format!("{count} lines have")
        };
        let message = format!("{lines} a number that may be a port or a VLAN, here first");
        let help = "put the table's heading above it, with a column called Port (such as: Port VLAN MAC), or write the \
                    ports as Port:7";
        report.error(at, message, help);
    }
    quiet_ports(report, map, &index);
    by_node(report, map, ports)
}

fn by_node(report: &mut Report<'_>, map: &Map, ports: Vec<SeenPort>) -> Table {
    let mut table = Table::default();
    let mut unmapped = Vec::new();
    for seen in ports {
        let Some(node) = node_behind(map, &seen.port) else {
            table.unmapped_ports += 1;
            table.unmapped_hwaddrs += seen.hwaddrs.len();
            unmapped.push(format!("{} ({})", shown(&seen.port), seen.hwaddrs.len()));
            continue;
        };
        if let [(first_at, first), .., (last_at, last)] = seen.hwaddrs.as_slice() {
            let count = seen.hwaddrs.len();
            let message = format!(
                "port {} ({}) has {count} hardware addresses, {first} on line {} and {last} here{}",
                shown(&seen.port),
                shown(&node),
                report.line(first_at.start),
                if count > 2 { ", an uplink?" } else { "" }
            );
            let help = format!(
                "if it leads to another switch, leave it out: {} = -; if the second address is the machine's \
                 management controller, delete that line",
                shown(&seen.port)
            );
            report.error(last_at.clone(), message, help);
        }
        table.drafts.push(Draft {
            at: seen.at,
            name: Some(node),
            hwaddrs: seen.hwaddrs.into_iter().take(1).collect(),
            ..Draft::default()
        });
    }
    if !unmapped.is_empty() {
        let message = format!(
            "left out: {} on {} that lead{} to no node: {}",
            count(table.unmapped_hwaddrs, "hardware address"),
            count(table.unmapped_ports, "port"),
            if table.unmapped_ports == 1 { "s" } else { "" },
            list(&unmapped)
        );
        report.warn_whole(message, "if one of them leads to a node, add it to the port map");
    }
    table
}

/// Warns of ports of the map without any hardware address in the table.
fn quiet_ports(report: &mut Report<'_>, map: &Map, heard: &HashMap<String, usize>) {
    let quiet = |named: &&super::ports::Named| named.node.is_some() && !heard.contains_key(&named.canonical);
    let quiet: Vec<String> = map
        .named
        .iter()
        .filter(quiet)
        .map(|named| {
            format!(
                "{} ({})",
                shown(&named.port),
                shown(named.node.as_deref().unwrap_or_default())
            )
        })
        .collect();
    if !quiet.is_empty() {
        let message = format!(
            "no hardware address on {} of the map: {}",
            count(quiet.len(), "port"),
            list(&quiet)
        );
        report.warn_whole(
            message,
            "switch those machines on, and take the table again within its aging time",
        );
    }
}

fn list(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    text
}

/// The node on a port in the spelling of the map: `Port:7`, as Avaya's switches write it, is also the port 7.
fn node_behind(map: &Map, port: &str) -> Option<String> {
    let canonical = canonical(port);
    let bare = || canonical.strip_prefix("port:").and_then(|number| map.node(number));
    map.node(&canonical).or_else(bare)
}

/// The port of a line.
enum Found {
    Port(Range<usize>, String),
    /// Numbers that may be the port or the VLAN.
    Number,
    Nothing,
}

/// The columns in a table's heading: their positions, from the left.
#[derive(Clone, Copy)]
struct Heading {
    hwaddr: usize,
    vlan: Option<usize>,
    port: Option<usize>,
}

impl Heading {
    /// The heading; none if the line is not a heading.
    fn of(all: &[(Range<usize>, &str)]) -> Option<Heading> {
        let find = |wanted: &[&str]| {
            all.iter()
                .position(|(_, word)| wanted.iter().any(|start| word.to_ascii_lowercase().starts_with(start)))
        };
        let heading = Heading {
            hwaddr: find(&["mac"])?,
            vlan: find(&["vlan", "vid"]),
            port: find(&["port", "interface"]),
        };
        (heading.vlan.is_some() || heading.port.is_some()).then_some(heading)
    }

    /// The number that is the port, from those before and after the hardware address.
    fn pick<T>(self, before: Vec<T>, mut behind: Vec<T>) -> Option<T> {
        let port = self.port?;
        let right = port > self.hwaddr;
        let vlan_between = self
            .vlan
            .is_some_and(|vlan| vlan < port && (vlan > self.hwaddr) == right);
        let mut side = if right { std::mem::take(&mut behind) } else { before };
        let at = usize::from(vlan_between);
        (at < side.len()).then(|| side.swap_remove(at))
    }
}

/// The port of a line: the one that the map names, or a word that looks like an interface, or a plain number in the heading's
/// port column.
fn port(
    report: &mut Report<'_>,
    all: &[(Range<usize>, &str)],
    hwaddr: usize,
    heading: Option<Heading>,
    map: &Map,
) -> Found {
    // In `bridge fdb`, the word after `dev` is the port.
    if let Some(dev) = all.iter().position(|(_, word)| *word == "dev") {
        return match all.get(dev + 1) {
            Some((at, word)) => Found::Port(at.clone(), (*word).to_owned()),
            None => Found::Nothing,
        };
    }
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    for (i, (at, word)) in all.iter().enumerate().filter(|(i, _)| *i != hwaddr) {
        for part in word.split(',') {
            let part = part.split('(').next().unwrap_or_default();
            if is_interface(part) || !is_number(part) && map.knows(&canonical(part)) {
                found.push((at.clone(), part.to_owned()));
            }
        }
        // Some switches write `Gi 1/0/1` or `Port: 7`.
        if let Some((next_at, next)) = all
            .get(i + 1)
            .filter(|(_, next)| next.starts_with(|c: char| c.is_ascii_digit()))
            && INTERFACES.contains(&canonical(word).trim_end_matches(':'))
        {
            found.retain(|(at, _)| at != next_at);
            found.push((at.start..next_at.end, format!("{word}{next}")));
            break;
        }
    }
    found.dedup_by(|a, b| canonical(&a.1) == canonical(&b.1));
    match found.as_slice() {
        [] => {
            let numbers = |side: Option<&[(Range<usize>, &str)]>| -> Vec<(Range<usize>, String)> {
                let side = side.unwrap_or_default().iter();
                let numbers = side.filter(|(_, word)| is_number(word));
                numbers.map(|(at, word)| (at.clone(), (*word).to_owned())).collect()
            };
            let (before, behind) = (numbers(all.get(..hwaddr)), numbers(all.get(hwaddr + 1..)));
            // A table is unclear only if the map's ports are numbers and the table does not show which number is the port.
            let any = before.iter().chain(&behind).any(|(_, number)| map.knows(number));
            match heading.and_then(|heading| heading.pick(before, behind)) {
                Some((at, number)) => Found::Port(at, number),
                None if any && heading.is_none_or(|heading| heading.port.is_none()) => Found::Number,
                None => Found::Nothing,
            }
        }
        [(at, port)] => Found::Port(at.clone(), port.clone()),
        [first, second, ..] => {
            if found.iter().any(|(_, port)| node_behind(map, port).is_some()) {
                let message = format!("two ports in one line, {} and {}", shown(&first.1), shown(&second.1));
                report.error(second.0.clone(), message, "keep only the port that the machine is on");
            }
            Found::Port(first.0.clone(), first.1.clone())
        }
    }
}

fn is_number(word: &str) -> bool {
    (1..=4).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit()) && !word.starts_with('0')
}

/// `Gi1/0/1`, `Eth1/1`, `ge-0/0/1.0`, `swp3`; `1/1/3` (AOS-CX, ProCurve stacks); `A1` and `1/A1` (ProCurve modules).
fn is_interface(word: &str) -> bool {
    if word.len() > 40 || !word.is_ascii() {
        return false;
    }
    let canonical = canonical(word);
    let letters = canonical.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (prefix, rest) = canonical.split_at(letters);
    let numbers = |text: &str| {
        text.contains(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b"/.:-".contains(&b))
    };
    if INTERFACES.contains(&prefix) {
        return numbers(rest);
    }
    let groups: Vec<&str> = word.split('/').collect();
    let short = |group: &&str| (1..=3).contains(&group.len()) && group.bytes().all(|b| b.is_ascii_digit());
    let module = |group: &str| {
        let digits = group.strip_prefix(|c: char| c.is_ascii_uppercase());
        digits.is_some_and(|digits| matches!(digits.len(), 1 | 2) && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    match groups.as_slice() {
        [one] => module(one),
        [stack, port] if short(stack) && module(port) => true,
        groups => groups.len() <= 4 && groups.iter().all(short),
    }
}

/// The line without control sequences, which pagers leave in pasted text; its length does not change.
fn cleaned(line: &str) -> String {
    let mut cleaned = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.peek() == Some(&'[') {
            cleaned.push(' ');
            // ECMA-48 5.4: parameters and intermediates up to a final byte from @ to ~.
            while let Some(c) = chars.next_if(|c| c.is_ascii()) {
                cleaned.push(' ');
                if c != '[' && matches!(c, '@'..='~') {
                    break;
                }
            }
        } else if c.is_ascii_control() {
            cleaned.push(' ');
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}
