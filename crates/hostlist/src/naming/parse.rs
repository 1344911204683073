//! Reading the two patterns, and proving that they can be inverted.

use super::{
    Variable,
    spread::{Part, Spread, TWICE, Term},
};
use std::{collections::BTreeMap, fmt, ops::Range, ops::RangeInclusive};

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// Which of the two patterns, or the range of which variable.
    pub pattern: PatternKind,
    /// Bytes of the pattern that are meant; empty for a range.
    pub at: Range<usize>,
    /// What is wrong, and with which part of the pattern.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternKind {
    /// `node-name`
    Name,
    /// `node-address`
    Address,
    /// The entry of `range` for this variable.
    Range(String),
}

/// A piece of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Characters that stand in every name.
    Literal(String),
    /// A number of at least `width` digits; of exactly that many if `exact` (digits follow at once).
    Variable { index: usize, width: usize, exact: bool },
}

pub(super) struct Parsed {
    pub segments: Vec<Segment>,
    /// The octets that do not vary; 0 where one varies.
    pub fixed: [u8; 4],
    /// Whether the octet varies.
    pub varies: [bool; 4],
    pub variables: Vec<Variable>,
    /// The octets of each variable.
    pub spreads: Vec<Spread>,
}

/// The longest host name label (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
const LABEL: usize = 63;
/// The digits of a number whose range is not known because of another problem: those of an octet.
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
    Variable {
        name: &'a str,
        width: Option<usize>,
    },
    /// A variable of the address, and the octet that it makes.
    Octet {
        name: &'a str,
        term: Term,
    },
}

/// What `range` says of a variable.
pub(super) type Given<'a> = (&'a str, RangeInclusive<u32>);

pub(super) fn parse(name: &str, address: &str, given: &[Given<'_>]) -> Result<Parsed, Vec<PatternError>> {
    let tokens = (tokens(PatternKind::Name, name), octets(address));
    let (name_tokens, address_tokens) = match tokens {
        (Ok(name_tokens), Ok(address_tokens)) => (name_tokens, address_tokens),
        (left, right) => return Err([left.err(), right.err()].into_iter().flatten().flatten().collect()),
    };
    let mut errors = check_pairs(&name_tokens, &address_tokens);
    let spreads = spreads(&address_tokens, &mut errors);
    let ranges = ranges(&spreads, given, &address_tokens, &mut errors);
    // What a name looks like is reported first, as it was written first.
    let mut all = check_name(name, &name_tokens, &ranges);
    all.append(&mut errors);
    if !all.is_empty() {
        return Err(all);
    }

    let mut parsed = Parsed {
        segments: Vec::new(),
        fixed: [0; 4],
        varies: [false; 4],
        variables: Vec::new(),
        spreads: Vec::new(),
    };
    for (i, token) in name_tokens.iter().enumerate() {
        let Kind::Variable { name, width } = token.kind else {
            if let Kind::Literal(text) = token.kind {
                parsed.segments.push(Segment::Literal(text.to_owned()));
            }
            continue;
        };
        // `check_pairs` found each variable in the address.
        let (Some(spread), Some(range)) = (spreads.get(name), ranges.get(name)) else {
            continue;
        };
        parsed.segments.push(Segment::Variable {
            index: parsed.variables.len(),
            width: width.unwrap_or(1),
            exact: digits_follow(&name_tokens, i),
        });
        parsed.variables.push(Variable {
            name: name.to_owned(),
            min: *range.start(),
            max: *range.end(),
        });
        parsed.spreads.push(*spread);
    }
    for (i, token) in address_tokens.iter().enumerate().take(4) {
        match token.kind {
            Kind::Literal(text) => parsed.fixed[i] = text.parse().unwrap_or_default(),
            _ => parsed.varies[i] = true,
        }
    }
    Ok(parsed)
}

/// The octets of each variable of the address.
fn spreads<'a>(address: &[Token<'a>], errors: &mut Vec<PatternError>) -> BTreeMap<&'a str, Spread> {
    let mut terms: BTreeMap<&str, Vec<(usize, Term)>> = BTreeMap::new();
    for (i, token) in address.iter().enumerate() {
        if let Kind::Octet { name, term } = token.kind {
            terms.entry(name).or_default().push((i, term));
        }
    }
    let mut spreads = BTreeMap::new();
    for (name, terms) in terms {
        let (first, last) = (terms[0].0, terms[terms.len() - 1].0);
        let at = match terms.len() {
            1 => address[first].at.clone(),
            _ => address[first].at.start..address[last].at.end,
        };
        let help = "write a number that runs over an octet as its quotient and its remainder, such as \
                    10.5.{n/256}.{n%256} or 10.5.{(n+20)/250}.{(n+20)%250+1}";
        match Spread::of(&terms) {
            // Each of several others would have 256 boxes for each box of the first.
            Ok(spread) if spread.is_wide() && spreads.values().any(Spread::is_wide) => errors.push(PatternError {
                pattern: PatternKind::Address,
                at,
                message: "two numbers run over an octet".to_owned(),
                help: "give one of the two an octet of its own".to_owned(),
            }),
            Ok(spread) => drop(spreads.insert(name, spread)),
            // `check_pairs` reports this one.
            Err(why) if why == TWICE => {}
            Err(why) => errors.push(PatternError {
                pattern: PatternKind::Address,
                at,
                message: format!("'{name}' {why}, so the number cannot be found in the address"),
                help: help.to_owned(),
            }),
        }
    }
    spreads
}

/// The numbers of each variable: those of `given`, or all from 1 that have an address.
fn ranges<'a>(
    spreads: &BTreeMap<&'a str, Spread>,
    given: &[Given<'_>],
    address: &[Token<'_>],
    errors: &mut Vec<PatternError>,
) -> BTreeMap<&'a str, RangeInclusive<u32>> {
    let mut error = |variable: &str, message: String, help: String| {
        errors.push(PatternError {
            pattern: PatternKind::Range(variable.to_owned()),
            at: 0..0,
            message,
            help,
        });
    };
    for (i, (name, _)) in given.iter().enumerate() {
        if given[..i].iter().any(|(other, _)| other == name) {
            error(name, format!("'{name}' has two ranges"), "keep one".to_owned());
        } else if !address.iter().any(|token| token.variable() == Some(name)) {
            let known: Vec<&str> = spreads.keys().copied().collect();
            let message = format!("'{name}' is not a variable of the patterns");
            error(name, message, format!("the variables are: {}", known.join(", ")));
        }
    }
    let mut ranges = BTreeMap::new();
    for (&name, spread) in spreads {
        let possible = spread.numbers();
        let range = match given.iter().find(|(variable, _)| *variable == name) {
            Some((_, range)) => i64::from(*range.start())..=i64::from(*range.end()),
            None => (*possible.start()).max(1)..=*possible.end(),
        };
        let narrow = |number: i64| u32::try_from(number).unwrap_or_default();
        let numbers = format!("{} to {}", possible.start(), possible.end());
        if possible.is_empty() {
            let message = format!("no number '{name}' has an address");
            error(name, message, "choose another offset in node-address".to_owned());
        } else if range.is_empty() {
            let message = format!("no number '{name}' from 1 has an address");
            let help = format!(
                "write the range, such as range = {{ {name} = \"{}\" }}",
                possible.start()
            );
            error(name, message, help);
        } else if !possible.contains(range.start()) || !possible.contains(range.end()) {
            let out = match possible.contains(range.start()) {
                true => range.end(),
                false => range.start(),
            };
            let message = format!(
                "{name} = {out} has no address: the numbers {numbers} have one, in which no octet is above 255 and an \
                 address ends neither in .0 nor in .255"
            );
            let help = format!(
                "write a range within \"{}-{}\", or choose another offset in node-address",
                possible.start(),
                possible.end()
            );
            error(name, message, help);
        } else {
            ranges.insert(name, narrow(*range.start())..=narrow(*range.end()));
        }
    }
    ranges
}

/// Cuts a pattern into text and variables.
fn tokens(pattern: PatternKind, text: &str) -> Result<Vec<Token<'_>>, Vec<PatternError>> {
    let error = |at: Range<usize>, message: String, help: &str| PatternError {
        pattern: pattern.clone(),
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
            match variable(&pattern, &inside[..length]) {
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
fn variable<'a>(pattern: &PatternKind, inside: &'a str) -> Result<Kind<'a>, (String, String)> {
    if inside.contains(['+', '-', '*', '/', '%', '(']) {
        let error = |what: &str, help: &str| Err((format!("'{{{inside}}}' {what}"), help.to_owned()));
        if *pattern != PatternKind::Address {
            let help = "write the variable alone, and calculate in node-address, such as node-name = \"node{n}\" with \
                        node-address = \"10.5.1.{n+20}\"";
            return error("calculates, and a name has the number itself", help);
        }
        let help = "write a sum such as {n+20} or {120-n}, or a quotient and a remainder such as {n/256} and {n%256}";
        return match Term::parse(inside) {
            Ok((name, term)) if is_word(name) => Ok(Kind::Octet { name, term }),
            Ok(_) => error("is neither a sum nor a division of a variable", help),
            Err(what) => error(&what, help),
        };
    }
    let of_address = *pattern == PatternKind::Address;
    let (name, width) = match inside.split_once(':') {
        Some((name, width)) => (name, Some(width)),
        None => (inside, None),
    };
    if !is_word(name) {
        return Err((
            format!("'{{{inside}}}' is not a variable"),
            "write a lower-case word in the braces, such as {rack} or {slot:02}".to_owned(),
        ));
    }
    let Some(width) = width else {
        return Ok(match (pattern, Term::parse(name)) {
            (PatternKind::Address, Ok((name, term))) => Kind::Octet { name, term },
            _ => Kind::Variable { name, width: None },
        });
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
    if of_address {
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

/// Whether the text is a variable's name.
fn is_word(name: &str) -> bool {
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let goes_on_well = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    starts_well && name.len() <= 32 && name.bytes().all(goes_on_well)
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
fn check_name(pattern: &str, tokens: &[Token], ranges: &BTreeMap<&str, RangeInclusive<u32>>) -> Vec<PatternError> {
    let digits = |name: &str| {
        let last = ranges.get(name).map(|range| range.end().to_string().len());
        // Numbers of one octet have room for all of its values, so that a longer range later changes no name.
        last.map_or(OCTET_DIGITS, |digits| digits.max(OCTET_DIGITS))
    };
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
            Kind::Octet { .. } => {}
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
                let digits = digits(name);
                longest += width.unwrap_or(1).max(digits);
                if digits_follow(tokens, i) && width.unwrap_or(1) < digits {
                    error(
                        token.at.start..tokens[i + 1].at.end,
                        format!("nothing says where '{name}' ends and the digits behind it begin"),
                        format!(
                            "put a letter or - between them, as in {}, or give '{name}' all its digits: {{{name}:0{digits}}}",
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
        Some(Kind::Variable { .. } | Kind::Octet { .. }) => true,
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
            let is_whole = |token: &Token| !matches!(token.kind, Kind::Octet { term, .. } if term.part != Part::Whole);
            let (message, help) = if names(&here[..i], variable) > 0 && is_whole(token) {
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
                pattern: pattern.clone(),
                at: token.at.clone(),
                message,
                help,
            });
        }
        if !any {
            errors.push(PatternError {
                pattern: pattern.clone(),
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
            Kind::Variable { name, .. } | Kind::Octet { name, .. } => Some(name),
            Kind::Literal(_) => None,
        }
    }
}

impl PatternKind {
    fn example(&self) -> &'static str {
        match self {
            PatternKind::Name => "r{rack:02}n{slot:02}",
            PatternKind::Address => "10.5.{rack}.{slot}",
            PatternKind::Range(_) => "1-254",
        }
    }

    fn other(&self) -> Self {
        match self {
            PatternKind::Address => PatternKind::Name,
            _ => PatternKind::Address,
        }
    }
}

impl fmt::Display for PatternKind {
    /// The key of the site file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PatternKind::Name => "node-name",
            PatternKind::Address => "node-address",
            PatternKind::Range(_) => "range",
        })
    }
}
