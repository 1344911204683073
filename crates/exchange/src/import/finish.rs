//! The checks that all formats share: every entry has a name and a card, and no name or card occurs twice.

use super::{Draft, ENTRIES, Entry, Options, Place, Places, Word, report::Report, report::shown};
use rackstrap_wire::HwAddr;
use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    net::Ipv4Addr,
    ops::Range,
};

/// Makes entries of the `drafts`: first those without problems, then the others as far as they could be read. Their problems
/// are put into `report`.
pub(super) fn finish(report: &mut Report<'_>, drafts: Vec<Draft>, options: &Options<'_>) -> (Vec<Entry>, Vec<Entry>) {
    if drafts.len() > ENTRIES {
        report.error_whole(
            format!("{} nodes in one file; at most {ENTRIES} are read", drafts.len()),
            "split it into several files, and import one after the other",
        );
        return Default::default();
    }
    let mut all = Finished {
        entries: Vec::with_capacity(drafts.len()),
        names: HashMap::with_capacity(drafts.len()),
        hwaddrs: HashMap::with_capacity(drafts.len()),
        second_cards: Vec::new(),
        flawed: Vec::new(),
    };
    for draft in drafts {
        if let Some(name) = name(report, &draft, options) {
            all.add(report, draft, name);
        }
    }
    if let Some((at, _)) = all.second_cards.first().cloned() {
        let names: Vec<&str> = all.second_cards.iter().map(|(_, name)| name.as_str()).collect();
        let (listed, more) = (
            names.iter().take(LISTED).copied().collect::<Vec<_>>(),
            names.len() > LISTED,
        );
        let message = format!(
            "{}, here first: {}{}",
            match names.len() {
                1 => "1 entry is another card of a node above it".to_owned(),
                count => format!("{count} entries are further cards of nodes above them"),
            },
            shown(&listed.join(" ")),
            if more { " …" } else { "" }
        );
        report.warn(
            at,
            message,
            "the card that boots must be first; if these are different nodes, correct their names",
        );
    }
    (all.entries, all.flawed)
}

/// At most this many names in one warning.
const LISTED: usize = 6;

/// The entries that are finished.
struct Finished {
    entries: Vec<Entry>,
    /// The line of each name, and its entry if it has no problem.
    names: HashMap<String, (usize, Option<usize>)>,
    hwaddrs: HashMap<HwAddr, (usize, String)>,
    /// Entries that were merged into the one of an earlier line.
    second_cards: Vec<(Range<usize>, String)>,
    /// Entries with problems.
    flawed: Vec<Entry>,
}

impl Finished {
    fn add(&mut self, report: &mut Report<'_>, draft: Draft, name: String) {
        let line = report.line(draft.at.start);
        let mut good = !draft.reported;
        let known = self.names.get(&name).copied();
        let node_of_card = match known {
            Some((_, Some(entry))) if draft.card && agree(self.entries[entry].ipaddr, draft.ipaddr) => Some(entry),
            _ => None,
        };
        if let (Some((first, _)), None) = (known, node_of_card) {
            let message = format!("{} is on line {first} already", shown(&name));
            let help = "name each node once; one with several cards has all their addresses in one place, \
                        which a CSV file says as: r01n01,52:54:00:01:01:01 52:54:00:01:01:02";
            report.error(draft.at.clone(), message, help);
            good = false;
        }
        for (at, hwaddr) in &draft.hwaddrs {
            match self.hwaddrs.entry(*hwaddr) {
                Slot::Vacant(slot) => {
                    slot.insert((report.line(at.start), name.clone()));
                }
                Slot::Occupied(first) => {
                    let (line, owner) = first.get();
                    let message = format!("hwaddr {hwaddr} is on line {line} already, as {}'s", shown(owner));
                    report.error(
                        at.clone(),
                        message,
                        "a card is in one machine: check which of the two has it",
                    );
                    good = false;
                }
            }
        }
        if draft.hwaddrs.is_empty() && !draft.reported {
            let message = format!("{} has no hardware address", shown(&name));
            report.error(draft.at.clone(), message, "without one it cannot be recognised; add it");
            good = false;
        }
        match node_of_card {
            _ if !good => {
                self.names.entry(name.clone()).or_insert((line, None));
                self.flawed.push(entry(report, draft, name));
            }
            Some(at) => {
                self.second_cards.push((draft.at.clone(), name.clone()));
                let card = entry(report, draft, name);
                let node = &mut self.entries[at];
                node.hwaddrs.extend(card.hwaddrs);
                node.places.hwaddrs.extend(card.places.hwaddrs);
                node.ipaddr = node.ipaddr.or(card.ipaddr);
                for (group, place) in card.groups.into_iter().flatten().zip(card.places.groups) {
                    let groups = node.groups.get_or_insert_default();
                    if !groups.contains(&group) {
                        groups.push(group);
                        node.places.groups.push(place);
                    }
                }
            }
            None => {
                self.names.insert(name.clone(), (line, Some(self.entries.len())));
                self.entries.push(entry(report, draft, name));
            }
        }
    }
}

/// The entry of a draft.
fn entry(report: &Report<'_>, draft: Draft, name: String) -> Entry {
    let place = |at: &Range<usize>| report.line_and_column(at.start);
    let places =
        |words: &Option<Vec<Word>>| -> Vec<Place> { words.iter().flatten().map(|(at, _)| place(at)).collect() };
    let texts = |words: Vec<Word>| words.into_iter().map(|(_, text)| text).collect();
    let name_place = place(&draft.at);
    Entry {
        line: name_place.0,
        name,
        places: Places {
            name: name_place,
            hwaddrs: draft.hwaddrs.iter().map(|(at, _)| place(at)).collect(),
            profiles: places(&draft.profiles),
            groups: places(&draft.groups),
            settings: (draft.settings.iter().flatten())
                .map(|(key, (at, _))| (key.clone(), place(at)))
                .collect(),
        },
        hwaddrs: draft.hwaddrs.into_iter().map(|(_, hwaddr)| hwaddr).collect(),
        ipaddr: draft.ipaddr,
        profiles: draft.profiles.map(texts),
        groups: draft.groups.map(texts),
        attributes: draft.attributes,
        adds: draft.adds,
        settings: draft
            .settings
            .map(|all| all.into_iter().map(|(key, (_, value))| (key, value)).collect()),
    }
}

/// Whether two cards may be of one node: they do not have two addresses.
fn agree(one: Option<Ipv4Addr>, other: Option<Ipv4Addr>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// The name in the file, without the site's own domain; or the name that belongs to the address.
fn name(report: &mut Report<'_>, draft: &Draft, options: &Options<'_>) -> Option<String> {
    if let Some(name) = &draft.name {
        let short = without_domain(name, options);
        if short.is_empty() {
            report.error(
                draft.at.clone(),
                "the name is empty",
                "write the node's name, such as r01n01",
            );
            return None;
        }
        return Some(short.to_owned());
    }
    let Some(ipaddr) = draft.ipaddr else {
        let help = "write the node's name, or the address that belongs to it";
        report.error(draft.at.clone(), "neither a name nor an address", help);
        return None;
    };
    let name = options.naming.address_to_name(ipaddr);
    if name.is_none() {
        report.error(
            draft.at.clone(),
            format!(
                "{ipaddr} is not a node's address here: addresses follow {}",
                options.naming.address_pattern()
            ),
            format!(
                "write a name, such as {}, or delete the line if it is not a node",
                options.naming.example()
            ),
        );
    }
    name
}

fn without_domain<'a>(name: &'a str, options: &Options<'_>) -> &'a str {
    let short = name
        .strip_suffix(options.domain)
        .and_then(|name| name.strip_suffix('.'));
    short.filter(|_| !options.domain.is_empty()).unwrap_or(name)
}

/// The lines of `drafts` with the names of their nodes, sorted, to find the node of a problem.
pub(super) fn owners(report: &Report<'_>, drafts: &[Draft], options: &Options<'_>) -> Vec<(usize, String)> {
    let named = drafts.iter().filter_map(|draft| {
        let name = match (&draft.name, draft.ipaddr) {
            (Some(name), _) => without_domain(name, options).to_owned(),
            (None, Some(ipaddr)) => options.naming.address_to_name(ipaddr)?,
            (None, None) => return None,
        };
        Some((report.line(draft.at.start), name))
    });
    let mut owners: Vec<(usize, String)> = named.collect();
    owners.sort();
    owners
}
