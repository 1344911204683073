//! Reads one table of the site file: known keys, their types, and the place of each value.

use super::{
    diagnostic::{Report, quote},
    meant, profile, vars,
};
use rackstrap_base::words::closest;
use std::{collections::BTreeMap, ops::Range, ops::RangeInclusive};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// All keys of all sections. Unknown keys are refused and suggestions are made by this list.
pub(super) const KEYS: [(&str, &[&str]); 16] = [
    (
        "[cluster]",
        &[
            "name",
            "domain",
            "node-name",
            "node-address",
            "range",
            "reserved",
            "naming",
            vars::VARS,
            vars::SECRETS,
        ],
    ),
    ("[[cluster.naming]]", &["node-name", "node-address", "range"]),
    (
        "[server]",
        &[
            "state-dir",
            "socket",
            "http-port",
            "nfs-port",
            "tftp-port",
            "netconsole-port",
            "loader-dirs",
            "templates-dir",
            "bootscripts-dir",
            "answer-router-solicitations",
            "look-for-dhcp-servers",
        ],
    ),
    (
        "[[subnet]]",
        &[
            "network",
            "interface",
            "relayed",
            "server",
            "vlan",
            "dhcp",
            "dhcp-servers",
            "next-server",
            "router",
            "dns",
            "ntp",
            "mtu",
            "dhcp-options",
            "pool",
            "lease-time",
            "pool-lease-time",
        ],
    ),
    ("[profile.NAME]", &profile::SECTION),
    (
        "[layout.NAME]",
        &["version", "table", "wipe", "disk", "esp", "partition"],
    ),
    (
        "[[layout.NAME.partition]]",
        &[
            "name", "size", "fs", "label", "encrypt", "mount", "options", "owner", "mode",
        ],
    ),
    (
        "[[mount]]",
        &["what", "where", "type", "options", "profiles", "required"],
    ),
    (
        "[[network]]",
        &[
            "name",
            "type",
            "match",
            "members",
            "mode",
            "parent",
            "id",
            "node-address",
            "prefix",
            "mtu",
            "router",
            "routes",
            "dns",
            "search",
            "speed",
            "profiles",
        ],
    ),
    ("[loader.NAME]", &["file", "arch", "vendor-class", "profiles"]),
    ("[bmc]", &["address", "driver", "user", "password-file"]),
    ("[users]", &["uid", "gid", "exclude", "shadow", "from"]),
    ("[hooks]", &["on-change", "drain", "resume", "timeout"]),
    ("[backup]", &["keep", "dir", "at"]),
    ("[dns]", &["name", "forward"]),
    (
        "[limits]",
        &[
            "timeline-events",
            "unknown-machines",
            "heartbeat",
            "boots-before-going-back",
            "checks-within",
            "check-timeout",
        ],
    ),
];

/// A table of the site file.
pub(super) struct Section<'a> {
    /// The title in the file, such as `[layout.scratch]`.
    pub title: String,
    /// Position of its header in the file.
    pub at: Range<usize>,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// Reads `value` as a table. `kind` is its title in [`KEYS`], `title` the one to show.
    /// Unknown keys are reported at once.
    pub(super) fn new(
        report: &mut Report<'_>,
        kind: &str,
        title: String,
        at: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<Self> {
        let table = match value.get_ref() {
            DeValue::Table(table) => table,
            DeValue::Array(all) if !title.starts_with("[[") && all.iter().all(|v| v.get_ref().is_table()) => {
                let message = format!("{title} has one pair of brackets, and appears once");
                report.error(at, message, format!("write {title}"));
                return None;
            }
            other => {
                let message = format!("{title} is a section, not {}", article(other));
                report.error(
                    at,
                    message,
                    format!("write {title} on its own line, and its keys below it"),
                );
                return None;
            }
        };
        let known = KEYS.iter().find(|(k, _)| *k == kind).map_or(&[][..], |(_, keys)| *keys);
        for (key, _) in table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let (word, span) = (key.get_ref().as_ref(), key.span());
            let message = format!("{title} has no key {}", quote(word));
            report.error(span, message, suggest(word, kind, known));
        }
        Some(Section { title, at, table })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// The place of `key`; the section's header if the key is missing.
    pub(super) fn key_at(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or(self.at.clone(), |(k, _)| k.span())
    }

    /// The places of all keys.
    pub(super) fn places(&self) -> BTreeMap<String, Range<usize>> {
        let keys = self
            .table
            .iter()
            .map(|(key, _)| (key.get_ref().to_string(), key.span()));
        keys.collect()
    }

    /// Reports `key` as missing if it is.
    pub(super) fn require(&self, report: &mut Report<'_>, key: &str, example: &str) {
        if self.get(key).is_none() {
            let message = format!("{} needs '{key}'", self.title);
            report.error(self.at.clone(), message, format!("write {key} = {example}"));
        }
    }

    /// A string. `example` is a TOML value to show, with its quotes.
    pub(super) fn string(&self, report: &mut Report<'_>, key: &str, example: &str) -> Option<Spanned<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Spanned::new(value.span(), text.to_owned())),
            None => {
                let help = format!("write text in double quotes, such as {key} = {example}");
                wrong_type(report, key, value, "a string", help);
                None
            }
        }
    }

    /// A string that `read` parses. The error of `read` is (message, help).
    pub(super) fn parsed<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        example: &str,
        read: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Option<Spanned<T>> {
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            let source = report.source(&value.span());
            let help = meant::text(value.get_ref(), source, key, example, |text| read(text).map(drop));
            wrong_type(report, key, value, "a string", help);
            return None;
        };
        match read(text) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err((message, help)) => {
                report.error(value.span(), message, help);
                None
            }
        }
    }

    /// A list of strings, each parsed by `read`. Invalid items are reported and left out.
    pub(super) fn list<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        example: &str,
        read: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Option<Vec<Spanned<T>>> {
        let value = self.get(key)?;
        let Some(items) = value.get_ref().as_array() else {
            let help = meant::list(value.get_ref(), key, example, |text| read(text).map(drop));
            wrong_type(report, key, value, "a list", help);
            return None;
        };
        let mut all = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_str().map(&read) {
                Some(Ok(one)) => all.push(Spanned::new(item.span(), one)),
                Some(Err((message, help))) => report.error(item.span(), message, help),
                None => {
                    let source = report.source(&item.span());
                    let help = meant::item(source, key, example, |text| read(text).map(drop));
                    wrong_type(report, key, item, "a list of strings", help);
                }
            }
        }
        Some(all)
    }

    /// An integer in `range`.
    pub(super) fn integer(
        &self,
        report: &mut Report<'_>,
        key: &str,
        range: RangeInclusive<u64>,
        example: u64,
    ) -> Option<Spanned<u64>> {
        let value = self.get(key)?;
        let (min, max) = (range.start(), range.end());
        let help = format!("write a number from {min} to {max}, such as {key} = {example}");
        let Some(integer) = value.get_ref().as_integer() else {
            let help = meant::integer(value.get_ref(), key, |number| range.contains(&number), help);
            wrong_type(report, key, value, "a whole number", help);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix()).ok();
        match number.filter(|n| range.contains(n)) {
            Some(number) => Some(Spanned::new(value.span(), number)),
            None => {
                let message = format!("{key} = {} is out of range", report.source(&value.span()));
                report.error(value.span(), message, help);
                None
            }
        }
    }

    /// A boolean.
    pub(super) fn boolean(&self, report: &mut Report<'_>, key: &str) -> Option<Spanned<bool>> {
        let value = self.get(key)?;
        match value.get_ref().as_bool() {
            Some(yes) => Some(Spanned::new(value.span(), yes)),
            None => {
                let help = meant::boolean(value.get_ref(), key);
                wrong_type(report, key, value, "true or false", help);
                None
            }
        }
    }

    /// A time span in whole seconds, `"12h"`.
    pub(super) fn seconds(
        &self,
        report: &mut Report<'_>,
        key: &str,
        range: RangeInclusive<u32>,
        default: &str,
    ) -> Option<u32> {
        let read = |text: &str| {
            let long = |secs: u32| humantime::format_duration(std::time::Duration::from_secs(secs.into())).to_string();
            let bounds = format!("from {} to {}", long(*range.start()), long(*range.end()));
            let help = format!("write a time {bounds}, such as {key} = \"{default}\"");
            let Ok(duration) = humantime::parse_duration(text) else {
                // In most programs a plain number means seconds; here the unit is required.
                let help = match text.parse().is_ok_and(|secs| range.contains(&secs)) {
                    true => format!("write {key} = \"{text}s\""),
                    false => help,
                };
                return Err((format!("{} is not a time span", quote(text)), help));
            };
            let whole = duration.subsec_nanos() == 0;
            match u32::try_from(duration.as_secs())
                .ok()
                .filter(|s| whole && range.contains(s))
            {
                Some(seconds) => Ok(seconds),
                None => Err((format!("{key} = {} is out of range", quote(text)), help)),
            }
        };
        self.parsed(report, key, &format!("\"{default}\""), read)
            .map(Spanned::into_inner)
    }
}

/// Reports that the value of `key` is not of the type `wanted`.
fn wrong_type(report: &mut Report<'_>, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, help: String) {
    let message = format!("'{key}' is {wanted}, not {}", article(value.get_ref()));
    report.error(value.span(), message, help);
}

/// The help for a key that is not in [`KEYS`] under `kind`.
fn suggest(word: &str, kind: &str, known: &[&str]) -> String {
    if let Some(near) = closest(word, known.iter().copied()) {
        return format!("did you mean '{near}'?");
    }
    let elsewhere = KEYS.iter().find(|(k, keys)| *k != kind && keys.contains(&word));
    match elsewhere {
        Some((title, _)) => format!("'{word}' belongs in {title}"),
        None => format!("remove it; the keys here are {}", known.join(", ")),
    }
}

/// `a string`, `an integer`.
pub(super) fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
