//! How the number of a name becomes one or two octets of the address, and back.
//!
//! `{n+20}` is one octet. A number that runs over an octet takes two, a quotient and a remainder of the same divisor:
//! `10.5.{n/256}.{n%256}`. Everything else cannot be turned round.

use std::ops::RangeInclusive;

/// The largest number of a name, and the largest offset: seven digits.
pub(super) const MOST: u32 = 9_999_999;
/// The smallest divisor. A divisor of 1 would make the remainder always 0.
const DIVISORS: RangeInclusive<i64> = 2..=256;
/// The reason against a variable that is whole in two octets, which both patterns are checked for.
pub(super) const TWICE: &str = "stands twice";
const OCTET: RangeInclusive<i64> = 0..=255;
/// An address that ends in .0 or .255 looks like a network or a broadcast, so no pattern of one octet gives it.
const LAST_OCTET: RangeInclusive<i64> = 1..=254;

/// What stands in the braces of one octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// Whether the address descends while the number rises: `{120-n}`.
    pub descending: bool,
    /// Added to the number, or what the number is subtracted from.
    pub offset: i64,
    pub part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Quotient { divisor: i64, added: i64 },
    Remainder { divisor: i64, added: i64 },
}

/// The octets of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    descending: bool,
    offset: i64,
    octets: Octets,
}

/// Positions of octets, from 0, and how the scaled number fills them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Octets {
    One(usize),
    Two {
        quotient: (usize, i64),
        remainder: (usize, i64),
        divisor: i64,
    },
}

impl Term {
    /// `inside` is what stands in the braces of an octet, and `name` the variable in it.
    ///
    /// # Errors
    /// What it is instead, without the braces.
    pub fn parse(inside: &str) -> Result<(&str, Term), String> {
        let wrong = |what: &str| Err(what.to_owned());
        let (scaled, part) = match inside.find(['/', '%']) {
            None => (inside, Part::Whole),
            Some(at) => {
                let (divisor, added) = match inside[at + 1..].split_once('+') {
                    Some((divisor, added)) => (divisor, number(added)),
                    None => (&inside[at + 1..], Some(0)),
                };
                let (Some(divisor), Some(added)) = (number(divisor).filter(|d| DIVISORS.contains(d)), added) else {
                    return wrong("divides by something other than a number from 2 to 256");
                };
                let part = match inside.as_bytes()[at] {
                    b'/' => Part::Quotient { divisor, added },
                    _ => Part::Remainder { divisor, added },
                };
                let scaled = &inside[..at];
                let bare = scaled.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
                if bare.is_none() && scaled.contains(['+', '-', '(', ')']) {
                    return wrong("needs parentheses around the sum that it divides");
                }
                (bare.unwrap_or(scaled), part)
            }
        };
        let (name, descending, offset) = match (scaled.split_once('+'), scaled.split_once('-')) {
            (None, None) => (scaled, false, Some(0)),
            (Some((name, offset)), None) => (name, false, number(offset)),
            (None, Some((from, name))) if number(from).is_some() => (name, true, number(from)),
            (None, Some((name, offset))) => (name, false, number(offset).map(|offset| -offset)),
            (Some(_), Some(_)) => return wrong("calculates more than one sum"),
        };
        let Some(offset) = offset else {
            return wrong("adds something other than a number of at most seven digits");
        };
        let term = Term {
            descending,
            offset,
            part,
        };
        Ok((name, term))
    }
}

/// A number without leading zeros, at most [`MOST`].
fn number(text: &str) -> Option<i64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let value: u32 = text.parse().ok().filter(|_| plain)?;
    (value <= MOST).then(|| value.into())
}

impl Spread {
    /// The octets of one variable, each with its position.
    ///
    /// # Errors
    /// Why the number cannot be found again in them.
    pub fn of(terms: &[(usize, Term)]) -> Result<Spread, String> {
        match *terms {
            [(at, term)] => match term.part {
                Part::Whole => Ok(Spread {
                    descending: term.descending,
                    offset: term.offset,
                    octets: Octets::One(at),
                }),
                Part::Quotient { .. } => Err("has a quotient without its remainder".to_owned()),
                Part::Remainder { .. } => Err("has a remainder without its quotient".to_owned()),
            },
            [one, other] => {
                let (quotient, remainder) = match (one.1.part, other.1.part) {
                    (Part::Quotient { .. }, Part::Remainder { .. }) => (one, other),
                    (Part::Remainder { .. }, Part::Quotient { .. }) => (other, one),
                    (Part::Whole, Part::Whole) => return Err(TWICE.to_owned()),
                    _ => return Err("is in two octets that are not a quotient and its remainder".to_owned()),
                };
                let (
                    Part::Quotient { divisor, added: first },
                    Part::Remainder {
                        divisor: same,
                        added: second,
                    },
                ) = (quotient.1.part, remainder.1.part)
                else {
                    return Err(TWICE.to_owned());
                };
                if divisor != same
                    || (quotient.1.descending, quotient.1.offset) != (remainder.1.descending, remainder.1.offset)
                {
                    return Err("has a quotient and a remainder of different divisions".to_owned());
                }
                if divisor - 1 + second > *OCTET.end() {
                    return Err(format!(
                        "has remainders up to {}, and an octet ends at 255",
                        divisor - 1 + second
                    ));
                }
                Ok(Spread {
                    descending: quotient.1.descending,
                    offset: quotient.1.offset,
                    octets: Octets::Two {
                        quotient: (quotient.0, first),
                        remainder: (remainder.0, second),
                        divisor,
                    },
                })
            }
            _ => Err("stands more than twice".to_owned()),
        }
    }

    /// Whether the number runs over two octets.
    pub fn is_wide(&self) -> bool {
        matches!(self.octets, Octets::Two { .. })
    }

    /// The numbers from 0 that have an address; the range is empty if none has.
    pub fn numbers(&self) -> RangeInclusive<i64> {
        let scaled = match self.octets {
            Octets::One(3) => LAST_OCTET,
            Octets::One(_) => OCTET,
            Octets::Two {
                quotient: (_, added),
                divisor,
                ..
            } => 0..=(OCTET.end() + 1 - added) * divisor - 1,
        };
        let (from, to) = match self.descending {
            false => (scaled.start() - self.offset, scaled.end() - self.offset),
            true => (self.offset - scaled.end(), self.offset - scaled.start()),
        };
        from.max(0)..=to.min(MOST.into())
    }

    /// Fills the octets of `number`, which is one of [`Self::numbers`].
    pub fn fill(&self, number: u32, octets: &mut [u8; 4]) {
        let scaled = self.scaled(number);
        let octet = |value: i64| u8::try_from(value).unwrap_or_default();
        match self.octets {
            Octets::One(at) => octets[at] = octet(scaled),
            Octets::Two {
                quotient,
                remainder,
                divisor,
            } => {
                octets[quotient.0] = octet(scaled / divisor + quotient.1);
                octets[remainder.0] = octet(scaled % divisor + remainder.1);
            }
        }
    }

    /// The number with these octets; none if no number has them.
    pub fn number(&self, octets: [u8; 4]) -> Option<u32> {
        let scaled = match self.octets {
            Octets::One(at) => i64::from(octets[at]),
            Octets::Two {
                quotient,
                remainder,
                divisor,
            } => {
                let quotient = i64::from(octets[quotient.0]) - quotient.1;
                let rest = i64::from(octets[remainder.0]) - remainder.1;
                if quotient < 0 || !(0..divisor).contains(&rest) {
                    return None;
                }
                quotient * divisor + rest
            }
        };
        let number = match self.descending {
            false => scaled - self.offset,
            true => self.offset - scaled,
        };
        u32::try_from(number).ok()
    }

    /// The octets of all `numbers`: for each position what it holds, in as many boxes as the quotient has values.
    pub fn boxes(&self, numbers: &RangeInclusive<u32>) -> Vec<Vec<(usize, RangeInclusive<u8>)>> {
        let ends = [self.scaled(*numbers.start()), self.scaled(*numbers.end())];
        let (from, to) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        let octets = |from: i64, to: i64| {
            let octet = |value: i64| u8::try_from(value).unwrap_or_default();
            octet(from)..=octet(to)
        };
        match self.octets {
            Octets::One(at) => vec![vec![(at, octets(from, to))]],
            Octets::Two {
                quotient,
                remainder,
                divisor,
            } => (from / divisor..=to / divisor)
                .map(|row| {
                    let first = from.max(row * divisor) % divisor;
                    let last = to.min(row * divisor + divisor - 1) % divisor;
                    vec![
                        (quotient.0, octets(row + quotient.1, row + quotient.1)),
                        (remainder.0, octets(first + remainder.1, last + remainder.1)),
                    ]
                })
                .collect(),
        }
    }

    fn scaled(&self, number: u32) -> i64 {
        match self.descending {
            false => i64::from(number) + self.offset,
            true => self.offset - i64::from(number),
        }
    }
}
