//! The port map for a switch's MAC table: which port leads to which node.

use super::{
    ENTRIES,
    report::{Report, shown, without_comment},
};
use std::{collections::HashMap, fmt::Write, ops::Range};

const EXAMPLE: &str = "write PORT = NAME, such as Gi1/0/1 = r03n01, Gi1/0/[1-32] = r03n[01-32] or \
                       Gi1/0/{slot} = r03n{slot:02}; PORT = - leaves a port out";

/// Longest name of a port or a node in bytes, including ranges.
const NAME_BYTES: usize = 200;
/// At most this many lines with variables, because each is tried on every word of a table.
const PATTERNS: usize = 64;

/// The map, with ports in their [`canonical`] spelling.
#[derive(Debug, Default)]
pub(super) struct Map {
    exact: HashMap<String, usize>,
    /// Ports that are named one by one, in the order of the map.
    pub named: Vec<Named>,
    patterns: Vec<Pattern>,
}

/// A port and its node; the node is none if the port leads to something else.
#[derive(Debug)]
pub(super) struct Named {
    pub port: String,
    pub canonical: String,
    pub node: Option<String>,
    line: usize,
}

#[derive(Debug)]
struct Pattern {
    port: Vec<Piece>,
    node: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Variable { name: String, width: usize },
}

impl Map {
    /// The node on a port; none if the map has no node for it.
    pub fn node(&self, canonical: &str) -> Option<String> {
        if let Some(&i) = self.exact.get(canonical) {
            return self.named[i].node.clone();
        }
        self.patterns.iter().find_map(|pattern| pattern.node(canonical))
    }

    /// Whether the map has the port, even as one without a node.
    pub fn knows(&self, canonical: &str) -> bool {
        self.exact.contains_key(canonical) || self.node(canonical).is_some()
    }
}

/// One spelling for a port's name: `GigabitEthernet1/0/1`, `Gig 1/0/1` and `Gi1/0/1` are equal, and so are Junos'
/// `ge-0/0/1` and its only unit, `ge-0/0/1.0`.
pub(super) fn canonical(port: &str) -> String {
    let port: String = port.chars().filter(|c| !c.is_whitespace()).collect();
    let port = port.to_ascii_lowercase();
    let letters = port
        .bytes()
        .take_while(|b| b.is_ascii_alphabetic() || *b == b'-')
        .count();
    let prefix = port[..letters].trim_end_matches('-');
    let rest = &port[prefix.len()..];
    let rest = match rest.strip_suffix(".0") {
        Some(unitless) if unitless.contains(|c: char| c.is_ascii_digit()) => unitless,
        _ => rest,
    };
    // Junos has a dash after its own short forms, which mean other things: et-0/0/1.
    let prefix = match prefix {
        prefix if rest.starts_with('-') => prefix,
        "gigabitethernet" | "gig" | "ge" => "gi",
        "tengigabitethernet" | "ten-gigabitethernet" | "tengige" | "xge" => "te",
        "twogigabitethernet" => "tw",
        "fivegigabitethernet" => "fi",
        "twentyfivegige" | "twentyfivegigabitethernet" | "twenty-fivegige" => "twe",
        "fortygigabitethernet" | "fortygige" | "fge" => "fo",
        "hundredgige" | "hundredgigabitethernet" | "hge" => "hu",
        "fastethernet" | "fas" => "fa",
        "ethernet" | "eth" => "et",
        "port-channel" => "po",
        "bridge-aggregation" => "bagg",
        prefix => prefix,
    };
    format!("{prefix}{rest}")
}

/// Reads a map. Its problems are put into `report`.
pub(super) fn read(report: &mut Report<'_>) -> Map {
    let mut map = Map::default();
    let mut nodes: HashMap<String, usize> = HashMap::new();
    let mut read = 0;
    for (offset, line) in report.lines() {
        let body = without_comment(line).trim_end();
        let at = offset + (body.len() - body.trim_start().len())..offset + body.len();
        if body.trim().is_empty() {
            continue;
        }
        let Some((port, node)) = body.split_once('=') else {
            report.error(at, "no '=' between a port and a node", EXAMPLE);
            continue;
        };
        let (port, node) = (port.trim(), node.trim());
        if port.is_empty() || node.is_empty() {
            report.error(at, "one side of the '=' is empty", EXAMPLE);
        } else if port.len() > NAME_BYTES || node.len() > NAME_BYTES {
            report.error(
                at,
                format!("one side of the '=' is longer than {NAME_BYTES} bytes"),
                EXAMPLE,
            );
        } else if port.contains('{') || node.contains('{') {
            match Pattern::new(port, node) {
                Ok(pattern) => map.patterns.push(pattern),
                Err(message) => report.error(at, message, EXAMPLE),
            }
        } else {
            match pairs(port, node) {
                Ok(pairs) => {
                    read += pairs.len();
                    // A problem of one pair of a line usually concerns all of its pairs.
                    for (port, node) in pairs {
                        if !add(report, &mut map, &mut nodes, &at, port, node) {
                            break;
                        }
                    }
                }
                Err(message) => report.error(at, message, EXAMPLE),
            }
        }
        if read > ENTRIES || map.patterns.len() > PATTERNS {
            let message = format!("the map has more than {ENTRIES} ports or {PATTERNS} lines with variables");
            report.error(
                offset..offset + 1,
                message,
                "split it, and import one switch after the other",
            );
            break;
        }
    }
    if map.named.is_empty() && map.patterns.is_empty() && report.is_clean() {
        report.error_whole("no port in the map", EXAMPLE);
    }
    map
}

/// Adds a port; false if it is refused.
fn add(
    report: &mut Report<'_>,
    map: &mut Map,
    nodes: &mut HashMap<String, usize>,
    at: &Range<usize>,
    port: String,
    node: String,
) -> bool {
    let canonical = canonical(&port);
    let line = report.line(at.start);
    if let Some(&first) = map.exact.get(&canonical) {
        let first = &map.named[first];
        let message = format!(
            "port {} is on line {} already, as {}",
            shown(&port),
            first.line,
            shown(&first.port)
        );
        report.error(at.clone(), message, "name each port once");
        return false;
    }
    let node = (node != "-").then_some(node);
    if let Some(node) = &node {
        if let Some(&first) = nodes.get(node) {
            let first = &map.named[first];
            let message = format!(
                "{} is on port {} already, on line {}",
                shown(node),
                shown(&first.port),
                first.line
            );
            report.error(
                at.clone(),
                message,
                "name each node once: the port of the card that it boots from",
            );
            return false;
        }
        nodes.insert(node.clone(), map.named.len());
    }
    map.exact.insert(canonical.clone(), map.named.len());
    map.named.push(Named {
        port,
        canonical,
        node,
        line,
    });
    true
}

/// The ports and nodes of a line. Both sides may have ranges.
fn pairs(port: &str, node: &str) -> Result<Vec<(String, String)>, String> {
    let ports = expand(port)?;
    if node == "-" {
        return Ok(ports.into_iter().map(|port| (port, node.to_owned())).collect());
    }
    let nodes = expand(node)?;
    if ports.len() != nodes.len() {
        let (p, n) = (ports.len(), nodes.len());
        let s = |count| if count == 1 { "" } else { "s" };
        return Err(format!("{p} port{} for {n} node{}", s(p), s(n)));
    }
    Ok(ports.into_iter().zip(nodes).collect())
}

/// Expands `r03n[01-03,07]` to r03n01, r03n02, r03n03, r03n07. With several brackets, the last one counts fastest.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let mut all = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find(['[', ']']) {
        let literal = &rest[..open];
        let inside = rest[open..].strip_prefix('[').and_then(|inside| inside.split_once(']'));
        let Some((ranges, behind)) = inside else {
            return Err(format!("an unmatched bracket in '{}'", shown(text)));
        };
        let numbers = numbers(ranges)?;
        if all.len() * numbers.len() > ENTRIES {
            return Err(format!("'{}' stands for more than {ENTRIES} names", shown(text)));
        }
        let with = |start: &String| {
            numbers
                .iter()
                .map(|n| format!("{start}{literal}{n}"))
                .collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
        rest = behind;
    }
    all.iter_mut().for_each(|name| name.push_str(rest));
    Ok(all)
}

/// The numbers of `01-03,07,10-20/5`, with the leading zeros of each range's first number.
fn numbers(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("'[{}]' is not a range", shown(text));
    let mut all = Vec::new();
    for range in text.split(',') {
        let (range, step) = range.split_once('/').unwrap_or((range, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| match text.trim() {
            digits if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<usize>().ok(),
            _ => None,
        };
        let (Some(from), Some(to), Some(step)) = (number(first), number(last), number(step)) else {
            return Err(wrong());
        };
        if from > to || step == 0 || all.len() + (to - from) / step >= ENTRIES {
            return Err(wrong());
        }
        let width = first.trim().len();
        all.extend((from..=to).step_by(step).map(|n| format!("{n:0width$}")));
    }
    Ok(all)
}

impl Pattern {
    fn new(port: &str, node: &str) -> Result<Pattern, String> {
        if [port, node].iter().any(|side| side.contains(['[', ']'])) {
            return Err("a range and a variable in one line".to_owned());
        }
        let pattern = Pattern {
            port: pieces(&canonical(port))?,
            node: pieces(node)?,
        };
        for (here, there, side) in [
            (&pattern.port, &pattern.node, "node"),
            (&pattern.node, &pattern.port, "port"),
        ] {
            for (i, name) in variables(here).enumerate() {
                if variables(here).take(i).any(|earlier| earlier == name) {
                    return Err(format!("'{{{name}}}' occurs twice on one side"));
                }
                if !variables(there).any(|other| other == name) {
                    return Err(format!("'{{{name}}}' is not on the {side}'s side"));
                }
            }
        }
        for pair in pattern.port.windows(2) {
            let digit = |c: char| c.is_ascii_digit();
            match pair {
                [Piece::Variable { name, .. }, Piece::Variable { .. }] => {
                    return Err(format!("nothing says where '{{{name}}}' ends"));
                }
                [Piece::Variable { name, .. }, Piece::Literal(text)] if text.starts_with(digit) => {
                    return Err(format!("nothing says where '{{{name}}}' ends"));
                }
                _ => {}
            }
        }
        Ok(pattern)
    }

    fn node(&self, canonical: &str) -> Option<String> {
        let mut values: Vec<(&str, u32)> = Vec::new();
        let mut rest = canonical;
        for piece in &self.port {
            match piece {
                Piece::Literal(text) => rest = rest.strip_prefix(text.as_str())?,
                Piece::Variable { name, .. } => {
                    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                    if !(1..=5).contains(&digits) {
                        return None;
                    }
                    values.push((name, rest[..digits].parse().ok()?));
                    rest = &rest[digits..];
                }
            }
        }
        if !rest.is_empty() {
            return None;
        }
        let mut node = String::new();
        for piece in &self.node {
            match piece {
                Piece::Literal(text) => node.push_str(text),
                Piece::Variable { name, width } => {
                    let (_, value) = values.iter().find(|(known, _)| known == name)?;
                    write!(node, "{value:0width$}").ok()?;
                }
            }
        }
        Some(node)
    }
}

fn variables(pieces: &[Piece]) -> impl Iterator<Item = &str> {
    pieces.iter().filter_map(|piece| match piece {
        Piece::Variable { name, .. } => Some(name.as_str()),
        Piece::Literal(_) => None,
    })
}

/// Splits the text at variables, which are written as in the site file's `node-name`: `{slot}`, `{slot:02}`.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        if open > 0 {
            pieces.push(Piece::Literal(rest[..open].to_owned()));
        }
        let inside = rest[open..].strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let Some((inside, behind)) = inside else {
            return Err(format!("an unmatched brace in '{}'", shown(text)));
        };
        let (name, width) = inside.split_once(':').unwrap_or((inside, "01"));
        let width = match width.as_bytes() {
            [b'0', digit @ b'1'..=b'9'] => usize::from(digit - b'0'),
            _ => return Err(format!("'{{{}}}' has no width such as :02", shown(inside))),
        };
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            return Err(format!("'{{{}}}' is not a variable such as {{slot}}", shown(inside)));
        }
        pieces.push(Piece::Variable {
            name: name.to_owned(),
            width,
        });
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    Ok(pieces)
}
