//! What all formats have in common: every entry has a name and a card, and nothing is there twice.

use super::{Draft, ENTRIES, Entry, Options, report::Report, report::shown};
use std::{collections::HashMap, collections::hash_map::Entry as Slot};

/// Makes entries of `drafts`; what is wrong with them goes into `report`.
pub(super) fn finish(report: &mut Report<'_>, drafts: Vec<Draft>, options: &Options<'_>) -> Vec<Entry> {
    if drafts.len() > ENTRIES {
        report.error_whole(
            format!("{} nodes in one file; at most {ENTRIES} are read", drafts.len()),
            "cut it into several files, and import one after the other",
        );
        return Vec::new();
    }
    let mut entries = Vec::with_capacity(drafts.len());
    let mut names: HashMap<String, usize> = HashMap::with_capacity(drafts.len());
    let mut hwaddrs: HashMap<_, (usize, String)> = HashMap::with_capacity(drafts.len());
    for draft in drafts {
        let Some(name) = name(report, &draft, options) else {
            continue;
        };
        let line = report.line(draft.at.start);
        match names.entry(name.clone()) {
            Slot::Vacant(slot) => {
                slot.insert(line);
            }
            Slot::Occupied(first) => {
                let message = format!("{} is on line {} already", shown(&name), first.get());
                let help = "name each node once; one with several cards has all their addresses in one place, \
                            which a CSV file says as: r01n01,52:54:00:01:01:01 52:54:00:01:01:02";
                report.error(draft.at.clone(), message, help);
            }
        }
        for (at, hwaddr) in &draft.hwaddrs {
            match hwaddrs.entry(*hwaddr) {
                Slot::Vacant(slot) => {
                    slot.insert((report.line(at.start), name.clone()));
                }
                Slot::Occupied(first) => {
                    let (line, owner) = first.get();
                    let message = format!("hwaddr {hwaddr} is on line {line} already, as {}'s", shown(owner));
                    report.error(
                        at.clone(),
                        message,
                        "a card is in one machine: look which of the two has it",
                    );
                }
            }
        }
        if draft.hwaddrs.is_empty() && !draft.reported {
            let message = format!("{} has no hardware address", shown(&name));
            report.error(
                draft.at.clone(),
                message,
                "without one it would never be recognised; add it",
            );
        }
        entries.push(Entry {
            line,
            name,
            hwaddrs: draft.hwaddrs.into_iter().map(|(_, hwaddr)| hwaddr).collect(),
            ipaddr: draft.ipaddr,
            profiles: draft.profiles,
            groups: draft.groups,
        });
    }
    entries
}

/// The name of the file, without the site's own domain; or the one that belongs to the address.
fn name(report: &mut Report<'_>, draft: &Draft, options: &Options<'_>) -> Option<String> {
    if let Some(name) = &draft.name {
        let short = name
            .strip_suffix(options.domain)
            .and_then(|name| name.strip_suffix('.'));
        let short = short.filter(|_| !options.domain.is_empty()).unwrap_or(name);
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
                "{ipaddr} is no node's address here: addresses follow {}",
                options.naming.address_pattern()
            ),
            format!(
                "write a name, such as {}, or delete the line if it is no node",
                options.naming.example()
            ),
        );
    }
    name
}
