//! Names <-> addresses by the two patterns of the site file.
//!
//! A pattern is plain text with variables in braces: `r{rack:02}n{slot:02}` and `10.5.{rack}.{slot}`.
//! Every variable stands in both patterns and fills one whole octet of the address, so a name
//! determines an address and an address a name. [`Naming::new`] refuses patterns that do not.

mod pattern;
#[cfg(test)]
mod tests;

pub use pattern::{PatternError, PatternKind};

use ipnet::Ipv4Net;
use pattern::{Octet, Segment};
use rackstrap_base::text::quoted;
use std::net::Ipv4Addr;

/// `node-name` and `node-address`, proven to convert both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    name_pattern: String,
    address_pattern: String,
    segments: Vec<Segment>,
    octets: [Octet; 4],
    variables: Vec<Variable>,
}

/// A variable of the patterns, and the values that it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name, `rack`.
    pub name: String,
    /// Smallest value: positions count from 1.
    pub min: u8,
    /// Largest value: 254 in the last octet (an address ending in .255 looks like a broadcast), 255 elsewhere.
    pub max: u8,
}

/// Why a text is not a node name, or why no node may have that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// It does not follow the pattern.
    #[error("'{name}' is not a node name here: names follow {pattern}, such as {example}")]
    NoMatch {
        /// What was given, shortened and escaped.
        name: String,
        /// The pattern of the site.
        pattern: String,
        /// A name that would do.
        example: String,
    },
    /// It is another spelling of a name: `r1n3`, `R01N03`, `r01n03.cluster.example`.
    #[error("'{name}' is not a node name here: names follow {pattern}; did you mean {canonical}?")]
    Spelling {
        /// What was given, shortened and escaped.
        name: String,
        /// The pattern of the site.
        pattern: String,
        /// The one spelling that is a name.
        canonical: String,
    },
    /// A number is out of its range.
    #[error("'{name}' is not a node name here: {variable} is {value}, and goes from {min} to {max}")]
    Range {
        /// What was given, shortened and escaped.
        name: String,
        /// Name of the variable of the pattern that holds the number.
        variable: String,
        /// The number in the name.
        value: u32,
        /// The smallest number that the pattern allows.
        min: u8,
        /// The largest number that the pattern allows.
        max: u8,
    },
    /// The address that belongs to the name is reserved.
    #[error(
        "no node can be called {name}: its address {address} is in the reserved range {range}; \
         choose another position, or change 'reserved' in [cluster]"
    )]
    Reserved {
        /// The node name, which fits the pattern.
        name: String,
        /// The IP address that the pattern gives this name.
        address: Ipv4Addr,
        /// The range of `reserved` that holds it.
        range: Ipv4Net,
    },
    /// The address that belongs to the name is in none of the site's networks.
    #[error(
        "no node can be called {name}: its address {address} is in no [[subnet]] of the site file; \
         choose another position, or add the subnet"
    )]
    NoSubnet {
        /// The node name, which fits the pattern.
        name: String,
        /// The IP address that the pattern gives this name.
        address: Ipv4Addr,
    },
    /// The address that belongs to the name is not one that a host may have.
    #[error("no node can be called {name}: {address} is the {what} of {network}; choose another position")]
    Taken {
        /// The node name, which fits the pattern.
        name: String,
        /// The IP address that the pattern gives this name.
        address: Ipv4Addr,
        /// `network address` or `broadcast address`.
        what: &'static str,
        /// The subnet of the site file that the address is in.
        network: Ipv4Net,
    },
}

impl Naming {
    /// Proves that the two patterns convert both ways.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with its place inside the pattern and what to write instead.
    pub fn new(name_pattern: &str, address_pattern: &str) -> Result<Self, Vec<PatternError>> {
        let parsed = pattern::parse(name_pattern, address_pattern)?;
        Ok(Naming {
            name_pattern: name_pattern.to_owned(),
            address_pattern: address_pattern.to_owned(),
            segments: parsed.segments,
            octets: parsed.octets,
            variables: parsed.variables,
        })
    }

    /// `node-name` as it was written.
    pub fn name_pattern(&self) -> &str {
        &self.name_pattern
    }

    /// `node-address` as it was written.
    pub fn address_pattern(&self) -> &str {
        &self.address_pattern
    }

    /// The variables, in the order of the name.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The name of the first position, `r01n01`.
    pub fn example(&self) -> String {
        self.format(&vec![1; self.variables.len()])
    }

    /// The first position of `rack`, which is a name without what its last variable makes of it: `r03n01` of `r03`.
    /// `from` is the rest of the name if it is not the first one: `n05`.
    ///
    /// # Errors
    /// Both together are not a name.
    pub fn position_in(&self, rack: &str, from: Option<&str>) -> Result<String, NamingError> {
        let example = self.example();
        let name = match from {
            Some(from) => format!("{rack}{from}"),
            None => format!("{rack}{}", &example[self.tail_at(&example)..]),
        };
        self.values(&name).map(|_| name)
    }

    /// `name` without its last variable and the text before it: the rack that it is in, `r03` of `r03n07`.
    pub fn rack_of<'a>(&self, name: &'a str) -> &'a str {
        &name[..self.tail_at(name).min(name.len())]
    }

    /// The position after `name` in its rack; none behind the last one.
    pub fn after(&self, name: &str) -> Option<String> {
        let mut values = self.values(name).ok()?;
        let last = self.segments.iter().rev().find_map(|segment| match segment {
            Segment::Variable { index, .. } => Some(*index),
            Segment::Literal(_) => None,
        })?;
        values[last] += 1;
        (values[last] <= u32::from(self.variables[last].max)).then(|| self.format(&values))
    }

    /// Where the last variable of a name, with the text between it and the one before, begins.
    fn tail_at(&self, name: &str) -> usize {
        let digits = |text: &str| text.bytes().rev().take_while(u8::is_ascii_digit).count();
        // Text behind the last variable, such as `-ib`, belongs to the tail as well.
        let suffix: usize = match self.segments.last() {
            Some(Segment::Literal(text)) if !self.variables.is_empty() => text.len(),
            _ => 0,
        };
        let end = name.len().saturating_sub(suffix);
        let number = end - name.get(..end).map_or(0, digits);
        let between = self
            .segments
            .iter()
            .rev()
            .skip_while(|segment| matches!(segment, Segment::Literal(_)))
            .nth(1);
        match between {
            Some(Segment::Literal(text)) => number.saturating_sub(text.len()),
            _ => number,
        }
    }

    /// The address that belongs to `name`, which must be spelt exactly as the pattern does.
    /// Reserved ranges are not looked at: see `Site::address_of` of the site file.
    ///
    /// # Errors
    /// [`NamingError::NoMatch`], [`NamingError::Spelling`] or [`NamingError::Range`].
    pub fn name_to_address(&self, name: &str) -> Result<Ipv4Addr, NamingError> {
        self.values(name).map(|values| self.address(&values))
    }

    /// The name that belongs to `address`; none if it does not follow the pattern.
    pub fn address_to_name(&self, address: Ipv4Addr) -> Option<String> {
        let mut values = vec![0; self.variables.len()];
        for (octet, byte) in self.octets.iter().zip(address.octets()) {
            match *octet {
                Octet::Fixed(fixed) if fixed == byte => {}
                Octet::Variable(i) if (self.variables[i].min..=self.variables[i].max).contains(&byte) => {
                    values[i] = u32::from(byte);
                }
                _ => return None,
            }
        }
        Some(self.format(&values))
    }

    /// Where `name` is: each variable with its value, in the order of the name. Sorts as racks do
    /// (`r99n01` before `r100n01`). None if it is not a name.
    pub fn position(&self, name: &str) -> Option<Vec<(&str, u8)>> {
        let values = self.values(name).ok()?;
        let narrow = |value: u32| u8::try_from(value).ok();
        self.variables
            .iter()
            .zip(values)
            .map(|(variable, value)| Some((variable.name.as_str(), narrow(value)?)))
            .collect()
    }

    /// The lowest node address inside `within` that is in none of `except`; none if all are taken.
    ///
    /// Works on whole networks (a network is a range in each octet, and so is the pattern), so it
    /// costs a few dozen steps per entry of `except` however many positions there are.
    pub fn first_address(&self, within: Ipv4Net, except: &[Ipv4Net]) -> Option<Ipv4Addr> {
        let first = self.lowest_in(within)?;
        if except.iter().any(|hole| hole.contains(&within)) {
            return None;
        }
        if !except.iter().any(|hole| within.contains(hole)) {
            return Some(first);
        }
        let halves = within.subnets(within.prefix_len() + 1).ok()?;
        halves.into_iter().find_map(|half| self.first_address(half, except))
    }

    fn lowest_in(&self, within: Ipv4Net) -> Option<Ipv4Addr> {
        let (from, to) = (within.network().octets(), within.broadcast().octets());
        let mut lowest = [0; 4];
        for (i, octet) in self.octets.iter().enumerate() {
            let (min, max) = match *octet {
                Octet::Fixed(fixed) => (fixed, fixed),
                Octet::Variable(v) => (self.variables[v].min, self.variables[v].max),
            };
            lowest[i] = min.max(from[i]);
            if lowest[i] > max.min(to[i]) {
                return None;
            }
        }
        Some(lowest.into())
    }

    fn values(&self, name: &str) -> Result<Vec<u32>, NamingError> {
        let shown = || shorten(name);
        let pattern = || self.name_pattern.clone();
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
                    // Nine digits fit 32 bits; no value has more than `width` or three.
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
            if value < u32::from(variable.min) || value > u32::from(variable.max) {
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

    fn format(&self, values: &[u32]) -> String {
        let mut name = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => name.push_str(text),
                Segment::Variable { index, width, .. } => name.push_str(&format!("{:01$}", values[*index], width)),
            }
        }
        name
    }

    /// `values` are in range.
    fn address(&self, values: &[u32]) -> Ipv4Addr {
        let octet = |octet: &Octet| match *octet {
            Octet::Fixed(fixed) => fixed,
            Octet::Variable(i) => values[i] as u8,
        };
        let [a, b, c, d] = &self.octets;
        Ipv4Addr::new(octet(a), octet(b), octet(c), octet(d))
    }
}

/// Names come from command lines, scripts and packets: what is shown of them is short and harmless.
fn shorten(text: &str) -> String {
    quoted(text, 64)
}
