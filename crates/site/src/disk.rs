//! `disk` of a profile or node: which disk a layout is for.

use super::{
    diagnostic::{Report, quote, shown},
    section::{Section, article},
};
use rackstrap_base::words::closest;
use rackstrap_wire::DiskRule;
use toml::de::{DeTable, DeValue};

type Problem = (String, String);

const EXAMPLE: &str = "disk = { transport = \"nvme\", pick = \"smallest\" }";

/// `auto`, a kernel name, or the text of a [`DiskRule`], as plans have it. The value is a string, or a table of properties.
pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>, key: &'static str) -> Option<String> {
    match section.get(key).map(|value| value.get_ref()) {
        Some(DeValue::Table(table)) => {
            if table.is_empty() {
                let help = format!("write {EXAMPLE}, or disk = \"auto\"");
                report.error(section.key_at(key), "a rule without properties fits every disk", help);
                return None;
            }
            rule(report, table).map(|rule| rule.to_string())
        }
        _ => section
            .parsed(report, key, "\"auto\"", read_text)
            .map(toml::Spanned::into_inner),
    }
}

/// Reads the properties of a rule, and reports all wrong ones.
fn rule(report: &mut Report<'_>, table: &DeTable<'_>) -> Option<DiskRule> {
    let mut rule = DiskRule::default();
    let mut sound = true;
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        if !DiskRule::KEYS.contains(&name) {
            let help = match closest(name, DiskRule::KEYS) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("the properties are {}", DiskRule::KEYS.join(", ")),
            };
            report.error(key.span(), format!("{} is not a property of disks", quote(name)), help);
            sound = false;
            continue;
        }
        let text = match (name, value.get_ref()) {
            ("rotational", DeValue::Boolean(yes)) => yes.to_string(),
            (name, DeValue::String(text)) if name != "rotational" => text.to_string(),
            (_, other) => {
                let (wanted, help) = match name {
                    "rotational" => (
                        "true or false",
                        "write rotational = true for hard disks, or false".to_owned(),
                    ),
                    _ => ("a string", format!("write text in double quotes, such as {EXAMPLE}")),
                };
                let message = format!("'{name}' is {wanted}, not {}", article(other));
                report.error(value.span(), message, help);
                sound = false;
                continue;
            }
        };
        if let Err(error) = rule.set(name, &text) {
            report.error(value.span(), error.message, error.help);
            sound = false;
        }
    }
    sound.then_some(rule)
}

fn read_text(text: &str) -> Result<String, Problem> {
    if matches!(text, "smallest" | "largest") {
        return Ok(format!("pick={text}"));
    }
    if DiskRule::is_rule(text) {
        let read = text.parse::<DiskRule>();
        return read
            .map(|rule| rule.to_string())
            .map_err(|error| (error.message, error.help));
    }
    let help = || {
        format!(
            "write disk = \"auto\" for the first fixed disk, a rule such as {EXAMPLE}, or a kernel name such as \"nvme0n1\""
        )
    };
    if let Some(name) = text.strip_prefix("/dev/") {
        let help = if name.contains('/') {
            help()
        } else {
            format!("write disk = \"{}\"", shown(name))
        };
        return Err((
            format!("{} is a path, and there are no device links this early", quote(text)),
            help,
        ));
    }
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain || !text.starts_with(|c: char| c.is_ascii_lowercase()) || text.len() > 31 {
        return Err((format!("{} is not a disk", quote(text)), help()));
    }
    // Partitions: sda1 on disks whose name ends in a letter, nvme0n1p1 on those whose name ends in a digit.
    let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let lettered = ["sd", "vd", "hd", "xvd"].iter().any(|kind| {
        stem.strip_prefix(kind)
            .is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_lowercase()))
    });
    let numbered = stem
        .strip_suffix('p')
        .filter(|disk| disk.ends_with(|c: char| c.is_ascii_digit()));
    let whole = match (stem.len() < text.len(), lettered, numbered) {
        (true, true, _) => stem,
        (true, _, Some(disk)) => disk,
        _ => return Ok(text.to_owned()),
    };
    Err((
        format!("'{text}' is a partition, and a layout is for a whole disk"),
        format!("write disk = \"{whole}\""),
    ))
}
