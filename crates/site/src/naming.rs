//! `node-name`, `node-address` and `range`, in `[cluster]` and in `[[cluster.naming]]`.

use super::{
    diagnostic::{Report, quote, shown},
    section::{Section, article},
};
use rackstrap_hostlist::naming::{MOST_PATTERNS, Naming, Pattern, PatternError, PatternKind};
use std::ops::{Range, RangeInclusive};
use toml::{Spanned, de::DeValue};

const KIND: &str = "[[cluster.naming]]";
const NAME: &str = "\"r{rack:02}n{slot:02}\"";
const ADDRESS: &str = "\"10.5.{rack}.{slot}\"";
const RANGE: &str = "range = { n = \"0-63\" }";
/// The largest number in a name: seven digits.
const MOST_NUMBER: u32 = 9_999_999;
/// More variables in `range` than a name can have are an error.
const MOST_RANGES: usize = 4;

/// The checked patterns, with the places of values that other checks refer to.
pub(super) struct Read {
    pub naming: Naming,
    pub node_addresses: Vec<Range<usize>>,
}

/// A pattern with the places of its two texts.
struct Placed {
    pattern: Pattern,
    name: Range<usize>,
    address: Range<usize>,
}

/// The pattern of `[cluster]` itself, and those of `[[cluster.naming]]`. None only if a problem was reported.
pub(super) fn read(report: &mut Report<'_>, cluster: &Section<'_>) -> Option<Read> {
    let tables = tables(report, cluster);
    let own = ["node-name", "node-address", "range"]
        .iter()
        .any(|key| cluster.get(key).is_some());
    // Without any pattern, the two keys of the shortest form are what is missing.
    let first = (own || tables.as_ref().is_some_and(Vec::is_empty)).then_some(cluster);
    let mut all = Vec::new();
    let mut complete = tables.is_some();
    for section in first.into_iter().chain(tables.iter().flatten()) {
        match one(report, section) {
            Some(placed) => all.push(placed),
            None => complete = false,
        }
    }
    if !complete {
        return None;
    }
    match Naming::of(all.iter().map(|placed| placed.pattern.clone()).collect()) {
        Ok(naming) => Some(Read {
            naming,
            node_addresses: all.into_iter().map(|placed| placed.address).collect(),
        }),
        Err(clashes) => {
            for clash in clashes {
                let other = &all[clash.second];
                let (at, help) = match clash.kind {
                    PatternKind::Name => (&other.name, "give each pattern its own names: another text, or a range"),
                    _ => (
                        &other.address,
                        "give each pattern its own addresses: another offset, or a range",
                    ),
                };
                report.error(at.clone(), format!("{}: {}", clash.kind, clash.message), help);
            }
            None
        }
    }
}

/// The `[[cluster.naming]]` sections; none if they have a problem.
fn tables<'a>(report: &mut Report<'_>, cluster: &Section<'a>) -> Option<Vec<Section<'a>>> {
    let Some(value) = cluster.get("naming") else {
        return Some(Vec::new());
    };
    let at = cluster.key_at("naming");
    let help = format!("write {KIND} on its own line, and node-name and node-address below it");
    match value.get_ref() {
        DeValue::Array(all) if all.is_empty() => {
            report.error(at, "no naming is defined", help);
            None
        }
        DeValue::Array(all) if all.len() >= MOST_PATTERNS => {
            let message = format!(
                "there are {} patterns of names, at most {}",
                all.len(),
                MOST_PATTERNS - 1
            );
            report.error(
                at,
                message,
                "give kinds of nodes whose names differ by a number one pattern with a range",
            );
            None
        }
        DeValue::Array(all) => {
            let count = all.len();
            let sections = all
                .iter()
                .filter_map(|one| Section::new(report, KIND, KIND.to_owned(), one.span(), one));
            let sections: Vec<Section<'a>> = sections.collect();
            (sections.len() == count).then_some(sections)
        }
        other => {
            report.error(
                at,
                format!("'naming' is a list of sections, not {}", article(other)),
                help,
            );
            None
        }
    }
}

/// The pattern of a section.
fn one(report: &mut Report<'_>, section: &Section<'_>) -> Option<Placed> {
    section.require(report, "node-name", NAME);
    section.require(report, "node-address", ADDRESS);
    let name = section.string(report, "node-name", NAME);
    let address = section.string(report, "node-address", ADDRESS);
    let ranges = ranges(report, section);
    let (name, address, ranges) = (name?, address?, ranges?);
    let given: Vec<(&str, RangeInclusive<u32>)> = ranges
        .iter()
        .map(|(variable, range)| (variable.get_ref().as_str(), range.clone()))
        .collect();
    match Pattern::new(name.get_ref(), address.get_ref(), &given) {
        Ok(pattern) => Some(Placed {
            pattern,
            name: name.span(),
            address: address.span(),
        }),
        Err(errors) => {
            for error in errors {
                let at = place(report, &error, &name, &address, &ranges);
                report.error(at, format!("{}: {}", error.pattern, error.message), error.help);
            }
            None
        }
    }
}

/// The place of a pattern's problem in the file.
fn place(
    report: &Report<'_>,
    error: &PatternError,
    name: &Spanned<String>,
    address: &Spanned<String>,
    ranges: &[(Spanned<String>, RangeInclusive<u32>)],
) -> Range<usize> {
    let text = match &error.pattern {
        PatternKind::Name => name,
        PatternKind::Address => address,
        PatternKind::Range(variable) => {
            let written = ranges.iter().rev().find(|(key, _)| key.get_ref() == variable);
            return written.map_or(address.span(), |(key, _)| key.span());
        }
    };
    // If the string is plainly quoted, the caret can point at the wrong characters inside it.
    let span = text.span();
    let plain = report
        .source(&span)
        .get(1..)
        .is_some_and(|s| s.starts_with(text.get_ref().as_str()));
    match plain && !error.at.is_empty() {
        true => span.start + 1 + error.at.start..span.start + 1 + error.at.end,
        false => span,
    }
}

/// `range = { n = "0-63" }`; empty if it is not written, none if it has a problem.
fn ranges(report: &mut Report<'_>, section: &Section<'_>) -> Option<Vec<(Spanned<String>, RangeInclusive<u32>)>> {
    let Some(value) = section.get("range") else {
        return Some(Vec::new());
    };
    let DeValue::Table(table) = value.get_ref() else {
        let message = format!("'range' is a table of variables, not {}", article(value.get_ref()));
        report.error(value.span(), message, format!("write {RANGE}"));
        return None;
    };
    if table.len() > MOST_RANGES {
        let message = format!("'range' has {} variables, at most {MOST_RANGES}", table.len());
        report.error(value.span(), message, format!("write {RANGE}"));
        return None;
    }
    let mut ranges = Vec::new();
    for (key, value) in table {
        let variable = shown(key.get_ref());
        match value.get_ref().as_str().map(|text| (text, range(text))) {
            Some((_, Some(range))) => ranges.push((Spanned::new(key.span(), key.get_ref().to_string()), range)),
            Some((text, None)) => {
                let help = format!(
                    "write the first and the last number, at most {MOST_NUMBER}, such as {variable} = \"0-63\""
                );
                report.error(value.span(), format!("{} is not a range of numbers", quote(text)), help);
            }
            None => {
                let message = format!(
                    "the range of '{variable}' is a string, not {}",
                    article(value.get_ref())
                );
                report.error(value.span(), message, format!("write {RANGE}"));
            }
        }
    }
    (ranges.len() == table.len()).then_some(ranges)
}

/// `0-63`, or one number.
fn range(text: &str) -> Option<RangeInclusive<u32>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 7 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| digits)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    (first <= last).then_some(first..=last)
}
