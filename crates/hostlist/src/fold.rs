//! Names folded into a hostlist: the inverse of expanding one.
//!
//! Names with the same text between their numbers are points in as many dimensions as they have numbers; a hostlist's
//! term is a box of them. Points that differ in one dimension only are joined along it, one dimension after the other, as
//! ClusterShell does: exact for whole racks, near the shortest for what has holes.
//!
//! Programs do not read the same lists, so a list is written in a [`Dialect`].

use super::{MAX_BRACKETS, MAX_DIGITS, natural_cmp};
use std::collections::{BTreeMap, HashMap};

/// A number as it is written: `7`, `07`. Sorts by length and then by value, so that runs are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Number {
    /// Digits; with zeros in front more than the value needs.
    length: usize,
    value: u64,
}

/// Which programs read the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The shortest, for people, ClusterShell and rackstrap itself: `r[01-02]n01`, `n[1-2]-ib`.
    Short,
    /// For Slurm, which refuses a name with text after its last bracket: `r[01-02]n[01]`, and `n1-ib,n2-ib` one by
    /// one. The other programs read that too.
    Slurm,
}

/// The numbers in each dimension, sorted.
type Block = Vec<Vec<Number>>;

/// The texts before, between and behind the numbers: one more than numbers.
type Skeleton<'a> = Vec<&'a str>;

/// The hostlist of `names`, which are in natural order and each there once.
pub(super) fn fold<'a>(names: impl Iterator<Item = &'a str>, dialect: Dialect) -> String {
    let mut families: BTreeMap<Skeleton, Vec<Block>> = BTreeMap::new();
    for name in names {
        let (skeleton, numbers) = take_apart(name);
        let point = numbers.into_iter().map(|number| vec![number]).collect();
        families.entry(skeleton).or_default().push(point);
    }
    let mut terms = Vec::new();
    for (skeleton, points) in families {
        let dimensions = skeleton.len() - 1;
        let forwards: Vec<usize> = (0..dimensions).collect();
        let backwards: Vec<usize> = (0..dimensions).rev().collect();
        let tail = skeleton.last().is_some_and(|text| !text.is_empty());
        // Which dimension comes first matters where there are holes. Racks are filled position by position: the last.
        let boxes = match dimensions {
            _ if tail && dialect == Dialect::Slurm => points,
            0 | 1 => join(points, &backwards),
            _ => {
                let (ours, theirs) = (join(points.clone(), &backwards), join(points, &forwards));
                let length = |boxes: &[Block]| {
                    boxes
                        .iter()
                        .map(|b| write(&skeleton, b, dialect).len() + 1)
                        .sum::<usize>()
                };
                if length(&theirs) < length(&ours) { theirs } else { ours }
            }
        };
        terms.extend(
            boxes
                .iter()
                .map(|numbers| (first(&skeleton, numbers), write(&skeleton, numbers, dialect))),
        );
    }
    terms.sort_by(|(a, _), (b, _)| natural_cmp(a, b));
    let terms: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    terms.join(",")
}

/// Texts and numbers of a name. What no bracket can hold stays text: too many numbers, or too many digits.
fn take_apart(name: &str) -> (Skeleton<'_>, Vec<Number>) {
    let (mut texts, mut numbers) = (Vec::new(), Vec::new());
    let bytes = name.as_bytes();
    let (mut text, mut at) = (0, 0);
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if (1..=MAX_DIGITS).contains(&length)
            && numbers.len() < MAX_BRACKETS
            && let Ok(value) = name[at..at + length].parse()
        {
            texts.push(&name[text..at]);
            numbers.push(Number { length, value });
            text = at + length;
        }
        at += length.max(1);
    }
    texts.push(&name[text..]);
    (texts, numbers)
}

/// Joins boxes that are equal but for one dimension, in the given order of dimensions, until nothing changes.
fn join(mut boxes: Vec<Block>, dimensions: &[usize]) -> Vec<Block> {
    loop {
        let before = boxes.len();
        for &dimension in dimensions {
            let mut joined: HashMap<Block, Vec<Number>> = HashMap::with_capacity(boxes.len());
            for mut numbers in boxes {
                let along = std::mem::take(&mut numbers[dimension]);
                joined.entry(numbers).or_default().extend(along);
            }
            let whole = joined.into_iter().map(|(mut numbers, mut along)| {
                along.sort_unstable();
                numbers[dimension] = along;
                numbers
            });
            boxes = whole.collect();
        }
        if boxes.len() == before {
            // The map above has an order of its own.
            boxes.sort_unstable();
            return boxes;
        }
    }
}

fn write(skeleton: &Skeleton, numbers: &Block, dialect: Dialect) -> String {
    let any = numbers.iter().any(|along| along.len() > 1);
    let last = numbers.len().saturating_sub(1);
    let written = numbers.iter().enumerate().map(|(at, along)| match along.as_slice() {
        // Slurm takes no text behind the last bracket, also not the digits of a number.
        [one] if any && at == last && dialect == Dialect::Slurm => format!("[{one}]"),
        [one] => one.to_string(),
        several => bracket(several),
    });
    put_together(skeleton, written)
}

/// The first name in it, which it is sorted by.
fn first(skeleton: &Skeleton, numbers: &Block) -> String {
    put_together(skeleton, numbers.iter().map(|along| along[0].to_string()))
}

fn put_together(skeleton: &Skeleton, numbers: impl Iterator<Item = String>) -> String {
    let mut term = skeleton[0].to_owned();
    for (number, text) in numbers.zip(&skeleton[1..]) {
        term.push_str(&number);
        term.push_str(text);
    }
    term
}

/// `[1-3,7]`.
fn bracket(along: &[Number]) -> String {
    let mut runs: Vec<(Number, Number)> = Vec::new();
    for &number in along {
        match runs.last_mut() {
            Some((first, last)) if number.continues(*first, *last) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let written = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    format!("[{}]", written.collect::<Vec<_>>().join(","))
}

impl Number {
    /// True if the range from `first` to `last` may include this number. One with zeros in front ends where the numbers get
    /// longer: `[08-100]` is a range for Slurm and an error for ClusterShell.
    fn continues(self, first: Number, last: Number) -> bool {
        let as_wide = self.length == last.length || !(first.is_padded() || self.is_padded());
        self.value == last.value + 1 && as_wide
    }

    fn is_padded(self) -> bool {
        let needed = self.value.checked_ilog10().map_or(1, |log| log as usize + 1);
        self.length > needed
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:01$}", self.value, self.length)
    }
}
