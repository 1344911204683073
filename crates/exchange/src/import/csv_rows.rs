//! CSV (RFC 4180, one row per line): `name,hwaddr[,profile][,groups]`, with or without a header.

use super::{
    Draft, Word, mac,
    report::{Report, shown, split},
};
use rackstrap_site::{IPADDR, meant_setting, own_keys, split_key, variable};
use std::{
    io::{Cursor, SeekFrom},
    ops::Range,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Name,
    Hwaddr,
    Ipaddr,
    Profile,
    Groups,
    /// A setting of the node itself, by its key.
    Setting(String),
    /// Spreadsheets have columns that are not read.
    Other,
}

const WITHOUT_HEADER: [Column; 4] = [Column::Name, Column::Hwaddr, Column::Profile, Column::Groups];

/// At most this many fields of a row are searched in its line, to point at them.
const SEARCHED: usize = 16;

impl Column {
    fn of(word: &str) -> Option<Column> {
        let key = split_key(word).0;
        if key != IPADDR && (own_keys().any(|known| known == key) || variable(word).is_some()) {
            return Some(Column::Setting(word.to_owned()));
        }
        let word: String = word.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).collect();
        Some(match word.to_ascii_lowercase().as_str() {
            "name" | "node" | "host" | "hostname" | "nodename" => Column::Name,
            "hwaddr" | "hwaddrs" | "mac" | "macs" | "macaddr" | "macaddress" | "macaddresses" | "ethernet" => {
                Column::Hwaddr
            }
            "ip" | "ipv4" | "ipaddr" | "ipaddress" | "address" => Column::Ipaddr,
            "profile" | "profiles" => Column::Profile,
            "group" | "groups" => Column::Groups,
            _ => return None,
        })
    }

    fn name(&self) -> &str {
        match self {
            Column::Setting(key) => key,
            Column::Name => "name",
            Column::Hwaddr => "hwaddr",
            Column::Ipaddr => "ipaddr",
            Column::Profile => "profile",
            Column::Groups => "groups",
            Column::Other => "",
        }
    }
}

/// A field with the bytes of its place, as far as they can be found.
type Field = (Range<usize>, String);

pub(super) fn read(report: &mut Report<'_>) -> Vec<Draft> {
    let lines = report.lines();
    let rows = lines.iter().filter(|(_, line)| is_row(line));
    let delimiter = delimiter(rows.clone().map(|(_, line)| *line).take(100));
    let mut cutter = Cutter::new(delimiter);
    let mut columns: Option<Vec<Column>> = None;
    let mut drafts = Vec::new();
    for &(offset, line) in rows {
        let at = offset..offset + line.len();
        let Some(fields) = cutter.fields(line, offset) else {
            let help = "close it in the same line, or leave the quotes out: names and addresses need none";
            report.error(at, "a quote is opened and not closed", help);
            continue;
        };
        match &columns {
            None => match header(report, &fields) {
                Header::None => {
                    columns = Some(WITHOUT_HEADER.to_vec());
                    drafts.push(row(report, at, &fields, &WITHOUT_HEADER, delimiter));
                }
                Header::Columns(named) => columns = Some(named),
                Header::Bad => return Vec::new(),
            },
            Some(columns) => drafts.push(row(report, at, &fields, columns, delimiter)),
        }
    }
    drafts.into_iter().flatten().collect()
}

/// Whether the line is a row: neither blank nor a comment. Spreadsheets end with rows of separators only.
pub(super) fn is_row(line: &str) -> bool {
    !line.trim_start().starts_with('#') && !line.chars().all(|c| c.is_whitespace() || matches!(c, ',' | ';' | '"'))
}

/// Whether the line names the two columns that every table of nodes has.
pub(super) fn is_header(line: &str) -> bool {
    let cells = || {
        line.split([',', ';', '\t'])
            .map(|cell| Column::of(cell.trim().trim_matches('"')))
    };
    cells().any(|cell| cell == Some(Column::Name)) && cells().any(|cell| cell == Some(Column::Hwaddr))
}

/// The separator: spreadsheets in many countries write semicolons.
pub(super) fn delimiter<'a>(rows: impl Iterator<Item = &'a str>) -> u8 {
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    for row in rows {
        // A row with at least one counts once, because a cell may contain many commas.
        for (delimiter, count) in &mut counts {
            *count += usize::from(row.as_bytes().contains(delimiter));
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    counts
        .iter()
        .find(|(_, count)| *count == most)
        .map_or(b',', |(d, _)| *d)
}

/// Splits rows into fields, with one reader for all rows: making a reader takes much longer than reading a row.
struct Cutter<'t> {
    reader: csv::Reader<Cursor<&'t [u8]>>,
    record: csv::StringRecord,
    delimiter: char,
}

impl<'t> Cutter<'t> {
    fn new(delimiter: u8) -> Self {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true).trim(csv::Trim::All);
        builder.delimiter(delimiter).buffer_capacity(512);
        Cutter {
            reader: builder.from_reader(Cursor::new(&[])),
            record: csv::StringRecord::new(),
            delimiter: char::from(delimiter),
        }
    }

    /// The fields of one row; none if a quote is not closed, which must not swallow the following rows.
    fn fields(&mut self, line: &'t str, offset: usize) -> Option<Vec<Field>> {
        if !line.contains('"') {
            let parts = split(line, offset, |c| c == self.delimiter);
            return Some(parts.map(|(at, text)| (at, text.to_owned())).collect());
        }
        if !line.bytes().filter(|b| *b == b'"').count().is_multiple_of(2) {
            return None;
        }
        *self.reader.get_mut() = Cursor::new(line.as_bytes());
        self.reader.seek_raw(SeekFrom::Start(0), csv::Position::new()).ok()?;
        self.reader.read_record(&mut self.record).ok().filter(|read| *read)?;
        // A quoted field can be found again by its text, unless it contains escapes.
        let mut from = 0;
        let found = self.record.iter().enumerate().map(|(i, text)| {
            let begin = match i < SEARCHED {
                true => line[from..].find(text).map_or(from, |at| from + at),
                false => from,
            };
            from = (begin + text.len()).min(line.len());
            while !line.is_char_boundary(from) {
                from -= 1;
            }
            (offset + begin..offset + from.max(begin), text.to_owned())
        });
        Some(found.collect())
    }
}

enum Header {
    None,
    Columns(Vec<Column>),
    Bad,
}

fn header(report: &mut Report<'_>, fields: &[Field]) -> Header {
    let any_hwaddr = fields
        .iter()
        .any(|(_, text)| text.split(is_between).any(|word| mac::hwaddr(word).is_some()));
    if any_hwaddr || !fields.iter().any(|(_, text)| Column::of(text).is_some()) {
        return Header::None;
    }
    let mut columns: Vec<Column> = Vec::new();
    let mut good = true;
    for (at, text) in fields {
        let column = Column::of(text).unwrap_or(Column::Other);
        if column == Column::Other && !text.is_empty() {
            let message = format!("the column '{}' is not read", shown(text));
            report.warn(
                at.clone(),
                message,
                "known columns: name, hwaddr, ipaddr, profile, groups, keys of settings (image, console), vars.NAME",
            );
        }
        if column != Column::Other && columns.contains(&column) {
            let message = format!("'{}' is a second column for {}", shown(text), column.name());
            report.error(
                at.clone(),
                message,
                "keep one; several addresses or groups go into one cell, with spaces",
            );
            good = false;
        }
        columns.push(column);
    }
    for needed in [Column::Name, Column::Hwaddr] {
        if !columns.contains(&needed) {
            let at = fields[0].0.start..fields.last().map_or(0, |(at, _)| at.end);
            let message = format!("the header has no column '{}'", needed.name());
            report.error(
                at,
                message,
                "write the header as name,hwaddr or name,hwaddr,profile,groups",
            );
            good = false;
        }
    }
    if good { Header::Columns(columns) } else { Header::Bad }
}

fn row(
    report: &mut Report<'_>,
    at: Range<usize>,
    fields: &[Field],
    columns: &[Column],
    delimiter: u8,
) -> Option<Draft> {
    let mut draft = Draft {
        at: fields.first().map_or(at.clone(), |(at, _)| at.clone()),
        ..Draft::default()
    };
    let separator = char::from(delimiter);
    let name_at = columns.iter().position(|c| *c == Column::Name).unwrap_or(0);
    let name = fields.get(name_at).map_or("", |(_, text)| text.as_str());
    if mac::hwaddr(name).is_some() {
        let other = fields
            .iter()
            .map(|(_, text)| text.as_str())
            .find(|t| *t != name && !t.is_empty());
        let message = format!("'{}' is where the name should be", shown(name));
        let help = format!("write {}{separator}{}", shown(other.unwrap_or("r01n01")), shown(name));
        report.error(fields[name_at].0.clone(), message, help);
        return None;
    }
    if let Some((at, text)) = fields.iter().skip(columns.len()).find(|(_, text)| !text.is_empty()) {
        let message = format!(
            "'{}' is one field too many: there are {} columns",
            shown(text),
            columns.len()
        );
        let help = "several addresses or groups go into one field, with spaces: r01n01,52:54:00:01:01:01 \
                    52:54:00:01:01:02,compute,gpu big";
        report.error(at.clone(), message, help);
        return None;
    }
    for (column, (at, text)) in columns.iter().zip(fields) {
        match column {
            Column::Name => draft.name = Some(text.clone()),
            Column::Hwaddr => hwaddrs(report, &mut draft, at, text),
            Column::Ipaddr if text.is_empty() => {}
            Column::Ipaddr => match text.parse() {
                Ok(ipaddr) => draft.ipaddr = Some(ipaddr),
                Err(_) => {
                    let message = format!("'{}' is not an IPv4 address", shown(text));
                    report.error(
                        at.clone(),
                        message,
                        "write four numbers, such as 10.5.1.1, or leave it empty",
                    );
                }
            },
            Column::Profile => draft.profiles = list(at, text),
            Column::Groups => draft.groups = list(at, text),
            // An empty cell changes nothing, as those of the other columns.
            Column::Setting(_) if text.is_empty() => {}
            Column::Setting(key) => {
                draft.adds = true;
                let settings = draft.settings.get_or_insert_default();
                settings.insert(key.clone(), (at.clone(), meant_setting(key, text)));
            }
            Column::Other => {}
        }
    }
    if draft.hwaddrs.is_empty() && !draft.reported {
        let message = format!("{} has no hardware address", shown(name));
        let help = format!("write it after the name: {}{separator}52:54:00:01:01:01", shown(name));
        report.error(at, message, help);
        draft.reported = true;
    }
    Some(draft)
}

fn hwaddrs(report: &mut Report<'_>, draft: &mut Draft, at: &Range<usize>, text: &str) {
    for (within, word) in split(text, 0, is_between).filter(|(_, word)| !word.is_empty()) {
        let at = (at.start + within.start).min(at.end)..(at.start + within.end).min(at.end);
        match mac::hwaddr(word) {
            Some(hwaddr) => draft.hwaddrs.push((at, hwaddr)),
            None => {
                report.error(at, mac::wrong(word), mac::HELP);
                draft.reported = true;
            }
        }
    }
}

fn is_between(c: char) -> bool {
    c.is_whitespace() || c == '|'
}

/// A cell with words. An empty cell changes nothing, because cells are more often empty by accident than on purpose.
fn list(at: &Range<usize>, text: &str) -> Option<Vec<Word>> {
    let words = split(text, at.start, is_between).filter(|(_, word)| !word.is_empty());
    let all: Vec<Word> = words
        .map(|(within, word)| (within.start.min(at.end)..within.end.min(at.end), word.to_owned()))
        .collect();
    (!all.is_empty()).then_some(all)
}
