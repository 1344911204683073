//! Reading the two patterns, and proving that they can be inverted.

use super::Variable;
use std::{fmt, ops::Range};

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// Which of the two patterns.
    pub pattern: PatternKind,
    /// Bytes of the pattern that are meant.
    pub at: Range<usize>,
    /// What is wrong, and with which part of the pattern.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// One of the two patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternKind {
    /// `node-name`
    Name,
    /// `node-address`
    Address,
}

/// A piece of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Characters that stand in every name.
    Literal(String),
    /// A number of at least `width` digits; of exactly that many if `exact` (digits follow at once).
    Variable { index: usize, width: usize, exact: bool },
}

/// An octet of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Octet {
    Fixed(u8),
    Variable(usize),
}

pub(super) struct Parsed {
    pub segments: Vec<Segment>,
    pub octets: [Octet; 4],
    pub variables: Vec<Variable>,
}

/// The longest host name label (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
const LABEL: usize = 63;
/// An octet has at most three digits: with this width no value is longer than the width.
const OCTET_DIGITS: usize = 3;
/// Longer patterns are refused before anything is looked at.
const LONGEST_PATTERN: usize = 200;

struct Token<'a> {
    at: Range<usize>,
    kind: Kind<'a>,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    Literal(&'a str),
    Variable { name: &'a str, width: Option<usize> },
}

pub(super) fn parse(name: &str, address: &str) -> Result<Parsed, Vec<PatternError>> {
    let tokens = (tokens(PatternKind::Name, name), octets(address));
    let (name_tokens, address_tokens) = match tokens {
        (Ok(name_tokens), Ok(address_tokens)) => (name_tokens, address_tokens),
        (left, right) => return Err([left.err(), right.err()].into_iter().flatten().flatten().collect()),
    };
    let mut errors = check_name(name, &name_tokens);
    errors.extend(check_pairs(&name_tokens, &address_tokens));
    if !errors.is_empty() {
        return Err(errors);
    }

    let mut variables: Vec<Variable> = Vec::new();
    let mut segments = Vec::new();
    for (i, token) in name_tokens.iter().enumerate() {
        segments.push(match token.kind {
            Kind::Literal(text) => Segment::Literal(text.to_owned()),
            Kind::Variable { name, width } => {
                variables.push(Variable {
                    name: name.to_owned(),
                    min: 1,
                    max: u8::MAX,
                });
                Segment::Variable {
                    index: variables.len() - 1,
                    width: width.unwrap_or(1),
                    exact: digits_follow(&name_tokens, i),
                }
            }
        });
    }
    let mut octets = [Octet::Fixed(0); 4];
    for (i, token) in address_tokens.iter().enumerate().take(4) {
        octets[i] = match token.kind {
            Kind::Literal(text) => Octet::Fixed(text.parse().unwrap_or_default()),
            Kind::Variable { name, .. } => {
                let index = variables.iter().position(|v| v.name == name).unwrap_or_default();
                if i == 3 {
                    variables[index].max = 254;
                }
                Octet::Variable(index)
            }
        };
    }
    Ok(Parsed {
        segments,
        octets,
        variables,
    })
}

/// Cuts a pattern into text and variables.
fn tokens(pattern: PatternKind, text: &str) -> Result<Vec<Token<'_>>, Vec<PatternError>> {
    let error = |at: Range<usize>, message: String, help: &str| PatternError {
        pattern,
        at,
        message,
        help: help.to_owned(),
    };
    let whole = format!("write it as {}", pattern.example());
    if text.len() > LONGEST_PATTERN {
        let message = format!("the pattern is {} bytes long, at most {LONGEST_PATTERN}", text.len());
        return Err(vec![error(0..text.len(), message, &whole)]);
    }
    let (mut tokens, mut errors, mut at) = (Vec::new(), Vec::new(), 0);
    while at < text.len() {
        let rest = &text[at..];
        if let Some(inside) = rest.strip_prefix('{') {
            let Some(length) = inside.find('}') else {
                let message = "a '{' without its '}'".to_owned();
                errors.push(error(at..text.len(), message, &whole));
                break;
            };
            let span = at..at + length + 2;
            match variable(pattern, &inside[..length]) {
                Ok(kind) => tokens.push(Token { at: span.clone(), kind }),
                Err((message, help)) => errors.push(error(span.clone(), message, &help)),
            }
            at = span.end;
        } else {
            let length = rest.find('{').unwrap_or(rest.len());
            if let Some(brace) = rest[..length].find('}') {
                let message = "a '}' without its '{'".to_owned();
                errors.push(error(at + brace..at + brace + 1, message, &whole));
            }
            let kind = Kind::Literal(&rest[..length]);
            tokens.push(Token {
                at: at..at + length,
                kind,
            });
            at += length;
        }
    }
    if errors.is_empty() { Ok(tokens) } else { Err(errors) }
}

/// Reads what is between braces.
fn variable(pattern: PatternKind, inside: &str) -> Result<Kind<'_>, (String, String)> {
    if inside.contains(['+', '-', '*', '/', '%', '(']) {
        return Err((
            format!("'{{{inside}}}' calculates, which cannot be turned round"),
            "give every octet that varies a variable of its own, \
             such as node-name = \"r{rack:02}n{slot:02}\" with node-address = \"10.5.{rack}.{slot}\""
                .to_owned(),
        ));
    }
    let (name, width) = match inside.split_once(':') {
        Some((name, width)) => (name, Some(width)),
        None => (inside, None),
    };
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let goes_on_well = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !starts_well || name.len() > 32 || !name.bytes().all(goes_on_well) {
        return Err((
            format!("'{{{inside}}}' is not a variable"),
            "write a lower-case word in the braces, such as {rack} or {slot:02}".to_owned(),
        ));
    }
    let Some(width) = width else {
        return Ok(Kind::Variable { name, width: None });
    };
    let digits = match width.as_bytes() {
        [b'0', n @ b'1'..=b'9'] => usize::from(n - b'0'),
        _ => {
            return Err((
                format!("':{width}' is not a width"),
                format!("write how many digits to fill with zeros as 0 and one digit, such as {{{name}:02}}"),
            ));
        }
    };
    if pattern == PatternKind::Address {
        return Err((
            format!("'{{{inside}}}' has a width, and octets of an address have no leading zeros"),
            format!("write {{{name}}}"),
        ));
    }
    Ok(Kind::Variable {
        name,
        width: Some(digits),
    })
}

/// Cuts `node-address` into four octets, each a number or one variable.
fn octets(text: &str) -> Result<Vec<Token<'_>>, Vec<PatternError>> {
    let example = PatternKind::Address.example();
    let error = |at: Range<usize>, message: String, help: &str| PatternError {
        pattern: PatternKind::Address,
        at,
        message,
        help: help.to_owned(),
    };
    let (mut all, mut errors, mut start) = (Vec::new(), Vec::new(), 0);
    for part in text.split('.') {
        let span = start..start + part.len();
        start = span.end + 1;
        match tokens(PatternKind::Address, part).as_deref() {
            Err(inner) => errors.extend(inner.iter().cloned().map(|mut e| {
                e.at = e.at.start + span.start..e.at.end + span.start;
                e
            })),
            Ok([one]) => match one.kind {
                Kind::Literal(text) if !is_octet(text) => {
                    let message = format!("'{part}' is not an octet");
                    errors.push(error(
                        span,
                        message,
                        "write a number from 0 to 255 without leading zeros, or a variable",
                    ));
                }
                kind => all.push(Token { at: span, kind }),
            },
            Ok(_) => {
                let message = format!("'{part}' mixes text and variables in one octet");
                let help = format!("a variable is a whole octet, such as {example}");
                errors.push(error(span, message, &help));
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if all.len() != 4 {
        let message = format!("the address has {} parts and needs four", all.len());
        return Err(vec![error(0..text.len(), message, &format!("write it as {example}"))]);
    }
    if let Kind::Literal(last @ ("0" | "255")) = all[3].kind {
        let message =
            format!("every address would end in .{last}, which much equipment takes for a network or broadcast");
        return Err(vec![error(
            all[3].at.clone(),
            message,
            "end it in a number from 1 to 254, or in a variable",
        )]);
    }
    Ok(all)
}

fn is_octet(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain && text.parse::<u8>().is_ok()
}

/// What makes a name a host name that can be read back.
fn check_name(pattern: &str, tokens: &[Token]) -> Vec<PatternError> {
    let mut errors = Vec::new();
    let mut error = |at: Range<usize>, message: String, help: String| {
        errors.push(PatternError {
            pattern: PatternKind::Name,
            at,
            message,
            help,
        });
    };
    let mut longest = 0;
    for (i, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Literal(text) => {
                longest += text.len();
                let offset = token.at.start;
                if let Some((at, wrong)) = text
                    .char_indices()
                    .find(|(_, c)| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
                {
                    let help = match wrong {
                        'A'..='Z' => "write lower case: host names are compared without regard to case".to_owned(),
                        '.' => "leave the dot out: the domain has its own key, domain = \"cluster.example\"".to_owned(),
                        _ => "host names hold a-z, 0-9 and - (RFC 1123)".to_owned(),
                    };
                    let at = offset + at..offset + at + wrong.len_utf8();
                    error(at, format!("'{}' cannot be in a node name", wrong.escape_debug()), help);
                }
            }
            Kind::Variable { name, width } => {
                longest += width.unwrap_or(1).max(OCTET_DIGITS);
                if digits_follow(tokens, i) && width.unwrap_or(1) < OCTET_DIGITS {
                    error(
                        token.at.start..tokens[i + 1].at.end,
                        format!("nothing says where '{name}' ends and the digits behind it begin"),
                        format!(
                            "put a letter or - between them, as in {}, or give '{name}' all its digits: {{{name}:03}}",
                            PatternKind::Name.example()
                        ),
                    );
                }
            }
        }
    }
    let whole = 0..pattern.len();
    let edge = |token: Option<&Token>, end: bool| match token.map(|t| t.kind) {
        Some(Kind::Literal(text)) => text.starts_with('-') && !end || text.ends_with('-') && end,
        _ => false,
    };
    if edge(tokens.first(), false) || edge(tokens.last(), true) {
        let help = format!(
            "begin and end it with a letter or a digit, as in {}",
            PatternKind::Name.example()
        );
        error(
            whole.clone(),
            "a host name neither begins nor ends with '-'".to_owned(),
            help,
        );
    }
    if longest > LABEL {
        let message = format!("names would be up to {longest} characters long");
        error(
            whole.clone(),
            message,
            format!("a host name has at most {LABEL} (RFC 1123): shorten it"),
        );
    }
    let letter = |t: &Token| matches!(t.kind, Kind::Literal(text) if text.bytes().any(|b| b.is_ascii_lowercase()));
    if !tokens.iter().any(letter) {
        let message = "names would have no letter, and look like numbers".to_owned();
        error(
            whole,
            message,
            format!("add one, as in {}", PatternKind::Name.example()),
        );
    }
    errors
}

/// True if the variable at `i` is followed at once by more digits.
fn digits_follow(tokens: &[Token], i: usize) -> bool {
    match tokens.get(i + 1).map(|t| t.kind) {
        Some(Kind::Variable { .. }) => true,
        Some(Kind::Literal(text)) => text.starts_with(|c: char| c.is_ascii_digit()),
        None => false,
    }
}

/// Every variable stands exactly once in both patterns.
fn check_pairs(name: &[Token], address: &[Token]) -> Vec<PatternError> {
    let mut errors = Vec::new();
    for (pattern, here, there) in [
        (PatternKind::Name, name, address),
        (PatternKind::Address, address, name),
    ] {
        let other = pattern.other();
        let names = |tokens: &[Token], wanted: &str| tokens.iter().filter(|t| t.variable() == Some(wanted)).count();
        let mut any = false;
        for (i, token) in here.iter().enumerate() {
            let Some(variable) = token.variable() else { continue };
            any = true;
            let (message, help) = if names(&here[..i], variable) > 0 {
                let message = format!("'{{{variable}}}' stands twice in {pattern}");
                (message, "use every variable once".to_owned())
            } else if names(there, variable) == 0 {
                let message = format!(
                    "'{{{variable}}}' is in {pattern} and not in {other}, so one cannot be made from the other"
                );
                (message, format!("use it in {other} too, or leave it out here"))
            } else {
                continue;
            };
            errors.push(PatternError {
                pattern,
                at: token.at.clone(),
                message,
                help,
            });
        }
        if !any {
            errors.push(PatternError {
                pattern,
                at: here.first().map_or(0, |t| t.at.start)..here.last().map_or(0, |t| t.at.end),
                message: format!("{pattern} has no variable, so all nodes would be the same one"),
                help: format!("write it as {}", pattern.example()),
            });
        }
    }
    errors
}

impl Token<'_> {
    fn variable(&self) -> Option<&str> {
        match self.kind {
            Kind::Variable { name, .. } => Some(name),
            Kind::Literal(_) => None,
        }
    }
}

impl PatternKind {
    fn example(self) -> &'static str {
        match self {
            PatternKind::Name => "r{rack:02}n{slot:02}",
            PatternKind::Address => "10.5.{rack}.{slot}",
        }
    }

    fn other(self) -> Self {
        match self {
            PatternKind::Name => PatternKind::Address,
            PatternKind::Address => PatternKind::Name,
        }
    }
}

impl fmt::Display for PatternKind {
    /// The key of the site file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PatternKind::Name => "node-name",
            PatternKind::Address => "node-address",
        })
    }
}
