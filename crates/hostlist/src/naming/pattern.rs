//! One pattern of names and addresses.

use super::{
    NamingError, PatternError, Variable,
    parse::{self, Segment},
    spread::Spread,
};
use ipnet::Ipv4Net;
use rackstrap_base::text::quoted;
use std::{fmt, net::Ipv4Addr, ops::RangeInclusive};

/// Addresses that are a range in each octet.
pub(super) type Box4 = [RangeInclusive<u8>; 4];

/// `node-name` and `node-address` with their ranges, proven to convert both ways.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    name: String,
    address: String,
    pub(super) segments: Vec<Segment>,
    fixed: [u8; 4],
    varies: [bool; 4],
    pub(super) variables: Vec<Variable>,
    spreads: Vec<Spread>,
    /// All addresses, without one twice.
    boxes: Vec<Box4>,
}

/// What was written. The rest follows from it, and is up to 256 boxes long.
impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Pattern");
        shown.field("name", &self.name).field("address", &self.address);
        shown.field("variables", &self.variables).finish_non_exhaustive()
    }
}

impl Pattern {
    /// Proves that the two patterns convert both ways. A variable that is not in `ranges` counts from 1 to the last number that
    /// has an address.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with its place inside the pattern and what to write instead.
    pub fn new(name: &str, address: &str, ranges: &[(&str, RangeInclusive<u32>)]) -> Result<Self, Vec<PatternError>> {
        let parsed = parse::parse(name, address, ranges)?;
        let mut pattern = Pattern {
            name: name.to_owned(),
            address: address.to_owned(),
            segments: parsed.segments,
            fixed: parsed.fixed,
            varies: parsed.varies,
            variables: parsed.variables,
            spreads: parsed.spreads,
            boxes: Vec::new(),
        };
        pattern.boxes = pattern.all_boxes();
        Ok(pattern)
    }

    /// `node-name` as it was written.
    pub fn name_pattern(&self) -> &str {
        &self.name
    }

    /// `node-address` as it was written.
    pub fn address_pattern(&self) -> &str {
        &self.address
    }

    /// The variables, in the order of the name.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The name of the first position, `r01n01`.
    pub fn example(&self) -> String {
        let first: Vec<u32> = self.variables.iter().map(|variable| variable.min).collect();
        self.format(&first)
    }

    /// The lowest address inside `within` that is in none of `except`; none if all are taken.
    ///
    /// Works on whole networks (a network is a range in each octet, and so is each box of the pattern), so it costs a few
    /// dozen steps per entry of `except` however many positions there are.
    pub fn first_address(&self, within: Ipv4Net, except: &[Ipv4Net]) -> Option<Ipv4Addr> {
        let first = self.boxes.iter().filter_map(|one| lowest_in(one, within)).min()?;
        if except.iter().any(|hole| hole.contains(&within)) {
            return None;
        }
        if !except.iter().any(|hole| within.contains(hole)) {
            return Some(first);
        }
        let halves = within.subnets(within.prefix_len() + 1).ok()?;
        halves.into_iter().find_map(|half| self.first_address(half, except))
    }

    /// The name that belongs to `address`; none if it does not follow the pattern.
    pub fn address_to_name(&self, address: Ipv4Addr) -> Option<String> {
        let octets = address.octets();
        let fixed =
            (self.varies.iter().zip(self.fixed).zip(octets)).all(|((varies, fixed), octet)| *varies || fixed == octet);
        if !fixed {
            return None;
        }
        let mut values = Vec::with_capacity(self.variables.len());
        for (variable, spread) in self.variables.iter().zip(&self.spreads) {
            let number = spread.number(octets)?;
            values.push((variable.min..=variable.max).contains(&number).then_some(number)?);
        }
        Some(self.format(&values))
    }

    /// The numbers in `name`. `pattern` has all patterns of the site, for messages.
    pub(super) fn values(&self, name: &str, pattern: impl Fn() -> String) -> Result<Vec<u32>, NamingError> {
        let shown = || shorten(name);
        if let Some(values) = self.read(name) {
            self.check_ranges(name, &values)?;
            let canonical = self.format(&values);
            return match canonical == name {
                true => Ok(values),
                false => Err(NamingError::Spelling {
                    name: shown(),
                    pattern: pattern(),
                    canonical,
                }),
            };
        }
        // What people type for a name: capitals, blanks around it, the domain behind it.
        let likely = name.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
        if let Some(values) = self.read(&likely)
            && self.check_ranges(name, &values).is_ok()
        {
            return Err(NamingError::Spelling {
                name: shown(),
                pattern: pattern(),
                canonical: self.format(&values),
            });
        }
        Err(NamingError::NoMatch {
            name: shown(),
            pattern: pattern(),
            example: self.example(),
        })
    }

    /// Whether `name` is a name by this pattern.
    pub(super) fn is_name(&self, name: &str) -> bool {
        self.read(name)
            .is_some_and(|values| self.check_ranges(name, &values).is_ok() && self.format(&values) == name)
    }

    /// `values` are in range.
    pub(super) fn address(&self, values: &[u32]) -> Ipv4Addr {
        let mut octets = self.fixed;
        for (spread, value) in self.spreads.iter().zip(values) {
            spread.fill(*value, &mut octets);
        }
        octets.into()
    }

    pub(super) fn format(&self, values: &[u32]) -> String {
        let mut name = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => name.push_str(text),
                Segment::Variable { index, width, .. } => name.push_str(&format!("{:01$}", values[*index], width)),
            }
        }
        name
    }

    /// The index of the variable that is last in the name.
    pub(super) fn last(&self) -> Option<usize> {
        self.segments.iter().rev().find_map(|segment| match segment {
            Segment::Variable { index, .. } => Some(*index),
            Segment::Literal(_) => None,
        })
    }

    /// Where the last variable of a name begins, and with `between` the text between it and the one before.
    pub(super) fn tail_at(&self, name: &str, between: bool) -> usize {
        let digits = |text: &str| text.bytes().rev().take_while(u8::is_ascii_digit).count();
        // Text behind the last variable, such as `-ib`, belongs to the tail as well.
        let suffix: usize = match self.segments.last() {
            Some(Segment::Literal(text)) if !self.variables.is_empty() => text.len(),
            _ => 0,
        };
        let end = name.len().saturating_sub(suffix);
        let number = end - name.get(..end).map_or(0, digits);
        let before = self
            .segments
            .iter()
            .rev()
            .skip_while(|segment| matches!(segment, Segment::Literal(_)))
            .nth(1);
        match before {
            Some(Segment::Literal(text)) if between => number.saturating_sub(text.len()),
            _ => number,
        }
    }

    /// The boxes of all addresses.
    pub(super) fn boxes(&self) -> &[Box4] {
        &self.boxes
    }

    fn all_boxes(&self) -> Vec<Box4> {
        let mut boxes = vec![self.fixed.map(|octet| octet..=octet)];
        for (variable, spread) in self.variables.iter().zip(&self.spreads) {
            let parts = spread.boxes(&(variable.min..=variable.max));
            boxes = boxes
                .iter()
                .flat_map(|one| {
                    parts.iter().map(|part| {
                        let mut filled = one.clone();
                        for (at, range) in part {
                            filled[*at] = range.clone();
                        }
                        filled
                    })
                })
                .collect();
        }
        boxes
    }

    /// Reads a name with any number of leading zeros.
    fn read(&self, name: &str) -> Option<Vec<u32>> {
        let mut rest = name;
        let mut values = vec![0; self.variables.len()];
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => rest = rest.strip_prefix(text.as_str())?,
                Segment::Variable { index, width, exact } => {
                    let all = rest.bytes().take_while(u8::is_ascii_digit).count();
                    let digits = if *exact { *width } else { all };
                    // Nine digits fit 32 bits; no value has more than `width` or seven.
                    if digits == 0 || digits > 9 || digits > all {
                        return None;
                    }
                    values[*index] = rest[..digits].parse().ok()?;
                    rest = &rest[digits..];
                }
            }
        }
        rest.is_empty().then_some(values)
    }

    fn check_ranges(&self, name: &str, values: &[u32]) -> Result<(), NamingError> {
        for (variable, &value) in self.variables.iter().zip(values) {
            if value < variable.min || value > variable.max {
                return Err(NamingError::Range {
                    name: shorten(name),
                    variable: variable.name.clone(),
                    value,
                    min: variable.min,
                    max: variable.max,
                });
            }
        }
        Ok(())
    }
}

/// The lowest address of `one` in a network.
fn lowest_in(one: &Box4, within: Ipv4Net) -> Option<Ipv4Addr> {
    let (from, to) = (within.network().octets(), within.broadcast().octets());
    let mut lowest = [0; 4];
    for (i, octet) in one.iter().enumerate() {
        lowest[i] = (*octet.start()).max(from[i]);
        if lowest[i] > (*octet.end()).min(to[i]) {
            return None;
        }
    }
    Some(lowest.into())
}

/// Names come from command lines, scripts and packets: what is shown of them is short and harmless.
fn shorten(text: &str) -> String {
    quoted(text, 64)
}
