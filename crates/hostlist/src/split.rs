//! A hostlist cut into terms and the operators before them.

use super::error::{At, Fault};
use std::ops::Range;

/// What is done with a term and what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `,` or a blank: both.
    Union,
    /// `!`: without it.
    Difference,
    /// `&`: what is in both.
    Intersection,
    /// `^`: what is in one of them only.
    SymmetricDifference,
}

impl Operator {
    fn of(character: char) -> Option<Self> {
        Some(match character {
            ',' => Operator::Union,
            '!' => Operator::Difference,
            '&' => Operator::Intersection,
            '^' => Operator::SymmetricDifference,
            _ => return None,
        })
    }
}

/// A term, and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// How it joins what stands before it.
    pub operator: Operator,
    /// Where it is in the text; never empty.
    pub place: Range<usize>,
}

/// Cuts `text`. `something_before`: it may begin with an operator, as there is something to its left.
pub(super) fn split(text: &str, something_before: bool) -> Result<Vec<Term>, At> {
    let mut terms = Vec::new();
    // The operator that waits for its right side, and its place.
    let mut pending: Option<(Operator, usize)> = None;
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        if character.is_whitespace() {
            at += character.len_utf8();
        } else if let Some(operator) = Operator::of(character) {
            if let Some((_, before)) = pending {
                return Err((before, dangling(&text[before..=before])));
            }
            if terms.is_empty() && !something_before {
                return Err((at, leading(operator, &text[at + 1..])));
            }
            pending = Some((operator, at));
            at += 1;
        } else {
            let end = at + term_length(&text[at..]);
            terms.push(Term {
                operator: pending.take().map_or(Operator::Union, |(operator, _)| operator),
                place: at..end,
            });
            at = end;
        }
    }
    match pending {
        Some((_, at)) => Err((at, dangling(&text[at..=at]))),
        None => Ok(terms),
    }
}

/// Up to the next operator or blank that is in no bracket.
fn term_length(text: &str) -> usize {
    let mut inside = false;
    let end = text.find(|character: char| {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
        !inside && (character.is_whitespace() || Operator::of(character).is_some())
    });
    end.unwrap_or(text.len())
}

fn dangling(operator: &str) -> Fault {
    Fault::new(
        format!("nothing stands to the right of '{operator}'"),
        "write a node, a hostlist or a @group there, or take it away",
    )
}

fn leading(operator: Operator, rest: &str) -> Fault {
    if operator != Operator::Difference {
        return Fault::new(
            "it begins with an operator",
            "write a node, a hostlist or a @group to the left of it, or take it away",
        );
    }
    let rest = super::error::shown(rest.trim());
    Fault::new(
        "there is nothing that this could be excluded from",
        format!("write '*!{rest}' for all nodes without these"),
    )
}
