//! dnsmasq: `dhcp-host=` lines of its configuration, or the plain lines of a `dhcp-hostsfile` (dnsmasq(8)).

use super::{
    Draft, mac,
    report::{Report, shown, split, without_comment},
};
use std::{net::Ipv4Addr, ops::Range};

/// Options that read further hosts from other files.
const ELSEWHERE: [&str; 6] = [
    "conf-file",
    "conf-dir",
    "dhcp-hostsfile",
    "dhcp-hostsdir",
    "servers-file",
    "conf-script",
];

pub(super) fn read(report: &mut Report<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (offset, line) in report.lines() {
        let line = without_comment(line);
        let body = line.trim();
        if body.is_empty() {
            continue;
        }
        let offset = offset + (line.len() - line.trim_start().len());
        match host_of(body) {
            Some(host) => drafts.extend(host_line(report, offset + body.len() - host.len(), host)),
            None => other_line(report, offset, body),
        }
    }
    drafts
}

/// The part after `dhcp-host=`, or a plain line of a hosts file; none for other options.
pub(super) fn host_of(line: &str) -> Option<&str> {
    let option = line.trim_start_matches("--");
    for name in ["dhcp-host", "-G"] {
        let Some(rest) = option.strip_prefix(name) else {
            continue;
        };
        let value = rest.trim_start();
        match value.strip_prefix('=') {
            Some(host) => return Some(host.trim()),
            // On a command line, a blank may replace the `=`.
            None if value.len() < rest.len() => return Some(value),
            None => {}
        }
    }
    let first = line.split(',').next().unwrap_or_default();
    let bare = line.contains(',') && !first.contains('=') || mac::hwaddr(first).is_some();
    bare.then_some(line)
}

fn host_line(report: &mut Report<'_>, offset: usize, line: &str) -> Option<Draft> {
    let whole = offset..offset + line.len();
    let mut draft = Draft {
        at: whole.clone(),
        ..Draft::default()
    };
    let (mut ignored, mut client_id, mut tags) = (false, None, Vec::new());
    // A pattern for many machines, or a card that is not Ethernet: dnsmasq supports them, rackstrap does not.
    let (mut many, mut other) = (None, None);
    for (at, field) in split(line, offset, |c| c == ',') {
        match Field::of(field) {
            Field::Nothing | Field::LeaseTime | Field::Ipv6 | Field::Condition => {}
            Field::Ignore => ignored = true,
            Field::ClientId => client_id = Some(field),
            Field::Tag(tag) => tags.push((at, tag.to_owned())),
            Field::Hwaddr(hwaddr) => draft.hwaddrs.push((at, hwaddr)),
            Field::Many => many = Some(field),
            Field::NotHwaddr(text) => {
                report.error(at, mac::wrong(text), mac::HELP);
                draft.reported = true;
            }
            Field::NotEthernet => other = Some(field),
            Field::Ipaddr(ipaddr) => match draft.ipaddr {
                None => draft.ipaddr = Some(ipaddr),
                Some(first) => {
                    let message = format!("a second address, {ipaddr}, after {first}");
                    report.error(at, message, "a node has one; delete the other");
                }
            },
            Field::Name => match &draft.name {
                None => {
                    draft.name = Some(field.to_owned());
                    draft.at = at;
                }
                Some(first) => {
                    let message = format!("a second name, '{}', after '{}'", shown(field), shown(first));
                    report.error(at, message, "a node has one; delete the other");
                }
            },
        }
    }
    draft.groups = (!tags.is_empty()).then_some(tags);
    if draft.reported {
        return Some(draft);
    }
    if ignored {
        let message = "a machine that dnsmasq ignores was left out";
        report.warn(whole, message, "if it is a node, delete ',ignore'");
        return None;
    }
    if draft.name.is_none() && draft.ipaddr.is_none() {
        let message = "left out: the line gives a machine neither a name nor an address";
        report.warn(whole, message, "if it is a node, add its name");
        return None;
    }
    if draft.hwaddrs.is_empty() {
        let known = match (many, other, client_id) {
            (Some(pattern), ..) => format!("'{}' stands for many machines", shown(pattern)),
            (_, Some(card), _) => format!("'{}' is not the address of an Ethernet card", shown(card)),
            (.., Some(id)) => format!("the machine is known by its client identifier ({}) only", shown(id)),
            _ => "the machine is known by the name that it gives itself only".to_owned(),
        };
        let help = "if it is a node, add the hardware address of its Ethernet card, such as 52:54:00:01:01:01";
        report.warn(whole, format!("left out: {known}"), help);
        return None;
    }
    draft.card = true;
    Some(draft)
}

/// A comma-separated field of a line. Fields come in any order.
enum Field<'a> {
    Nothing,
    Ignore,
    ClientId,
    Tag(&'a str),
    /// `tag:x`: the condition for the line.
    Condition,
    LeaseTime,
    Ipv6,
    Ipaddr(Ipv4Addr),
    Hwaddr(rackstrap_wire::HwAddr),
    NotHwaddr(&'a str),
    /// An address with wildcards.
    Many,
    NotEthernet,
    Name,
}

impl<'a> Field<'a> {
    fn of(field: &'a str) -> Field<'a> {
        if field.is_empty() {
            return Field::Nothing;
        }
        if field == "ignore" {
            return Field::Ignore;
        }
        if field.starts_with("id:") {
            return Field::ClientId;
        }
        if let Some(tag) = field.strip_prefix("set:").or_else(|| field.strip_prefix("net:")) {
            return Field::Tag(tag);
        }
        if field.starts_with("tag:") {
            return Field::Condition;
        }
        if field.starts_with('[') {
            return Field::Ipv6;
        }
        if let Ok(ipaddr) = field.parse() {
            return Field::Ipaddr(ipaddr);
        }
        if let Some(hwaddr) = mac::hwaddr(field) {
            return Field::Hwaddr(hwaddr);
        }
        // An ARP hardware type may precede the address: 1 is Ethernet, 6 is token ring.
        if let Some((kind, rest)) = field.split_once('-')
            && matches!(kind.len(), 1 | 2)
            && rest.contains(':')
        {
            return match (u8::from_str_radix(kind, 16), mac::hwaddr(rest)) {
                (Ok(1), Some(hwaddr)) => Field::Hwaddr(hwaddr),
                (Ok(1), None) => Field::NotHwaddr(rest),
                _ => Field::NotEthernet,
            };
        }
        if is_pattern(field) {
            return Field::Many;
        }
        // A name contains no colon and no asterisk, and does not consist of six groups of two between dashes.
        let bytes = |text: &str| text.split('-').filter(|group| group.len() == 2).count();
        if field.contains([':', '*']) || bytes(field) >= 5 {
            return Field::NotHwaddr(field);
        }
        if is_lease_time(field) {
            return Field::LeaseTime;
        }
        Field::Name
    }
}

/// `52:54:00:*:*:*`
fn is_pattern(field: &str) -> bool {
    let groups: Vec<&str> = field.split(':').collect();
    let byte =
        |group: &&str| *group == "*" || matches!(group.len(), 1 | 2) && group.bytes().all(|b| b.is_ascii_hexdigit());
    groups.len() == 6 && groups.contains(&"*") && groups.iter().all(byte)
}

/// Whether the text is a number of seconds, minutes, hours, days or weeks, or `infinite`.
fn is_lease_time(text: &str) -> bool {
    let digits = text
        .strip_suffix(['s', 'm', 'h', 'd', 'w', 'S', 'M', 'H', 'D', 'W'])
        .unwrap_or(text);
    text == "infinite" || !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn other_line(report: &mut Report<'_>, offset: usize, line: &str) {
    let at: Range<usize> = offset..offset + line.len();
    let (option, value) = line.split_once('=').unwrap_or((line, ""));
    let option = option.trim().trim_start_matches("--");
    if ELSEWHERE.contains(&option) {
        let message = format!("further hosts may be in {}, which was not read", shown(value.trim()));
        report.warn(at, message, "import that as well");
    } else if option == "read-ethers" {
        let message = "dnsmasq reads /etc/ethers too, which was not read";
        report.warn(at, message, "import that as well: rackstrap node import /etc/ethers");
    } else if option.starts_with("dhcp-host") {
        let message = format!("'{}' is not an option of dnsmasq", shown(option));
        report.error(at, message, "write dhcp-host=");
    } else if value.split([',', ' ']).any(|word| mac::in_table(word).is_some()) {
        let message = format!("'{}' names a hardware address, and was not read", shown(option));
        report.warn(at, message, "if it is a node's, write it as dhcp-host=");
    }
}
