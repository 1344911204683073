//! Names <-> addresses by the patterns of the site file.
//!
//! A pattern is plain text with variables in braces: `r{rack:02}n{slot:02}` and `10.5.{rack}.{slot}`.
//! Every variable stands in both patterns and fills one octet of the address, with an offset if it has one (`{n+20}`), or two
//! octets as a quotient and a remainder, so a name determines an address and an address a name. [`Pattern::new`] refuses patterns
//! that do not. A site may have several; [`Naming::of`] refuses those that share a name or an address.

mod error;
mod meet;
mod networks;
mod parse;
mod pattern;
mod spread;
#[cfg(test)]
mod tests;

pub use error::NamingError;
pub use parse::{PatternError, PatternKind};
pub use pattern::Pattern;

use ipnet::Ipv4Net;
use std::{net::Ipv4Addr, sync::Arc};

/// More patterns than this are an error: each is compared with each.
pub const MOST_PATTERNS: usize = 16;

/// The patterns of a site, proven to convert both ways, and to share neither names nor addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// At least one.
    patterns: Arc<[Pattern]>,
}

/// A variable of a pattern, and the values that it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name, `rack`.
    pub name: String,
    /// Smallest value: positions count from 1, unless the pattern's range says otherwise.
    pub min: u32,
    /// Largest value. By default the last one that has an address: 254 in the last octet (an address ending in .255 looks like a
    /// broadcast), 255 elsewhere.
    pub max: u32,
}

/// Two patterns that share a name or an address, by their indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The pattern that is first in the file.
    pub first: usize,
    /// The other one.
    pub second: usize,
    /// What they share.
    pub kind: PatternKind,
    /// What they share, with an example.
    pub message: String,
}

impl Naming {
    /// A naming of one pattern, whose variables count from 1.
    ///
    /// # Errors
    /// Those of [`Pattern::new`].
    pub fn new(name_pattern: &str, address_pattern: &str) -> Result<Self, Vec<PatternError>> {
        Ok(Naming {
            patterns: [Pattern::new(name_pattern, address_pattern, &[])?].into(),
        })
    }

    /// A naming of several patterns: at least one, at most [`MOST_PATTERNS`].
    ///
    /// # Errors
    /// The pairs that share a name or an address.
    pub fn of(patterns: Vec<Pattern>) -> Result<Self, Vec<Clash>> {
        let mut clashes = Vec::new();
        for (second, other) in patterns.iter().enumerate() {
            for (first, one) in patterns[..second].iter().enumerate() {
                let mut clash = |kind, message| {
                    clashes.push(Clash {
                        first,
                        second,
                        kind,
                        message,
                    });
                };
                if let Some(name) = meet::name(one, other) {
                    let message = format!(
                        "{name} would be a name by '{}' and by '{}'",
                        one.name_pattern(),
                        other.name_pattern()
                    );
                    clash(PatternKind::Name, message);
                }
                if let Some(address) = meet::address(one, other) {
                    let named = |pattern: &Pattern| pattern.address_to_name(address).unwrap_or_default();
                    let message = format!("{} and {} would both have {address}", named(one), named(other));
                    clash(PatternKind::Address, message);
                }
            }
        }
        match clashes.is_empty() {
            true => Ok(Naming {
                patterns: patterns.into(),
            }),
            false => Err(clashes),
        }
    }

    /// All patterns, in the order of the file.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// `node-name` as it was written; of several patterns all, for messages.
    pub fn name_pattern(&self) -> String {
        self.listed(Pattern::name_pattern)
    }

    /// `node-address` as it was written; of several patterns all, for messages.
    pub fn address_pattern(&self) -> String {
        self.listed(Pattern::address_pattern)
    }

    fn listed(&self, of: impl Fn(&Pattern) -> &str) -> String {
        self.patterns.iter().map(of).collect::<Vec<_>>().join(" or ")
    }

    /// The name of the first position, `r01n01`.
    pub fn example(&self) -> String {
        self.patterns.first().map(Pattern::example).unwrap_or_default()
    }

    /// The racks of the first positions of all patterns, `r01`, as examples in messages.
    pub fn example_racks(&self) -> String {
        let racks: Vec<String> = self
            .patterns
            .iter()
            .map(|pattern| self.rack_of(&pattern.example()).to_owned())
            .collect();
        racks.join(" or ")
    }

    /// The first position of `rack`, which is a name without what its last variable makes of it: `r03n01` of `r03`.
    /// `from` is the rest of the name if it is not the first one: `n05`.
    ///
    /// # Errors
    /// Both together are not a name.
    pub fn position_in(&self, rack: &str, from: Option<&str>) -> Result<String, NamingError> {
        if let Some(from) = from {
            let name = format!("{rack}{from}");
            return self.values(&name).map(|_| name);
        }
        let first = |pattern: &Pattern| {
            let example = pattern.example();
            format!(
                "{rack}{}",
                &example[pattern.tail_at(&example, self.is_cut_between(pattern))..]
            )
        };
        let all = || self.patterns.iter().map(|pattern| (pattern, first(pattern)));
        let found = all()
            .find(|(pattern, name)| pattern.is_name(name))
            .or_else(|| all().next());
        let name = found.map(|(_, name)| name).unwrap_or_default();
        self.values(&name).map(|_| name)
    }

    /// `name` without its last variable and the text before it: the rack that it is in, `r03` of `r03n07`. Where a site has
    /// several patterns, a name with one variable keeps the text, which tells the patterns apart: `gpu-` of `gpu-7`.
    pub fn rack_of<'a>(&self, name: &'a str) -> &'a str {
        let owner = self.patterns.iter().find(|pattern| pattern.is_name(name));
        match owner.or(self.patterns.first()) {
            Some(pattern) => &name[..pattern.tail_at(name, self.is_cut_between(pattern)).min(name.len())],
            None => name,
        }
    }

    fn is_cut_between(&self, pattern: &Pattern) -> bool {
        self.patterns.len() == 1 || pattern.variables.len() > 1
    }

    /// The position after `name` in its rack; none behind the last one.
    pub fn after(&self, name: &str) -> Option<String> {
        let (pattern, mut values) = self.values(name).ok()?;
        let last = pattern.last()?;
        values[last] += 1;
        let next = pattern.format(&values);
        // The rack may continue by another pattern, whose range begins there.
        let exists = values[last] <= pattern.variables[last].max || self.values(&next).is_ok();
        exists.then_some(next)
    }

    /// The address that belongs to `name`, which must be spelt exactly as a pattern does.
    /// Reserved ranges are not looked at: see `Site::address_of` of the site file.
    ///
    /// # Errors
    /// [`NamingError::NoMatch`], [`NamingError::Spelling`] or [`NamingError::Range`].
    pub fn name_to_address(&self, name: &str) -> Result<Ipv4Addr, NamingError> {
        self.values(name).map(|(pattern, values)| pattern.address(&values))
    }

    /// The name that belongs to `address`; none if it does not follow a pattern.
    pub fn address_to_name(&self, address: Ipv4Addr) -> Option<String> {
        self.patterns
            .iter()
            .find_map(|pattern| pattern.address_to_name(address))
    }

    /// Where `name` is: each variable with its value, in the order of the name. Sorts as racks do
    /// (`r99n01` before `r100n01`). None if it is not a name.
    pub fn position(&self, name: &str) -> Option<Vec<(&str, u32)>> {
        let (pattern, values) = self.values(name).ok()?;
        let names = pattern.variables.iter().map(|variable| variable.name.as_str());
        Some(names.zip(values).collect())
    }

    /// The lowest node address inside `within` that is in none of `except`; none if all are taken.
    pub fn first_address(&self, within: Ipv4Net, except: &[Ipv4Net]) -> Option<Ipv4Addr> {
        let all = self
            .patterns
            .iter()
            .filter_map(|pattern| pattern.first_address(within, except));
        all.min()
    }

    /// The pattern that `name` follows, with its numbers; or the most helpful of the reasons why it follows none.
    fn values(&self, name: &str) -> Result<(&Pattern, Vec<u32>), NamingError> {
        let mut best: Option<NamingError> = None;
        let rank = |error: &NamingError| match error {
            NamingError::Spelling { .. } => 2,
            NamingError::Range { .. } => 1,
            _ => 0,
        };
        for pattern in &*self.patterns {
            match pattern.values(name, || self.name_pattern()) {
                Ok(values) => return Ok((pattern, values)),
                Err(error) if best.as_ref().is_none_or(|best| rank(&error) > rank(best)) => best = Some(error),
                Err(_) => {}
            }
        }
        Err(best.unwrap_or_else(|| NamingError::NoMatch {
            name: String::new(),
            pattern: self.name_pattern(),
            example: self.example(),
        }))
    }
}
