//! ISC dhcpd.conf (dhcpd.conf(5)): host blocks, wherever they are nested.

use super::{
    Draft, mac,
    report::{Report, shown},
};
use rackstrap_base::words::count;
use std::{collections::HashMap, net::Ipv4Addr, ops::Range};

/// The deepest nesting of blocks. Real files have four or five levels.
const DEEPEST: usize = 64;

/// A token of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    /// `;`
    End,
    /// `,`
    Comma,
    /// A text in quotes, without the quotes.
    Text(&'a str),
    Word(&'a str),
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Text(text) | Token::Word(text) => text,
            _ => "",
        }
    }

    fn is(self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

type Placed<'a> = (Range<usize>, Token<'a>);

/// An open block.
struct Block {
    at: Range<usize>,
    host: Option<Draft>,
    group: Option<super::Word>,
    /// Whether dhcpd has deleted the host (`deleted`).
    deleted: bool,
    /// Whether dhcpd itself wrote the host into its journal, dhcpd.leases.
    dynamic: bool,
    /// Whether it is the `lease` of an address, of which a journal has many, or a block inside one.
    lease: bool,
    host_name: Option<(Range<usize>, String)>,
}

pub(super) fn read(report: &mut Report<'_>) -> Vec<Draft> {
    let tokens = tokens(report);
    let mut blocks: Vec<Block> = Vec::new();
    let mut hosts = Hosts::default();
    let mut leases: Option<(Range<usize>, usize)> = None;
    let mut statement: Vec<Placed<'_>> = Vec::new();
    for (at, token) in tokens {
        match token {
            Token::Open => {
                if blocks.len() == DEEPEST {
                    let message = format!("blocks are nested more than {DEEPEST} deep");
                    report.error(at, message, "is this the right file?");
                    return hosts.finish(report);
                }
                let block = open(report, &statement, at, &blocks);
                blocks.push(block);
                statement.clear();
            }
            Token::Close => {
                if let Some((first, _)) = statement.first() {
                    let place = first.start..at.start;
                    report.error(place, "a statement without its ';'", "write ; at its end, before the }");
                }
                complete(report, &mut blocks, &mut statement);
                match blocks.pop() {
                    Some(block) if block.lease => {
                        let whole = blocks.last().is_none_or(|outer| !outer.lease);
                        if whole {
                            leases.get_or_insert((block.at, 0)).1 += 1;
                        }
                    }
                    Some(block) => hosts.close(report, block),
                    None => report.error(at, "a } without its {", "delete it, or check what is missing above it"),
                }
            }
            Token::End => complete(report, &mut blocks, &mut statement),
            _ => statement.push((at, token)),
        }
    }
    if let Some((at, _)) = statement.first() {
        report.error(at.clone(), "a statement without its ';'", "write ; at its end");
    }
    for block in blocks {
        report.error(block.at, "a block that is not closed", "write } at its end");
    }
    if let Some((at, number)) = leases {
        let message = format!("left out: {}, here first", count(number, "lease"));
        report.warn(at, message, "a lease is temporary, and does not make a machine a node");
    }
    hosts.finish(report)
}

/// Hosts by the names of their blocks. In dhcpd's journal (dhcpd.leases(5)), a later entry deletes or replaces an earlier
/// one.
#[derive(Default)]
struct Hosts {
    /// Each host with the warning to report if the host stays.
    drafts: Vec<Option<(Draft, Option<Remark>)>>,
    dynamic: HashMap<String, usize>,
    /// Deleted hosts, with the place of the first such entry.
    deleted: Vec<(Range<usize>, String)>,
}

/// A warning: place, message and help.
type Remark = (Range<usize>, String, &'static str);

impl Hosts {
    fn close(&mut self, report: &mut Report<'_>, block: Block) {
        let Some(host) = &block.host else { return };
        let name = host.name.clone().unwrap_or_default();
        if block.deleted {
            if let Some(earlier) = self.dynamic.remove(&name) {
                self.drafts[earlier] = None;
            }
            self.deleted.push((block.at, name));
            return;
        }
        let dynamic = block.dynamic;
        if let Some(closed) = close(report, block) {
            if dynamic && let Some(earlier) = self.dynamic.insert(name, self.drafts.len()) {
                self.drafts[earlier] = None;
            }
            self.drafts.push(Some(closed));
        }
    }

    fn finish(self, report: &mut Report<'_>) -> Vec<Draft> {
        if let Some((at, _)) = self.deleted.first() {
            let names: Vec<String> = self.deleted.iter().take(8).map(|(_, name)| shown(name)).collect();
            let more = if self.deleted.len() > 8 { " …" } else { "" };
            let count = count(self.deleted.len(), "deleted host");
            let message = format!("left out: {count}, here first: {}{more}", names.join(" "));
            report.warn(at.clone(), message, "dhcpd has deleted them");
        }
        let mut drafts = Vec::new();
        for (draft, remark) in self.drafts.into_iter().flatten() {
            if let Some((at, message, help)) = remark {
                report.warn(at, message, help);
            }
            drafts.push(draft);
        }
        drafts
    }
}

/// Handles a statement where it occurs.
fn complete(report: &mut Report<'_>, blocks: &mut [Block], statement: &mut Vec<Placed<'_>>) {
    let in_lease = blocks.last().is_some_and(|block| block.lease);
    match blocks.last_mut().filter(|block| block.host.is_some()) {
        _ if in_lease => {}
        Some(block) => in_host_block(report, block, statement),
        None => elsewhere(report, statement),
    }
    statement.clear();
}

fn open(report: &mut Report<'_>, header: &[Placed<'_>], brace: Range<usize>, outer: &[Block]) -> Block {
    let at = header
        .first()
        .map_or(brace.clone(), |(first, _)| first.start..brace.end);
    let mut block = Block {
        at: at.clone(),
        host: None,
        group: None,
        deleted: false,
        dynamic: false,
        lease: outer.last().is_some_and(|block| block.lease),
        host_name: None,
    };
    let words: Vec<Token<'_>> = header.iter().map(|(_, token)| *token).collect();
    match words.as_slice() {
        [first, name] if first.is("host") && !name.text().is_empty() => {
            let groups: Vec<super::Word> = outer.iter().filter_map(|block| block.group.clone()).collect();
            block.host = Some(Draft {
                at: header[1].0.clone(),
                name: Some(name.text().to_owned()),
                groups: (!groups.is_empty()).then_some(groups),
                ..Draft::default()
            });
        }
        [first, _] if first.is("lease") => block.lease = true,
        [first, name] if first.is("group") => block.group = Some((header[1].0.clone(), name.text().to_owned())),
        [first, ..] if first.is("host") => {
            report.error(at, "a host block has one name", "write host r01n01 {");
        }
        [first, ..] if first.is("hardware") || first.is("fixed-address") => {
            report.error(at, "a { where a statement should end", "write ; before it");
        }
        _ => {}
    }
    if let Some(host) = outer.iter().find_map(|block| block.host.as_ref())
        && block.host.is_some()
    {
        let name = shown(host.name.as_deref().unwrap_or_default());
        let message = format!("a host block inside the one of {name}");
        report.error(
            block.at.clone(),
            message,
            format!("close the block of {name} with a }} before it"),
        );
    }
    block
}

fn close(report: &mut Report<'_>, block: Block) -> Option<(Draft, Option<Remark>)> {
    let mut draft = block.host?;
    // Each block is a card: a node with two cards has two blocks with different names.
    draft.card = true;
    let mut remark = None;
    let name = draft.name.clone().unwrap_or_default();
    if let Some((at, host_name)) = block.host_name
        && host_name != name
    {
        let message = format!(
            "read as {}, because its host-name option says so; its block is called {}",
            shown(&host_name),
            shown(&name)
        );
        remark = Some((at, message, "if that is wrong, delete the option"));
        draft.name = Some(host_name);
    }
    if draft.hwaddrs.is_empty() && !draft.reported {
        let message = format!("host {} has no hardware address", shown(&name));
        let help = "write hardware ethernet 52:54:00:01:01:01; in its block; nodes are known by that";
        report.error(draft.at.clone(), message, help);
        draft.reported = true;
    }
    Some((draft, remark))
}

/// A statement directly inside a host block.
fn in_host_block(report: &mut Report<'_>, block: &mut Block, statement: &[Placed<'_>]) {
    let Some(draft) = &mut block.host else { return };
    let words: Vec<Token<'_>> = statement.iter().map(|(_, token)| *token).collect();
    let Some(last) = statement.last().map(|(at, _)| at.end) else {
        return;
    };
    let whole = statement[0].0.start..last;
    match words.as_slice() {
        [first, kind, mac_text, rest @ ..] if first.is("hardware") => {
            let at = statement[2].0.clone();
            match mac::hwaddr(mac_text.text()) {
                _ if !kind.is("ethernet") => {
                    let message = match kind.is("infiniband") {
                        true => "the card is InfiniBand, and rackstrap boots machines by Ethernet".to_owned(),
                        false => format!("'{}' is not Ethernet", shown(kind.text())),
                    };
                    report.error(whole.clone(), message, "write hardware ethernet 52:54:00:01:01:01;");
                    draft.reported = true;
                }
                Some(hwaddr) => draft.hwaddrs.push((at, hwaddr)),
                None => {
                    report.error(at, mac::wrong(mac_text.text()), mac::HELP);
                    draft.reported = true;
                }
            }
            missing_end(report, statement, rest, 3);
        }
        [first, ..] if first.is("hardware") => {
            report.error(
                whole,
                "hardware without an address",
                "write hardware ethernet 52:54:00:01:01:01;",
            );
            draft.reported = true;
        }
        [first, address, rest @ ..] if first.is("fixed-address") => {
            let at = statement[1].0.clone();
            match address.text().parse::<Ipv4Addr>() {
                Ok(_) if rest.contains(&Token::Comma) => {
                    let message =
                        "several addresses, none of which was compared with the one that follows from the name";
                    report.warn(whole, message, "a node has the address of its name");
                    return;
                }
                Ok(ipaddr) => draft.ipaddr = Some(ipaddr),
                Err(_) if address.text().bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                    let message = format!("'{}' is not an IPv4 address", shown(address.text()));
                    report.error(at, message, "write four numbers, such as 10.5.1.1");
                }
                Err(_) => {
                    let message = format!(
                        "fixed-address is the name '{}', which was not looked up",
                        shown(address.text())
                    );
                    report.warn(
                        at,
                        message,
                        "its address will be the one that follows from the node's name",
                    );
                    return;
                }
            }
            missing_end(report, statement, rest, 2);
        }
        [option, name, value, ..] if option.is("option") && name.is("host-name") => {
            block.host_name = Some((statement[2].0.clone(), value.text().to_owned()));
        }
        [only] if only.is("deleted") => block.deleted = true,
        [only] if only.is("dynamic") => block.dynamic = true,
        _ => elsewhere(report, statement),
    }
}

/// Reports words after a complete statement: the `;` between them is missing.
fn missing_end(report: &mut Report<'_>, statement: &[Placed<'_>], rest: &[Token<'_>], from: usize) {
    if let (Some(next), Some((at, _))) = (rest.first(), statement.get(from)) {
        let message = format!("'{}' belongs to no statement", shown(next.text()));
        report.error(at.clone(), message, "write ; before it");
    }
}

fn elsewhere(report: &mut Report<'_>, statement: &[Placed<'_>]) {
    let [(first, word), rest @ ..] = statement else { return };
    let end = statement.last().map_or(first.end, |(at, _)| at.end);
    if word.is("include") {
        let file = rest.first().map_or("", |(_, token)| token.text());
        let message = format!("further hosts may be in {}, which was not read", shown(file));
        report.warn(first.start..end, message, "import that as well");
    } else if word.is("hardware") || word.is("fixed-address") {
        let message = format!("'{}' outside of a host block", shown(word.text()));
        report.error(first.start..end, message, "write it inside host NAME { }");
    }
}

/// Splits the file into tokens, without comments.
fn tokens<'t>(report: &mut Report<'t>) -> Vec<Placed<'t>> {
    let text = report.text();
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let from = at;
        at += 1;
        let single = match byte {
            b'{' => Some(Token::Open),
            b'}' => Some(Token::Close),
            b';' => Some(Token::End),
            b',' => Some(Token::Comma),
            _ => None,
        };
        if let Some(token) = single {
            tokens.push((from..at, token));
        } else if byte == b'#' {
            at = end_of(bytes, at, |b| b == b'\n');
        } else if byte == b'"' {
            let mut end = at;
            while let Some(b) = bytes.get(end).filter(|b| !matches!(b, b'"' | b'\n')) {
                // A backslash keeps the following quote from ending the text.
                end += if *b == b'\\' && matches!(bytes.get(end + 1), Some(b'"' | b'\\')) {
                    2
                } else {
                    1
                };
            }
            // dhcpd would read to the next quote, and report an error further down.
            if bytes.get(end) != Some(&b'"') {
                report.error(
                    from..end,
                    "a quote that is not closed in its line",
                    "write \" at its end",
                );
            }
            tokens.push((from..(end + 1).min(bytes.len()), Token::Text(&text[at..end])));
            if bytes.get(end) != Some(&b'"') {
                tokens.push((end..end, Token::End));
            }
            at = end + 1;
        } else if !byte.is_ascii_whitespace() {
            at = end_of(bytes, at, |b| b.is_ascii_whitespace() || b"{};,\"#".contains(&b));
            tokens.push((from..at, Token::Word(&text[from..at])));
        }
    }
    tokens
}

fn end_of(bytes: &[u8], from: usize, end: impl Fn(u8) -> bool) -> usize {
    bytes[from..]
        .iter()
        .position(|b| end(*b))
        .map_or(bytes.len(), |length| from + length)
}
