//! Hostlists: many nodes in few characters, as administrators write them for ClusterShell and Slurm.
//!
//! | written | means |
//! |---|---|
//! | `r01n01,r01n07` | these two; blanks and line ends separate as commas do |
//! | `r[01-04]n[01-32]` | 4 x 32 nodes: every bracket with every other |
//! | `n[1-3,7,10-20/2]` | lists and steps inside brackets |
//! | `n[01-12]` | zeros are kept: `n01` and `n1` are two nodes; `n[08-100]` counts from `n08` to `n100`, as in Slurm |
//! | `r[1-4]!r3`, `r[1-4] !r3` | without `r3` |
//! | `@gpu&r01*` | those of both |
//! | `@gpu^@new` | those of exactly one |
//! | `@gpu`, `@profile:compute`, `@rack[1-3]` | groups, which [`Groups`] knows |
//! | `*`, `@*` | all nodes |
//! | `r01*`, `r0?n01` | all nodes whose names look like this |
//!
//! Operators (`,` `!` `&` `^`) work from left to right, as in ClusterShell: `a,b!b,c` is `a` and `c`. Shells know `!`, `&`,
//! `*` and brackets too, so hostlists with them are written in single quotes.
//!
//! The result is a [`NodeSet`], in natural order (`r2n1` before `r10n1`), which displays as a hostlist again: `expand` and
//! `fold` are each other's inverse. The empty set is the empty text, as in ClusterShell. Other programs read other lists:
//! what goes to Slurm is folded in Slurm's [`Dialect`].
//!
//! Nothing here is worth an attack: sizes are computed before anything is expanded, and every limit is an error that says so.

mod error;
mod evaluate;
mod fold;
mod groups;
pub mod naming;
mod natural;
mod pattern;
mod set;
mod split;
#[cfg(test)]
mod tests;

pub use error::HostlistError;
pub use fold::Dialect;
pub use groups::{Groups, Members, Membership, NoGroups};
pub use natural::natural_cmp;
pub use set::{IntoNames, NodeSet};

/// Names that a set, and each part of a hostlist, may have: sixteen times the largest cluster that we build for.
const MAX_NAMES: usize = 65_536;
/// Names that all parts of a hostlist may have together, counted as often as they are named; groups within groups too.
const MAX_WORK: usize = 4 * MAX_NAMES;
/// Bytes of a hostlist: `MAX_NAMES` names written out.
pub const MAX_TEXT: usize = 4 << 20;
/// Brackets in one name.
const MAX_BRACKETS: usize = 8;
/// Digits of a number in brackets.
const MAX_DIGITS: usize = 15;
/// Bytes of a name, RFC 1035 section 2.3.4 (255 with the length bytes that are not written).
const MAX_NAME: usize = 253;
/// A group may name groups, which name groups, and so on, this deep.
const MAX_DEPTH: usize = 16;

/// The nodes of one hostlist; none of an empty text.
///
/// # Errors
/// Says where in the text what was found, and what to write instead.
pub fn expand(text: &str, groups: &dyn Groups) -> Result<NodeSet, HostlistError> {
    expand_all([text], groups)
}

/// The nodes of a hostlist that is several arguments of a command. Each is added to those before it, unless it begins with
/// an operator: `r[01-04]n[01-32] !r01n05`.
///
/// # Errors
/// As [`expand`]; the text and the column are those of the argument.
pub fn expand_all<S: AsRef<str>>(
    texts: impl IntoIterator<Item = S>,
    groups: &dyn Groups,
) -> Result<NodeSet, HostlistError> {
    let mut evaluation = evaluate::Evaluation::new(groups);
    for text in texts {
        evaluation.add(text.as_ref())?;
    }
    Ok(evaluation.finish())
}

/// The names of hostlists in the order in which they are written: a range counts up, the last bracket fastest,
/// and a group or a wildcard is in natural order.
///
/// # Errors
/// As [`expand`], and a name that is written twice if `repeats` refuses it.
pub fn expand_in_order<S: AsRef<str>>(
    texts: impl IntoIterator<Item = S>,
    groups: &dyn Groups,
    repeats: Repeats,
) -> Result<Vec<String>, HostlistError> {
    let mut evaluation = evaluate::Evaluation::new(groups);
    let mut names = Vec::new();
    for text in texts {
        evaluation.add_in_order(text.as_ref(), repeats, &mut names)?;
    }
    Ok(names)
}

/// What becomes of a name that an ordered list has twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Its first place counts: `r01n07,r01*` is the rack, with `r01n07` first.
    First,
    /// It is an error, because it would pair with two.
    Refused,
}

/// The hostlists of a file or of the standard input, one or more a line. Empty lines, and what follows a `#`, are passed over.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.filter(|line| !line.trim().is_empty())
}
