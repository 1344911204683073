//! Finds the format of a file by its content and its name.

use super::{
    Format, csv_rows, dnsmasq, json_files, mac, netbox,
    report::{Report, words},
    xcat,
};
use std::ops::Range;

/// At most this many lines are looked at.
const LOOKED_AT: usize = 4000;

/// The format. If it is unclear, returns none and puts the reason into `report`.
pub(super) fn detect(file: &str, report: &mut Report<'_>) -> Option<Format> {
    if let Some(format) = by_program(report) {
        return Some(format);
    }
    let named = by_name(file);
    let seen = by_content(report);
    let total: usize = seen.iter().map(|(_, count, _)| count).sum();
    // A few wrong lines do not make it another format. They are reported as errors of this format.
    let by_content = seen
        .iter()
        .find(|(_, count, _)| count * 4 >= total * 3)
        .map(|(format, ..)| *format);
    let ways = format!(
        "name its format with --type {}",
        Format::ALL.map(Format::name).join("|")
    );
    match (named, by_content) {
        (Some(named), Some(content)) if named != content => {
            let at = seen
                .iter()
                .find(|(format, ..)| *format == content)
                .map_or(0..0, |(_, _, at)| at.clone());
            let message = format!("the file is called as if it were {named}, and this line looks like {content}");
            report.error(at, message, ways);
            None
        }
        (Some(format), _) | (None, Some(format)) => Some(format),
        (None, None) if seen.is_empty() => {
            let message = "this looks like none of the formats that can be imported: there is no hardware address in \
                           the place where one of them has it";
            report.error_whole(message, ways);
            None
        }
        (None, None) => {
            for (format, count, at) in seen {
                let s = if count == 1 { " looks" } else { "s look" };
                report.error(
                    at,
                    format!("{count} line{s} like {format}, this one first"),
                    ways.clone(),
                );
            }
            None
        }
    }
}

/// The format of files that only one program writes.
fn by_program(report: &Report<'_>) -> Option<Format> {
    let lines = report.lines();
    let mut lines = lines.iter().take(LOOKED_AT).map(|(_, line)| *line);
    if let Some(format) = json_files::format(report.text()) {
        return Some(format);
    }
    lines.find_map(|line| match line.trim_end() {
        "nodes:" | "nodeprofiles:" => Some(Format::Warewulf),
        line if xcat::is_header(line) => Some(Format::Xcat),
        line if netbox::is_header(line) => Some(Format::Netbox),
        _ => None,
    })
}

fn by_name(file: &str) -> Option<Format> {
    let name = file.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let conf = name.ends_with(".conf") || name.ends_with(".conf.orig") || !name.contains('.');
    if name.ends_with(".toml") {
        Some(Format::Toml)
    } else if name.ends_with(".csv") || name.ends_with(".tsv") {
        Some(Format::Csv)
    } else if name.starts_with("dhcpd") && (conf || name.ends_with(".leases")) {
        Some(Format::Dhcpd)
    } else if name.starts_with("dnsmasq") && conf {
        Some(Format::Dnsmasq)
    } else if name == "ethers" || name.ends_with(".ethers") {
        Some(Format::Ethers)
    } else {
        None
    }
}

/// The formats that lines look like, each with the number of such lines and the place of the first one.
fn by_content(report: &Report<'_>) -> Vec<(Format, usize, Range<usize>)> {
    let mut seen: Vec<(Format, usize, Range<usize>)> = Vec::new();
    let mut distinct = false;
    for (offset, line) in report.lines().into_iter().take(LOOKED_AT) {
        let Some((format, strong)) = of_line(line) else {
            continue;
        };
        // Lines that only one program writes decide alone, because other lines may look like any format.
        if distinct && !strong {
            continue;
        }
        if strong && !distinct {
            distinct = true;
            seen.clear();
        }
        match seen.iter_mut().find(|(known, ..)| *known == format) {
            Some((_, count, _)) => *count += 1,
            None => seen.push((format, 1, offset..offset + line.len())),
        }
    }
    seen
}

/// The format that a line looks like, and whether no other format has such lines.
fn of_line(line: &str) -> Option<(Format, bool)> {
    let body = line.trim();
    if body.is_empty() || body.starts_with(['#', ';']) || body.starts_with("//") {
        return None;
    }
    let squeezed: String = body.chars().filter(|c| !c.is_whitespace()).take(40).collect();
    if squeezed.starts_with("[node.") || squeezed == "[node]" || squeezed.starts_with("hwaddrs=[") {
        return Some((Format::Toml, true));
    }
    if squeezed.starts_with("hwaddr=\"") || squeezed.starts_with("node.") && squeezed.contains('=') {
        return Some((Format::Toml, true));
    }
    let mut lower = words(body, 0).map(|(_, word)| word.to_ascii_lowercase());
    let first_two = (lower.next().unwrap_or_default(), lower.next().unwrap_or_default());
    if matches!((first_two.0.as_str(), first_two.1.as_str()), ("hardware", "ethernet")) {
        return Some((Format::Dhcpd, true));
    }
    if first_two.0 == "host" && body.contains('{') {
        return Some((Format::Dhcpd, true));
    }
    let option = body.trim_start_matches("--");
    if option.starts_with("dhcp-host=") {
        return Some((Format::Dnsmasq, true));
    }
    if csv_rows::is_header(body) {
        return Some((Format::Csv, true));
    }
    of_table_line(body)
}

fn of_table_line(body: &str) -> Option<(Format, bool)> {
    if csv_rows::is_row(body) && body.contains([',', ';', '\t']) {
        let delimiter = char::from(csv_rows::delimiter([body].into_iter()));
        let mut fields = body.split(delimiter).map(|field| field.trim().trim_matches('"'));
        let first = fields.next().unwrap_or_default();
        let has_hwaddr = |field: &str| field.split([' ', '|']).any(|word| mac::hwaddr(word).is_some());
        if delimiter == ','
            && (mac::hwaddr(first).is_some() || first.starts_with("set:"))
            && dnsmasq::host_of(body).is_some()
        {
            return Some((Format::Dnsmasq, false));
        }
        // Columns that were pasted from a switch may be separated by tabs. A CSV file has the name first.
        if fields.any(has_hwaddr) && (delimiter != '\t' || !first.bytes().all(|b| b.is_ascii_digit())) {
            return Some((Format::Csv, false));
        }
    }
    let all: Vec<&str> = words(body.split('#').next().unwrap_or_default(), 0)
        .map(|(_, word)| word)
        .collect();
    match all.as_slice() {
        [first, _] if first.contains(':') && mac::hwaddr(first).is_some() => Some((Format::Ethers, false)),
        [_, _, ..] if all.iter().any(|word| mac::in_table(word).is_some()) => Some((Format::Switch, false)),
        _ => None,
    }
}
