//! What the readers of other provisioning systems share: cards, variables, and what has no place here.

use super::{
    Draft, Word, mac,
    report::{Report, shown},
};
use rackstrap_site::{kernel_args, value::Value};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
};

/// At most this many kinds are listed one by one.
const KINDS: usize = 200;

/// With more hardware addresses than this, a node is not read further: each is compared with all others.
const CARDS: usize = 64;
/// At most this many groups of a node are read; an inventory takes 64.
const GROUPS: usize = 256;
/// At most this many characters of what is listed are shown.
const SHOWN: usize = 200;

/// What a file says and has no place here: listed once for each kind, with its number and its first place.
#[derive(Debug, Default)]
pub(super) struct Leftovers(BTreeMap<String, Kind>);

#[derive(Debug)]
struct Kind {
    first: Range<usize>,
    count: usize,
    help: String,
}

impl Leftovers {
    /// Adds something that is not imported. `help` says what to do instead.
    pub fn add(&mut self, what: &str, at: &Range<usize>, help: &str) {
        let what = match self.0.len() < KINDS || self.0.contains_key(what) {
            true => what,
            false => "other keys",
        };
        let kind = self.0.entry(what.to_owned()).or_insert_with(|| Kind {
            first: at.clone(),
            count: 0,
            help: help.to_owned(),
        });
        kind.count += 1;
    }

    /// Reports all of them as warnings.
    pub fn report(self, report: &mut Report<'_>) {
        for (what, Kind { first, count, help }) in self.0 {
            let times = match count {
                1 => String::new(),
                count => format!(" ({count} times, here first)"),
            };
            let what: String = what.chars().take(SHOWN).collect();
            report.warn(first, format!("{what} is not imported{times}"), help);
        }
    }
}

/// Settings of a node or a profile, by key, with their places.
pub(super) type Found = BTreeMap<String, (Range<usize>, Value)>;

/// The name of a variable made of a key of another program: `ib-0` is `ib_0`; none if nothing can be made of it.
pub(super) fn variable_name(key: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = key.chars().map(plain).collect();
    (name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphabetic())).then_some(name)
}

/// Makes a variable of a key and its value, or lists it.
pub(super) fn variable(found: &mut Found, left: &mut Leftovers, key: &str, at: &Range<usize>, value: Value) {
    match variable_name(key) {
        Some(name) if !found.contains_key(&format!("vars.{name}")) => {
            found.insert(format!("vars.{name}"), (at.clone(), value));
        }
        _ => left.add(
            &format!("'{key}'"),
            at,
            "set it as a variable with a name of letters, digits and _: rackstrap node set NODE vars.NAME=VALUE",
        ),
    }
}

/// Adds to the table that a variable is.
pub(super) fn table_variable(found: &mut Found, name: &str, at: &Range<usize>, key: &str, value: Value) {
    let (_, table) = found
        .entry(format!("vars.{name}"))
        .or_insert_with(|| (at.clone(), Value::Object(Default::default())));
    if let Value::Object(table) = table {
        table.insert(key.to_owned(), value);
    }
}

/// Adds a field to a table in the table that a variable is.
pub(super) fn field_variable(found: &mut Found, name: &str, at: &Range<usize>, key: &str, field: &str, value: Value) {
    let (_, table) = found
        .entry(format!("vars.{name}"))
        .or_insert_with(|| (at.clone(), Value::Object(Default::default())));
    let inner = table
        .as_object_mut()
        .map(|table| table.entry(key).or_insert_with(|| Value::Object(Default::default())));
    if let Some(Value::Object(inner)) = inner {
        inner.insert(field.to_owned(), value);
    }
}

/// Makes the setting of kernel arguments, or lists those that cannot be passed on.
pub(super) fn kernel_arguments(found: &mut Found, left: &mut Leftovers, at: &Range<usize>, text: &str) {
    match kernel_args::check(text) {
        Ok(()) if text.is_empty() => {}
        Ok(()) => drop(found.insert("kernel-args".to_owned(), (at.clone(), text.into()))),
        Err((message, help)) => left.add(&format!("kernel arguments '{}': {message};", shown(text)), at, &help),
    }
}

/// Adds a card, or reports that the text is not a hardware address.
pub(super) fn card(report: &mut Report<'_>, draft: &mut Draft, at: &Range<usize>, text: &str) {
    match mac::hwaddr(text) {
        _ if draft.hwaddrs.len() == CARDS && !draft.reported => {
            report.error(
                at.clone(),
                format!("more than {CARDS} hardware addresses of one node"),
                "a node has at most 8 cards",
            );
            draft.reported = true;
        }
        _ if draft.hwaddrs.len() == CARDS => {}
        // Several networks may be on one card.
        Some(hwaddr) if draft.hwaddrs.iter().any(|(_, known)| *known == hwaddr) => {}
        Some(hwaddr) => draft.hwaddrs.push((at.clone(), hwaddr)),
        None => {
            report.error(at.clone(), mac::wrong(text), mac::HELP);
            draft.reported = true;
        }
    }
}

/// The address of `10.5.1.1` or `10.5.1.1/16`, or a problem.
pub(super) fn address(report: &mut Report<'_>, at: &Range<usize>, text: &str) -> Option<Ipv4Addr> {
    let read = text.split('/').next().unwrap_or_default().trim().parse().ok();
    if read.is_none() {
        let message = format!("'{}' is not an IPv4 address", shown(text));
        report.error(
            at.clone(),
            message,
            "write four numbers, such as 10.5.1.1, or leave it out",
        );
    }
    read
}

/// The same, where the file may have an IPv6 address: that is listed.
pub(super) fn ipv4(report: &mut Report<'_>, left: &mut Leftovers, at: &Range<usize>, text: &str) -> Option<Ipv4Addr> {
    let plain = text.split('/').next().unwrap_or_default().trim();
    if plain.parse::<Ipv6Addr>().is_ok() {
        left.add("an IPv6 address", at, "nodes have IPv4 addresses; set it as a variable");
        return None;
    }
    address(report, at, text)
}

/// Adds the node to a group, or lists what cannot be the name of one.
pub(super) fn join(groups: &mut Vec<Word>, left: &mut Leftovers, at: &Range<usize>, text: &str) {
    match group(text) {
        Some(name) if groups.len() < GROUPS => {
            if groups.iter().all(|(_, known)| *known != name) {
                groups.push((at.clone(), name));
            }
        }
        _ => left.add(
            &format!("the group '{}'", shown(text)),
            at,
            "a group has letters, digits, -, _ and dots",
        ),
    }
}

/// A group of that name; none if it cannot be the name of one.
pub(super) fn group(text: &str) -> Option<String> {
    let right = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    right.then(|| text.to_owned())
}

/// An attribute, if its value can be one.
pub(super) fn attribute(draft: &mut Draft, left: &mut Leftovers, at: &Range<usize>, name: &str, text: &str) {
    if text.len() > 1024 || text.chars().any(char::is_control) {
        return left.add(name, at, "an attribute is one line of at most 1024 bytes");
    }
    draft
        .attributes
        .get_or_insert_default()
        .insert(name.to_owned(), text.to_owned());
}
