//! A change of a node, and the differences that it made.

use super::{Changed, Node};
use rackstrap_base::clock::Timestamp;
use rackstrap_site::{
    split_key,
    value::{Value, to_toml},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One change of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Time of the change.
    pub at: Timestamp,
    /// The user who made the change, or the part of the daemon.
    pub by: String,
    /// The node before and after the change.
    pub changed: Changed,
}

/// What changed, one line for each difference: `added`, `hwaddr 52:54:… -> 52:54:…`.
pub fn differences(changed: &Changed) -> Vec<String> {
    let changed = &changed.without_secrets();
    let (before, after) = match (&changed.before, &changed.after) {
        (None, Some(node)) => return vec![format!("added{}", described(node))],
        (Some(node), None) => return vec![format!("deleted{}", described(node))],
        (Some(before), Some(after)) => (before, after),
        (None, None) => return Vec::new(),
    };
    let mut lines = Vec::new();
    let mut compare = |what: &str, before: String, after: String| {
        if before != after {
            lines.push(format!("{what} {} -> {}", dash(&before), dash(&after)));
        }
    };
    compare("name", before.name.clone(), after.name.clone());
    compare("address", before.ipaddr.to_string(), after.ipaddr.to_string());
    compare("hwaddr", words(&before.hwaddrs), words(&after.hwaddrs));
    compare("profiles", words(&before.profiles), words(&after.profiles));
    compare("groups", words(&before.groups), words(&after.groups));
    let names: BTreeSet<&String> = before.attributes.keys().chain(after.attributes.keys()).collect();
    for name in names {
        let value = |node: &Node| node.attributes.get(name).cloned().unwrap_or_default();
        compare(&format!("attribute {name}"), value(before), value(after));
    }
    let settings = |node: &Node| node.settings.written().clone();
    let (old, new) = (settings(before), settings(after));
    for key in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let value = |all: &BTreeMap<String, Value>| all.get(key).map(shown).unwrap_or_default();
        let (name, adds) = split_key(key);
        let what = if adds { "adds to" } else { "sets" };
        compare(&format!("{what} {name}"), value(&old), value(&new));
    }
    lines
}

fn described(node: &Node) -> String {
    let mut text = format!(": hwaddr {}", words(&node.hwaddrs));
    let attributes = node.attributes.iter().map(|(name, value)| format!("{name}={value}"));
    let settings = node.settings.written().iter();
    let settings = settings.map(|(key, value)| format!("{key}={}", shown(value)));
    for (what, list) in [
        ("profiles", words(&node.profiles)),
        ("groups", words(&node.groups)),
        ("attributes", words(attributes)),
        ("settings", words(settings)),
    ] {
        if !list.is_empty() {
            text += &format!(", {what} {list}");
        }
    }
    text
}

/// A value as it is written; a plain text without quotes.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.chars().any(char::is_control) => text.clone(),
        value => to_toml(value),
    }
}

fn words<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(" ")
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
