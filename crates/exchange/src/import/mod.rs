//! Imports nodes from files of other programs: what `rackstrap node import` reads, and how it differs from the inventory.
//!
//! Text in, result out: this module uses no files, sockets or clocks. A file is imported as a whole or not at all, and all
//! its problems are reported at once.

mod compare;
mod csv_rows;
mod detect;
mod dhcpd;
mod dnsmasq;
mod ethers;
mod finish;
mod foreign;
mod json_files;
mod mac;
mod netbox;
mod networks;
mod ports;
mod reading;
mod report;
mod switch;
mod tables;
mod toml_tables;
mod tree;
mod warewulf;
mod xcat;

#[cfg(test)]
mod tests;

pub use compare::{Difference, compare};
pub use reading::{Judged, Reading};
pub use toml_tables::to_toml;

use rackstrap_hostlist::naming::Naming;
use rackstrap_site::{Diagnostic, value::Value};
use rackstrap_wire::HwAddr;
use report::{PROBLEMS, Report, Said};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, net::Ipv4Addr, ops::Range, str::FromStr};

/// Largest file in bytes: 65,536 nodes with 64 bytes each.
pub const FILE_BYTES: usize = 4 << 20;
/// At most this many nodes in one file: as many as `10.5.X.Y` has positions.
pub const ENTRIES: usize = 65_536;
/// Longest line in bytes.
const LINE_BYTES: usize = 8192;

/// A node as a file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Line of the file, from 1.
    pub line: usize,
    /// The name. If the source has only the address, the name that belongs to the address.
    pub name: String,
    /// Hardware addresses; the first is the card that boots. There is at least one, and each is in one entry only.
    pub hwaddrs: Vec<HwAddr>,
    /// The address in the source, which is compared with the one that follows from the name; none if the source has none.
    pub ipaddr: Option<Ipv4Addr>,
    /// Profiles; none if the source does not have them.
    pub profiles: Option<Vec<String>>,
    /// Groups; none if the source does not have them.
    pub groups: Option<Vec<String>>,
    /// Attributes; none if the source does not have them.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Its own settings, by key; none if the source does not have them.
    pub settings: Option<BTreeMap<String, Value>>,
    /// Whether a node keeps its other attributes and settings: files of other programs have only some of them.
    #[serde(skip)]
    pub adds: bool,
    /// The places of these values.
    #[serde(skip)]
    pub places: Places,
}

/// A line and a column of a file, from 1; 0 if it is unknown.
pub type Place = (usize, usize);

/// The places of an entry's values in its file; empty for entries that come from no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The place of the name, or of the address that replaces it.
    pub name: Place,
    /// The places of the hardware addresses.
    pub hwaddrs: Vec<Place>,
    /// The places of the profiles.
    pub profiles: Vec<Place>,
    /// The places of the groups.
    pub groups: Vec<Place>,
    /// The places of the settings, by key.
    pub settings: BTreeMap<String, Place>,
}

/// The result of [`read`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The format of the file.
    pub format: Format,
    /// Nodes in the order of the file; names and hardware addresses are unique.
    pub entries: Vec<Entry>,
    /// The omitted entries with their reasons.
    pub warnings: Vec<Diagnostic>,
    /// Sections for the site file: the file's profiles, as far as they have a place there, and suggestions of `[[network]]`. Empty if the
    /// file has neither.
    pub profiles: String,
    /// Number of hardware addresses in a switch's table on ports that the map does not name.
    pub unmapped_hwaddrs: usize,
    /// Number of ports in a switch's table that the map does not name.
    pub unmapped_ports: usize,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `[node.NAME]` tables, as `rackstrap node export` writes them.
    Toml,
    /// `name,hwaddr[,profile][,groups]`.
    Csv,
    /// ISC dhcpd.conf with host blocks.
    Dhcpd,
    /// dnsmasq's `dhcp-host=` lines, or a file of `dhcp-hostsfile`.
    Dnsmasq,
    /// `/etc/ethers`.
    Ethers,
    /// A switch's MAC address table as its terminal shows it.
    Switch,
    /// Warewulf's nodes.conf (4.x).
    Warewulf,
    /// xCAT's tables, as `tabdump` prints them.
    Xcat,
    /// Grendel's hosts as JSON.
    Grendel,
    /// NetBox's CSV exports of interfaces and devices.
    Netbox,
    /// Reservations of Kea's configuration.
    Kea,
    /// What `rackstrap export all` prints.
    Json,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 12] = [
        Format::Toml,
        Format::Csv,
        Format::Dhcpd,
        Format::Dnsmasq,
        Format::Ethers,
        Format::Switch,
        Format::Warewulf,
        Format::Xcat,
        Format::Grendel,
        Format::Netbox,
        Format::Kea,
        Format::Json,
    ];

    /// The value of `--type`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Toml => "toml",
            Format::Csv => "csv",
            Format::Dhcpd => "dhcpd",
            Format::Dnsmasq => "dnsmasq",
            Format::Ethers => "ethers",
            Format::Switch => "switch",
            Format::Warewulf => "warewulf",
            Format::Xcat => "xcat",
            Format::Grendel => "grendel",
            Format::Netbox => "netbox",
            Format::Kea => "kea",
            Format::Json => "json",
        }
    }

    /// Whether a node is one line of the file, so that another line does not concern it.
    fn has_lines(self) -> bool {
        matches!(self, Format::Csv | Format::Dnsmasq | Format::Ethers | Format::Switch)
    }

    /// Whether lines can be long: programs write JSON on one.
    fn is_json(self) -> bool {
        matches!(self, Format::Grendel | Format::Kea | Format::Json)
    }

    fn names() -> String {
        Format::ALL.map(Format::name).join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let format = Format::ALL.into_iter().find(|format| format.name() == text);
        let unknown = || {
            format!(
                "'{}' is not a format; available: {}",
                report::shown(text),
                Format::names()
            )
        };
        format.ok_or_else(unknown)
    }
}

/// Options for reading a file.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The format; none = it is found by name and content.
    pub format: Option<Format>,
    /// The site's naming, for sources that have only addresses.
    pub naming: &'a Naming,
    /// Domain of the nodes, which names may include; may be empty.
    pub domain: &'a str,
    /// Which port of the switch leads to which node; required for [`Format::Switch`], and refused for other formats.
    pub ports: Option<Ports<'a>>,
}

/// A port map: lines such as `Gi1/0/1 = r03n01`, `Gi1/0/[1-32] = r03n[01-32]` or `Gi1/0/{slot} = r03n{slot:02}`.
#[derive(Clone, Copy, Debug)]
pub struct Ports<'a> {
    /// The name of the map, for messages.
    pub file: &'a str,
    /// The text of the map.
    pub text: &'a str,
}

/// Why a file is not imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImportError {
    /// The problems, in the order of the file; at least one, at most [`PROBLEMS`].
    pub problems: Vec<Diagnostic>,
    /// Number of further problems that are not shown.
    pub omitted: usize,
    /// The warnings that a file without problems would cause.
    pub warnings: Vec<Diagnostic>,
    /// How many of the problems are only about addresses that the file gives to nodes.
    pub addresses: usize,
    /// How many of the problems end if nodes keep the addresses of the file as their own.
    pub keepable: usize,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            match problem.help.is_empty() {
                true => writeln!(f, "{}", problem.brief())?,
                false => write!(f, "{problem}\n\n")?,
            }
        }
        let count = self.problems.len() + self.omitted;
        let file = self.problems.first().map_or("the file", |p| p.file.as_str());
        write!(f, "{file}: {count} problem{}", if count == 1 { "" } else { "s" })?;
        if self.omitted > 0 {
            write!(f, ", {} not shown", self.omitted)?;
        }
        f.write_str("; nothing was imported")
    }
}

impl std::error::Error for ImportError {}

/// A word of the file, with its bytes.
type Word = (Range<usize>, String);

/// A node as it is in the file, before it is compared with the other nodes.
#[derive(Debug, Default)]
struct Draft {
    /// The place for messages.
    at: Range<usize>,
    /// Name; none if the source has none.
    name: Option<String>,
    hwaddrs: Vec<(Range<usize>, HwAddr)>,
    ipaddr: Option<Ipv4Addr>,
    profiles: Option<Vec<Word>>,
    groups: Option<Vec<Word>>,
    attributes: Option<BTreeMap<String, String>>,
    settings: Option<BTreeMap<String, (Range<usize>, Value)>>,
    /// Whether a node keeps the attributes and settings that the source does not name.
    adds: bool,
    /// Whether a problem of its hardware addresses was reported already.
    reported: bool,
    /// Whether the source has an entry for each card: a second entry with the same name is the node's second card.
    card: bool,
}

/// Reads all nodes of a file. `file` is its name, for the format and for messages.
///
/// # Errors
/// All problems of the file, each with its line and what to write instead.
pub fn read(file: &str, text: &str, options: &Options<'_>) -> Result<Import, ImportError> {
    read_some(file, text, options)?.all()
}

/// Reads as many nodes of a file as possible.
///
/// # Errors
/// The problems that prevent reading any node.
pub fn read_some(file: &str, text: &str, options: &Options<'_>) -> Result<Reading, ImportError> {
    // Windows programs begin UTF-8 files with an invisible mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(error) = too_long(file, text).or_else(|| options.ports.and_then(|p| too_long(p.file, p.text))) {
        return Err(error);
    }
    let mut report = Report::new(text, file);
    if let Some(at) = text.find('\0') {
        report.error(
            at..at + 1,
            "a NUL byte: this is no text".to_owned(),
            "save the file as UTF-8; texts in UTF-16 have such bytes",
        );
        return Err(refuse([report.finish()]));
    }
    let format = match (options.format, options.ports) {
        (None, Some(_)) => Some(Format::Switch),
        (None, None) => detect::detect(file, &mut report),
        (Some(format), _) => Some(format),
    };
    if !format.is_some_and(Format::is_json) {
        long_lines(&mut report);
    }
    let Some(format) = format.filter(|_| report.is_clean()) else {
        return Err(refuse([report.finish()]));
    };
    if format != Format::Switch && options.ports.is_some() {
        report.error_whole(
            format!("a port map is for a switch's MAC table, and this was said to be {format}"),
            "leave the port map out, or say --type switch",
        );
    }
    let mut unmapped = (0, 0);
    let mut map_said = Said::default();
    let mut profiles = String::new();
    let drafts = match format {
        Format::Toml => toml_tables::read(&mut report),
        Format::Csv => csv_rows::read(&mut report),
        Format::Dhcpd => dhcpd::read(&mut report),
        Format::Dnsmasq => dnsmasq::read(&mut report),
        Format::Ethers => ethers::read(&mut report),
        Format::Xcat => xcat::read(&mut report),
        Format::Netbox => netbox::read(&mut report),
        Format::Grendel => json_files::grendel(&mut report),
        Format::Kea => json_files::kea(&mut report),
        Format::Json => json_files::own(&mut report),
        Format::Warewulf => {
            let read = warewulf::read(&mut report);
            profiles = read.site_file;
            read.drafts
        }
        Format::Switch => match options.ports {
            None => {
                report.error_whole(
                    "a switch's MAC table says which port a machine is on, and not which node that is",
                    "give a port map with lines such as: Gi1/0/[1-32] = r03n[01-32]",
                );
                Vec::new()
            }
            Some(Ports { file, text }) => {
                let mut map_report = Report::new(text.strip_prefix('\u{feff}').unwrap_or(text), file);
                long_lines(&mut map_report);
                let map = ports::read(&mut map_report);
                let table = switch::read(&mut report, &map);
                map_said = map_report.finish();
                unmapped = (table.unmapped_hwaddrs, table.unmapped_ports);
                table.drafts
            }
        },
    };
    let none = drafts.is_empty();
    let owners = finish::owners(&report, &drafts, options);
    let (entries, flawed) = finish::finish(&mut report, drafts, options);
    if none && report.is_clean() && map_said.problems.is_empty() {
        report.error_whole(
            format!("it contains no nodes, read as {format}"),
            format!(
                "if it is something else, name its format with --type; available: {}",
                Format::names()
            ),
        );
    }
    profiles += &networks::suggest(&entries, options.naming);
    let said = report.finish();
    if !map_said.problems.is_empty() {
        return Err(refuse([map_said, said]));
    }
    let mut warnings = map_said.warnings;
    warnings.extend(said.warnings);
    Ok(Reading {
        import: Import {
            format,
            entries,
            warnings,
            profiles,
            unmapped_hwaddrs: unmapped.0,
            unmapped_ports: unmapped.1,
        },
        flawed,
        problems: said.problems,
        omitted: said.omitted,
        owners,
    })
}

fn refuse(all: impl IntoIterator<Item = Said>) -> ImportError {
    let mut error = ImportError {
        problems: Vec::new(),
        omitted: 0,
        warnings: Vec::new(),
        addresses: 0,
        keepable: 0,
    };
    for said in all {
        error.problems.extend(said.problems);
        error.omitted += said.omitted;
        error.warnings.extend(said.warnings);
    }
    error.omitted += error.problems.len().saturating_sub(PROBLEMS);
    error.problems.truncate(PROBLEMS);
    error
}

fn too_long(file: &str, text: &str) -> Option<ImportError> {
    if text.len() <= FILE_BYTES {
        return None;
    }
    let mut report = Report::new("", file);
    report.error_whole(
        format!("the file is {} bytes long; at most {FILE_BYTES} are read", text.len()),
        "split it into several files, and import one after the other",
    );
    Some(refuse([report.finish()]))
}

fn long_lines(report: &mut Report<'_>) {
    for (offset, line) in report.lines() {
        if line.len() > LINE_BYTES {
            report.error(
                offset..offset + 1,
                format!("the line is {} bytes long; at most {LINE_BYTES} are read", line.len()),
                "is this the right file? A node is described in a line or a few",
            );
        }
    }
}
