//! Hardware addresses in all notations that tables, configuration files and people use.

use super::report::shown;
use rackstrap_wire::HwAddr;

/// Reads an address: `52:54:00:01:01:01`, `52-54-00-01-01-01`, `5254.0001.0101` (Cisco, Arista), `5254-0001-0101`
/// (Comware), `525400-010101` (ProCurve), `525400010101`, and bytes without leading zeros, `8:0:20:1:2:3`, as
/// ethers(5) and dhcpd accept them.
pub(super) fn hwaddr(text: &str) -> Option<HwAddr> {
    if text.len() > 17 || !text.is_ascii() {
        return None;
    }
    if let Ok(hwaddr) = text.parse() {
        return Some(hwaddr);
    }
    let separator = text.chars().find(|c| !c.is_ascii_hexdigit())?;
    if !matches!(separator, ':' | '-' | '.') {
        return None;
    }
    let groups: Vec<&str> = text.split(separator).collect();
    let width = match groups.len() {
        2 if separator == '-' => 6,
        3 => 4,
        6 if separator != '.' => 2,
        _ => return None,
    };
    let fits = |group: &&str| match width {
        2 => matches!(group.len(), 1 | 2),
        width => group.len() == width,
    };
    if !groups.iter().all(fits) {
        return None;
    }
    let digits: String = groups.iter().map(|group| format!("{group:0>width$}")).collect();
    digits.parse().ok()
}

/// The same inside the lines of a table, where twelve plain digits are probably a counter or a time.
pub(super) fn in_table(text: &str) -> Option<HwAddr> {
    text.contains([':', '-', '.']).then(|| hwaddr(text)).flatten()
}

/// The problem of a text that should be an address.
pub(super) fn wrong(text: &str) -> String {
    if text.parse::<HwAddr>().is_err_and(|error| error.is_infiniband()) {
        let text = shown(text);
        return format!("'{text}' is the address of an InfiniBand port, and rackstrap boots machines by Ethernet");
    }
    let what = format!("'{}' is not a hardware address", shown(text));
    if text.contains('*') {
        return format!("{what}: it has a wildcard, and a node is one machine");
    }
    let stranger = |c: &char| !c.is_ascii_hexdigit() && !matches!(c, ':' | '-' | '.');
    if let Some(c) = text.chars().find(stranger) {
        return match c {
            'o' | 'O' => format!("{what}: it has the letter O for a zero"),
            'l' | 'I' => format!("{what}: it has a letter for a one"),
            c => format!("{what}: '{}' is not a hex digit", shown(&c.to_string())),
        };
    }
    let bytes = text.split([':', '-']).filter(|group| !group.is_empty()).count();
    match bytes {
        3..=5 | 7.. if !text.contains('.') => format!("{what}: it has {bytes} bytes, and needs 6"),
        _ => what,
    }
}

/// The help with an example.
pub(super) const HELP: &str = "write six bytes in hex, such as 52:54:00:01:01:01";
