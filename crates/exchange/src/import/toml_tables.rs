//! The format of `rackstrap node export`: `[node.NAME]` tables.

use super::{
    Draft, ENTRIES, Entry, Word, mac,
    report::{Report, shown},
};
use rackstrap_site::{
    value::{Value, of_toml, to_toml as to_toml_value},
    variable,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use toml_edit::{Array, DocumentMut, Item, Key, Table};

const KEYS: [&str; 8] = [
    "hwaddrs",
    "hwaddr",
    "ipaddr",
    "profiles",
    "profile",
    "groups",
    "attributes",
    "settings",
];
const EXAMPLE: &str = "write [node.r01n01], and below it hwaddrs = [\"52:54:00:01:01:01\"]";
/// If more tables than this are repeated or inside of nodes, reading stops: the parser moves all its tables for each of them.
const REPEATED: usize = 100;
/// At most this many brackets of a line are tried as the end of a header.
const BRACKETS: usize = 16;

/// Writes nodes in the form that [`super::read`] reads.
pub fn to_toml(entries: &[Entry]) -> String {
    let list = |all: &[String]| {
        Item::Value(toml_edit::Value::Array(
            all.iter().map(String::as_str).collect::<Array>(),
        ))
    };
    let mut nodes = Table::new();
    nodes.set_implicit(true);
    for entry in entries {
        let mut table = Table::new();
        let hwaddrs: Vec<String> = entry.hwaddrs.iter().map(ToString::to_string).collect();
        table.insert("hwaddrs", list(&hwaddrs));
        if let Some(ipaddr) = entry.ipaddr {
            table.insert("ipaddr", Item::Value(ipaddr.to_string().into()));
        }
        if let Some(profiles) = &entry.profiles {
            table.insert("profiles", list(profiles));
        }
        if let Some(groups) = &entry.groups {
            table.insert("groups", list(groups));
        }
        if let Some(attributes) = entry.attributes.as_ref().filter(|attributes| !attributes.is_empty()) {
            let pairs = attributes.iter().map(|(name, value)| (name, value.as_str()));
            table.insert(
                "attributes",
                Item::Value(toml_edit::Value::InlineTable(pairs.collect())),
            );
        }
        // Files of nodes are kept in git: secret values are not in them, and an import leaves those of the node.
        let open = entry.settings.iter().flatten();
        let open: serde_json::Map<String, Value> = open
            .filter(|(key, _)| !variable(key).is_some_and(|(_, secret)| secret))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !open.is_empty() {
            let text = to_toml_value(&Value::Object(open));
            // What is written here is TOML, unless a row of the store has what no reader accepts.
            table.insert("settings", text.parse().map_or(Item::None, Item::Value));
        }
        nodes.insert(&entry.name, Item::Table(table));
    }
    let mut document = DocumentMut::new();
    if !entries.is_empty() {
        document.insert("node", Item::Table(nodes));
    }
    document.to_string()
}

pub(super) fn read(report: &mut Report<'_>) -> Vec<Draft> {
    let Some(mut told) = headers_once(report) else {
        return Vec::new();
    };
    let (document, errors) = DeTable::parse_recoverable(report.text());
    for error in errors {
        let at = error.span().unwrap_or(0..0);
        // Repeated headers were reported with the place of the first one, which the parser does not know. For one broken line
        // the parser reports several errors, of which the first is the cause.
        if told.insert(report.line(at.start)) {
            report.error(at, format!("this is not TOML: {}", error.message()), EXAMPLE);
        }
    }
    let mut drafts = Vec::new();
    for (key, value) in document.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("node", DeValue::Table(nodes)) => {
                for (name, value) in nodes {
                    drafts.extend(node(report, name.get_ref(), name.span(), value));
                }
            }
            ("node", _) => report.error(key.span(), "'node' is not a table of nodes", EXAMPLE),
            (other, _) => {
                let message = format!("'{}' is not read here", shown(other));
                let help = if KEYS.contains(&other) {
                    EXAMPLE
                } else {
                    "a file of nodes has [node.NAME] tables only"
                };
                report.error(key.span(), message, help);
            }
        }
    }
    drafts.sort_by_key(|draft| draft.at.start);
    drafts
}

/// Reports each repeated `[node.NAME]` with the place of the first one, and returns the lines of the repetitions; none if
/// reading must stop.
fn headers_once(report: &mut Report<'_>) -> Option<BTreeSet<usize>> {
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut repeated = BTreeSet::new();
    let (mut deep, mut deepest) = (0, 0..0);
    for (offset, line) in report.lines() {
        let Some((header, parts)) = header(line) else { continue };
        let at = offset..offset + line.len();
        if parts > 2 {
            deep += 1;
            deepest = at.clone();
        }
        let Some(known) = first.get(&header) else {
            first.insert(header, report.line(offset));
            continue;
        };
        repeated.insert(report.line(offset));
        let message = format!("[{}] is on line {known} already", shown(&header));
        report.error(at, message, "name each node once, with all its hwaddrs");
    }
    if first.len() > ENTRIES {
        report.error_whole(
            format!("{} tables in one file; at most {ENTRIES} are read", first.len()),
            "split it into several files, and import one after the other",
        );
    }
    if deep > REPEATED {
        report.error(
            deepest,
            format!("{deep} tables inside of nodes, this one last"),
            EXAMPLE,
        );
    }
    (repeated.len() <= REPEATED && deep <= REPEATED && first.len() <= ENTRIES).then_some(repeated)
}

/// `node.r01n01` of `[node.r01n01]`, in one spelling whatever its blanks and quotes, and the number of its parts.
fn header(line: &str) -> Option<(String, usize)> {
    let inside = line.trim_start().strip_prefix('[')?;
    let end = inside.rfind(']')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if inside[..end].chars().all(plain) {
        return Some((inside[..end].to_owned(), inside[..end].split('.').count()));
    }
    // A comment may contain brackets, too: the longest text that is a key is the header.
    let ends = inside.char_indices().filter(|(_, c)| *c == ']').take(BRACKETS);
    let keys = ends.filter_map(|(end, _)| Key::parse(&inside[..end]).ok()).last()?;
    let quoted = |key: &Key| Key::new(key.get()).to_string();
    Some((keys.iter().map(quoted).collect::<Vec<_>>().join("."), keys.len()))
}

fn node(report: &mut Report<'_>, name: &str, at: Range<usize>, value: &Spanned<DeValue<'_>>) -> Option<Draft> {
    let DeValue::Table(table) = value.get_ref() else {
        let message = format!("'node.{}' is not a table", shown(name));
        report.error(at, message, EXAMPLE);
        return None;
    };
    let mut draft = Draft {
        at,
        name: Some(name.to_owned()),
        ..Draft::default()
    };
    for pair in [["hwaddrs", "hwaddr"], ["profiles", "profile"]] {
        if let (Some(_), Some((second, _))) = (table.get(pair[0]), table.get_key_value(pair[1])) {
            let message = format!("'{}' and '{}' in one table", pair[0], pair[1]);
            report.error(second.span(), message, format!("keep {}", pair[0]));
        }
    }
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "hwaddrs" | "hwaddr" => hwaddrs(report, &mut draft, key.get_ref(), value),
            "ipaddr" => match (string(value), string(value).and_then(|text| text.parse().ok())) {
                (_, Some(ipaddr)) => draft.ipaddr = Some(ipaddr),
                _ => report.error(
                    value.span(),
                    "'ipaddr' is not an IPv4 address",
                    "write ipaddr = \"10.5.1.1\", or leave it out: it follows from the name",
                ),
            },
            "profiles" => draft.profiles = list(report, "profiles", value),
            "profile" => match string(value) {
                Some(profile) => draft.profiles = Some(vec![(value.span(), profile.to_owned())]),
                None => report.error(value.span(), "'profile' is not a string", "write profile = \"compute\""),
            },
            "groups" => draft.groups = list(report, "groups", value),
            "attributes" => draft.attributes = attributes(report, value),
            "settings" => draft.settings = settings(report, value),
            other => {
                let near = KEYS
                    .iter()
                    .find(|known| strsim::damerau_levenshtein(known, &shown(other)) <= 2);
                let help = match near {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are: {}", KEYS.join(", ")),
                };
                report.error(key.span(), format!("a node has no key '{}'", shown(other)), help);
            }
        }
    }
    if draft.hwaddrs.is_empty() && !draft.reported {
        let message = format!("{} has no hardware address", shown(name));
        report.error(
            draft.at.clone(),
            message,
            "write hwaddrs = [\"52:54:00:01:01:01\"] below it",
        );
        draft.reported = true;
    }
    Some(draft)
}

fn hwaddrs(report: &mut Report<'_>, draft: &mut Draft, key: &str, value: &Spanned<DeValue<'_>>) {
    let one = std::slice::from_ref(value);
    let all = match value.get_ref() {
        DeValue::Array(array) if key == "hwaddrs" => array.iter().collect(),
        _ => one.iter().collect::<Vec<_>>(),
    };
    for value in all {
        match string(value).map(|text| (text, mac::hwaddr(text))) {
            Some((_, Some(hwaddr))) => draft.hwaddrs.push((value.span(), hwaddr)),
            Some((text, None)) => {
                report.error(value.span(), mac::wrong(text), mac::HELP);
                draft.reported = true;
            }
            None => {
                let message = format!("'{key}' is not made of strings");
                report.error(value.span(), message, "write hwaddrs = [\"52:54:00:01:01:01\"]");
                draft.reported = true;
            }
        }
    }
}

fn list(report: &mut Report<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<Word>> {
    let help = || format!("write {key} = [\"compute\"]");
    let DeValue::Array(array) = value.get_ref() else {
        report.error(value.span(), format!("'{key}' is not a list"), help());
        return None;
    };
    let mut all = Vec::new();
    for value in array.iter() {
        match string(value) {
            Some(text) if !text.is_empty() => all.push((value.span(), text.to_owned())),
            _ => report.error(value.span(), format!("'{key}' is not made of names"), help()),
        }
    }
    Some(all)
}

fn attributes(report: &mut Report<'_>, value: &Spanned<DeValue<'_>>) -> Option<BTreeMap<String, String>> {
    let help = "write attributes = { location = \"row 3\" }";
    let DeValue::Table(table) = value.get_ref() else {
        report.error(value.span(), "'attributes' is not a table of names and values", help);
        return None;
    };
    let mut all = BTreeMap::new();
    for (name, value) in table {
        match string(value) {
            Some(text) => {
                all.insert(name.get_ref().to_string(), text.to_owned());
            }
            None => {
                let message = format!("the attribute '{}' is not a string", shown(name.get_ref()));
                report.error(value.span(), message, help);
            }
        }
    }
    Some(all)
}

fn settings(report: &mut Report<'_>, value: &Spanned<DeValue<'_>>) -> Option<BTreeMap<String, (Range<usize>, Value)>> {
    let DeValue::Table(table) = value.get_ref() else {
        let help = "write settings = { image = \"debian@2\", \"kernel-args+\" = \"quiet\" }";
        report.error(value.span(), "'settings' is not a table of keys and values", help);
        return None;
    };
    let mut all = BTreeMap::new();
    for (key, value) in table {
        match of_toml(value.get_ref()) {
            // `vars = { pdu = "pdu2" }` is the same as `"vars.pdu" = "pdu2"`.
            Ok(Value::Object(table)) if ["vars", "vars-secret"].contains(&key.get_ref().as_ref()) => {
                let one = |(name, value)| (format!("{}.{name}", key.get_ref()), (key.span(), value));
                all.extend(table.into_iter().map(one));
            }
            Ok(read) => drop(all.insert(key.get_ref().to_string(), (key.span(), read))),
            Err((message, help)) => report.error(value.span(), message, help),
        }
    }
    Some(all)
}

fn string<'a>(value: &'a Spanned<DeValue<'_>>) -> Option<&'a str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}
