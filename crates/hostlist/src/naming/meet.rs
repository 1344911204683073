//! Whether two patterns have a name or an address in common: exact, and without going through all of their names.

use super::{
    parse::Segment,
    pattern::{Box4, Pattern},
};
use std::{collections::HashSet, net::Ipv4Addr};

/// A part of a name that has only digits, or none.
#[derive(Clone, Debug)]
enum Run {
    Text(String),
    Digits(Vec<Field>),
}

/// The numbers that may stand at a place of a name.
#[derive(Clone, Copy, Debug)]
struct Field {
    min: u64,
    max: u64,
    width: usize,
    /// Whether larger numbers have more digits. Only the last field of a run is open.
    open: bool,
}

/// The lowest address that both patterns give.
pub(super) fn address(one: &Pattern, other: &Pattern) -> Option<Ipv4Addr> {
    let common = |(a, b): (&Box4, &Box4)| {
        let mut lowest = [0; 4];
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            lowest[i] = *a.start().max(b.start());
            if lowest[i] > *a.end().min(b.end()) {
                return None;
            }
        }
        Some(Ipv4Addr::from(lowest))
    };
    let pairs = (one.boxes().iter()).flat_map(|a| other.boxes().iter().map(move |b| (a, b)));
    pairs.filter_map(common).min()
}

/// A name that both patterns read.
pub(super) fn name(one: &Pattern, other: &Pattern) -> Option<String> {
    let (one, other) = (runs(one), runs(other));
    if one.len() != other.len() {
        return None;
    }
    let mut name = String::new();
    for (one, other) in one.iter().zip(&other) {
        match (one, other) {
            (Run::Text(a), Run::Text(b)) if a == b => name.push_str(a),
            (Run::Digits(a), Run::Digits(b)) => name.push_str(&digits(a, b)?),
            _ => return None,
        }
    }
    Some(name)
}

/// The name as texts and digits in turn. Digits of the pattern itself are numbers that do not vary.
fn runs(pattern: &Pattern) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let field = |runs: &mut Vec<Run>, field: Field| match runs.last_mut() {
        Some(Run::Digits(fields)) => fields.push(field),
        _ => runs.push(Run::Digits(vec![field])),
    };
    for segment in &pattern.segments {
        match segment {
            Segment::Variable { index, width, exact } => {
                let variable = &pattern.variables[*index];
                let number = Field {
                    min: variable.min.into(),
                    max: variable.max.into(),
                    width: *width,
                    open: !exact,
                };
                field(&mut runs, number);
            }
            Segment::Literal(text) => {
                for c in text.chars() {
                    match (c.to_digit(10), runs.last_mut()) {
                        (Some(digit), _) => {
                            let digit = u64::from(digit);
                            let fixed = Field {
                                min: digit,
                                max: digit,
                                width: 1,
                                open: false,
                            };
                            field(&mut runs, fixed);
                        }
                        (None, Some(Run::Text(text))) => text.push(c),
                        (None, _) => runs.push(Run::Text(c.to_string())),
                    }
                }
            }
        }
    }
    runs
}

/// Digits that are numbers of both: the fewest, and of these the smallest.
fn digits(one: &[Field], other: &[Field]) -> Option<String> {
    let lengths = |fields: &[Field]| {
        let shortest: usize = fields.iter().map(|field| field.width).sum();
        let last = fields.last().filter(|field| field.open);
        let more = last.map_or(0, |field| field.max.to_string().len().saturating_sub(field.width));
        shortest..=shortest + more
    };
    let (a, b) = (lengths(one), lengths(other));
    ((*a.start()).max(*b.start())..=(*a.end()).min(*b.end())).find_map(|length| {
        let places = [places(one, length)?, places(other, length)?];
        common(&places, 0, [Tight::BOTH; 2], &mut HashSet::new()).map(|all| all.into_iter().rev().collect())
    })
}

/// A digit's place in its field: the digits of the smallest and of the largest number there.
#[derive(Clone, Copy)]
struct Digit {
    first: bool,
    min: u8,
    max: u8,
}

/// The places of `length` digits; none if no number has that many.
fn places(fields: &[Field], length: usize) -> Option<Vec<Digit>> {
    let shortest: usize = fields.iter().map(|field| field.width).sum();
    let mut places = Vec::with_capacity(length);
    for (i, field) in fields.iter().enumerate() {
        let longer = if i + 1 == fields.len() { length - shortest } else { 0 };
        let width = field.width + longer;
        let power = |digits: usize| u32::try_from(digits).ok().and_then(|digits| 10u64.checked_pow(digits));
        // A number has no more zeros before it than its width asks for.
        let min = field.min.max(if longer > 0 { power(width - 1)? } else { 0 });
        let max = field.max.min(power(width).map_or(u64::MAX, |power| power - 1));
        if min > max {
            return None;
        }
        let (low, high) = (format!("{min:0width$}"), format!("{max:0width$}"));
        let digits = low.bytes().zip(high.bytes()).enumerate();
        places.extend(digits.map(|(at, (min, max))| Digit {
            first: at == 0,
            min,
            max,
        }));
    }
    Some(places)
}

/// Whether the digits so far are those of the smallest or of the largest number of their field.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Tight {
    low: bool,
    high: bool,
}

impl Tight {
    const BOTH: Tight = Tight { low: true, high: true };

    /// The state behind `digit`; none if no number continues so.
    fn after(self, place: Digit, digit: u8) -> Option<Tight> {
        let now = if place.first { Tight::BOTH } else { self };
        let fits = !(now.low && digit < place.min || now.high && digit > place.max);
        fits.then_some(Tight {
            low: now.low && digit == place.min,
            high: now.high && digit == place.max,
        })
    }
}

/// The digits from `at` on that both allow, last one first. `dead` has the states that lead nowhere.
fn common(
    places: &[Vec<Digit>; 2],
    at: usize,
    state: [Tight; 2],
    dead: &mut HashSet<(usize, [Tight; 2])>,
) -> Option<Vec<char>> {
    let (Some(one), Some(other)) = (places[0].get(at), places[1].get(at)) else {
        return Some(Vec::new());
    };
    if dead.contains(&(at, state)) {
        return None;
    }
    for digit in b'0'..=b'9' {
        let (Some(a), Some(b)) = (state[0].after(*one, digit), state[1].after(*other, digit)) else {
            continue;
        };
        if let Some(mut rest) = common(places, at + 1, [a, b], dead) {
            rest.push(char::from(digit));
            return Some(rest);
        }
    }
    dead.insert((at, state));
    None
}
